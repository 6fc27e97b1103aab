/* mount/config.c: what settings mean, and messages that name the one that is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "mount/config.h"
#include "tests/unit/store_env.h"

static struct settings s;
static struct config c;
static char dir[32];

static int set_up(void **state)
{
    (void)state;
    static const char *const variables[] = {
        "WALE_S3_PREFIX",      "WALE_FILE_PREFIX",      "AWS_REGION",
        "AWS_DEFAULT_REGION",  "AWS_CA_BUNDLE",         "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",       "WALE_S3_ENDPOINT",      "GNUPGHOME",
        "WALE_GPG_KEY_ID",     "WALE_S3_STORAGE_CLASS", "WALE_LOG_DESTINATION",
        "WALE_SYSLOG_FACILITY"};
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    memset(&s, 0, sizeof(s));
    memset(&c, 0, sizeof(c));
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "verysecret", 1);
    strcpy(dir, "/tmp/walefs-test.XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    config_free(&c);
    settings_free(&s);
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static bool make(const char *source, const char *options, struct err *err)
{
    config_free(&c);
    settings_free(&s);
    setenv("AWS_SECRET_ACCESS_KEY", "verysecret", 1);
    return settings_add_options(&s, options, err) && settings_complete(&s, err) &&
           config_make(&c, &s, source, true, err);
}

static void good(const char *source, const char *options)
{
    struct err err = ERR_INIT;
    if (!make(source, options, &err))
        fail_msg("%s -o %s: %s", source == NULL ? "(none)" : source, options, err.text);
}

/* Refused with a message that says HINT, on one line, and no secret. */
static void bad(const char *source, const char *options, const char *hint)
{
    struct err err = ERR_INIT;
    if (make(source, options, &err))
        fail_msg("accepted: %s -o %s", source == NULL ? "(none)" : source, options);
    assert_int_not_equal(err.code, ERR_NONE);
    if (strstr(err.text, hint) == NULL)
        fail_msg("\"%s\" does not say %s", err.text, hint);
    assert_null(strchr(err.text, '\n'));
    assert_null(strstr(err.text, "verysecret"));
}

/* ---- the archive ---- */

static void test_s3_source(void **state)
{
    (void)state;
    good("s3://bucket/some/prefix", "");
    assert_false(c.is_file);
    assert_string_equal(c.bucket, "bucket");
    assert_string_equal(c.prefix, "some/prefix");
    good("s3://bucket", "");
    assert_string_equal(c.prefix, "");
    good("s3://bucket/", "");
    assert_string_equal(c.prefix, "");
    good("s3://my.bucket-1_X//a/", "");
    assert_string_equal(c.bucket, "my.bucket-1_X");
    assert_string_equal(c.prefix, "a/");
}

static void test_file_source(void **state)
{
    (void)state;
    good("file://localhost/srv/archive", "");
    assert_true(c.is_file);
    assert_string_equal(c.directory, "/srv/archive");
    good("file:///srv/archive", "");
    assert_string_equal(c.directory, "/srv/archive");
    unsetenv("AWS_ACCESS_KEY_ID"); /* no credentials are needed */
    good("file://localhost/", "");
    assert_string_equal(c.directory, "/");
}

static void test_source_of_the_environment(void **state)
{
    (void)state;
    bad(NULL, "", "WALE_S3_PREFIX");
    bad("-", "", "WALE_S3_PREFIX");
    setenv("WALE_FILE_PREFIX", "file://localhost/f", 1);
    good(NULL, "");
    assert_true(c.is_file);
    setenv("WALE_S3_PREFIX", "s3://from-environment/x", 1);
    good("-", "");
    assert_string_equal(c.bucket, "from-environment");
    good("s3://given/y", "");
    assert_string_equal(c.bucket, "given");
    setenv("WALE_S3_PREFIX", "http://wrong/", 1);
    bad(NULL, "", "http://wrong/");
}

