#include "fs/backing.h"

#include <sys/stat.h>

#include "core/call.h"

enum { PAUSE_MS = 60000 };

void backing_init(struct backing *b)
{
    *b = (struct backing){.id = 0};
    pthread_mutex_init(&b->lock, NULL);
}

void backing_destroy(struct backing *b)
{
    pthread_mutex_destroy(&b->lock);
}

/* With the lock held: makes FD the backing file. */
static bool give(struct backing *b, const struct backing_kernel *kernel, int fd)
{
    struct stat st;
    if (kernel->open == NULL || now_ms() < kernel->paused_until_ms || fstat(fd, &st) != 0)
        return false;
    b->id = kernel->open(kernel->arg, fd);
    b->dev = st.st_dev;
    b->ino = st.st_ino;
    return b->id > 0;
}

static bool is_backing(const struct backing *b, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == b->dev && st.st_ino == b->ino;
}

bool backing_enter(struct backing *b, struct backing_kernel *kernel, int fd,
                   struct backing_use *use, struct err *err)
{
    bool ok = true;
    *use = (struct backing_use){.backing = b};
    pthread_mutex_lock(&b->lock);
    if (b->with > 0 && fd < 0) {
        *use = (struct backing_use){.backing = NULL};
        backing_pause(kernel);
        ok = err_set(err, ERR_STALE, "the kernel reads it itself");
    } else if (b->with > 0 || (fd >= 0 && b->without == 0 && give(b, kernel, fd))) {
        b->with++;
        use->id = b->id;
        use->through = is_backing(b, fd);
    } else {
        b->without++;
    }
    pthread_mutex_unlock(&b->lock);
    return ok;
}

void backing_pause(struct backing_kernel *kernel)
{
    kernel->paused_until_ms = now_ms() + PAUSE_MS;
}

void backing_leave(const struct backing_kernel *kernel, const struct backing_use *use)
{
    struct backing *b = use->backing;
    if (b == NULL)
        return;
    pthread_mutex_lock(&b->lock);
    if (use->id == 0)
        b->without--;
    else if (--b->with == 0 && kernel->close != NULL)
        kernel->close(kernel->arg, b->id);
    pthread_mutex_unlock(&b->lock);
}
