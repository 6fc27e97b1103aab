/* FUSE's operations: each decodes, calls fs/, replies exactly once. A failure is logged here, where
 * the request ends. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/outage.h"
#include "fs/errno.h"
#include "fs/fuse_internal.h"
#include "fs/process.h"
#include "fs/xattr.h"

/* Each reader that waits for the store has one request of this kind under way; the kernel's default
 * of 12 would let a few of them hold up all others. */
#define MAX_BACKGROUND 512u

/* XATTR_SIZE_MAX of linux/limits.h */
#define XATTR_BYTES_MAX 65536u

/* Of requests that fail for a reason that passes, which can be many while a store is down; but what
 * a close or a rename failed of is always said, and each has had its deadline before. */
static struct outage outage = OUTAGE_INIT("requests are answered again");

static struct fuse_server *server_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct fs *fs_of(fuse_req_t req)
{
    return server_of(req)->opt.fs;
}

static pid_t pid_of(fuse_req_t req)
{
    return fuse_req_ctx(req)->pid;
}

/* A signal that the program handles ends a wait, but not what a store in good health would answer
 * in this time: programs get signals while they work, and few expect open(2) to fail with EINTR. */
#define SIGNAL_PATIENCE_MS 1000

struct late_interrupt {
    struct request_table *requests;
    uint64_t number;
    pid_t pid;
};

static void interrupt_late(void *arg)
{
    struct late_interrupt *late = arg;
    (void)cancel_sleep_ms(NULL, SIGNAL_PATIENCE_MS);
    request_interrupt(late->requests, late->number, process_is_dying(late->pid));
    free(late);
}

static void on_interrupt(fuse_req_t req, void *data)
{
    struct fuse_server *server = server_of(req);
    uint64_t number = (uint64_t)(uintptr_t)data;
    bool dying = process_is_dying(pid_of(req));
    struct late_interrupt *late = dying ? NULL : malloc(sizeof(*late));
    struct err ignored = ERR_INIT;
    if (late != NULL) {
        *late = (struct late_interrupt){&server->requests, number, pid_of(req)};
        if (pool_submit(server->opt.local_pool, interrupt_late, late, &ignored))
            return;
        free(late);
    }
    request_interrupt(&server->requests, number, dying);
}

static void begin(fuse_req_t req, struct request *r, enum metric_work work, bool publishing)
{
    request_begin(&server_of(req)->requests, r, work, publishing);
    fuse_req_interrupt_func(req, on_interrupt, (void *)(uintptr_t)r->number);
}

static void end(struct fuse_server *server, struct request *r)
{
    if (r->outcome == ERR_NONE && (r->work == WORK_CLOSE || r->work == WORK_OPEN))
        outage_over(&outage, now_ms());
    request_end(&server->requests, r);
}

/* An absent name is an answer like another, and a stale open is repeated by the kernel; refusals
 * are the caller's affair, but an operator should find them; the rest is trouble. */
static void log_failure(const struct request *r, const char *operation, const char *path,
                        const struct err *err)
{
    enum log_level level = LOG_LEVEL_ERROR;
    if (err->code == ERR_ABSENT || err->code == ERR_UNSUPPORTED || err->code == ERR_NO_ATTRIBUTE ||
        (err->code == ERR_STALE && (r->work == WORK_OPEN || r->work == WORK_CREATE)))
        level = LOG_LEVEL_DEBUG;
    else if (err->code == ERR_CANCELLED)
        level = LOG_LEVEL_INFO;
    const struct log_details details = {.op = operation, .path = path, .err = err};
    char what[640];
    if (level != LOG_LEVEL_ERROR || !err_transient(err->code) || r->publishing) {
        log_event(level, &details, "%s %s: %s", operation, path, err->text);
        return;
    }
    (void)snprintf(what, sizeof(what), "%s %s", operation, path);
    (void)outage_failure(&outage, level, &details, what);
}

