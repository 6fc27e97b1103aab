# shellcheck shell=bash disable=SC2034,SC2154
# walefs-restore and walefs-prune: on a mount, and on plain trees that imitate one, where what is to go
# wrong can be made to. $TREE is the root of either.
NEEDS_S3=1
TIME_LIMIT=240

RESTORE=$ROOT/mount/walefs-restore
PRUNE=$ROOT/mount/walefs-prune

# ---- an archive ---------------------------------------------------------------------------------

rows() # CLUSTER
{
    pg_sql "$1" "select (select count(*) from t) || ' ' || (select count(*) from t1)"
}

segments_in() # DIRECTORY
{
    find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | grep -E '^[0-9A-F]{24}$' | sort
}

make_source() # MOUNT
{
    pg_init src
    pg_archive_with src "cp %p $1/wal/%f"
    pg_start src
    pg_tablespaces src one
    pg_sql src "create table t as select i, md5(i::text) v from generate_series(1, 60000) i"
    pg_sql src "create table t1 tablespace one as select i from generate_series(1, 5000) i"
}

take_backup() # LABEL
{
    pg_backup src "$TREE/basebackups/$1" -Ft -X none >/dev/null 2>&1 || fail "pg_basebackup failed"
}

# A mount with one backup, "nightly", and work after it: WANT_NAMED rows at the restore point "named",
# WANT_LAST at the end.
make_archive() # [KEY [STORE]]
{
    use_store "${2:-file}"
    use_key "${1:-none}"
    TREE=$T/m
    mount_walefs m "$(pg_mount_opts)" partition_size=4M allow_delete
    make_source "$TREE"
    take_backup nightly
    pg_sql src "insert into t1 select generate_series(1, 777)"
    pg_sql src "select pg_create_restore_point('named')" >/dev/null
    WANT_NAMED=$(rows src)
    pg_sql src "delete from t where i % 2 = 0"
    WANT_LAST=$(rows src)
    LAST_SEGMENT=$(pg_archive_all src)
}

# From here on TREE is a directory of its own, with what the mount had.
leave_mount()
{
    pg_stop src
    copy_tree "$TREE" "$T/tree"
    umount_walefs m
    TREE=$T/tree
}

copy_tree() # FROM TO
{
    mkdir "$2" "$2/basebackups"
    cp -a "$1/wal" "$2/wal"
    cp -a "$1/basebackups/." "$2/basebackups/"
    chmod -R u+w "$2"
}

the_backup()
{
    readlink "$TREE/basebackups/LATEST"
}

json_set() # NAME JSON-VALUE [BACKUP]
{
    sed -i -E "s|^( *\"$1\": ).*[^,](,?)\$|\\1$2\\2|" "$TREE/basebackups/${3:-$(the_backup)}/backup.json"
}

# ---- runs of a script ---------------------------------------------------------------------------

# Runs it and keeps what it said: $OUT, and its last line $LAST.
runs() # STATUS CMD...
{
    local want=$1 rc=0
    shift
    "$@" >"$T/.said" 2>&1 </dev/null || rc=$?
    OUT=$(cat "$T/.said")
    LAST=$(tail -n 1 "$T/.said")
    [[ $rc == "$want" ]] || fail "status $rc, wanted $want, of: $* -- $OUT"
}

restore() # STATUS OPTIONS... PGDATA
{
    runs "$1" "$RESTORE" "${@:2:$#-2}" "$TREE" "${@: -1}"
}

refused() # REGEX OPTIONS... PGDATA
{
    restore 1 "${@:2}"
    assert_match "$LAST" "refused, nothing was changed: .*$1" "the last line"
}

socket_of() # CLUSTER
{
    echo "-c unix_socket_directories='$T/pg/$1'"
}

promoted() # CLUSTER
{
    wait_for 60 "the end of recovery" pg_true "$1" "not pg_is_in_recovery()"
}

# ---- walefs-restore -----------------------------------------------------------------------------

test_help_and_usage()
{
    local s
    for s in "$RESTORE" "$PRUNE"; do
        runs 0 "$s" --help
        assert_match "$OUT" "^Usage: $(basename "$s")" "--help"
        runs 1 "$s" --no-such-option a b
        assert_match "$LAST" 'no option --no-such-option' "the last line"
        runs 1 "$s"
        runs 1 "$s" "$T/nowhere" "$T/x"
        while read -r o; do
            grep -q -- "Fl ${o#-}" "$s.8" || fail "$s.8 does not mention $o"
        done < <("$s" --help | grep -oE -- '--[a-z-]+' | sort -u)
    done
    [[ ! -e $T/x ]] || fail "something was made"
}