static void test_malformed_sources(void **state)
{
    (void)state;
    static const char *const sources[] = {"",
                                          "bucket/prefix",
                                          "/srv/archive",
                                          "S3://bucket",
                                          "s3:/bucket/x",
                                          "s3://",
                                          "s3:///prefix",
                                          "s3://b",
                                          "s3://bu cket/x",
                                          "s3://bucket?x",
                                          "s3://user@bucket/x",
                                          "s3://bucket:80/x",
                                          "http://bucket/x",
                                          "file://",
                                          "file://localhost",
                                          "file://otherhost/dir",
                                          "file://relative",
                                          "file:/srv/archive"};
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        bad(sources[i], "", "expected");
    char url[400];
    (void)snprintf(url, sizeof(url), "s3://%0300d/x", 0);
    bad(url, "", "bucket");
}

/* ---- S3 ---- */

static void endpoint(const char *text, const char *plain, bool path_style)
{
    char options[256];
    (void)snprintf(options, sizeof(options), "endpoint=%s", text);
    good("s3://bucket/x", options);
    assert_string_equal(c.endpoint, plain);
    assert_int_equal(c.path_style, path_style);
}

static void test_endpoints(void **state)
{
    (void)state;
    good("s3://bucket/x", "");
    assert_null(c.endpoint);
    assert_false(c.path_style);
    endpoint("http://localhost:7480", "http://localhost:7480", true);
    endpoint("https://s3.example.org/", "https://s3.example.org", true);
    endpoint("http+path://host:80", "http://host:80", true);
    endpoint("https+path://host", "https://host", true);
    endpoint("http+virtualhost://host", "http://host", false);
    endpoint("https+virtualhost://host///", "https://host", false);
    endpoint("http+subdomain://host", "http://host", false);
    endpoint("https+subdomain://host", "https://host", false);
    endpoint("http://[::1]:7480", "http://[::1]:7480", true);
    good("s3://bucket/x", "endpoint=http://host,url_style=virtual");
    assert_false(c.path_style);
    good("s3://bucket/x", "endpoint=https+virtualhost://host,url_style=path");
    assert_true(c.path_style);
    good("s3://bucket/x", "url_style=path");
    assert_true(c.path_style);
}

static void test_malformed_endpoints(void **state)
{
    (void)state;
    static const char *const wrong[] = {"localhost:7480", "ftp://host",          "http://",
                                        "http:///",       "http://host/x",       "HTTP://host",
                                        "//host",         "http+foo://host",     "http://host/x/",
                                        "http:// host",   "http://user:pw@host", "http://host?x=1",
                                        "http://host#x",  "http://:7480"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char options[128];
        (void)snprintf(options, sizeof(options), "endpoint=%s", wrong[i]);
        bad("s3://bucket/x", options, "endpoint");
    }
    setenv("WALE_S3_ENDPOINT", "nonsense", 1);
    bad("s3://bucket/x", "", "WALE_S3_ENDPOINT=nonsense");
    unsetenv("WALE_S3_ENDPOINT");
    bad("s3://bucket/x", "url_style=Path", "url_style");
}

static void test_encryption_by_the_server(void **state)
{
    (void)state;
    good("s3://bucket/x", "");
    assert_int_equal(c.sse, S3_SSE_NONE);
    good("s3://bucket/x", "sse=AES256");
    assert_int_equal(c.sse, S3_SSE_AES256);
    good("s3://bucket/x", "sse=aws:kms");
    assert_int_equal(c.sse, S3_SSE_KMS);
    assert_null(c.sse_kms_key);
    good("s3://bucket/x", "sse=aws:kms:arn:aws:kms:eu:1:key/2");
    assert_string_equal(c.sse_kms_key, "arn:aws:kms:eu:1:key/2");
    bad("s3://bucket/x", "sse=aes256", "sse");
    bad("s3://bucket/x", "sse=aws:kmsx", "sse");
    bad("s3://bucket/x", "sse=aws:kms:", "sse");
}

static void test_ca_file(void **state)
{
    (void)state;
    bad("s3://bucket/x", "cafile=/nonexistent/ca.pem", "/nonexistent/ca.pem");
    setenv("CURL_CA_BUNDLE", "/nonexistent/env.pem", 1);
    bad("s3://bucket/x", "", "/nonexistent/env.pem");
}

/* ---- the passphrase ---- */

