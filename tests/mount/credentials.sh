# shellcheck shell=bash disable=SC2034
# Where S3's credentials come from: each place mounts, reads and writes; renewal; what is said when
# there are none.
NEEDS_S3=1
A=000000010000000000000005
B=000000010000000000000006

# Takes radosgw's key out of the environment and starts a server that gives it to those who may have
# it.
use_aws_server()
{
    KEY=$AWS_ACCESS_KEY_ID
    SECRET=$AWS_SECRET_ACCESS_KEY
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    use_store http
    use_key none
    AWS=$T/aws
    mkdir -p "$AWS"
    give "$KEY" "$SECRET"
    python3 "$ROOT/tests/lib/aws_server.py" "$AWS" 2>"$T/aws.log" &
    wait_for 10 "the server of credentials" test -s "$AWS/port"
    AWS_PORT=$(cat "$AWS/port")
    # A busy machine is not an unreachable service.
    export AWS_METADATA_SERVICE_TIMEOUT=20
}

give() # ID SECRET [SECONDS [TOKEN]]
{
    echo "$*" >"$AWS/keys.new"
    mv "$AWS/keys.new" "$AWS/keys"
}

aws_mode()
{
    echo "$1" >"$AWS/mode"
}

# How often the server has given credentials to WHAT (imds, container, web, role).
times_given() # WHAT
{
    grep -cx "$1" "$AWS/given" || true
}

# Mounts, archives, restores.
works() # NAME [OPTIONS...]
{
    make_seg $A "$T/$A"
    mount_walefs "$@"
    cp "$T/$A" "$T/$1/wal/"
    umount_walefs "$1"
    mount_walefs "$@"
    assert_same "$T/$1/wal/$A" "$T/$A"
    ! grep -qF -e "$SECRET" "$T/$1.log" || fail "the secret is in the log"
    umount_walefs "$1"
    ! grep -qF -e "$SECRET" "$T/$1.log" || fail "the secret is in the log"
}

# walefs must not mount, and say in one line what matches each REGEX.
refused() # OPTIONS REGEX...
{
    local rc=0 regex opts
    opts=$(join_opts "$STORE_OPTS" "$1")
    mkdir -p "$T/refused"
    timeout -k 5 60 "$WALEFS" -f -o "$opts" "$SOURCE" "$T/refused" </dev/null >"$T/.out" 2>"$T/.err" || rc=$?
    [[ $rc == 1 ]] || fail "status $rc instead of a message: $(cat "$T/.err")"
    note "$(cat "$T/.err")"
    for regex in "${@:2}"; do
        assert_match "$(cat "$T/.err")" "$regex" "message"
    done
    assert_eq "$(grep -vc '^walefs: warning' "$T/.err")" 1 "messages: $(cat "$T/.err")"
    ! grep -qF -e "$SECRET" "$T/.err" || fail "the secret is in the message"
}

write_profiles()
{
    mkdir -p "$HOME/.aws"
    cat >"$HOME/.aws/credentials" <<END
[default]
aws_access_key_id = NOBODY
aws_secret_access_key = nothing

[backup]
aws_access_key_id = $KEY
aws_secret_access_key = $SECRET
END
    cat >"$HOME/.aws/config" <<END
[default]
region = us-east-1
[profile program]
credential_process = "$T/give keys" --for 'walefs'
[profile role]
role_arn = arn:aws:iam::1:role/walefs
source_profile = base
[profile base]
aws_access_key_id = BASE
aws_secret_access_key = basesecret
[profile sso]
sso_session = corp
END
    cat >"$T/give keys" <<END
#!/bin/sh
[ "\$1 \$2" = "--for walefs" ] || { echo "wrong arguments: \$*" >&2; exit 3; }
echo '{"Version": 1, "AccessKeyId": "$KEY", "SecretAccessKey": "$SECRET"}'
END
    chmod 755 "$T/give keys"
}

test_profiles()
{
    use_aws_server
    write_profiles
    works option profile=backup
    AWS_PROFILE=backup works variable
    works program profile=program
    echo "BASE basesecret" >"$AWS/base"
    AWS_ENDPOINT_URL_STS=http://127.0.0.1:$AWS_PORT works role profile=role
    assert_eq "$(times_given role)" 2 "roles given"
    # Named files instead of those at home.
    mv "$HOME/.aws/credentials" "$T/elsewhere"
    AWS_SHARED_CREDENTIALS_FILE=$T/elsewhere works moved profile=backup
}

# A profile that was asked for wins over keys in the environment, one in the environment does not.
test_precedence()
{
    use_aws_server
    write_profiles
    AWS_ACCESS_KEY_ID=NOBODY AWS_SECRET_ACCESS_KEY=x works option profile=backup
    AWS_PROFILE=default AWS_ACCESS_KEY_ID=$KEY AWS_SECRET_ACCESS_KEY=$SECRET works keys
    mkdir "$T/env"
    echo backup >"$T/env/AWS_PROFILE"
    works envdir envdir="$T/env"
}

