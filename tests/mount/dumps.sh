# shellcheck shell=bash disable=SC2034
# dumps/: what pg_dump writes in all its formats, restored again; what must not be published; names,
# directories, sizes; and walefs-dump.
NEEDS_S3=1
TIME_LIMIT=240

pgc() # PROGRAM ARGS...: a client of the cluster src, as PostgreSQL's user
{
    as_pg "$PG_BIN/$1" -h "$T/pg/src" -U postgres "${@:2}"
}

make_source()
{
    pg_init src
    pg_start src
    pg_sql src "create table t as select i, md5(i::text) v from generate_series(1, 200000) i"
    pg_sql src "create index on t (i)"
    pg_sql src "create table empty (i int)"
    pg_sql src "create table other as select i from generate_series(1, 54321) i"
    pg_sql src "select lo_from_bytea(0, decode(repeat(md5(i::text), 2000), 'hex')) from generate_series(1, 40) i" >/dev/null
    WANT=$(rows postgres)
}

rows() # DATABASE
{
    pgc psql -d "$1" -XAtq -v ON_ERROR_STOP=1 -c "select (select sum(i) || ' ' || count(*) from t) || ' ' ||
        (select count(*) from empty) || ' ' || (select count(*) from other) || ' ' ||
        (select sum(length(lo_get(oid))) from pg_largeobject_metadata)"
}

# The command must give a database with the same rows.
restored() # COMMAND...
{
    pgc psql -d postgres -XAtq -c "drop database if exists again" -c "create database again"
    "$@"
    assert_eq "$(rows again)" "$WANT" "rows after: $*"
}

from_sql()
{
    pgc psql -d again -Xq -v ON_ERROR_STOP=1 -f - <"$1" >/dev/null
}

no_uploads_left()
{
    if [[ $STORE == file ]]; then
        [[ -z $(find "$STORE_DIR" -name '.walefs*' -print -quit) ]] || fail "temporaries stay in the store"
    else
        assert_eq "$(store_uploads || echo unknown)" "" "uploads in parts that were left behind"
    fi
}

sizes() # DIR: true sizes, each file read to its end
{
    (cd "$1" && find . -type f | sort | while read -r f; do echo "$f $(wc -c <"$f")"; done)
}

formats() # STORE KEY
{
    local d=$T/m/dumps o=
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)"
    make_source
    as_pg mkdir -p "$d/all/by" "$d/all/f"
    # shellcheck disable=SC2016
    as_pg bash -c 'set -o pipefail; cd "$1"; shift; export PGHOST=$1 PGUSER=postgres PATH=$2:$PATH
        pg_dump -Fc postgres >by/c
        pg_dump -Ft postgres >by/t
        pg_dump -Fp postgres >by/p
        pg_dumpall --globals-only | cat >by/globals
        pg_dump -Fc -f f/c postgres
        pg_dump -Ft -f f/t postgres
        pg_dump -Fp -f f/p postgres
        pg_dump -Fd -j4 -f f/d postgres
        pg_dump -Fp -Z6 -f f/p.gz postgres' - "$d/all" "$T/pg/src" "$PG_BIN"
    # What is on the way is on no disk, what has come is in the archive, as everybody can read it.
    store_get dumps_005/all/by/p.lzo "$T/.object"
    decode_object "$T/.object" "$T/.plain"
    assert_same "$T/.plain" "$d/all/by/p"
    assert_same <(grep -v restrict "$d/all/by/p") <(grep -v restrict "$d/all/f/p")

    for o in ro ''; do # also as another mount sees them
        umount_walefs m
        mount_walefs m "$(pg_mount_opts)" $o
        (cd "$d/all" && find . -type f -printf '%p %s\n' | sort) >"$T/.listed"
        sizes "$d/all" >"$T/.sizes"
        assert_same "$T/.listed" "$T/.sizes"
    done
    ! grep -q "is read once" "$T/m.log" || fail "sizes were not kept"
    restored pgc pg_restore -d again "$d/all/by/c"
    restored pgc pg_restore -d again -j4 "$d/all/f/c"
    restored pgc pg_restore -d again "$d/all/by/t"
    restored pgc pg_restore -d again -j4 "$d/all/f/d"
    restored from_sql "$d/all/by/p"
    restored from_sql <(zcat "$d/all/f/p.gz")
    grep -q 'CREATE ROLE postgres' "$d/all/by/globals"
    pgc pg_restore -l "$d/all/f/t" >/dev/null
    # one table of a dump: what stands before it is passed over
    pgc pg_restore -t other -f - "$d/all/f/c" >"$T/.other"
    assert_eq "$(grep -cE '^[0-9]+$' "$T/.other")" 54321 "rows of one table"
    umount_walefs m
    no_uploads_left
}

test_formats_file_plain()
{
    formats file none
}

test_formats_http_plain()
{
    formats http none
}

test_formats_http_gpg()
{
    formats http gpg
}

# ---- what must not be published ----

