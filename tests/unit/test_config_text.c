#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/config_text.h"

#define SECRET "a/very+SECRET/key"
#define TOKEN "TOKENTOKENTOKEN"
#define PASSPHRASE "open sesame"

static struct settings settings;
static struct config config;
static char dir[64];

static void write_file(const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, 0600), 0);
}

static int begin(void **state)
{
    (void)state;
    memset(&settings, 0, sizeof(settings));
    memset(&config, 0, sizeof(config));
    strcpy(dir, "/tmp/walefs-test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    write_file("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE\n");
    write_file("AWS_SECRET_ACCESS_KEY", SECRET "\n");
    write_file("AWS_SESSION_TOKEN", TOKEN "\n");
    write_file("WALE_GPG_KEY_ID", "one@example.com:two\tX\n");
    write_file("passphrase", PASSPHRASE "\n");
    unsetenv("AWS_DEFAULT_REGION");
    setenv("AWS_REGION", "eu-central-1", 1);
    return 0;
}

static int end(void **state)
{
    char command[128];
    (void)state;
    config_free(&config);
    settings_free(&settings);
    (void)snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

static char *text_of(const char *source, const char *options)
{
    struct err err = ERR_INIT;
    char list[512];
    (void)snprintf(list, sizeof(list), "envdir=%s,passphrase_file=%s/passphrase,%s", dir, dir,
                   options);
    assert_true(settings_add_options(&settings, list, &err));
    if (!settings_complete(&settings, &err) || !config_make(&config, &settings, source, true, &err))
        fail_msg("%s", err.text);
    char *text = config_text(&config, &settings, &err);
    assert_non_null(text);
    return text;
}

static void assert_line(const char *text, const char *line)
{
    const char *p = strstr(text, line);
    if (p == NULL || (p != text && p[-1] != '\n') || p[strlen(line)] != '\n')
        fail_msg("no line \"%s\" in:\n%s", line, text);
}

static void test_values_and_origins(void **state)
{
    (void)state;
    char *text =
        text_of("s3://bucket/pre/fix", "soft,soft_timeout=7,url_style=path,storage_class=X");
    assert_line(text, "option\tvalue\torigin");
    assert_line(text, "archive\ts3://bucket/pre/fix\toption");
    assert_line(text, "region\teu-central-1\tenvironment");
    assert_line(text, "gpg_key\tone@example.com:two?X\tenvdir");
    assert_line(text, "soft\tyes\toption");
    assert_line(text, "ro\tno\tdefault");
    assert_line(text, "soft_timeout\t7\toption");
    assert_line(text, "write_timeout\t60\tdefault");
    assert_line(text, "prefetch\t8\tdefault");
    assert_line(text, "sse\t-\tdefault");
    unsigned lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines, 2 + SET_COUNT + 3); /* each setting once */
    free(text);
}

static void test_secrets_are_only_set(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char *text = text_of("s3://bucket/x", "ro");
    char *identity = config_identity(&config, &settings, "WXYZ", &err);
    char *keys = config_keys(&config, &err);
    assert_line(text, "AWS_ACCESS_KEY_ID\tset\tenvdir");
    assert_line(text, "AWS_SECRET_ACCESS_KEY\tset\tenvdir");
    assert_line(text, "AWS_SESSION_TOKEN\tset\tenvdir");
    assert_line(text, "passphrase\tset\toption");
    const char *const texts[] = {text, identity, keys};
    for (size_t i = 0; i < 3; i++) {
        assert_null(strstr(texts[i], SECRET));
        assert_null(strstr(texts[i], TOKEN));
        assert_null(strstr(texts[i], PASSPHRASE));
        assert_null(strstr(texts[i], "AKIAIOSFODNN7"));
    }
    assert_string_equal(identity, "access key ...WXYZ (envdir)");
    assert_string_equal(keys, "one@example.com, two?X");
    free(text);
    free(identity);
    free(keys);
    identity = config_identity(&config, &settings, "", &err);
    assert_string_equal(identity, "an access key (envdir)");
    free(identity);
}

/* Keys in the envdir do not count then. */
static void test_a_profile(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    free(text_of("s3://bucket/x", "ro,profile=backup"));
    char *identity = config_identity(&config, &settings, "WXYZ", &err);
    assert_string_equal(identity, "profile backup, access key ...WXYZ");
    free(identity);
    identity = config_identity(&config, &settings, "", &err);
    assert_string_equal(identity, "profile backup");
    free(identity);
}

static void test_a_directory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char source[128], line[256];
    (void)snprintf(source, sizeof(source), "file://localhost%s", dir);
    setenv("WALE_FILE_PREFIX", source, 1);
    char *text = text_of("-", "ro");
    unsetenv("WALE_FILE_PREFIX");
    (void)snprintf(line, sizeof(line), "archive\t%s\tenvironment", source);
    assert_line(text, line);
    char *identity = config_identity(&config, &settings, "", &err);
    assert_null(strstr(identity, "key"));
    free(identity);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_and_origins, begin, end),
        cmocka_unit_test_setup_teardown(test_secrets_are_only_set, begin, end),
        cmocka_unit_test_setup_teardown(test_a_profile, begin, end),
        cmocka_unit_test_setup_teardown(test_a_directory, begin, end),
    };
    return cmocka_run_group_tests_name("config_text", tests, NULL, NULL);
}