static void put_file(const char *where, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", where, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void test_passphrase_from_credentials(void **state)
{
    (void)state;
    char creds[] = "/tmp/walefs-test.XXXXXX", options[128], command[128];
    assert_non_null(mkdtemp(creds));
    put_file(creds, "passphrase", "usual\n");
    put_file(creds, "pg-pass", "named\n");
    (void)snprintf(options, sizeof(options), "passphrase_file=%s/pg-pass", creds);
    good("s3://bucket/x", options);
    assert_string_equal(c.passphrase.value, "named");
    good("s3://bucket/x", "");
    assert_false(secret_is_set(&c.passphrase));
    setenv("CREDENTIALS_DIRECTORY", creds, 1);
    good("s3://bucket/x", "");
    assert_string_equal(c.passphrase.value, "usual");
    good("s3://bucket/x", "passphrase_file=pg-pass");
    assert_string_equal(c.passphrase.value, "named");
    bad("s3://bucket/x", "passphrase_file=no-such", "no-such");
    bad("s3://bucket/x", "passphrase_file=/no/pg-pass", "/no/pg-pass");
    put_file(creds, "passphrase", "");
    bad("s3://bucket/x", "", "empty");
    (void)snprintf(command, sizeof(command), "rm -r %s", creds);
    assert_int_equal(system(command), 0);
    good("s3://bucket/x", ""); /* systemd sets it for other credentials, too */
    assert_false(secret_is_set(&c.passphrase));
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void test_expired_keys(void **state)
{
    (void)state;
    good("s3://bucket/x", "");
    assert_false(c.allow_expired);
    good("s3://bucket/x", "allow_expired");
    assert_true(c.allow_expired);
}

/* ---- numbers ---- */

static void test_times(void **state)
{
    (void)state;
    good("s3://bucket/x", "");
    assert_int_equal(c.write_timeout_ms, 60000); /* as the design says */
    good(
        "s3://bucket/x",
        "write_timeout=1.5,soft_timeout=2,connect_timeout=3,stall_timeout=4,request_timeout=86400");
    assert_int_equal(c.write_timeout_ms, 1500);
    assert_int_equal(c.soft_timeout_ms, 2000);
    assert_int_equal(c.connect_timeout_ms, 3000);
    assert_int_equal(c.stall_timeout_ms, 4000);
    assert_int_equal(c.request_timeout_ms, 86400000);
    good("s3://bucket/x", "write_timeout=0.0001");
    assert_true(c.write_timeout_ms > 0);
    static const char *const wrong[] = {"0",   "-1",  "86401", "1e9", "nan", "inf",  "x",
                                        "10s", "1,5", "",      "5 ",  "--5", "1e400"};
    static const char *const names[] = {"write_timeout", "soft_timeout", "connect_timeout",
                                        "stall_timeout", "request_timeout"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
            char options[64];
            (void)snprintf(options, sizeof(options), "%s=%s", names[n], wrong[i]);
            bad("s3://bucket/x", options, strcmp(wrong[i], "1,5") == 0 ? "" : names[n]);
        }
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {{"0", 0},
                 {"1000", 1000},
                 {"64K", 65536},
                 {"64k", 65536},
                 {"512M", UINT64_C(512) << 20},
                 {"2G", UINT64_C(2) << 30},
                 {"100g", UINT64_C(100) << 30},
                 {"2147483648", UINT64_C(2) << 30},
                 {"10737418240", UINT64_C(10) << 30}};
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        char options[64];
        (void)snprintf(options, sizeof(options), "cache_size=%s", right[i].text);
        good("s3://bucket/x", options);
        assert_int_equal(c.cache_bytes, right[i].bytes);
    }
    static const char *const wrong[] = {"x",    "-1",  "1.5G", "1T",
                                        "1GB",  " 1G", "+1",   "18446744073709551616",
                                        "0x10", "1 G", "G",    "99999999999G"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char options[64];
        (void)snprintf(options, sizeof(options), "cache_size=%s", wrong[i]);
        bad("s3://bucket/x", options, "cache_size");
    }
    good("s3://bucket/x", "");
    assert_int_equal(c.partition_bytes, 256u << 20);
    good("s3://bucket/x", "partition_size=1M");
    good("s3://bucket/x", "partition_size=1535M");
    assert_int_equal(c.partition_bytes, 1535u << 20);
    bad("s3://bucket/x", "partition_size=1536M", "partition_size"); /* WAL-E's limit */
    bad("s3://bucket/x", "partition_size=1048575", "partition_size");
    good("s3://bucket/x", "prefetch=0");
    assert_int_equal(c.prefetch, 0);
    good("s3://bucket/x", "prefetch=64");
    bad("s3://bucket/x", "prefetch=65", "prefetch");
    bad("s3://bucket/x", "prefetch=-1", "prefetch");
    bad("s3://bucket/x", "prefetch=many", "prefetch");
}

/* ---- the rest ---- */

static void test_defaults(void **state)
{
    (void)state;
    good("s3://bucket/x", "");
    assert_true(c.hard);
    assert_false(c.read_only);
    assert_false(c.allow_other); /* private to its owner */
    assert_int_equal(c.uid, geteuid());
    assert_int_equal(c.gid, getegid());
    assert_int_equal(c.recipient_count, 0);
    good("s3://bucket/x", "soft,ro,allow_other,uid=0,gid=4294967294");
    assert_false(c.hard);
    assert_true(c.read_only);
    assert_true(c.allow_other);
    assert_int_equal(c.uid, 0);
    assert_int_equal(c.gid, 4294967294u);
}

static void test_owner(void **state)
{
    (void)state;
    good("s3://bucket/x", "uid=root,gid=root");
    assert_int_equal(c.uid, 0);
    assert_int_equal(c.gid, 0);
    bad("s3://bucket/x", "uid=no-such-user-x", "no-such-user-x");
    bad("s3://bucket/x", "gid=no-such-group-x", "no-such-group-x");
    bad("s3://bucket/x", "uid=4294967295", "uid");
    bad("s3://bucket/x", "gid=12x", "gid");
    bad("s3://bucket/x", "uid=99999999999999999999", "uid");
}

static void test_keys(void **state)
{
    (void)state;
    good("s3://bucket/x", "gpg_key=A:B,gpg_key=C");
    assert_int_equal(c.recipient_count, 3);
    assert_string_equal(c.recipients[0], "A");
    assert_string_equal(c.recipients[2], "C");
    bad("s3://bucket/x", "gpg_key=::", "gpg_key");
    char options[512] = "gpg_key=0";
    for (unsigned i = 1; i < CONFIG_MAX_RECIPIENTS; i++)
        (void)snprintf(options + strlen(options), sizeof(options) - strlen(options), ":%u", i);
    good("s3://bucket/x", options);
    assert_int_equal(c.recipient_count, CONFIG_MAX_RECIPIENTS);
    strcat(options, ":x");
    bad("s3://bucket/x", options, "gpg keys");
}

static void test_passphrase(void **state)
{
    (void)state;
    char path[64], options[128];
    (void)snprintf(path, sizeof(path), "%s/passphrase", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "open sesame \nsecond\n", 20), 20);
    close(fd);
    (void)snprintf(options, sizeof(options), "passphrase_file=%s", path);
    good("s3://bucket/x", options);
    assert_true(secret_is_set(&c.passphrase));
    assert_string_equal(c.passphrase.value, "open sesame "); /* blanks may belong to it */
    bad("s3://bucket/x", "passphrase_file=/nonexistent/file", "/nonexistent/file");
}

