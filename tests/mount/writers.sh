# shellcheck shell=bash disable=SC2034
# All who write into wal/, and what must and must not be published.
NEEDS_S3=1
TIME_LIMIT=240

A=000000010000000000000005
B=000000010000000000000006

# A mount of an empty archive, on a directory if nothing else is said, and two segments A and B in files.
setup() # [STORE [KEY]]
{
    use_store "${1:-file}"
    use_key "${2:-none}"
    mount_walefs m
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
}

assert_untouched() # NAME: neither published nor listed
{
    assert_not_stored "$1"
    wait_for 10 "$1 to vanish from the mount" test ! -e "$T/m/wal/$1"
    ! find "$T/m/wal" -name "$1" | grep -q . || fail "$1 is still listed"
}

test_cp()
{
    setup
    cp "$T/$A" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
    assert_same "$T/m/wal/$A" "$T/$A"
    assert_eq "$(ls "$T/m/wal")" "$A" "ls"
    cp -p "$T/$B" "$T/m/wal/"
    assert_archived $B "$T/$B"
}

test_cp_identical_again()
{
    setup
    cp "$T/$A" "$T/m/wal/$A"
    store_get "wal_005/$A.lzo" "$T/before"
    cp "$T/$A" "$T/m/wal/$A"
    umount_walefs m
    mount_walefs m
    cp "$T/$A" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
    assert_same "$STORE_DIR/wal_005/$A.lzo" "$T/before"
}

