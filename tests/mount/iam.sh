# shellcheck shell=bash disable=SC2034
# The policies of mount/docs/iam.md, as the policy of a bucket for a user who has no other rights: each is
# enough for what it is for, and for no more.
NEEDS_S3=1
A=000000010000000000000002 # the cluster of make_cluster.py begins there
B=000000010000000000000003
OLD=000000010000000000000001
# Older ones do not have the key in s3:prefix when they decide between 403 and 404.
IF_THERE=StringLikeIfExists

as_owner() # COMMAND...
{
    AWS_ACCESS_KEY_ID=$OWNER_ID AWS_SECRET_ACCESS_KEY=$OWNER_SECRET "$@"
}

# The JSON below HEADING, for this bucket and prefix, with the CONDITION that this radosgw needs; with ACTION,
# which is what the text adds to it, on objects.
policy() # CONDITION HEADING [ACTION]
{
    python3 - "$ROOT/mount/docs/iam.md" "$WALEFS_TEST_BUCKET" "$STORE_PREFIX" "$@" <<'END'
import json, re, sys
path, bucket, prefix, condition, heading, *actions = sys.argv[1:]
with open(path) as f:
    section = f.read().split("\n## " + heading, 1)[1].split("\n## ")[0]
text = re.search(r"```json\n(.*?)```", section, re.S)[1]
policy = json.loads(text.replace("BUCKET", bucket).replace("PREFIX", prefix).replace("StringLike", condition))
policy["Statement"] += [{"Effect": "Allow", "Action": a, "Resource": f"arn:aws:s3:::{bucket}/{prefix}/*"} for a in actions]
for statement in policy["Statement"]:
    statement["Principal"] = {"AWS": ["arn:aws:iam:::user/other"]}
print(json.dumps(policy))
END
}