static void fail(fuse_req_t req, struct request *r, const char *operation, fuse_ino_t ino,
                 const char *name, const struct err *err)
{
    char path[512];
    fs_path(fs_of(req), ino, path, sizeof(path));
    if (name != NULL) {
        size_t len = ino == FUSE_ROOT_ID ? 0 : strlen(path);
        (void)snprintf(path + len, sizeof(path) - len, "%s%s", len == 0 ? "" : "/", name);
    }
    log_failure(r, operation, path, err);
    r->outcome = err->code;
    fuse_reply_err(req, fs_errno(err));
}

static struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

static struct fuse_entry_param entry_param(const struct fs_entry *e)
{
    return (struct fuse_entry_param){.ino = e->id,
                                     .generation = 1,
                                     .attr = e->attr,
                                     .attr_timeout = e->valid_s,
                                     .entry_timeout = e->valid_s};
}

static void reply_entry(fuse_req_t req, const struct fs_entry *entry)
{
    struct fs *fs = fs_of(req); /* REQ ends with the reply */
    struct fuse_entry_param e = entry_param(entry);
    if (fuse_reply_entry(req, &e) != 0) /* interrupted: the kernel did not get it */
        fs_forget(fs, entry->id, 1);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS |
                      FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_PARALLEL_DIROPS |
                      FUSE_CAP_ASYNC_DIO;
    conn->want = conn->capable & wanted;
    conn->max_write = 1u << 20;
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = MAX_BACKGROUND;
    conn->time_gran = 1;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_LOOKUP, false);
    if (!fs_lookup(server->opt.fs, parent, name, pid_of(req), &entry, &r.call, &err))
        fail(req, &r, "lookup", parent, name, &err);
    else
        reply_entry(req, &entry);
    end(server, &r);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    fs_forget(fs_of(req), ino, count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        fs_forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_GETATTR, false);
    const struct handle *handle = fi == NULL ? NULL : handle_of(fi);
    if (fs_getattr(server->opt.fs, ino, handle, &entry, &r.call, &err))
        fuse_reply_attr(req, &entry.attr, entry.valid_s);
    else
        fail(req, &r, "stat", ino, NULL, &err);
    end(server, &r);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                       struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct err err = ERR_INIT;
    const struct fs_setattr set = {
        .set_size = (to_set & FUSE_SET_ATTR_SIZE) != 0,
        .size = (uint64_t)attr->st_size,
        .set_mode = (to_set & FUSE_SET_ATTR_MODE) != 0,
        .mode = attr->st_mode,
        .set_mtime = (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0,
        .mtime_s = (to_set & FUSE_SET_ATTR_MTIME_NOW) != 0 ? INT64_MIN : attr->st_mtim.tv_sec,
        .mtime_ns = (uint32_t)attr->st_mtim.tv_nsec,
        .set_owner = (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0,
        .uid = (to_set & FUSE_SET_ATTR_UID) != 0 ? attr->st_uid : (uid_t)-1,
        .gid = (to_set & FUSE_SET_ATTR_GID) != 0 ? attr->st_gid : (gid_t)-1};
    begin(req, &r, WORK_SETATTR, false);
    if (fs_setattr(server->opt.fs, ino, &set, fi == NULL ? NULL : handle_of(fi), &entry, &r.call,
                   &err))
        fuse_reply_attr(req, &entry.attr, entry.valid_s);
    else
        fail(req, &r, "change", ino, NULL, &err);
    end(server, &r);
}

/* Reads and writes of WAL come straight to us, or go to a backing file: nothing that was archived
 * is served from a page cache that another host's view could make stale, and a waiting read can be
 * interrupted. Direct I/O goes before a backing file that is named. */
static void set_open_flags(struct fuse_file_info *fi, struct handle *handle)
{
    bool through;
    fi->fh = (uint64_t)(uintptr_t)handle;
    fuse_io_backing = fs_handle_backing(handle, &through);
    fi->direct_io = !fs_handle_immutable(handle) && !through;
    fi->keep_cache = fs_handle_verified(handle);
    fi->nonseekable = fs_handle_stream(handle);
    fi->noflush = !fs_handle_flushes(handle); /* spares a reader's close a request */
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct handle *handle;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_CREATE, false);
    if (!fs_create(server->opt.fs, parent, name, fi->flags, mode, pid_of(req), &entry, &handle,
                   &r.call, &err)) {
        fail(req, &r, "create", parent, name, &err);
    } else {
        struct fuse_entry_param e = entry_param(&entry);
        set_open_flags(fi, handle);
        if (fuse_reply_create(req, &e, fi) != 0) {
            fs_release(server->opt.fs, handle);
            fs_forget(server->opt.fs, entry.id, 1);
        }
        fuse_io_backing = 0;
    }
    end(server, &r);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct handle *handle;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_OPEN, false);
    if (!fs_open(server->opt.fs, ino, fi->flags, pid_of(req), &handle, &r.call, &err)) {
        fail(req, &r, "open", ino, NULL, &err);
    } else {
        set_open_flags(fi, handle);
        if (fuse_reply_open(req, fi) != 0)
            fs_release(server->opt.fs, handle);
        fuse_io_backing = 0;
    }
    end(server, &r);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    char target[PATH_MAX];
    struct err err = ERR_INIT;
    begin(req, &r, WORK_READLINK, false);
    if (fs_readlink(server->opt.fs, ino, target, sizeof(target), &r.call, &err))
        fuse_reply_readlink(req, target);
    else
        fail(req, &r, "read the link", ino, NULL, &err);
    end(server, &r);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_bytes bytes;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_READ, false);
    if (!fs_read(server->opt.fs, handle_of(fi), (uint64_t)offset, size, &bytes, &r.call, &err)) {
        fail(req, &r, "read", ino, NULL, &err);
    } else if (bytes.size == 0) {
        fuse_reply_buf(req, NULL, 0);
        fs_read_done(&bytes);
    } else {
        struct fuse_bufvec data = FUSE_BUFVEC_INIT(bytes.size);
        data.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
        data.buf[0].fd = bytes.fd;
        data.buf[0].pos = (off_t)bytes.offset;
        fuse_reply_data(req, &data, 0);
        metrics_add(COUNT_READ_BYTES, bytes.size);
        fs_read_done(&bytes);
    }
    end(server, &r);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_WRITE, false);
    if (fs_write(server->opt.fs, handle_of(fi), data, size, (uint64_t)offset, &r.call, &err)) {
        metrics_add(COUNT_WRITTEN_BYTES, size);
        fuse_reply_write(req, size);
    } else {
        fail(req, &r, "write", ino, NULL, &err);
    }
    end(server, &r);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_CLOSE, true);
    if (fs_flush(server->opt.fs, handle_of(fi), pid_of(req), &r.call, &err))
        fuse_reply_err(req, 0);
    else
        fail(req, &r, "close", ino, NULL, &err);
    end(server, &r);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_FSYNC, true);
    if (fs_fsync(server->opt.fs, handle_of(fi), &r.call, &err))
        fuse_reply_err(req, 0);
    else
        fail(req, &r, "fsync", ino, NULL, &err);
    end(server, &r);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    struct fuse_server *server = server_of(req);
    struct handle *handle = handle_of(fi);
    struct request r;
    request_begin(&server->requests, &r, WORK_RELEASE,
                  true);    /* it may publish: the end of the mount waits */
    fuse_reply_err(req, 0); /* nobody can hear of an error any more */
    fs_release(server->opt.fs, handle);
    request_end(&server->requests, &r);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct err err = ERR_INIT;
    if (mode != 0) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    begin(req, &r, WORK_ALLOCATE, false);
    uint64_t end_at = (uint64_t)offset + (uint64_t)length;
    bool ok = fs_getattr(server->opt.fs, ino, NULL, &entry, &r.call, &err);
    if (ok && (uint64_t)entry.attr.st_size < end_at) {
        const struct fs_setattr set = {.set_size = true, .size = end_at};
        ok = fs_setattr(server->opt.fs, ino, &set, handle_of(fi), &entry, &r.call, &err);
    }
    if (ok)
        fuse_reply_err(req, 0);
    else
        fail(req, &r, "allocate", ino, NULL, &err);
    end(server, &r);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_MKDIR, false);
    if (!fs_mkdir(server->opt.fs, parent, name, mode, &entry, &r.call, &err))
        fail(req, &r, "make the directory", parent, name, &err);
    else
        reply_entry(req, &entry);
    end(server, &r);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct fs_entry entry;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_SYMLINK, false);
    if (!fs_symlink(server->opt.fs, parent, name, target, &entry, &r.call, &err))
        fail(req, &r, "make the link", parent, name, &err);
    else
        reply_entry(req, &entry);
    end(server, &r);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_RMDIR, true);
    if (fs_rmdir(server->opt.fs, parent, name, &r.call, &err))
        fuse_reply_err(req, 0);
    else
        fail(req, &r, "delete", parent, name, &err);
    end(server, &r);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_UNLINK, true);
    if (fs_unlink(server->opt.fs, parent, name, &r.call, &err))
        fuse_reply_err(req, 0);
    else
        fail(req, &r, "delete", parent, name, &err);
    end(server, &r);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned flags)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    if ((flags & ~(unsigned)RENAME_NOREPLACE) != 0) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    begin(req, &r, WORK_RENAME, true);
    if (fs_rename(server->opt.fs, parent, name, new_parent, new_name,
                  (flags & RENAME_NOREPLACE) != 0, &r.call, &err))
        fuse_reply_err(req, 0);
    else
        fail(req, &r, "rename", parent, name, &err);
    end(server, &r);
}