test_cp_different_is_eexist()
{
    setup
    make_seg $A "$T/other" 16 other
    cp "$T/$A" "$T/m/wal/$A"
    expect_fail "File exists" cp "$T/other" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
    assert_same "$T/m/wal/$A" "$T/$A"
    umount_walefs m
    mount_walefs m
    expect_fail "File exists" cp "$T/other" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

# Another host archived the name after this one had looked.
test_cp_different_from_other_mount()
{
    setup
    make_seg $A "$T/other" 16 other
    mount_walefs m2
    [[ ! -e $T/m2/wal/$A ]] || fail "there already"
    cp "$T/$A" "$T/m/wal/$A"
    expect_fail "File exists" cp "$T/other" "$T/m2/wal/$A"
    cp "$T/$A" "$T/m2/wal/$A"
    assert_archived $A "$T/$A"
    assert_same "$T/m2/wal/$A" "$T/$A"
}

test_rsync()
{
    setup
    rsync -a "$T/$A" "$T/$B" "$T/m/wal/"
    assert_archived $A "$T/$A"
    assert_archived $B "$T/$B"
    rsync -a "$T/$A" "$T/m/wal/"
    rsync -a --checksum "$T/$A" "$T/m/wal/"
    assert_eq "$(find "$T/m/wal" -type f | wc -l)" 2 "files in wal/"
    mkdir "$T/other"
    make_seg $A "$T/other/$A" 16 other
    expect_fail "File exists" rsync -a --ignore-times "$T/other/$A" "$T/m/wal/"
    assert_archived $A "$T/$A"
}

test_rsync_inplace()
{
    setup
    rsync -a --inplace "$T/$A" "$T/m/wal/"
    assert_archived $A "$T/$A"
}

test_install()
{
    setup
    install -m 600 "$T/$A" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

test_dd_tee_mv()
{
    setup
    dd if="$T/$A" of="$T/m/wal/$A" bs=1M conv=fsync status=none
    assert_archived $A "$T/$A"
    tee "$T/m/wal/$B" <"$T/$B" >/dev/null
    assert_archived $B "$T/$B"
    local c=000000010000000000000007
    make_seg $c "$T/$c"
    cp "$T/$c" "$T/copy"
    mv "$T/$c" "$T/m/wal/$c"
    assert_archived $c "$T/copy"
}

test_redirection()
{
    setup
    cat "$T/$A" >"$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

test_redirection_several_writers()
{
    setup
    {
        head -c 8000000 "$T/$A"
        tail -c +8000001 "$T/$A"
    } >"$T/m/wal/$A"
    assert_archived $A "$T/$A"
    bash -c 'exec >"$1"; head -c 1000 "$2"; tail -c +1001 "$2"' - "$T/m/wal/$B" "$T/$B"
    assert_archived $B "$T/$B"
}

test_failing_writer_publishes_nothing()
{
    setup
    # shellcheck disable=SC2016
    expect_fail "" sh -c 'exec >"$1"; head -c 1000000 "$2"; exit 1' - "$T/m/wal/$A" "$T/$A"
    assert_untouched $A
    # All bytes written, and failed all the same.
    # shellcheck disable=SC2016
    expect_fail "" sh -c 'exec >"$1"; cat "$2"; exit 1' - "$T/m/wal/$A" "$T/$A"
    assert_untouched $A
    cp "$T/$A" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

# cp reads from a fifo that never ends, and is ended in the middle.
kill_cp_with() # SIGNAL
{
    local pid
    mkfifo "$T/slow"
    cp "$T/slow" "$T/m/wal/$A" &
    pid=$!
    exec 9>"$T/slow"
    head -c 8388608 "$T/$A" >&9
    wait_for 10 "cp to write" test -e "$T/m/wal/$A"
    sleep 0.3
    kill "-$1" "$pid"
    exec 9>&-
    ! reap_child "$pid" 10 "the killed cp" 2>/dev/null || fail "cp succeeded although killed"
    rm "$T/slow"
    assert_untouched $A
}

killed_cp() # STORE KEY
{
    setup "$1" "$2"
    kill_cp_with KILL
    kill_cp_with TERM
    assert_eq "$(store_ls wal_005)" "" "objects"
    cp "$T/$A" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

test_killed_cp_publishes_nothing()
{
    killed_cp file none
}

test_killed_cp_publishes_nothing_s3()
{
    killed_cp http gpg
}

runs_gpg()
{
    [[ -n $(marked_running gpg) ]]
}

# Encryption begins when writing does, so that little is left to do for the close.
test_coded_while_it_is_written()
{
    local pid
    setup file gpg
    mkfifo "$T/slow"
    cp "$T/slow" "$T/m/wal/$A" &
    pid=$!
    exec 9>"$T/slow"
    head -c 5000000 "$T/$A" >&9
    wait_for 20 "gpg" runs_gpg
    tail -c +5000001 "$T/$A" >&9
    exec 9>&-
    reap_child $pid 30 cp || fail "cp failed"
    assert_archived $A "$T/$A"
}

# All bytes are there when the signal comes, only the close is not.
test_killed_after_last_byte_publishes_nothing()
{
    local pid sig
    setup
    for sig in KILL TERM; do
        # shellcheck disable=SC2016
        bash -c 'exec 9>"$1"; cat "$2" >&9; touch "$3"; sleep 60 9>&-' - \
            "$T/m/wal/$A" "$T/$A" "$T/written.$sig" &
        pid=$!
        wait_for 20 "the writer" test -e "$T/written.$sig"
        kill "-$sig" "$pid"
        ! reap_child "$pid" 10 "the killed writer" 2>/dev/null || fail "not killed"
        assert_untouched $A
    done
}

test_wrong_size_is_einval()
{
    setup
    truncate -s -8192 "$T/$A"
    expect_fail "Invalid argument" cp "$T/$A" "$T/m/wal/$A"
    assert_untouched $A
    make_seg $A "$T/$A"
    cat "$T/$A" "$T/$B" >"$T/long"
    expect_fail "Invalid argument|File too large" cp "$T/long" "$T/m/wal/$A"
    assert_untouched $A
    : >"$T/empty"
    cp "$T/empty" "$T/m/wal/$A" 2>/dev/null || true
    assert_untouched $A
}

test_wrong_header_is_einval()
{
    setup
    head -c 16777216 /dev/zero >"$T/zeros"
    expect_fail "Invalid argument" cp "$T/zeros" "$T/m/wal/$A"
    head -c 16777216 /dev/urandom >"$T/noise"
    expect_fail "Invalid argument" cp "$T/noise" "$T/m/wal/$A"
    # A segment under another's name.
    expect_fail "Invalid argument" cp "$T/$B" "$T/m/wal/$A"
    # One of a later timeline than its name. (Of an earlier one it may be: PostgreSQL begins the new
    # timeline's first segment with a copy of the old one's.)
    make_seg 000000020000000000000005 "$T/later"
    expect_fail "Invalid argument" cp "$T/later" "$T/m/wal/$A"
    assert_untouched $A
    assert_eq "$(store_ls wal_005)" "" "objects"
    assert_log m "$A"
}

test_history_files()
{
    setup
    local h=$T/m/wal/00000003.history
    printf 'rubbish\n' >"$T/h"
    expect_fail "Invalid argument" cp "$T/h" "$h"
    printf '5\t0/3000000\tno recovery target specified\n' >"$T/h"
    expect_fail "Invalid argument" cp "$T/h" "$h"
    assert_untouched 00000003.history
    printf '1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tafter LSN 0/5000000\n' >"$T/h"
    cp "$T/h" "$h"
    assert_archived 00000003.history "$T/h"
    assert_same "$h" "$T/h"
    assert_eq "$(stat -c %s "$h")" "$(stat -c %s "$T/h")" "size"
}

test_backup_history_files()
{
    setup
    local n=$A.00000028.backup
    cat >"$T/b" <<END
START WAL LOCATION: 0/5000028 (file $A)
STOP WAL LOCATION: 0/5000138 (file $A)
CHECKPOINT LOCATION: 0/5000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-01-02 03:04:05 UTC
LABEL: a label
START TIMELINE: 1
STOP TIME: 2026-01-02 03:04:06 UTC
STOP TIMELINE: 1
END
    cp "$T/b" "$T/m/wal/$n"
    assert_archived "$n" "$T/b"
    assert_same "$T/m/wal/$n" "$T/b"
}

test_temporaries_stay_here()
{
    setup
    mount_walefs m2
    cp "$T/$A" "$T/m/wal/archtemp.$A.1"
    assert_eq "$(ls "$T/m/wal")" "archtemp.$A.1" "ls"
    assert_same "$T/m/wal/archtemp.$A.1" "$T/$A"
    assert_eq "$(store_ls wal_005)" "" "objects"
    assert_eq "$(ls "$T/m2/wal")" "" "ls of another mount"
    sync "$T/m/wal/archtemp.$A.1"
    mv "$T/m/wal/archtemp.$A.1" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
    assert_eq "$(ls "$T/m/wal")" "$A" "ls after the rename"
    assert_same "$T/m2/wal/$A" "$T/$A"
    cp "$T/$B" "$T/m/wal/temporary"
    rm "$T/m/wal/temporary"
    assert_eq "$(ls "$T/m/wal")" "$A" "ls after the removal"
}

test_rename_of_a_bad_temporary()
{
    setup
    head -c 1000 "$T/$A" >"$T/m/wal/part"
    # Called directly, since mv has an explanation of its own for EINVAL.
    expect_fail "Invalid argument" python3 -c 'import os, sys; os.rename(*sys.argv[1:])' \
        "$T/m/wal/part" "$T/m/wal/$A"
    assert_not_stored $A
    cp "$T/$A" "$T/m/wal/$A"
    make_seg $A "$T/other" 16 other
    cp "$T/other" "$T/m/wal/part2"
    expect_fail "File exists" mv -f -T "$T/m/wal/part2" "$T/m/wal/$A"
    cp "$T/$A" "$T/m/wal/part3"
    mv -f -T "$T/m/wal/part3" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

test_published_is_not_removed_or_renamed()
{
    setup
    cp "$T/$A" "$T/m/wal/$A"
    expect_fail "Operation not permitted" rm -f "$T/m/wal/$A"
    # Called directly, since mv would go on to copy.
    expect_fail "Operation not permitted" python3 -c 'import os, sys; os.rename(*sys.argv[1:])' \
        "$T/m/wal/$A" "$T/m/wal/$B"
    expect_fail "Operation not permitted" python3 -c 'import os, sys; os.rename(*sys.argv[1:])' \
        "$T/m/wal/$A" "$T/m/wal/some-temporary"
    expect_fail "Operation not permitted" mkdir "$T/m/wal/dir"
    expect_fail "" mkdir "$T/m/dir"
    expect_fail "" rmdir "$T/m/wal"
    expect_fail "" ln -s x "$T/m/wal/link"
    expect_fail "" ln "$T/m/wal/$A" "$T/m/wal/$B"
    expect_fail "" cp "$T/$B" "$T/m/file-beside-wal"
    assert_archived $A "$T/$A"
    assert_eq "$(ls "$T/m/wal")" "$A" "ls"
}

# O_TRUNC and truncate() on what is archived do not reach it.
test_truncate_of_published()
{
    setup
    cp "$T/$A" "$T/m/wal/$A"
    : >"$T/m/wal/$A" || true
    truncate -s 100 "$T/m/wal/$A" 2>/dev/null || true
    assert_archived $A "$T/$A"
    assert_same "$T/m/wal/$A" "$T/$A"
    chmod 600 "$T/m/wal/$A"
    touch "$T/m/wal/$A"
    assert_same "$T/m/wal/$A" "$T/$A"
}

test_read_only_mount()
{
    setup
    cp "$T/$A" "$T/m/wal/$A"
    mount_walefs r ro
    assert_same "$T/r/wal/$A" "$T/$A"
    expect_fail "Read-only file system" cp "$T/$B" "$T/r/wal/$B"
    expect_fail "Read-only file system|Operation not permitted" rm -f "$T/r/wal/$A"
    assert_not_stored $B
}

# Starts pg_receivewal into m/wal; its pid is put into RECEIVER.
start_receiver()
{
    as_pg "$PG_BIN/pg_receivewal" -h "$T/pg/one" -U postgres -D "$T/m/wal" --no-loop \
        >>"$T/receivewal.log" 2>&1 &
    wait_for 20 "pg_receivewal to stream" pg_true one "exists (select from pg_stat_replication)"
    RECEIVER=$(marked_running pg_receivewal)
}

stop_receiver()
{
    kill -INT "$RECEIVER"
    wait_for 20 "pg_receivewal to end" gone "$RECEIVER"
}

receivewal() # STORE KEY
{
    local m=$T/m first n name
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)"
    pg_init one
    pg_start one
    pg_sql one "create table t (v text)"
    first=$(pg_sql one "select pg_walfile_name(pg_current_wal_lsn())")
    start_receiver
    pg_sql one "insert into t select repeat(md5(i::text), 8) from generate_series(1, 20000) i"
    wait_for 30 "a .partial" test -e "$m/wal/$first.partial"
    stop_receiver
    n=("$m"/wal/*.partial)
    assert_eq "${#n[@]}" 1 "number of .partial files"
    assert_eq "$(stat -c %s "${n[0]}")" 16777216 "size of the .partial"

    # Another process, another mount: it must find what it left, and go on.
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)"
    start_receiver
    for n in 1 2 3; do
        pg_sql one "insert into t select repeat(md5(i::text), 8) from generate_series(1, 20000) i"
        name=$(pg_sql one "select pg_walfile_name(pg_switch_wal())")
        wait_for 30 "$name" test -e "$m/wal/$name"
    done
    stop_receiver
    stored "$first" || fail "the first segment, begun before the restart, is missing"
    for name in $(store_ls wal_005/ | grep -oE '[0-9A-F]{24}[.]lzo$'); do
        name=${name%.lzo}
        assert_archived "$name" "$(pg_data one)/pg_wal/$name"
    done
    pg_stop one
    ! grep -i error "$T/receivewal.log" || fail "pg_receivewal complained"
}

test_pg_receivewal()
{
    receivewal file none
}

test_pg_receivewal_s3()
{
    receivewal http gpg
}

basic_archive() # STORE
{
    local m=$T/m name
    use_store "$1"
    use_key gpg
    mount_walefs m "$(pg_mount_opts)"
    pg_init one
    pg_conf one "archive_mode = on" "archive_library = 'basic_archive'" \
        "basic_archive.archive_directory = '$m/wal'"
    pg_start one
    pg_sql one "create table t as select generate_series(1, 300000) i"
    name=$(pg_archive_all one)
    assert_archived "$name" "$(pg_data one)/pg_wal/$name"
    # Killed after the archiving and before it was noted: asked to archive the same again.
    pg_stop one
    rm "$(pg_data one)/pg_wal/archive_status/$name.done"
    as_pg touch "$(pg_data one)/pg_wal/archive_status/$name.ready"
    pg_start one
    wait_for 60 "$name to be archived again" \
        test -e "$(pg_data one)/pg_wal/archive_status/$name.done"
    assert_eq "$(pg_sql one "select failed_count from pg_stat_archiver")" 0 "failed_count"
    assert_eq "$(find "$m/wal" -name 'archtemp*')" "" "left temporaries"
    pg_stop one
}

test_basic_archive()
{
    basic_archive file
}

test_basic_archive_s3()
{
    basic_archive https
}

segment_size() # MIB
{
    local m=$T/m name before
    use_store file
    use_key none
    mount_walefs m "$(pg_mount_opts)"
    pg_init_with_base one "$m" --wal-segsize="$1"
    pg_sql one "insert into t select generate_series(1, 200000)"
    before=$(pg_sql one "select count(*) from t")
    name=$(pg_archive_all one)
    assert_archived "$name" "$(pg_data one)/pg_wal/$name"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)"
    assert_eq "$(stat -c %s "$m/wal/$name")" $(($1 << 20)) "size of a segment"
    pg_stop one immediate
    pg_recover two "$T/base" "$m" "archive_mode = off"
    assert_eq "$(pg_sql two "select count(*) from t")" "$before" "rows"
    pg_stop two
}

test_segments_of_1_mib()
{
    segment_size 1
}

test_segments_of_64_mib()
{
    segment_size 64
}

# Many writers of different names at once, through one mount.
test_parallel_archiving()
{
    local i n pids=()
    use_store file
    use_key gpg
    mount_walefs m
    for i in {1..12}; do
        n=$(seg_name "$i")
        make_seg "$n" "$T/$n"
        cp "$T/$n" "$T/m/wal/$n" &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        reap_child "$i" 60 "a cp" || fail "a cp failed"
    done
    for i in {1..12}; do
        n=$(seg_name "$i")
        assert_archived "$n" "$T/$n"
    done
}

# ---- what a review found once ------------------------------------------------------------------

# An archived file that is archived again by rename is there all the time.
test_never_absent_while_archived_again()
{
    local pid
    setup
    cp "$T/$A" "$T/m/wal/$A"
    python3 - "$T/m/wal/$A" >"$T/opens" <<'END' &
import errno, os, sys, time
end = time.time() + 5
missing = opened = 0
while time.time() < end:
    try:
        os.close(os.open(sys.argv[1], os.O_RDONLY))
        opened += 1
    except FileNotFoundError:
        missing += 1
print(opened, missing)
END
    pid=$!
    while alive $pid; do
        cp "$T/$A" "$T/m/wal/temporary"
        mv -f "$T/m/wal/temporary" "$T/m/wal/$A"
    done
    wait $pid
    assert_match "$(cat "$T/opens")" '^[1-9][0-9]* 0$' "opens, of which ENOENT"
}

# Hundreds of files that stay open do not keep others from being served.
test_many_open_files()
{
    local pid
    setup
    cp "$T/$A" "$T/m/wal/$A"
    mkfifo "$T/end"
    python3 - "$T/m/wal" "$T/end" >"$T/held" <<'END' &
import os, sys
held = [os.open(f"{sys.argv[1]}/held{i}", os.O_CREAT | os.O_WRONLY) for i in range(700)]
for fd in held:
    os.write(fd, b"x")
print("held", flush=True)
open(sys.argv[2]).read()
END
    pid=$!
    wait_for 60 "700 open files" grep -q held "$T/held"
    timeout 30 cat "$T/m/wal/$A" | cmp - "$T/$A" || fail "a read beside 700 open files"
    timeout 30 cp "$T/$B" "$T/m/wal/$B" || fail "archiving beside 700 open files"
    assert_archived $B "$T/$B"
    echo >"$T/end"
    wait $pid
}

# Another process that opens the file and closes or syncs it publishes nothing that it did not write.
test_second_handle_does_not_publish()
{
    setup
    python3 - "$T/m/wal/$A" "$T/$A" <<'END'
import os, subprocess, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.ftruncate(fd, 16 << 20)
data = open(sys.argv[2], "rb").read()
os.write(fd, data[:8192])
other = "import os, sys; f = os.open(sys.argv[1], os.O_RDWR); %s os.close(f)"
subprocess.run([sys.executable, "-c", other % "", sys.argv[1]], check=True)
synced = subprocess.run([sys.executable, "-c", other % "os.fsync(f);", sys.argv[1]],
                        stderr=subprocess.DEVNULL)
assert synced.returncode != 0, "fsync of what another process is writing"
os.pwrite(fd, data[8192:], 8192)
os.close(fd)
END
    assert_archived $A "$T/$A"
}

test_empty_file_is_refused()
{
    setup
    : >"$T/empty"
    expect_fail "Invalid argument" cp "$T/empty" "$T/m/wal/$A"
    assert_untouched $A
    cp "$T/$A" "$T/m/wal/$A"
    expect_fail "Invalid argument" cp "$T/empty" "$T/m/wal/$A"
    assert_archived $A "$T/$A"
}

# A signal that the writer handles does not make its archiving fail.
test_handled_signal_while_closing()
{
    setup
    python3 - "$T/m/wal/$A" "$T/$A" <<'END'
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
data = open(sys.argv[2], "rb").read()
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(fd, data)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
os.fsync(fd)
signal.setitimer(signal.ITIMER_REAL, 0)
os.close(fd)
END
    assert_archived $A "$T/$A"
}
