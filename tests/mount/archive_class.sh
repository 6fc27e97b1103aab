# shellcheck shell=bash disable=SC2034
# Objects in an archive storage class (GLACIER): listed with their sizes, and reading them fails at once
# and says what to do, since they do not come back by themselves.
NEEDS_S3=1
A=000000010000000000000005
B=000000010000000000000006

# What S3 answers to a GET.
frozen_answer()
{
    local body='<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the object'\''s storage class</Message><StorageClass>DEEP_ARCHIVE</StorageClass><RequestId>tx1</RequestId></Error>'
    printf 'HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
        ${#body} "$body" >"$T/answer"
}

freeze()
{
    frozen_answer
    proxy_mode freeze "$T/answer"
}

# Reading FILE gives EIO soon, and no byte; the log of the mount says of KEY what to do.
assert_frozen() # FILE KEY
{
    : >"$T/m.log"
    expect_fail "Input/output error" timeout 30 cat "$1"
    assert_eq "$(wc -c <"$T/.out")" 0 "bytes that were read"
    assert_log m "$2.*InvalidObjectState.*storage class .DEEP_ARCHIVE.: restore it first .*restore-object"
}

test_wal()
{
    use_store http
    use_key none
    use_fault_proxy
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    mount_walefs setup
    cp "$T/$A" "$T/$B" "$T/setup/wal/"
    umount_walefs setup
    mount_walefs m # hard: what can come back is waited for
    freeze
    assert_eq "$(find "$T/m/wal" -name '0*' -printf '%f %s\n' | sort)" \
        "$A 16777216"$'\n'"$B 16777216" "listing"
    stat "$T/m/wal/$A" >/dev/null
    assert_eq "$(getfattr --only-values -n user.walefs.storage_class "$T/m/wal/$A" 2>/dev/null)" GLACIER "attribute"
    assert_frozen "$T/m/wal/$A" "wal_005/$A.lzo"
    assert_frozen "$T/m/wal/$A" "wal_005/$A.lzo"
    # What it holds is known from its metadata: the same once more is accepted, nothing else.
    timeout 60 cp "$T/$A" "$T/m/wal/$A"
    make_seg $A "$T/other" 16 another
    expect_fail "File exists" timeout 60 cp "$T/other" "$T/m/wal/$A"
    # Restored, it is read without another mount.
    proxy_mode pass
    assert_same "$T/m/wal/$A" "$T/$A"
    assert_same "$T/m/wal/$B" "$T/$B"
    umount_walefs m
}

test_base_backup()
{
    local b name
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m
    python3 "$ROOT/tests/lib/make_cluster.py" "$T/cluster" label
    mkdir "$T/m/basebackups/nightly.partial"
    cp -aL "$T/cluster/." "$T/m/basebackups/nightly.partial/"
    mv -T "$T/m/basebackups/nightly.partial" "$T/m/basebackups/nightly"
    umount_walefs m
    mount_walefs m
    name=$(readlink "$T/m/basebackups/nightly")
    b=$T/m/basebackups/$name
    freeze
    assert_eq "$(stat -c %s "$b/pgdata/PG_VERSION")" "$(stat -c %s "$T/cluster/PG_VERSION")" "size"
    assert_frozen "$b/pgdata/PG_VERSION" "$name/tar_partitions/part_"
    assert_frozen "$b/tar/part_00000000.tar" "$name/tar_partitions/part_"
    proxy_mode pass
    assert_same "$b/pgdata/PG_VERSION" "$T/cluster/PG_VERSION"
    umount_walefs m

    # A rule of the bucket may take the sentinel along: that backup is there, and tells what to do.
    proxy_mode freeze-sentinels "$T/answer"
    mount_walefs m allow_delete
    assert_eq "$(ls "$T/m/basebackups")" "$name" "listing without the sentinel"
    : >"$T/m.log"
    expect_fail "Input/output error" timeout 30 ls "$b"
    expect_fail "Input/output error" timeout 30 cat "$b/backup.json"
    assert_log m "basebackups/$name: its sentinel is in an archive storage class: restore .*_backup_stop_sentinel.json"
    expect_fail "not permitted" rmdir "$b"
    assert_match "$(cat "$T/m/status/incomplete")" "^$name"$'\t'".*"$'\t'"frozen" "status/incomplete"
    proxy_mode pass
    wait_for 10 "the backup" test -e "$b/pgdata/PG_VERSION"
    assert_same "$b/pgdata/PG_VERSION" "$T/cluster/PG_VERSION"
    umount_walefs m
}

# Not damaged, but not verified either: a warning that counts them, whatever else is found.
test_check()
{
    local rc=0
    use_store http
    use_key none
    use_fault_proxy
    make_seg $A "$T/$A"
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    echo dump >"$T/m/dumps/x"
    umount_walefs m
    freeze
    "$WALEFS" check --deep -o "$STORE_OPTS" "$SOURCE" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    sed 's/^/# /' "$T/out" "$T/err"
    assert_eq $rc 1 "exit status"
    assert_match "$(cat "$T/out")" "^warn +read .*$A.*storage class .DEEP_ARCHIVE" "the newest segment"
    assert_match "$(cat "$T/out")" "^warn +deep +1 objects were not looked into.*wal_005/$A.*restore-object" "what is frozen"
    assert_match "$(cat "$T/out")" "^ok +deep +1 objects decoded .* 0 of them damaged" "the sum"
}