/* ---- what does not exist in this tree: refused as by a file system that forbids it ---- */

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    (void)parent;
    (void)name;
    (void)mode;
    (void)rdev;
    fuse_reply_err(req, EPERM);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino;
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_LINK, false);
    (void)fs_link(server->opt.fs, parent, name, &err);
    fail(req, &r, "make the hard link", parent, name, &err);
    end(server, &r);
}

/* ---- directories ---- */

static struct dir *dir_of(const struct fuse_file_info *fi)
{
    return (struct dir *)(uintptr_t)fi->fh;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct dir *dir;
    struct err err = ERR_INIT;
    begin(req, &r, WORK_OPENDIR, false);
    if (fs_opendir(server->opt.fs, ino, &dir, &r.call, &err)) {
        fi->fh = (uint64_t)(uintptr_t)dir;
        if (fuse_reply_open(req, fi) != 0)
            fs_releasedir(server->opt.fs, dir);
    } else {
        fail(req, &r, "list", ino, NULL, &err);
    }
    end(server, &r);
}

struct listing {
    fuse_req_t req;
    char *data;
    size_t size, used;
    bool plus;
};

static bool emit(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                 uint64_t next)
{
    struct listing *l = arg;
    size_t left = l->size - l->used, need;
    if (l->plus) {
        /* inode 0: the kernel takes name and type, and looks it up when somebody asks */
        struct fuse_entry_param e = {.attr = {.st_mode = type, .st_ino = UINT32_MAX}};
        if (entry != NULL)
            e = entry_param(entry);
        need = fuse_add_direntry_plus(l->req, l->data + l->used, left, name, &e, (off_t)next);
    } else {
        const struct stat st = {.st_mode = type, .st_ino = UINT32_MAX};
        need = fuse_add_direntry(l->req, l->data + l->used, left, name, &st, (off_t)next);
    }
    if (need > left)
        return false;
    l->used += need;
    return true;
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi, bool plus)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct err err = ERR_INIT;
    struct listing l = {.req = req, .data = malloc(size), .size = size, .plus = plus};
    begin(req, &r, WORK_READDIR, false);
    if (l.data == NULL)
        err_set(&err, ERR_NO_MEMORY, "out of memory");
    if (l.data != NULL &&
        fs_readdir(server->opt.fs, dir_of(fi), (uint64_t)offset, plus, emit, &l, &r.call, &err))
        fuse_reply_buf(req, l.data, l.used);
    else
        fail(req, &r, "list", ino, NULL, &err);
    free(l.data);
    end(server, &r);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    read_directory(req, ino, size, offset, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
    read_directory(req, ino, size, offset, fi, true);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fs_releasedir(fs_of(req), dir_of(fi));
    fuse_reply_err(req, 0);
}

