# shellcheck shell=bash disable=SC2034
# The store goes away, hangs, lies or rots.
NEEDS_S3=1
TIME_LIMIT=240
A=000000010000000000000005
B=000000010000000000000006
C=000000010000000000000007

# An archive on radosgw with A and B in it, and (re)mounted, so that nothing is cached.
archive_of_two() # [OPTIONS...]
{
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    mount_walefs setup
    cp "$T/$A" "$T/$B" "$T/setup/wal/"
    umount_walefs setup
    mount_walefs m "$@"
}

quick() # SECONDS CMD...: ends within that time
{
    local rc=0
    timeout "$1" "${@:2}" >"$T/.out" 2>"$T/.err" || rc=$?
    [[ $rc != 124 ]] || fail "took longer than $1 s: ${*:2}"
    return "$rc"
}

# A process of its own session gets SIGINT as from the terminal; background jobs ignore it else.
interruptible()
{
    exec env --default-signal=INT "$@"
}

restore_waits() # VERB-DOWN VERB-UP
{
    local cp1 cp2 cp3 t0
    use_store http
    use_key none
    archive_of_two connect_timeout=2,stall_timeout=3
    s3_server "$1"
    interruptible cp "$T/m/wal/$A" "$T/out1" 2>"$T/err1" &
    cp1=$!
    interruptible cp "$T/m/wal/$B" "$T/out2" 2>"$T/err2" &
    cp2=$!
    interruptible stat "$T/m/wal/$C" >"$T/err3" 2>&1 &
    cp3=$!
    sleep 8
    alive $cp1 || fail "cp of an archived segment ended: $(cat "$T/err1")"
    alive $cp2 || fail "cp of an archived segment ended: $(cat "$T/err2")"
    alive $cp3 || fail "the look-up of a missing segment was answered without the store"
    assert_log m "$A"
    assert_log m "wait|retry|again"

    # Nothing else is blocked.
    quick 3 ls "$T/m" || fail "ls of the mount's root"
    assert_match "$(cat "$T/.out")" '^wal$' "ls of the mount's root"
    quick 3 stat "$T/m" || fail "stat of the mount's root"
    quick 3 df "$T/m" || fail "df"

    # Ctrl-C ends cp at once.
    t0=$(now_ms)
    kill -INT $cp1
    ! reap_child $cp1 5 "the interrupted cp" || fail "the interrupted cp succeeded"
    echo "# figure: an interrupted cp ended after $(($(now_ms) - t0)) ms"
    (($(now_ms) - t0 < 2000)) || fail "the interrupted cp took $(($(now_ms) - t0)) ms to end"

    s3_server "$2"
    reap_child $cp2 60 "the waiting cp" || fail "the waiting cp failed: $(cat "$T/err2")"
    assert_same "$T/out2" "$T/$B"
    ! reap_child $cp3 60 "the waiting look-up" || fail "$C exists"
    cp "$T/m/wal/$A" "$T/out1"
    assert_same "$T/out1" "$T/$A"
    umount_walefs m
}

test_restore_waits_for_server_down()
{
    restore_waits down up
}

test_restore_waits_for_server_frozen()
{
    restore_waits freeze thaw
}

archive_fails_in_time() # VERB-DOWN VERB-UP
{
    local t0 took
    use_store http
    use_key none
    archive_of_two write_timeout=5,connect_timeout=2,stall_timeout=3
    make_seg $C "$T/$C"
    s3_server "$1"
    t0=$(now_ms)
    expect_fail "" timeout 60 cp "$T/$C" "$T/m/wal/$C"
    took=$(($(now_ms) - t0))
    ! grep -q "File exists\|Invalid argument\|No such file" "$T/.err" ||
        fail "a misleading error: $(cat "$T/.err")"
    ((took < 20000)) || fail "cp failed only after $took ms with write_timeout=5"
    echo "# figure: with write_timeout=5, cp failed after $took ms: $(tail -n 1 "$T/.err")"
    assert_log m "$C"
    s3_server "$2"
    assert_not_stored $C
    cp "$T/$C" "$T/m/wal/$C"
    assert_archived $C "$T/$C"
    umount_walefs m
}

test_archive_fails_when_server_down()
{
    archive_fails_in_time down up
}

test_archive_fails_when_server_frozen()
{
    archive_fails_in_time freeze thaw
}