static void test_cache_dir(void **state)
{
    (void)state;
    char options[128], here[PATH_MAX], real[PATH_MAX];
    good("s3://bucket/x", "");
    assert_string_equal(c.cache_dir, "/var/tmp");
    (void)snprintf(options, sizeof(options), "cache_dir=%s", dir);
    good("s3://bucket/x", options);
    /* a daemon changes its directory */
    assert_non_null(getcwd(here, sizeof(here)));
    assert_non_null(realpath(dir, real));
    assert_int_equal(chdir(dir), 0);
    good("s3://bucket/x", "cache_dir=.");
    assert_int_equal(chdir(here), 0);
    assert_string_equal(c.cache_dir, real);
    bad("s3://bucket/x", "cache_dir=/nonexistent/dir", "/nonexistent/dir");
    bad("s3://bucket/x", "cache_dir=/dev/null", "cache_dir");
}

static const char *journal_of_stderr(void)
{
    static char stream[64];
    struct stat st;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return stream;
}

static void test_logging(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    good("s3://bucket/x", "");
    assert_int_equal(c.log_targets, LOG_TO_STDERR); /* in the foreground */
    setenv("WALE_LOG_DESTINATION", "syslog", 1);
    setenv("WALE_SYSLOG_FACILITY", "LOG_LOCAL3", 1);
    good("s3://bucket/x", "");
    assert_int_equal(c.log_targets, LOG_TO_SYSLOG);
    assert_int_equal(c.log_facility, LOG_LOCAL3);
    setenv("WALE_SYSLOG_FACILITY", "Daemon", 1);
    good("s3://bucket/x", "");
    assert_int_equal(c.log_facility, LOG_DAEMON);
    setenv("WALE_SYSLOG_FACILITY", "local8", 1);
    bad("s3://bucket/x", "", "WALE_SYSLOG_FACILITY");
    unsetenv("WALE_SYSLOG_FACILITY");
    unsetenv("WALE_LOG_DESTINATION");
    good("s3://bucket/x", "");
    setenv("WALE_LOG_DESTINATION", "stderr, syslog", 1);
    good("s3://bucket/x", "");
    assert_int_equal(c.log_targets, LOG_TO_STDERR | LOG_TO_SYSLOG);
    setenv("WALE_LOG_DESTINATION", "journal", 1); /* stderr is none: through syslog */
    good("s3://bucket/x", "");
    assert_int_equal(c.log_targets, LOG_TO_SYSLOG);
    setenv("JOURNAL_STREAM", journal_of_stderr(), 1);
    good("s3://bucket/x", "");
    assert_int_equal(c.log_targets, LOG_TO_JOURNAL);
    setenv("WALE_LOG_DESTINATION", "stderr", 1);
    good("s3://bucket/x", "");
    assert_int_equal(c.log_targets, LOG_TO_JOURNAL);
    unsetenv("JOURNAL_STREAM");
    setenv("WALE_LOG_DESTINATION", "stderr,elsewhere", 1);
    bad("s3://bucket/x", "", "WALE_LOG_DESTINATION");
    setenv("WALE_LOG_DESTINATION", " , ", 1);
    bad("s3://bucket/x", "", "WALE_LOG_DESTINATION");
    unsetenv("WALE_LOG_DESTINATION");
    good("s3://bucket/x", "");
    config_free(&c);
    assert_true(config_make(&c, &s, "s3://bucket/x", false, &err));
    assert_int_equal(c.log_targets, LOG_TO_SYSLOG); /* in the background there is no stderr */
}

