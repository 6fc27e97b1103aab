#include <string.h>
#include <sys/random.h>

#include "core/metrics.h"
#include "core/openpgp_internal.h"

#define LOG_MAX_BYTES (64 * 1024)
#define TRIAL_MAX 4096

/* Runs one operation with both streams; START begins it. */
typedef gpgme_error_t start_fn(gpgme_ctx_t ctx, const char *recipients, gpgme_data_t in,
                               gpgme_data_t out);

static gpgme_error_t start_encrypt(gpgme_ctx_t ctx, const char *recipients, gpgme_data_t in,
                                   gpgme_data_t out)
{
    return gpgme_op_encrypt_ext_start(
        ctx, NULL, recipients, GPGME_ENCRYPT_ALWAYS_TRUST | GPGME_ENCRYPT_NO_COMPRESS, in, out);
}

static gpgme_error_t start_decrypt(gpgme_ctx_t ctx, const char *recipients, gpgme_data_t in,
                                   gpgme_data_t out)
{
    (void)recipients;
    return gpgme_op_decrypt_start(ctx, in, out);
}

static bool judge(struct gpg_run *run, const struct gpg_run_options *options, bool encrypting,
                  struct err *err)
{
    struct buf log = BUF_INIT(LOG_MAX_BYTES);
    gpg_run_log(run, &log);
    bool ok = encrypting
                  ? gpg_judge_encrypt(&run->status, run->result, buf_str(&log), err)
                  : gpg_judge_decrypt(&run->status, run->result, buf_str(&log), options, err);
    buf_free(&log);
    return ok;
}

static bool crypt_run(const struct gpg_run_options *options, const char *recipients,
                      struct source *in, struct sink *out, struct err *err)
{
    bool encrypting = recipients != NULL;
    start_fn *start = encrypting ? start_encrypt : start_decrypt;
    const char *what = encrypting ? "encrypting" : "decrypting";
    struct gpg_run run;
    struct gpg_stream from = {.run = &run, .source = in}, to = {.run = &run, .sink = out};
    gpgme_data_t from_data = NULL, to_data = NULL;
    bool ok = gpg_run_begin(&run, options, err) && gpg_stream_data(&from, &from_data, err) &&
              gpg_stream_data(&to, &to_data, err);
    if (ok) {
        gpgme_set_armor(run.ctx, 0);
        ok = gpg_run_wait(&run, start(run.ctx, recipients, from_data, to_data), what, err) &&
             judge(&run, options, encrypting, err);
    }
    gpgme_data_release(from_data);
    gpgme_data_release(to_data);
    gpg_run_end(&run);
    return ok;
}

bool gpg_encrypt(const struct gpg_run_options *options, const char *recipients,
                 struct source *plain, struct sink *out, struct err *err)
{
    return crypt_run(options, recipients, plain, out, err);
}

bool gpg_decrypt(const struct gpg_run_options *options, struct source *in, struct sink *out,
                 struct err *err)
{
    return crypt_run(options, NULL, in, out, err);
}

static struct gpg_run_options encrypt_options(struct openpgp *pgp, const struct call *call)
{
    struct gpg_run_options options = openpgp_run_options(pgp, call);
    options.contexts = &pgp->encrypting;
    if (pgp->earlier != NULL)
        options.home = gpg_home_path(pgp->earlier);
    return options;
}

static struct gpg_run_options decrypt_options(struct openpgp *pgp, const struct call *call)
{
    struct gpg_run_options options = openpgp_run_options(pgp, call);
    options.contexts = &pgp->decrypting;
    if (pgp->unlocked != NULL) {
        options.home = gpg_home_path(pgp->unlocked);
        options.passphrase = &pgp->passphrase;
    }
    return options;
}

bool openpgp_encrypt(struct openpgp *pgp, struct source *plain, struct sink *out,
                     const struct call *call, struct err *err)
{
    if (pgp->recipient_args == NULL)
        return err_set(err, ERR_INVALID, "no key to encrypt to is configured");
    struct gpg_run_options options = encrypt_options(pgp, call);
    openpgp_watch_expiry(pgp, call);
    int64_t begun_us = now_us();
    bool ok = gpg_encrypt(&options, pgp->recipient_args, plain, out, err);
    metrics_work(WORK_ENCRYPT, ok ? ERR_NONE : err->code, now_us() - begun_us);
    return ok;
}

bool openpgp_decrypt(struct openpgp *pgp, struct source *in, struct sink *out,
                     const struct call *call, struct err *err)
{
    struct gpg_run_options options = decrypt_options(pgp, call);
    int64_t begun_us = now_us();
    bool ok = gpg_decrypt(&options, in, out, err);
    metrics_work(WORK_DECRYPT, ok ? ERR_NONE : err->code, now_us() - begun_us);
    return ok;
}

/* ---- the trial ---- */

struct buf_sink {
    struct sink base;
    struct buf *buf;
};

static bool buf_sink_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct buf_sink *s = (struct buf_sink *)self;
    if (!buf_append(s->buf, data, n))
        return err_set(err, ERR_INVALID, "gpg's answer is longer than expected");
    return true;
}

bool gpg_trial(const struct gpg_run_options *encrypting, const char *recipients,
               const struct gpg_run_options *decrypting, struct err *err)
{
    unsigned char nonce[16];
    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        return err_set(err, ERR_LOCAL, "cannot get random bytes");
    struct buf coded = BUF_INIT(TRIAL_MAX * 16), plain = BUF_INIT(TRIAL_MAX);
    struct buf_sink coded_sink = {.base = {.write = buf_sink_write}, .buf = &coded};
    struct buf_sink plain_sink = {.base = {.write = buf_sink_write}, .buf = &plain};
    struct source *src = source_mem(nonce, sizeof(nonce), err);
    bool ok = src != NULL && gpg_encrypt(encrypting, recipients, src, &coded_sink.base, err);
    source_close(src);
    if (ok && decrypting != NULL) {
        src = source_mem(coded.data, coded.len, err);
        ok = src != NULL && gpg_decrypt(decrypting, src, &plain_sink.base, err);
        source_close(src);
        if (ok && (plain.len != sizeof(nonce) || memcmp(plain.data, nonce, plain.len) != 0))
            ok = err_set(err, ERR_KEY, "gpg did not give back what it had encrypted");
    }
    buf_free(&coded);
    buf_free(&plain);
    return ok;
}

bool openpgp_trial(struct openpgp *pgp, const struct call *call, struct err *err)
{
    if (pgp->recipient_args == NULL)
        return err_set(err, ERR_INVALID, "no key to encrypt to is configured");
    struct gpg_run_options encrypting = encrypt_options(pgp, call);
    struct gpg_run_options decrypting = decrypt_options(pgp, call);
    return gpg_trial(&encrypting, pgp->recipient_args, &decrypting, err);
}
