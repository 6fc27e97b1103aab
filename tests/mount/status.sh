# shellcheck shell=bash disable=SC2034
# status/ and the extended attributes: what they say is what was done, it comes in time, and no secret
# is in it.
NEEDS_S3=1
TIME_LIMIT=240
A=000000010000000000000005
B=000000010000000000000006
C=000000010000000000000007
PASSPHRASE='correct horse battery staple'

field() # FILE LINE COLUMN
{
    sed -n "$2p" "$1" | cut -f "$3"
}

metric() # SERIES
{
    local value
    value=$(awk -v s="$1 " 'index($0, s) == 1 { print substr($0, length(s) + 1) }' "$T/m/status/metrics")
    [[ -n $value && $value != *$'\n'* ]] || fail "not one metric $1: $value"
    echo "$value"
}

# In whole seconds of patience: what status/ promises is 2 s, and a busy machine needs some more.
answers() # FILE OUT
{
    timeout 10 cat "$T/m/status/$1" >"$2" || fail "status/$1 is not answered in time"
}

# A mount with a key that has a passphrase, a backup called nightly, and WAL behind it.
archive_with_backup() # STORE
{
    use_store "$1"
    printf '%s\n' "$PASSPHRASE" >"$T/passphrase"
    chmod 600 "$T/passphrase"
    GPG_READER=$T/gpg
    new_key "$GPG_READER" archive@example.com "$PASSPHRASE"
    KEY_OPTS=gpg_home=$GPG_READER,gpg_key=$KEY_ID,passphrase_file=$T/passphrase
    mount_walefs m "$(pg_mount_opts)" write_timeout=20
    pg_init src
    pg_conf src "max_wal_senders = 5" "wal_level = replica"
    pg_archive_with src "cp %p $T/m/wal/%f"
    pg_start src
    pg_backup src "$T/m/basebackups/nightly" -Ft -X none
    for _ in 1 2 3 4; do
        pg_sql src "create table if not exists t (i int); insert into t values (1)" >/dev/null
        pg_archive_all src >/dev/null
    done
    pg_stop src
}

segments()
{
    find "$T/m/wal" -type f -printf '%f\n' | grep -E '^[0-9A-F]{24}$' | sort
}

