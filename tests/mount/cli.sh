# shellcheck shell=bash disable=SC2034
# The command line: what it says when it cannot mount, and how a mount begins and ends.
NEEDS_S3=1
A=000000010000000000000005

# Runs walefs, which must give up soon, with one line on stderr that matches each REGEX.
refused() # ARGS... -- REGEX...
{
    local args=() rc=0 t0=$SECONDS regex
    while [[ $1 != -- ]]; do
        args+=("$1")
        shift
    done
    shift
    timeout -k 5 60 "$WALEFS" "${args[@]}" </dev/null >"$T/.out" 2>"$T/.err" || rc=$?
    [[ $rc != 124 && $rc != 137 ]] || fail "neither mounts nor fails: ${args[*]}"
    [[ $rc != 0 ]] || fail "succeeded: ${args[*]}"
    ((rc < 126)) || fail "died with $rc: ${args[*]}"
    ((SECONDS - t0 <= 40)) || fail "took $((SECONDS - t0)) s to say: $(cat "$T/.err")"
    note "$(cat "$T/.err")"
    for regex in "$@"; do
        assert_match "$(cat "$T/.err")" "$regex" "message of: ${args[*]}"
    done
    assert_eq "$(wc -l <"$T/.err")" 1 "lines on stderr: $(cat "$T/.err")"
    assert_eq "$(mounts_below "$T")" "" "mounts"
}

# Mounted in the background; the pid of what stays is put into DAEMON.
mount_background() # MOUNTPOINT [OPTIONS]
{
    timeout 60 "$WALEFS" ${2:+-o "$2"} "$SOURCE" "$1" </dev/null >"$T/.out" 2>"$T/.err" ||
        fail "walefs exited with $?: $(cat "$T/.err")"
    mountpoint -q "$1" || fail "exit 0, but nothing is mounted"
    find_daemon "$1"
}

find_daemon() # MOUNTPOINT
{
    local pid
    DAEMON=
    for pid in $(marked "$WALEFS_TEST_MARK"); do
        if [[ $(readlink "/proc/$pid/exe") == "$(readlink -f "$WALEFS")" ]] &&
            tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qx "$1"; then
            DAEMON=$pid
        fi
    done
    [[ -n $DAEMON ]] || fail "no walefs serves $1"
}

test_help_and_version()
{
    "$WALEFS" --help >"$T/out" 2>"$T/err"
    assert_eq "$(cat "$T/err")" "" "stderr of --help"
    grep -q "s3://" "$T/out" || fail "--help shows no SOURCE"
    "$WALEFS" --version >"$T/out"
    assert_match "$(cat "$T/out")" 'walefs.* [0-9]+[.][0-9]+' "--version"
}

# The names of options that stdin has, without those that only say the opposite of another one.
option_names()
{
    grep -oE '[a-z_]+' | grep -vxE 'rw|exec|hard' | sort -u
}

# --help and status/config know the same options, and --help the defaults.
test_help_tells_the_options_and_defaults_in_effect()
{
    local help config name value n=0
    use_store file
    mount_walefs m
    # shellcheck source-path=SCRIPTDIR source=../../mount/completion/walefs disable=SC1091
    help=$(source "$ROOT/mount/completion/walefs" && _walefs_mount_options "$WALEFS" | option_names)
    (($(wc -l <<<"$help") >= 30)) || fail "only $help"
    config=$(cut -f 1 "$T/m/status/config" | grep -x '[a-z_]*' | grep -vxE 'option|archive|passphrase' | option_names)
    assert_eq "$config" "$help" "options in status/config"
    while read -r name value; do
        [[ $value != *[KMG] ]] || value=$(numfmt --from=iec "$value")
        grep -qx "$name"$'\t'"$value"$'\tdefault' "$T/m/status/config" || fail "$name is not $value by default"
        n=$((n + 1))
    done < <("$WALEFS" --help | sed -nE 's,^  ([a-z_]+)=.*default ([0-9]+[KMG]?|/[a-z/]+).*,\1 \2,p')
    ((n >= 9)) || fail "--help tells $n defaults only"
    umount_walefs m
}

