# shellcheck shell=bash disable=SC2034
# Base backups: taken by pg_basebackup and by copying, read back in every way, recovered from,
# refused, interrupted and deleted.
NEEDS_S3=1
TIME_LIMIT=240

# A cluster with two tablespaces, an unlogged table, and a file of some size.
make_source() # MOUNT
{
    pg_init src
    pg_conf src "max_wal_senders = 5" "wal_level = replica"
    [[ -z ${1:-} ]] || pg_archive_with src "cp %p $1/wal/%f"
    pg_start src
    pg_tablespaces src one two
    pg_sql src "create table t as select i, md5(i::text) v from generate_series(1, 200000) i"
    pg_sql src "create table t1 tablespace one as select i from generate_series(1, 50000) i"
    pg_sql src "create table t2 (i int) tablespace two"
    pg_sql src "create unlogged table u as select 1 i"
}

basebackup() # LABEL OPTIONS...
{
    pg_backup src "$T/m/basebackups/$1" "${@:2}"
}

rows() # CLUSTER
{
    pg_sql "$1" "select (select count(*) from t) || ' ' || (select count(*) from t1) || ' ' ||
        (select count(*) from t2) || ' ' || (select count(*) from u)"
}

# Name, mode, owner, time and size of everything but the directories' own sizes.
# With FILES the times of directories are left out: tar sets them, but what comes into a directory with
# the next tar file changes them again.
facts() # DIR [FILES]
{
    (cd "$1" && find . -mindepth 1 -type d -printf "%p %y %m %U %G ${2:-%T@}\n" -o -printf '%p %y %m %U %G %T@ %s %l\n' | sort)
}

assert_same_tree() # DIR DIR [FILES]
{
    facts "$1" "${3:-}" >"$T/.facts1"
    facts "$2" "${3:-}" >"$T/.facts2"
    assert_same "$T/.facts1" "$T/.facts2"
    diff -r --no-dereference "$1" "$2" || fail "$1 and $2 differ"
}

