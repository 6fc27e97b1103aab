# shellcheck shell=bash disable=SC2034,SC2154
# Base backups that were damaged or tampered with: no reader that reads them to their end succeeds.
TIME_LIMIT=280
RESTORE=$ROOT/mount/walefs-restore

# A backup "x" of three partitions, the last with a large file at its end. Sets PARTS (keys) and TREE.
make_backup() # STORE KEY
{
    use_store "$1"
    use_key "$2"
    pg_init src
    TREE=$T/tree
    rm -rf "$TREE"
    cp -a "$(pg_data src)" "$TREE"
    head -c 40M /dev/urandom >"$TREE/base/noise"
    chown "$PG_OS_USER:" "$TREE/base/noise"
    mount_walefs m "$(pg_mount_opts)" partition_size=40M
    mkdir "$T/m/basebackups/x.partial"
    cp -a "$TREE/." "$T/m/basebackups/x.partial/"
    head -c 20M /dev/urandom >"$TREE/zz"
    chown "$PG_OS_USER:" "$TREE/zz"
    cp -a "$TREE/zz" "$T/m/basebackups/x.partial/"
    mv -T "$T/m/basebackups/x.partial" "$T/m/basebackups/x"
    umount_walefs m
    mapfile -t PARTS < <(store_ls basebackups_005/ | grep '/part_')
    ((${#PARTS[@]} >= 2)) || fail "only ${#PARTS[@]} partitions"
}

# Changes an object so that the directory store cannot tell by size and time.
damage() # KEY flip OFFSET-FROM-END | truncate BYTES
{
    python3 - "$STORE_DIR/$1" "$2" "$3" <<'END'
import os, sys
path, how, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
st = os.stat(path)
with open(path, "r+b") as f:
    if how == "flip":
        f.seek(-n, 2)
        c = f.read(1)
        f.seek(-n, 2)
        f.write(bytes([c[0] ^ 1]))
    else:
        f.truncate(st.st_size - n)
os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
END
}

size_of() # KEY
{
    stat -c %s "$STORE_DIR/$1"
}

# ---- the readers ---------------------------------------------------------------------------------

by_cp()
{
    cp -a "$T/m/basebackups/x/pgdata" "$T/out"
}

by_rsync()
{
    rsync -a "$T/m/basebackups/x/pgdata/" "$T/out/"
}

by_tar()
{
    mkdir "$T/out"
    (
        set -o pipefail
        tar -C "$T/m/basebackups/x/pgdata" -cf - . | tar -C "$T/out" -xpf -
    )
}

by_parts()
{
    local p rc=0
    mkdir "$T/out"
    for p in "$T"/m/basebackups/x/tar/*.tar; do
        tar -C "$T/out" -xpf "$p" || rc=$?
    done
    return "$rc"
}

by_cat()
{
    cat "$T"/m/basebackups/x/tar/*.tar >"$T/out"
}

by_restore() # OPTIONS...
{
    "$RESTORE" --quiet --no-sync --force --bindir "$PG_BIN" --no-verify "$@" "$T/m" "$T/out"
}

READERS=(by_cp by_rsync by_tar by_parts by_cat by_restore)

# Each reader, on a mount of its own that knows nothing yet, does not succeed.
must_not_be_read() # WHAT [READER...]
{
    local reader rc what=$1
    shift
    for reader in "${@:-${READERS[@]}}"; do
        mount_walefs m "$(pg_mount_opts)" ro
        rm -rf "$T/out"
        rc=0
        "$reader" >"$T/said" 2>&1 || rc=$?
        ((rc != 0)) || fail "$what: $reader succeeded"
        if [[ $reader == by_restore && $rc == 2 ]]; then
            assert_match "$(tail -n 1 "$T/said")" "$T/out must not be used" "the last line of walefs-restore"
        fi
        # Nor does anybody who comes later, of what was damaged.
        rm -rf "$T/out"
        ! by_cat 2>/dev/null || fail "$what: it can be read after $reader failed"
        umount_walefs m
    done
}

# ---- what is done to them -------------------------------------------------------------------------

test_tampered()
{
    local last i
    make_backup file gpg
    last=${PARTS[-1]}
    mount_walefs m "$(pg_mount_opts)" ro
    for i in "${READERS[@]}"; do
        rm -rf "$T/out"
        "$i" >"$T/said" 2>&1 || fail "$i of a sound backup: $(tail -n 1 "$T/said")"
    done
    umount_walefs m
    # The last byte of the object is the last one of the integrity check: all that stands before it is right.
    damage "$last" flip 1
    ! gpg_batch "$GPG_READER" -d <"$STORE_DIR/$last" >/dev/null 2>&1 || fail "gpg accepts it"
    for i in 1 2 3; do
        must_not_be_read "a bit of the integrity check, run $i"
    done
    damage "$last" flip 1
    damage "${PARTS[0]}" flip 3
    for i in 1 2; do
        must_not_be_read "a bit of the first partition's integrity check, run $i"
    done
}

# Anywhere in the encrypted data; cut off anywhere; and what another object of the same key is put in the place of.
test_encrypted()
{
    local last n
    make_backup file gpg
    last=${PARTS[-1]}
    n=$(size_of "$last")
    cp -a "$STORE_DIR/$last" "$T/whole"
    damage "$last" flip $((n / 2))
    must_not_be_read "a bit in the middle"
    cp -a "$T/whole" "$STORE_DIR/$last"
    damage "$last" flip $((n - 1000))
    must_not_be_read "a bit at the beginning" by_cp by_parts by_restore
    for n in 1 22 100000 $((n / 2)) $((n - 10)); do
        cp -a "$T/whole" "$STORE_DIR/$last"
        damage "$last" truncate "$n"
        must_not_be_read "$n bytes cut off" by_cp
    done
    must_not_be_read "all but 10 bytes cut off" by_rsync by_parts by_restore
    cp -a "${STORE_DIR:?}/${PARTS[0]}" "$STORE_DIR/$last"
    must_not_be_read "another partition in its place" by_cp by_rsync by_restore
    rm "$STORE_DIR/$(dirname "$last")/walefs-index.lzo"
    must_not_be_read "another partition in its place, without an index" by_cp by_tar by_restore
    assert_log m 'this partition is not what the backup was written with'
}

test_plain()
{
    local last n
    make_backup file none
    last=${PARTS[-1]}
    n=$(size_of "$last")
    cp -a "$STORE_DIR/$last" "$T/whole"
    damage "$last" flip $((n / 2))
    must_not_be_read "a bit in the middle"
    for n in 5 300000 $((n / 3)); do
        cp -a "$T/whole" "$STORE_DIR/$last"
        damage "$last" truncate "$n"
        must_not_be_read "$n bytes cut off" by_cp by_parts
    done
    must_not_be_read "a third cut off" by_tar by_restore
    cp -a "${STORE_DIR:?}/${PARTS[0]}" "$STORE_DIR/$last"
    must_not_be_read "another partition in its place" by_cp by_rsync by_restore
    # The store replaces it under a mount that knows the old one.
    cp -a "$T/whole" "$STORE_DIR/$last"
    mount_walefs m "$(pg_mount_opts)" ro
    ls -lR "$T/m/basebackups/x/" >/dev/null
    cp "${STORE_DIR:?}/${PARTS[0]}" "$STORE_DIR/$last"
    rm -rf "$T/out"
    ! by_cp 2>/dev/null || fail "a partition that was replaced meanwhile is read"
    umount_walefs m
}

# What an interrupted walefs-restore has of a partition is no better than what is found of it before it goes on.
test_found_before_it_goes_on()
{
    local p
    make_backup file gpg
    mount_walefs m "$(pg_mount_opts)" ro
    p=$(find "$T/m/basebackups/x/tar" -name '*.tar' | sort | head -n 1)
    damage "${PARTS[-1]}" flip 1000
    ! by_restore -j 1 >"$T/said" 2>&1 || fail "it succeeds"
    grep -qx "uncompared ${p##*/}" "$T/out/.walefs-restore" || fail "the first partition is not noted"
    umount_walefs m
    damage "${PARTS[-1]}" flip 1000
    damage "${PARTS[0]}" flip 1
    mount_walefs m "$(pg_mount_opts)" ro
    ! cat "$p" >/dev/null 2>&1 || fail "the first partition can be read"
    ! by_restore -j 1 >"$T/said" 2>&1 || fail "it goes on to its end"
    assert_match "$(cat "$T/said")" "going on with .* are there already" "output"
    assert_match "$(tail -n 1 "$T/said")" "partition ${p##*/} is damaged.*$T/out must not be used" "the last line"
    [[ ! -e $T/out/recovery.signal ]] || fail "it is ready to start"
    umount_walefs m
}

# What the kernel keeps of files that are open goes as well.
test_open_files()
{
    local m=$T/m n=0
    make_backup file gpg
    mount_walefs m "$(pg_mount_opts)" ro
    until tar -tf "$m/basebackups/x/tar/part_0000000$n.tar" | grep -qx base/noise; do
        n=$((n + 1))
    done
    umount_walefs m
    damage "${PARTS[n]}" flip 1
    mount_walefs m "$(pg_mount_opts)" ro
    python3 - "$m/basebackups/x" "part_0000000$n.tar" <<'END'
import errno, os, sys, time
top, part = sys.argv[1:]
fd = os.open(f"{top}/pgdata/base/noise", os.O_RDONLY)
first = os.pread(fd, 65536, 0)
assert len(first) == 65536  # which is not known to be wrong yet
again = os.pread(fd, 65536, 0)
assert first == again
try:
    with open(f"{top}/tar/{part}", "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass
    sys.exit("the partition was read to its end")
except OSError as e:
    assert e.errno == errno.EIO, e
for i in range(100):
    try:
        os.pread(fd, 65536, 0)
    except OSError as e:
        assert e.errno == errno.EIO, e
        break
    time.sleep(0.1)
else:
    sys.exit("the open file still shows what is damaged")
try:
    os.open(f"{top}/pgdata/base/noise", os.O_RDONLY)
    sys.exit("it can be opened again")
except OSError as e:
    assert e.errno == errno.EIO, e
END
    umount_walefs m
}

# A sentinel that cannot be read: rmdir takes nothing away of what was a backup and can be one again.
test_sentinel()
{
    local name sentinel m=$T/m
    use_store file
    python3 "$ROOT/tests/lib/make_cluster.py" "$T/cluster"
    mount_walefs m allow_delete
    mkdir "$m/basebackups/x.partial"
    cp -aL "$T/cluster/." "$m/basebackups/x.partial/"
    mv -T "$m/basebackups/x.partial" "$m/basebackups/x"
    name=$(readlink "$m/basebackups/x")
    sentinel=basebackups_005/${name}_backup_stop_sentinel.json
    umount_walefs m
    cp "$STORE_DIR/$sentinel" "$T/kept"
    head -c 30 "$T/kept" >"$STORE_DIR/$sentinel"
    store_ls '' | grep -v walefs_probe >"$T/before"
    mount_walefs m allow_delete
    assert_eq "$(ls "$m/basebackups")" "$name" "listing"
    expect_fail 'Input/output error' ls "$m/basebackups/$name"
    expect_fail 'Input/output error' cat "$m/basebackups/$name/backup.json"
    expect_fail 'not permitted' rmdir "$m/basebackups/$name"
    assert_log m "basebackups/$name: its sentinel cannot be read; restore $sentinel .*delete that object"
    assert_match "$(cat "$m/status/incomplete")" "^$name"$'\t'".*"$'\t'"unreadable" "status/incomplete"
    assert_match "$(cat "$m/status/summary")" "0 complete, 0 incomplete, 1 with a sentinel that cannot" "status/summary"
    store_ls '' | grep -v walefs_probe | cmp - "$T/before" || fail "something was deleted"
    cp "$T/kept" "$STORE_DIR/$sentinel"
    wait_for 10 "the backup" test -e "$m/basebackups/x/pgdata/PG_VERSION"
    assert_same "$m/basebackups/x/pgdata/PG_VERSION" "$T/cluster/PG_VERSION"
    : >"$STORE_DIR/$sentinel"
    expect_fail 'not permitted' rmdir "$m/basebackups/$name"
    store_rm "$sentinel"
    rmdir "$m/basebackups/$name"
    assert_eq "$(store_ls basebackups_005/)" "" "what is left of it"
    umount_walefs m
}