test_usage_errors()
{
    mkdir "$T/m" "$T/dir"
    refused -- 'mount ?point|usage|help'
    refused -o frobnicate=1 "file://localhost/$T/dir" "$T/m" -- frobnicate
    refused --frobnicate "file://localhost/$T/dir" "$T/m" -- frobnicate
    refused -o cache_size=lots "file://localhost$T/dir" "$T/m" -- cache_size
    refused -o write_timeout=-1 "file://localhost$T/dir" "$T/m" -- write_timeout
    refused -o url_style=diagonal "file://localhost$T/dir" "$T/m" -- url_style
    refused -o sse=ROT13 "file://localhost$T/dir" "$T/m" -- sse
    refused -o soft,hard,uid=nobody-knows "file://localhost$T/dir" "$T/m" -- 'uid|soft|hard'
    refused a b c -- 'usage|too many|argument|help'
    refused "$T/m" -- 'WALE_S3_PREFIX|WALE_FILE_PREFIX|source'
}

test_malformed_source()
{
    mkdir "$T/m"
    export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y
    local s
    for s in "s3:/bucket/x" "s3://" "s3:///prefix" "http://bucket/x" "file://otherhost/x" "file:relative" \
        "s3://Bad_Bucket!/x" "nonsense"; do
        refused "$s" "$T/m" -- 's3://|file://|bucket|host|url|source'
    done
    refused -o endpoint=nonsense s3://bucket/x "$T/m" -- endpoint
    refused -o endpoint=ftp://127.0.0.1:1 s3://bucket/x "$T/m" -- endpoint
}

test_mount_point_errors()
{
    use_store file
    refused "$SOURCE" "$T/missing" -- "$T/missing" 'exist|no such|missing|mkdir'
    mkdir "$T/full"
    echo x >"$T/full/file"
    refused "$SOURCE" "$T/full" -- "$T/full" empty
    refused "$SOURCE" "$T/full/file" -- "$T/full/file" directory
    mount_walefs m
    local rc=0
    timeout 60 "$WALEFS" "$SOURCE" "$T/m" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    [[ $rc != 0 ]] || fail "mounted twice at one place"
    assert_match "$(cat "$T/err")" 'mounted' "message"
    ls "$T/m/wal"
    umount_walefs m
}

test_directory_missing()
{
    mkdir "$T/m"
    refused "file://localhost$T/no-such-archive" "$T/m" -- "$T/no-such-archive"
}

test_bucket_missing()
{
    mkdir "$T/m"
    refused -o "endpoint=$WALEFS_TEST_ENDPOINT" s3://no-such-bucket-here/x "$T/m" -- \
        no-such-bucket-here 'bucket'
}

test_wrong_credentials()
{
    mkdir "$T/m"
    use_store http
    AWS_SECRET_ACCESS_KEY=wrong-secret-value refused -o "$STORE_OPTS" "$SOURCE" "$T/m" -- \
        'secret|credential|signature'
    ! grep -q wrong-secret-value "$T/.err" || fail "the secret is in the message"
    AWS_ACCESS_KEY_ID=NOSUCHKEY refused -o "$STORE_OPTS" "$SOURCE" "$T/m" -- \
        'access.?key|credential|InvalidAccessKeyId'
    AWS_ACCESS_KEY_ID='' AWS_SECRET_ACCESS_KEY='' refused -o "$STORE_OPTS" "$SOURCE" "$T/m" -- \
        'AWS_ACCESS_KEY_ID|credential'
}

test_connection_refused()
{
    local port
    mkdir "$T/m"
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    refused -o "endpoint=http://127.0.0.1:$port" s3://bucket/x "$T/m" -- "127.0.0.1:$port|refused"
    refused -o "endpoint=http://no-such-host.invalid:$port" s3://bucket/x "$T/m" -- 'resolve|no-such-host'
}

