/* A key out of one gpg home and into another, through memory. */
#include <stdlib.h>
#include <string.h>

#include "core/openpgp_internal.h"

#define EXPORT_MAX_BYTES (8 * 1024 * 1024)
#define LOG_MAX_BYTES (16 * 1024)

static bool export_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct gpg_exported *e = (struct gpg_exported *)self;
    if (n > EXPORT_MAX_BYTES - e->len)
        return err_set(err, ERR_KEY, "the key is larger than %d bytes", EXPORT_MAX_BYTES);
    memcpy(e->data + e->len, data, n);
    e->len += n;
    return true;
}

bool gpg_exported_init(struct gpg_exported *e, struct err *err)
{
    *e = (struct gpg_exported){.base = {.write = export_write}};
    e->data = malloc(EXPORT_MAX_BYTES);
    return e->data != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
}

void gpg_exported_free(struct gpg_exported *e)
{
    explicit_bzero(e->data, e->len);
    free(e->data);
}

bool gpg_export_key(const struct gpg_run_options *options, const char *fpr,
                    gpgme_export_mode_t mode, struct gpg_exported *out, unsigned *agent_error,
                    struct err *err)
{
    struct gpg_run run;
    struct gpg_stream to = {.run = &run, .sink = &out->base};
    gpgme_data_t data = NULL;
    bool ok =
        gpg_run_begin(&run, options, err) && gpg_stream_data(&to, &data, err) &&
        gpg_run_wait(&run, gpgme_op_export_start(run.ctx, fpr, mode, data), "exporting a key", err);
    if (ok) {
        *agent_error = run.status.agent_error;
        if (out->len == 0 && *agent_error == 0)
            *agent_error = run.result != 0 ? gpgme_err_code(run.result) : GPG_ERR_NO_SECKEY;
    }
    gpgme_data_release(data);
    gpg_run_end(&run);
    return ok;
}

bool gpg_import_key(const struct gpg_run_options *options, const struct gpg_exported *key,
                    struct err *err)
{
    struct gpg_run run;
    struct source *src = source_mem(key->data, key->len, err);
    struct gpg_stream from = {.run = &run, .source = src};
    gpgme_data_t data = NULL;
    if (src == NULL)
        return false;
    bool ok = gpg_run_begin(&run, options, err) && gpg_stream_data(&from, &data, err) &&
              gpg_run_wait(&run, gpgme_op_import_start(run.ctx, data),
                           "importing a key into the private home", err);
    if (ok) {
        const struct _gpgme_op_import_result *r = gpgme_op_import_result(run.ctx);
        /* with a passphrase it is a secret key that is wanted */
        bool imported =
            r != NULL && (options->passphrase != NULL ? r->secret_imported + r->secret_unchanged > 0
                                                      : r->imported + r->unchanged > 0);
        if (run.result != 0 || !imported) {
            struct buf log = BUF_INIT(LOG_MAX_BYTES);
            gpg_run_log(&run, &log);
            err_set(err, ERR_KEY, "cannot import a key into the private home");
            ok = gpg_add_log(err, buf_str(&log));
            buf_free(&log);
        }
    }
    gpgme_data_release(data);
    gpg_run_end(&run);
    source_close(src);
    return ok;
}
