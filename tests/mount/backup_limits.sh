# shellcheck shell=bash disable=SC2034
# Base backups where something is large, scarce, shared or gone; and those that WAL-E wrote.
NEEDS_S3=1
TIME_LIMIT=300
FIXTURES=$ROOT/tests/fixtures/wal-e

# A small cluster with some data in it, running.
make_source()
{
    pg_init src
    pg_conf src "max_wal_senders = 8" "wal_level = replica"
    pg_start src
    pg_sql src "create table t as select i, md5(i::text) v from generate_series(1, ${1:-100000}) i"
}

basebackup() # LABEL OPTIONS... (of mount m, or $M)
{
    pg_backup src "$T/${M:-m}/basebackups/$1" -Ft -X none "${@:2}"
}

# Its copy verifies, and starts.
check_restored() # MOUNT LABEL
{
    rm -rf "$T/copy"
    pg_dir "$T/copy"
    cp -a "$T/$1/basebackups/$2/pgdata/." "$T/copy/"
    "$PG_BIN/pg_verifybackup" -n "$T/copy" || fail "$2 of $1 does not verify"
}

no_leftovers()
{
    [[ -z $(store_ls basebackups_005/) ]]
}

no_uploads()
{
    local keys
    keys=$(store_uploads) && [[ -z $keys ]]
}

some_uploads()
{
    [[ -n $(store_uploads) ]]
}

hwm_mib() # MOUNT
{
    awk '/^VmHWM:/ { print int($2 / 1024) }' "/proc/${MOUNT_PID[$1]}/status"
}

# ---- the store goes away ------------------------------------------------------------------------

test_store_gone()
{
    local m=$T/m writer rc=0
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m "$(pg_mount_opts)" partition_size=4M write_timeout=4,connect_timeout=2,stall_timeout=3
    make_source
    head -c 64M /dev/urandom | as_pg tee "$(pg_data src)/base/noise" >/dev/null
    basebackup lost -r 16M >"$T/lost.log" 2>&1 &
    writer=$!
    wait_for 20 "an upload in parts" some_uploads
    proxy_mode hang
    reap_child $writer 60 "pg_basebackup without a store" || rc=$?
    ((rc != 0)) || fail "pg_basebackup succeeded without a store"
    assert_log m 'lost'
    proxy_mode pass
    [[ -z $(find "$m/basebackups/" -name 'base_*') ]] || fail "what was interrupted looks complete"
    ! store_ls basebackups_005/ | grep sentinel || fail "there is a sentinel"
    # What it left is removed, by itself where the store answers again in time, or by hand.
    rm -rf "$m/basebackups/lost"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" allow_delete
    sed 1,2d "$m/status/incomplete" | cut -f1 | (cd "$m/basebackups" && xargs -r rmdir)
    wait_for 30 "the end of cleaning up" no_leftovers
    wait_for 30 "the uploads to be aborted" no_uploads
    basebackup again
    check_restored m again
    pg_stop src
    umount_walefs m
}

# The writer dies while a large partition is being stored in parts: the store keeps nothing of it.
test_killed_amid_an_upload_in_parts()
{
    local m=$T/m writer
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)"
    make_source
    head -c 64M /dev/urandom | as_pg tee "$(pg_data src)/base/noise" >/dev/null
    basebackup lost -r 16M >"$T/lost.log" 2>&1 || true &
    writer=$!
    wait_for 30 "an upload in parts" some_uploads
    pg_kill_basebackup "$m/basebackups/lost" "$writer"
    [[ -z $(find "$m/basebackups/" -name 'base_*') ]] || fail "what was interrupted looks complete"
    rm -r "$m/basebackups/lost"
    wait_for 60 "the end of cleaning up" no_leftovers
    wait_for 30 "the upload to be aborted" no_uploads
    pg_stop src
    umount_walefs m
}

# Partitions get their names by copying inside the store; where it makes no copies (a radosgw that
# encrypts) they pass through this host again.
test_store_makes_no_copies()
{
    local m=$T/m
    use_store http
    use_key none
    s3_server crypt
    mount_walefs m "$(pg_mount_opts)" partition_size=4M
    make_source
    basebackup b
    check_restored m b
    pg_stop src
    umount_walefs m
    s3_server plain
}

# ---- local space ---------------------------------------------------------------------------------