test_failed_writers_publish_nothing()
{
    local d=$T/m/dumps pid i
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)"
    make_source
    # pg_dump that fails, before and after its first byte; killed; and a shell that fails after it
    expect_fail 'does not exist' as_pg bash -c "'$PG_BIN/pg_dump' -h '$T/pg/src' -U postgres nosuch >'$d/a'"
    pg_sql src "create function bad() returns int language sql immutable as 'select 1/0'"
    pg_sql src "create view boom as select bad() from t"
    pg_sql src "create table z (i int); alter table z enable row level security; create role weak login"
    pg_sql src "grant select on all tables in schema public to weak"
    expect_fail 'row-level security' as_pg bash -c "'$PG_BIN/pg_dump' -h '$T/pg/src' -U weak -B --exclude-table=t postgres >'$d/b'"
    expect_fail 'row-level security' as_pg "$PG_BIN/pg_dump" -h "$T/pg/src" -U weak -B -Fc -f "$d/c" postgres
    as_pg bash -c "exec >'$d/d'; head -c 40000000 /dev/zero; kill -9 \$\$" || true
    expect_fail '' as_pg bash -c "exec >'$d/e'; head -c 40000000 /dev/urandom; exit 3"
    expect_fail '' as_pg bash -c "exec >'$d/f'; exit 3"
    # many megabytes that never end, killed when parts are on their way
    as_pg bash -c "exec cat /dev/urandom >'$d/g'" &
    pid=$!
    wait_for 60 "some of it" bash -c "((\$(stat -c %s '$d/g') > 30000000))"
    kill -9 "$(marked_running cat)"
    wait "$pid" 2>/dev/null || true
    wait_for 20 "its end" bash -c "! test -e '$d/g'"
    assert_eq "$(ls -A "$d")" "" "files of writers that failed"
    assert_eq "$(store_ls dumps_)" "" "objects of writers that failed"
    no_uploads_left
    # and these are whole: several writers in one shell, a child, an empty one, descriptors that are dup'ed
    as_pg bash -c "cd '$d'; { echo one; bash -c 'echo two'; echo three; } >h; : >i
        exec 3>j; echo one >&3; echo two >&3; exec 3>&-; (echo x; exit 1) >k | true; true"
    assert_eq "$(cat "$d/h")" $'one\ntwo\nthree' "a group of commands"
    assert_eq "$(cat "$d/j")" $'one\ntwo' "a descriptor of a shell"
    wait_for 10 "an empty file" test -e "$d/i"
    assert_eq "$(stat -c %s "$d/i")" 0 "size of an empty file"
    umount_walefs m
}

# The process that opened it ends well, and leaves it to another one: the last close decides.
test_openers_that_leave()
{
    local d=$T/m/dumps
    use_store file
    use_key none
    mount_walefs m
    setsid -f bash -c "echo \$\$ >'$T/pid'; head -c 3000000 /dev/zero; exec sleep 1000" >"$d/killed" 2>/dev/null
    wait_for 20 "its bytes" bash -c "((\$(stat -c %s '$d/killed') == 3000000))"
    [[ -z $(store_ls dumps_005) ]] || fail "published while it is written"
    kill -KILL "$(cat "$T/pid")"
    wait_for 20 "its end" bash -c "! test -e '$d/killed'"
    assert_eq "$(store_ls dumps_)" "" "objects of a writer that was killed"
    assert_log m 'dumps/killed: not published: the last process'
    bash -c "(head -c 1000000 /dev/zero; while ! test -e '$T/go'; do sleep 0.1; done; head -c 1000000 /dev/zero) &" >"$d/left"
    [[ -z $(store_ls dumps_005) ]] || fail "half of it is published"
    touch "$T/go"
    wait_for 20 "the whole of it" bash -c "((\$(stat -c %s '$d/left') == 2000000)) && test -n \"\$(ls '$STORE_DIR'/dumps_005 2>/dev/null)\""
    umount_walefs m
}

# Who serves the mount may not see how another user's process ends, unless it is root.
test_writers_of_another_user()
{
    local d=$T/m/dumps
    use_store file
    use_key none
    chown -R "$PG_OS_USER:" "$STORE_DIR"
    mount_walefs m "user=$PG_OS_USER" allow_other
    expect_fail 'not permitted' bash -c "echo one >'$d/root'"
    assert_log m 'dumps/root: walefs may not see how the process .* will end'
    as_pg bash -c "echo one >'$d/pg'; cat '$d/pg' >'$d/copy'; echo two >'$d/two'; exec >'$d/killed'; echo broken; kill -9 \$\$" || true
    assert_eq "$(cat "$d/pg" "$d/copy")" $'one\none' "what its own user wrote"
    [[ ! -e $d/root && ! -e $d/killed ]] || fail "what may be broken was published"
    umount_walefs m
    assert_eq "$(store_ls dumps_005 | wc -l)" 3 "objects"
}

# The store fails in the middle: the writer is told, and nothing is there.
test_store_fails_in_midstream()
{
    local d=$T/m/dumps rc=0 pid
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m write_timeout=4
    head -c 60000000 /dev/urandom >"$T/big"
    cp "$T/big" "$d/before"
    printf 'HTTP/1.1 403 Forbidden\r\nContent-Length: 92\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n%s' \
        '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>' >"$T/answer"
    mkfifo "$T/fifo"
    cat "$T/fifo" >"$d/x" 2>"$T/cat.err" &
    pid=$!
    exec 3>"$T/fifo"
    head -c 30000000 "$T/big" >&3
    wait_for 60 "parts" bash -c "((\$(stat -c %s '$d/x') > 25000000))"
    proxy_mode reply-put "$T/answer"
    (tail -c 30000000 "$T/big" >&3) 2>/dev/null || true
    exec 3>&-
    reap_child "$pid" 60 "the writer" || rc=$?
    ((rc != 0)) || fail "the writer was not told"
    assert_match "$(cat "$T/cat.err")" 'Permission denied|Input/output error' "the writer's error"
    proxy_mode pass
    [[ ! -e $d/x ]] || fail "a dump that was not stored is there"
    assert_log m 'dumps/x'
    wait_for 20 "the end of the upload" no_uploads
    # a small one, whose only request fails at close
    proxy_mode reply-put "$T/answer"
    expect_fail 'Permission denied|Input/output' cp /etc/passwd "$d/x"
    proxy_mode pass
    cp "$T/big" "$d/x"
    assert_same "$T/big" "$d/x"
    assert_same "$T/big" "$d/before"
    umount_walefs m
    no_uploads_left
}

