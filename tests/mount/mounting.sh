# shellcheck shell=bash disable=SC2034
# Mounting as operators do it: mount(8), fstab, mount.fuse3, an automounter, for another user, under a
# service manager; and what PostgreSQL sees when nothing is mounted.
NEEDS_S3=1
A=000000010000000000000005

# ---- a mount namespace of its own, in which walefs is installed -----------------------------------

# Runs FUNCTION there: /usr/local and /usr/sbin get a layer in memory, and nothing leaves this test.
installed() # FUNCTION
{
    unshare --mount --propagation private bash "$ROOT/tests/run" --case "${BASH_SOURCE[0]}" "$1"
}

set_up_installed()
{
    local d
    mkdir "$T/layers"
    mount -t tmpfs layers "$T/layers"
    for d in /usr/local /usr/sbin; do
        mkdir -p "$T/layers$d/"{upper,work}
        mount -t overlay -o "lowerdir=$d,upperdir=$T/layers$d/upper,workdir=$T/layers$d/work" over "$d"
    done
    install -m 755 "$WALEFS" /usr/local/bin/walefs
    ln -sf /usr/local/bin/walefs /usr/sbin/mount.walefs
    mkdir -p "$T/layers/mount" /run/mount
    mount --bind "$T/layers/mount" /run/mount
    use_store file
    chmod 777 "$STORE_DIR"
    mkdir -p "$T/m"
}

# The one walefs of this test, which mount(8) has started.
daemon()
{
    local pid
    for pid in $(marked "$WALEFS_TEST_MARK"); do
        [[ $(readlink "/proc/$pid/exe") != */walefs ]] || echo "$pid"
    done
}

no_daemon()
{
    [[ -z $(daemon) ]]
}

unmounted_cleanly()
{
    ! mountpoint -q "$T/m" || fail "still mounted"
    wait_for 20 "walefs to end" no_daemon
}

archive_one() # [AS...]
{
    [[ -e $T/$A ]] || make_seg $A "$T/$A" 1
    chmod 644 "$T/$A"
    "$@" cp "$T/$A" "$T/m/wal/"
    "$@" cmp "$T/$A" "$T/m/wal/$A"
}

# mount(8) as it runs at boot: with no environment but the mark that this test finds it by.
bare()
{
    env -i WALEFS_TEST_MARK="$WALEFS_TEST_MARK" ${ASAN_OPTIONS:+ASAN_OPTIONS="$ASAN_OPTIONS"} \
        LSAN_OPTIONS="$LSAN_OPTIONS" "$@"
}

in_fstab()
{
    local type opts=noauto,x-systemd.automount,x-systemd.idle-timeout=10min,_netdev,nofail,comment=walefs,noexec
    set_up_installed
    for type in walefs fuse.walefs; do
        echo "$SOURCE $T/m $type $opts,cache_size=64M 0 0" >"$T/fstab"
        bare /bin/mount --fstab "$T/fstab" "$T/m"
        assert_match "$(grep " $T/m " /proc/mounts)" "^$SOURCE $T/m fuse.walefs rw,nosuid,nodev,noexec" "mount"
        archive_one
        umount "$T/m"
        unmounted_cleanly
        bare /bin/mount --fstab "$T/fstab" -a
        ! mountpoint -q "$T/m" || fail "noauto is mounted by mount -a"
        bare /bin/mount -t "$type" "$SOURCE" "$T/m" -o ro,nofail
        assert_match "$(grep " $T/m " /proc/mounts)" ' ro,' "mount"
        expect_fail 'read-only' touch "$T/m/wal/x"
        umount "$T/m"
        unmounted_cleanly
    done
    # as the file that everybody reads, for all that is not noauto
    echo "$SOURCE $T/m walefs defaults,_netdev 0 0" >"$T/fstab"
    mount --bind "$T/fstab" /etc/fstab
    bare /bin/mount -a -t walefs
    archive_one
    umount "$T/m"
    unmounted_cleanly
}

test_fstab()
{
    installed in_fstab
}

