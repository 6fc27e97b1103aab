#include "index_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/codec.h"
#include "core/spool.h"

struct backup_index *index_env_make(const struct backup_objects *objects, const char *paths,
                                    uint64_t size)
{
    struct err err = ERR_INIT;
    struct backup_index *index = backup_index_new(&err);
    char *copy = strdup(paths), *save = NULL;
    uint64_t offset = 512;
    struct index_partition only = {.number = 0};
    assert_non_null(index);
    assert_non_null(copy);
    if (objects->partition_count == 0)
        assert_true(backup_index_add_partition(index, &only, &err));
    for (size_t i = 0; i < objects->partition_count; i++) {
        const struct backup_object *o = &objects->objects[i];
        struct index_partition p = {
            .number = o->number, .stored_size = o->size, .map = {.plain_size = UINT64_C(1) << 30}};
        (void)snprintf(p.etag, sizeof(p.etag), "%s", o->etag);
        assert_true(backup_index_add_partition(index, &p, &err));
    }
    for (char *path = strtok_r(copy, " ", &save); path != NULL; path = strtok_r(NULL, " ", &save)) {
        const struct member m = {.path = path,
                                 .link = "",
                                 .type = MEMBER_FILE,
                                 .offset = offset,
                                 .size = size,
                                 .mode = 0600};
        assert_true(backup_index_add(index, &m, &err));
        offset += 512 + (size + 511) / 512 * 512;
    }
    assert_true(backup_index_seal(index, &err));
    free(copy);
    return index;
}

void index_env_put(struct store *store, struct openpgp *pgp, const char *name, const char *paths,
                   uint64_t size)
{
    const struct call call = CALL_INIT;
    struct err err = ERR_INIT;
    struct backup_objects objects;
    struct spool_result result;
    char key[STORE_KEY_MAX];
    assert_true(backup_objects_load(store, name, &objects, &call, &err));
    struct backup_index *index = index_env_make(&objects, paths, size);
    struct source *text = backup_index_write(index, &err);
    int fd = spool_open("/var/tmp", &err);
    struct sink *out = spool_sink(fd, UINT64_MAX, true, &result, &err);
    if (!codec_encode(pgp, text, out, false, NULL, &call, &err))
        fail_msg("%s", err.text);
    const struct store_put put = {.body = {.fd = fd, .size = result.size, .sha256 = result.sha256}};
    index_stored_key(name, key);
    if (!store->ops->put(store, key, &put, NULL, &call, &err))
        fail_msg("%s", err.text);
    sink_close(out);
    source_close(text);
    close(fd);
    backup_index_free(index);
    backup_objects_free(&objects);
}