/* What was renamed or published is in the store already. */
static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    fuse_reply_err(req, 0);
}

/* ---- extended attributes ---- */

/* Security modules and access lists are asked for with every file, and capabilities even before
 * writes. What is refused as not supported, programs and the kernel do not ask for again, or not
 * for each file. */
static bool is_ours(const char *name)
{
    return strncmp(name, "user.", 5) == 0;
}

static void reply_xattr(fuse_req_t req, const struct buf *value, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(req, value->len);
    else if (size < value->len)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value->data, value->len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct buf value = BUF_INIT(XATTR_BYTES_MAX);
    struct err err = ERR_INIT;
    if (!is_ours(name)) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    begin(req, &r, WORK_XATTR, false);
    if (fs_getxattr(server->opt.fs, ino, name, &value, &r.call, &err))
        reply_xattr(req, &value, size);
    else
        fail(req, &r, "read the attributes", ino, NULL, &err);
    end(server, &r);
    buf_free(&value);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct fuse_server *server = server_of(req);
    struct request r;
    struct buf names = BUF_INIT(XATTR_BYTES_MAX);
    struct err err = ERR_INIT;
    begin(req, &r, WORK_XATTR, false);
    if (fs_listxattr(server->opt.fs, ino, &names, &r.call, &err))
        reply_xattr(req, &names, size);
    else
        fail(req, &r, "list the attributes", ino, NULL, &err);
    end(server, &r);
    buf_free(&names);
}

