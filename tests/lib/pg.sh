# shellcheck shell=bash
# Throw-away PostgreSQL clusters below $T/pg, reachable by a socket in their own directory only.
# Needs common.sh. As root they run as the unprivileged user PG_OS_USER. Only functions.

# Sets PG_BIN (the newest server's programs) and PG_OS_USER.
pg_find()
{
    PG_BIN=$(find /usr/lib/postgresql/*/bin -maxdepth 1 -name initdb -printf '%h\n' 2>/dev/null |
        sort -V | tail -n 1)
    [[ -n $PG_BIN ]] || PG_BIN=$(pg_config --bindir)
    [[ -x $PG_BIN/initdb ]] || fail "no PostgreSQL server is installed"
    PG_OS_USER=$(id -un)
    if [[ $(id -u) == 0 ]]; then
        PG_OS_USER=nobody
        ! getent passwd postgres >/dev/null || PG_OS_USER=postgres
    fi
}

as_pg()
{
    if [[ $(id -u) == 0 ]]; then
        runuser -u "$PG_OS_USER" -- "$@"
    else
        "$@"
    fi
}

pg_data()
{
    echo "$T/pg/$1/data"
}

# A directory of PostgreSQL's user.
pg_dir() # DIR
{
    mkdir -p "$1"
    chmod 700 "$1"
    [[ $(id -u) != 0 ]] || chown "$PG_OS_USER:" "$1"
}

pg_home() # NAME: the cluster's directory and log
{
    mkdir -p "$T/pg"
    pg_dir "$T/pg/$1"
    : >>"$T/$1.pg.log"
    [[ $(id -u) != 0 ]] || chown "$PG_OS_USER:" "$T/$1.pg.log"
}

pg_init() # NAME [INITDB-OPTIONS...]
{
    pg_home "$1"
    as_pg "$PG_BIN/initdb" -D "$(pg_data "$1")" -A trust -U postgres -E UTF8 --locale=C --no-sync \
        "${@:2}" >"$T/$1.initdb.log" 2>&1 || fail "initdb failed: $(tail -n 3 "$T/$1.initdb.log")"
    rm "$T/$1.initdb.log"
    pg_conf "$1" "listen_addresses = ''" "shared_buffers = 32MB" "fsync = off" \
        "max_wal_senders = 4" "log_line_prefix = '%m [%p] '" "wal_keep_size = 1GB" \
        "max_wal_size = 2GB" "autovacuum = off"
}

pg_conf() # NAME LINE...
{
    printf '%s\n' "${@:2}" >>"$(pg_data "$1")/postgresql.conf"
}

pg_start() # NAME [SECONDS]
{
    as_pg "$PG_BIN/pg_ctl" -D "$(pg_data "$1")" -w -t "${2:-90}" -l "$T/$1.pg.log" \
        -o "-c unix_socket_directories='$T/pg/$1'" start >/dev/null </dev/null ||
        fail "cluster $1 does not start: $(tail -n 5 "$T/$1.pg.log")"
}

pg_stop() # NAME [MODE]
{
    as_pg "$PG_BIN/pg_ctl" -D "$(pg_data "$1")" -w -t 60 -m "${2:-fast}" stop >/dev/null ||
        fail "cluster $1 does not stop"
}

pg_sql() # NAME SQL
{
    as_pg "$PG_BIN/psql" -h "$T/pg/$1" -U postgres -d postgres -XAtq -v ON_ERROR_STOP=1 -c "$2"
}

pg_true() # NAME CONDITION
{
    [[ $(pg_sql "$1" "select ($2)") == t ]]
}

pg_archive_with() # NAME COMMAND
{
    pg_conf "$1" "archive_mode = on" "archive_command = '$2'"
}

# A cluster that archives into the tree at MNT and has an empty table t, and a copy of it: $T/base.
pg_init_with_base() # NAME MNT [INITDB-OPTIONS...]
{
    pg_init "$1" "${@:3}"
    pg_archive_with "$1" "cp %p $2/wal/%f"
    pg_start "$1"
    pg_sql "$1" "create table t (i int)"
    pg_stop "$1"
    cp -a "$(pg_data "$1")" "$T/base"
    pg_start "$1"
}

# Closes the current segment and waits until it is archived. Prints its name.
pg_archive_all() # NAME [SECONDS]
{
    local seg
    seg=$(pg_sql "$1" "select pg_walfile_name(pg_switch_wal())")
    wait_for "${2:-60}" "$seg to be archived" \
        pg_true "$1" "(select last_archived_wal from pg_stat_archiver) >= '$seg'"
    echo "$seg"
}

# A cluster NAME made of the data directory BASE that recovers from the archive at MNT.
pg_recover() # NAME BASE MNT [CONF-LINE...]
{
    pg_home "$1"
    cp -a "$2" "$(pg_data "$1")"
    pg_conf "$1" "restore_command = 'test -d $3/wal || exit 255; cp $3/wal/%f %p'" "${@:4}"
    as_pg touch "$(pg_data "$1")/recovery.signal"
    pg_start "$1"
    wait_for 90 "the end of recovery" pg_true "$1" "not pg_is_in_recovery()"
}

# Tablespaces of these names, each in $T/ts/TABLESPACE.
pg_tablespaces() # NAME TABLESPACE...
{
    local ts
    pg_dir "$T/ts"
    for ts in "${@:2}"; do
        as_pg mkdir "$T/ts/$ts"
        pg_sql "$1" "create tablespace $ts location '$T/ts/$ts'"
    done
}

pg_backup() # NAME DIR [PG_BASEBACKUP-OPTIONS...]
{
    as_pg "$PG_BIN/pg_basebackup" -h "$T/pg/$1" -U postgres -c fast -D "$2" "${@:3}"
}

# The pg_basebackup into DIR dies at once, as the machine's memory or an operator ends it; WRITER is the
# job of this shell that has started it.
pg_kill_basebackup() # DIR WRITER
{
    kill -9 "$(pgrep -f "pg_basebackup.*$1" | tail -n 1)"
    wait "$2" || true
}
