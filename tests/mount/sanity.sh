# shellcheck shell=bash disable=SC2034
# Many files, many users at once, large files, memory.
NEEDS_S3=1
TIME_LIMIT=300
COUNT=2600

# COUNT segments of 1 MiB, as archived by WAL-E, put into the store behind walefs' back.
fill() # STORE
{
    local i n
    n=$(seg_name 1 1)
    make_seg "$n" "$T/seg" 1
    head -c 8192 "$T/seg" >"$T/thin"
    truncate -s 1M "$T/thin"
    lzop -c "$T/thin" >"$T/o"
    OBJECT_BYTES=$(stat -c %s "$T/o")
    if [[ $1 == file ]]; then
        mkdir "$STORE_DIR/wal_005"
        for ((i = 1; i <= COUNT; i++)); do
            ln "$T/o" "$STORE_DIR/wal_005/$(seg_name "$i" 1).lzo"
        done
    else
        for ((i = 1; i <= COUNT; i++)); do
            printf 'upload-file = "%s"\nurl = "%s"\noutput = /dev/null\n' "$T/o" \
                "$(s3_url "wal_005/$(seg_name "$i" 1).lzo")"
        done >"$T/curl.conf"
        s3_curl --max-time 240 -Z --parallel-max 8 -K "$T/curl.conf" 2>"$T/fill.err" ||
            fail "$(tail -n 3 "$T/fill.err")"
    fi
}

many_files() # STORE
{
    local t0 took before
    use_store "$1"
    fill "$1"
    if [[ $1 != file ]]; then
        use_fault_proxy
    fi
    mount_walefs m
    t0=$(now_ms)
    ls "$T/m/wal" >"$T/ls"
    took=$(($(now_ms) - t0))
    assert_eq "$(wc -l <"$T/ls")" $COUNT "names"
    assert_eq "$(sort -u "$T/ls" | wc -l)" $COUNT "different names"
    assert_eq "$(head -n 1 "$T/ls") $(tail -n 1 "$T/ls")" "$(seg_name 1 1) $(seg_name $COUNT 1)" "range"
    echo "# figure: ls of $COUNT segments took $took ms"
    t0=$(now_ms)
    find "$T/m/wal" -type f -printf '%s\n' | sort | uniq -c >"$T/sizes"
    took=$(($(now_ms) - t0))
    echo "# figure: ls -l of $COUNT segments took $took ms"
    assert_eq "$(awk '{ print $1 * 1, $2 }' "$T/sizes")" "$COUNT 1048576" "sizes"
    ((took < 60000)) || fail "ls -l took $took ms"
    if [[ $1 != file ]]; then
        before=$(cat "$PROXY_DIR/bytes")
        echo "# figure: $before bytes fetched for it; the objects have $((COUNT * OBJECT_BYTES))"
        ((before < COUNT * OBJECT_BYTES / 2)) || fail "ls -l fetched $before bytes"
    fi
    echo "# figure: VmRSS after it $(rss_kib "${MOUNT_PID[m]}") KiB"
    assert_same "$T/m/wal/$(seg_name 1 1)" "$T/thin"
}

test_many_files_file()
{
    many_files file
}

test_many_files_s3()
{
    many_files http
}

# All gpg processes of this test together. They are nobody's children: gpgme forks twice.
gpg_rss_kib()
{
    local pid sum=0 kib
    for pid in $(marked_running gpg); do
        kib=$(rss_kib "$pid" 2>/dev/null || true)
        sum=$((sum + ${kib:-0}))
    done
    echo "$sum"
}

# 8 writers and 8 readers at once, on segments of 16 MiB.
crowd() # STORE KEY
{
    local i n pid pids=() rss peak=0 kids kids_peak=0 idle
    use_store "$1"
    use_key "$2"
    mount_walefs m
    idle=$(rss_kib "${MOUNT_PID[m]}")
    for i in {1..16}; do
        n=$(seg_name "$i")
        make_seg "$n" "$T/$n"
    done
    for i in {1..8}; do
        n=$(seg_name "$i")
        cp "$T/$n" "$T/m/wal/"
    done
    umount_walefs m
    mount_walefs m
    for i in {1..8}; do
        n=$(seg_name "$i")
        cmp "$T/m/wal/$n" "$T/$n" &
        pids+=($!)
        n=$(seg_name $((i + 8)))
        cp "$T/$n" "$T/m/wal/" &
        pids+=($!)
    done
    while :; do
        rss=$(rss_kib "${MOUNT_PID[m]}")
        ((rss <= peak)) || peak=$rss
        kids=$(gpg_rss_kib)
        ((kids <= kids_peak)) || kids_peak=$kids
        i=0
        for pid in "${pids[@]}"; do
            ! alive "$pid" || i=$((i + 1))
        done
        ((i > 0)) || break
    done
    for pid in "${pids[@]}"; do
        reap_child "$pid" 120 "a reader or writer" || fail "a reader or writer failed"
    done
    echo "# figure: VmRSS idle $idle KiB, peak $peak KiB with 8 readers and 8 writers; gpg children $kids_peak KiB"
    for i in {9..16}; do
        n=$(seg_name "$i")
        assert_archived "$n" "$T/$n"
    done
    ((idle < 20480)) || fail "idle memory is $idle KiB"
    ((peak < 256000)) || fail "peak memory is $peak KiB"
}