# The archive in S3, with all that it needs from an envdir of root's.
s3_in_fstab()
{
    set_up_installed
    use_store http
    mkdir -m 700 "$T/env"
    echo "$AWS_ACCESS_KEY_ID" >"$T/env/AWS_ACCESS_KEY_ID"
    echo "$AWS_SECRET_ACCESS_KEY" >"$T/env/AWS_SECRET_ACCESS_KEY"
    echo "http+path://${WALEFS_TEST_ENDPOINT#http://}" >"$T/env/WALE_S3_ENDPOINT"
    echo "$SOURCE $T/m fuse.walefs envdir=$T/env,user=$PG_OS_USER,noauto,_netdev,nofail,x-systemd.automount 0 0" >"$T/fstab"
    bare /bin/mount --fstab "$T/fstab" "$T/m"
    assert_match "$(grep " $T/m " /proc/mounts)" "^$SOURCE/? $T/m fuse.walefs " "mount"
    cd /
    archive_one as_pg
    umount "$T/m"
    unmounted_cleanly
    # what is mounted is known by the name that fstab has
    echo "$SOURCE $T/m walefs envdir=$T/env,_netdev 0 0" >"$T/fstab"
    bare /bin/mount --fstab "$T/fstab" -a
    bare /bin/mount --fstab "$T/fstab" -a
    assert_eq "$(grep -c " $T/m " /proc/mounts)" 1 "mounts"
    cmp "$T/m/wal/$A" "$T/$A"
    umount "$T/m"
    unmounted_cleanly
    bare /bin/mount -t fuse.walefs "$SOURCE" "$T/m" -o "ro,envdir=$T/env"
    cmp "$T/m/wal/$A" "$T/$A"
    umount "$T/m"
    unmounted_cleanly
    assert_archived $A "$T/$A"
}

test_s3_in_fstab()
{
    installed s3_in_fstab
}

helper_says() # STATUS REGEX ARGS-OF-MOUNT...
{
    local rc=0
    bare timeout 60 /bin/mount "${@:3}" >"$T/.out" 2>&1 </dev/null || rc=$?
    assert_eq "$rc" "$1" "status of mount ${*:3}: $(cat "$T/.out")"
    assert_match "$(cat "$T/.out")" "$2" "what mount ${*:3} says"
}

as_helper()
{
    set_up_installed
    helper_says 1 'unknown option "frobnicate"' -t walefs -o frobnicate "$SOURCE" "$T/m"
    helper_says 32 'no-such-archive' -t walefs "file://localhost$T/no-such-archive" "$T/m"
    helper_says 32 'user=nobody-knows: there is no such user' -t walefs -o user=nobody-knows "$SOURCE" "$T/m"
    ! mountpoint -q "$T/m" || fail "something is mounted"
    helper_says 0 '' -f -t walefs "$SOURCE" "$T/m"
    ! mountpoint -q "$T/m" || fail "mount -f mounts"
    helper_says 32 'no-such-place.*mkdir' -f -t walefs "$SOURCE" "$T/no-such-place"
    helper_says 0 '' -n -v -s -t walefs -o frobnicate,exec "$SOURCE" "$T/m"
    archive_one
    # its options cannot be changed, whoever asks and whatever mount(8) adds
    local rc=0
    mount -o remount,ro "$T/m" >"$T/out" 2>&1 || rc=$?
    [[ $rc != 0 ]] || fail "remounted"
    assert_match "$(cat "$T/out")" 'cannot be changed: umount' "what remount says"
    helper_says 1 'cannot be changed: umount' -t walefs -o remount,ro "$SOURCE" "$T/m"
    archive_one
    helper_says 32 'mounted on already' -t walefs "$SOURCE" "$T/m"
    umount "$T/m"
    unmounted_cleanly
}

test_helper()
{
    installed as_helper
}

