# shellcheck shell=bash disable=SC2034
# Two mounts of one archive: both archive the same name at the same time; one takes away what the other reads.
NEEDS_S3=1
TIME_LIMIT=240

# In each round both hosts offer NAME: with different contents exactly one may win, with equal ones
# both succeed; and the archive then has the winner's bytes.
# cp finds no such file, and makes it with O_EXCL; if the other one has published it in between, the
# kernel says EEXIST before any content is there. PostgreSQL calls its archive_command again, and so
# does this.
again() # MOUNT; uses round, name
{
    grep -q "cannot create regular file.*File exists" "$T/err.$1" ||
        fail "round $round, equal contents: $(cat "$T/err.$1")"
    cp "$T/same" "$T/$1/wal/$name" || fail "round $round: the same content was refused"
}

race() # STORE KEY ROUNDS SIZE_MIB
{
    local round name pid_a pid_b rc_a rc_b won_a=0 winner
    use_store "$1"
    use_key "$2"
    mount_walefs a
    mount_walefs b
    for ((round = 1; round <= $3; round++)); do
        name=$(seg_name "$round" "$4")
        make_seg "$name" "$T/sa" "$4" "from a"
        make_seg "$name" "$T/sb" "$4" "from b"
        rc_a=0 rc_b=0
        cp "$T/sa" "$T/a/wal/$name" 2>"$T/err.a" &
        pid_a=$!
        cp "$T/sb" "$T/b/wal/$name" 2>"$T/err.b" &
        pid_b=$!
        reap_child $pid_a 60 "cp on a" || rc_a=$?
        reap_child $pid_b 60 "cp on b" || rc_b=$?
        [[ $((rc_a == 0)) != $((rc_b == 0)) ]] ||
            fail "round $round: both ended with $rc_a and $rc_b: $(cat "$T"/err.[ab])"
        if [[ $rc_a == 0 ]]; then
            winner=$T/sa
            won_a=$((won_a + 1))
            grep -q "File exists" "$T/err.b" || fail "round $round: b lost with $(cat "$T/err.b")"
        else
            winner=$T/sb
            grep -q "File exists" "$T/err.a" || fail "round $round: a lost with $(cat "$T/err.a")"
        fi
        assert_archived "$name" "$winner"
        assert_same "$T/a/wal/$name" "$winner"
        assert_same "$T/b/wal/$name" "$winner"

        name=$(seg_name $((round + 1000)) "$4")
        make_seg "$name" "$T/same" "$4"
        cp "$T/same" "$T/a/wal/$name" 2>"$T/err.a" &
        pid_a=$!
        cp "$T/same" "$T/b/wal/$name" 2>"$T/err.b" &
        pid_b=$!
        reap_child $pid_a 60 "cp on a" || again a
        reap_child $pid_b 60 "cp on b" || again b
        assert_archived "$name" "$T/same"
    done
    note "a won $won_a of $3 rounds"
    # What lost the race leaves nothing behind.
    assert_eq "$(store_ls wal_005/ | wc -l)" $(($3 * 2)) "objects"
}

test_file_plain()
{
    race file none 15 1
}

test_file_gpg()
{
    race file gpg 8 1
}

test_http_plain()
{
    race http none 15 1
}

test_http_gpg()
{
    race http gpg 8 1
}

test_http_16_mib()
{
    race http none 4 16
}