# In a network namespace in which there is nothing.
test_no_route()
{
    mkdir "$T/m"
    printf '#!/bin/sh\nexec unshare --net -- "%s" "$@"\n' "$WALEFS" >"$T/walefs"
    chmod 755 "$T/walefs"
    WALEFS=$T/walefs
    refused -o "endpoint=http://192.0.2.1:8080" s3://bucket/x "$T/m" -- 'http://192.0.2.1:8080' 'unreachable' 'check the endpoint'
    refused -o "endpoint=http://[2001:db8::1]" s3://bucket/x "$T/m" -- '2001:db8::1' 'unreachable|assign' 'check the endpoint'
}

test_server_that_does_not_answer()
{
    mkdir "$T/m"
    use_store http
    use_fault_proxy
    proxy_mode hang
    refused -o "$STORE_OPTS,connect_timeout=2,stall_timeout=3" "$SOURCE" "$T/m" -- 'time|answer'
}

test_tls_is_verified()
{
    mkdir "$T/m"
    use_store https
    refused -o "endpoint=$WALEFS_TEST_ENDPOINT_TLS" "$SOURCE" "$T/m" -- 'certificate|TLS|SSL'
    refused -o "endpoint=$WALEFS_TEST_ENDPOINT_TLS,cafile=$T/nowhere.pem" "$SOURCE" "$T/m" -- 'nowhere.pem'
    mount_walefs ok
}

# A server that would rather speak HTTP/2 is not asked for it.
test_http_1_1()
{
    export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y
    mkdir "$T/m"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$T/key.pem" -out "$T/cert.pem" 2>"$T/openssl.log"
    python3 - "$T" <<'END' &
import socket, ssl, sys
here = sys.argv[1]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(here + "/cert.pem", here + "/key.pem")
context.set_alpn_protocols(["h2", "http/1.1"])
listener = socket.create_server(("127.0.0.1", 0))
with open(here + "/port", "w") as f:
    f.write("%d\n" % listener.getsockname()[1])
while True:
    with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
        with open(here + "/protocols", "a") as f:
            f.write("%s\n" % connection.selected_alpn_protocol())
END
    wait_for 20 "the server" test -s "$T/port"
    refused -o "endpoint=https://127.0.0.1:$(cat "$T/port"),cafile=$T/cert.pem" s3://bucket/p "$T/m" -- bucket
    kill $!
    assert_eq "$(sort -u "$T/protocols")" http/1.1 "what was agreed on"
}