static void test_stores(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char url[64];
    (void)snprintf(url, sizeof(url), "file://localhost%s", dir);
    good(url, "");
    struct store *store = config_make_store(&c, &s, NULL, &err);
    assert_non_null(store);
    assert_non_null(strstr(store->url, dir));
    store->ops->free(store);
    good("s3://bucket/x", "endpoint=http://localhost:1,region=eu-west-1");
    struct aws_cred *cred = config_make_cred(&c, &err);
    assert_non_null(cred);
    store = config_make_store(&c, &s, cred, &err);
    assert_non_null(store);
    assert_null(strstr(store->url, "verysecret"));
    store->ops->free(store);
    aws_cred_free(cred);
}

/* ---- what the store makes of it ---- */

/* Puts "hello" with these options, which name the server by %u. */
static bool put_with(const struct script *script, const char *options, struct err *err)
{
    char list[256];
    (void)snprintf(list, sizeof(list), options, script->port);
    good("s3://bucket/p", list);
    struct aws_cred *cred = config_make_cred(&c, err);
    assert_non_null(cred);
    struct store *store = config_make_store(&c, &s, cred, err);
    assert_non_null(store);
    bool ok = script_put_hello(store, false, err);
    store->ops->free(store);
    aws_cred_free(cred);
    return ok;
}