/* Facts stay what they are. rsync -X takes away what its source does not have, and both rsync and
 * cp bring what they once copied out of here: for them these are no errors. */
static bool is_fact(const char *name)
{
    return strncmp(name, XATTR_PREFIX, sizeof(XATTR_PREFIX) - 1) == 0;
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                        size_t size, int flags)
{
    (void)ino;
    (void)value;
    (void)size;
    (void)flags;
    fuse_reply_err(req, is_fact(name) ? 0 : EOPNOTSUPP);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    (void)ino;
    fuse_reply_err(req, is_fact(name) ? 0 : EOPNOTSUPP);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;
    (void)ino;
    fs_statfs(fs_of(req), &st);
    fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops fuse_handlers = {.init = op_init,
                                                .lookup = op_lookup,
                                                .forget = op_forget,
                                                .forget_multi = op_forget_multi,
                                                .getattr = op_getattr,
                                                .setattr = op_setattr,
                                                .create = op_create,
                                                .open = op_open,
                                                .readlink = op_readlink,
                                                .read = op_read,
                                                .write = op_write,
                                                .flush = op_flush,
                                                .fsync = op_fsync,
                                                .release = op_release,
                                                .fallocate = op_fallocate,
                                                .unlink = op_unlink,
                                                .rename = op_rename,
                                                .mkdir = op_mkdir,
                                                .rmdir = op_rmdir,
                                                .mknod = op_mknod,
                                                .symlink = op_symlink,
                                                .link = op_link,
                                                .opendir = op_opendir,
                                                .readdir = op_readdir,
                                                .readdirplus = op_readdirplus,
                                                .releasedir = op_releasedir,
                                                .fsyncdir = op_fsyncdir,
                                                .getxattr = op_getxattr,
                                                .listxattr = op_listxattr,
                                                .setxattr = op_setxattr,
                                                .removexattr = op_removexattr,
                                                .statfs = op_statfs};