contents() # STORE
{
    local m=$T/m s last gap name files
    archive_with_backup "$1"
    name=$(readlink "$m/basebackups/nightly")
    last=$(segments | tail -n 1)
    gap=$(segments | tail -n 2 | head -n 1)
    files=$(find "$m/wal" -type f | wc -l)

    # The configuration, the log and the counters.
    s=$(cat "$m/status/config")
    assert_match "$s" $'^archive\t'"$SOURCE"$'\toption$' "status/config"
    assert_match "$s" $'^gpg_key\t'"$KEY_ID"$'\toption$' "status/config"
    assert_match "$s" $'^write_timeout\t20\toption$' "status/config"
    assert_match "$s" $'^prefetch\t8\tdefault$' "status/config"
    assert_match "$s" $'^passphrase\tset\toption$' "status/config"
    s=$(cat "$m/status/log")
    assert_match "$s" 'Z info: .* is mounted on' "status/log"
    assert_match "$s" 'Z info: the base backup nightly is complete' "status/log"
    assert_eq "$(metric 'walefs_publications_total{kind="wal",outcome="ok"}')" "$files" "archived files"
    assert_eq "$(metric 'walefs_publications_total{kind="basebackup",outcome="ok"}')" 1 "backups made"
    (($(metric 'walefs_gpg_runs_total{operation="encrypt",outcome="ok"}') >= files)) || fail "too few runs of gpg"
    (($(metric walefs_last_archive_timestamp_seconds) > $(date +%s) - 240)) || fail "the time of the last archiving"
    if [[ $1 != file ]]; then
        assert_match "$s$(cat "$m/status/config")" $'^AWS_SECRET_ACCESS_KEY\tset\tenvironment$' "status/config"
        (($(metric 'walefs_s3_requests_total{method="PUT",outcome="ok"}') > files)) || fail "too few requests to S3"
        (($(metric walefs_s3_sent_bytes_total) > 100000)) || fail "too few bytes sent to S3"
    fi

    # The archive.
    s=$(cat "$m/status/summary")
    assert_match "$s" "^archive: +$SOURCE/?$" "status/summary"
    assert_match "$s" "^encrypted to: +$KEY_ID$" "status/summary"
    assert_match "$s" "^cluster: +system identifier [0-9]+, PostgreSQL" "status/summary"
    assert_match "$s" "^last segment: +$last, archived 20.*Z \([0-9]+ [a-z]+ ago\)$" "status/summary"
    assert_match "$s" "^gaps: +none$" "status/summary"
    assert_match "$s" "^backlog: +no WAL is staged$" "status/summary"
    assert_match "$s" "^backups: +1 complete, 0 incomplete" "status/summary"
    assert_match "$s" "^  $name  20.*Z \([0-9]+ [a-z]+ ago\), [0-9.]+ MiB, label nightly$" "status/summary"
    assert_match "$s" "^recovery window: +from 20.* to 20.*, beginning with $name$" "status/summary"
    assert_match "$s" "^last hour: +0 errors" "status/summary"
    cat "$m/status/backups" >"$T/backups"
    assert_eq "$(sed -n 2p "$T/backups" | tr '\t' ' ')" "name last_modified expanded_size_bytes wal_segment_backup_start wal_segment_offset_backup_start wal_segment_backup_stop wal_segment_offset_backup_stop" "columns of status/backups"
    assert_eq "$(field "$T/backups" 3 1)" "$name" "name in status/backups"
    assert_eq "base_$(field "$T/backups" 3 4)_$(field "$T/backups" 3 5)" "$name" "start in status/backups"
    store_get "basebackups_005/${name}_backup_stop_sentinel.json" "$T/sentinel"
    for field in wal_segment_backup_stop:6 wal_segment_offset_backup_stop:7 expanded_size_bytes:3; do
        assert_eq "$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$T/sentinel" "${field%:*}")" \
            "$(field "$T/backups" 3 "${field#*:}")" "${field%:*} in status/backups"
    done
    cat "$m/status/wal" >"$T/wal"
    assert_eq "$(field "$T/wal" 3 1,2,3,4,5)" "1	$(segments | head -n 1)	$last	$(segments | wc -l)	0" "status/wal"
    assert_eq "$(field "$T/wal" 3 6)" "$(segments | while read -r s; do
        store_get "wal_005/$s.lzo" "$T/.object"
        stat -c %s "$T/.object"
    done | awk '{ n += $1 } END { print n }')" "bytes in status/wal"

    # Another host deletes a segment.
    store_rm "wal_005/$gap.lzo"
    cat "$m/status/wal" >"$T/wal"
    assert_eq "$(field "$T/wal" 3 5,8)" "1	$gap" "the gap in status/wal"
    s=$(cat "$m/status/summary")
    assert_match "$s" "^gaps: +1 segments are missing, in 1 places" "status/summary"
    assert_match "$s" "^  $name .*; 1 segments after it are missing, the first is $gap$" "status/summary"
    assert_match "$s" "^recovery window: +none" "status/summary"

    # Metrics take what was last listed.
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)" ro
    cat "$m/status/summary" >/dev/null
    assert_eq "$(metric walefs_wal_missing_segments)" 1 "missing segments"
    assert_eq "$(metric walefs_backups_with_gaps)" 1 "backups with gaps"
    umount_walefs m
}

test_contents_file()
{
    contents file
}

test_contents_radosgw()
{
    contents http
}

at_least() # SERIES NUMBER
{
    (($(metric "$1") >= $2)) || fail "$1 is $(metric "$1"), less than $2"
}

