# shellcheck shell=bash disable=SC2034
# What copies into a base backup rely on: that a backup which is complete has all that its writers
# were told it has, and that everything else is said to them.
TIME_LIMIT=120

# $T/tree passes for a stopped cluster.
make_tree()
{
    pg_init src
    rm -rf "$T/tree"
    cp -a "$(pg_data src)" "$T/tree"
}

begin_copy() # LABEL
{
    mkdir "$T/m/basebackups/$1.partial"
    cp -a "$T/tree/." "$T/m/basebackups/$1.partial/"
}

complete() # LABEL
{
    mv -T "$T/m/basebackups/$1.partial" "$T/m/basebackups/$1"
}

# An open file refuses the rename and loses nothing; what is made while the rename works is either
# in the backup, or its writer got an error.
test_writers_during_the_rename()
{
    local b=$T/m/basebackups pid i
    use_store file
    use_key none
    make_tree
    mount_walefs m
    begin_copy x
    head -c 100000 /dev/urandom >"$T/half"
    exec 7>"$b/x.partial/base/half"
    head -c 50000 "$T/half" >&7
    expect_fail 'busy' complete x
    assert_log m 'base/half for one: close them'
    tail -c +50001 "$T/half" >&7
    exec 7>&-
    mkdir "$b/x.partial/more"
    (
        for ((i = 0; ; i++)); do
            echo "$i" 2>/dev/null >"$b/x.partial/more/f$i" || break
            echo "f$i" >>"$T/told"
        done
    ) 2>/dev/null &
    pid=$!
    sleep 1
    until complete x 2>/dev/null; do # whenever it does not meet an open file
        kill -0 $pid || fail "the writer has ended before the backup was complete"
    done
    wait $pid || true
    assert_same "$b/x/pgdata/base/half" "$T/half"
    sort "$T/told" >"$T/told.sorted"
    find "$b/x/pgdata/more/" -type f -printf '%f\n' | sort >"$T/there"
    assert_same "$T/told.sorted" "$T/there"
    note "$(wc -l <"$T/there") files were made until the backup was complete"
    umount_walefs m
}

# A staging area without inodes: cp reports many errors and goes on, and what it could not make must not
# be missing from a complete backup. What is closed makes room first.
test_files_that_cannot_be_made()
{
    local b=$T/m/basebackups rc=0
    use_store file
    use_key none
    make_tree
    mkdir "$T/small"
    mount -t tmpfs -o size=200m,nr_inodes=150,mode=700 walefs-test "$T/small"
    mount_walefs m "cache_dir=$T/small"
    begin_copy x
    complete x
    diff -r "$T/tree" "$b/x/pgdata"
    umount_walefs m
    mount_walefs m "cache_dir=$T/small"
    mkdir "$b/y.partial"
    cp -a "$T/tree/PG_VERSION" "$T/tree/global" "$b/y.partial/"
    umount -l "$T/small"
    mount -t tmpfs -o size=200m,nr_inodes=1,mode=700 walefs-test "$T/small"
    cp -a "$T/tree/base" "$T/tree"/pg_* "$b/y.partial/" || rc=$?
    ((rc != 0)) || fail "cp had nowhere to go, and did not say so"
    umount -l "$T/small"
    expect_fail 'No space left|error' complete y
    [[ ! -e $b/y ]] || fail "a backup is complete without its files"
    umount_walefs m
}

facts() # DIR
{
    (cd "$1" && find . -printf '%p %y %m %U %G %T@ %l\n' | sort)
}

# cp -a and rsync -a of 1000 files give owners, modes and times, each in its own order of calls; chown
# after it comes too late for what is archived, and says so.
test_owners_modes_and_times()
{
    local b=$T/m/basebackups how
    use_store file
    use_key none
    make_tree
    mkdir "$T/tree/base/odd"
    python3 - "$T/tree/base/odd" <<'PY'
import os, sys
for i in range(1000):
    name = f"{sys.argv[1]}/f{i}"
    with open(name, "w") as f:
        print(i, file=f)
    os.chown(name, 1000 + i % 7, 2000 + i % 11)
    os.chmod(name, (0o400, 0o600, 0o640, 0o750)[i % 4])
    os.utime(name, ns=(0, (1500000000 + i) * 10**9 + 100000000 + i))
PY
    ln -s nowhere "$T/tree/base/odd/link"
    chown -h 1234:4321 "$T/tree/base/odd/link"
    touch -h -d @1400000000.5 "$T/tree/base/odd/link"
    touch -d @1300000000.25 "$T/tree/base/odd"
    facts "$T/tree" >"$T/want"
    mount_walefs m allow_delete
    for how in cp rsync; do
        if [[ $how == cp ]]; then
            begin_copy x
            expect_fail 'busy' chown -R 4321:4321 "$b/x.partial/base/odd/f0" "$b/x.partial/base/odd/f1" "$b/x.partial/base/odd"
            assert_log m 'are archived already: they are to be set while it is copied'
            rm -r "$b/x.partial"
            begin_copy x
        else
            mkdir "$b/x.partial"
            rsync -a "$T/tree/" "$b/x.partial/"
        fi
        complete x
        facts "$b/x/pgdata" >"$T/have"
        assert_same "$T/have" "$T/want"
        rm -rf "$T/restored"
        cp -a "$b/x/pgdata" "$T/restored"
        facts "$T/restored" >"$T/have"
        assert_same "$T/have" "$T/want"
        rmdir "$b/$(readlink "$b/x")"
    done
    umount_walefs m
}