# Everything at once, as after a disaster; then again over the result, to a point in time.
# A missing program is no other restore, and no damage.
test_needs_its_tools()
{
    mkdir "$T/bin" "$T/pg"
    ln -s /usr/bin/* "$T/bin/"
    rm "$T/bin/flock" "$T/bin/sha256sum"
    TREE=$T
    PATH=$T/bin refused "not in PATH: flock sha256sum; install them" "$T/pg/new"
    assert_eq "$OUT" "$LAST" "all that it said"
    [[ ! -e $T/pg/new ]] || fail "it made the data directory"
}

test_restores_from_a_mount()
{
    local d
    make_archive gpg
    pg_stop src immediate
    rm -rf "$(pg_data src)"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro
    pg_home two
    d=$(pg_data two)

    refused "is not empty \(PG_" "$d" # the tablespace's old place, on the same host
    rm -rf "$d"
    restore 0 -T "$T/ts/one=$T/elsewhere/one" --start --start-options "$(socket_of two)" "$d"
    assert_match "$LAST" "^walefs-restore: done: $(the_backup) is restored to $d .*PostgreSQL runs and is consistent" "last line"
    assert_match "$OUT" "MiB/s" "progress"
    promoted two
    assert_eq "$(rows two)" "$WANT_LAST" "rows at the last commit"
    assert_eq "$(readlink "$d"/pg_tblspc/*)" "$T/elsewhere/one" "the tablespace's link"
    assert_eq "$(find "$d" "$T/elsewhere/one" ! -user "$PG_OS_USER" | head -n 3)" "" "what is not $PG_OS_USER's"
    assert_eq "$(stat -c %a "$d" "$T/elsewhere/one" | sort -u)" 700 "modes"
    assert_eq "$(find "$d" "$T/elsewhere" -name '.walefs-restore*')" "" "what the script leaves"
    "$PG_BIN/pg_verifybackup" -n "$TREE/basebackups/nightly/pgdata"

    restore 1 --force "$d"
    assert_match "$LAST" "PostgreSQL runs in $d \(process [0-9]+" "last line while it runs"
    pg_sql two "insert into t1 select 1; checkpoint" # the new timeline is not in the archive
    pg_stop two
    echo "# mine" >>"$d/postgresql.conf"
    refused "is not empty" --tablespaces-inside "$d"
    restore 0 --force --tablespaces-inside --target-name named --target-action promote --start \
        --start-options "$(socket_of two)" "$d"
    promoted two
    assert_eq "$(rows two)" "$WANT_NAMED" "rows at the restore point"
    [[ -d $(echo "$d"/pg_tblspc/*) && ! -L $(echo "$d"/pg_tblspc/*) ]] || fail "the tablespace is not inside"
    grep -q '^# mine' "$d/postgresql.conf.before-restore" || fail "the old postgresql.conf is not kept"
    [[ -e $T/elsewhere/one/PG_VERSION || -n $(ls "$T/elsewhere/one") ]] || fail "the other tablespace was emptied"
    pg_stop two
    umount_walefs m
}

# Where the cluster was, with the tablespace in its own place; every kind of target.
test_targets()
{
    local d when lsn
    make_archive
    when=$(pg_sql src "select clock_timestamp()")
    sleep 0.2
    lsn=$(pg_sql src "select pg_current_wal_insert_lsn()")
    pg_sql src "insert into t1 select generate_series(1, 10)"
    pg_archive_all src >/dev/null
    pg_stop src
    rm -rf "$(pg_data src)" "$T/ts/one"
    d=$(pg_data src)
    restore 0 --backup nightly --target-time "$when" --target-action promote --start \
        --start-options "$(socket_of src) -c archive_mode=off" "$d"
    promoted src
    assert_eq "$(rows src)" "$WANT_LAST" "rows at the time"
    assert_eq "$(pg_sql src "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'one'")" \
        "$T/ts/one" "the tablespace's place"
    pg_stop src
    rm -rf "$d" "$T/ts/one"

    # What an earlier restore left in postgresql.auto.conf must not come between.
    restore 0 -b "$(the_backup)" --target-lsn "$lsn" --target-exclusive --target-timeline 1 --start \
        --start-options "$(socket_of src) -c archive_mode=off" "$d"
    grep -qx "recovery_target_timeline = '1'" "$d/postgresql.auto.conf"
    grep -qx "restore_command = 'test -d $TREE/wal || exit 255; cp $TREE/wal/%f \"%p\"'" "$d/postgresql.auto.conf"
    assert_match "$OUT" 'at the target recovery pauses.*pg_wal_replay_resume' "output"
    wait_for 30 "the pause" pg_true src "pg_get_wal_replay_pause_state() = 'paused'"
    assert_eq "$(rows src)" "$WANT_LAST" "rows at the LSN"
    pg_stop src
    rm -rf "$d" "$T/ts/one"
    restore 0 --target-immediate --target-action shutdown --target-timeline current "$d"
    assert_match "$OUT" 'start it with: .*pg_ctl' "output"
    grep -qx "recovery_target = 'immediate'" "$d/postgresql.auto.conf"
    grep -qx "recovery_target_action = 'shutdown'" "$d/postgresql.auto.conf"
    grep -qx "recovery_target_timeline = 'current'" "$d/postgresql.auto.conf"
    rm -rf "$T/ts/one"
    restore 0 --force --target-xid 789 --target-action pause "$d"
    grep -qx "recovery_target_xid = '789'" "$d/postgresql.auto.conf"
    grep -qx "recovery_target_action = 'pause'" "$d/postgresql.auto.conf"
    grep -qx "recovery_target_timeline = 'latest'" "$d/postgresql.auto.conf"
    assert_eq "$(grep -cE "^recovery_target(|_time|_lsn|_name) = '.+'" "$d/postgresql.auto.conf" || true)" 0 "targets of earlier restores"
    umount_walefs m
}

# The server that it starts: stops at the target, takes too long, or does not start. The short and long
# forms of the options that go with it.
test_starts()
{
    local d=$T/pg/two/data one=$T/ts/one t0
    make_archive
    pg_stop src
    rm -rf "$one"
    pg_home two
    restore 0 --tablespace-mapping "$one=$T/moved/a" -s --target-immediate --target-action shutdown \
        --start-options "$(socket_of two) -c archive_mode=off" "$d"
    # It is consistent when it reaches that target: the script may just see it run.
    assert_match "$LAST" "done: .*PostgreSQL (has reached the target and shut down|runs and is consistent)" "last line"
    wait_for 20 "the end of PostgreSQL" test ! -e "$d/postmaster.pid"
    assert_match "$("$PG_BIN/pg_controldata" "$d")" "state: +shut down in recovery" "pg_controldata"
    assert_eq "$(readlink "$d"/pg_tblspc/*)" "$T/moved/a" "the tablespace's link"

    t0=$SECONDS
    restore 2 -f --tablespace-mapping="$one=$T/moved/b" --start --start-timeout 2 \
        --start-options "$(socket_of two) -c restore_command='sleep 60'" "$d"
    assert_match "$LAST" "failed: the cluster is restored, but PostgreSQL was not consistent after 2 s; it goes on" "last line"
    ((SECONDS - t0 < 40)) || fail "it took $((SECONDS - t0)) s"
    assert_eq "$(readlink "$d"/pg_tblspc/*)" "$T/moved/b" "the tablespace's link"
    pg_stop two immediate

    rm -rf "$d"
    restore 2 --tablespaces-inside --start --start-options "-c no_such_setting=1" "$d"
    assert_match "$LAST" "failed: the cluster is restored, but PostgreSQL did not start; see $d/startup.log" "last line"
    assert_match "$OUT" 'no_such_setting' "what it shows of the log"
    restore 1 --start-timeout 0 "$d"
    assert_match "$LAST" "--start-timeout wants seconds, not '0'" "last line"
    umount_walefs m
}

test_standby()
{
    local d=$T/pg/two/data
    make_archive
    pg_home two
    restore 0 --standby --tablespaces-inside --start --start-options "$(socket_of two) -c archive_mode=off" "$d"
    assert_match "$LAST" 'runs as a standby and is consistent' "last line"
    pg_sql src "insert into t1 select generate_series(1, 5)"
    pg_archive_all src >/dev/null
    wait_for 60 "the standby to follow" pg_true two "(select count(*) from t1) = 5782"
    pg_true two "pg_is_in_recovery()" || fail "the standby was promoted"
    pg_stop two
    pg_stop src
    umount_walefs m
}

# Name, mode, owner and content of what a backup and a data directory have in common.
assert_restored() # PGDATA
{
    local common=(! -name postgresql.auto.conf ! -name tablespace_map ! -name recovery.signal ! -path ./archive_status
        ! -path './pg_wal/*')
    (cd "$TREE/basebackups/LATEST/pgdata" && find . -mindepth 1 "${common[@]}" ! -type d -printf '%p %m %U %G %s %T@\n' -o \
        -mindepth 1 -type d ! -path './pg_wal/*' -printf '%p %m %U %G\n' | sort) >"$T/.want"
    (cd "$1" && find . -mindepth 1 "${common[@]}" ! -type d -printf '%p %m %U %G %s %T@\n' -o \
        -mindepth 1 -type d ! -path './pg_wal/*' -printf '%p %m %U %G\n' | sort) >"$T/.got"
    assert_same "$T/.want" "$T/.got"
    diff -r -x postgresql.auto.conf -x tablespace_map -x recovery.signal -x pg_wal \
        "$TREE/basebackups/LATEST/pgdata" "$1" || fail "the content of $1 differs"
}

# A partition breaks off; another one hangs and the run is interrupted; both go on with the same command.
test_resumes()
{
    local d=$T/target p q pid rc=0 n
    make_archive
    leave_mount
    n=$(find "$TREE/basebackups/LATEST/tar/" -name 'part_*' | wc -l)
    ((n >= 3)) || fail "only $n partitions"
    p=$TREE/basebackups/LATEST/tar/part_00000001.tar
    q=$TREE/basebackups/LATEST/tar/part_00000002.tar
    cp "$p" "$T/whole"
    truncate -s -300000 "$p"
    restore 2 -j 1 --tablespaces-inside "$d"
    assert_match "$LAST" "failed: partition part_00000001.tar: .*Unexpected EOF.*the same command goes on" "last line"
    assert_eq "$(grep -c '^part' "$d/.walefs-restore")" 1 "partitions in the state file"
    refused "unfinished restore" "$d" # other options

    # Another backup is the latest now: the restore stays with its own.
    cp "$T/whole" "$p"
    touch "$d/base/once"
    mv "$q" "$T/later"
    mkfifo "$q"
    restore 1 --backup nightly --tablespaces-inside --owner daemon "$d"
    "$RESTORE" -j 1 --tablespaces-inside "$TREE" "$d" >"$T/said" 2>&1 </dev/null &
    pid=$!
    sleep 1.5
    kill -INT "$pid" 2>/dev/null || true
    reap_child "$pid" 10 "an interrupted restore" || rc=$?
    # A partition that is no file is none: refused before anything is read.
    assert_eq "$rc" 1 "status with a FIFO for a partition"
    rm "$q"
    cp "$T/later" "$q"

    mkdir "$T/slow"
    make_slow_tar 3
    rc=0
    PATH=$T/slow:$PATH setsid "$RESTORE" -j 1 --tablespaces-inside "$TREE" "$d" >"$T/said" 2>&1 </dev/null &
    pid=$!
    wait_for 20 "the slow partition" test -e "$T/slow/sleeping"
    kill -TERM "$pid"
    reap_child "$pid" 10 "an interrupted restore" || rc=$?
    assert_eq "$rc" 130 "status of an interrupted restore"
    assert_match "$(tail -n 1 "$T/said")" "interrupted: the same command goes on" "last line"
    assert_eq "$(pgrep -f "$T/slow/slee[p]er" || true)" "" "what runs on"
    (($(grep -c '^part' "$d/.walefs-restore") >= 2)) || fail "finished partitions are not noted"

    [[ -e $d/base/once ]] || fail "it began anew"
    rm "$d/base/once"
    restore 0 --tablespaces-inside "$d"
    assert_match "$OUT" "going on with .*: [2-9] are there already" "output"
    assert_restored "$d"
    assert_eq "$(find "$d" -name '.walefs-restore*')" "" "what the script leaves"
}

# The finishing changes what was compared with backup_manifest, and takes the tablespaces' markers away:
# the same command ends it all the same.
test_resumes_the_finishing()
{
    local d=$T/target rc=0 pid
    make_archive
    leave_mount
    mkdir -m 777 "$T/slow"
    cat >"$T/slow/sync" <<END
#!/bin/bash
if [[ \$1 == -f ]] && grep -qs 'begin walefs-restore' "$d/postgresql.auto.conf"; then
    touch "$T/slow/sleeping"
    sleep 60
fi
exec /bin/sync "\$@"
END
    chmod 755 "$T/slow/sync"
    set -- -T "$T/ts/one=$T/moved"
    PATH=$T/slow:$PATH setsid "$RESTORE" "$@" "$TREE" "$d" >"$T/said" 2>&1 </dev/null &
    pid=$!
    wait_for 60 "the finishing" test -e "$T/slow/sleeping"
    kill -INT -- "-$pid" || true
    kill -TERM -- "-$pid" || true
    reap_child "$pid" 10 "an interrupted restore" || rc=$?
    assert_eq "$rc" 130 "status of an interrupted restore"
    rm "$T/moved/.walefs-restore"

    restore 0 "$@" "$d"
    assert_match "$OUT" "earlier run had come farther" "output"
    diff -r -x postgresql.auto.conf -x tablespace_map -x recovery.signal -x pg_wal \
        "$TREE/basebackups/LATEST/pgdata" "$d" || fail "the content of $d differs"
    assert_eq "$(cut -d' ' -f2 "$d/tablespace_map")" "$T/moved" "tablespace_map"
    assert_eq "$(find "$d" "$T/moved" -name '.walefs-restore*')" "" "what the script leaves"
}

# What was unpacked without being compared is not taken for compared by a run that compares; nor by one that
# would only have the finishing left, when it is too late for that.
test_resumes_what_was_not_compared()
{
    local d=$T/target p q
    make_archive
    leave_mount
    p=$TREE/basebackups/LATEST/tar/part_00000000.tar
    q=$TREE/basebackups/LATEST/tar/part_00000001.tar
    cp "$p" "$T/whole"
    cp "$q" "$T/whole1"
    flip_a_byte "$p"
    truncate -s -300000 "$q"
    restore 2 -j 1 --no-verify --no-sync --tablespaces-inside "$d"
    cp "$T/whole1" "$q"
    restore 2 -j 1 --tablespaces-inside "$d"
    assert_match "$LAST" "part_00000000.tar: it is not what the backup was written with" "last line"
    cp "$T/whole" "$p"
    restore 0 -j 1 --tablespaces-inside "$d"
    assert_restored "$d"

    rm -rf "$d"
    flip_a_byte "$p"
    truncate -s -300000 "$q"
    restore 2 -j 1 --no-verify --tablespaces-inside "$d"
    cp "$T/whole1" "$q"
    mkdir -m 777 "$T/slow"
    printf '#!/bin/bash\n[[ "$*" != *.signal* ]] || exit 1\nexec /bin/rm "$@"\n' >"$T/slow/rm"
    chmod 755 "$T/slow/rm"
    PATH=$T/slow:$PATH restore 2 --no-verify --tablespaces-inside "$d" # as far as the finishing
    refused "unfinished restore of another backup or with other options" --tablespaces-inside "$d"
    restore 0 --no-verify --tablespaces-inside "$d"
    cp "$T/whole" "$p"
}

# What a state file says that is none does not count.
test_state_of_another_version()
{
    local d=$T/target
    make_archive
    leave_mount
    pg_dir "$d"
    printf 'version 0\npart part_00000000.tar\n' >"$d/.walefs-restore"
    restore 0 --force --no-verify --tablespaces-inside "$d"
    assert_restored "$d"
}

# A tar in front of the real one, that sleeps in its Nth run.
make_slow_tar() # N
{
    cat >"$T/slow/tar" <<END
#!/bin/bash
echo x >>"$T/slow/runs"
if [[ \$(wc -l <"$T/slow/runs") -ge $(($1 - 1)) ]]; then
    touch "$T/slow/sleeping"
    exec -a $T/slow/sleeper sleep 60
fi
exec /bin/tar "\$@"
END
    chmod 755 "$T/slow/tar"
    chmod 777 "$T/slow"
}

# A tar and a sync in front of the real ones, that note in $T/watched when they begin and end.
make_watched()
{
    local program
    mkdir "$T/watch"
    : >"$T/watched"
    chmod 666 "$T/watched"
    for program in tar sync; do
        cat >"$T/watch/$program" <<END
#!/bin/bash
[[ $program != tar || \$* == *-x* ]] || exec /bin/$program "\$@"
echo $program begins >>"$T/watched"
[[ $program != tar ]] || sleep 0.5
rc=0
/bin/$program "\$@" || rc=\$?
echo $program ends >>"$T/watched"
exit \$rc
END
    done
    chmod 755 "$T/watch"/*
}

# How many of them there were at most at one time.
at_once() # PROGRAM
{
    awk -v p="$1" '$1 == p { n += $2 == "begins" ? 1 : -1; if (n > most) most = n } END { print most + 0 }' "$T/watched"
}

test_parallel()
{
    make_archive
    leave_mount
    make_watched
    PATH=$T/watch:$PATH restore 0 --jobs 4 --tablespaces-inside "$T/four"
    assert_restored "$T/four"
    (($(at_once tar) >= 2)) || fail "partitions are read one after the other: $(cat "$T/watched")"
    (($(at_once sync) >= 1)) || fail "nothing was brought to the disk"
    : >"$T/watched"
    PATH=$T/watch:$PATH restore 0 -j1 -q --no-sync --tablespaces-inside "$T/one"
    assert_match "$OUT" "^walefs-restore: restoring" "output"
    [[ $OUT != *MiB/s* ]] || fail "-q is not quiet"
    assert_restored "$T/one"
    assert_eq "$(at_once tar) $(at_once sync)" "1 0" "partitions at once, and syncs"
    if [[ $(id -u) == 0 ]]; then
        restore 0 --force --owner daemon --tablespaces-inside "$T/owned"
        assert_eq "$(find "$T/owned" ! -user daemon -o ! -group daemon | head -n 3)" "" "what is not daemon's"
    fi
    # On a terminal: a bar.
    script -qec "stty cols 120; '$RESTORE' --tablespaces-inside '$TREE' '$T/bar'" /dev/null >"$T/tty" 2>&1
    grep -Eq '\[#{30}\] 100% ([0-9]+ [KM]iB) of \1, [0-9]+ ([KMG]i)?B/s, 0:00:00 left' "$T/tty" ||
        fail "no progress bar: $(cat -v "$T/tty")"
    # A place that is a tablespace's and is made with the directories above it.
    rm -rf "$T/ts"
    restore 0 "$T/places"
    [[ -n $(ls "$T/ts/one") ]] || fail "the tablespace is not in its place"
    assert_eq "$(cut -d' ' -f2 "$T/places/tablespace_map")" "$T/ts/one" "tablespace_map"
}

drop_sums()
{
    sed -i -E '/^    "[0-9a-f]{64}",?$/d' "$TREE/basebackups/$(the_backup)/backup.json"
}

# Of the content of its largest file.
flip_a_byte() # TAR
{
    python3 - "$1" <<'END'
import sys, tarfile
path = sys.argv[1]
with tarfile.open(path) as t:
    m = max(t.getmembers(), key=lambda m: m.size)
with open(path, "r+b") as f:
    f.seek(m.offset_data + m.size // 2)
    c = f.read(1)
    f.seek(-1, 1)
    f.write(bytes([c[0] ^ 1]))
END
}

# What comes is compared with the backup's checksums and manifest, with what there is of them.
test_verifies()
{
    local d=$T/target p q json
    make_archive
    leave_mount
    p=$TREE/basebackups/LATEST/tar/part_00000001.tar
    restore 0 --tablespaces-inside "$d"
    assert_match "$OUT" "comparing the result with backup_manifest" "output"
    rm -rf "$d"
    cp "$p" "$T/whole"
    flip_a_byte "$p"
    restore 2 --tablespaces-inside "$d"
    assert_match "$LAST" "part_00000001.tar: it is not what the backup was written with.*$d must not be used" "last line"
    # Nor does it go on to a cluster with the same bytes.
    restore 2 --tablespaces-inside "$d"
    rm -rf "$d"
    drop_sums
    restore 2 --tablespaces-inside "$d"
    assert_match "$LAST" "not what backup_manifest says: .*checksum mismatch.*$d must not be used" "last line"
    rm -rf "$d"
    restore 0 --no-verify --tablespaces-inside "$d"
    [[ $OUT != *comparing* ]] || fail "--no-verify verifies"
    rm -rf "$d"
    # Checksums that match are enough, but for who wants the files read again.
    json=$TREE/basebackups/$(the_backup)/backup.json
    sha256sum "${p%/*}"/*.tar | sed 's/ .*/",/; s/^/    "/; $s/,$//' >"$T/sums"
    sed -i "/\"partition_sha256\": \[/r $T/sums" "$json"
    restore 0 --tablespaces-inside "$d"
    rm -rf "$d"
    restore 2 --verify-files --tablespaces-inside "$d"
    assert_match "$LAST" "not what backup_manifest says: .*checksum mismatch.*$d must not be used" "last line"
    rm -rf "$d"
    mkdir "$T/bin"
    cp -P "$PG_BIN"/{postgres,pg_ctl,pg_controldata} "$T/bin/"
    restore 1 --verify-files --bindir "$T/bin" --tablespaces-inside "$d"
    assert_match "$LAST" "needs pg_verifybackup" "last line"
    drop_sums
    # A file that is missing is found without PostgreSQL's program too.
    q=$TREE/basebackups/LATEST/tar
    cp "$T/whole" "$p"
    mkdir "$T/un"
    tar -C "$T/un" -xpf "$q/part_00000000.tar"
    rm "$T/un/$(cd "$T/un" && find . -type f -size +1k ! -name PG_VERSION ! -name pg_control | sort | sed -n 1p)"
    tar -C "$T/un" -cf "$q/part_00000000.tar" .
    restore 2 --bindir "$T/bin" --tablespaces-inside "$d"
    assert_match "$LAST" "not what backup_manifest says: .* is missing, or has not [0-9]+ bytes.*must not be used" "last line"
    # One that is another backup's says nothing of this one.
    rm -rf "$d"
    json_set start_lsn '"0/1"'
    restore 0 --tablespaces-inside --force "$d"
    assert_match "$OUT" "neither a manifest nor checksums" "output"
}