# What is done is counted where it is done.
test_counters()
{
    use_store http
    use_key none
    use_fault_proxy
    make_seg $A "$T/$A"
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    cp "$T/$A" "$T/$B"
    expect_fail 'Invalid argument' cp "$T/$B" "$T/m/wal/$B"
    assert_eq "$(metric walefs_archived_bytes_total)" 16777216 "bytes archived"
    at_least walefs_archived_stored_bytes_total 1000
    at_least walefs_written_bytes_total 16777216
    at_least walefs_s3_sent_bytes_total "$(metric walefs_archived_stored_bytes_total)"
    at_least 'walefs_requests_total{operation="write",outcome="ok"}' 16
    at_least 'walefs_request_duration_seconds_count{operation="write"}' 16
    at_least 'walefs_publications_total{kind="wal",outcome="invalid"}' 1
    at_least walefs_log_errors_total 1
    at_least walefs_last_archive_failure_timestamp_seconds 1000000000
    # stored in parts, each request once
    head -c 20M /dev/urandom >"$T/m/dumps/x"
    at_least 'walefs_s3_requests_total{method="POST",outcome="ok"}' 2
    assert_eq "$(metric walefs_s3_retries_total)" 0 "retries"
    umount_walefs m
    mount_walefs m
    cat "$T/m/wal/$A" >/dev/null
    dd if="$T/m/wal/$A" iflag=direct bs=1M status=none | cmp - "$T/$A"
    at_least walefs_read_bytes_total 16777216
    at_least walefs_cache_misses_total 1
    at_least walefs_cache_hits_total 1
    at_least walefs_s3_received_bytes_total 1000
    assert_eq "$(metric walefs_s3_retries_total)" 0 "retries"
    printf 'HTTP/1.1 503 Slow Down\r\nContent-Length: 88\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n%s' \
        '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Slow down</Message></Error>   ' >"$T/answer"
    proxy_mode reply-get "$T/answer"
    timeout 60 cat "$T/m/wal/$C" >/dev/null 2>&1 &
    wait_for 30 "a request that is tried again" at_least_now walefs_s3_retries_total
    proxy_mode pass
    at_least 'walefs_s3_errors_total{code="SlowDown"}' 1
    wait $! || true
    umount_walefs m
}

at_least_now() # SERIES
{
    (($(metric "$1") > 0))
}

