#include "check_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store_file.h"

static const char functions[] =
    "set -e; mkdir -p wal_005 basebackups_005\n"
    "seg() { python3 \"$ROOT/tests/lib/walseg.py\" $1 1 x && lzop -c x >wal_005/$1.lzo && rm x; }\n"
    "text() { printf \"$2\" | lzop -c >wal_005/$1.lzo; }\n"
    "backup() { d=basebackups_005/$1; mkdir -p $d/tar_partitions; echo 15 >PG_VERSION\n"
    "tar -cf x PG_VERSION; lzop -c x >$d/tar_partitions/part_00000000.tar.lzo; rm x PG_VERSION\n"
    "s=${1#base_}; s=${s%_*}; lsn=0/$(printf %X $((0x${s#????????????????} << 20 | 0x28)))\n"
    "stop=0/$(printf %X $((0x${2#????????????????} << 20 | 0x100)))\n"
    "printf '{\"wal_segment_backup_stop\": \"%s\", \"wal_segment_offset_backup_stop\": "
    "\"00000256\", "
    "\"walefs\": {\"start_lsn\": \"%s\", \"timeline\": %d, \"stop_lsn\": \"%s\", "
    "\"stop_timeline\": %d, \"segment_size\": 1048576}}' $2 $lsn $((0x${s%????????????????})) "
    "$stop "
    "$((0x${2%????????????????})) >${d}_backup_stop_sentinel.json; }\n";

static char *root;

void check_env_begin(struct check_env *e)
{
    struct err err = ERR_INIT;
    struct openpgp_options pgp = {.max_processes = 2};
    memset(e, 0, sizeof(*e));
    root = getcwd(NULL, 0);
    (void)snprintf(e->dir, sizeof(e->dir), "/tmp/walefs-test.XXXXXX");
    assert_non_null(root);
    assert_non_null(mkdtemp(e->dir));
    cancel_init(&e->c.cancel);
    e->c.call = (struct call){.cancel = &e->c.cancel, .deadline_ms = DEADLINE_NONE};
    e->c.reads = true;
    e->c.config.cache_dir = strdup("/var/tmp");
    e->directory = store_file_new(e->dir, &err);
    e->c.pgp = openpgp_new(&pgp, &err);
    if (e->directory == NULL || e->c.pgp == NULL)
        fail_msg("%s", err.text);
    e->faults = fault_store_new(e->directory);
    e->c.store = fault_base(e->faults);
    e->c.out = open_memstream(&e->said, &e->said_bytes);
    assert_non_null(e->c.out);
    check_env_run(e, "true");
}

static void forget(struct check_env *e)
{
    check_wal_free(&e->c.wal);
    memset(&e->c.wal, 0, sizeof(e->c.wal));
    catalog_unref(e->c.catalog);
    e->c.catalog = NULL;
    e->c.worst = CHECK_OK;
    rewind(e->c.out);
}

void check_env_end(struct check_env *e)
{
    char command[128];
    forget(e);
    (void)fclose(e->c.out);
    free(e->said);
    free(e->c.config.cache_dir);
    openpgp_free(e->c.pgp);
    fault_store_free(e->faults);
    e->directory->ops->free(e->directory);
    cancel_destroy(&e->c.cancel);
    (void)snprintf(command, sizeof(command), "rm -r %s", e->dir);
    assert_int_equal(system(command), 0);
    free(root);
}

void check_env_run(struct check_env *e, const char *command)
{
    size_t n = sizeof(functions) + strlen(root) + strlen(e->dir) + strlen(command) + 64;
    char *text = malloc(n);
    assert_non_null(text);
    (void)snprintf(text, n, "cd %s; ROOT='%s'\n%s%s", e->dir, root, functions, command);
    if (system(text) != 0)
        fail_msg("%s", command);
    free(text);
}

void check_env_look(struct check_env *e, bool deep)
{
    struct err err = ERR_INIT;
    forget(e);
    e->c.catalog = catalog_load(e->c.store, NULL, NULL, &e->c.call, &err);
    if (e->c.catalog == NULL)
        fail_msg("%s", err.text);
    if (check_wal_load(&e->c)) {
        check_backups(&e->c);
        check_wal_timelines(&e->c);
    }
    if (deep)
        check_deep(&e->c);
    (void)fflush(e->c.out);
}

void check_env_says(struct check_env *e, const char *result, const char *check, const char *text)
{
    char *copy = strdup(e->said), *save = NULL;
    bool found = false;
    assert_non_null(copy);
    for (char *line = strtok_r(copy, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        found =
            found || (strncmp(line, result, strlen(result)) == 0 &&
                      strncmp(line + 8, check, strlen(check)) == 0 && strstr(line, text) != NULL);
    free(copy);
    if (!found)
        fail_msg("no \"%s %s ... %s\" in:\n%s", result, check, text, e->said);
}

void check_env_says_no(struct check_env *e, const char *result)
{
    char start[32];
    (void)snprintf(start, sizeof(start), "\n%s ", result);
    if (strstr(e->said, start) != NULL || strncmp(e->said, start + 1, strlen(start + 1)) == 0)
        fail_msg("%s", e->said);
}