# The store does not answer: who opens a new dump is told in time, on a hard mount too.
test_store_hangs()
{
    local d=$T/m/dumps
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m hard write_timeout=3
    proxy_mode hang
    expect_fail 'Input/output error' timeout 60 bash -c "echo one >'$d/x'"
    expect_fail 'Input/output error' timeout 60 mkdir "$d/new"
    proxy_mode pass
    echo two >"$d/x"
    assert_eq "$(cat "$d/x")" two "what was written then"
    umount_walefs m
}

no_uploads()
{
    (no_uploads_left) 2>/dev/null
}

# Dumps that are being written, however many, do not hold up WAL; who is one too many is told.
test_many_writers()
{
    local seg
    use_store http
    use_key none
    seg=$(seg_name 1)
    make_seg "$seg" "$T/seg"
    mount_walefs m
    python3 - "$T/m/dumps" "$T" <<'END' &
import errno, os, sys, time
dumps, t = sys.argv[1:3]
data = os.urandom(1 << 20)
def begin(i):
    return os.open("%s/%d" % (dumps, i), os.O_WRONLY | os.O_CREAT)

files = [begin(i) for i in range(256)]
for f in files[:60]:
    for i in range(9):
        os.write(f, data)
for f in files[60:]:
    os.write(f, b"x")
more = begin(256)
try:
    os.write(more, b"x")
    sys.exit("257 at once")
except OSError as e:
    assert e.errno == errno.EBUSY, e
try:
    os.close(more)
except OSError:
    pass
open(t + "/all", "w").close()
while not os.path.exists(t + "/end"):
    time.sleep(0.1)
for f in reversed(files):
    os.close(f)
more = begin(256)
os.write(more, b"x")
os.close(more)
END
    wait_for 120 "all dumps to be begun" test -e "$T/all"
    timeout 60 cp "$T/seg" "$T/m/wal/$seg" || fail "cannot archive beside them"
    timeout 60 cp "$T/m/wal/$seg" "$T/out" || fail "cannot restore beside them"
    assert_same "$T/out" "$T/seg"
    touch "$T/end"
    reap_child $! 120 "the writers" || fail "the writers failed"
    assert_eq "$(find "$T/m/dumps" -type f -size 9M | wc -l)" 60 "large dumps"
    assert_eq "$(find "$T/m/dumps" -type f -size 1c | wc -l)" 197 "small dumps"
    umount_walefs m
}

# A long stream takes little memory and no disk, written and read.
test_space()
{
    local d=$T/m/dumps rss
    use_store http
    use_key gpg
    mkdir "$T/cache"
    mount -t tmpfs -o size=40m cache "$T/cache"
    mount_walefs m cache_dir="$T/cache" cache_size=16M
    head -c 400000000 /dev/urandom >"$T/long"
    cat <"$T/long" >"$d/long"
    assert_eq "$(stat -c %s "$d/long")" 400000000 "size"
    assert_same "$T/long" "$d/long"
    rss=$(awk '/^VmHWM:/ { print $2 }' "/proc/${MOUNT_PID[m]}/status")
    note "peak memory: $rss KiB"
    ((rss < 200000)) || fail "400 MB took $rss KiB of memory"
    # who opens a file for reading too is staged, and told when there is no room
    expect_fail 'No space left' bash -c "exec 3<>'$d/staged'; cat '$T/long' >&3"
    expect_fail 'No space left' python3 -c 'import shutil, sys
with open(sys.argv[1], "rb") as src, open(sys.argv[2], "w+b") as dst:
    shutil.copyfileobj(src, dst)' "$T/long" "$d/staged"
    assert_log m 'opened for reading as well'
    [[ ! -e $d/staged ]] || fail "a file without its end was published"
    umount_walefs m
    umount "$T/cache"
}

# ---- names, overwriting, deleting ----