# A bucket of the usual user's; from here on the tests are the other user, who has no right on it.
use_bucket()
{
    OWNER_ID=$AWS_ACCESS_KEY_ID OWNER_SECRET=$AWS_SECRET_ACCESS_KEY
    WALEFS_TEST_BUCKET=walefs-iam-${WALEFS_TEST_MARK##*-}
    s3_curl -o /dev/null -X PUT "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET"
    use_store http
    use_key none
    export AWS_ACCESS_KEY_ID=$WALEFS_TEST_OTHER_KEY_ID AWS_SECRET_ACCESS_KEY=$WALEFS_TEST_OTHER_SECRET
    expect_fail 403 store_put /etc/passwd x
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    make_seg $OLD "$T/$OLD"
}

may() # CONDITION HEADING [ACTION]
{
    policy "$@" >"$T/policy"
    as_owner s3_curl -o /dev/null -T "$T/policy" "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET?policy="
}

# By itself, whatever walefs would do.
assert_no_right_to_delete()
{
    as_owner store_put /etc/passwd wal_005/x
    expect_fail 403 store_rm wal_005/x
    as_owner store_rm wal_005/x
}

assert_no_right_elsewhere()
{
    expect_fail 403 s3_curl "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET?list-type=2&prefix=other%2F"
    as_owner s3_curl -o /dev/null -T /etc/passwd "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET/other/x"
    expect_fail 403 s3_curl "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET/other/x"
}

check() # STATUS OPTIONS...
{
    local rc=0
    "$WALEFS" check --deep -o "$(join_opts "$STORE_OPTS" "${@:2}")" "$SOURCE" >"$T/checked" 2>&1 </dev/null || rc=$?
    assert_eq "$rc" "$1" "status of check: $(cat "$T/checked")"
}

backup() # LABEL
{
    rm -rf "$T/cluster"
    python3 "$ROOT/tests/lib/make_cluster.py" "$T/cluster" "$1"
    head -c 20000000 /dev/urandom >"$T/cluster/base/1/99999" # more than one request holds
    mkdir "$T/m/basebackups/$1.partial"
    cp -aL "$T/cluster/." "$T/m/basebackups/$1.partial/"
    mv -T "$T/m/basebackups/$1.partial" "$T/m/basebackups/$1"
}

list_parts_of() # KEY: of an upload that the bucket's owner has begun
{
    local id
    id=$(as_owner s3_curl -X POST "$(s3_url "$1")?uploads=" | sed -n 's/.*<UploadId>\([^<]*\)<.*/\1/p')
    s3_curl "$(s3_url "$1")?uploadId=$id"
}

no_uploads()
{
    ! as_owner s3_curl "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET?uploads=" | grep -q '<UploadId>'
}

test_primary()
{
    local pid
    use_bucket
    expect_fail 'AccessDenied' timeout 60 "$WALEFS" -f -o "$STORE_OPTS" "$SOURCE" "$(mktemp -d)"
    may $IF_THERE "The primary"
    assert_no_right_to_delete
    assert_no_right_elsewhere
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    cp "$T/$A" "$T/m/wal/"
    make_seg $A "$T/other" 16 other
    expect_fail 'File exists' cp "$T/other" "$T/m/wal/$A"
    expect_fail 'No such file' timeout 30 cat "$T/m/wal/$B"
    assert_same "$T/m/wal/$A" "$T/$A"
    backup nightly
    diff -r "$T/cluster" "$T/m/basebackups/nightly/pgdata"
    assert_match "$(cat "$T/m/status/summary")" '^backups: +1 complete' "status/summary"
    # a large dump, and one that is killed when parts of it are stored
    head -c 30000000 /dev/urandom | tee "$T/dump" >"$T/m/dumps/dump"
    assert_same "$T/dump" "$T/m/dumps/dump"
    bash -c "exec cat /dev/urandom >'$T/m/dumps/killed'" &
    pid=$!
    wait_for 60 "some of it" bash -c "((\$(stat -c %s '$T/m/dumps/killed') > 30000000))"
    kill -9 $pid
    wait $pid 2>/dev/null || true
    wait_for 20 "the end of its upload" no_uploads
    # temporaries, and what pg_receivewal leaves
    cp "$T/$B" "$T/m/wal/$B.partial"
    mv "$T/m/wal/$B.partial" "$T/m/wal/$B"
    assert_same "$T/m/wal/$B" "$T/$B"
    umount_walefs m
    ! grep -i 'AccessDenied' "$T/m.log" | grep -v "$B.partial" || fail "a right is missing"
    # what a mount asks before it aborts an upload that is old
    list_parts_of dumps_005/old.lzo | grep -q '<ListPartsResult' || fail "parts cannot be listed"
    # What is there by the old name is what iam.md says.
    assert_eq "$(store_ls wal_005/)" "wal_005/$A.lzo
wal_005/$B.lzo
wal_005/$B.partial.lzo" "what is stored in wal/"
    check 0
}

test_restore_host()
{
    use_bucket
    may $IF_THERE "The primary"
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    backup nightly
    umount_walefs m
    may $IF_THERE "Restore hosts"
    assert_no_right_to_delete
    assert_no_right_elsewhere
    expect_fail 403 store_put /etc/passwd wal_005/x
    expect_fail 403 list_parts_of dumps_005/old.lzo
    mount_walefs m ro
    assert_same "$T/m/wal/$A" "$T/$A"
    expect_fail 'No such file' timeout 30 cat "$T/m/wal/$B"
    diff -r "$T/cluster" "$T/m/basebackups/LATEST/pgdata"
    umount_walefs m
    ! grep -i AccessDenied "$T/m.log" || fail "a right is missing"
    check 0 ro
    grep -q '^ok *credentials' "$T/checked" || fail "no line about credentials"
}

test_deleting_host()
{
    use_bucket
    may $IF_THERE "The primary" s3:DeleteObject
    mount_walefs m allow_delete
    cp "$T/$OLD" "$T/m/wal/"
    backup nightly
    echo dump >"$T/m/dumps/dump"
    rm "$T/m/dumps/dump"
    "$ROOT/mount/walefs-prune" --keep 1 --confirm "$T/m" >"$T/prune.log" 2>&1 || fail "$(cat "$T/prune.log")"
    assert_eq "$(store_ls wal_005/)" "" "what walefs-prune left of wal/"
    rmdir "$T/m/basebackups/$(readlink "$T/m/basebackups/nightly")"
    umount_walefs m
    ! grep -i AccessDenied "$T/m.log" || fail "a right is missing"
    assert_eq "$(store_ls '' | grep -v walefs_probe)" "" "what is left"
}

# A policy that lets list and does not let know what is missing: told before anything waits for ever.
test_absence_is_not_told()
{
    use_bucket
    may StringLike "Restore hosts"
    mkdir "$T/m"
    s3_curl -o /dev/null "$(s3_url x)" 2>"$T/err" && fail "x exists"
    ! grep 404 "$T/err" || may StringEquals "Restore hosts" # a newer server, as AWS: nothing matches "PREFIX/*"
    expect_fail 'does not tell what is missing .s3:ListBucket' timeout 60 "$WALEFS" -f -o "ro,$STORE_OPTS" "$SOURCE" "$T/m"
    check 2 ro
    assert_match "$(cat "$T/checked")" '^FAIL +list .*does not tell what is missing' "check"
}
