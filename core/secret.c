#include "core/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECRET_FILE_MAX (64 * 1024)

bool secret_set(struct secret *s, const char *value, size_t n, struct err *err)
{
    char *copy = malloc(n + 1);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    memcpy(copy, value, n);
    copy[n] = '\0';
    secret_free(s);
    s->value = copy;
    s->len = n;
    return true;
}

bool secret_read_file(struct secret *s, const char *path, const char *what, struct err *err)
{
    char *text = malloc(SECRET_FILE_MAX);
    if (text == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    bool ok = false;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        err_sys(err, errno, "cannot read the %s from %s", what, path);
        goto out;
    }
    while (len < SECRET_FILE_MAX) {
        ssize_t n = read(fd, text + len, SECRET_FILE_MAX - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_sys(err, errno, "cannot read the %s from %s", what, path);
            goto out;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    char *end = memchr(text, '\n', len);
    size_t line = end == NULL ? len : (size_t)(end - text);
    bool cut = end == NULL && len == SECRET_FILE_MAX;
    if (line > 0 && text[line - 1] == '\r')
        line--;
    if (line == 0 || cut || memchr(text, '\0', line) != NULL) {
        err_set(err, ERR_INVALID, "the first line of %s, which should be the %s, is %s", path, what,
                line == 0 ? "empty"
                : cut     ? "too long"
                          : "not text");
        goto out;
    }
    ok = secret_set(s, text, line, err);
out:
    if (fd >= 0)
        close(fd);
    explicit_bzero(text, SECRET_FILE_MAX);
    free(text);
    return ok;
}

bool secret_is_set(const struct secret *s)
{
    return s != NULL && s->value != NULL;
}

void secret_free(struct secret *s)
{
    if (s->value != NULL) {
        explicit_bzero(s->value, s->len);
        free(s->value);
    }
    s->value = NULL;
    s->len = 0;
}