# Everything that reads a backup gives the same tree, and the objects are what independent tools read.
check_backup() # LABEL
{
    local b=$T/m/basebackups/$1 p name
    rm -rf "$T"/by_*
    mkdir "$T/by_cp" "$T/by_rsync" "$T/by_tar" "$T/by_parts" "$T/by_tools"
    cp -a "$b/pgdata/." "$T/by_cp/"
    rsync -a "$b/pgdata/" "$T/by_rsync/"
    tar -C "$b/pgdata" --format=posix -cf - . | tar -C "$T/by_tar" -xpf -
    for p in "$b"/tar/*.tar; do
        tar -C "$T/by_parts" -xpf "$p"
    done
    name=$(readlink "$b")
    for p in $(store_ls "basebackups_005/$name/tar_partitions/part_"); do
        store_get "$p" "$T/.object"
        decode_object "$T/.object" "$T/.plain" || fail "gpg and lzop cannot read $p"
        tar -C "$T/by_tools" -xpf "$T/.plain"
    done
    assert_same_tree "$b/pgdata" "$T/by_cp"
    assert_same_tree "$T/by_cp" "$T/by_rsync"
    assert_same_tree "$T/by_cp" "$T/by_tar"
    assert_same_tree "$T/by_cp" "$T/by_parts" files
    assert_same_tree "$T/by_cp" "$T/by_tools" files
}

# The name and backup.json say what the server says, in the backup history file that it archived and when it
# is asked; the sentinel has WAL-E's members.
check_facts() # LABEL
{
    local name
    name=$(readlink "$T/m/basebackups/$1")
    store_get "basebackups_005/${name}_backup_stop_sentinel.json" "$T/sentinel"
    pg_sql src "select spcname, oid, pg_tablespace_location(oid) from pg_tablespace where oid >= 16384" >"$T/tablespaces"
    python3 - "$T/m/basebackups/$1/backup.json" "$T/sentinel" "$T"/m/wal/*.backup "$T/tablespaces" "$name" "$1" \
        "$(pg_sql src "select system_identifier from pg_control_system()")" "${PG_BIN//[!0-9]/}" <<'END'
import json, re, sys
facts, wal_e = (json.load(open(f)) for f in sys.argv[1:3])
said = open(sys.argv[3]).read()
places = {oid: place for _, oid, place in (line.rstrip("\n").split("|") for line in open(sys.argv[4]))}
name, label, system, version = sys.argv[5:]
lsn = lambda text: int(text.split("/")[0], 16) << 32 | int(text.split("/")[1], 16)
start, stop, timeline = (re.search("^%s: (\\S+)" % what, said, re.M)[1]
                         for what in ("START WAL LOCATION", "STOP WAL LOCATION", "START TIMELINE"))
at = lambda p: ("%08X%08X%08X" % (int(timeline), lsn(p) >> 32, (lsn(p) & 0xffffffff) >> 24), "%08d" % (lsn(p) & 0xffffff))
assert name == "base_%s_%s" % at(start), (name, start)
for member, want in [("name", name), ("label", label), ("start_lsn", start), ("stop_lsn", stop), ("timeline", int(timeline)),
                     ("start_wal_segment", at(start)[0]), ("postgresql_version", version)]:
    assert facts[member] == want, (member, facts[member], want)
assert str(facts["system_identifier"]) == system, facts["system_identifier"]
assert {t["oid"]: t["location"] for t in facts["tablespaces"]} == places and len(places) == 2, facts["tablespaces"]
spec = wal_e["spec"]
assert sorted(spec["tablespaces"]) == sorted(places), spec
for oid, place in places.items():
    assert spec[oid]["loc"].rstrip("/") == place and spec[oid]["link"] == "pg_tblspc/" + oid, spec
assert (wal_e["wal_segment_backup_stop"], wal_e["wal_segment_offset_backup_stop"]) == at(stop), wal_e
assert wal_e["expanded_size_bytes"] == facts["expanded_size_bytes"] > 0
END
}

cycle() # STORE KEY
{
    local m=$T/m want
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)" partition_size=8M
    make_source "$m"
    basebackup nightly -Ft -X none
    check_facts nightly
    assert_eq "$(readlink "$m/basebackups/LATEST")" "$(readlink "$m/basebackups/nightly")" "LATEST"
    "$PG_BIN/pg_verifybackup" -n "$m/basebackups/nightly/pgdata"
    check_backup nightly
    "$PG_BIN/pg_verifybackup" -n "$T/by_cp"
    [[ -e $m/basebackups/nightly/tar/part_00000002.tar ]] || fail "fewer than three partitions"
    pg_sql src "insert into t2 select generate_series(1, 4321)"
    pg_archive_all src >/dev/null
    want=$(rows src | sed 's/ 1$/ 0/') # unlogged tables are empty after recovery
    pg_stop src immediate

    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro
    pg_dir "$T/restored"
    cp -a "$m/basebackups/LATEST/pgdata/." "$T/restored/"
    rm "$T/restored/tablespace_map" # the tablespaces are directories now
    pg_recover two "$T/restored" "$m" "archive_mode = off" "allow_in_place_tablespaces = on"
    assert_eq "$(rows two)" "$want" "rows after recovery"
    pg_stop two
    umount_walefs m
}

test_file_plain()
{
    cycle file none
}

test_file_gpg()
{
    cycle file gpg
}

test_http_plain()
{
    cycle http none
}

test_https_gpg()
{
    cycle https gpg
}

# WAL that pg_basebackup brings itself: fetched into base.tar, or streamed beside it.
test_wal_included()
{
    local m=$T/m how
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)"
    make_source
    for how in fetch stream; do
        basebackup "$how" -Ft -X "$how"
        pg_dir "$T/with_$how"
        cp -a "$m/basebackups/$how/pgdata/." "$T/with_$how/"
        "$PG_BIN/pg_verifybackup" "$T/with_$how"
        rm "$T/with_$how/tablespace_map"
        pg_home "from_$how"
        cp -a "$T/with_$how" "$(pg_data "from_$how")"
        pg_conf "from_$how" "allow_in_place_tablespaces = on"
        pg_start "from_$how"
        assert_eq "$(rows "from_$how")" "200000 50000 0 0" "rows of the backup with -X $how"
        pg_stop "from_$how"
        pg_sql src "select pg_switch_wal()" >/dev/null
    done
    basebackup limited -Ft -X none -r 64M -P --checkpoint=fast >/dev/null
    "$PG_BIN/pg_verifybackup" -n "$m/basebackups/LATEST/pgdata"
    pg_stop src
    umount_walefs m
}

something_below() # PREFIX
{
    [[ -n $(store_ls "$1") ]]
}

no_leftovers()
{
    [[ -z $(store_ls basebackups_005/) ]]
}

test_refused()
{
    local m=$T/m
    use_store http
    use_key none
    mount_walefs m "$(pg_mount_opts)"
    make_source
    expect_fail 'Invalid argument' basebackup no-manifest -Ft -X none --no-manifest
    assert_log m 'there is no backup_manifest'
    expect_fail 'Invalid argument' basebackup zipped -Ft -z -X none
    assert_log m 'walefs compresses by itself'
    expect_fail 'Invalid argument' basebackup linked -Fp -X none -T "$T/ts/one=$T/ts/a" -T "$T/ts/two=$T/ts/b"
    assert_log m 'is a symlink, and what it leads to would not be copied'
    expect_fail 'Invalid argument' basebackup inside -Fp -X none -T "$T/ts/one=$m/basebackups/inside/one" -T "$T/ts/two=$m/basebackups/inside/two"
    assert_log m 'is a tablespace, which a plain backup would have in a place of its own'
    expect_fail 'Invalid argument' mkdir "$m/basebackups/LATEST"
    expect_fail 'Invalid argument' mkdir "$m/basebackups/base_of_mine"
    mkdir "$m/basebackups/none.partial"
    echo nothing >"$m/basebackups/none.partial/file"
    expect_fail 'not permitted' mv "$m/basebackups/none.partial" "$m/basebackups/none"
    assert_log m 'it has no PG_VERSION'
    wait_for 60 "the end of cleaning up" no_leftovers
    rm -r "$m/basebackups/none.partial"
    assert_eq "$(ls "$m/basebackups")" "" "basebackups/ after refusals"

    basebackup taken -Ft -X none
    expect_fail 'exists' basebackup taken -Ft -X none
    "$PG_BIN/pg_verifybackup" -n "$m/basebackups/taken/pgdata"
    pg_stop src
    umount_walefs m
}

test_killed_writer()
{
    local m=$T/m writer
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)" partition_size=4M
    make_source
    basebackup victim -Ft -X none -r 2M >"$T/victim.log" 2>&1 || true &
    writer=$!
    wait_for 20 "a partition" something_below basebackups_005/
    pg_kill_basebackup "$m/basebackups/victim" "$writer"
    [[ -z $(find "$m/basebackups" -name 'base_*') ]] || fail "a killed writer left a backup"
    rm -r "$m/basebackups/victim"
    wait_for 60 "the end of cleaning up" no_leftovers
    assert_eq "$(ls "$m/basebackups")" "" "basebackups/ after a killed writer"
    pg_stop src
    umount_walefs m
}

# walefs itself dies: what it leaves is incomplete, and can be removed.
killed_mount() # STORE KEY
{
    local m=$T/m name writer
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)" partition_size=4M
    make_source
    basebackup victim -Ft -X none -r 2M >"$T/victim.log" 2>&1 || true &
    writer=$!
    wait_for 20 "a partition under its name" something_below basebackups_005/base_
    sleep 2
    kill -9 "${MOUNT_PID[m]}"
    wait "$writer" || true
    umount -l "$m"
    name=$(store_ls basebackups_005/base_ | head -n 1 | cut -d/ -f2)
    mount_walefs m "$(pg_mount_opts)"
    assert_eq "$(ls "$m/basebackups")" "" "backups after the mount was killed"
    # The tablespaces came first, before backup_label told the name.
    sed -n 3,\$p "$m/status/incomplete" >"$T/incomplete"
    cut -f1 "$T/incomplete" | sed 's/-[0-9a-f]\{32\}$/-*/' | sort >"$T/names"
    assert_eq "$(paste -sd ' ' "$T/names")" "$name walefs-tmp-*" "what status/incomplete names"
    while IFS=$'\t' read -r name objects bytes begun age idle _; do
        assert_eq "$objects" "$(store_ls "basebackups_005/$name/" | wc -l)" "objects of $name"
        ((bytes > 0 && age >= idle)) || fail "$name: $bytes bytes, $age s old, idle for $idle s"
        [[ $begun == "$(date -u +%Y)"-*Z ]] || fail "$name was begun at $begun"
    done <"$T/incomplete"
    expect_fail 'not permitted' rmdir "$m/basebackups/$name"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" allow_delete
    cut -f1 "$T/incomplete" | (cd "$m/basebackups" && xargs rmdir)
    [[ -z $(store_ls basebackups_005/) ]] || fail "something is left"
    assert_eq "$(sed 1,2d "$m/status/incomplete")" "" "status/incomplete when all were removed"
    pg_stop src
    umount_walefs m
}