# A backup that pg_basebackup has written elsewhere: complete with all its tars, and not without one of
# them, be there a manifest or not. A manifest that has stayed behind in a cluster does not count.
test_what_belongs_to_a_backup()
{
    local m=$T/m b=$T/m/basebackups oid how
    use_store file
    use_key none
    pg_init src
    pg_conf src "max_wal_senders = 5" "wal_level = replica"
    pg_start src
    pg_tablespaces src one
    pg_sql src "create table t1 tablespace one as select i from generate_series(1, 50000) i"
    oid=$(pg_sql src "select oid from pg_tablespace where spcname = 'one'")
    pg_dir "$T/out"
    pg_backup src "$T/out/b" -Ft -X none
    mount_walefs m "$(pg_mount_opts)"
    for how in without_tablespace without_any cut whole; do
        mkdir "$b/$how.partial"
        cp "$T/out/b/base.tar" "$b/$how.partial/"
        case $how in
            without_tablespace) cp "$T/out/b/backup_manifest" "$b/$how.partial/" ;;
            cut)
                mkdir "$T/cut"
                tar -C "$T/cut" -xf "$T/out/b/$oid.tar"
                find "$T/cut" -type f -size +1M -exec truncate -s -8192 {} +
                tar -C "$T/cut" -cf "$b/$how.partial/$oid.tar" .
                cp "$T/out/b/backup_manifest" "$b/$how.partial/"
                ;;
            whole) cp "$T/out/b/$oid.tar" "$T/out/b/backup_manifest" "$b/$how.partial/" ;;
        esac
        if [[ $how == whole ]]; then
            complete whole
        else
            expect_fail 'not permitted' complete $how
            [[ ! -e $b/$how ]] || fail "$how is complete"
            rm -r "$b/$how.partial"
            wait_for 60 "the end of cleaning up" no_backup_objects
        fi
    done
    assert_log m "the tablespace $oid .* is missing"
    assert_log m "in backup_manifest: the backup is not whole"
    "$PG_BIN/pg_verifybackup" -n "$b/whole/pgdata"
    pg_stop src
    as_pg cp "$T/out/b/backup_manifest" "$(pg_data src)/"
    mkdir "$b/cold.partial"
    cp -aL "$(pg_data src)/." "$b/cold.partial/"
    complete cold
    assert_log m 'its backup_manifest is of an earlier backup'
    umount_walefs m
}

no_backup_objects()
{
    [[ -z $(store_ls basebackups_005/) ]]
}

# A cluster whose pg_wal is on another disk: copied without it, it could not start.
test_wal_that_is_a_link()
{
    local b=$T/m/basebackups
    use_store file
    use_key none
    make_tree
    mv "$T/tree/pg_wal" "$T/wal"
    ln -s "$T/wal" "$T/tree/pg_wal"
    mount_walefs m
    begin_copy x
    expect_fail 'not permitted' complete x
    assert_log m 'pg_wal is a symlink, .* links followed'
    [[ ! -e $b/x ]] || fail "a backup is complete without its WAL"
    rm -r "$b/x.partial"
    begin_copy x
    rm "$b/x.partial/pg_wal"
    cp -a "$T/wal" "$b/x.partial/pg_wal"
    complete x
    diff -r "$T/tree" "$b/x/pgdata"
    umount_walefs m
}

# Nothing is lost while the store is away, but nobody who writes waits for ever: errors after write_timeout,
# and Ctrl-C before.
test_store_gone_at_the_rename()
{
    local b=$T/m/basebackups rc=0
    use_store file
    use_key none
    make_tree
    mount_walefs m write_timeout=3
    begin_copy x
    mv "$STORE_DIR" "$STORE_DIR.away"
    expect_fail 'Input/output error' complete x
    expect_fail 'Input/output error' mkdir "$b/y"
    assert_log m 'basebackups/: given up after'
    timeout -s INT 1 mv -T "$b/x.partial" "$b/z" || rc=$?
    assert_eq "$rc" 124 "status of an interrupted mv"
    assert_log m 'lookup basebackups/z: .* interrupted'
    mv "$STORE_DIR.away" "$STORE_DIR"
    complete x
    diff -r "$T/tree" "$b/x/pgdata"
    umount_walefs m
}

# Of two that are written for one label the one that is complete first has it. The other one loses nothing:
# it is completed when that one has gone.
test_one_label_twice()
{
    local b=$T/m/basebackups
    use_store file
    use_key none
    make_tree
    mount_walefs m allow_delete
    begin_copy x
    mkdir "$b/x"
    expect_fail 'exists|not empty' complete x
    rmdir "$b/x"
    complete x
    expect_fail 'exists' mkdir "$b/x"
    begin_copy x
    expect_fail 'non-directory' complete x
    expect_fail 'not permitted' mv "$b/x.partial" "$b/x"
    diff -r "$T/tree" "$b/x/pgdata"
    rmdir "$b/$(readlink "$b/x")"
    wait_for 10 "the rename to the label that is free" complete x
    diff -r "$T/tree" "$b/x/pgdata"
    umount_walefs m
}