# A tree of files is staged on this host until it is archived: a file that does not fit at all fails
# the backup for good, and a tree that does not fit at once is archived meanwhile.
test_disk_full()
{
    local m=$T/m b=$T/m/basebackups
    use_store file
    use_key none
    mkdir "$T/small"
    mount -t tmpfs -o size=20m,mode=700 walefs-test "$T/small"
    mount_walefs m "cache_dir=$T/small"
    make_source
    pg_stop src
    mkdir "$b/full.partial"
    head -c 40M /dev/zero >"$(pg_data src)/base/large"
    expect_fail 'No space left' cp -a "$(pg_data src)/." "$b/full.partial/"
    expect_fail . mv -T "$b/full.partial" "$b/full"
    assert_log m 'the base backup full has failed.*No space left'
    [[ -z $(find "$b/" -maxdepth 1 -name 'base_*') ]] || fail "a backup without one of its files is complete"
    rm -rf "$b/full.partial"
    wait_for 30 "the end of cleaning up" no_leftovers
    rm "$(pg_data src)/base/large"
    mkdir "$b/fits.partial"
    cp -a "$(pg_data src)/." "$b/fits.partial/"
    mv -T "$b/fits.partial" "$b/fits"
    diff -r --no-dereference "$(pg_data src)" "$b/fits/pgdata"
    umount_walefs m
    umount "$T/small"
}

# ---- several writers -----------------------------------------------------------------------------

# Each is complete and sound, or was refused with a reason: never a mix.
two_at_once() # MOUNT-OF-ONE MOUNT-OF-THE-OTHER
{
    local one two ok=0 rc1=0 rc2=0 name
    M=$1 basebackup one -r 16M >"$T/one.log" 2>&1 &
    one=$!
    sleep 0.3
    M=$2 basebackup two -r 16M >"$T/two.log" 2>&1 &
    two=$!
    reap_child $one 90 "the first pg_basebackup" || rc1=$?
    reap_child $two 90 "the second pg_basebackup" || rc2=$?
    sleep 2.1 # listings of another mount are as old as this
    for name in one two; do
        if [[ -L $T/$1/basebackups/$name ]]; then
            ok=$((ok + 1))
            check_restored "$1" "$name"
            grep -q "\"label\": \"$name\"" "$T/$1/basebackups/$name/backup.json"
        fi
    done
    assert_eq "$ok" "$(((rc1 == 0) + (rc2 == 0)))" "complete backups, and writers that succeeded"
    ((ok >= 1)) || fail "both were refused: $(cat "$T/one.log" "$T/two.log")"
    ((rc1 == 0)) || assert_log "$1" 'begins at the same place|of the same name'
    ((rc2 == 0)) || assert_log "$2" 'begins at the same place|of the same name'
}

test_two_at_once_on_one_mount()
{
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)" partition_size=4M
    make_source
    two_at_once m m
    pg_stop src
    umount_walefs m
}

test_two_at_once_on_two_mounts()
{
    use_store http
    use_key none
    mount_walefs m "$(pg_mount_opts)" partition_size=4M
    mount_walefs n "$(pg_mount_opts)" partition_size=4M
    make_source
    two_at_once m n
    pg_stop src
    umount_walefs m
    umount_walefs n
}

# ---- large and long ------------------------------------------------------------------------------