test_names_and_rules()
{
    local d=$T/m/dumps want
    for STORE in file http; do
        use_store "$STORE" "$STORE"
        use_key none
        mount_walefs m
        mkdir "$d/a"
        rmdir "$d/a"
        [[ ! -e $d/a ]] || fail "a directory that was removed is there"
        mkdir -p "$d/a/b c"
        echo 1 >"$d/a/b c/x!1!p!y"
        echo one >"$d/a/one"
        for want in 'key="dumps_005/a/one.lzo"' 'size="4"' 'encrypted="no"' 'codec="lzop"' 'checksum=".+"'; do
            getfattr -d "$d/a/one" 2>/dev/null | grep -Eqx "user\.walefs\.$want" || fail "a/one lacks the attribute $want"
        done
        expect_fail 'not empty' rmdir "$d/a"
        expect_fail 'File exists' cp /etc/passwd "$d/a/one"
        expect_fail 'File exists' bash -c "echo two >'$d/a/one'"
        expect_fail 'not permitted' bash -c "echo two >>'$d/a/one'"
        expect_fail 'not permitted' rm -f "$d/a/one"
        expect_fail 'not permitted' truncate -s 0 "$d/a/one"
        assert_eq "$(cat "$d/a/one")" one "what was not overwritten"
        echo two >"$d/a/new"
        mv "$d/a/new" "$d/a/one"
        assert_eq "$(cat "$d/a/one")" two "what was renamed over"
        [[ ! -e $d/a/new ]] || fail "the old name is there still"
        mv -n "$d/a/one" "$d/a/b c/x!1!p!y"
        assert_eq "$(cat "$d/a/b c/x!1!p!y")" 1 "what must not be replaced"
        mv "$d/a/one" "$d/a/b c/moved"
        # a directory, with what is in it; not onto one that is not empty, nor into itself
        mkdir "$d/z"
        echo z >"$d/z/z"
        expect_fail 'not empty' mv -T "$d/a" "$d/z"
        expect_fail '' mv "$d/a" "$d/a/b c/in"
        mv "$d/a/b c" "$d/z/bc"
        assert_eq "$(cd "$d" && find . | sort | tr '\n' ' ')" ". ./a ./z ./z/bc ./z/bc/moved ./z/bc/x!1!p!y ./z/z " "tree"
        assert_eq "$(cat "$d/z/bc/moved" "$d/z/bc/x!1!p!y")" $'two\n1' "what was moved"
        rmdir "$d/a"
        expect_fail 'Invalid|No such' bash -c "echo >'$d/'\$'a\nb'"
        expect_fail 'File name too long|Invalid|No such' bash -c "echo >'$d/$(printf 'n%.0s' {1..254})'"
        rsync -a "$d/z/" "$T/copy-$STORE/"
        rsync -a "$T/copy-$STORE/" "$d/rsynced/"
        diff -r "$d/z" "$d/rsynced"
        umount_walefs m

        # another mount, with the right to delete, beside a second one
        mount_walefs m allow_delete
        mount_walefs n allow_delete
        assert_eq "$(stat -c '%s' "$d/z/bc/moved")" 4 "size after a move"
        echo other >"$d/z/z"
        wait_for 10 "the other mount to see it" grep -q other "$T/n/dumps/z/z"
        expect_fail '' bash -c "exec >'$d/z/z'; echo broken; exit 1"
        assert_eq "$(cat "$d/z/z")" other "what a failed writer wanted to replace"
        head -c 20000000 /dev/urandom >"$T/r"
        cp "$T/r" "$d/z/z"
        assert_same "$T/r" "$d/z/z"
        wait_for 10 "the other mount to see it" cmp "$T/r" "$T/n/dumps/z/z"
        rm -r "$d/z/bc"
        wait_for 10 "the other mount to see it" bash -c "! test -e '$T/n/dumps/z/bc'"
        rm "$T/n/dumps/z/z"
        rm -r "$d/rsynced"
        assert_eq "$(store_ls dumps_)" "" "what is left"
        umount_walefs n
        umount_walefs m
    done
}

# What others have put there, without facts, plain and encrypted: read once, then known.
test_objects_of_others()
{
    local d=$T/m/dumps
    use_store http
    use_key gpg
    seq 3000000 >"$T/seq"
    lzop -c <"$T/seq" >"$T/o1"
    lzop -c <"$T/seq" | gpg_batch "$GPG_READER" --trust-model always -r "$KEY_ID" -e >"$T/o2"
    store_put "$T/o1" dumps_005/by/hand.lzo
    store_put "$T/o2" dumps_005/by/hand.gpg.lzo
    store_put "$T/o1" dumps_005/stray
    store_put "$T/o1" "dumps_005/by/no.suffix"
    head -c 5000 "$T/o1" >"$T/o3"
    store_put "$T/o3" dumps_005/by/broken.lzo
    mount_walefs m
    assert_eq "$(cd "$d" && find . | sort | tr '\n' ' ')" ". ./by ./by/broken ./by/hand ./by/hand.gpg " "listing"
    for f in hand hand.gpg; do
        assert_eq "$(stat -c %s "$d/by/$f")" "$(stat -c %s "$T/seq")" "size of $f"
        assert_same "$T/seq" "$d/by/$f"
        assert_same <(tail -c 1000000 "$T/seq" | head -c 5000) <(tail -c 1000000 "$d/by/$f" | head -c 5000)
    done
    expect_fail 'Input/output error' cat "$d/by/broken"
    umount_walefs m
    : >"$T/m.log"
    mount_walefs m ro
    assert_eq "$(stat -c %s "$d/by/hand.gpg")" "$(stat -c %s "$T/seq")" "size, from another mount"
    ! grep "is read once" "$T/m.log" | grep -v broken || fail "the sizes were not kept"
    expect_fail 'Read-only|not permitted' bash -c "echo >'$d/x'"
    umount_walefs m
}

# ---- walefs-dump ----

dump_script() # ARGS...: of walefs-dump, before MOUNT
{
    as_pg env "PATH=$PG_BIN:$PATH" "$ROOT/mount/walefs-dump" "$@" "$T/m" -- -h "$T/pg/src" -U postgres >"$T/.said" 2>&1
}

