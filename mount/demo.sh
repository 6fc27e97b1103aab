#!/bin/bash
# Shows walefs at work (make demo): a throw-away PostgreSQL archives into an encrypted archive with
# cp, is backed up into it with pg_basebackup, loses its data directory, and is restored with
# walefs-restore: to the last commit, and to a point in time.
#
# Everything happens in one new directory below /tmp and is gone afterwards. No other cluster, key
# ring or archive is touched. As root it also installs the packages that are missing.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WALEFS=${WALEFS:-$ROOT/build/walefs}
# shellcheck source-path=SCRIPTDIR source=../tests/lib/common.sh
source "$ROOT/tests/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=../tests/lib/pg.sh
source "$ROOT/tests/lib/pg.sh"

step()
{
    printf '\n==> %s\n' "$*"
}

say()
{
    printf '    %s\n' "$*"
}

rows()
{
    pg_sql "$1" "select count(*) from orders"
}

indent()
{
    sed 's/^/    /'
}

# A cluster NAME from the archive, started, with recovery at its end.
restore() # NAME OPTIONS...
{
    local name=$1
    shift
    pg_home "$name"
    say "walefs-restore --start ${*@Q}${1:+ }$T/mnt $(pg_data "$name")"
    "$ROOT/mount/walefs-restore" --bindir "$PG_BIN" --start \
        --start-options "-c unix_socket_directories='$T/pg/$name'" "$@" "$T/mnt" "$(pg_data "$name")" 2>&1 |
        indent
    wait_for 90 "the end of recovery" pg_true "$name" "not pg_is_in_recovery()"
}

report=()
compare() # WHAT WANTED GOT
{
    local verdict=same
    [[ $2 == "$3" ]] || verdict=DIFFERENT
    report+=("$(printf '%-46s %9s %9s   %s' "$1" "$2" "$3" "$verdict")")
    say "$1: $3 rows, wanted $2"
}