# A relation of more than a file of 1 GiB, tablespaces, unlogged tables, and names of every kind.
big_relation() # STORE KEY
{
    local m=$T/m d want big
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)"
    make_source
    pg_dir "$T/ts"
    as_pg mkdir "$T/ts/one" "$T/ts/zwei-größe"
    pg_sql src "create tablespace one location '$T/ts/one'"
    pg_sql src "create tablespace two location '$T/ts/zwei-größe'"
    pg_sql src "create table t1 tablespace one as select i from generate_series(1, 50000) i"
    pg_sql src "create table t2 tablespace two as select i from generate_series(1, 60000) i"
    pg_sql src "create unlogged table u as select 1 i"
    pg_sql src "alter system set wal_level = minimal" # what is copied into a new table needs no WAL
    pg_sql src "alter system set max_wal_senders = 0"
    pg_stop src
    pg_start src
    pg_sql src "create table big as select i, repeat(md5(i::text), 30) v from generate_series(1, 1150000) i"
    pg_sql src "alter system reset all"
    pg_stop src
    pg_start src
    d=$(pg_data src)
    big=$(pg_sql src "select pg_relation_filepath('big')")
    assert_eq "$(stat -c %s "$d/$big")" $((1 << 30)) "size of the relation's first file"
    as_pg mkdir "$d/base/$(printf 'd%.0s' {1..40})" # 99 bytes are what its tar format has for a path
    echo long | as_pg tee "$d/base/$(printf 'd%.0s' {1..40})/$(printf 'n%.0s' {1..53})" "$d/größe-数" >/dev/null
    as_pg truncate -s 3000000 "$d/base/sparse"
    as_pg touch "$d/base/empty"

    basebackup large
    (($(hwm_mib m) < 300)) || fail "walefs used $(hwm_mib m) MiB"
    note "pg_basebackup of $(du -sh "$d" | cut -f1): peak $(hwm_mib m) MiB"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro
    "$PG_BIN/pg_verifybackup" -n "$m/basebackups/large/pgdata"
    (($(hwm_mib m) < 300)) || fail "walefs used $(hwm_mib m) MiB for reading"
    note "pg_verifybackup in the mount: peak $(hwm_mib m) MiB"
    want=$(pg_sql src "select count(*), sum(length(v)) from big")
    pg_stop src immediate
    rm -rf "$T/pg/src" "$T/ts"
    pg_home two
    pg_dir "$T/ts"
    "$ROOT/mount/walefs-restore" --quiet --no-sync --force --bindir "$PG_BIN" "$m" "$(pg_data two)" ||
        fail "walefs-restore failed"
    assert_eq "$(find "$(pg_data two)/größe-数" "$(pg_data two)"/base/{sparse,empty,ddd*/n*} -printf '%s ')" \
        "5 3000000 0 5 " "sizes of the odd files"
    # All WAL that this backup needs is one segment, which nobody archived.
    "$PG_BIN/pg_verifybackup" -n "$(pg_data two)"
    as_pg "$PG_BIN/pg_resetwal" -f "$(pg_data two)" >/dev/null
    rm -f "$(pg_data two)"/{backup_label,recovery.signal}
    pg_start two
    assert_eq "$(pg_sql two "select count(*), sum(length(v)) from big")" "$want" "the large table"
    assert_eq "$(pg_sql two "select (select count(*) from t1) || ' ' || (select count(*) from t2)")" \
        "50000 60000" "tables in tablespaces"
    pg_stop two
    umount_walefs m
}

test_big_relation()
{
    big_relation http gpg
}

test_big_relation_in_a_directory()
{
    big_relation file none
}

# One partition is as large as WAL-E makes them, and larger than the cache: a relation's file of 1 GiB and more.
large_partition() # STORE KEY
{
    local m=$T/m name=base_000000010000000000000002_00000040 src=$T/src at
    use_store "$1"
    use_key "$2"
    python3 "$ROOT/tests/lib/make_cluster.py" "$src" label
    mkdir -p "$src/base/7"
    truncate -s 1G "$src/base/7/1"
    truncate -s 600M "$src/base/7/1.1"
    for at in 0 1 511 1000 1023; do
        printf 'block %d of 1' "$at" | dd of="$src/base/7/1" bs=1M seek="$at" conv=notrunc status=none
    done
    echo last >"$src/base/7/2"
    tar -C "$src" --sort=name -cf "$T/tar" PG_VERSION backup_label global base
    lzop -c "$T/tar" | if [[ $2 == gpg ]]; then
        gpg_batch "$GPG_READER" --trust-model always -e -z 0 -r "$KEY_ID"
    else
        cat
    fi >"$T/object"
    store_put "$T/object" "basebackups_005/$name/tar_partitions/part_00000000.tar.lzo"
    echo '{"wal_segment_backup_stop": "000000010000000000000002", "wal_segment_offset_backup_stop": "00000300",
        "expanded_size_bytes": 1700000000, "spec": {"base_prefix": "/srv/pg/", "tablespaces": []}}' \
        >"$T/sentinel"
    store_put "$T/sentinel" "basebackups_005/${name}_backup_stop_sentinel.json"
    mount_walefs m "cache_size=64M"
    assert_eq "$(stat -c %s "$m/basebackups/$name/tar/part_00000000.tar")" \
        "$(stat -c %s "$T/tar")" "size of the tar"
    assert_eq "$(cat "$m/basebackups/$name/pgdata/base/7/2")" last "the last file"
    assert_same "$m/basebackups/$name/pgdata/base/7/1" "$src/base/7/1"
    for at in 1000 1; do
        assert_eq "$(dd if="$m/basebackups/$name/pgdata/base/7/1" bs=1M skip="$at" count=1 status=none | head -c 7)" \
            "block ${at:0:1}" "a block of the file"
    done
    tail -c 100M "$m/basebackups/$name/tar/part_00000000.tar" | cmp - <(tail -c 100M "$T/tar") || fail "the end of the tar"
    (($(hwm_mib m) < 300)) || fail "walefs used $(hwm_mib m) MiB"
    note "peak $(hwm_mib m) MiB"
    umount_walefs m
}