last_line()
{
    tail -n 1 "$T/.said"
}

sets() # prints TIER/TIME of each set
{
    (cd "$T/m/dumps" && find . -mindepth 2 -maxdepth 2 -type d -printf '%P\n' | sort)
}

ODD=$'we"ird \'n\\ame=x/ü'

test_script()
{
    local d=$T/m/dumps day first
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)" allow_delete
    make_source
    pgc psql -d postgres -Xq -v ON_ERROR_STOP=1 -v n="$ODD" -f - <<<'create database :"n" encoding UTF8 template template0;'
    pg_sql src "create database other_db"

    # the first of a month, the first of a week, then one for each day
    for day in 2026-03-01 2026-03-02 2026-03-03 2026-03-04 2026-03-05 2026-03-06; do
        dump_script --now "$day 03:00" --keep-daily 3 --exclude other_db || fail "$(cat "$T/.said")"
        assert_match "$(last_line)" '^walefs-dump: done: 2 databases and the globals' "last line"
    done
    assert_eq "$(sets)" "daily/2026-03-04T03-00-00Z
daily/2026-03-05T03-00-00Z
daily/2026-03-06T03-00-00Z
monthly/2026-03-01T03-00-00Z
weekly/2026-03-02T03-00-00Z" "sets"
    assert_match "$(cat "$T/.said")" 'removed .*/daily/2026-03-03T03-00-00Z' "what was removed"
    first=$d/monthly/2026-03-01T03-00-00Z
    assert_eq "$(cd "$first" && printf '%s ' *)" "contents globals.sql postgres.dump we%22ird%20%27n%5Came%3Dx%2F%C3%BC.dump " "a set"
    assert_match "$(cat "$first/contents")" $'^postgres.dump\t[0-9]+\tok$' "contents"
    restored pgc pg_restore -d again "$first/postgres.dump"
    pgc psql -d postgres -Xqc "drop database again"

    # a week later, a month later; what is not its own stays
    as_pg bash -c "echo mine >'$d/daily/2026-03-04T03-00-00Z/mine'; mkdir '$d/daily/2020-01-01T00-00-00Z'; echo x >'$d/daily/2020-01-01T00-00-00Z/a.dump'"
    for day in 2026-03-09 2026-03-10 2026-04-01; do
        dump_script --now "$day 03:00" --keep-daily 2 --keep-weekly 1 --keep-monthly 1 --read-back || fail "$(cat "$T/.said")"
    done
    assert_eq "$(sets)" "daily/2020-01-01T00-00-00Z
daily/2026-03-04T03-00-00Z
daily/2026-03-06T03-00-00Z
daily/2026-03-10T03-00-00Z
monthly/2026-04-01T03-00-00Z
weekly/2026-03-09T03-00-00Z" "sets after a month"
    assert_eq "$(ls "$d/daily/2026-03-04T03-00-00Z")" mine "what was not made by walefs-dump"
    [[ -e $d/daily/2020-01-01T00-00-00Z/a.dump ]] || fail "a directory of somebody else was emptied"
    umount_walefs m
    no_uploads_left
}

# One database that cannot be dumped: the others are, the status tells, and nothing is removed.
test_script_fails()
{
    local d=$T/m/dumps f
    use_store file
    use_key none
    mount_walefs m "$(pg_mount_opts)"
    make_source
    dump_script --now '2026-03-01 03:00' --keep-monthly 1 || fail "$(cat "$T/.said")"
    pg_sql src "create database bad"
    pgc psql -d bad -Xqc "create table b as select 1 i; checkpoint"
    f=$(pgc psql -d bad -XAtc "select pg_relation_filepath('b')")
    pgc psql -d bad -Xqc "checkpoint"
    pg_stop src
    rm "$(pg_data src)/$f"
    pg_start src
    f=0
    dump_script --now '2026-04-01 03:00' --keep-monthly 1 || f=$?
    assert_eq "$f" 2 "exit status"
    assert_match "$(last_line)" "^walefs-dump: failed: not dumped: database 'bad'" "last line"
    assert_match "$(cat "$T/.said")" "dumped database 'postgres'" "what was dumped"
    assert_eq "$(cd "$d/monthly/2026-04-01T03-00-00Z" && printf '%s ' *)" "contents.failed contents.partial globals.sql postgres.dump " "the set"
    # without the right to delete, what is too old stays, and that is said; with 0 nothing is removed
    f=0
    dump_script --now '2026-05-01 03:00' --keep-monthly 1 --exclude bad || f=$?
    assert_eq "$f" 2 "exit status"
    assert_match "$(last_line)" 'too old stays: .*allow_delete' "last line"
    dump_script --now '2026-06-01 03:00' --keep-monthly 0 --exclude bad || fail "$(cat "$T/.said")"
    # a failed set is removed with the complete ones that are older than the kept ones
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" allow_delete
    dump_script --now '2026-07-01 03:00' --keep-monthly=2 --exclude=bad || fail "$(cat "$T/.said")"
    assert_eq "$(sets)" "monthly/2026-06-01T03-00-00Z
monthly/2026-07-01T03-00-00Z" "sets"
    umount_walefs m
    # nothing to dump from, nothing to dump to
    f=0
    dump_script || f=$?
    assert_eq "$f" 1 "exit status without a mount"
    mount_walefs m "$(pg_mount_opts)" ro
    f=0
    dump_script || f=$?
    assert_eq "$f" 1 "exit status on a read-only mount"
    assert_match "$(last_line)" '^walefs-dump: refused, nothing was dumped' "last line"
    pg_stop src
    f=0
    dump_script || f=$?
    assert_eq "$f" 1 "exit status without a server"
    expect_fail 'refused.*no option' "$ROOT/mount/walefs-dump" --what "$T/m"
    umount_walefs m
}