# Places that cannot be listed are not empty: nothing in them is removed or written over.
test_places_that_cannot_be_listed()
{
    local d=$T/pg/two/data
    make_archive
    leave_mount
    pg_dir "$T/full"
    as_pg touch "$T/full/something"
    pg_home two
    refused_unlisted "$T/full" "" -T "$T/ts/one=$T/full" "$d"
    refused_unlisted "$T/full" "" --tablespaces-inside "$T/full"
    # whether a server runs there is not known
    as_pg ln -s postmaster.pid "$T/full/postmaster.pid"
    refused "postmaster.pid cannot be read .*Too many levels" --force --tablespaces-inside "$T/full"
    assert_eq "$(cd "$T/full" && echo *)" "postmaster.pid something" "what was there"
    [[ ! -e $d ]] || fail "a refusal has made $d"
}

# That a partition cannot be opened is no damage of the backup, unless the mount says so by EIO.
test_tells_damage_from_other_errors()
{
    local d=$T/target p
    make_archive
    leave_mount
    p=$TREE/basebackups/$(the_backup)/tar/part_00000000.tar
    cp "$p" "$T/whole"
    mkdir "$T/bin"
    # away when it has been read; when it is read anew, away at once
    printf '#!/bin/bash\n/bin/sync "$@"\nln -sfn part_00000000.tar "%s"\n' "$p" >"$T/bin/sync"
    chmod 755 "$T/bin" "$T/bin/sync"
    PATH=$T/bin:$PATH restore 2 --tablespaces-inside "$d"
    assert_match "$LAST" "part_00000000.tar cannot be opened once more .*Too many levels.*the same command goes on" "last line"
    cp --remove-destination "$T/whole" "$p"
    restore 0 --tablespaces-inside "$d"
    assert_match "$OUT" "going on with" "output"

    rm -rf "$d"
    printf '#!/bin/bash\nln -sfn part_00000000.tar "%s"\nexit 1\n' "$p" >"$T/bin/tar"
    chmod 755 "$T/bin/tar"
    PATH=$T/bin:$PATH restore 2 -j 1 --tablespaces-inside "$d"
    assert_match "$LAST" "failed: partition part_00000000.tar: tar ended .*the same command goes on" "last line"
}

