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
        ! s3_curl "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET?prefix=${STORE_PREFIX//\//%2F}&uploads=" |
            grep -q '<UploadId>' || fail "a multipart upload was left behind"
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
