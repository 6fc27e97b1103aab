# shellcheck shell=bash
# Base backups: pg_basebackup into the mount, against pg_basebackup | lzop | gpg to nowhere; and
# restoring one, against curl | gpg | lzop | tar of the same partitions one after the other.

make_pgbench()
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