test_killed_mount()
{
    killed_mount file none
}

test_killed_mount_on_s3()
{
    killed_mount http gpg
}

test_copied_cluster()
{
    local m=$T/m b=$T/m/basebackups
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)" partition_size=16M
    make_source
    mkdir "$b/live.partial"
    cp -aL "$(pg_data src)/." "$b/live.partial/"
    expect_fail 'not permitted' mv "$b/live.partial" "$b/live"
    assert_log m 'it has a postmaster.pid'
    rm -r "$b/live.partial"
    pg_stop src
    mkdir "$b/cold.partial"
    cp -aL "$(pg_data src)/." "$b/cold.partial/"
    mv "$b/cold.partial" "$b/cold"
    rm -rf "$T/want"
    cp -aL "$(pg_data src)" "$T/want"
    assert_same_tree "$b/cold/pgdata" "$T/want"
    check_backup cold
    pg_start src
    pg_sql src "insert into t2 values (1); checkpoint" >/dev/null
    pg_stop src
    rsync -aL "$(pg_data src)/" "$b/synced.partial/"
    mv "$b/synced.partial" "$b/synced"
    rm -rf "$T/want"
    cp -aL "$(pg_data src)" "$T/want"
    assert_same_tree "$b/synced/pgdata" "$T/want" files # rsync is content with the right second
    assert_eq "$(readlink "$b/LATEST")" "$(readlink "$b/synced")" "LATEST"
    umount_walefs m
}