# Without HOME and PATH: root's keyring, and the one of the user that the mount is for.
with_bare_environment()
{
    local home
    set_up_installed
    home=$(getent passwd "$PG_OS_USER" | cut -d: -f6)
    GPG_READER=$T/root/.gnupg
    mkdir "$T/root" "$T/pghome"
    new_key "$T/root/.gnupg" archive@example.com
    mount --bind "$T/root" /root
    bare /bin/mount -t walefs -o gpg_key=archive@example.com "$SOURCE" "$T/m"
    archive_one
    assert_archived $A "$T/$A"
    [[ $(head -c 4 "$T/.object" | od -An -tx1 | tr -d ' ') != 894c5a4f ]] || fail "not encrypted"
    umount "$T/m"
    unmounted_cleanly

    cp -r "$T/root/.gnupg" "$T/pghome/.gnupg"
    rm -f "$T/pghome/.gnupg/"S.*
    chown -R "$PG_OS_USER:" "$T/pghome"
    chown -R "$PG_OS_USER:" "$STORE_DIR"
    mount --bind "$T/pghome" "$home"
    gpgconf --homedir "$T/root/.gnupg" --kill all
    mv "$T/root/.gnupg" "$T/root/elsewhere"
    bare /bin/mount -t walefs -o "user=$PG_OS_USER,gpg_key=archive@example.com" "$SOURCE" "$T/m"
    as_pg cmp "$T/m/wal/$A" "$T/$A"
    umount "$T/m"
    unmounted_cleanly
}

test_bare_environment()
{
    installed with_bare_environment
}

# Root's settings, root's mount, and no way back to root; killed writers are still seen.
for_another_user()
{
    local pid status writer
    set_up_installed
    mkdir -m 700 "$T/env"
    echo "$SOURCE" >"$T/env/WALE_FILE_PREFIX"
    new_key "$T/gpg" archive@example.com 'pass phrase'
    echo "$KEY_ID" >"$T/env/WALE_GPG_KEY_ID"
    echo 'pass phrase' >"$T/env/passphrase"
    gpgconf --homedir "$T/gpg" --kill all
    rm -f "$T/gpg/"S.*
    chown -R "$PG_OS_USER:" "$T/gpg"
    local opts=user=$PG_OS_USER,envdir=$T/env,passphrase_file=$T/env/passphrase,gpg_home=$T/gpg
    bare /bin/mount -t walefs -o "$opts" - "$T/m"
    pid=$(daemon)
    status=$(cat "/proc/$pid/status")
    assert_eq "$(awk '/^Uid:/ { print $2, $3, $4, $5 }' <<<"$status" | tr ' ' '\n' | sort -u)" \
        "$(id -u "$PG_OS_USER")" "user ids"
    assert_eq "$(awk '/^Gid:/ { print $2, $3, $4, $5 }' <<<"$status" | tr ' ' '\n' | sort -u)" \
        "$(id -g "$PG_OS_USER")" "group ids"
    assert_eq "$(awk '/^Groups:/ { $1 = ""; print }' <<<"$status" | tr ' ' '\n' | sed '/^$/d' | sort)" \
        "$(id -G "$PG_OS_USER" | tr ' ' '\n' | sort)" "groups"
    assert_eq "$(awk '/^Cap(Inh|Prm|Eff|Amb):/ { print $2 }' <<<"$status" | sort -u)" \
        0000000000000000 "capabilities"
    assert_eq "$(cat /proc/"$pid"/task/*/status | awk '/^Uid:/ { print $2, $3, $4, $5 }' | sort -u | wc -l)" \
        1 "different ids among the threads"
    cd /
    archive_one as_pg
    # reads come to it: only root can have the kernel read fetched files itself
    (($(as_pg sed -n 's/^walefs_requests_total{operation="read",outcome="ok"} //p' "$T/m/status/metrics") > 0)) ||
        fail "it served no reads"
    assert_eq "$(as_pg stat -c %U "$T/m/wal/$A")" "$PG_OS_USER" "owner"
    expect_fail 'Permission denied' ls "$T/m/wal"
    expect_fail 'Permission denied' as_pg cat "$T/env/passphrase"

    # a killed writer publishes nothing
    local b=000000010000000000000006
    make_seg $b "$T/$b" 1
    mkfifo -m 666 "$T/slow"
    as_pg cp "$T/slow" "$T/m/wal/$b" &
    writer=$!
    exec 9>"$T/slow"
    head -c 500000 "$T/$b" >&9
    wait_for 10 "the copy to begin" as_pg test -e "$T/m/wal/$b"
    kill -KILL "$(marked_running cp)"
    exec 9>&-
    wait "$writer" 2>/dev/null || true
    expect_fail 'No such file' as_pg cat "$T/m/wal/$b"
    assert_not_stored $b

    # its user ends it, and a signal ends it
    as_pg fusermount3 -u "$T/m"
    unmounted_cleanly
    bare /bin/mount -t walefs -o "user=$PG_OS_USER" "$SOURCE" "$T/m"
    as_pg umount "$T/m"
    unmounted_cleanly
    bare /bin/mount -t walefs -o "user=$PG_OS_USER" "$SOURCE" "$T/m"
    kill -TERM "$(daemon)"
    wait_for 20 "walefs to end" no_daemon
    ! mountpoint -q "$T/m" || fail "still mounted after SIGTERM"

    # a dead mount of that user's, which refuses root, is cleaned
    bare /bin/mount -t walefs -o "user=$PG_OS_USER" "$SOURCE" "$T/m"
    kill -KILL "$(daemon)"
    wait_for 20 "walefs to end" no_daemon
    expect_fail 'not connected' as_pg ls "$T/m"
    bare /bin/mount -t walefs -o "user=$PG_OS_USER" "$SOURCE" "$T/m"
    assert_eq "$(as_pg ls "$T/m/wal")" $A "the archive"
    umount "$T/m"
    unmounted_cleanly
    expect_fail 'only root' as_pg "$WALEFS" -o user=root "$SOURCE" "$T/m"
}