# The kernel lists and deletes with the directory's lock held, for which others wait unkillably: so both
# fail after a while, and who writes within his own time.
test_listing_and_deleting_hold_nobody()
{
    local m=$T/m t0=$SECONDS ls rm
    use_store http
    use_key none
    archive_of_two write_timeout=8,connect_timeout=2,stall_timeout=3,allow_delete
    make_seg $C "$T/$C"
    s3_server freeze
    ls "$m/wal" >/dev/null 2>&1 &
    ls=$!
    rm "$m/wal/$A" 2>/dev/null &
    rm=$!
    (for d in basebackups dumps; do ! ls "$m/$d" || exit 1; done) >/dev/null 2>&1 &
    sleep 1
    expect_fail "" cp "$T/$C" "$m/wal/$C"
    ! reap_child $ls 30 "ls" || fail "ls succeeded without the store"
    ! reap_child $rm 30 "rm" || fail "rm succeeded without the store"
    reap_child $! 30 "ls of the other directories" || fail "ls of the other directories succeeded"
    ((SECONDS - t0 < 60)) || fail "took $((SECONDS - t0)) s"
    s3_server thaw
    cp "$T/$C" "$m/wal/$C"
    assert_archived $C "$T/$C"
    assert_archived $A "$T/$A"
    umount_walefs m
}

# PostgreSQL keeps what it could not archive, and archives it later.
test_postgresql_retries()
{
    local m=$T/m name
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)" write_timeout=3,connect_timeout=1
    pg_init one
    pg_archive_with one "cp %p $m/wal/%f"
    pg_start one
    pg_sql one "create table t (i int)"
    pg_archive_all one >/dev/null
    s3_server down
    pg_sql one "insert into t select generate_series(1, 400000)"
    pg_sql one "select pg_switch_wal()" >/dev/null
    wait_for 60 "the archiver to fail" pg_true one "(select failed_count from pg_stat_archiver) > 0"
    s3_server up
    pg_sql one "insert into t values (0)"
    name=$(pg_archive_all one 90)
    pg_true one "(select failed_count from pg_stat_archiver) > 0" || fail "failed_count is 0"
    # Without a gap, and the right bytes.
    local i=1 n
    while n=$(seg_name $i) && [[ ! $n > $name ]]; do
        [[ -e $(pg_data one)/pg_wal/$n ]] || fail "$n is not there to compare with"
        assert_archived "$n" "$(pg_data one)/pg_wal/$n"
        i=$((i + 1))
    done
    ((i > 3)) || fail "only $i segments"
    pg_stop one
}

# Recovery in the middle of which the store goes away, goes on when it is back.
test_recovery_survives_outage()
{
    local m=$T/m want
    use_store http
    use_key none
    mount_walefs m "$(pg_mount_opts)" connect_timeout=2,prefetch=0
    pg_init_with_base one "$m"
    pg_sql one "insert into t select generate_series(1, 500000)"
    want=$(pg_sql one "select count(*) from t")
    pg_archive_all one >/dev/null
    pg_stop one immediate
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" connect_timeout=2,prefetch=0
    # The outage begins with the third segment that recovery asks for.
    cat >"$T/restore" <<END
#!/bin/sh
test -d $m/wal || exit 255
[ "\$1" != 000000010000000000000003 ] || [ -e $T/pg/was-down ] || {
    touch $T/pg/asked
    while [ ! -e $T/pg/was-down ]; do sleep 0.1; done
}
cp $m/wal/\$1 \$2
END
    chmod 755 "$T/restore"
    pg_dir "$T/pg"
    chmod 755 "$T/pg"
    (
        wait_for 60 "recovery to reach segment 3" test -e "$T/pg/asked"
        s3_server down
        touch "$T/pg/was-down"
        sleep 6
        s3_server up
    ) &
    pg_recover two "$T/base" "$m" "restore_command = '$T/restore %f %p'" "archive_mode = off"
    assert_eq "$(pg_sql two "select count(*) from t")" "$want" "rows"
    assert_log m "wait|retry|again"
}

test_soft_gives_eio()
{
    local t0
    use_store http
    use_key none
    archive_of_two soft,soft_timeout=3,connect_timeout=1
    s3_server down
    t0=$SECONDS
    expect_fail "Input/output error" timeout 60 cp "$T/m/wal/$A" "$T/out"
    expect_fail "Input/output error" timeout 60 cp "$T/m/wal/$C" "$T/out"
    expect_fail "Input/output error" timeout 60 stat "$T/m/wal/$B"
    expect_fail "Input/output error" timeout 60 ls "$T/m/wal"
    ((SECONDS - t0 < 60)) || fail "took $((SECONDS - t0)) s"
    s3_server up
    cp "$T/m/wal/$A" "$T/out"
    assert_same "$T/out" "$T/$A"
    umount_walefs m
}