test_crowd_plain()
{
    crowd http none
}

test_crowd_gpg()
{
    crowd http gpg
}

# A segment that is not there is denied soon, each time anew, and found as soon as it is there.
test_missing_is_fast_and_not_remembered()
{
    local i n t0 took
    use_store http
    use_key none
    mount_walefs m
    mount_walefs other
    n=$(seg_name 7 1)
    make_seg "$n" "$T/$n" 1
    t0=$(now_ms)
    for i in {1..10}; do
        [[ ! -e $T/m/wal/$n ]] || fail "$n exists"
    done
    took=$((($(now_ms) - t0) / 10))
    echo "# figure: a missing segment is denied in $took ms"
    ((took < 500)) || fail "took $took ms"
    cp "$T/$n" "$T/other/wal/"
    assert_same "$T/m/wal/$n" "$T/$n"
}

# Consecutive reads, with what is prefetched in between; also what is archived meanwhile.
test_consecutive_reads()
{
    local i n
    use_store http
    use_key gpg
    mount_walefs w
    mount_walefs m
    for i in {1..10}; do
        n=$(seg_name "$i" 1)
        make_seg "$n" "$T/$n" 1
        cp "$T/$n" "$T/w/wal/"
    done
    for i in {1..10}; do
        n=$(seg_name "$i" 1)
        cp "$T/m/wal/$n" "$T/out"
        assert_same "$T/out" "$T/$n"
    done
    # The gap that prefetching met is not remembered either.
    n=$(seg_name 11 1)
    expect_fail "No such file" cp "$T/m/wal/$n" "$T/out"
    make_seg "$n" "$T/$n" 1
    cp "$T/$n" "$T/w/wal/"
    assert_same "$T/m/wal/$n" "$T/$n"
}

# Parts of a segment, as pg_waldump reads it, and by mmap.
test_partial_reads()
{
    local n
    use_store file
    use_key gpg
    n=$(seg_name 3)
    make_seg "$n" "$T/$n"
    mount_walefs m
    cp "$T/$n" "$T/m/wal/"
    umount_walefs m
    mount_walefs m
    dd if="$T/m/wal/$n" bs=8192 skip=1000 count=3 status=none | cmp - <(dd if="$T/$n" bs=8192 skip=1000 count=3 status=none)
    tail -c 100 "$T/m/wal/$n" | cmp - <(tail -c 100 "$T/$n")
    python3 - "$T/m/wal/$n" "$T/$n" <<'END'
import mmap, sys
with open(sys.argv[1], "rb") as a, open(sys.argv[2], "rb") as b:
    m = mmap.mmap(a.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    assert m[5000000:5100000] == b.read()[5000000:5100000]
END
    head -c 10 "$T/m/wal/$n" >/dev/null
    assert_same "$T/m/wal/$n" "$T/$n"
}

# A segment of 1 GiB, PostgreSQL's largest: zeros but for some pages, the first and the last among them.
make_large_seg() # NAME OUT
{
    python3 - "$ROOT/tests/lib" "$1" "$2" <<'END'
import random, sys
sys.path.insert(0, sys.argv[1])
import walseg
SIZE = 1 << 30
with open(sys.argv[3], "wb") as f:
    f.write(next(walseg.pages(sys.argv[2], SIZE, "")))
    for at in [*range(100 << 20, SIZE, 100 << 20), SIZE - walseg.PAGE]:
        f.seek(at)
        f.write(random.Random(at).randbytes(walseg.PAGE))
END
}

# Larger than the cache, and than the memory that there may be for it.
test_segments_of_1_gib()
{
    local i n kib
    use_store file
    use_key gpg
    mount_walefs m
    for i in 1 2; do
        n=$(seg_name $i 1024)
        make_large_seg "$n" "$T/$n"
        cp "$T/$n" "$T/m/wal/"
    done
    cp "$T/$n" "$T/m/wal/"
    umount_walefs m
    mount_walefs m
    for i in 1 2; do
        n=$(seg_name $i 1024)
        assert_eq "$(stat -c %s "$T/m/wal/$n")" 1073741824 "size of $n"
        assert_same "$T/m/wal/$n" "$T/$n"
        assert_archived "$n" "$T/$n"
    done
    kib=$(awk '/^VmHWM:/ { print $2 }' "/proc/${MOUNT_PID[m]}/status")
    echo "# figure: VmHWM $kib KiB"
    ((kib < 256000)) || fail "$kib KiB of memory"
    umount_walefs m
}