test_user()
{
    installed for_another_user
}

# mount.fuse3 mounts, gives up root, and passes what it has opened.
through_mount_fuse3()
{
    local opts=setuid=$PG_OS_USER,drop_privileges pid
    set_up_installed
    bare /sbin/mount.fuse3 "walefs#$SOURCE" "$T/m" -o "$opts,nosuid,nodev"
    pid=$(daemon)
    assert_eq "$(awk '/^Uid:/ { print $4 }' "/proc/$pid/status")" "$(id -u "$PG_OS_USER")" "user id"
    assert_eq "$(awk '/^NoNewPrivs:/ { print $2 }' "/proc/$pid/status")" 1 "no_new_privs"
    cd /
    archive_one as_pg
    expect_fail 'Permission denied' ls "$T/m/wal"
    umount "$T/m"
    unmounted_cleanly

    # without drop_privileges it only becomes that user, who mounts by himself
    chown "$PG_OS_USER:" "$T/m"
    mknod -m 666 "$T/layers/fuse" c 10 229 # as udev makes it
    mount --bind "$T/layers/fuse" /dev/fuse
    bare /bin/mount -t fuse.walefs "$SOURCE" "$T/m" -o "setuid=$PG_OS_USER"
    assert_eq "$(stat -c %U "/proc/$(daemon)")" "$PG_OS_USER" "whose process it is"
    as_pg cmp "$T/m/wal/$A" "$T/$A"
    umount "$T/m"
    unmounted_cleanly
    chown root: "$T/m"

    # allow_other without default_permissions would be an open door
    local rc=0
    bare /sbin/mount.fuse3 "walefs#$SOURCE" "$T/m" -o "$opts,allow_other" 2>"$T/err" || rc=$?
    [[ $rc != 0 ]] || fail "everybody may do everything"
    assert_match "$(cat "$T/err")" default_permissions "message"
    umount "$T/m"
    bare /bin/mount -t fuse.walefs "$SOURCE" "$T/m" -o "$opts,allow_other,default_permissions"
    as_pg cmp "$T/m/wal/$A" "$T/$A"
    expect_fail 'Permission denied' runuser -u nobody -- cat "$T/m/wal/$A"
    # it cannot unmount what root has mounted, and says so to nobody but the log
    kill -TERM "$(daemon)"
    wait_for 20 "walefs to end" no_daemon
    expect_fail 'not connected' as_pg ls "$T/m"
    bare /bin/mount -t walefs "$SOURCE" "$T/m"
    umount "$T/m"
    unmounted_cleanly
}

test_mount_fuse3()
{
    installed through_mount_fuse3
}