test_no_secrets()
{
    local f
    archive_with_backup http
    cat "$T"/m/status/* >"$T/all"
    getfattr -R -d -m - "$T/m/wal" "$T/m/basebackups" >>"$T/all" 2>/dev/null
    cat "$T/m.log" >>"$T/all"
    for f in "$AWS_SECRET_ACCESS_KEY" "$AWS_ACCESS_KEY_ID" "$PASSPHRASE"; do
        ! grep -qF -e "$f" "$T/all" || fail "a secret is shown: $(grep -F -e "$f" "$T/all" | head -n 1)"
    done
    assert_match "$(cat "$T/m/status/summary")" "^identity: +access key \.\.\.${AWS_ACCESS_KEY_ID: -4} " "status/summary"
    umount_walefs m
}

test_frozen_store()
{
    local f t0 took
    use_store http
    use_key none
    mount_walefs m
    make_seg $A "$T/$A"
    cp "$T/$A" "$T/m/wal/$A"
    assert_match "$(cat "$T/m/status/summary")" "^last segment: +$A" "status/summary"
    exec 9<"$T/m/wal/$A"
    s3_server freeze
    for f in summary backups wal incomplete metrics config log; do
        t0=$(now_ms)
        answers $f "$T/$f"
        took=$(($(now_ms) - t0))
        echo "# figure: status/$f with a frozen store after $took ms"
    done
    assert_match "$(cat "$T/summary")" "^WAL: +1 segments.* as of .*, [0-9]+ s ago: " "status/summary of a frozen store"
    assert_match "$(cat "$T/summary")" "^last segment: +$A" "status/summary of a frozen store"
    assert_match "$(cat "$T/wal")" "^# as of .*, [0-9]+ s ago: " "status/wal of a frozen store"
    assert_match "$(cat "$T/incomplete")" "^# not known yet: " "status/incomplete of a frozen store"
    assert_match "$(cat "$T/metrics")" '^walefs_publications_total\{kind="wal",outcome="ok"\} 1$' "status/metrics of a frozen store"
    # What the kernel asks for with every file is not the store's affair.
    expect_fail "not supported" timeout 5 getfattr -n security.capability /proc/self/fd/9
    expect_fail "not supported" timeout 5 getfattr -n system.posix_acl_access /proc/self/fd/9
    expect_fail "no such attribute" timeout 5 getfattr -n user.other /proc/self/fd/9
    exec 9<&-
    s3_server thaw
    wait_for 60 "fresh news" sh -c "! grep -q ' s ago: ' '$T/m/status/wal'"
    umount_walefs m
}

# ---- extended attributes ------------------------------------------------------------------------

attribute() # FILE NAME
{
    getfattr --only-values -n "user.walefs.$2" "$1" 2>/dev/null || echo none
}

attributes() # STORE
{
    local m=$T/m subkey
    use_store "$1"
    use_key none
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    mount_walefs m
    cp "$T/$A" "$m/wal/"
    umount_walefs m
    use_key gpg
    mount_walefs m
    cp "$T/$B" "$m/wal/"
    subkey=$(gpg_batch "$GPG_READER" --with-colons --list-keys | awk -F: '/^sub/ { print $5 }')

    assert_eq "$(attribute "$m/wal/$A" encrypted)" no "a plain object"
    assert_eq "$(attribute "$m/wal/$B" encrypted)" yes "an encrypted object"
    assert_eq "$(attribute "$m/wal/$B" recipients)" "$subkey" "recipients"
    assert_eq "$(attribute "$m/wal/$A" recipients)" none "recipients of a plain object"
    assert_eq "$(attribute "$m/wal/$A" key)" "wal_005/$A.lzo" "key"
    assert_eq "$(attribute "$m/wal/$A" codec)" lzop "codec"
    assert_eq "$(attribute "$m/wal/$A" size)" 16777216 "size"
    store_get "wal_005/$B.lzo" "$T/.object"
    assert_eq "$(attribute "$m/wal/$B" stored_size)" "$(stat -c %s "$T/.object")" "stored size"
    if [[ $1 == http ]]; then
        assert_eq "$(attribute "$m/wal/$B" etag)" "$(md5sum <"$T/.object" | cut -d ' ' -f 1)" "etag"
    fi
    assert_match "$(attribute "$m/wal/$A" checksum)" '^sha256:[0-9a-f]+:[0-9a-f]+$' "checksum"
    assert_eq "$(getfattr -d "$m/wal/$B" 2>/dev/null | grep -c '^user\.walefs\.[a-z_]*=')" 8 "attributes that are listed"
    expect_fail "no such attribute" getfattr -n user.other "$m/wal/$A"
    expect_fail "not supported" setfattr -n user.other -v x "$m/wal/$A"
    expect_fail "not supported" setfattr -x user.other "$m/wal/$A"

    # Out, with the attributes, and in again.
    mkdir "$T/cp" "$T/rsync" "$T/in"
    cp -a "$m/wal/." "$T/cp/"
    rsync -aX "$m/wal/" "$T/rsync/"
    rsync -aX "$m/wal/" "$T/rsync/"
    assert_same "$T/cp/$A" "$T/$A"
    assert_same "$T/rsync/$B" "$T/$B"
    umount_walefs m
    use_store "$1" other
    mount_walefs m
    cp -a "$T/cp/$A" "$m/wal/"
    rsync -aX "$T/rsync/" "$m/wal/"
    rsync -aX "$T/rsync/" "$m/wal/"
    make_seg $C "$T/in/$C"
    rsync -aX "$T/in/" "$m/wal/"
    rsync -aX "$T/in/" "$m/wal/" # what is there has attributes, its source none
    assert_archived $A "$T/$A"
    assert_archived $B "$T/$B"
    assert_archived $C "$T/in/$C"
    umount_walefs m
}

test_attributes_file()
{
    attributes file
}

test_attributes_radosgw()
{
    attributes http
}

# The kernel could ask for capabilities before each write.
test_writes_ask_for_no_attributes()
{
    local asked
    use_store file
    use_key none
    mount_walefs m debug
    make_seg $A "$T/$A"
    dd if="$T/$A" of="$T/m/wal/$A" bs=8k status=none
    asked=$(grep -c GETXATTR "$T/m.log" || true)
    ((asked < 10)) || fail "the kernel asked $asked times for an attribute"
    (($(grep -c 'WRITE' "$T/m.log") >= 2048)) || fail "the trace shows no writes"
    umount_walefs m
}

# ---- the log ------------------------------------------------------------------------------------

test_journal()
{
    use_store file
    use_key none
    : >"$T/m.log"
    JOURNAL_STREAM=$(stat -c %d:%i "$T/m.log") mount_walefs m
    expect_fail "" cp /etc/passwd "$T/m/wal/$A"
    umount_walefs m
    grep -q '^<6>file://.* is mounted on ' "$T/m.log" || fail "no priority: $(cat "$T/m.log")"
    grep -Eq "^<3>close wal/$A: .* op=close path=wal/$A error=invalid$" "$T/m.log" ||
        fail "no details: $(cat "$T/m.log")"
}

test_destination()
{
    use_store file
    mkdir -p "$T/m"
    WALE_LOG_DESTINATION=printer expect_fail "WALE_LOG_DESTINATION=printer: expected stderr, syslog or journal" \
        "$WALEFS" -f "$SOURCE" "$T/m"
}