# "Every database" is what can be connected to and is no template. What an interrupted DROP DATABASE has left
# would make every set fail: it is left out, and named, however the server treats it.
test_script_leaves_out()
{
    use_store file
    use_key none
    mount_walefs m "$(pg_mount_opts)"
    pg_init src
    pg_start src
    pg_sql src "create database good"
    pg_sql src "create database closed allow_connections false"
    pg_sql src "create database pattern is_template true"
    pgc psql -d postgres -Xq -v ON_ERROR_STOP=1 -v n="$ODD" -f - <<<'create database :"n";'
    pg_sql src "create database also_dropped"
    pg_sql src "update pg_database set datconnlimit = -2 where datname ~ '^we' or datname = 'also_dropped'"
    dump_script --now '2026-03-01 03:00' --exclude also_dropped || fail "$(cat "$T/.said")"
    assert_eq "$(cd "$T/m/dumps/monthly/2026-03-01T03-00-00Z" && printf '%s ' *.dump)" "good.dump postgres.dump " "dumps"
    assert_match "$(last_line)" '^walefs-dump: done: 2 databases and the globals' "last line"
    assert_match "$(grep warning "$T/.said" | tr '\n' ' ')" \
        "^walefs-dump: warning: database .*n.*x/.* is left out: .*DROP DATABASE .*interrupted" "warning"
    assert_eq "$(grep -c warning "$T/.said")" 1 "warnings"
    umount_walefs m
}

# The script alone: the programs that it calls are stubs, whose dumps are a line each.
stubs()
{
    local name
    mkdir "$T/bin"
    printf '%s\n' '#!/bin/bash' 'printf "=db\0"' >"$T/bin/psql"
    for name in pg_dump pg_dumpall; do
        cat >"$T/bin/$name" <<'END'
#!/bin/bash
while (($# > 0)); do
    [[ $1 != -f ]] || file=$2
    shift
done
echo "-- PostgreSQL database cluster dump complete" >"$file"
END
    done
    printf '#!/bin/bash\n' >"$T/bin/pg_restore"
    chmod +x "$T"/bin/*
}

stub_dump() # TIME ARGS...: of walefs-dump, before MOUNT
{
    PATH="$T/bin:$PATH" "$ROOT/mount/walefs-dump" --now "$1" "${@:2}" "$T/m" >"$T/.said" 2>&1
}

# A dump is read back: one that pg_restore cannot read, or whose end is missing, is not dumped, whatever
# pg_dump has said.
test_script_verifies()
{
    local rc
    use_store file
    use_key none
    stubs
    export T
    printf '%s\n' '#!/bin/bash' 'printf "=good\0=bad\0"' >"$T/bin/psql"
    # shellcheck disable=SC2016
    printf '%s\n' '#!/bin/bash' 'echo "$*" >>"$T/listed"; [[ $1 == --list ]] && ! grep -q garbage "${@: -1}"' >"$T/bin/pg_restore"
    cat >"$T/bin/pg_dump" <<'END'
#!/bin/bash
while (($# > 0)); do
    [[ $1 != -f ]] || file=$2
    shift
done
case $file in
*/bad.dump) echo garbage >"$file" ;;
*) echo dump >"$file" ;;
esac
END
    mount_walefs m allow_delete
    rc=0
    stub_dump "2026-05-01 02:00" || rc=$?
    assert_eq "$rc" 2 "exit status"
    assert_match "$(last_line)" "failed: not dumped: database 'bad'" "last line"
    assert_match "$(cat "$T/m/dumps/monthly/2026-05-01T02-00-00Z/contents.failed")" $'^good.dump\t5\tok$' "contents"
    assert_match "$(cat "$T/m/dumps/monthly/2026-05-01T02-00-00Z/contents.failed")" $'^bad.dump\t0\tfailed$' "contents"
    assert_eq "$(grep -c -- '--list .*\.dump$' "$T/listed")" 2 "dumps that pg_restore has listed"
    # one that cannot be looked at is no reason to leave the others
    # shellcheck disable=SC2016
    printf '%s\n' '#!/bin/bash' '[[ ${!#} != *good.dump ]] || { echo "stat: cannot statx: Input/output error" >&2; exit 1; }' \
        'exec /usr/bin/stat "$@"' >"$T/bin/stat"
    chmod +x "$T/bin/stat"
    rc=0
    stub_dump "2026-05-02 01:00" || rc=$?
    rm "$T/bin/stat"
    assert_eq "$rc" 2 "exit status"
    assert_match "$(last_line)" "not dumped: database 'good' database 'bad'" "last line"
    assert_eq "$(cut -f1,3 "$T/m/dumps/monthly/2026-05-02T01-00-00Z/contents.failed" | tail -n 3)" \
        $'globals.sql\tok\ngood.dump\tfailed\nbad.dump\tfailed' "contents"
    # the globals, cut off
    sed -i 's/cluster dump complete/cluster dump/' "$T/bin/pg_dumpall"
    rc=0
    stub_dump "2026-05-02 02:00" --exclude bad || rc=$?
    assert_eq "$rc" 2 "exit status"
    assert_match "$(last_line)" "not dumped: the globals" "last line"
    umount_walefs m
}

