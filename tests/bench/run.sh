#!/bin/bash
# Measures walefs on this machine (make bench): each figure as a ratio of two things done in turn, on
# radosgw at 127.0.0.1. `tests/bench/run.sh archive` (restore, backup, memory) measures only that.
set -euo pipefail
shopt -s inherit_errexit

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WALEFS=${WALEFS:-$ROOT/build/walefs}
# shellcheck source-path=SCRIPTDIR source=../lib/common.sh
source "$ROOT/tests/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=../lib/pg.sh
source "$ROOT/tests/lib/pg.sh"

# ---- one benchmark, in a process of its own -----------------------------------------------------

# Milliseconds that CMD takes.
timed()
{
    local t0
    t0=$(now_ms)
    "$@"
    echo $(($(now_ms) - t0))
}

# Brings the machine into one state before each measured run: nothing waits for the disk, and free
# memory is backed (a virtual machine gives it back to its host, and touching it again is slow).
settle()
{
    sync
    head -c 2500M /dev/zero >/dev/shm/walefs-bench
    rm /dev/shm/walefs-bench
}

median() # NUMBER...
{
    printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}

ratio() # A B
{
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'
}

# Real WAL: the segments of a throw-away cluster on which pgbench makes its tables and works a while.
# They are in $WAL, their names in SEGMENTS.
make_wal()
{
    WAL=$RUN/wal
    if [[ ! -d $WAL ]]; then
        note "making WAL with pgbench"
        pg_init gen
        pg_conf gen "wal_keep_size = 4GB" "max_wal_size = 4GB" "synchronous_commit = off"
        pg_start gen
        pgbench_gen -i -q -s 20
        # Work after a checkpoint writes full pages, as it does between two real ones.
        while (($(find "$(pg_data gen)/pg_wal" -maxdepth 1 -type f -size 16M | wc -l) < 50)); do
            pg_sql gen checkpoint
            pgbench_gen -c 2 -t 5000
        done
        pg_sql gen "select pg_switch_wal()" >/dev/null
        pg_stop gen
        mkdir "$WAL.new"
        find "$(pg_data gen)/pg_wal" -maxdepth 1 -type f -size 16M | sort | head -n 45 |
            xargs -I{} cp {} "$WAL.new/"
        mv "$WAL.new" "$WAL"
        rm -rf "$T/pg"
    fi
    # shellcheck disable=SC2034
    mapfile -t SEGMENTS < <(find "$WAL" -type f -printf '%f\n' | sort)
}

pgbench_gen()
{
    as_pg "$PG_BIN/pgbench" -h "$T/pg/gen" -U postgres "$@" postgres >>"$T/pgbench.log" 2>&1
}

if [[ ${1:-} == --inner ]]; then
    # shellcheck disable=SC1090
    source "$ROOT/tests/bench/$2.sh"
    cd "$T"
    pg_find
    make_wal
    bench
    exit 0
fi

# ---- the run ------------------------------------------------------------------------------------

[[ -x $WALEFS ]] || fail "$WALEFS is missing: run make"
RUN=$(mktemp -d /tmp/walefs-bench.XXXXXX)
chmod 711 "$RUN"
mark=${RUN##*/}

finish()
{
    trap '' INT TERM HUP
    sweep "$RUN" "$mark"
    "$ROOT/tests/lib/radosgw.sh" stop "$RUN/s3" >/dev/null 2>&1 || true
    sweep "$RUN" "$mark-s3"
    rm -rf --one-file-system "$RUN"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

mkdir "$RUN/s3"
if ! env WALEFS_TEST_MARK="$mark-s3" "$ROOT/tests/lib/radosgw.sh" start "$RUN/s3" >"$RUN/s3.log" 2>&1; then
    tail -n 20 "$RUN/s3.log" >&2
    fail "radosgw does not start"
fi
(
    set -a
    # shellcheck disable=SC1091
    source "$RUN/s3/env"
    env | grep -E '^(WALEFS_TEST_(ENDPOINT|ENDPOINT_TLS|CA|BUCKET)|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|REGION))='
) >"$RUN/s3.vars"
mapfile -t vars <"$RUN/s3.vars"

echo "# $(nproc) cores, $(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(date -u +%F)"
[[ $# != 0 ]] || set -- archive restore backup memory
for name in "$@"; do
    mkdir -p "$RUN/$name/home"
    chmod 711 "$RUN/$name"
    env -i PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$RUN/$name/home" \
        LC_ALL=C.UTF-8 ROOT="$ROOT" WALEFS="$WALEFS" RUN="$RUN" T="$RUN/$name" \
        WALEFS_TEST_MARK="$mark" "${vars[@]}" bash "${BASH_SOURCE[0]}" --inner "$name" </dev/null
    sweep "$RUN/$name" "$mark"
    rm -rf --one-file-system "${RUN:?}/$name"
done