start_copy() # LABEL CLUSTER
{
    pg_home "$2"
    cp -a "$T/m/basebackups/$1/pgdata" "$(pg_data "$2")"
    pg_conf "$2" "allow_in_place_tablespaces = on"
    pg_start "$2"
}

# Backups that come file by file, pg_basebackup's plain format and a copy of the stopped cluster with two
# tablespaces, and what starts from them.
trees() # STORE KEY
{
    local m=$T/m want
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)" partition_size=8M
    pg_init src
    pg_conf src "max_wal_senders = 5" "wal_level = replica"
    pg_start src
    pg_sql src "create table t as select i, md5(i::text) v from generate_series(1, 100000) i"
    pg_sql src "create unlogged table u as select 1 i"
    echo odd | as_pg tee "$(pg_data src)/größe-数" >/dev/null
    basebackup plain -Fp -X stream
    "$PG_BIN/pg_verifybackup" -n "$m/basebackups/plain/pgdata"
    start_copy plain from_plain
    assert_eq "$(pg_sql from_plain "select (select count(*) from t) || ' ' || (select count(*) from u)")" "100000 0" \
        "rows of the plain backup"
    pg_stop from_plain

    pg_tablespaces src one two
    pg_sql src "create table t1 tablespace one as select i from generate_series(1, 50000) i"
    pg_sql src "create table t2 tablespace two as select i from generate_series(1, 4321) i"
    want=$(rows src)
    pg_stop src
    mkdir "$m/basebackups/cold.partial"
    cp -aL "$(pg_data src)/." "$m/basebackups/cold.partial/"
    mv -T "$m/basebackups/cold.partial" "$m/basebackups/cold"
    cp -aL "$(pg_data src)" "$T/want"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro
    assert_same_tree "$m/basebackups/cold/pgdata" "$T/want"
    start_copy cold from_cold
    assert_eq "$(rows from_cold)" "$want" "rows of the cold copy"
    pg_stop from_cold
    umount_walefs m
}

test_trees_file_plain()
{
    trees file none
}

test_trees_file_gpg()
{
    trees file gpg
}

test_trees_http_plain()
{
    trees http none
}

test_trees_https_gpg()
{
    trees https gpg
}

