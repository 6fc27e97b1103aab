# shellcheck shell=bash
# Restoring 40 consecutive segments: cp out of the mount, against cp of the same files from a local
# directory. Each run begins with a fresh mount, so that nothing is cached.

copy_all() # FROM [PAUSE]: 40 segments one after the other; with a PAUSE, the time within cp only
{
    local i t0 sum=0
    for ((i = 0; i < 40; i++)); do
        t0=$(now_ms)
        cp "$1/${SEGMENTS[i]}" "$T/out/"
        sum=$((sum + $(now_ms) - t0))
        [[ -z ${2:-} ]] || sleep "$2"
    done
    echo "$sum"
}

# As a local archive is that was written long ago.
forget_local()
{
    local f
    sync -f "$WAL"
    for f in "$WAL"/*; do
        dd if="$f" iflag=nocache count=0 status=none
    done
}

# The target is empty each time, as in recovery.
clear_out()
{
    rm -rf "$T/out"
    mkdir "$T/out"
    settle
}

restore_in_turn() # STORE KEY RUNS
{
    local i fs=() disk=() cold=() paused
    use_store "$1" "restore-$1-$2"
    use_key "$2"
    mount_walefs m
    for ((i = 0; i < 40; i++)); do
        cp "$WAL/${SEGMENTS[i]}" "$T/m/wal/"
    done
    umount_walefs m
    for ((i = 0; i < $3; i++)); do
        clear_out
        forget_local
        cold[i]=$(copy_all "$WAL")
        clear_out
        disk[i]=$(copy_all "$WAL")
        clear_out
        mount_walefs m
        fs[i]=$(copy_all "$T/m/wal")
        umount_walefs m
    done
    diff -r "$T/out" "$WAL" | grep -v "^Only in $WAL" && fail "wrong content"
    clear_out
    mount_walefs m
    paused=$(copy_all "$T/m/wal" 0.2)
    umount_walefs m
    printf '%-34s %9s %9s %9s   %s\n' "restore 40 segments, ${2/none/plain}" "$(median "${fs[@]}") ms" \
        "$(median "${disk[@]}") ms" "$(ratio "$(median "${fs[@]}")" "$(median "${disk[@]}")")" "wanted: <= 2"
    printf '%-34s %9s %9s %9s\n' "  local files not in the page cache" "" "$(median "${cold[@]}") ms" \
        "$(ratio "$(median "${fs[@]}")" "$(median "${cold[@]}")")" \
        "  with replay of 200 ms between" "$paused ms" "" "$(ratio "$paused" "$(median "${disk[@]}")")"
    rm -rf "$T/gpg" "$T/out"
}

bench()
{
    note "40 segments of pgbench's WAL; medians of 3 alternating runs; local files are in the page cache"
    printf '%-34s %9s %9s %9s\n' "" "mount" "local" "ratio"
    restore_in_turn http none 3
    restore_in_turn http gpg 3
}