test_web_identity()
{
    use_aws_server
    echo a.web.token >"$AWS/web-token"
    echo a.web.token >"$T/token"
    export AWS_WEB_IDENTITY_TOKEN_FILE=$T/token AWS_ROLE_ARN=arn:aws:iam::1:role/walefs
    export AWS_ENDPOINT_URL_STS=http://127.0.0.1:$AWS_PORT
    works m
    assert_eq "$(times_given web)" 2 "credentials given, for two mounts"
    echo another.token >"$T/token"
    refused "" "web identity" "$T/token" InvalidIdentityToken
    ! grep -q another.token "$T/.err" || fail "the token is in the message"
    rm "$T/token"
    refused "" "$T/token" "No such file"
}

test_container()
{
    use_aws_server
    export AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:$AWS_PORT/container
    echo "Bearer of-container" >"$AWS/auth"
    AWS_CONTAINER_AUTHORIZATION_TOKEN="Bearer of-container" works variable
    echo "Bearer of-container" >"$T/auth"
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=$T/auth works file
    refused "" container "wrong authorization"
    AWS_CONTAINER_CREDENTIALS_FULL_URI=http://192.0.2.1/container refused "" "192.0.2.1" loopback https
}

# As systemd hands them to walefs@mnt-pg.service: files that root alone may read, so not the user that it
# becomes; and a passphrase there besides.
test_unit()
{
    local secret
    use_aws_server
    make_seg $A "$T/$A"
    secret=$SECRET
    new_key "$T/locked" locked@example.com "open sesame"
    chown -R "$PG_OS_USER:" "$T/locked"
    gpgconf --homedir "$T/locked" --kill gpg-agent
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID
    mkdir "$T/credentials"
    echo "$KEY" >"$T/credentials/AWS_ACCESS_KEY_ID"
    echo "$secret" >"$T/credentials/AWS_SECRET_ACCESS_KEY"
    echo "open sesame" >"$T/credentials/passphrase"
    chmod 400 "$T/credentials/"*
    chmod 500 "$T/credentials"
    mkdir -p "$T/m"
    export CREDENTIALS_DIRECTORY=$T/credentials
    mount_walefs m "user=$PG_OS_USER" allow_other
    assert_eq "$(stat -c %U "/proc/${MOUNT_PID[m]}")" "$PG_OS_USER" "whose process it is"
    as_pg tee "$T/m/wal/$A" <"$T/$A" >/dev/null
    as_pg cat "$T/m/wal/$A" | cmp - "$T/$A" || fail "what was archived cannot be read"
    as_pg cat "$T/m/status/config" >"$T/config"
    as_pg cat "$T/m/status/summary" >"$T/summary"
    assert_match "$(cat "$T/config")" $'^AWS_SECRET_ACCESS_KEY\tset\tcredential$' "status/config"
    assert_match "$(cat "$T/summary")" "^identity: +access key \.\.\.${KEY: -4} .credential.$" "status/summary"
    ! grep -F -e "$secret" -e "open sesame" "$T/config" "$T/summary" "$T/m.log" || fail "a secret shows"
    umount_walefs m
}

# With a proxy in the environment, which must not be asked.
test_instance_profile()
{
    use_aws_server
    export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://localhost:$AWS_PORT/ AWS_EC2_METADATA_DISABLED=false
    export http_proxy=http://127.0.0.1:1 no_proxy=127.0.0.1
    works found
    AWS_ACCESS_KEY_ID=NOBODY AWS_SECRET_ACCESS_KEY=x works forced aws_instance_profile
    assert_eq "$(times_given imds)" 4 "credentials given, for four mounts"
    aws_mode no-role
    refused "" "no IAM role" "instance profile"
    aws_mode no-put
    AWS_METADATA_SERVICE_TIMEOUT=1 refused aws_instance_profile metadata "hop.limit" hop-limit
    AWS_EC2_METADATA_DISABLED=true refused aws_instance_profile AWS_EC2_METADATA_DISABLED
}

test_messages()
{
    use_aws_server
    # Nothing anywhere: all that was looked at.
    refused "" "no AWS credentials" AWS_ACCESS_KEY_ID "profile default" "$HOME/.aws/credentials" \
        "$HOME/.aws/config" WEB_IDENTITY AWS_CONTAINER metadata
    write_profiles
    refused profile=nosuch "profile nosuch" "no such profile" "$HOME/.aws/config"
    AWS_PROFILE=nosuch refused "" "profile nosuch" "no such profile"
    refused profile=sso "Identity Center" "credential_process"
    AWS_ACCESS_KEY_ID=$KEY refused "" AWS_SECRET_ACCESS_KEY
    refused profile=backup,aws_instance_profile "aws_instance_profile"
    printf '#!/bin/sh\necho "{oops %s"\n' "$SECRET" >"$T/give keys"
    refused profile=program "credential_process" "not JSON"
    printf '#!/bin/sh\necho "the vault is sealed" >&2\nexit 7\n' >"$T/give keys"
    refused profile=program "exit status 7" "the vault is sealed"
    printf '#!/bin/sh\necho "{}"\n' >"$T/give keys"
    refused profile=program Version
}

