# shellcheck shell=bash
# Archiving one segment: cp into the mount, against lzop | gpg | curl PUT into the same store.

put_pipeline() # FILE KEY
{
    if [[ -n $KEY_OPTS ]]; then
        lzop -c "$1" | gpg --batch -q --homedir "$GPG_READER" --trust-model always -e -z 0 \
            -r "$KEY_ID" >"$T/coded"
    else
        lzop -c "$1" >"$T/coded"
    fi
    # S3 wants to know the length beforehand, hence the file.
    s3_curl -o /dev/null -T "$T/coded" "$(s3_url "$2")"
}

archive_in_turn() # STORE KEY ROUNDS
{
    local i seg cp=() pipe=()
    use_store "$1" "$1-$2"
    use_key "$2"
    mount_walefs "m-$2"
    for ((i = 0; i <= $3; i++)); do
        seg=${SEGMENTS[i + 25]}
        if ((i % 2)); then
            cp[i]=$(timed cp "$WAL/$seg" "$T/m-$2/wal/$seg")
            pipe[i]=$(timed put_pipeline "$WAL/$seg" "pipe/$seg.lzo")
        else
            pipe[i]=$(timed put_pipeline "$WAL/$seg" "pipe/$seg.lzo")
            cp[i]=$(timed cp "$WAL/$seg" "$T/m-$2/wal/$seg")
        fi
    done
    # The first round warms both up.
    unset 'cp[0]' 'pipe[0]'
    printf '%-34s %9s %9s %9s   %s\n' "archive 1 segment, ${2/none/plain}" "$(median "${cp[@]}") ms" \
        "$(median "${pipe[@]}") ms" "$(ratio "$(median "${cp[@]}")" "$(median "${pipe[@]}")")" "wanted: <= 1"
    umount_walefs "m-$2"
    rm -rf "$T/gpg"
}

bench()
{
    note "one 16 MiB segment of WAL of a working pgbench; medians of 15 alternating runs"
    printf '%-34s %9s %9s %9s\n' "" "cp" "pipeline" "ratio"
    archive_in_turn http none 15
    archive_in_turn http gpg 15
}