test_deleting()
{
    local m=$T/m b=$T/m/basebackups oldest i before
    use_store "${1:-http}"
    use_key none
    mount_walefs m "$(pg_mount_opts)"
    make_source "$m"
    for i in 1 2 3; do
        pg_sql src "select pg_switch_wal()" >/dev/null
        basebackup "b$i" -Ft -X none
    done
    pg_archive_all src >/dev/null
    pg_stop src
    printf '1\t0/5000000\treason\n' | tee "$m/wal/00000002.history" >"$T/h"
    expect_fail 'not permitted' rmdir "$b/$(readlink "$b/b1")"
    assert_log m 'allow_delete'
    expect_fail 'not permitted' rm "$m/wal/00000002.history"
    umount_walefs m

    mount_walefs m "$(pg_mount_opts)" allow_delete
    before=$(ls "$m/wal")
    oldest=$(sed -n 's/.*"start_wal_segment": "\(.*\)".*/\1/p' "$b/b1/backup.json")
    expect_fail 'not permitted' rm "$m/wal/$oldest"
    assert_log m 'is needed by a base backup'
    rmdir "$b/$(readlink "$b/b1")"
    assert_eq "$(find "$b" -maxdepth 1 -name 'base_*' | wc -l)" 2 "backups after rmdir"
    oldest=$(sed -n 's/.*"start_wal_segment": "\(.*\)".*/\1/p' "$b/b2/backup.json")
    "$PG_BIN/pg_archivecleanup" "$m/wal" "$oldest"
    assert_eq "$(find "$m/wal" -type f -printf '%f\n' | grep -cE '^[0-9A-F]{24}$')" \
        "$(grep -E '^[0-9A-F]{24}$' <<<"$before" | awk -v o="$oldest" 'substr($1, 9) >= substr(o, 9)' | wc -l)" \
        "segments after pg_archivecleanup"
    assert_same "$m/wal/00000002.history" "$T/h"
    expect_fail 'not permitted' rm "$m/wal/00000002.history"
    umount_walefs m
    [[ -z $(store_ls wal_005/ | awk -F/ -v o="$oldest" '$2 ~ /^[0-9A-F]{24}[.]lzo/ && substr($2, 9, 16) < substr(o, 9, 16)') ]] ||
        fail "deleted segments are still in the store"
    mount_walefs m ro
    "$PG_BIN/pg_verifybackup" -n "$b/b3/pgdata"
    umount_walefs m
}

test_deleting_in_a_directory()
{
    test_deleting file
}