test_large_partition()
{
    large_partition file none
}

test_large_partition_gpg()
{
    large_partition file gpg
}

test_large_partition_on_s3()
{
    large_partition http none
}

test_large_partition_gpg_on_s3()
{
    large_partition http gpg
}

# Names that pg_basebackup's tar cannot have, out of a stopped cluster.
long_names() # STORE KEY
{
    local m=$T/m d deep
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)"
    make_source
    pg_stop src
    d=$(pg_data src)
    deep=$d/base/$(printf 'a%.0s' {1..200})/$(printf 'b%.0s' {1..200})
    as_pg mkdir -p "$deep"
    echo deep | as_pg tee "$deep/$(printf 'c%.0s' {1..250})" "$d/$(printf 'ü%.0s' {1..127})" \
        "$d/with blank, \\ and \"quotes\"" "$d/"$'new\nline' >/dev/null
    mkdir "$m/basebackups/long.partial"
    cp -a "$d/." "$m/basebackups/long.partial/"
    mv -T "$m/basebackups/long.partial" "$m/basebackups/long"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)"
    diff -r --no-dereference "$d" "$m/basebackups/long/pgdata"
    pg_home two
    cp -a "$m/basebackups/long/pgdata" "$(pg_data two)"
    pg_start two
    assert_eq "$(pg_sql two "select count(*) from t")" 100000 "rows of the copy"
    pg_stop two
    umount_walefs m
}

test_long_names()
{
    long_names file gpg
}

test_long_names_on_s3()
{
    long_names http none
}

# ---- reading little ------------------------------------------------------------------------------

relayed()
{
    sleep 0.3 # what is under way arrives
    cat "$PROXY_DIR/bytes"
}

# One file out of a backup does not cost what lies behind it nor, where it is not encrypted, what lies before
# it, and a pass in order fetches everything once.
bytes_fetched() # KEY
{
    local m=$T/m file before bytes stored
    use_store http
    use_key "$1"
    mount_walefs m "$(pg_mount_opts)"
    make_source 10
    # does not compress: 96 MiB in two files
    pg_sql src "create extension if not exists plpgsql"
    head -c 48M /dev/urandom | as_pg tee "$(pg_data src)/base/noise1" >/dev/null
    head -c 48M /dev/urandom | as_pg tee "$(pg_data src)/base/noise2" >/dev/null
    basebackup b
    umount_walefs m
    stored=0
    for file in $(store_ls basebackups_005/ | grep part_); do
        store_get "$file" "$T/object"
        stored=$((stored + $(stat -c %s "$T/object")))
    done
    ((stored > 96 << 20)) || fail "only $stored bytes are stored"

    use_fault_proxy
    mount_walefs m "$(pg_mount_opts)" ro
    ls -lR "$m/basebackups/b/pgdata" >/dev/null
    before=$(relayed)
    head -n 1 "$m/basebackups/b/pgdata/backup_label" >"$T/label" # the first member
    assert_match "$(cat "$T/label")" "^START WAL LOCATION" "backup_label"
    bytes=$(($(relayed) - before))
    note "the first file: $bytes bytes were fetched, of $stored"
    ((bytes < 16 << 20)) || fail "$bytes bytes for the first file"
    if [[ $1 == none ]]; then
        before=$(relayed)
        assert_eq "$(cat "$m/basebackups/b/pgdata/PG_VERSION")" 15 "PG_VERSION"
        bytes=$(($(relayed) - before))
        note "PG_VERSION: $bytes bytes were fetched"
        ((bytes < 4 << 20)) || fail "$bytes bytes for one small file"
        before=$(relayed)
        dd if="$m/basebackups/b/pgdata/base/noise2" of="$T/some" bs=8k skip=4000 count=1 status=none
        dd if="$(pg_data src)/base/noise2" of="$T/same" bs=8k skip=4000 count=1 status=none
        assert_same "$T/some" "$T/same"
        bytes=$(($(relayed) - before))
        note "8 KiB in the middle of 48 MiB: $bytes bytes were fetched"
        ((bytes < 8 << 20)) || fail "$bytes bytes for 8 KiB"
    fi
    umount_walefs m

    mount_walefs m "$(pg_mount_opts)" ro
    ls "$m/basebackups/b/pgdata" >/dev/null
    before=$(relayed)
    tar -C "$m/basebackups/b/pgdata" -cf - . | cat >/dev/null
    bytes=$(($(relayed) - before))
    note "a whole pass: $bytes bytes were fetched, of $stored"
    ((bytes < stored + stored / 10)) || fail "a pass over $stored bytes fetched $bytes"
    pg_stop src
    umount_walefs m
}