# umount and SIGTERM end a mount whose store hangs.
test_unmount_while_hung()
{
    local pid rc=0
    use_store http
    use_key none
    archive_of_two connect_timeout=2
    s3_server freeze
    cp "$T/m/wal/$A" "$T/out" 2>"$T/err" &
    pid=$!
    sleep 2
    kill -TERM "${MOUNT_PID[m]}"
    reap_child "${MOUNT_PID[m]}" 30 "walefs after SIGTERM" || rc=$?
    ! reap_child "$pid" 10 "the waiting cp" || fail "cp succeeded"
    ! grep "No such file" "$T/err" || fail "ENOENT at the end"
    s3_server thaw
    ! mountpoint -q "$T/m" || fail "still mounted"
}

# Copies NAME so that only its close is still to come, and lets that come when the store hangs. Sets CP.
closing_while_hung() # NAME
{
    mkfifo "$T/slow"
    proxy_mode pass
    cp "$T/slow" "$T/m/wal/$1" 2>"$T/err" &
    CP=$!
    exec 9>"$T/slow"
    cat "$T/$1" >&9
    wait_for 10 "the copy to begin" test -e "$T/m/wal/$1"
    proxy_mode hang
    exec 9>&-
    rm "$T/slow"
    sleep 1
    alive $CP || fail "cp ended: $(cat "$T/err")"
    kill -TERM "${MOUNT_PID[m]}"
}

# What is being archived when the mount is told to end is finished, or fails soon when the store does not come back.
test_sigterm_while_closing()
{
    local t0
    use_store http
    use_key none
    use_fault_proxy
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    mount_walefs m
    closing_while_hung $A
    sleep 2
    alive $CP || fail "cp was not given the time: $(cat "$T/err")"
    proxy_mode pass
    reap_child $CP 30 cp || fail "cp failed: $(cat "$T/err")"
    reap_child "${MOUNT_PID[m]}" 30 walefs || fail "exit status $?"
    ! mountpoint -q "$T/m" || fail "still mounted"
    assert_archived $A "$T/$A"

    mount_walefs m
    t0=$SECONDS
    closing_while_hung $B
    ! reap_child $CP 40 cp || fail "cp succeeded without a store"
    reap_child "${MOUNT_PID[m]}" 40 walefs || true
    ((SECONDS - t0 < 30)) || fail "took $((SECONDS - t0)) s, longer than its time for writers"
    ! mountpoint -q "$T/m" || fail "still mounted"
    assert_not_stored $B
}

# More requests wait for the store than there are threads: what needs no store is answered still.
test_many_lookups_hang()
{
    local pid
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m ro
    proxy_mode hang
    python3 - "$T/m" "$T/asking" <<'EOF' &
import os, sys, threading, time
def look(i):
    try:
        os.stat(f"{sys.argv[1]}/wal/0000000100000000{i:08X}")
    except OSError:
        pass
threading.stack_size(65536)
for i in range(1300):
    threading.Thread(target=look, args=(i,), daemon=True).start()
open(sys.argv[2], "w").close()
time.sleep(600)
EOF
    pid=$!
    wait_for 60 "the threads" test -e "$T/asking"
    # shellcheck disable=SC2016
    wait_for 60 "walefs to be busy" eval '(($(ls "/proc/${MOUNT_PID[m]}/task" | wc -l) > 500))'
    timeout 30 ls "$T/m/status/" >"$T/out"
    grep -q incomplete "$T/out"
    timeout 30 cat "$T/m/status/incomplete" >/dev/null
    timeout 30 ls "$T/m" >/dev/null
    kill -KILL $pid
    ! reap_child $pid 30 "the process whose threads wait" || fail "it ended by itself"
}

# ---- answers that say nothing about the object --------------------------------------------------

