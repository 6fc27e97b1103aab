# shellcheck shell=bash disable=SC2034
# Proxies of the environment, how many connections many requests need, and which requests a copy needs.
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

# ---- what is asked for ------------------------------------------------------------------------------

# How many requests there were since the log was emptied.
asked() # REGEX
{
    grep -cE -- "$1" "$T/p/requests" || true
}

# How many objects were fetched whole: a look-up asks for a range.
fetched()
{
    asked '^GET [^ ]*/wal_005/[^ ]*$'
}

read_segment() # NUMBER
{
    local n
    n=$(seg_name "$1" 1)
    assert_same "$T/m/wal/$n" "$T/$n"
}

were_fetched() # NUMBER...
{
    local i
    for i in "$@"; do
        (($(asked "^GET .*wal_005/$(seg_name "$i" 1)[.]lzo$") == 1)) || return 1
    done
}

# A copy, in or out, and a segment that is missing are asked for by name, however many there are; and
# what is fetched besides is what the options of the mount say.
test_requests_of_a_copy()
{
    local i n
    use_store http
    use_key gpg
    start_proxy
    export http_proxy=http://127.0.0.1:$PORT no_proxy=
    for i in {1..8}; do
        n=$(seg_name "$i" 1)
        make_seg "$n" "$T/$n" 1
    done
    mount_walefs m prefetch=0
    : >"$T/p/requests"
    for i in {1..7}; do
        cp "$T/$(seg_name "$i" 1)" "$T/m/wal/"
    done
    assert_eq "$(asked '^PUT .*/wal_005/')" 7 "objects stored"
    umount_walefs m

    mount_walefs m prefetch=0
    : >"$T/p/requests"
    read_segment 1
    expect_fail 'No such file' cp "$T/m/wal/$(seg_name 8 1)" "$T/out"
    cp "$T/$(seg_name 8 1)" "$T/m/wal/"
    read_segment 1
    assert_eq "$(asked 'list-type')" 0 "listings: $(cat "$T/p/requests")"
    assert_eq "$(fetched)" 1 "objects fetched: $(cat "$T/p/requests")"
    (($(lines requests) <= 12)) || fail "$(lines requests) requests: $(cat "$T/p/requests")"
    umount_walefs m

    mount_walefs m prefetch=2,cache_size=64M
    : >"$T/p/requests"
    read_segment 1
    wait_for 20 "two segments to be read ahead" were_fetched 1 2 3
    read_segment 4
    wait_for 20 "the two behind the fourth" were_fetched 1 2 3 4 5 6
    assert_eq "$(fetched)" 6 "objects fetched: $(cat "$T/p/requests")"
    umount_walefs m

    mount_walefs m prefetch=0,cache_size=0
    : >"$T/p/requests"
    read_segment 1
    read_segment 1
    assert_eq "$(fetched)" 2 "objects fetched without a cache: $(cat "$T/p/requests")"
    umount_walefs m
}
