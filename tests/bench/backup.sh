# shellcheck shell=bash
# Base backups: pg_basebackup into the mount, against pg_basebackup | lzop | gpg to nowhere; and
# restoring one, against curl | gpg | lzop | tar of the same partitions one after the other.

make_pgbench()
{
    pg_init big
    pg_conf big "max_wal_senders = 4" "synchronous_commit = off"
    pg_start big
    as_pg "$PG_BIN/pgbench" -h "$T/pg/big" -U postgres -i -q -s "${BENCH_SCALE:-40}" postgres \
        >"$T/pgbench.log" 2>&1
    pg_sql big checkpoint
}

# pgbench pads its rows with blanks, so that they shrink to a tenth. Of these, two thirds stay.
make_mixed()
{
    pg_sql big "drop table pgbench_accounts"
    pg_sql big "create table mixed as select i, md5(i::text) as a, md5((7 * i)::text) as b, now() as t
        from generate_series(1, ${BENCH_SCALE:-40} * 120000) as i"
    pg_sql big checkpoint
}

take() # DIR OPTIONS...
{
    pg_backup big "$@" -Ft -X none 2>"$T/said" || fail "pg_basebackup: $(cat "$T/said")"
}

code() # what the pipelines code with
{
    if [[ -n $KEY_OPTS ]]; then
        lzop -c | gpg --batch -q --homedir "$GPG_READER" --trust-model always -e -z 0 -r "$KEY_ID"
    else
        lzop -c
    fi
}

decode()
{
    if [[ -n $KEY_OPTS ]]; then
        gpg --batch -q --homedir "$GPG_READER" -d | lzop -dc
    else
        lzop -dc
    fi
}

take_to_nowhere()
{
    take - | code >/dev/null
}

clear_target()
{
    rm -rf "$T/out"
    mkdir "$T/out"
    settle
}

by_pipeline()
{
    local key
    for key in "${PARTITIONS[@]}"; do
        s3_curl "$(s3_url "$key")" | decode | tar -C "$T/out" -xpf -
    done
}

by_cp()
{
    cp -a "$T/m/basebackups/LATEST/pgdata/." "$T/out/"
}

by_two()
{
    find "$T/m/basebackups/LATEST/tar/" -type f -print0 | sort -z |
        xargs -0 -P 2 -n 1 tar -C "$T/out" -xpf
}

by_script()
{
    "$ROOT/mount/walefs-restore" --quiet --no-sync --bindir "$PG_BIN" -j 2 --force "$T/m" "$T/out" >"$T/said" 2>&1 || fail "$(tail -n 1 "$T/said")"
}

restore_with() # FUNCTION: milliseconds, with a fresh mount
{
    clear_target
    mount_walefs m "$(pg_mount_opts)"
    timed "$1"
    peak_of m
    umount_walefs m
}

peak_of() # MOUNT
{
    local kib
    kib=$(awk '/^VmHWM:/ { print $2 }' "/proc/${MOUNT_PID[$1]}/status")
    echo "$kib" >>"$T/peaks"
}

line() # WHAT OURS THEIRS WANTED
{
    printf '%-34s %9s %9s %9s   %s\n' "$1" "$2 ms" "$3 ms" "$(ratio "$2" "$3")" "$4"
}

backups_in_turn() # STORE KEY ROUNDS
{
    local i what=${2/none/plain} into=() nowhere=() pipe=() cp=() two=() script=()
    use_store "$1" "backup-$DATA-$2"
    use_key "$2"
    : >"$T/peaks"
    for ((i = 0; i < $3; i++)); do
        mount_walefs m "$(pg_mount_opts)"
        pg_sql big "select pg_switch_wal()" >/dev/null
        settle
        into[i]=$(timed take "$T/m/basebackups/b$i")
        peak_of m
        umount_walefs m
        settle
        nowhere[i]=$(timed take_to_nowhere)
    done
    line "pg_basebackup, $what" "$(median "${into[@]}")" "$(median "${nowhere[@]}")" "wanted: <= 1"

    mount_walefs m "$(pg_mount_opts)"
    mapfile -t PARTITIONS < <(store_ls "basebackups_005/$(readlink "$T/m/basebackups/LATEST")/tar_partitions/part_" | sort)
    umount_walefs m
    for ((i = 0; i < $3; i++)); do
        clear_target
        pipe[i]=$(timed by_pipeline)
        [[ $i != 0 ]] || mv "$T/out" "$T/want"
        cp[i]=$(restore_with by_cp)
        [[ $i != 0 ]] || diff -r "$T/want" "$T/out"
        two[i]=$(restore_with by_two)
        [[ $i != 0 ]] || diff -r "$T/want" "$T/out"
        rm -rf "$T/want"
        script[i]=$(restore_with by_script)
    done
    line "restore by cp -a, $what" "$(median "${cp[@]}")" "$(median "${pipe[@]}")" "wanted: <= 1"
    line "restore by two tar, $what" "$(median "${two[@]}")" "$(median "${pipe[@]}")" "wanted: < 1"
    line "restore by walefs-restore, $what" "$(median "${script[@]}")" "$(median "${pipe[@]}")" ""
    printf '%-34s %9s   %s\n' "  peak memory of walefs" \
        "$(sort -n "$T/peaks" | tail -n 1 | awk '{ printf "%.0f MiB", $1 / 1024 }')" "wanted: < 300 MiB"
    rm -rf "$T/gpg" "$T/out"
}

bench()
{
    local DATA
    for DATA in pgbench mixed; do
        "make_$DATA"
        note "base backups of $(du -sh "$(pg_data big)/base" | cut -f1) of $DATA data; medians of 3 alternating runs"
        printf '%-34s %9s %9s %9s\n' "" "mount" "pipeline" "ratio"
        backups_in_turn http none 3
        backups_in_turn http gpg 3
    done
    pg_stop big
}