test_refusals()
{
    local d=$T/target oid name first
    make_archive
    leave_mount
    rm -rf "$T/ts/one"
    name=$(the_backup)
    oid=$(basename "$TREE/basebackups/LATEST/pgdata/pg_tblspc"/*)
    first=$(sed -n 's/.*"start_wal_segment": "\(.*\)".*/\1/p' "$TREE/basebackups/LATEST/backup.json")
    refused "no complete backup 'weekly'.*$name" -b weekly "$d"
    refused "no backup's name" -b ../wal "$d"
    refused "no tablespace at /no/where.*$T/ts/one" -T /no/where=/tmp/x "$d"
    refused "must be an absolute path" -T "$T/ts/one=x" "$d"
    refused "inside the data directory" -T "$oid=$d/ts" "$d"
    refused "inside the mount" "$TREE/wal/data"
    refused "holds the mount" "$T"
    refused "cannot be a data directory" --force /
    refused "one recovery target" --target-name a --target-xid 7 "$d"
    refused "--target-lsn wants" --target-lsn 7 "$d"
    refused "need a target" --target-action pause "$d"
    refused "no user" --owner no-such-user "$d"
    refused "programs of PostgreSQL .* are not in $T" --bindir "$T" "$d"
    mkdir "$T/full"
    touch "$T/full/something"
    refused "not empty .something" "$T/full"
    refused "place of tablespace $oid, $T/full, is not empty" -T "$oid=$T/full" "$d"
    refused "place of tablespace $oid, $T/full, is not empty" --force -T "$oid=$T/full" "$d"
    touch "$T/file"
    refused "is no directory" "$T/file"
    sleep 60 &
    mkdir "$T/live"
    printf '%s\n' "$!" >"$T/live/postmaster.pid"
    refused "process $!" --force "$T/live"
    kill $!

    mv "$TREE/wal/$first" "$T/kept"
    refused "$first, is not in $TREE/wal" "$d"
    mv "$TREE/wal" "$TREE/gone"
    refused "$TREE/wal does not exist" "$d"
    mv "$TREE/gone" "$TREE/wal"
    mv "$T/kept" "$TREE/wal/$first"
    json_set expanded_size_bytes 9000000000000000
    refused "needs 7 PiB|needs [0-9]+ TiB" "$d"
    json_set expanded_size_bytes 1000
    json_set complete false
    refused "is incomplete" "$d"
    json_set complete true
    mv "$TREE/basebackups/LATEST/tar/part_00000001.tar" "$T/kept"
    refused "partition 1 is missing" "$d"
    mv "$T/kept" "$TREE/basebackups/LATEST/tar/part_00000001.tar"
    chmod 700 "$TREE/wal"
    chown root: "$TREE/wal"
    [[ $(id -u) != 0 ]] || refused "cannot read $TREE/wal" "$d"
    [[ ! -e $d ]] || fail "a refusal has made $d"
    assert_eq "$(ls "$T/full")" something "what was there"
    restore 0 --force --tablespaces-inside "$d"
    assert_match "$OUT" "warning: user .* cannot read" "output"
}

# A program that fails for PATH, and for others is the real one; what is to run it has $T/bin in front.
fails_for() # PROGRAM PATH
{
    mkdir -p "$T/bin"
    cat >"$T/bin/$1" <<END
#!/bin/bash
if [[ \${*: -1} == "$2" ]]; then
    echo "$1: $2: Input/output error" >&2
    exit 2
fi
exec /bin/$1 "\$@"
END
    chmod 755 "$T/bin" "$T/bin/$1"
}

# As a user whom modes bind. DIR cannot be listed meanwhile.
refused_unlisted() # DIR REGEX OPTIONS... PGDATA
{
    chown -R "$PG_OS_USER:" "$TREE"
    chmod 300 "$1"
    runs 1 as_pg "$RESTORE" "${@:3:$#-3}" "$TREE" "${@: -1}"
    chmod 700 "$1"
    assert_match "$LAST" "refused, nothing was changed: $1 cannot be listed .*Permission denied.*$2" "the last line"
}

# A partition that cannot be looked at is not left out: where the backup has no checksums, its files would be
# missing from a cluster that was said to be whole.
test_restores_every_partition()
{
    local d=$T/target tar
    make_archive
    leave_mount
    tar=$TREE/basebackups/$(the_backup)/tar
    cp "$(printf '%s\n' "$tar"/part_* | tail -n 1)" "$tar/part_00000099.tar"
    refused "is missing, part_00000099.tar follows" --tablespaces-inside "$d"
    rm "$tar/part_00000099.tar"
    sed -i '/"partition_sha256": \[/a \    "'"$(printf %064d 1)"'",' "$tar/../backup.json"
    refused "it was written as [0-9]+ partitions, and has" --tablespaces-inside "$d"
    drop_sums
    fails_for stat "$tar/part_00000001.tar"
    PATH=$T/bin:$PATH refused "part_00000001.tar cannot be looked at .*Input/output error.*the mount's log" \
        --tablespaces-inside "$d"
    rm "$T/bin/stat"
    fails_for ls "$tar/"
    PATH=$T/bin:$PATH refused "/tar cannot be listed .*Input/output error.*the mount's log" --tablespaces-inside "$d"
    # the last one, which no other follows
    tar=$(printf '%s\n' "$tar"/part_* | tail -n 1)
    ln -sfn "$(basename "$tar")" "$tar"
    refused "$tar cannot be looked at .*Too many levels" --tablespaces-inside "$d"
    ln -sfn / "$tar"
    refused "$tar is no file" --tablespaces-inside "$d"
    [[ ! -e $d ]] || fail "a refusal has made $d"
}

# Nor is a backup that cannot be looked at none, or no complete one; nor is another one taken for it when a
# restore goes on.
test_restores_the_right_backup()
{
    local d b part other=base_0000000100000000000000FF_00000040
    make_archive
    leave_mount
    b=$TREE/basebackups/$(the_backup)
    part=$b/tar/part_00000001.tar
    pg_home two
    d=$(pg_data two)
    refused_unlisted "$TREE/basebackups" "" -b weekly "$d"
    mv "$b/backup.json" "$T/kept"
    ln -s backup.json "$b/backup.json"
    refused "/backup.json cannot be read .*Too many levels" "$d"
    mv "$T/kept" "$b/backup.json"
    # all that can be read of it would do
    # shellcheck disable=SC2016
    printf '#!/bin/bash\n[[ $* != */backup.json ]] || { sed /tablespaces/Q "${@: -1}"; echo no >&2; exit 1; }\n%s\n' \
        'exec /bin/cat "$@"' >"$T/cat"
    mkdir "$T/bin"
    install -m 755 "$T/cat" "$T/bin/cat"
    PATH=$T/bin:$PATH refused "/backup.json cannot be read \(no\)" --tablespaces-inside "$d"
    [[ ! -e $d ]] || fail "a refusal has made $d"

    cp -a "$b" "$TREE/basebackups/$other"
    json_set name "\"$other\"" "$other"
    cp "$part" "$T/whole"
    truncate -s -300000 "$part"
    restore 2 --tablespaces-inside "$d"
    cp "$T/whole" "$part"
    mv "$b" "$T/kept"
    ln -s "$(basename "$b")" "$b"
    ln -sfn "$other" "$TREE/basebackups/LATEST"
    refused "$b cannot be listed .*Too many levels" --force --tablespaces-inside "$d"
    rm "$b"
    mv "$T/kept" "$b"
    restore 0 --force --tablespaces-inside "$d"
    assert_match "$LAST" "done: $(basename "$b") is restored" "the last line"
}

# Nor is a tablespace of which only the backup's own files know put somewhere else.
test_restores_every_tablespace()
{
    local d oid pgdata
    make_archive
    leave_mount
    rm -rf "$T/ts/one"
    pgdata=$TREE/basebackups/$(the_backup)/pgdata
    oid=$(basename "$pgdata/pg_tblspc"/*)
    sed -i "/{\"location\"/d; /\"tablespaces\": \[/,/\]/c \  \"tablespaces\": []," "$pgdata/../backup.json"
    pg_home two
    d=$(pg_data two)
    refused "has no tablespace at /no/where; it has: $T/ts/one" -T /no/where=/tmp/x "$d" # from tablespace_map
    mv "$pgdata/tablespace_map" "$T/kept"
    ln -s tablespace_map "$pgdata/tablespace_map"
    refused "/tablespace_map cannot be read .*Too many levels" "$d"
    mv "$T/kept" "$pgdata/tablespace_map"
    refused_unlisted "$pgdata/pg_tblspc" "the mount's log" "$d"
    refused_unlisted "$pgdata" "the mount's log" "$d"
    fails_for stat "$pgdata/pg_tblspc/$oid"
    PATH=$T/bin:$PATH refused "/pg_tblspc/$oid cannot be looked at .*Input/output error" "$d"
    [[ ! -e $d ]] || fail "a refusal has made $d"
    restore 0 "$d"
    assert_eq "$(readlink "$d/pg_tblspc/$oid")" "$T/ts/one" "the tablespace's link"
}

# A place has many names: what is compared is where they lead to.
test_places_by_other_names()
{
    local d=$T/target oid p
    make_archive
    leave_mount
    rm -rf "$T/ts/one"
    oid=$(basename "$TREE/basebackups/LATEST/pgdata/pg_tblspc"/*)
    ln -s "$T" "$T/way"
    mkdir "$TREE/basebackups/LATEST/pgdata/pg_tblspc/77777"
    refused "both go to" -T "$oid=$T/a" -T "77777=$T/a/" "$d"
    refused "both go to" -T "$oid=$T/a" -T "77777=$T/b/..//a" "$d"
    refused "both go to" -T "$oid=$T/a" -T "77777=$T/way/a" "$d"
    rmdir "$TREE/basebackups/LATEST/pgdata/pg_tblspc/77777"
    refused "inside the data directory" -T "$oid=$T//target/ts" "$d"
    refused "inside the data directory" -T "$oid=$T/b/../target" "$d"
    refused "inside the data directory" -T "$oid=$T/way/target/ts" "$d"
    refused "inside the data directory" -T "$oid=$d/ts" "$T/way/target"
    refused "would hold the data directory" -T "$oid=$T/way/new" "$T/new/data"
    refused "inside the mount" -T "$oid=$T/way/tree/ts" "$d"
    refused "inside the mount" "$T/b/../tree/data"
    TREE=$T/way/tree
    refused "inside the mount" "$T/tree/wal/data"
    refused "holds the mount" --force "$T"
    [[ ! -e $T/a && ! -e $d && ! -e $T/new ]] || fail "a refusal has made something"

    p=$TREE/basebackups/LATEST/tar/part_00000001.tar
    cp "$p" "$T/whole"
    truncate -s -300000 "$p"
    restore 2 -T "$oid=$T/way/ts2" "$T/way/target"
    cp "$T/whole" "$p"
    restore 0 -T "$oid=$T/way/ts2" "$T/way/target"
    assert_match "$OUT" "going on with" "output"
    assert_eq "$(readlink "$d/pg_tblspc/$oid")" "$T/way/ts2" "the tablespace's link"
}

# As WAL-E leaves it: no configuration, directories empty or left out, little in backup.json, a wrong position.
make_bare_tree()
{
    local name=base_000000010000000000000040_00000040 dir
    TREE=$T/bare
    dir=$TREE/basebackups/$name
    mkdir -p "$dir/tar" "$dir/pgdata" "$TREE/wal"
    ln -s $name "$TREE/basebackups/LATEST"
    pg_init src
    pg_conf src "max_connections = 37"
    pg_archive_with src "cp %p $TREE/wal/%f"
    pg_dir "$TREE/wal"
    pg_start src
    pg_sql src "create table t as select generate_series(1, 3000)"
    pg_sql src "select pg_switch_wal()" >/dev/null
    pg_sql src "checkpoint"
    pg_stop src
    cp "$(find "$(pg_data src)/pg_wal" -name '0*' | sort | tail -n 1)" "$T/.segment"
    as_pg cp -n "$(pg_data src)/pg_wal"/0* "$TREE/wal/"
    tar -C "$(pg_data src)" -cf "$dir/tar/part_00000000.tar" --exclude='./postgresql.conf' \
        --exclude='./pg_hba.conf' --exclude='./pg_ident.conf' --exclude='./pg_wal' --exclude='./pg_stat_tmp' \
        --exclude='./pg_notify' --exclude='./pg_replslot' .
    tar -C "$dir/pgdata" -xpf "$dir/tar/part_00000000.tar"
    cat >"$dir/backup.json" <<END
{
  "encrypted": null,
  "expanded_size_bytes": 1000000,
  "label": null,
  "name": "$name",
  "postgresql_version": null,
  "segment_size": null,
  "start_lsn": "0/40000028",
  "start_wal_segment": "000000010000000000000040",
  "stop_lsn": null,
  "stored_at": "2026-11-24T05:57:49Z",
  "tablespaces": [],
  "timeline": 1,
  "written_by": "WAL-E"
}
END
}

test_without_configuration()
{
    local d=$T/pg/two/data
    make_bare_tree
    pg_home two
    restore 0 --start --start-options "$(socket_of two)" "$d"
    assert_match "$OUT" "minimum of settings: postgresql.conf pg_hba.conf pg_ident.conf" "output"
    grep -qx "max_connections = 37" "$d/postgresql.conf" || fail "max_connections is not the primary's"
    [[ -d $d/pg_wal/archive_status && -d $d/pg_replslot ]] || fail "directories are missing"
    if [[ $PG_OS_USER == postgres ]]; then
        promoted two
        assert_eq "$(pg_sql two "select count(*) from t")" 3000 "rows"
    fi
    pg_stop two

    # With a configuration in place, that stays; not even --force is needed.
    rm -rf "$d"
    pg_dir "$d"
    as_pg cp "$(pg_data src)/postgresql.conf" "$(pg_data src)/pg_hba.conf" "$d/"
    as_pg sed -i 's/^max_connections = 37/max_connections = 20/' "$d/postgresql.conf"
    restore 0 "$d"
    assert_match "$OUT" "kept as it was in $d: postgresql.conf pg_hba.conf" "output"
    assert_match "$OUT" "minimum of settings: pg_ident.conf" "output"
    assert_match "$OUT" "warning: max_connections is 20 .* was 37" "output"
}

# pg_control tells a later place than a backup_label, of which it must not be thought that there is none.
test_needs_to_read_backup_label()
{
    make_bare_tree
    ln -s backup_label "$TREE/basebackups/LATEST/pgdata/backup_label"
    refused "/backup_label cannot be read .*Too many levels" "$T/target"
    [[ ! -e $T/target ]] || fail "a refusal has made it"
}

# WAL-E keeps a pg_wal that is a link as one. Where it leads to on this host another server may have its WAL:
# nothing is looked for there, and nothing written.
test_wal_that_was_a_link()
{
    local d=$T/pg/two/data first
    make_bare_tree
    ln -s "$T/foreign" "$T/pg_wal"
    tar -C "$T" -rf "$TREE/basebackups/LATEST/tar/part_00000000.tar" pg_wal
    ln -s "$T/foreign" "$TREE/basebackups/LATEST/pgdata/pg_wal"
    pg_home two
    restore 0 "$d" # the place does not exist
    [[ -d $d/pg_wal/archive_status && ! -L $d/pg_wal ]] || fail "pg_wal is no directory"
    rm -rf "$d"
    pg_dir "$T/foreign"
    as_pg cp "$TREE/wal"/0* "$T/foreign/"
    ls -lR "$T/foreign" >"$T/before"
    restore 0 --start --start-options "$(socket_of two)" "$d"
    assert_match "$OUT" "pg_wal is a symbolic link to $T/foreign in the backup: it becomes a directory" "output"
    [[ $PG_OS_USER != postgres ]] || promoted two
    pg_stop two
    ls -lR "$T/foreign" >"$T/after"
    assert_same "$T/before" "$T/after"
    rm -rf "$d"
    first=$("$PG_BIN/pg_controldata" -D "$TREE/basebackups/LATEST/pgdata" | sed -n "s/.*REDO WAL file: *//p")
    rm "$TREE/wal/$first"
    refused "$first, is not in $TREE/wal" "$d"
}

# A backup may come from who can write to the archive, and is restored by root: a link in it is followed with
# the rights of the cluster's owner only.
test_links_to_what_only_root_reads()
{
    local p
    make_bare_tree
    [[ $PG_OS_USER != "$(id -un)" ]] || return 0
    echo "secret = 1" >"$T/shadow"
    chmod 600 "$T/shadow"
    p=$TREE/basebackups/LATEST/tar/part_00000000.tar
    tar -f "$p" --delete ./postgresql.auto.conf
    ln -s "$T/shadow" "$T/postgresql.auto.conf"
    tar -C "$T" -rf "$p" postgresql.auto.conf
    restore 2 "$T/target"
    assert_match "$OUT" "postgresql.auto.conf: Permission denied" "output"
    ! grep -rq 'secret = 1' "$T/target" || fail "what only root may read was copied"
}

# What PostgreSQL reads as a setting and the shell as a command.
test_awkward_paths()
{
    local odd="$T/it's a \\100%f \$tree" d="$T/pg/two/da ta"
    make_archive
    leave_mount
    mv "$TREE" "$odd"
    TREE=$odd
    pg_home two
    restore 0 -T "$T/ts/one=$T/pg/two/a\\=b c" --start --start-options "$(socket_of two) -c archive_mode=off" "$d"
    promoted two
    assert_eq "$(rows two)" "$WANT_LAST" "rows at the last commit"
    [[ -n $(ls "$T/pg/two/a=b c") ]] || fail "the tablespace is not where it was mapped to"
    as_pg "$PG_BIN/pg_ctl" -D "$d" -w -m fast stop >/dev/null
}

# Stands for the programs of another version.
fake_programs() # VERSION
{
    mkdir -p "$T/bin$1"
    # shellcheck disable=SC2016
    printf '#!/bin/sh\n[ "$1" != --version ] || echo "postgres (PostgreSQL) %s"\n' "$1" >"$T/bin$1/postgres"
    printf '#!/bin/sh\nexit 0\n' >"$T/bin$1/pg_ctl"
    printf '#!/bin/sh\necho "wal_level setting:    hot_standby"\necho "max_connections setting:      41"\n' \
        >"$T/bin$1/pg_controldata"
    chmod 755 "$T/bin$1"/*
}

test_recovery_conf()
{
    local v d
    make_bare_tree
    for v in 9.6 11; do
        echo "$v" >"$T/PG_VERSION"
        chown "$PG_OS_USER:" "$T/PG_VERSION"
        cp -p "$T/PG_VERSION" "$TREE/basebackups/LATEST/pgdata/PG_VERSION"
        # The later member of that name is what stays.
        tar -C "$T" -rf "$TREE/basebackups/LATEST/tar/part_00000000.tar" PG_VERSION
        fake_programs $v.7
        d=$T/old$v
        restore 0 --bindir "$T/bin$v.7" --standby --target-xid 99 --target-exclusive "$d"
        grep -qx "standby_mode = 'on'" "$d/recovery.conf"
        grep -qx "restore_command = 'test -d $TREE/wal || exit 255; cp $TREE/wal/%f \"%p\"'" "$d/recovery.conf"
        grep -qx "recovery_target_xid = '99'" "$d/recovery.conf"
        grep -qx "recovery_target_inclusive = 'off'" "$d/recovery.conf"
        grep -qx "recovery_target_timeline = 'latest'" "$d/recovery.conf"
        grep -qx "max_connections = 41" "$d/postgresql.conf"
        [[ -z $(find "$d" -maxdepth 1 -name '*.signal') ]] || fail "a signal file"
    done
    [[ -d $T/old9.6/pg_xlog/archive_status ]] || fail "no pg_xlog"
    restore 1 --bindir "$T/bin9.6.7" "$T/other"
    assert_match "$LAST" "programs of PostgreSQL 11 are not in" "last line"
}

# Without root: the user's own cluster.
test_as_a_user()
{
    local d=$T/pg/two/data
    [[ $(id -u) == 0 ]] || return 0
    make_archive
    leave_mount
    chown -R "$PG_OS_USER:" "$TREE"
    pg_home two
    runs 0 as_pg "$RESTORE" --tablespaces-inside --start --start-options "$(socket_of two) -c archive_mode=off" \
        "$TREE" "$d"
    promoted two
    assert_eq "$(rows two)" "$WANT_LAST" "rows at the last commit"
    pg_stop two
    runs 1 as_pg "$RESTORE" --owner root --tablespaces-inside "$TREE" "$T/pg/two/x"
    assert_match "$LAST" "only root can restore for root" "last line"
}

# ---- walefs-prune -------------------------------------------------------------------------------

prunes_a_mount() # STORE KEY
{
    local i before oldest
    make_archive "$2" "$1"
    for i in 2 3; do
        pg_archive_all src >/dev/null
        take_backup "b$i"
    done
    pg_archive_all src >/dev/null
    pg_stop src
    before=$(segments_in "$TREE/wal" | wc -l)
    oldest=$(sed -n 's/.*"start_wal_segment": "\(.*\)".*/\1/p' "$TREE/basebackups/b2/backup.json")
    runs 0 "$PRUNE" --keep 2 "$TREE"
    assert_match "$OUT" "would remove $(readlink "$TREE/basebackups/nightly") \(nightly\), stored" "output"
    assert_match "$LAST" "dry run: nothing was removed; --confirm removes 1 base backups" "last line"
    assert_eq "$(segments_in "$TREE/wal" | wc -l)" "$before" "WAL after a dry run"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)"
    runs 2 "$PRUNE" --keep 2 --confirm "$TREE"
    assert_match "$LAST" "failed: .*not permitted.*allow_delete" "last line without allow_delete"
    umount_walefs m

    mount_walefs m "$(pg_mount_opts)" allow_delete
    runs 0 "$PRUNE" --keep=2 --confirm "$TREE"
    assert_match "$OUT" "recovery stays possible from [0-9A-F/]+ .* to the end of segment $(segments_in "$TREE/wal" | tail -n 1)" "output"
    assert_match "$LAST" "done: removed 1 base backups .* and [1-9][0-9]* WAL files" "last line"
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' | wc -l)" 2 "backups"
    assert_eq "$(segments_in "$TREE/wal" | head -n 1)" "$oldest" "the first segment"
    runs 0 "$PRUNE" --keep 2 --confirm "$TREE"
    assert_match "$LAST" "done: nothing is too old" "last line"
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro
    assert_eq "$(segments_in "$TREE/wal" | head -n 1)" "$oldest" "the first segment in the archive"
    rm -rf "$T/ts/one"
    pg_home two
    restore 0 --backup b2 --start --start-options "$(socket_of two) -c archive_mode=off" "$(pg_data two)"
    promoted two
    assert_eq "$(rows two)" "$WANT_LAST" "rows from the oldest backup that is left"
    pg_stop two
    umount_walefs m
}

test_prunes_a_mount()
{
    prunes_a_mount file none
}

test_prunes_a_mount_on_s3()
{
    prunes_a_mount http gpg
}

fake_backup() # NAME TIMELINE LSN SEGMENT STORED_AT [LABEL]
{
    mkdir -p "$TREE/basebackups/$1/pgdata" "$TREE/basebackups/$1/tar"
    cat >"$TREE/basebackups/$1/backup.json" <<END
{
  "complete": true,
  "label": ${6:+\"$6\"}${6:-null},
  "name": "$1",
  "segment_size": 16777216,
  "start_lsn": "$3",
  "start_wal_segment": "$4",
  "stop_lsn": "$3",
  "stored_at": "$5",
  "stored_size_bytes": 1048576,
  "tablespaces": [
    {"oid": "16384", "location": "/srv/x"}
  ],
  "timeline": $2,
  "written_by": "walefs"
}
END
    sed -i 's/"\(.*\)"\1,$/"\1",/; s/^  "label": "\([^"]*\)"[^,]*,/  "label": "\1",/' "$TREE/basebackups/$1/backup.json"
}

# Five backups on two timelines, the later one begun before the earlier one's last; WAL of each.
make_prunable_tree()
{
    local i tli
    TREE=$T/tree
    rm -rf "$TREE"
    mkdir -p "$TREE/wal" "$TREE/basebackups" "$T/bin"
    fake_backup base_000000010000000000000010_00000040 1 0/10000028 000000010000000000000010 "$(date -u -d '-40 days' +%FT%TZ)" first
    fake_backup base_000000010000000000000020_00000040 1 0/20000028 000000010000000000000020 "$(date -u -d '-20 days' +%FT%TZ)"
    fake_backup base_000000020000000000000028_00000040 2 0/28000028 000000020000000000000028 "$(date -u -d '-6 days' +%FT%TZ)"
    fake_backup base_000000010000000000000030_00000040 1 0/30000028 000000010000000000000030 "$(date -u -d '-5 days' +%FT%TZ)"
    fake_backup base_0000000200000001000000FE_00000040 2 1/FE000028 0000000200000001000000FE "$(date -u -d '-4 days' +%FT%TZ)" last
    ln -s base_0000000200000001000000FE_00000040 "$TREE/basebackups/LATEST"
    for ((i = 0x08; i <= 0x40; i++)); do
        printf '%08X%08X%08X\n' 1 0 $i
        ((i < 0x26)) || printf '%08X%08X%08X\n' 2 0 $i
    done | (cd "$TREE/wal" && xargs touch)
    touch "$TREE/wal/0000000200000001000000FE" "$TREE/wal/0000000200000001000000FF" \
        "$TREE/wal/00000002.history" "$TREE/wal/000000010000000000000010.00000028.backup" \
        "$TREE/wal/000000010000000000000030.00000028.backup" "$TREE/wal/00000001000000000000000A.partial" \
        "$TREE/wal/archtemp.x" "$TREE/wal/000000010000000000000009.tmp"
    # In the mount, rmdir takes a whole backup away.
    # shellcheck disable=SC2016
    printf '#!/bin/bash\n[[ $1 == -- && $2 == */base_* && -e $2/backup.json ]] && rm -r -- "$2"\n' >"$T/bin/rmdir"
    chmod 755 "$T/bin/rmdir"
}

prune() # STATUS OPTIONS...
{
    runs "$1" env PATH="$T/bin:$PATH" "$PRUNE" "${@:2}" "$TREE"
}

test_prune_rules()
{
    make_prunable_tree
    prune 1 --keep 0
    prune 1 --keep 1 --keep-days 1
    prune 1 --keep -1
    assert_match "$LAST" "refused, nothing was removed" "last line"

    # By timeline first: the one on timeline 1 at 0/30 goes before that on timeline 2 at 0/28, but it is the
    # lowest position that decides on the WAL, whatever the timeline.
    prune 0 --keep 2
    assert_match "$OUT" "would remove base_000000010000000000000030" "output"
    assert_match "$OUT" "kept: base_000000020000000000000028" "output"
    assert_match "$OUT" "WAL before ...0000000000000028, .*and 2 other files" "output"
    assert_match "$OUT" "segments are missing in between" "output"
    prune 0 --keep 2 --confirm
    assert_match "$LAST" "removed 3 base backups \(3072 KiB\) and 68? WAL files|removed 3 base backups" "last line"
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' | wc -l)" 2 "backups"
    assert_eq "$(segments_in "$TREE/wal" | cut -c9- | sort | head -n 1)" 0000000000000028 "the first position"
    [[ -e $TREE/wal/00000002.history && -e $TREE/wal/archtemp.x && -e $TREE/wal/000000010000000000000009.tmp ]] ||
        fail "something that is no WAL of the archive was removed"
    [[ ! -e $TREE/wal/000000010000000000000010.00000028.backup && ! -e $TREE/wal/00000001000000000000000A.partial ]] ||
        fail "a label or partial segment of what was removed stays"
    [[ -e $TREE/wal/000000010000000000000030.00000028.backup ]] || fail "a label that is not old was removed"

    make_prunable_tree
    prune 0 --keep-days 10 --confirm
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' | wc -l)" 3 "backups younger than 10 days"
    prune 0 --keep-days 2 --confirm
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' -printf '%f')" base_0000000200000001000000FE_00000040 "the one that stays"
    assert_eq "$(segments_in "$TREE/wal" | wc -l)" 2 "segments"

    # In the other forms.
    make_prunable_tree
    prune 0 -k 2
    assert_match "$LAST" "--confirm removes 3 base backups" "last line of -k 2"
    prune 0 -d 10
    assert_match "$LAST" "--confirm removes 2 base backups" "last line of -d 10"
    prune 0 --keep-days=2
    assert_match "$LAST" "--confirm removes 4 base backups" "last line of --keep-days=2"
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' | wc -l)" 5 "backups after dry runs"

    # What LATEST leads to stays, wherever it stands in that order; one that is not complete does not count.
    make_prunable_tree
    ln -sfn base_000000010000000000000020_00000040 "$TREE/basebackups/LATEST"
    json_set complete false base_0000000200000001000000FE_00000040
    prune 0 --keep 1
    assert_eq "$(grep -o 'kept: base_[0-9A-F]*' <<<"$OUT" | sort | paste -sd ' ')" \
        "kept: base_000000010000000000000020 kept: base_000000020000000000000028" "what is kept"

    # All backups kept: what was archived before the first.
    make_prunable_tree
    prune 0 --confirm
    assert_match "$LAST" "removed 0 base backups .* and 9 WAL files" "last line"

    # Without any backup nothing is old.
    rm -r "$TREE/basebackups"/*
    prune 1 --confirm
    assert_match "$LAST" "no complete base backup" "last line"
}

# WAL-E's name of an offline backup lies: what its own files say counts, and without those nothing is removed.
test_prune_keeps_what_is_uncertain()
{
    local b
    make_prunable_tree
    b=$TREE/basebackups/base_000000010000000000000020_00000040
    json_set written_by '"WAL-E"' "$(basename "$b")"
    prune 1 --keep 4 --confirm
    assert_match "$LAST" "at which WAL segment base_000000010000000000000020_00000040 starts is not known" "last line"
    printf 'START WAL LOCATION: 0/B000028 (file 00000001000000000000000B)\nCHECKPOINT LOCATION: 0/B000060\n' \
        >"$b/pgdata/backup_label"
    prune 0 --keep 4 --confirm
    [[ -e $TREE/wal/00000001000000000000000B && ! -e $TREE/wal/00000001000000000000000A ]] ||
        fail "WAL before the label's position"

    make_prunable_tree
    json_set written_by '"WAL-E"' "$(basename "$b")"
    pg_init src
    mkdir "$b/pgdata/global"
    cp "$(pg_data src)/global/pg_control" "$b/pgdata/global/"
    prune 0 --keep 4
    assert_match "$OUT" "nothing is too old|would remove" "output"
    [[ $OUT != *"WAL before"* ]] || fail "pg_control says segment 1, but WAL would go: $OUT"

    # Nor does it make the ones that were stored after it the older ones.
    make_prunable_tree
    b=$TREE/basebackups/base_0000000200000001000000FE_00000040
    json_set written_by '"WAL-E"' "$(basename "$b")"
    json_set stored_at "\"$(date -u -d '-30 days' +%FT%TZ)\"" "$(basename "$b")"
    printf 'START WAL LOCATION: 0/29000028 (file 000000020000000000000029)\n' >"$b/pgdata/backup_label"
    prune 0 --keep 1 --confirm
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' -printf '%f\n' | sort | paste -sd ' ')" \
        "base_000000010000000000000030_00000040 $(basename "$b")" "the newest by position, and by age"

    # A backup that cannot be removed stops it before any WAL goes.
    make_prunable_tree
    printf '#!/bin/sh\necho "rmdir: not permitted" >&2; exit 1\n' >"$T/bin/rmdir"
    b=$(segments_in "$TREE/wal" | wc -l)
    prune 2 --keep 1 --confirm
    assert_match "$LAST" "failed: rmdir: not permitted" "last line"
    assert_eq "$(segments_in "$TREE/wal" | wc -l)" "$b" "WAL after a failure"
}

# What cannot be looked at is there: the whole of it, or nothing is removed. As a user whom modes bind.
test_prune_needs_to_see()
{
    local b=base_000000010000000000000020_00000040 before
    unseen() # DIR-THAT-CANNOT-BE-LISTED REGEX OPTIONS...: refused, and nothing is gone
    {
        before=$(cd "$TREE" && find . | sort)
        chown -R "$PG_OS_USER:" "$TREE"
        [[ -z $1 ]] || chmod 300 "$TREE/$1"
        runs 1 as_pg env PATH="$T/bin:$PATH" "$PRUNE" "${@:3}" --confirm "$TREE"
        [[ -z $1 ]] || chmod 755 "$TREE/$1"
        assert_match "$LAST" "refused, nothing was removed: .*$2" "last line"
        assert_eq "$(cd "$TREE" && find . | sort)" "$before" "what is there"
    }

    make_prunable_tree
    chmod 755 "$T/bin"
    unseen wal "/wal cannot be listed .*Permission denied"
    unseen basebackups "/basebackups cannot be listed .*Permission denied"

    # a backup of which nothing is known but its name
    rm -r "${TREE:?}/basebackups/base_000000010000000000000010_00000040"
    touch "$TREE/basebackups/base_000000010000000000000010_00000040"
    unseen "" "base_000000010000000000000010_00000040 cannot be read"

    make_prunable_tree
    ln -sfn "$b" "$TREE/basebackups/LATEST"
    printf '#!/bin/sh\nexit 1\n' >"$T/bin/readlink"
    chmod 755 "$T/bin/readlink"
    unseen "" "/LATEST cannot be read" --keep 1
    rm "$T/bin/readlink"

    # of an online backup, pg_control says a later place than backup_label
    make_prunable_tree
    json_set written_by '"WAL-E"' $b
    pg_init src
    mkdir "$TREE/basebackups/$b/pgdata/global"
    cp "$(pg_data src)/global/pg_control" "$TREE/basebackups/$b/pgdata/global/"
    printf '\x00\x00\x00\x30\x00\x00\x00\x00' |
        dd of="$TREE/basebackups/$b/pgdata/global/pg_control" bs=1 seek=40 conv=notrunc status=none
    ln -s backup_label "$TREE/basebackups/$b/pgdata/backup_label"
    unseen "" "backup_label cannot be read" --keep 4

    # the size of a segment, where nothing but a segment tells it
    make_prunable_tree
    sed -i '/segment_size/d' "$TREE"/basebackups/*/backup.json
    printf '#!/bin/sh\nexit 1\n' >"$T/bin/stat"
    chmod 755 "$T/bin/stat"
    unseen "" "how long a segment is"
}

# What was removed by then is gone, the next backup and all WAL are there, and the same command goes on.
test_prune_interrupted()
{
    local pid rc=0 before
    make_prunable_tree
    before=$(segments_in "$TREE/wal" | wc -l)
    mv "$T/bin/rmdir" "$T/bin/rmdir.real"
    cat >"$T/bin/rmdir" <<END
#!/bin/bash
if [[ -e $T/once ]]; then
    touch "$T/waits"
    exec sleep 30
fi
touch "$T/once"
exec "$T/bin/rmdir.real" "\$@"
END
    chmod 755 "$T/bin/rmdir"
    PATH=$T/bin:$PATH setsid "$PRUNE" --keep 2 --confirm "$TREE" >"$T/said" 2>&1 </dev/null &
    pid=$!
    wait_for 20 "the second backup" test -e "$T/waits"
    kill -TERM -- "-$pid"
    reap_child "$pid" 20 "an interrupted prune" || rc=$?
    assert_eq "$rc" 130 "status of an interrupted prune"
    assert_match "$(tail -n 1 "$T/said")" "interrupted: what was not removed yet is there still; the same command goes on" "last line"
    assert_eq "$(find "$TREE/basebackups" -maxdepth 1 -name 'base_*' | wc -l)" 4 "backups"
    assert_eq "$(segments_in "$TREE/wal" | wc -l)" "$before" "segments"
    mv "$T/bin/rmdir.real" "$T/bin/rmdir"
    prune 0 --keep 2 --confirm
    assert_match "$LAST" "removed 2 base backups" "last line"
}

# Many names, few processes.
# rm on the mount only notes what is to be deleted: done is what the store has done.
test_prune_waits_for_the_store()
{
    make_prunable_tree
    mkdir "$TREE/status"
    echo "walefs_wal_deletions_pending 3" >"$TREE/status/metrics"
    # What is deleted meanwhile, as a sleep that takes no time.
    cat >"$T/bin/sleep" <<END
#!/bin/bash
n=\$(sed -n 's/.*pending //p' "$TREE/status/metrics")
[[ -e $T/stuck ]] || echo "walefs_wal_deletions_pending \$((n - 1))" >"$TREE/status/metrics"
echo x >>"$T/slept"
END
    chmod 755 "$T/bin/sleep"
    prune 0 --keep 4 --confirm
    assert_eq "$(wc -l <"$T/slept")" 3 "how often it waited"
    touch "$T/stuck"
    echo "walefs_wal_deletions_pending 2" >"$TREE/status/metrics"
    prune 2 --keep 3 --confirm
    assert_match "$LAST" "failed: 2 WAL files are in the archive still; the mount goes on" "last line"

    # a mount that has gone meanwhile tells nothing
    make_prunable_tree
    mkdir "$TREE/status"
    echo "walefs_wal_deletions_pending 3" >"$TREE/status/metrics"
    printf '#!/bin/bash\nrm -r "%s/status"\n' "$TREE" >"$T/bin/sleep"
    prune 2 --keep 4 --confirm
    assert_match "$LAST" "failed: whether the store has deleted all is not known .*No such file" "last line"
}

# Many names, few processes.
test_prune_is_quick()
{
    local t0
    make_prunable_tree
    (cd "$TREE/wal" && for ((i = 0; i < 12000; i++)); do printf '%08X%08X%08X\n' 1 1 $((i % 256)); done | sort -u | xargs touch
        for ((i = 0; i < 12000; i++)); do printf '%08X%08X%08X\n' 3 $((i / 256)) $((i % 256)); done | xargs touch)
    t0=$(now_ms)
    prune 0 --keep 1 --confirm
    (($(now_ms) - t0 < 15000)) || fail "it took $(($(now_ms) - t0)) ms"
    assert_eq "$(segments_in "$TREE/wal" | cut -c9- | sort | head -n 1)" 00000001000000FE "the first position"
}