# A store whose clock is far off, as S3 says it.
test_clock_skew()
{
    mkdir "$T/m"
    use_store http
    use_fault_proxy
    local body='<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message><RequestTime>20260101T000000Z</RequestTime><ServerTime>2026-06-01T00:00:00Z</ServerTime><RequestId>tx1</RequestId></Error>'
    printf 'HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
        ${#body} "$body" >"$T/answer"
    proxy_mode reply "$T/answer"
    refused -o "$STORE_OPTS" "$SOURCE" "$T/m" -- 'RequestTimeTooSkewed.*clock'
}

test_dead_mount_is_cleaned()
{
    use_store file
    mount_walefs m
    kill -KILL "${MOUNT_PID[m]}"
    wait "${MOUNT_PID[m]}" 2>/dev/null || true
    expect_fail "not connected" ls "$T/m"
    mount_walefs m
    ls "$T/m/wal"
    umount_walefs m
}

# Someone else's mount is not walefs' to clean.
test_foreign_mount_is_left()
{
    use_store file
    mkdir "$T/m"
    mount -t tmpfs -o size=1m none "$T/m"
    local rc=0
    timeout 60 "$WALEFS" "$SOURCE" "$T/m" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    [[ $rc != 0 ]] || fail "mounted over another file system"
    assert_match "$(cat "$T/err")" "$T/m" "message"
    assert_eq "$(stat -f -c %T "$T/m")" tmpfs "what is mounted"
    umount "$T/m"
}

test_background()
{
    local out t0
    use_store file
    mkdir "$T/m"
    t0=$SECONDS
    # A pipe that the daemon kept open would hang this.
    out=$(timeout 30 "$WALEFS" "$SOURCE" "$T/m" 2>&1 </dev/null) || fail "exit status $?: $out"
    ((SECONDS - t0 < 10)) || fail "the start took $((SECONDS - t0)) s"
    assert_eq "$out" "" "output"
    mountpoint -q "$T/m" || fail "exit 0, but nothing is mounted"
    ls "$T/m/wal"
    find_daemon "$T/m"
    assert_eq "$(readlink "/proc/$DAEMON/cwd")" / "working directory of the daemon"
    [[ $(ps -o tty= -p "$DAEMON") == *'?'* ]] || fail "the daemon keeps its terminal"
    [[ $(ps -o sid= -p "$DAEMON" | tr -d ' ') != "$(ps -o sid= -p $$ | tr -d ' ')" ]] ||
        fail "the daemon is in our session"
    assert_eq "$(find "/proc/$DAEMON/fd" -lname "$T/*" | wc -l)" 0 "inherited files"
    umount "$T/m"
    wait_for 10 "the daemon to end" gone "$DAEMON"
}

# Its own pipes and sockets must not take the places of files that its starter has closed.
test_started_without_standard_files()
{
    use_store file
    mkdir "$T/m"
    for closed in '<&-' '<&- >&-' '<&- >&- 2>&-'; do
        (eval "exec timeout 60 \"$WALEFS\" \"$SOURCE\" \"$T/m\" $closed") || fail "exit status $? with $closed"
        mountpoint -q "$T/m" || fail "nothing is mounted with $closed"
        find_daemon "$T/m"
        assert_eq "$(readlink "/proc/$DAEMON/fd/"{0,1,2} | sort -u)" /dev/null "standard files with $closed"
        echo one >"$T/m/dumps/x"
        assert_eq "$(cat "$T/m/dumps/x")" one "what was written"
        umount "$T/m"
        wait_for 10 "the daemon to end" gone "$DAEMON"
        rm "$STORE_DIR/dumps_005/x.lzo"
    done
}

# Who was killed while it waited for the mount has not been told that there is one, so there is none.
test_starter_killed()
{
    local starter
    use_store http
    use_fault_proxy
    mkdir "$T/m"
    proxy_mode hang
    "$WALEFS" -o "$STORE_OPTS" "$SOURCE" "$T/m" </dev/null >"$T/.out" 2>"$T/.err" &
    starter=$!
    wait_for 10 "the second process" pgrep -P $starter
    DAEMON=$(pgrep -P $starter)
    kill -KILL $starter
    ! reap_child $starter 10 "the starter" || fail "the starter was not killed"
    proxy_mode pass
    wait_for 60 "the daemon to end" gone "$DAEMON"
    assert_eq "$(mounts_below "$T")" "" "mounts"
}

test_nohup()
{
    use_store file
    mkdir "$T/m"
    (trap '' HUP && exec "$WALEFS" -f "$SOURCE" "$T/m" </dev/null >"$T/.out" 2>&1) &
    wait_for 30 "the mount" mountpoint -q "$T/m"
    kill -HUP $!
    sleep 1
    ls "$T/m/wal"
    kill -TERM $!
    reap_child $! 15 walefs || fail "exit status $?"
}

test_fusermount_and_signals()
{
    local sig
    use_store file
    mkdir "$T/d"
    mount_background "$T/d"
    fusermount3 -u "$T/d"
    wait_for 10 "the daemon to end" gone "$DAEMON"
    for sig in TERM INT HUP; do
        mount_background "$T/d"
        kill "-$sig" "$DAEMON"
        wait_for 10 "the daemon to end after SIG$sig" gone "$DAEMON"
        ! mountpoint -q "$T/d" || fail "still mounted after SIG$sig"
    done
    for sig in TERM INT HUP; do
        mount_walefs m
        kill "-$sig" "${MOUNT_PID[m]}"
        reap_child "${MOUNT_PID[m]}" 10 "walefs -f after SIG$sig" || fail "exit status $? after SIG$sig"
        ! mountpoint -q "$T/m" || fail "still mounted"
    done
}

# What is open when SIGTERM comes is finished or fails; it does not hang.
test_sigterm_while_writing()
{
    local pid
    use_store file
    mount_walefs m
    make_seg $A "$T/$A"
    mkfifo "$T/slow"
    cp "$T/slow" "$T/m/wal/$A" 2>"$T/err" &
    pid=$!
    exec 9>"$T/slow"
    head -c 5000000 "$T/$A" >&9
    sleep 0.5
    kill -TERM "${MOUNT_PID[m]}"
    exec 9>&-
    reap_child "${MOUNT_PID[m]}" 20 "walefs" || true
    ! reap_child $pid 10 cp || fail "cp of a part succeeded"
    ! mountpoint -q "$T/m" || fail "still mounted"
    assert_not_stored $A
}

test_modes_are_private()
{
    use_store file
    mount_walefs m
    make_seg $A "$T/$A"
    cp "$T/$A" "$T/m/wal/"
    expect_fail "Permission denied" runuser -u nobody -- ls "$T/m"
    expect_fail "Permission denied" runuser -u nobody -- cat "$T/m/wal/$A"
    local f
    for f in "$T/m" "$T/m/wal" "$T/m/wal/$A"; do
        assert_eq $((0$(stat -c %a "$f") & 077)) 0 "rights of others on $f ($(stat -c %a "$f"))"
        assert_eq "$(stat -c %u "$f")" "$(id -u)" "owner of $f"
    done
    umount_walefs m
    mount_walefs o "$(pg_mount_opts)"
    for f in "$T/o" "$T/o/wal" "$T/o/wal/$A"; do
        assert_eq $((0$(stat -c %a "$f") & 077)) 0 "rights of others on $f ($(stat -c %a "$f"))"
        assert_eq "$(stat -c %U "$f")" "$PG_OS_USER" "owner of $f"
    done
    cd /
    as_pg cmp "$T/o/wal/$A" - <"$T/$A"
    expect_fail "Permission denied" runuser -u nobody -- cat "$T/o/wal/$A"
    expect_fail "Permission denied" runuser -u nobody -- ls "$T/o/wal"
}

listing_is_true() # STORE
{
    local now
    use_store "$1"
    use_key gpg
    mount_walefs m
    make_seg $A "$T/$A"
    touch -d '2001-02-03' "$T/$A"
    now=$(date +%s)
    cp -p "$T/$A" "$T/m/wal/"
    umount_walefs m
    mount_walefs m
    assert_eq "$(stat -c %s "$T/m/wal/$A")" 16777216 "size"
    assert_eq "$(stat -c %F "$T/m/wal/$A")" "regular file" "type"
    local age=$(($(stat -c %Y "$T/m/wal/$A") - now))
    ((age > -30 && age < 60)) || fail "mtime is $age s from the time of archiving"
    stat -f "$T/m" >/dev/null || fail "stat -f"
    df -P "$T/m" >"$T/df" || fail "df"
    assert_eq "$(df -P "$T/m" | awk 'NR == 2 { print $6 }')" "$T/m" "df's mount point"
    (($(df -P -k "$T/m" | awk 'NR == 2 { print $4 }') > 16384)) || fail "df says that nothing is free"
    if [[ $1 == file ]]; then
        touch -d '2011-02-03 04:05:06 UTC' "$STORE_DIR/wal_005/$A.lzo"
        umount_walefs m
        mount_walefs m
        assert_eq "$(stat -c %Y "$T/m/wal/$A")" "$(date -d '2011-02-03 04:05:06 UTC' +%s)" "mtime"
    fi
    grep -q "$T/m fuse" /proc/mounts || fail "not in /proc/mounts"
}

test_listing_file()
{
    listing_is_true file
}

test_listing_s3()
{
    listing_is_true http
}

# ---- where the configuration comes from ---------------------------------------------------------

test_environment()
{
    use_store file
    make_seg $A "$T/$A" 1
    local dir=$STORE_DIR
    for SOURCE in - ''; do
        mkdir -p "$T/e"
        WALE_FILE_PREFIX="file://localhost$dir" timeout 30 "$WALEFS" ${SOURCE:+"$SOURCE"} "$T/e" </dev/null
        cp "$T/$A" "$T/e/wal/"
        find_daemon "$T/e"
        umount "$T/e"
        wait_for 10 "the daemon to end" gone "$DAEMON"
    done
    assert_archived $A "$T/$A"

    use_store http
    mkdir -p "$T/e"
    WALE_S3_PREFIX="$SOURCE" WALE_FILE_PREFIX="file://localhost$dir" \
        WALE_S3_ENDPOINT="http+path://${WALEFS_TEST_ENDPOINT#http://}" \
        timeout 30 "$WALEFS" "$T/e" </dev/null
    assert_eq "$(ls "$T/e/wal")" "" "ls: WALE_S3_PREFIX comes first"
    cp "$T/$A" "$T/e/wal/"
    umount "$T/e"
    assert_archived $A "$T/$A"
}

test_gpg_key_from_environment()
{
    use_store file
    use_key gpg
    KEY_OPTS=gpg_home=$T/gpg
    make_seg $A "$T/$A" 1
    export WALE_GPG_KEY_ID=$KEY_ID
    mount_walefs m
    unset WALE_GPG_KEY_ID
    cp "$T/$A" "$T/m/wal/"
    assert_archived $A "$T/$A"
    [[ $(head -c 4 "$T/.object" | od -An -tx1 | tr -d ' ') != 894c5a4f ]] || fail "not encrypted"
}

# One file per variable; trailing white space and further lines do not count.
make_envdir() # NAME=VALUE...
{
    local v
    mkdir -p "$T/env"
    for v in "$@"; do
        printf '%s \t\nsecond line\n' "${v#*=}" >"$T/env/${v%%=*}"
    done
    chmod 700 "$T/env"
}

test_envdir()
{
    use_store http
    make_seg $A "$T/$A" 1
    make_envdir "AWS_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY" \
        "WALE_S3_PREFIX=$SOURCE" "WALE_S3_ENDPOINT=http+path://${WALEFS_TEST_ENDPOINT#http://}" \
        "AWS_REGION=${AWS_REGION:-us-east-1}"
    mkdir "$T/e"
    env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY -u AWS_REGION \
        timeout 30 "$WALEFS" -o envdir="$T/env" - "$T/e" </dev/null
    cp "$T/$A" "$T/e/wal/"
    umount "$T/e"
    assert_archived $A "$T/$A"
    refused -o envdir="$T/no-such-env" - "$T/e" -- "$T/no-such-env"
}

# Options win over the envdir, the envdir over the environment.
test_precedence()
{
    local one two three
    mkdir "$T/e" "$T/one" "$T/two" "$T/three"
    one=file://localhost$T/one two=file://localhost$T/two three=file://localhost$T/three
    make_seg $A "$T/$A" 1
    make_envdir "WALE_FILE_PREFIX=$two"
    WALE_FILE_PREFIX=$one timeout 30 "$WALEFS" -o envdir="$T/env" "$T/e" </dev/null
    cp "$T/$A" "$T/e/wal/"
    umount "$T/e"
    [[ -e $T/two/wal_005/$A.lzo ]] || fail "the envdir did not win over the environment"
    find_and_wait "$T/e"
    WALE_FILE_PREFIX=$one timeout 30 "$WALEFS" -o envdir="$T/env" "$three" "$T/e" </dev/null
    cp "$T/$A" "$T/e/wal/"
    umount "$T/e"
    [[ -e $T/three/wal_005/$A.lzo ]] || fail "the argument did not win over the envdir"
    [[ ! -e $T/one/wal_005 ]] || fail "the environment's archive was written to"

    # A key: the option's wins over the envdir's, which does not exist.
    use_store file
    use_key gpg
    make_envdir "WALE_GPG_KEY_ID=DEADBEEF01234567"
    mount_walefs k "envdir=$T/env"
    umount_walefs k
    refused -o "gpg_home=$T/gpg,envdir=$T/env" "$SOURCE" "$T/e" -- DEADBEEF01234567
}

find_and_wait()
{
    local pid
    for pid in $(marked "$WALEFS_TEST_MARK"); do
        [[ $(readlink "/proc/$pid/exe") != "$(readlink -f "$WALEFS")" ]] ||
            wait_for 10 "a daemon to end" gone "$pid"
    done
}

test_storage_class_and_sse()
{
    use_store http
    make_seg $A "$T/$A" 1
    s3_server crypt
    mount_walefs m sse=AES256,storage_class=STANDARD
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    mount_walefs m
    assert_same "$T/m/wal/$A" "$T/$A"
    umount_walefs m
    s3_curl -I "$(s3_url "wal_005/$A.lzo")" >"$T/head"
    assert_match "$(cat "$T/head")" 'X-Amz-Storage-Class: STANDARD' "headers of the object"
    s3_server plain
    # This server knows no such class and no key server, so it refuses what asks for them.
    refused -o "$STORE_OPTS,storage_class=NONESUCH" "$SOURCE" "$T/m" -- "walefs_probe: InvalidArgument"
    refused -o "$STORE_OPTS,sse=aws:kms:some-key" "$SOURCE" "$T/m" -- "walefs_probe: "
}

# The style of the URL is what the option says.
# Names below localhost resolve to this machine, and radosgw takes what stands before it for a bucket.
test_url_style_virtual()
{
    use_store http
    STORE_OPTS=endpoint=http://localhost:${WALEFS_TEST_ENDPOINT##*:},url_style=virtual
    make_seg $A "$T/$A" 1
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    assert_same "$T/m/wal/$A" "$T/$A"
    umount_walefs m
    STORE_OPTS=endpoint=$WALEFS_TEST_ENDPOINT,url_style=path
    mount_walefs m
    assert_same "$T/m/wal/$A" "$T/$A"
}

# The address is in brackets in the URL and in what is signed; radosgw is behind a proxy that has it.
test_ipv6()
{
    use_store http
    use_fault_proxy ::1
    assert_match "$STORE_OPTS" '^endpoint=http://\[::1\]:[0-9]+$' "the endpoint"
    make_seg $A "$T/$A" 1
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    assert_same "$T/m/wal/$A" "$T/$A"
    assert_eq "$(ls "$T/m/wal")" $A "ls"
    umount_walefs m
    assert_archived $A "$T/$A"
    grep -q '^::1:' "$PROXY_DIR/connections" || fail "no connection over IPv6"
}

# What is named relative to the directory of the command stays valid in the background.
test_relative_paths()
{
    use_store file
    use_key gpg
    make_seg $A "$T/$A" 1
    mkdir "$T/m" "$T/cache"
    cd "$T" || return
    KEY_OPTS=gpg_key=$KEY_ID,gpg_home=$(basename "$T/gpg")
    timeout 60 "$WALEFS" -o "$KEY_OPTS,cache_dir=cache" "$SOURCE" "$T/m" </dev/null
    find_daemon "$T/m"
    cp "$T/$A" "$T/m/wal/"
    assert_same "$T/m/wal/$A" "$T/$A"
    umount "$T/m"
    wait_for 10 "the daemon to end" gone "$DAEMON"
}

# A mount point behind a symbolic link is unmounted, and cleaned, like any other.
test_mount_point_behind_a_link()
{
    use_store file
    mkdir "$T/real"
    ln -s real "$T/link"
    mount_background "$T/link"
    kill -TERM "$DAEMON"
    wait_for 20 "the daemon to end" gone "$DAEMON"
    ! mountpoint -q "$T/real" || fail "still mounted after SIGTERM"
    mount_background "$T/link"
    kill -KILL "$DAEMON"
    wait_for 20 "the daemon to end" gone "$DAEMON"
    mount_background "$T/link"
    ls "$T/link/wal"
    umount "$T/real"
}
