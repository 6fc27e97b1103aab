#include "mount/watchdog.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>

#include "core/call.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546 /* fs/fuse/inode.c */
#endif

struct watchdog {
    const struct notify *notify;
    const char *mountpoint;
    struct cancel end;
    pthread_t thread;
};

/* The kernel keeps no answer to this. */
static bool answers(const char *mountpoint)
{
    struct statfs st;
    return statfs(mountpoint, &st) == 0 && st.f_type == FUSE_SUPER_MAGIC;
}

static void *watch(void *arg)
{
    struct watchdog *w = arg;
    do {
        if (answers(w->mountpoint))
            notify_send(w->notify, "WATCHDOG", "1");
    } while (cancel_sleep_ms(&w->end, w->notify->watchdog_ms / 3 + 1));
    return NULL;
}

struct watchdog *watchdog_new(const struct notify *notify, const char *mountpoint, struct err *err)
{
    struct watchdog *w = malloc(sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->notify = notify;
    w->mountpoint = mountpoint;
    cancel_init(&w->end);
    int rc = pthread_create(&w->thread, NULL, watch, w);
    if (rc == 0)
        return w;
    err_sys(err, rc, "cannot start the watchdog's thread");
    cancel_destroy(&w->end);
    free(w);
    return NULL;
}

void watchdog_free(struct watchdog *w)
{
    if (w == NULL)
        return;
    cancel_fire(&w->end);
    pthread_join(w->thread, NULL);
    cancel_destroy(&w->end);
    free(w);
}