# Neither ENOENT nor data may come of ANSWER; when the store answers again, the wait ends.
no_enoent_from() # NAME MODE...
{
    local cp1 test1
    use_store http
    use_key none
    use_fault_proxy
    archive_of_two connect_timeout=2,stall_timeout=2,prefetch=0
    mount_walefs soft soft,soft_timeout=2,connect_timeout=1,stall_timeout=1,prefetch=0
    proxy_mode "${@:2}"
    cp "$T/m/wal/$A" "$T/out1" 2>"$T/err1" &
    cp1=$!
    stat "$T/m/wal/$C" >"$T/err3" 2>&1 &
    test1=$!
    expect_fail "Input/output error" timeout 60 cp "$T/soft/wal/$A" "$T/out2"
    expect_fail "Input/output error" timeout 60 cp "$T/soft/wal/$C" "$T/out2"
    alive $cp1 || fail "cp ended: $(cat "$T/err1")"
    alive $test1 || fail "the look-up ended"
    assert_log m "$A"
    proxy_mode pass
    reap_child $cp1 90 "the waiting cp" || fail "cp failed: $(cat "$T/err1")"
    assert_same "$T/out1" "$T/$A"
    ! reap_child $test1 90 "the waiting look-up" || fail "$C exists"
    expect_fail "No such file" timeout 10 cp "$T/m/wal/$C" "$T/out2"
}

# A canned HTTP answer in $T/answer.
http_answer() # STATUS-LINE TYPE BODY
{
    printf 'HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
        "$1" "$2" "${#3}" "$3" >"$T/answer"
}

s3_error() # CODE
{
    echo "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>$1</Code><Message>no</Message><RequestId>tx1</RequestId></Error>"
}

test_404_of_a_foreign_proxy()
{
    http_answer "404 Not Found" text/html "<html><body>Not Found</body></html>"
    no_enoent_from 404 reply "$T/answer"
}

test_404_without_body()
{
    http_answer "404 Not Found" text/plain ""
    no_enoent_from 404 reply-get "$T/answer"
}

test_404_of_a_missing_bucket()
{
    http_answer "404 Not Found" application/xml "$(s3_error NoSuchBucket)"
    no_enoent_from 404 reply "$T/answer"
}

test_403_is_not_enoent()
{
    http_answer "403 Forbidden" application/xml "$(s3_error ExpiredToken)"
    no_enoent_from 403 reply "$T/answer"
    assert_log m "$A.* code=ExpiredToken request=tx1"
}

test_503_is_not_enoent()
{
    http_answer "503 Slow Down" application/xml "$(s3_error SlowDown)"
    no_enoent_from 503 reply "$T/answer"
}

test_200_of_a_captive_portal()
{
    http_answer "200 OK" text/html "<html><body>Please log in</body></html>"
    use_store http
    use_key none
    use_fault_proxy
    archive_of_two prefetch=0
    mount_walefs soft soft,soft_timeout=2,prefetch=0
    proxy_mode reply "$T/answer"
    expect_fail "Input/output error" timeout 60 cp "$T/soft/wal/$A" "$T/out2"
    make_seg $C "$T/$C"
    expect_fail "" timeout 90 cp "$T/$C" "$T/soft/wal/$C"
    proxy_mode pass
    assert_not_stored $C
    cp "$T/soft/wal/$A" "$T/out2"
    assert_same "$T/out2" "$T/$A"
}

test_connection_reset()
{
    no_enoent_from reset reset
}

# A body that breaks off is resumed or fetched again, never served short. (Short answers pass, so what
# is missing is known to be missing.)
test_body_cut()
{
    local cp1
    use_store http
    use_key none
    use_fault_proxy
    archive_of_two connect_timeout=2,stall_timeout=2,prefetch=0
    mount_walefs soft soft,soft_timeout=2,connect_timeout=1,stall_timeout=1,prefetch=0
    proxy_mode cut 30000
    cp "$T/m/wal/$A" "$T/out1" 2>"$T/err1" &
    cp1=$!
    expect_fail "Input/output error" timeout 60 cp "$T/soft/wal/$A" "$T/out2"
    expect_fail "No such file" timeout 60 cp "$T/soft/wal/$C" "$T/out2"
    sleep 2
    alive $cp1 || fail "cp ended: $(cat "$T/err1")"
    assert_log m "$A"
    proxy_mode pass
    reap_child $cp1 90 "the waiting cp" || fail "cp failed: $(cat "$T/err1")"
    assert_same "$T/out1" "$T/$A"
}

# ---- rot ----------------------------------------------------------------------------------------

# What the damaged object of A gives: EIO, soon, with the key in the log, and no data.
assert_corrupt() # WHAT
{
    local t0=$SECONDS
    mount_walefs m
    expect_fail "Input/output error" timeout 30 cat "$T/m/wal/$A"
    assert_eq "$(wc -c <"$T/.out")" 0 "bytes served of an object with $1"
    expect_fail "Input/output error" timeout 30 dd if="$T/m/wal/$A" of=/dev/null bs=8k count=1
    assert_log m "wal_005/$A.lzo"
    [[ -n $(find "$T/m/wal" -name $A) ]] || fail "an object with $1 is not listed"
    assert_same "$T/m/wal/$B" "$T/$B"
    umount_walefs m
    : >"$T/m.log"
}