# A key of the user that may use the bucket, besides the one that it has.
second_key() # create|rm
{
    local uid
    uid=$(admin user list | tr -d '[]", \n' | grep -o walefs)
    if [[ $1 == create ]]; then
        admin key create --uid="$uid" --key-type=s3 --access-key=SECONDKEY \
            --secret-key=second-secret >/dev/null
    else
        admin key rm --uid="$uid" --key-type=s3 --access-key=SECONDKEY >/dev/null
    fi
}

admin()
{
    radosgw-admin -c "$WALEFS_TEST_RADOSGW/ceph.conf" "$@" 2>"$T/admin.log"
}

segments_of_many() # COUNT
{
    local i
    for ((i = 1; i <= $1; i++)); do
        make_seg "$(seg_name "$i")" "$T/s$i"
    done
}

# The key is withdrawn while many read: one asks for the new one, all go on.
test_renewed_once_for_all()
{
    local i pids=()
    use_aws_server
    segments_of_many 12
    second_key create
    give SECONDKEY second-secret
    export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:$AWS_PORT AWS_EC2_METADATA_DISABLED=false
    mount_walefs m prefetch=0
    for i in {1..12}; do
        cp "$T/s$i" "$T/m/wal/$(seg_name "$i")"
    done
    umount_walefs m
    mount_walefs m prefetch=0
    assert_eq "$(times_given imds)" 2 "credentials given before"
    give "$KEY" "$SECRET"
    second_key rm
    for i in {1..12}; do
        cp "$T/m/wal/$(seg_name "$i")" "$T/out$i" &
        pids+=($!)
    done
    for i in {1..12}; do
        reap_child "${pids[i - 1]}" 60 "cp of segment $i" || fail "cp of segment $i failed"
        assert_same "$T/out$i" "$T/s$i"
    done
    assert_eq "$(times_given imds)" 3 "credentials given"
    assert_log m "credentials have been renewed"
    umount_walefs m
}

# They end while nothing can renew them: readers wait, writers fail, the log says who is to blame.
test_expiry_without_renewal()
{
    local reader
    use_aws_server
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:$AWS_PORT AWS_EC2_METADATA_DISABLED=false
    give "$KEY" "$SECRET" 10
    mount_walefs m prefetch=0,write_timeout=3
    cp "$T/$A" "$T/m/wal/"
    aws_mode refuse
    sleep 11
    cp "$T/m/wal/$B" "$T/missing" 2>"$T/err1" &
    reader=$!
    expect_fail "" timeout 60 cp "$T/$B" "$T/m/wal/$B"
    ! grep -q "No such file\|File exists" "$T/.err" || fail "a misleading error: $(cat "$T/.err")"
    assert_log m "instance metadata service.*HTTP 400"
    alive $reader || fail "the look-up ended: $(cat "$T/err1")"
    aws_mode none
    ! reap_child $reader 60 "the look-up" || fail "$B exists"
    assert_match "$(cat "$T/err1")" "No such file" "the look-up"
    cp "$T/$B" "$T/m/wal/$B"
    AWS_ACCESS_KEY_ID=$KEY AWS_SECRET_ACCESS_KEY=$SECRET assert_archived $B "$T/$B"
    umount_walefs m
}

# A token that is rotated in the files is picked up without a remount.
test_rotated_files()
{
    use_aws_server
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    second_key create
    mkdir "$T/env"
    echo SECONDKEY >"$T/env/AWS_ACCESS_KEY_ID"
    echo second-secret >"$T/env/AWS_SECRET_ACCESS_KEY"
    mkdir -p "$HOME/.aws"
    printf '[default]\naws_access_key_id=SECONDKEY\naws_secret_access_key=second-secret\n' >"$HOME/.aws/credentials"
    mount_walefs envdir "envdir=$T/env"
    mount_walefs profile
    cp "$T/$A" "$T/envdir/wal/"
    second_key rm
    echo "$SECRET" >"$T/env/AWS_SECRET_ACCESS_KEY"
    echo "$KEY" >"$T/env/AWS_ACCESS_KEY_ID"
    printf '[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n' "$KEY" "$SECRET" >"$HOME/.aws/credentials"
    assert_same "$T/profile/wal/$A" "$T/$A"
    cp "$T/$B" "$T/envdir/wal/"
    assert_match "$(cat "$T/envdir/status/summary")" "^identity: +access key \.\.\.${KEY: -4} .envdir.$" "status/summary"
    assert_match "$(cat "$T/profile/status/summary")" "^identity: +as AWS.*, access key \.\.\.${KEY: -4}$" "status/summary"
    assert_log envdir "credentials have been renewed"
    assert_log profile "credentials have been renewed"
    umount_walefs envdir
    umount_walefs profile
}
