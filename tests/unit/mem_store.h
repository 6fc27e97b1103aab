/* An object store in memory for tests, with faults on demand, and archived WAL to put into it.
 *
 * The store checks what it is given: a put whose SHA-256 does not fit its body, or with forbidden
 * metadata, aborts the test. Functions named mem_* may be called from any thread, also while
 * operations are under way: they are the other hosts. */
#ifndef WALEFS_TESTS_MEM_STORE_H
#define WALEFS_TESTS_MEM_STORE_H

#include "core/openpgp.h"
#include "core/store.h"

enum mem_op { MEM_HEAD, MEM_GET, MEM_READ, MEM_PUT, MEM_LIST, MEM_REMOVE, MEM_OPS };
#define MEM_ANY MEM_OPS /* all but MEM_READ, which is one read of a body that MEM_GET opened */

/* Called at the beginning of each operation, without a lock. */
typedef void mem_hook(void *arg, enum mem_op op, const char *key);

struct mem_store;

struct mem_store *mem_store_new(void);
struct store *mem_base(struct mem_store *m); /* freed by its ops->free */

void mem_set(struct mem_store *m, const char *key, const void *data, size_t n,
             const struct store_meta *meta, size_t meta_count);
/* Objects are of 2023; this one, which there is, is of WHEN_S now. */
void mem_set_time(struct mem_store *m, const char *key, int64_t when_s);
void mem_delete(struct mem_store *m, const char *key);
bool mem_has(struct mem_store *m, const char *key);
size_t mem_count(struct mem_store *m);
/* A copy, NULL when there is no such object. The caller frees it. */
void *mem_copy(struct mem_store *m, const char *key, size_t *n);
/* Changes each time the object is stored; 0 when there is none. */
uint64_t mem_generation(struct mem_store *m, const char *key);
/* false when the object has no such metadata. */
bool mem_meta(struct mem_store *m, const char *key, const char *name, struct store_meta *out);

/* Calls number FIRST (from 1, counted from now on) and the COUNT - 1 after it fail with CODE. A new
 * fault replaces an older one. */
void mem_fail(struct mem_store *m, enum mem_op op, unsigned first, unsigned count,
              enum err_code code);
/* The next COUNT puts are done, but answered with CODE. */
void mem_lose_answers(struct mem_store *m, unsigned count, enum err_code code);
/* Calls do not return before they are cancelled, their deadline passes or mem_heal. Bodies that
 * are open stay readable unless OP is MEM_READ. */
void mem_hang(struct mem_store *m, enum mem_op op);
/* As mem_hang for one key. */
void mem_hang_key(struct mem_store *m, enum mem_op op, const char *key);
unsigned mem_hanging(struct mem_store *m);
/* No faults any more; what hangs goes on. */
void mem_heal(struct mem_store *m);

/* Conditional puts look first and write later; the hook runs in between, with MEM_PUT again. */
void mem_weak_guard(struct mem_store *m);
void mem_set_hook(struct mem_store *m, mem_hook *hook, void *arg);
void mem_page_size(struct mem_store *m, size_t keys);
/* Since the store was made; MEM_ANY: all but reads. */
unsigned mem_calls(struct mem_store *m, enum mem_op op);
/* How many bodies are open: sources that were not closed. */
unsigned mem_open_bodies(struct mem_store *m);

/* ---- archived WAL ---- */

/* Fills SIZE bytes with a segment that belongs under NAME and differs by SEED. */
void test_segment(void *out, uint32_t size, const char *name, unsigned seed);

/* Stores PLAIN under "wal_005/NAME.lzo" as WAL-E would (lzop, no metadata). */
void mem_archive(struct mem_store *m, const char *name, const void *plain, size_t n);
/* The same for a segment made by test_segment. */
void mem_archive_segment(struct mem_store *m, const char *name, uint32_t size, unsigned seed);

/* Is exactly PLAIN archived under NAME, as the bytes of the object tell? PGP decodes them. */
bool mem_holds(struct mem_store *m, struct openpgp *pgp, const char *name, const void *plain,
               size_t n);

/* The same for a segment made by test_segment. */
bool mem_holds_segment(struct mem_store *m, struct openpgp *pgp, const char *name, uint32_t size,
                       unsigned seed);

/* openpgp_new without recipients. */
struct openpgp *test_plain_pgp(void);

#endif