corruption() # KEY
{
    local f size at
    use_store file
    use_key "$1"
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    mount_walefs setup
    cp "$T/$A" "$T/$B" "$T/setup/wal/"
    umount_walefs setup
    f=$STORE_DIR/wal_005/$A.lzo
    cp "$f" "$T/good"
    size=$(stat -c %s "$f")
    for at in 1000 $((size / 2)) $((size - 3000)) $((size - 10)); do
        python3 - "$f" "$at" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    byte = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([byte ^ 0x10]))
END
        assert_corrupt "a flipped bit at $at of $size"
        cat "$T/good" >"$f"
    done
    for at in 0 5 1000 $((size / 2)) $((size - 1)); do
        truncate -s "$at" "$f"
        assert_corrupt "only $at of $size bytes"
        cat "$T/good" >"$f"
    done
    # Sound, but another segment's.
    cat "$STORE_DIR/wal_005/$B.lzo" >"$f"
    assert_corrupt "another segment's content"
    # What follows the end is not part of it.
    { cat "$T/good" && echo trailing; } >"$f"
    mount_walefs m
    timeout 30 cat "$T/m/wal/$A" >"$T/out" 2>/dev/null || [[ ! -s $T/out ]] || fail "data and an error"
    [[ ! -s $T/out ]] || assert_same "$T/out" "$T/$A"
    umount_walefs m
    cat "$T/good" >"$f"
    mount_walefs m
    assert_same "$T/m/wal/$A" "$T/$A"
}

test_corruption_plain()
{
    corruption none
}

test_corruption_gpg()
{
    corruption gpg
}

# The directory itself vanishes (an unmounted disk): not the same as missing segments.
test_directory_vanishes()
{
    local pid
    use_store file
    use_key none
    make_seg $A "$T/$A"
    mount_walefs m
    mount_walefs soft soft,soft_timeout=2
    cp "$T/$A" "$T/m/wal/"
    mv "$STORE_DIR" "$STORE_DIR.away"
    expect_fail "Input/output error" timeout 30 cp "$T/soft/wal/$A" "$T/out"
    expect_fail "Input/output error" timeout 30 cp "$T/soft/wal/$B" "$T/out"
    stat "$T/m/wal/$B" >"$T/err3" 2>&1 &
    pid=$!
    sleep 2
    alive $pid || fail "the look-up ended without the archive"
    mv "$STORE_DIR.away" "$STORE_DIR"
    ! reap_child $pid 60 "the look-up" || fail "$B exists"
}

# What is left in the place of an archive directory whose file system was unmounted is not the
# archive: nothing is missing from it, and nothing is stored in it.
test_directory_unmounted()
{
    local pid
    use_store file
    use_key none
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    mount -t tmpfs -o size=64m none "$STORE_DIR"
    mount_walefs m write_timeout=5,prefetch=0
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    mount_walefs m write_timeout=5,prefetch=0
    mkdir "$T/disk"
    mount --bind "$STORE_DIR" "$T/disk" # it will be back
    umount "$STORE_DIR"
    cp "$T/m/wal/$A" "$T/out" 2>"$T/err" &
    pid=$!
    expect_fail "Input/output error" timeout 60 cp "$T/$B" "$T/m/wal/$B"
    alive $pid || fail "the reader ended without the archive: $(cat "$T/err")"
    assert_eq "$(find "$STORE_DIR" -type f)" "" "what lies in the bare mount point"
    assert_log m "is not the one that it was"
    mount --bind "$T/disk" "$STORE_DIR"
    reap_child $pid 60 "the reader" || fail "the reader failed: $(cat "$T/err")"
    assert_same "$T/$A" "$T/out"
    umount_walefs m
    umount "$STORE_DIR" "$T/disk"
}

# The archive's disk is full: cp fails, nothing is published, and the next cp succeeds.
test_directory_full()
{
    use_store file
    use_key none
    make_seg $A "$T/$A"
    mount -t tmpfs -o size=1m none "$STORE_DIR"
    mount_walefs m
    expect_fail "No space left|Input/output error|quota" timeout 90 cp "$T/$A" "$T/m/wal/$A"
    assert_not_stored $A
    assert_eq "$(find "$STORE_DIR" -type f ! -name walefs_probe -size +100k)" "" "left files"
    mount -o remount,size=64m "$STORE_DIR"
    cp "$T/$A" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
    umount_walefs m
}
