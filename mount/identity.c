#include "mount/identity.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool taken; /* root is in reserve */
static uid_t user_id;

static const struct passwd *find_user(const char *user)
{
    char *end;
    const struct passwd *pw = getpwnam(user);
    if (pw != NULL || *user < '0' || *user > '9')
        return pw;
    unsigned long id = strtoul(user, &end, 10);
    return *end == '\0' && id < UINT32_MAX ? getpwuid((uid_t)id) : NULL;
}

/* Also what would lead programs of that user to another one's session. */
static bool set_environment(const struct passwd *pw, struct err *err)
{
    if (setenv("HOME", pw->pw_dir, 1) != 0 || setenv("USER", pw->pw_name, 1) != 0 ||
        setenv("LOGNAME", pw->pw_name, 1) != 0)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("DBUS_SESSION_BUS_ADDRESS");
    return true;
}

bool identity_take(const char *user, struct err *err)
{
    const struct passwd *pw = find_user(user);
    if (pw == NULL)
        return err_set(err, ERR_INVALID, "user=%s: there is no such user", user);
    if (geteuid() != 0 && pw->pw_uid != geteuid())
        return err_set(err, ERR_INVALID, "user=%s: only root can mount for another user", user);
    if (pw->pw_uid != geteuid()) {
        /* the real ids are the user's from here on: the kernel takes the mount for that user's,
         * and access(2) asks what the user may */
        user_id = pw->pw_uid;
        if (initgroups(pw->pw_name, pw->pw_gid) != 0 ||
            setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) != 0 || setresuid(user_id, 0, 0) != 0)
            return err_sys(err, errno, "user=%s: cannot become that user", user);
        taken = true;
    }
    return set_environment(pw, err);
}

/* Of this thread alone, past glibc, which would tell all threads. */
static bool set_effective(uid_t id)
{
    return syscall(SYS_setresuid, (uid_t)-1, id, (uid_t)-1) == 0;
}

bool identity_lower(struct err *err)
{
    return !taken || set_effective(user_id) || err_sys(err, errno, "cannot give up root");
}

bool identity_raise(struct err *err)
{
    return !taken || set_effective(0) || err_sys(err, errno, "cannot become root for the mount");
}

bool identity_settle(struct err *err)
{
    if (!taken)
        return true;
    if (setresuid(user_id, user_id, user_id) != 0)
        return err_sys(err, errno, "cannot give up root");
    taken = false;
    return setuid(0) != 0 || err_set(err, ERR_LOCAL, "root was given up, and is there again");
}