static void test_what_the_store_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *steps, *options;
    } cases[] = {
        {"[{'expect': 'PUT /bucket/p/key', 'etag': 'e', 'headers': {'authorization': "
         "'.* Credential=AKIDEXAMPLE/[0-9]+/us-east-1/s3/.*', 'x-amz-security-token': None, "
         "'x-amz-storage-class': None, 'x-amz-server-side-encryption': None}}]",
         "endpoint=http://127.0.0.1:%u"},
        {"[{'expect': 'PUT /p/key', 'etag': 'e', 'headers': {'host': 'bucket[.]localhost:[0-9]+', "
         "'authorization': '.* Credential=AKIDEXAMPLE/[0-9]+/eu-x-1/s3/.*', "
         "'x-amz-security-token': 'TOKEN', 'x-amz-storage-class': 'STANDARD_IA', "
         "'x-amz-server-side-encryption': 'aws:kms', "
         "'x-amz-server-side-encryption-aws-kms-key-id': 'arn:aws:kms:eu:1:key/2'}}]",
         "endpoint=http://localhost:%u,url_style=virtual,region=eu-x-1,storage_class=STANDARD_IA,"
         "sse=aws:kms:arn:aws:kms:eu:1:key/2"},
        {"[{'expect': 'PUT /bucket/p/key', 'etag': 'e', 'headers': {"
         "'x-amz-server-side-encryption': 'AES256'}}]",
         "endpoint=http://localhost:%u,url_style=path,sse=AES256"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct script script;
        struct err err = ERR_INIT;
        script_begin(&script, cases[i].steps);
        if (i == 1)
            setenv("AWS_SESSION_TOKEN", "TOKEN", 1); /* unset when it is read */
        if (!put_with(&script, cases[i].options, &err))
            fail_msg("%s: %s", cases[i].options, err.text);
        script_end(&script);
    }
}

/* Each limit ends what the other two, at their defaults, would go on with. */
static void test_how_long_the_store_waits(void **state)
{
    (void)state;
    static const char *const limits[] = {"endpoint=http://127.0.0.1:%u,stall_timeout=0.3",
                                         "endpoint=http://127.0.0.1:%u,request_timeout=0.3"};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < 2; i++) {
        struct script script;
        int64_t start = now_ms();
        script_begin(&script, "[{'sleep': 30, 'times': 3}]");
        assert_false(put_with(&script, limits[i], &err));
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_true(now_ms() - start < 10000);
        script_drop(&script);
    }
    struct deaf deaf;
    deaf_begin(&deaf);
    const struct script unanswered = {.port = deaf.port};
    int64_t start = now_ms();
    assert_false(put_with(&unanswered, "endpoint=http://127.0.0.1:%u,connect_timeout=0.3", &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_true(now_ms() - start < 8000);
    deaf_end(&deaf);
}

/* However much is coded at once: the others wait for a place (test_openpgp_slots). */
static void test_gpg_processes_are_few(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    long cores = sysconf(_SC_NPROCESSORS_ONLN), places = 0;
    good("s3://bucket/p", "");
    struct openpgp *pgp = config_make_openpgp(&c, &s, &err);
    assert_ok(pgp != NULL, &err);
    while (places < 1000 && openpgp_try_reserve(pgp))
        places++;
    assert_in_range(places, 1, cores + 4);
    while (places-- > 0)
        openpgp_release(pgp);
    openpgp_free(pgp);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_s3_source),
        T(test_file_source),
        T(test_source_of_the_environment),
        T(test_malformed_sources),
        T(test_endpoints),
        T(test_malformed_endpoints),
        T(test_encryption_by_the_server),
        T(test_ca_file),
        T(test_passphrase_from_credentials),
        T(test_expired_keys),
        T(test_times),
        T(test_sizes),
        T(test_defaults),
        T(test_owner),
        T(test_keys),
        T(test_passphrase),
        T(test_cache_dir),
        T(test_logging),
        T(test_stores),
        T(test_what_the_store_is_told),
        T(test_how_long_the_store_waits),
        T(test_gpg_processes_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
