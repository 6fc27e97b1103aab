# shellcheck shell=bash
# Resident memory: idle, and while 8 segments are written and 8 read at once.

peak_kib() # PID: the highest since the last reset
{
    awk '/^VmHWM:/ { print $2 }' "/proc/$1/status"
}

crowd() # KEY
{
    local i pid kib fs idle gpg gpg_peak=0 busy pids=()
    use_store http "memory-$1"
    use_key "$1"
    mount_walefs m
    for i in {0..7}; do
        cp "$WAL/${SEGMENTS[i]}" "$T/m/wal/"
    done
    umount_walefs m
    mount_walefs m
    fs=${MOUNT_PID[m]}
    sleep 1
    idle=$(rss_kib "$fs")
    echo 5 >"/proc/$fs/clear_refs"
    for i in {0..7}; do
        cat "$T/m/wal/${SEGMENTS[i]}" >/dev/null &
        pids+=($!)
        cp "$WAL/${SEGMENTS[i + 8]}" "$T/m/wal/" &
        pids+=($!)
    done
    busy=1
    while ((busy)); do
        gpg=0
        for pid in $(marked_running gpg); do
            kib=$(rss_kib "$pid" 2>/dev/null || true)
            gpg=$((gpg + ${kib:-0}))
        done
        ((gpg <= gpg_peak)) || gpg_peak=$gpg
        busy=0
        for pid in "${pids[@]}"; do
            ! alive "$pid" || busy=1
        done
    done
    for pid in "${pids[@]}"; do
        reap_child "$pid" 60 "a reader or writer" || fail "a reader or writer failed"
    done
    printf '%-34s %7s MiB  %s\n' "idle, ${1/none/plain}" "$(ratio "$idle" 1024)" "wanted: < 20" \
        "8 written and 8 read, ${1/none/plain}" "$(ratio "$(peak_kib "$fs")" 1024)" "wanted: < 250" \
        "  its gpg processes together" "$(ratio "$gpg_peak" 1024)" "" \
        "  afterwards, after 5 s" "$(sleep 5 && ratio "$(rss_kib "$fs")" 1024)" ""
    umount_walefs m
    rm -rf "$T/gpg"
}

bench()
{
    note "resident memory of walefs, segments of 16 MiB"
    crowd none
    crowd gpg
}
