# shellcheck shell=bash disable=SC2034
# Proxies of the environment, and how many connections many requests need.
NEEDS_S3=1
A=000000010000000000000005

# Starts a forward proxy; its port is in PORT, its process in SERVER. See httpproxy.py for what is in $T/p.
start_proxy()
{
    mkdir -p "$T/p"
    rm -f "$T/p/port"
    : >"$T/p/requests"
    : >"$T/p/connections"
    python3 "$ROOT/tests/lib/httpproxy.py" "$T/p" &
    SERVER=$!
    wait_for 10 "the proxy" test -s "$T/p/port"
    PORT=$(cat "$T/p/port")
}

lines() # FILE
{
    wc -l <"$T/p/$1"
}

# Writes, lists and reads through mount m.
use_mount()
{
    make_seg $A "$T/$A"
    cp "$T/$A" "$T/m/wal/"
    echo dump >"$T/m/dumps/x"
    assert_same "$T/m/wal/$A" "$T/$A"
    assert_eq "$(ls "$T/m/dumps")" x "dumps"
}

# Many requests one after the other: each that is answered leaves its connection to the next.
many_requests()
{
    local before i
    before=$(lines requests)
    for i in {1..40}; do
        expect_fail 'No such file' stat "$T/m/wal/0000000100000000000000$(printf %02X $((i + 16)))"
    done
    (($(lines requests) >= before + $1)) || fail "only $(($(lines requests) - before)) requests"
}

test_http()
{
    use_store http
    use_key none
    start_proxy
    export http_proxy=http://127.0.0.1:$PORT https_proxy=http://127.0.0.1:1 no_proxy=
    mount_walefs m
    use_mount
    many_requests 40
    assert_match "$(cat "$T/p/requests")" "^PUT $WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET/.*wal_005/$A" "what went through it"
    # a few of them at once, and not one for each of the requests
    (($(lines connections) <= 12)) || fail "$(lines connections) connections for $(lines requests) requests"
    umount_walefs m
}

# A tunnel each, and TLS with the store through it.
test_https()
{
    use_store https
    use_key none
    start_proxy
    export https_proxy=http://127.0.0.1:$PORT http_proxy=http://127.0.0.1:1 no_proxy=
    mount_walefs m
    use_mount
    many_requests 0
    assert_eq "$(grep -cv "^CONNECT ${WALEFS_TEST_ENDPOINT_TLS#https://}\$" "$T/p/requests" || true)" 0 "requests that are no tunnel"
    (($(lines connections) >= 1 && $(lines connections) <= 12)) || fail "$(lines connections) tunnels"
    umount_walefs m
}

test_no_proxy()
{
    use_store http
    use_key none
    start_proxy
    export http_proxy=http://127.0.0.1:$PORT no_proxy=example.com,127.0.0.1
    mount_walefs m
    use_mount
    assert_eq "$(lines connections)" 0 "connections to the proxy"
    umount_walefs m
    # of another host only
    no_proxy=example.com mount_walefs m
    (($(lines connections) > 0)) || fail "the proxy was not asked"
    umount_walefs m
}

# The proxy is named, and not its password.
test_down()
{
    local rc=0
    use_store http
    use_key none
    start_proxy
    make_seg $A "$T/$A"
    export http_proxy=http://operator:geheim@127.0.0.1:$PORT no_proxy=
    mount_walefs m write_timeout=2
    cp "$T/$A" "$T/m/wal/"
    kill "$SERVER"
    wait "$SERVER" || true
    "$WALEFS" check -o "$STORE_OPTS" "$SOURCE" >"$T/out" 2>&1 </dev/null || rc=$?
    assert_eq $rc 3 "exit status of check"
    assert_match "$(cat "$T/out")" "^unknown +list .*cannot connect to the proxy 127.0.0.1 port $PORT: .*refused.*no_proxy" "check"
    expect_fail 'Input/output error' timeout 60 cp "$T/$A" "$T/m/wal/${A%5}6.partial"
    assert_log m "cannot connect to the proxy 127.0.0.1 port $PORT"
    ! grep -r geheim "$T/out" "$T/m.log" "$T/m/status/" || fail "the proxy's password shows"
    # without a proxy it is the endpoint that is named
    http_proxy='' "$WALEFS" check -o endpoint=http://127.0.0.1:1 "$SOURCE" >"$T/out" 2>&1 </dev/null || true
    assert_match "$(cat "$T/out")" "^unknown +list .*http://127.0.0.1:1: cannot connect: .*check the endpoint" "check"
    umount_walefs m
}

test_wants_credentials()
{
    local rc=0
    use_store http
    start_proxy
    touch "$T/p/refuse"
    http_proxy=http://127.0.0.1:$PORT no_proxy='' "$WALEFS" check -o "$STORE_OPTS" "$SOURCE" >"$T/out" 2>&1 </dev/null || rc=$?
    ((rc != 0)) || fail "all is well"
    assert_match "$(cat "$T/out")" "the proxy wants credentials" "check"
}

# Without a proxy in between.
test_connections_are_reused()
{
    local before
    use_store http
    use_key none
    use_fault_proxy
    mount_walefs m
    use_mount
    mkdir -p "$T/p"
    ln -s "$PROXY_DIR/connections" "$T/p/connections"
    : >"$T/p/requests"
    before=$(lines connections)
    many_requests 0
    (($(lines connections) <= before + 8)) || fail "$(($(lines connections) - before)) connections for 40 requests"
    umount_walefs m
}