test_bytes_fetched()
{
    bytes_fetched none
}

test_bytes_fetched_gpg()
{
    bytes_fetched gpg
}

more_relayed_than() # BYTES
{
    (($(cat "$PROXY_DIR/bytes") > $1))
}

# Who is still reading a partition finds the next one on its way.
test_next_partition_is_fetched_ahead()
{
    local m=$T/m parts first before
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)" partition_size=40M
    make_source 10
    head -c 39M /dev/urandom | as_pg tee "$(pg_data src)/base/noise1" "$(pg_data src)/base/noise2" >/dev/null
    basebackup b
    pg_stop src
    umount_walefs m
    mapfile -t parts < <(store_ls basebackups_005/ | grep /part_)
    ((${#parts[@]} >= 2)) || fail "only ${#parts[@]} partitions"
    use_fault_proxy
    mount_walefs m "$(pg_mount_opts)" ro
    stat "$m/basebackups/b/tar/part_00000000.tar" >/dev/null
    store_get "${parts[0]}" "$T/object"
    first=$(stat -c %s "$T/object")
    before=$(relayed)
    exec 7<"$m/basebackups/b/tar/part_00000000.tar"
    # The last 512 bytes of a tar are zeros that nobody needs to have read.
    head -c $(($(stat -c %s "$m/basebackups/b/tar/part_00000000.tar") - 512)) <&7 >/dev/null
    wait_for 30 "the next partition" more_relayed_than $((before + first + (2 << 20)))
    exec 7<&-
    umount_walefs m
}

# ---- deleting much -------------------------------------------------------------------------------

seg_name() # N
{
    printf '0000000100000000%08X' "$1"
}

# 10,000 segments go with few requests, and nothing that is needed, or is no segment, goes along.
test_cleanup_of_10000()
{
    local m=$T/m i object first last
    use_store file
    use_key none
    mount_walefs m
    make_seg "$(seg_name 16)" "$T/$(seg_name 16)" 1
    cp "$T/$(seg_name 16)" "$m/wal/"
    printf '1\t0/3000000\tno recovery target specified\n' >"$T/00000002.history"
    cp "$T/00000002.history" "$m/wal/"
    umount_walefs m
    # Listings do not look into them.
    object=$STORE_DIR/wal_005/$(seg_name 16).lzo
    for ((i = 17; i <= 10016; i++)); do
        echo "$STORE_DIR/wal_005/$(seg_name $i).lzo"
    done >"$T/links"
    # shellcheck disable=SC2016
    xargs -P 2 -n 500 <"$T/links" bash -c 'o=$1; shift; for f; do ln "$o" "$f"; done' _ "$object"
    mount_walefs m allow_delete
    assert_eq "$(find "$m/wal/" -type f | wc -l)" 10002 "files before"
    "$PG_BIN/pg_archivecleanup" "$m/wal" "$(seg_name 10010)"
    assert_eq "$(find "$m/wal/" -name '0000000100000000*' -printf '%f\n' | sort | head -n 1)" "$(seg_name 10010)" "first that stays"
    assert_eq "$(find "$m/wal/" -type f | wc -l)" 8 "files after"
    umount_walefs m
    assert_eq "$(store_ls wal_005/ | wc -l)" 8 "objects after"
}

# The same on S3, where each request is counted.
test_cleanup_by_bulk_deletes()
{
    local m=$T/m i n=2000
    use_store http
    use_key none
    mount_walefs m
    make_seg "$(seg_name 16)" "$T/seg" 1
    cp "$T/seg" "$m/wal/$(seg_name 16)"
    umount_walefs m
    store_get "wal_005/$(seg_name 16).lzo" "$T/object"
    for ((i = 17; i <= n + 16; i++)); do
        printf 'next\nupload-file = "%s"\nurl = "%s"\n' "$T/object" "$(s3_url "wal_005/$(seg_name $i).lzo")"
        printf 'silent\nfail\naws-sigv4 = "aws:amz:us-east-1:s3"\nuser = "%s:%s"\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
        printf 'header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"\noutput = "/dev/null"\n'
    done | sed 1d >"$T/curlrc"
    curl -Z --parallel-max 8 -K "$T/curlrc" || fail "the segments cannot be made"
    assert_eq "$(store_ls wal_005/ | wc -l)" $((n + 1)) "objects before"
    use_fault_proxy
    mount_walefs m allow_delete
    "$PG_BIN/pg_archivecleanup" "$m/wal" "$(seg_name $((n + 10)))"
    umount_walefs m
    assert_eq "$(store_ls wal_005/ | wc -l)" 7 "objects after"
    note "$((n - 6)) segments were deleted by $(cat "$PROXY_DIR/deletes") requests"
    (($(cat "$PROXY_DIR/deletes") <= n / 50)) || fail "$(cat "$PROXY_DIR/deletes") requests"
}

# A backup of many partitions goes with two requests: one for its sentinel, one for the rest.
test_rmdir_by_bulk_delete()
{
    local m=$T/m name n before
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m "$(pg_mount_opts)" partition_size=1M,allow_delete
    make_source
    basebackup b
    pg_stop src
    name=$(readlink "$m/basebackups/b")
    n=$(store_ls "basebackups_005/$name/" | wc -l)
    ((n > 20)) || fail "only $n objects"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" allow_delete
    before=$(cat "$PROXY_DIR/deletes" 2>/dev/null || echo 0)
    rmdir "$m/basebackups/$name"
    assert_eq "$(store_ls basebackups_005/)" "" "what is left of it"
    assert_eq "$(($(cat "$PROXY_DIR/deletes") - before))" 2 "requests that deleted $n objects and the sentinel"
    umount_walefs m
}

# ---- what WAL-E wrote ----------------------------------------------------------------------------

# The archive of README.md in the fixtures: verified file by file, restored and started.
wal_e_restores() # STORE plain|gpg
{
    local object name m=$T/m d
    use_store "$1"
    mkdir -m 700 "$T/rsa"
    gpg_batch "$T/rsa" --passphrase-file "$FIXTURES/keys/passphrase.txt" \
        --import "$FIXTURES/keys/secret-with-passphrase.asc" 2>&1
    KEY_OPTS=gpg_home=$T/rsa,passphrase_file=$FIXTURES/keys/passphrase.txt
    (cd "$FIXTURES/gpg" && find . -type f -printf '%P\n') >"$T/objects"
    while read -r object; do
        cp "$FIXTURES/gpg/$object" "$T/object"
        if [[ $2 == plain && $object == *.lzo ]]; then
            gpg_batch "$T/rsa" --passphrase-file "$FIXTURES/keys/passphrase.txt" -d <"$FIXTURES/gpg/$object" >"$T/object"
        fi
        store_put "$T/object" "$object"
    done <"$T/objects"
    gpgconf --homedir "$T/rsa" --kill gpg-agent
    mount_walefs m "$(pg_mount_opts)" ro
    name=$(readlink "$m/basebackups/LATEST")
    (cd "$m/basebackups/LATEST/pgdata" && sha256sum --quiet -c "$FIXTURES/pgdata.sha256") || fail "files differ"
    assert_eq "$(find "$m/basebackups/LATEST/pgdata/" -type f | wc -l)" "$(wc -l <"$FIXTURES/pgdata.sha256")" "files"
    pg_home two
    d=$(pg_data two)
    "$ROOT/mount/walefs-restore" --quiet --no-sync --bindir "$PG_BIN" --owner "$PG_OS_USER" --tablespaces-inside \
        --start --start-options "-c unix_socket_directories='$T/pg/two'" "$m" "$d" || fail "walefs-restore failed"
    wait_for 60 "the end of recovery" pg_true two "not pg_is_in_recovery()"
    assert_eq "$(pg_sql two "select (select count(*) from a) || ' ' || (select count(*) from b) || ' ' || (select count(*) from c)")" \
        "4000 1000 2000" "rows of $name"
    pg_stop two
    umount_walefs m
}

test_wal_e_backup_starts_plain()
{
    wal_e_restores http plain
}

test_wal_e_backup_starts_gpg()
{
    wal_e_restores file gpg
}
