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