# What WAL-E wrote: pax members with an empty root name, no index, a sentinel of its own.
make_wal_e_backup() # NAME FORMAT FORMAT: of its two partitions, as Python calls them
{
    local dir=$T/wal-e p
    rm -rf "$dir"
    mkdir -p "$dir/src/global" "$dir/src/base/1" "$dir/src/pg_tblspc/16384/PG_15/1" "$dir/src/pg_wal" "$dir/out"
    echo 15 >"$dir/src/PG_VERSION"
    head -c 3000000 /dev/urandom >"$dir/src/base/1/1000"
    seq 1 300000 >"$dir/src/base/1/1001"
    : >"$dir/src/base/1/1002"
    printf 'START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\nSTART TIMELINE: 1\n' >"$dir/src/backup_label"
    echo deep >"$dir/src/pg_tblspc/16384/PG_15/1/$(printf 'n%.0s' {1..150})"
    echo unicode >"$dir/src/base/1/größe-数"
    ln -s nowhere "$dir/src/base/1/link"
    mkdir "$dir/src/base/2" "$dir/src/pg_twophase"
    echo twice >"$dir/src/base/2/one"
    ln "$dir/src/base/2/one" "$dir/src/base/2/two"
    chmod 600 "$dir/src/PG_VERSION"
    # a time that Python keeps exactly, as the format does
    find "$dir/src" -exec touch -h -d "@1500000000$([[ $2 != PAX ]] || echo .5)" {} +
    python3 - "$dir" "${@:2}" <<'PY'
import os, sys, tarfile
dir = sys.argv[1]
src = dir + "/src"
names = [os.path.relpath(os.path.join(d, n), src)
         for d, subs, files in os.walk(src) for n in sorted(subs) + sorted(files)]
# hard links stay together, and ustar has short names
names.sort(key=lambda n: n.startswith("base/2") or len(n) > 100)
half = len(names) // 2
for part, some in enumerate((names[:half], names[half:])):
    form = getattr(tarfile, sys.argv[2 + part] + "_FORMAT")
    with tarfile.open(f"{dir}/out/part_{part:08d}.tar", "w", format=form) as tar:
        if part == 0:
            root = tar.gettarinfo(src)
            root.name = ""
            tar.addfile(root)
        for n in some:
            tar.add(os.path.join(src, n), n, recursive=False)
PY
    for p in "$dir"/out/*.tar; do
        lzop -c "$p" >"$p.lzo"
        if [[ -n $KEY_OPTS ]]; then
            gpg_batch "$GPG_READER" --trust-model always -e -z 0 -r "$KEY_ID" <"$p.lzo" >"$p.lzo.gpg"
            mv "$p.lzo.gpg" "$p.lzo"
        fi
        store_put "$p.lzo" "basebackups_005/$1/tar_partitions/$(basename "$p.lzo")"
    done
    echo "PostgreSQL 15" >"$dir/version"
    store_put "$dir/version" "basebackups_005/$1/extended_version.txt"
}

finish_wal_e_backup() # NAME
{
    echo '{"wal_segment_backup_stop": "000000010000000000000004", "wal_segment_offset_backup_stop": "00000300",
        "expanded_size_bytes": 5000000, "spec": {"base_prefix": "/srv/pg/", "tablespaces": ["16384"],
        "16384": {"loc": "/srv/ts/", "link": "pg_tblspc/16384"}}}' >"$T/sentinel"
    store_put "$T/sentinel" "basebackups_005/$1_backup_stop_sentinel.json"
}

wal_e() # STORE KEY FORMAT FORMAT
{
    local m=$T/m name=base_000000010000000000000040_00000040 index
    use_store "$1"
    use_key "$2"
    make_wal_e_backup $name "$3" "$4"
    mount_walefs m
    assert_eq "$(ls "$m/basebackups")" "" "an incomplete backup is not offered"
    finish_wal_e_backup $name
    sleep 2.1
    assert_eq "$(readlink "$m/basebackups/LATEST")" $name "LATEST"
    assert_same_tree "$m/basebackups/$name/pgdata" "$T/wal-e/src"
    index=basebackups_005/$name/tar_partitions/walefs-index.lzo
    [[ -n $(store_ls "$index") ]] || fail "the index was not stored"
    umount_walefs m

    # damaged, stale or newer: made anew
    store_get "$index" "$T/index"
    head -c 200 "$T/index" >"$T/cut"
    store_put "$T/cut" "$index"
    mount_walefs m
    assert_same_tree "$m/basebackups/$name/pgdata" "$T/wal-e/src"
    assert_log m 'the index in the archive is not used'
    umount_walefs m
    printf 'one more byte' >>"$T/wal-e/src/backup_label"
    make_wal_e_again $name
    mkdir -p "$T/kept"
    mount_walefs m "ro,cache_dir=$T/kept"
    assert_eq "$(tail -c 13 "$m/basebackups/$name/pgdata/backup_label")" "one more byte" "content after a change"
    umount_walefs m

    # what a mount that cannot write has made stays on this host, coded
    assert_eq "$(find "$T/kept" -name 'walefs-index-*.lzo' -perm 600 | wc -l)" 1 "indexes in the cache directory"
    [[ -z $KEY_OPTS ]] || ! grep -q backup_label "$T"/kept/* || fail "the kept index is readable"
    mount_walefs m "ro,cache_dir=$T/kept"
    diff -r --no-dereference "$m/basebackups/$name/pgdata" "$T/wal-e/src"
    umount_walefs m
    assert_eq "$(grep -c 'are read once to make its index' "$T/m.log")" 3 "indexes that were made"
    chmod 644 "$T"/kept/* # as if it were somebody else's
    mount_walefs m "ro,cache_dir=$T/kept"
    diff -r --no-dereference "$m/basebackups/$name/pgdata" "$T/wal-e/src"
    umount_walefs m
    assert_eq "$(grep -c 'are read once to make its index' "$T/m.log")" 4 "indexes that were made"

    # the WAL that it needs is what its backup_label says, whatever its name is
    make_seg 000000010000000000000004 "$T/000000010000000000000004"
    make_seg 000000010000000000000003 "$T/000000010000000000000003"
    mount_walefs m allow_delete
    cp "$T/000000010000000000000003" "$T/000000010000000000000004" "$m/wal/"
    expect_fail 'not permitted' rm "$m/wal/000000010000000000000004"
    rm "$m/wal/000000010000000000000003"
    umount_walefs m
}

# The same files again, in other objects.
make_wal_e_again() # NAME
{
    python3 - "$T/wal-e" <<'PY'
import os, sys, tarfile
dir = sys.argv[1]
src = dir + "/src"
for part in (0, 1):
    old = f"{dir}/out/part_{part:08d}.tar"
    with tarfile.open(old) as t:
        names = t.getnames()
    with tarfile.open(old, "w") as tar:
        for n in names:
            tar.add(os.path.join(src, n), n, recursive=False)
PY
    for p in "$T"/wal-e/out/*.tar; do
        lzop -f -o "$p.lzo" "$p"
        store_put "$p.lzo" "basebackups_005/$1/tar_partitions/$(basename "$p.lzo")"
    done
}

test_wal_e_plain()
{
    wal_e http none USTAR GNU
}

test_wal_e_gpg()
{
    wal_e file gpg PAX PAX
}
