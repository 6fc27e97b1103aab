# shellcheck shell=bash disable=SC2034,SC2154
# Base backups read from S3: by several at once, and by walefs-restore.
NEEDS_S3=1
TIME_LIMIT=240
RESTORE=$ROOT/mount/walefs-restore

# A cluster with two tablespaces, archiving, and a backup of it: four partitions or more.
make_backup() # [KEY]
{
    use_store http
    use_key "${1:-gpg}"
    mount_walefs m "$(pg_mount_opts)" partition_size=8M
    pg_init src
    pg_archive_with src "cp %p $T/m/wal/%f"
    pg_start src
    pg_tablespaces src one two
    pg_sql src "create table t as select i, md5(i::text) v from generate_series(1, 200000) i"
    pg_sql src "create table t1 tablespace one as select i from generate_series(1, 5000) i"
    pg_sql src "create table t2 tablespace two as select i from generate_series(1, 300) i"
    pg_backup src "$T/m/basebackups/x" -Ft -X none
    pg_archive_all src >/dev/null
    OID_TWO=$(pg_sql src "select oid from pg_tablespace where spcname = 'two'")
    pg_stop src
    umount_walefs m
    mapfile -t PARTS < <(store_ls basebackups_005/ | grep '/part_')
    ((${#PARTS[@]} >= 4)) || fail "only ${#PARTS[@]} partitions"
}

stored_bytes()
{
    local p sum=0
    for p in "${PARTS[@]}"; do
        store_get "$p" "$T/.object"
        sum=$((sum + $(stat -c %s "$T/.object")))
    done
    echo "$sum"
}

rows() # CLUSTER
{
    pg_sql "$1" "select (select count(*) from t) || ' ' || (select count(*) from t1) || ' ' || (select count(*) from t2)"
}

# The same tree for all of them, and no partition is fetched twice.
several_at_once() # KEY
{
    local m=$T/m stored before bytes p pids=() d
    make_backup "$1"
    stored=$(stored_bytes)
    use_fault_proxy
    mount_walefs m "$(pg_mount_opts)" ro
    ls "$m/basebackups/x/pgdata" >/dev/null # its index is there now
    before=$(cat "$PROXY_DIR/bytes")
    mkdir "$T/by_cp" "$T/by_rsync" "$T/by_tar" "$T/by_parts"
    cp -a "$m/basebackups/x/pgdata/." "$T/by_cp/" &
    pids+=($!)
    rsync -a "$m/basebackups/x/pgdata/" "$T/by_rsync/" &
    pids+=($!)
    (
        set -o pipefail
        tar -C "$m/basebackups/x/pgdata" -cf - . | tar -C "$T/by_tar" -xpf -
    ) &
    pids+=($!)
    (for p in "$m"/basebackups/x/tar/*.tar; do tar -C "$T/by_parts" -xpf "$p" || exit 1; done) &
    pids+=($!)
    for p in "${pids[@]}"; do
        reap_child "$p" 120 "a reader" || fail "a reader failed"
    done
    bytes=$(($(cat "$PROXY_DIR/bytes") - before))
    note "four readers at once: $bytes bytes were fetched, of $stored"
    ((bytes < stored + stored / 10)) || fail "four readers of $stored bytes fetched $bytes"
    for d in by_rsync by_tar by_parts; do
        diff -r --no-dereference "$T/by_cp" "$T/$d" || fail "by_cp and $d differ"
        (cd "$T/by_cp" && find . ! -type d -printf '%p %m %U %G %T@ %s %l\n' | sort) >"$T/.facts1"
        (cd "$T/$d" && find . ! -type d -printf '%p %m %U %G %T@ %s %l\n' | sort) >"$T/.facts2"
        [[ $d == by_rsync ]] || assert_same "$T/.facts1" "$T/.facts2"
    done
    "$PG_BIN/pg_verifybackup" -n "$T/by_cp"
    umount_walefs m
}

test_several_at_once_plain()
{
    several_at_once none
}

test_several_at_once()
{
    several_at_once gpg
}

waits_for_the_store()
{
    grep -Eq 'partition|part_0|waiting|trying again' "$T/m.log"
}

# The store hangs in the middle of a restore: who has open what is there reads it, status/ answers, Ctrl-C ends a reader, the
# others wait without an error, and all goes on by itself. umount works meanwhile.
outage() # KEY
{
    local m=$T/m b=$T/m/basebackups/x pids=() p rc=0
    make_backup "$1"
    use_fault_proxy
    mount_walefs m "$(pg_mount_opts)" ro,connect_timeout=2,stall_timeout=2,prefetch=0
    cp -a "$b/pgdata" "$T/before"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro,connect_timeout=2,stall_timeout=2,prefetch=0
    cp "$b/tar/part_00000000.tar" "$T/first"
    exec 7<"$b/tar/part_00000000.tar" 8<"$b/tar/part_00000003.tar"
    proxy_mode hang
    : >"$T/m.log"
    cp -a "$b/pgdata" "$T/after" 2>"$T/err" &
    pids+=($!)
    (for p in "$b"/tar/*.tar; do cat "$p" || exit 1; done) >"$T/parts" 2>>"$T/err" &
    pids+=($!)
    wait_for 30 "a line in the log" waits_for_the_store
    timeout 30 ls "$m/status/" >/dev/null || fail "status/ hangs"
    timeout 30 cmp - "$T/first" <&7 || fail "what is there cannot be read"
    timeout -s INT 2 cat <&8 >/dev/null 2>&1 || rc=$?
    assert_eq "$rc" 124 "status of a reader that was interrupted"
    exec 7<&- 8<&-
    for p in "${pids[@]}"; do
        alive "$p" || fail "a reader ended without the store: $(cat "$T/err")"
    done
    proxy_mode reset
    sleep 3
    proxy_mode pass
    for p in "${pids[@]}"; do
        reap_child "$p" 120 "a reader" || fail "a reader failed: $(cat "$T/err")"
    done
    diff -r --no-dereference "$T/before" "$T/after" || fail "the copies differ"
    cat "$b"/tar/*.tar | cmp - "$T/parts" || fail "the partitions differ"
    umount_walefs m

    mount_walefs m "$(pg_mount_opts)" ro
    ls "$b/pgdata" >/dev/null
    proxy_mode hang
    cat "$b/tar/part_00000001.tar" >/dev/null 2>&1 &
    p=$!
    sleep 1
    alive "$p" || fail "the reader did not wait"
    kill -TERM "${MOUNT_PID[m]}"
    reap_child "${MOUNT_PID[m]}" 30 "walefs after SIGTERM" || fail "walefs failed"
    ! reap_child "$p" 10 "the waiting cat" || fail "cat succeeded"
    ! mountpoint -q "$m" || fail "still mounted"
    proxy_mode pass
}

test_outage_plain()
{
    outage none
}

test_outage_gpg()
{
    outage gpg
}

# One tablespace by its place, the other by its OID.
test_tablespaces_elsewhere()
{
    local d
    make_backup
    mount_walefs m "$(pg_mount_opts)" ro
    pg_home two
    d=$(pg_data two)
    "$RESTORE" -T "$T/ts/one=$T/new/first" -T "$OID_TWO=$T/new/second" --start \
        --start-options "-c unix_socket_directories='$T/pg/two' -c archive_mode=off" "$T/m" "$d" >"$T/said" 2>&1 ||
        fail "walefs-restore: $(tail -n 3 "$T/said")"
    grep -q 'comparing the result with backup_manifest' "$T/said" || fail "it was not verified"
    wait_for 60 "the end of recovery" pg_true two "not pg_is_in_recovery()"
    assert_eq "$(rows two)" "200000 5000 300" "rows"
    assert_eq "$(pg_sql two "select string_agg(pg_tablespace_location(oid), ' ' order by spcname) from pg_tablespace
        where spcname in ('one', 'two')")" "$T/new/first $T/new/second" "where the tablespaces are"
    pg_stop two
    umount_walefs m
}

# A tar in front of the real one, that comes no further than to its second run.
make_hanging_tar()
{
    mkdir -p "$T/hangs"
    rm -f "$T"/hangs/*
    cat >"$T/hangs/tar" <<END
#!/bin/bash
if [[ -e $T/hangs/ran ]]; then
    touch "$T/hangs/waits"
    exec sleep 200
fi
touch "$T/hangs/ran"
exec /bin/tar "\$@"
END
    chmod 755 "$T/hangs/tar"
    chmod 777 "$T/hangs"
}

# The run is interrupted, or killed, or the mount dies under it; it goes on with another mount.
test_resumes()
{
    local d=$T/out pid how rc
    make_backup
    for how in TERM KILL mount; do
        rm -rf "$d"
        make_hanging_tar
        mount_walefs m "$(pg_mount_opts)" ro
        PATH=$T/hangs:$PATH setsid "$RESTORE" -j 1 --tablespaces-inside "$T/m" "$d" >"$T/said" 2>&1 </dev/null &
        pid=$!
        wait_for 60 "the second partition" test -e "$T/hangs/waits"
        if [[ $how == mount ]]; then
            kill -KILL "${MOUNT_PID[m]}"
            reap_child "${MOUNT_PID[m]}" 30 "walefs" || true
            kill -TERM "$pid"
        else
            kill "-$how" "$pid"
        fi
        rc=0
        reap_child "$pid" 30 "an interrupted restore" || rc=$?
        [[ $how == KILL ]] || assert_eq "$rc" 130 "its status"
        pkill -KILL -s "$pid" || true # what a killed one had started
        umount -l "$T/m"
        [[ $how == mount ]] || reap_child "${MOUNT_PID[m]}" 30 "walefs" || true
        mount_walefs m "$(pg_mount_opts)" ro
        "$RESTORE" --tablespaces-inside "$T/m" "$d" >"$T/said" 2>&1 || fail "it does not go on: $(tail -n 3 "$T/said")"
        grep -q 'going on with .*: 1 are there already' "$T/said" || fail "it began anew: $(cat "$T/said")"
        "$PG_BIN/pg_verifybackup" -n -i postgresql.conf -i tablespace_map "$d" || fail "after $how the result is not the backup"
        umount_walefs m
    done
}

requests() # OPERATION
{
    awk -v what="walefs_requests_total{operation=\"$1\",outcome=\"ok\"}" \
        '$1 == what { n = $2 } END { print n + 0 }' "$T/m/status/metrics"
}

# A mount by root has the kernel read a MiB ahead: few requests for a large file. Closing it is none.
test_few_requests()
{
    local b=$T/m/basebackups dev reads
    use_store file
    use_key none
    pg_init src
    head -c 16M /dev/urandom >"$(pg_data src)/base/large"
    mount_walefs m
    mkdir "$b/x.partial"
    cp -a "$(pg_data src)/." "$b/x.partial/"
    mv -T "$b/x.partial" "$b/x"
    umount_walefs m
    mount_walefs m
    dev=$(stat -c %Hd:%Ld "$T/m")
    assert_eq "$(cat "/sys/class/bdi/$dev/read_ahead_kb")" 1024 "KiB that the kernel reads ahead"
    cat "$b/x/pgdata/base/large" >"$T/large"
    assert_same "$T/large" "$(pg_data src)/base/large"
    reads=$(requests read)
    ((reads > 0 && reads < 64)) || fail "$reads requests for 16 MiB"
    assert_eq "$(requests close)" 0 "requests of closing what was only read"
    umount_walefs m
}

# What a mount by root has fetched, a kernel of 6.9 or later reads itself, whoever else opens the segment
# meanwhile. For the mount of another user see mounting.for_another_user.
test_kernel_reads_segments()
{
    local itself=0 reads
    [[ $(printf '6.9\n%s\n' "$(uname -r)" | sort -V | head -n 1) != 6.9 ]] || itself=1
    use_store file
    use_key none
    make_seg "$(seg_name 1 16)" "$T/one" 16 "from a"
    make_seg "$(seg_name 1 16)" "$T/other" 16 "from b"
    mount_walefs m
    cp "$T/one" "$T/m/wal/$(seg_name 1 16)"
    python3 - "$T/m/wal/$(seg_name 1 16)" "$T/one" "$T/other" $itself <<'END'
import errno, mmap, os, subprocess, sys, time
name, one, other, itself = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "1"
data = open(one, "rb").read()
half = len(data) // 2

def cp(source):
    return subprocess.run(["cp", source, name], stderr=subprocess.PIPE, text=True).stderr

def read(fd, offset=0):
    parts = []
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)

first = os.open(name, os.O_RDONLY)
assert os.pread(first, half, 0) == data[:half]
assert mmap.mmap(first, 0, prot=mmap.PROT_READ)[:] == data if itself else True
assert cp(one) == ""
assert "File exists" in cp(other)
writer = os.open(name, os.O_WRONLY)
second = os.open(name, os.O_RDONLY)
assert read(second) == data
both = os.open(name, os.O_RDWR)
try: # would change what the other reads
    mmap.mmap(both, 0)
    assert False
except OSError as e:
    assert e.errno == errno.ENODEV, e
assert len({f.st_ino for f in (os.fstat(first), os.fstat(both), os.stat(name))}) == 1
os.pwrite(both, b"other", half)
try:
    os.close(both)
    assert False
except OSError as e:
    assert e.errno == errno.EEXIST, e
assert read(first, half) == data[half:]
os.close(first)
os.close(writer)
assert read(second, half) == data[half:]
assert os.lseek(second, 0, os.SEEK_END) == len(data)
os.close(second)

both = os.open(name, os.O_RDWR)
third = os.open(name, os.O_RDONLY)
assert read(third) == data and read(both) == data
os.close(both)
os.close(third)

# basic_archive reads what is there already, closes it, and syncs it through another descriptor; the
# kernel tells of a close later
for i in range(200):
    fd = os.open(name, os.O_RDONLY)
    os.pread(fd, 1, 0)
    os.close(fd)
    os.close(os.open(name, os.O_RDWR))

readers = []
for i in range(3):
    if pid := os.fork():
        readers.append(pid)
        continue
    until = time.monotonic() + 3
    try:
        while time.monotonic() < until:
            fd = os.open(name, os.O_RDONLY)
            assert os.pread(fd, 4096, half) == data[half:half + 4096]
            os.close(fd)
    except BaseException as e:
        sys.stderr.write("reader: %r\n" % e)
        os._exit(1)
    os._exit(0)
for i in range(100):
    fd = os.open(name, os.O_RDWR)
    assert os.pread(fd, 4096, half) == data[half:half + 4096]
    os.close(fd)
for pid in readers:
    assert os.waitpid(pid, 0)[1] == 0
END
    umount_walefs m
    mount_walefs m
    cp "$T/m/wal/$(seg_name 1 16)" "$T/out"
    assert_same "$T/out" "$T/one"
    reads=$(requests read)
    [[ $itself == 0 || $reads == 0 ]] || fail "$reads requests to read what the kernel could read itself"
    (($(awk '$1 == "walefs_read_bytes_total" { print $2 }' "$T/m/status/metrics") >= 16777216)) || fail "they do not count"
    umount_walefs m
}