demo()
{
    local m=$T/mnt base last mistake moment object seg i

    step "A key pair; its secret part has a passphrase"
    new_key "$T/gnupg" archive@example.com "a passphrase for the demo"
    (umask 077 && echo "a passphrase for the demo" >"$T/passphrase")
    gpgconf --homedir "$T/gnupg" --kill gpg-agent
    say "key $KEY_ID"

    step "An empty archive in a directory, mounted"
    mkdir "$T/archive" "$m"
    SOURCE=file://localhost$T/archive
    KEY_OPTS=gpg_home=$T/gnupg,gpg_key=$KEY_ID,passphrase_file=$T/passphrase
    mount_walefs mnt "$(pg_mount_opts)"
    say "walefs -o gpg_home=...,gpg_key=...,passphrase_file=... $SOURCE $m"
    say "$m shows: $(ls -x "$m")"

    step "A PostgreSQL that archives with cp ($("$PG_BIN/postgres" --version), run as $PG_OS_USER)"
    pg_init main
    pg_archive_with main "cp %p $m/wal/%f"
    pg_start main
    say "archive_command = 'cp %p $m/wal/%f'"
    pg_sql main "create table orders as
        select i as id, now() as at, md5(i::text) as note from generate_series(1, 100000) i"
    say "$(rows main) rows"

    step "A base backup: pg_basebackup into the mount"
    say "pg_basebackup -D $m/basebackups/sunday -Ft -X none -c fast"
    as_pg "$PG_BIN/pg_basebackup" -h "$T/pg/main" -U postgres -D "$m/basebackups/sunday" -Ft -X none -c fast \
        2>&1 | indent
    find "$m/basebackups" -mindepth 1 -maxdepth 1 -printf '%f %l\n' | sort | indent
    base=$(readlink "$m/basebackups/sunday")
    say "$(find "$m/basebackups/sunday/pgdata/" -type f | wc -l) files in pgdata/;" \
        "pg_verifybackup says: $(as_pg "$PG_BIN/pg_verifybackup" -n "$m/basebackups/sunday/pgdata")"

    step "Work goes on"
    for i in 1 2 3; do
        pg_sql main "insert into orders select i, now(), md5(i::text)
            from generate_series(${i}00001, ${i}00000 + 60000) i"
        say "$(rows main) rows, WAL at $(pg_sql main "select pg_current_wal_lsn()")"
    done
    mistake=$(rows main)
    moment=$(pg_sql main "select clock_timestamp()")
    sleep 1
    pg_sql main "delete from orders where id % 3 = 0"
    pg_sql main "insert into orders values (0, now(), 'the last order')"
    last=$(rows main)
    say "after $moment a third is deleted by mistake, and one order comes in: $last rows"
    seg=$(pg_archive_all main)
    say "archived up to $seg, failures: $(pg_sql main "select failed_count from pg_stat_archiver")"

    step "What the mount shows, and what lies in the archive"
    find "$m/wal" -type f -printf '    %f  %9s bytes\n' | sort | tail -n 3
    find "$T/archive/wal_005" -type f -printf '    %f  %9s bytes\n' | sort | tail -n 3
    object=$T/archive/wal_005/$seg.lzo
    say "the first bytes of $seg.lzo:"
    head -c 48 "$object" | od -An -tx1 -c | head -n 6 | sed 's/^/    /'
    say "gpg says:"
    gpg_batch "$T/gnupg" --passphrase-file "$T/passphrase" --list-packets <"$object" 2>/dev/null |
        grep -E '^:(pubkey enc|encrypted|aead)|mdc_method' | sed 's/^/    /'
    for object in "$T"/archive/wal_005/*.lzo "$T/archive/basebackups_005/$base"/tar_partitions/*.lzo; do
        gpg_batch "$T/gnupg" --list-packets --list-only <"$object" 2>/dev/null |
            grep -q '^:pubkey enc packet' || fail "$object is not encrypted"
    done
    say "all $(find "$T/archive" -name '*.lzo' | wc -l) objects with data are encrypted to the key"

    step "Disaster: the server is killed and its data directory deleted"
    pg_stop main immediate
    rm -rf "$(pg_data main)"
    umount_walefs mnt
    mount_walefs mnt "$(pg_mount_opts)"

    step "Restored to the last commit, into the same place"
    restore main
    compare "to the last commit" "$last" "$(rows main)"
    say "the last order: $(pg_sql main "select note from orders where id = 0")"
    pg_stop main

    step "Restored once more, to the moment before the mistake"
    restore past --target-time "$moment" --target-action promote --target-timeline current
    compare "to the moment before the mistake" "$mistake" "$(rows past)"
    pg_stop past

    umount_walefs mnt

    step "Result"
    printf '    %-46s %9s %9s\n' "restored" "rows then" "rows now"
    printf '    %s\n' "${report[@]}"
    [[ ${report[*]} != *DIFFERENT* ]] || fail "rows are missing"
}

if [[ ${1:-} == --inner ]]; then
    cd "$T"
    pg_find
    demo
    exit 0
fi

started=$SECONDS
step "Packages"
need=$("$ROOT/tests/lib/packages.sh" missing demo)
say "missing: ${need:-none}"
"$ROOT/tests/lib/packages.sh" ensure demo

step "Build"
make -s -C "$ROOT" -j2 all
say "$("$WALEFS" --version)"
[[ -c /dev/fuse ]] || fail "/dev/fuse is missing: nothing can be mounted here"

T=$(mktemp -d /tmp/walefs-demo.XXXXXX)
mark=${T##*/}
finish()
{
    trap '' INT TERM HUP
    sweep "$T" "$mark"
    rm -rf --one-file-system "$T"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP
chmod 711 "$T"
mkdir "$T/home"

rc=0
env -i PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$T/home" \
    LC_ALL=C.UTF-8 WALEFS="$WALEFS" T="$T" WALEFS_TEST_MARK="$mark" \
    bash "${BASH_SOURCE[0]}" --inner || rc=$?
if [[ $rc != 0 && -s $T/mnt.log ]]; then
    echo "    the end of walefs' log:"
    tail -n 20 "$T/mnt.log" | sed 's/^/    | /'
fi
printf '\n%s after %d s.\n' "$([[ $rc == 0 ]] && echo Done || echo Failed)" $((SECONDS - started))
[[ $rc == 0 ]]