# A set that failed is none of those that are kept: no complete one goes in its favour.
test_script_counts_complete_sets()
{
    local rc=0
    use_store file
    use_key none
    stubs
    mount_walefs m allow_delete
    stub_dump "2026-05-01 02:00" --keep-monthly 2 || fail "$(cat "$T/.said")"
    printf '%s\n' '#!/bin/bash' 'exit 1' >"$T/bin/pg_restore"
    stub_dump "2026-06-01 02:00" --keep-monthly 2 || rc=$?
    assert_eq "$rc" 2 "exit status"
    printf '%s\n' '#!/bin/bash' >"$T/bin/pg_restore"
    stub_dump "2026-07-01 02:00" --keep-monthly 2 || fail "$(cat "$T/.said")"
    assert_eq "$(sets)" "monthly/2026-05-01T02-00-00Z
monthly/2026-06-01T02-00-00Z
monthly/2026-07-01T02-00-00Z" "sets"
    umount_walefs m
}

# A clock that was ahead, or has gone back: the set of this run stays, and those of the next runs too.
test_script_clock()
{
    local day
    use_store file
    use_key none
    stubs
    mount_walefs m allow_delete
    for day in 2036-05-01 2036-05-02 2036-05-03 2036-05-04; do
        stub_dump "$day 02:00" --keep-daily 2 || fail "$(cat "$T/.said")"
        ! grep future "$T/.said" || fail "a set from the future, where there is none"
    done
    for day in 2026-05-01 2026-05-04 2026-05-05 2026-05-06 2026-05-07; do
        stub_dump "$day 02:00" --keep-daily 2 --keep-weekly 1 --keep-monthly 1 || fail "$(cat "$T/.said")"
        assert_match "$(last_line)" "^walefs-dump: done.*$day" "last line"
        assert_match "$(cat "$T/.said")" "warning: of dumps/monthly, sets from the future are kept.*: 2036-05-01T02" "warning"
        find "$T/m/dumps" -path "*/${day}T*" -name db.dump | grep -q . || fail "the set of $day was removed at once"
    done
    assert_eq "$(sets)" "daily/2026-05-06T02-00-00Z
daily/2026-05-07T02-00-00Z
daily/2036-05-03T02-00-00Z
daily/2036-05-04T02-00-00Z
monthly/2026-05-01T02-00-00Z
monthly/2036-05-01T02-00-00Z
weekly/2026-05-04T02-00-00Z
weekly/2036-05-02T02-00-00Z" "sets"
    # back by a day and by two: what is there is younger than the set that is made
    stub_dump "2026-05-06 01:00" --keep-daily 1 || fail "$(cat "$T/.said")"
    stub_dump "2026-05-05 01:00" --keep-daily 1 || fail "$(cat "$T/.said")"
    [[ -e $T/m/dumps/daily/2026-05-05T01-00-00Z/db.dump ]] || fail "removed the set it has just made"
    [[ -e $T/m/dumps/daily/2026-05-06T01-00-00Z/db.dump ]] || fail "removed a set from the future"
    umount_walefs m
}

# Of an old set only what its list has is removed, also of one whose making was interrupted.
test_script_foreign_files()
{
    local d=$T/m/dumps/daily day old=2026-05-03T02-00-00Z left
    use_store file
    use_key none
    stubs
    mount_walefs m allow_delete
    for day in 01 02 03 04; do
        stub_dump "2026-05-$day 02:00" --keep-daily 1 --keep-weekly 0 || fail "$(cat "$T/.said")"
    done
    [[ -e $d/$old/db.dump ]] || fail "no set of the 3rd"
    left=2026-05-02T03-00-00Z
    mkdir "$d/$left" # killed while it dumped db
    printf '# file\tbytes\tstate\nglobals.sql\t0\tplanned\ndb.dump\t0\tplanned\n../%s/db.dump\t0\tok\n' \
        2026-05-05T02-00-00Z >"$d/$left/contents.partial"
    echo x >"$d/$left/globals.sql"
    echo keep >"$d/$old/before-upgrade.dump"
    echo keep >"$d/$old/contents.mine"
    stub_dump "2026-05-05 02:00" --keep-daily 1 || fail "$(cat "$T/.said")"
    assert_eq "$(find "$d/$old" -mindepth 1 -printf '%f\n' | sort | tr '\n' ' ')" "before-upgrade.dump contents.mine " "what is left of a set with foreign files"
    assert_match "$(cat "$T/.said")" "warning: .*/$old stays: .*before-upgrade.dump, contents.mine" "warning"
    [[ ! -e $d/$left ]] || fail "the interrupted set stays"
    [[ -e $d/2026-05-05T02-00-00Z/db.dump ]] || fail "a list that leads elsewhere was followed"
    umount_walefs m
}