# An automounter's trigger: whoever touches the place waits until walefs answers. (systemd's automount
# units work like tests/lib/autofs.py.)
over_autofs()
{
    local helper
    set_up_installed
    bare python3 "$ROOT/tests/lib/autofs.py" "$T/m" /bin/mount -t walefs "$SOURCE" "$T/m" \
        >"$T/autofs.log" 2>&1 &
    helper=$!
    wait_for 20 "the automounter" grep -q ready "$T/autofs.log"
    assert_eq "$(stat -c %F "$T/m")" directory "the trigger"
    assert_eq "$(grep -c triggered "$T/autofs.log")" 0 "mounts before it is used"
    assert_eq "$(timeout 30 ls "$T/m")" "$(printf 'basebackups\ndumps\nstatus\nwal')" "the tree"
    archive_one
    assert_eq "$(grep -c triggered "$T/autofs.log")" 1 "mounts"
    umount "$T/m"
    wait_for 20 "walefs to end" no_daemon
    timeout 30 cmp "$T/m/wal/$A" "$T/$A"
    assert_eq "$(grep -c triggered "$T/autofs.log")" 2 "mounts"
    umount "$T/m"
    wait_for 20 "walefs to end" no_daemon
    # by hand: what looks into the trigger would be its user, and wait for itself
    timeout 30 mount -t walefs "$SOURCE" "$T/m"
    ls "$T/m/wal"
    umount "$T/m"
    wait_for 20 "walefs to end" no_daemon
    kill "$helper"
    umount -l "$T/m"
}

test_autofs()
{
    installed over_autofs
}

# ---- ends ---------------------------------------------------------------------------------------

# Lazily: gone from the tree at once, and what is open is finished.
test_lazy_umount()
{
    local pid
    use_store file
    mount_walefs m
    make_seg $A "$T/$A"
    mkfifo "$T/slow"
    cp "$T/slow" "$T/m/wal/$A" &
    pid=$!
    exec 9>"$T/slow"
    head -c 5000000 "$T/$A" >&9
    wait_for 10 "the copy to begin" test -e "$T/m/wal/$A"
    expect_fail busy umount "$T/m"
    umount -l "$T/m"
    ! mountpoint -q "$T/m" || fail "still mounted"
    alive "${MOUNT_PID[m]}" || fail "walefs ended with a file open"
    tail -c +5000001 "$T/$A" >&9
    exec 9>&-
    reap_child $pid 20 cp || fail "cp failed with $?"
    reap_child "${MOUNT_PID[m]}" 20 walefs || fail "exit status $?"
    assert_archived $A "$T/$A"
}