# A store that does not know conditions: walefs looks before it writes, and says that this is weaker.
test_store_without_conditions()
{
    local name body='<?xml version="1.0" encoding="UTF-8"?><Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is not implemented</Message><RequestId>tx1</RequestId></Error>'
    name=$(seg_name 1 1)
    make_seg "$name" "$T/sa" 1 "from a"
    make_seg "$name" "$T/sb" 1 "from b"
    use_store http
    use_key none
    use_fault_proxy
    printf 'HTTP/1.1 501 Not Implemented\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
        ${#body} "$body" >"$T/answer"
    proxy_mode no-condition "$T/answer"
    mount_walefs a
    mount_walefs b
    assert_log a "warning: .*weaker guard against two hosts"
    "$WALEFS" check -o "$STORE_OPTS" "$SOURCE" >"$T/check" || true
    assert_match "$(cat "$T/check")" 'warn +write +objects can be written, but not created conditionally' "walefs check"
    [[ ! -e $T/b/wal/$name ]] || fail "there already"
    cp "$T/sa" "$T/a/wal/$name"
    cp "$T/sa" "$T/b/wal/$name"
    expect_fail "File exists" cp "$T/sb" "$T/b/wal/$name"
    umount_walefs a
    mount_walefs a
    expect_fail "File exists" cp "$T/sb" "$T/a/wal/$name"
    cp "$T/sa" "$T/a/wal/$name"
    assert_archived "$name" "$T/sa"
    umount_walefs a
    umount_walefs b
}

# Through one mount: two processes write the same name.
test_one_mount()
{
    local round name rc_a rc_b pid_a pid_b
    use_store file
    use_key none
    mount_walefs m
    for round in {1..10}; do
        name=$(seg_name "$round" 1)
        make_seg "$name" "$T/sa" 1 "from a"
        make_seg "$name" "$T/sb" 1 "from b"
        rc_a=0 rc_b=0
        cp "$T/sa" "$T/m/wal/$name" 2>"$T/err.a" &
        pid_a=$!
        cp "$T/sb" "$T/m/wal/$name" 2>"$T/err.b" &
        pid_b=$!
        reap_child $pid_a 60 "cp a" || rc_a=$?
        reap_child $pid_b 60 "cp b" || rc_b=$?
        [[ $rc_a == 0 || $rc_b == 0 ]] || fail "round $round: none was archived: $(cat "$T"/err.[ab])"
        [[ $rc_a != 0 || $rc_b != 0 ]] || fail "round $round: both were archived"
        if [[ $rc_a == 0 ]]; then
            assert_archived "$name" "$T/sa"
        else
            assert_archived "$name" "$T/sb"
        fi
    done
}

not_stored() # WAL-NAME
{
    ! stored "$1"
}

# NAME, which has the content of FILE, is open on b when CMD... takes its name away on a: fstat and read go on.
open_while() # NAME FILE CMD...
{
    local name=$1 file=$2
    exec 7<"$T/b/wal/$name"
    dd bs=8192 count=1 status=none <&7 >"$T/read"
    "${@:3}"
    wait_for 20 "$name to leave the archive" not_stored "$name"
    # --cached=never: not what the kernel was told when it was there
    assert_eq "$(stat --cached=never -c '%s %F' - <&7)" "$(stat -c '%s %F' "$file")" "fstat of $name"
    # a segment's name the kernel remembers for a while
    [[ $name != *.partial ]] || expect_fail "No such file" stat "$T/b/wal/$name"
    cat <&7 >>"$T/read"
    assert_same "$T/read" "$file"
    exec 7<&-
}

test_removed_while_open()
{
    local one two
    one=$(seg_name 1 1) two=$(seg_name 2 1)
    make_seg "$one" "$T/one" 1
    make_seg "$two" "$T/two" 1
    use_store file
    use_key none
    mount_walefs a allow_delete
    mount_walefs b
    cp "$T/one" "$T/a/wal/$one.partial"
    cp "$T/two" "$T/a/wal/$two.partial"
    open_while "$one.partial" "$T/one" mv "$T/a/wal/$one.partial" "$T/a/wal/$one"
    open_while "$two.partial" "$T/two" rm "$T/a/wal/$two.partial"
    open_while "$one" "$T/one" rm "$T/a/wal/$one"
}

# Another host's new content of a .partial is nothing to who has the old one open: he finds the end of that.
test_replaced_while_open()
{
    local name
    name=$(seg_name 1 1)
    make_seg "$name" "$T/seg" 1
    use_store file
    use_key none
    mount_walefs a
    mount_walefs b
    cp "$T/seg" "$T/a/wal/$name.partial"
    exec 7<"$T/b/wal/$name.partial"
    head -c 5000 "$T/seg" >"$T/a/wal/$name.partial"
    wait_for 20 "b to see the new content" eval "[[ \$(stat -c %s '$T/b/wal/$name.partial') == 5000 ]]"
    assert_eq "$(python3 -c 'import os; print(os.lseek(7, 0, os.SEEK_END))' 7<&7)" 1048576 "its end"
    exec 7<&-
    exec 7<"$T/b/wal/$name.partial"
    cat <&7 >"$T/read"
    exec 7<&-
    assert_eq "$(stat -c %s "$T/read")" 5000 "size of the new one"
}