# Killed in the middle: the list of what will be there is there already.
test_script_killed()
{
    local d=$T/m/dumps/monthly/2026-05-01T02-00-00Z
    use_store file
    use_key none
    stubs
    # shellcheck disable=SC2016
    printf '#!/bin/bash\nkill -9 $PPID\n' >"$T/bin/pg_dump"
    mount_walefs m allow_delete
    ! stub_dump "2026-05-01 02:00" || fail "was not killed"
    assert_eq "$(grep -c $'\tplanned$' "$d/contents.partial")" 2 "files that are planned"
    rm "$T/bin/pg_dump"
    cp "$T/bin/pg_dumpall" "$T/bin/pg_dump"
    stub_dump "2026-06-01 02:00" --keep-monthly 1 || fail "$(cat "$T/.said")"
    stub_dump "2026-07-01 02:00" --keep-monthly 1 || fail "$(cat "$T/.said")"
    assert_eq "$(sets)" "monthly/2026-07-01T02-00-00Z" "sets"
    umount_walefs m
}

# What cannot be listed is not empty: else a month would get a second set, which pushes out an older one. As a
# user whom modes bind, in a plain tree: of a directory with 0300 all is possible but to list it.
test_script_needs_listings()
{
    local d=$T/m/dumps set day rc step
    stubs
    pg_dir "$T/m"
    as_pg mkdir -p "$d" "$T/m/wal"
    chmod 755 "$T/bin"
    as_user() # STATUS TIME ARGS...
    {
        rc=0
        as_pg env "PATH=$T/bin:$PATH" "$ROOT/mount/walefs-dump" --now "$2" "${@:3}" "$T/m" >"$T/.said" 2>&1 || rc=$?
        assert_eq "$rc" "$1" "exit status at $2: $(cat "$T/.said")"
    }
    for day in 2026-04-01 2026-05-01 2026-05-04; do
        as_user 0 "$day 02:00"
    done
    set=monthly/2026-05-01T02-00-00Z
    for step in /monthly "/$set" /weekly ""; do
        chmod 300 "$d$step"
        as_user 1 "2026-05-06 02:00" --keep-monthly 2
        assert_match "$(last_line)" "refused, nothing was dumped: .*/dumps$step cannot be listed.*Permission denied" "last line"
        chmod 700 "$d$step"
    done
    # a list that is there, and cannot be looked at
    chmod 600 "$d/$set"
    as_user 0 "2026-05-06 02:00" --keep-monthly 2
    chmod 700 "$d/$set"
    assert_eq "$(sets)" "daily/2026-05-06T02-00-00Z
monthly/2026-04-01T02-00-00Z
$set
weekly/2026-05-04T02-00-00Z" "sets"
    # later, when it is about what is too old
    sed -i "2i chmod 300 '$d/daily'" "$T/bin/pg_dump"
    as_user 2 "2026-05-07 02:00" --keep-daily 1
    chmod 700 "$d/daily"
    assert_match "$(last_line)" "failed: .*/dumps/daily cannot be listed.*; everything was dumped to .*/daily/2026-05-07" "last line"
    [[ -e $d/daily/2026-05-07T02-00-00Z/contents ]] || fail "the set is not complete"
    assert_eq "$(sets | grep -c daily)" 2 "daily sets"
}

# The list of a set stays as long as anything that it lists does, also when a file cannot be removed.
test_script_removes_lists_last()
{
    local day rc=0
    use_store file
    use_key none
    stubs
    mount_walefs m allow_delete
    for day in 2026-05-01 2026-05-04 2026-05-05; do
        stub_dump "$day 02:00" --keep-daily 1 || fail "$(cat "$T/.said")"
    done
    cat >"$T/bin/rm" <<'END'
#!/bin/bash
for arg; do
    [[ $arg != db.dump ]] || { bad=1 && continue; }
    args+=("$arg")
done
/bin/rm "${args[@]}"
[[ -z $bad ]] || { echo "rm: cannot remove 'db.dump': Input/output error" >&2 && exit 1; }
END
    chmod +x "$T/bin/rm"
    stub_dump "2026-05-06 02:00" --keep-daily 1 || rc=$?
    assert_eq "$rc" 2 "exit status"
    assert_match "$(last_line)" "too old stays: rm: cannot remove 'db.dump': Input/output error" "last line"
    rm "$T/bin/rm"
    stub_dump "2026-05-07 02:00" --keep-daily 1 || fail "$(cat "$T/.said")"
    assert_eq "$(sets | grep daily)" "daily/2026-05-07T02-00-00Z" "daily sets"
    umount_walefs m
}

# A second run for the same mount, by whatever path, does nothing; the next one does.
test_script_twice()
{
    local pid rc=0
    use_store file
    use_key none
    stubs
    # shellcheck disable=SC2016
    sed -i '2i touch "$T/begun"; while [[ ! -e $T/go ]]; do sleep 0.1; done' "$T/bin/pg_dump"
    export T
    mount_walefs m
    ln -s m "$T/link"
    stub_dump "2026-05-01 02:00" &
    pid=$!
    wait_for 30 "the first to dump" test -e "$T/begun"
    PATH="$T/bin:$PATH" timeout 20 "$ROOT/mount/walefs-dump" --now "2026-05-02 02:00" "$T/link" >"$T/second" 2>&1 || rc=$?
    assert_eq "$rc" 1 "exit status of the second"
    assert_match "$(cat "$T/second")" 'refused, nothing was dumped: another walefs-dump for .* is running' "the second"
    touch "$T/go"
    wait "$pid" || fail "$(cat "$T/.said")"
    assert_eq "$(sets)" "monthly/2026-05-01T02-00-00Z" "sets"
    stub_dump "2026-05-02 02:00" || fail "$(cat "$T/.said")"
    umount_walefs m
}