# What a killed walefs leaves: no file with a name, no core, and no private gpg home once the next one starts.
test_killed_leaves_nothing()
{
    local pid home
    use_store file
    GPG_READER=$T/gpg
    new_key "$T/gpg" archive@example.com 'pass phrase'
    echo 'pass phrase' >"$T/pass"
    chmod 600 "$T/pass"
    KEY_OPTS=gpg_home=$T/gpg,gpg_key=$KEY_ID,passphrase_file=$T/pass,cache_dir=$T/cache
    mkdir "$T/cache"
    mount_walefs m
    make_seg $A "$T/$A"
    cp "$T/$A" "$T/m/wal/"
    cmp "$T/$A" "$T/m/wal/$A"
    mkfifo "$T/slow"
    cp "$T/slow" "$T/m/wal/000000010000000000000006" 2>/dev/null &
    pid=$!
    exec 9>"$T/slow"
    head -c 5000000 "$T/$A" >&9
    wait_for 10 "the copy to begin" test -e "$T/m/wal/000000010000000000000006"
    [[ -n $(find "/proc/${MOUNT_PID[m]}/fd" -lname "$T/cache/*(deleted)") ]] || fail "nothing is staged in cache_dir"
    home=$(readlink "/proc/${MOUNT_PID[m]}"/fd/* | grep /walefs-gpg. | head -n 1)
    [[ -d $home ]] || fail "no private gpg home"
    grep -Eq '^Max core file size +0 +0 ' "/proc/${MOUNT_PID[m]}/limits" || fail "a core would have secrets in it"
    kill -KILL "${MOUNT_PID[m]}"
    wait "${MOUNT_PID[m]}" 2>/dev/null || true
    exec 9>&-
    ! reap_child $pid 20 cp || fail "cp of a part succeeded"
    assert_eq "$(find "$T/cache" -mindepth 1)" "" "files in cache_dir"
    assert_eq "$(stat -f -c %T "$home")" tmpfs "where the private gpg home is"
    mount_walefs m
    [[ ! -e $home ]] || fail "$home is still there"
    cmp "$T/$A" "$T/m/wal/$A"
    umount_walefs m
}

# ---- a service manager ---------------------------------------------------------------------------

start_listener()
{
    cat >"$T/listener.py" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode(), flush=True)
END
    python3 "$T/listener.py" "$T/notify" >"$T/notified" &
    wait_for 10 "the listener" test -S "$T/notify"
}

heard() # LINE
{
    grep -qx -- "$1" "$T/notified"
}

more_pings() # THAN
{
    (($(grep -c '^WATCHDOG=1$' "$T/notified") > $1))
}

# For a time in which there would be ten signs of life.
silent()
{
    local n
    n=$(grep -c '^WATCHDOG=1$' "$T/notified")
    sleep 1
    ! more_pings "$n"
}

test_notify()
{
    local n
    use_store file
    start_listener
    mkdir "$T/m"
    export NOTIFY_SOCKET=$T/notify
    ! "$WALEFS" -f "file://localhost$T/no-such" "$T/m" 2>/dev/null || fail "mounted"
    wait_for 10 "the reason" grep -q '^STATUS=.*no-such' "$T/notified"
    ! heard READY=1 || fail "ready without an archive"

    export WATCHDOG_USEC=300000
    mount_walefs m
    wait_for 10 "READY" heard READY=1
    wait_for 10 "STATUS" heard "STATUS=$SOURCE on $T/m"
    wait_for 10 "a sign of life" more_pings 0
    wait_for 10 "further signs of life" more_pings "$(grep -c WATCHDOG= "$T/notified")"
    # another file system on top: walefs does not answer there any more
    mount -t tmpfs over "$T/m"
    wait_for 30 "silence about a mount that nobody reaches" silent
    n=$(grep -c '^WATCHDOG=1$' "$T/notified")
    umount "$T/m"
    wait_for 10 "signs of life again" more_pings "$n"
    ! heard STOPPING=1 || fail "stopping, but nobody stops it"
    kill -TERM "${MOUNT_PID[m]}"
    reap_child "${MOUNT_PID[m]}" 20 walefs || fail "exit status $?"
    wait_for 10 "STOPPING" heard STOPPING=1
    assert_eq "$(grep -c '^READY=1$' "$T/notified")" 1 "times ready"
}

# systemd itself is not here: its own checker reads the units as they are installed.
test_units()
{
    local units o
    make -s -C "$ROOT" install PREFIX="$T/prefix" BUILD="$(dirname "$WALEFS")" >/dev/null
    units=$T/prefix/lib/systemd/system
    cp "$T/prefix/share/doc/walefs/examples/"*.{mount,automount} "$units"
    systemd-analyze verify --man=no "$units/walefs@mnt-pg.service" "$units/mnt-pg.mount" \
        "$units/mnt-pg.automount" 2>"$T/err" || fail "$(cat "$T/err")"
    assert_eq "$(grep -v "^Unit .* not found" "$T/err")" "" "what systemd-analyze says"
    # what is not there must not keep the unit from starting: only names that the credential stores have,
    # and no paths (systemd.exec(5)); each is one that walefs looks for
    assert_eq "$(sed -n 's/^LoadCredential=//p' "$units/walefs@.service" | sort | paste -sd ' ')" \
        "AWS_ACCESS_KEY_ID:walefs-%i.AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY:walefs-%i.AWS_SECRET_ACCESS_KEY passphrase:walefs-%i.passphrase" \
        "credentials of the unit"
    for o in Type=notify 'WatchdogSec=[0-9]+' Restart=on-failure 'ExecStart=.*/walefs -f -o ..OPTIONS. ..SOURCE. %f' \
        EnvironmentFile=/etc/walefs/%i.conf UMask=0077 'CapabilityBoundingSet=CAP_.*' DevicePolicy=closed \
        'DeviceAllow=/dev/fuse rw' MemoryDenyWriteExecute=yes RestrictNamespaces=yes LockPersonality=yes \
        'RestrictAddressFamilies=AF_UNIX .*' 'SystemCallFilter=@system-service @mount'; do
        grep -qxE "$o" "$units/walefs@.service" || fail "walefs@.service lacks $o"
    done
    # a mount namespace of the service's own would hide the mount from all others
    for o in ProtectSystem ProtectHome ProtectKernel ProtectControlGroups ProtectProc ProcSubset \
        PrivateTmp PrivateDevices PrivateMounts PrivateIPC ReadOnlyPaths ReadWritePaths InaccessiblePaths \
        BindPaths BindReadOnlyPaths TemporaryFileSystem MountFlags RootDirectory NoNewPrivileges; do
        ! grep -q "^$o" "$units/walefs@.service" || fail "$o"
    done
    systemd-analyze verify --man=no "$units/walefs-dump@mnt-pg.service" "$units/walefs-dump@mnt-pg.timer" \
        2>"$T/err" || fail "$(cat "$T/err")"
    assert_eq "$(grep -v "^Unit .* not found" "$T/err")" "" "what systemd-analyze says of walefs-dump"
    systemd-analyze calendar "$(sed -n 's/^OnCalendar=//p' "$units/walefs-dump@.timer")" >"$T/calendar" || fail "no calendar"
    grep -qx 'RequiresMountsFor=/mnt/pg' "$T/prefix/share/doc/walefs/examples/postgresql-walefs.conf" ||
        fail "PostgreSQL does not wait for the mount"
    { printf '[Service]\nExecStart=/bin/true\n'; cat "$T/prefix/share/doc/walefs/examples/postgresql-walefs.conf"; } \
        >"$units/fake-postgresql.service"
    systemd-analyze verify --man=no "$units/fake-postgresql.service" 2>"$T/err" || fail "$(cat "$T/err")"
}

# ---- nothing is mounted -------------------------------------------------------------------------

# A cluster that archives, with a copy from before some of its WAL.
prepare_cluster()
{
    use_store file
    mount_walefs m "$(pg_mount_opts)"
    pg_init_with_base one "$T/m"
    pg_sql one "insert into t select generate_series(1, 1000)"
    pg_archive_all one >/dev/null
}

archiving_fails()
{
    local before
    before=$(pg_sql one "select archived_count from pg_stat_archiver")
    pg_sql one "insert into t values (1)"
    pg_sql one "select pg_switch_wal()" >/dev/null
    wait_for 60 "a failure in pg_stat_archiver" pg_true one "(select failed_count from pg_stat_archiver) > 0"
    assert_eq "$(pg_sql one "select archived_count from pg_stat_archiver")" "$before" "archived_count"
}

# With the restore_command of README and man page: it stops, and nothing is promoted.
recovery_stops() # CLUSTER
{
    local rc=0
    pg_home "$1"
    cp -a "$T/base" "$(pg_data "$1")"
    pg_conf "$1" "restore_command = 'test -d $T/m/wal || exit 255; cp $T/m/wal/%f %p'" "archive_mode = off"
    as_pg touch "$(pg_data "$1")/recovery.signal"
    as_pg "$PG_BIN/pg_ctl" -D "$(pg_data "$1")" -w -t 60 -l "$T/$1.pg.log" \
        -o "-c unix_socket_directories='$T/pg/$1'" start >/dev/null 2>&1 </dev/null || rc=$?
    [[ $rc != 0 ]] || fail "recovery without an archive succeeded"
    assert_match "$(cat "$T/$1.pg.log")" 'child process exited with exit code 255|restore_command.*255' "server log"
    [[ -e $(pg_data "$1")/recovery.signal ]] || fail "recovery was taken for finished"
    assert_eq "$(find "$(pg_data "$1")/pg_wal" -name '*.history')" "" "new timelines"
}

finishes_when_mounted() # CLUSTER
{
    pg_start "$1"
    wait_for 90 "the end of recovery" pg_true "$1" "not pg_is_in_recovery()"
    assert_eq "$(pg_sql "$1" "select count(*) >= 1001 from t")" t "all rows are there"
    pg_stop "$1"
}

test_not_mounted_is_safe()
{
    prepare_cluster
    umount_walefs m
    archiving_fails
    assert_eq "$(find "$T/m" -mindepth 1)" "" "what was written into the bare mount point"
    recovery_stops two
    mount_walefs m "$(pg_mount_opts)"
    pg_archive_all one >/dev/null
    finishes_when_mounted two
}

test_killed_is_safe()
{
    prepare_cluster
    kill -KILL "${MOUNT_PID[m]}"
    wait "${MOUNT_PID[m]}" 2>/dev/null || true
    expect_fail 'not connected' ls "$T/m"
    archiving_fails
    recovery_stops two
    mount_walefs m "$(pg_mount_opts)"
    pg_archive_all one >/dev/null
    finishes_when_mounted two
}
