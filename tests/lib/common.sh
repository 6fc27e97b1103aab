# shellcheck shell=bash
# What scenarios, benchmarks and the runner share. Only functions: sourcing it does nothing.
#
# Set by the runner: ROOT (project), WALEFS (program), RUN (directory of the whole run), T (directory
# of this test, 0711 so that the PostgreSQL user can pass through it), WALEFS_TEST_MARK (in the
# environment of all that a test starts, so that exactly this can be ended afterwards).

# ---- outcome ------------------------------------------------------------------------------------

note()
{
    printf '# %s\n' "$*"
}

# Ends the test. Says where the test itself was, not the helper.
fail()
{
    local i
    for ((i = 1; i < ${#BASH_SOURCE[@]}; i++)); do
        if [[ ${BASH_SOURCE[i]} == */tests/mount/* ]]; then
            printf 'at %s:%s: ' "${BASH_SOURCE[i]##*/}" "${BASH_LINENO[i - 1]}" >&2
            break
        fi
    done
    printf '%s\n' "$*" >&2
    trap - ERR
    exit 1
}

assert_eq() # GOT WANTED WHAT
{
    [[ $1 == "$2" ]] || fail "$3: got '$1', wanted '$2'"
}

assert_same() # FILE FILE
{
    cmp -- "$1" "$2" || fail "$1 and $2 differ"
}

assert_match() # TEXT REGEX WHAT  (case does not matter)
{
    grep -Eiq -e "$2" <<<"$1" || fail "$3: /$2/ is not in: $1"
}

assert_log() # NAME REGEX
{
    grep -Eiq -e "$2" "$T/$1.log" || fail "the log of mount $1 has no line like /$2/"
}

# The command must fail, with an error that matches REGEX ("": any) on stderr.
expect_fail() # REGEX CMD...
{
    local regex=$1 rc=0
    shift
    "$@" >"$T/.out" 2>"$T/.err" </dev/null || rc=$?
    [[ $rc != 0 ]] || fail "should have failed with '$regex': $*"
    [[ -z $regex ]] || grep -Eiq -e "$regex" "$T/.err" || fail "$* failed ($rc), but not with '$regex': $(cat "$T/.err")"
}

# Polls until the command is true.
wait_for() # SECONDS WHAT CMD...
{
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "waited in vain for $what"
        sleep 0.1
    done
}

now_ms()
{
    local t=${EPOCHREALTIME/[.,]/}
    echo $((t / 1000))
}

# ---- processes ----------------------------------------------------------------------------------

alive()
{
    local state
    state=$(ps -o stat= -p "$1" 2>/dev/null) && [[ $state != Z* ]]
}

gone()
{
    ! alive "$1"
}

# Waits for the end of a child and returns its status; fails when it does not end.
reap_child() # PID SECONDS WHAT
{
    local end=$((SECONDS + $2)) rc=0
    while alive "$1"; do
        ((SECONDS < end)) || fail "$3 did not end within $2 s"
        sleep 0.05
    done
    wait "$1" || rc=$?
    return "$rc"
}

# The processes that carry MARK in their environment.
marked()
{
    local f pid
    for f in $(grep -lzsx "WALEFS_TEST_MARK=$1" /proc/[0-9]*/environ 2>/dev/null || true); do
        pid=${f#/proc/}
        pid=${pid%/environ}
        [[ $pid == "$$" || $pid == "$BASHPID" ]] || echo "$pid"
    done
}

# The processes of this test that run PROGRAM (a base name), one per line.
marked_running() # PROGRAM
{
    local pid
    for pid in $(marked "$WALEFS_TEST_MARK"); do
        [[ $(readlink "/proc/$pid/exe") != */"$1" ]] || echo "$pid"
    done
}

mounts_below()
{
    awk -v d="$1/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

signal_marked() # SIGNAL MARK [PROGRAM]: those running PROGRAM only
{
    local pid
    for pid in $(marked "$2"); do
        [[ -z ${3:-} || $(readlink "/proc/$pid/exe") == "$3" ]] || continue
        kill "-$1" "$pid" 2>/dev/null || true
    done
}

# Ends all that a test left behind, mounts first, so that nothing stays stuck on them.
sweep() # DIR MARK
{
    local dir=$1 mark=$2 i m
    if [[ -n $(marked "$mark") || -n $(mounts_below "$dir") ]]; then
        signal_marked TERM "$mark" "$(readlink -f "${WALEFS:-/nonexistent}")"
        for m in $(mounts_below "$dir"); do
            umount -l "$m" 2>/dev/null || true
        done
        for i in {1..30}; do
            [[ -n $(marked "$mark") ]] || break
            ((i != 2)) || signal_marked TERM "$mark"
            ((i != 12)) || signal_marked QUIT "$mark"
            ((i != 20)) || signal_marked KILL "$mark"
            sleep 0.1
        done
    fi
}

rss_kib() # PID
{
    awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

# ---- mounts -------------------------------------------------------------------------------------

declare -gA MOUNT_PID=()
STORE_OPTS=
KEY_OPTS=
SOURCE=

join_opts()
{
    local o out=
    for o in "$@"; do
        [[ -z $o ]] || out+=${out:+,}$o
    done
    echo "$out"
}

mount_ready() # NAME
{
    mountpoint -q "$T/$1" && timeout 5 stat "$T/$1/wal" >/dev/null 2>&1
}

# Mounts $SOURCE at $T/NAME with the options of the store and the keys, and those given. In the
# foreground of a child of this shell; its log is $T/NAME.log.
times_mounted() # NAME
{
    if [[ -e $T/$1.log ]]; then
        sed -n '/is mounted on/p' "$T/$1.log" | wc -l
    else
        echo 0
    fi
}

mount_walefs() # NAME [OPTIONS...]
{
    local name=$1 opts end said
    opts=$(join_opts "$STORE_OPTS" "$KEY_OPTS" "${@:2}")
    mkdir -p "$T/$name"
    said=$(times_mounted "$name")
    "$WALEFS" -f ${opts:+-o "$opts"} "$SOURCE" "$T/$name" </dev/null >>"$T/$name.log" 2>&1 &
    MOUNT_PID[$name]=$!
    end=$((SECONDS + 30))
    # A dead mount there is a mount as well: what counts is that the new one says so.
    until (($(times_mounted "$name") > said)) && mount_ready "$name"; do
        alive "${MOUNT_PID[$name]}" || fail "walefs ended instead of mounting: $(tail -n 3 "$T/$name.log")"
        ((SECONDS < end)) || fail "the mount was not ready after 30 s"
        sleep 0.05
    done
}

# Unmounts, and wants a clean end of the program.
umount_walefs() # NAME
{
    local rc=0
    umount "$T/$1" || fail "umount $1 failed"
    reap_child "${MOUNT_PID[$1]}" 15 "walefs of mount $1" || rc=$?
    assert_eq "$rc" 0 "exit status of walefs after umount"
    unset "MOUNT_PID[$1]"
}

# Options for a mount by root that PostgreSQL's user works on.
pg_mount_opts()
{
    [[ $(id -u) == 0 ]] || return 0
    echo "allow_other,uid=$(id -u "$PG_OS_USER"),gid=$(id -g "$PG_OS_USER")"
}

# ---- stores -------------------------------------------------------------------------------------

# Chooses where the archive of this test is, empty: sets SOURCE and STORE_OPTS.
use_store() # file|http|https
{
    STORE=$1
    ARCHIVE=${2:-a}
    case $1 in
    file)
        STORE_DIR=$T/store/$ARCHIVE
        mkdir -p "$STORE_DIR"
        SOURCE=file://localhost$STORE_DIR
        STORE_OPTS=
        ;;
    http | https)
        STORE_PREFIX=$WALEFS_TEST_MARK/$ARCHIVE
        SOURCE=s3://$WALEFS_TEST_BUCKET/$STORE_PREFIX
        STORE_OPTS=endpoint=$WALEFS_TEST_ENDPOINT
        if [[ $1 == https ]]; then
            STORE_OPTS=endpoint=$WALEFS_TEST_ENDPOINT_TLS,cafile=$WALEFS_TEST_CA
        fi
        ;;
    *) fail "no such kind of store: $1" ;;
    esac
}

# The independent client that looks into S3 behind walefs' back. curl does not sort a query's
# parameters for the signature: give them in order.
s3_curl()
{
    curl -sS --fail --max-time 60 --aws-sigv4 "aws:amz:${AWS_REGION:-us-east-1}:s3" \
        -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
        --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$@"
}

s3_url() # KEY
{
    echo "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET/$STORE_PREFIX/$1"
}

store_get() # KEY FILE
{
    if [[ $STORE == file ]]; then
        cp -- "$STORE_DIR/$1" "$2"
    else
        s3_curl -o "$2" "$(s3_url "$1")"
    fi
}

store_put() # FILE KEY
{
    if [[ $STORE == file ]]; then
        mkdir -p "$(dirname -- "$STORE_DIR/$2")"
        cp -- "$1" "$STORE_DIR/$2"
    else
        s3_curl -o /dev/null -T "$1" "$(s3_url "$2")"
    fi
}

store_rm() # KEY
{
    if [[ $STORE == file ]]; then
        rm -- "$STORE_DIR/$1"
    else
        s3_curl -o /dev/null -X DELETE "$(s3_url "$1")"
    fi
}

# All keys below PREFIX, sorted.
store_ls() # PREFIX
{
    if [[ $STORE == file ]]; then
        (cd "$STORE_DIR" && find . -type f -printf '%P\n') | grep "^$1" | sort || true
    else
        local after='' page prefix=$STORE_PREFIX/$1
        while :; do
            page=$(s3_curl "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET?list-type=2&prefix=${prefix//\//%2F}${after:+&start-after=${after//\//%2F}}")
            grep -o '<Key>[^<]*' <<<"$page" | sed "s,<Key>$STORE_PREFIX/,," || true
            grep -q '<IsTruncated>true' <<<"$page" || break
            after=$(grep -o '<Key>[^<]*' <<<"$page" | tail -n 1 | sed 's,<Key>,,')
        done | sort
    fi
}

# What is being stored in parts on S3: the keys. Fails when it cannot be asked.
store_uploads()
{
    local page
    page=$(s3_curl "$WALEFS_TEST_ENDPOINT/$WALEFS_TEST_BUCKET?prefix=${STORE_PREFIX//\//%2F}&uploads=") || return 1
    [[ $page == *ListMultipartUploadsResult* ]] || return 1
    grep -o '<Key>[^<]*' <<<"$page" | sed "s,<Key>$STORE_PREFIX/,," || true
}

stored() # WAL-NAME
{
    [[ -n $(store_ls "wal_005/$1.lzo") ]]
}

assert_not_stored() # WAL-NAME
{
    ! stored "$1" || fail "$1 was published"
}

# ---- contents -----------------------------------------------------------------------------------

# What lzop and gpg make of an object, knowing nothing of walefs. GPG_READER: the gpg home.
decode_object() # FILE OUT
{
    if [[ $(head -c 4 "$1" | od -An -tx1 | tr -d ' ') == 894c5a4f ]]; then
        lzop -dc <"$1" >"$2"
    else
        gpg -q --batch --homedir "$GPG_READER" --pinentry-mode loopback \
            ${GPG_READER_PASS:+--passphrase-file "$GPG_READER_PASS"} -d <"$1" | lzop -dc >"$2"
    fi
}

# The archived NAME must decode to the bytes of FILE.
assert_archived() # NAME FILE
{
    store_get "wal_005/$1.lzo" "$T/.object" || fail "$1 is not in the archive"
    decode_object "$T/.object" "$T/.plain" || fail "gpg and lzop cannot read the object of $1"
    assert_same "$T/.plain" "$2"
}

# The name of the Nth segment (from 1) of timeline 1.
seg_name() # N [SIZE_MIB [TIMELINE]]
{
    local per=$((4096 / ${2:-16}))
    printf '%08X%08X%08X\n' "${3:-1}" $(($1 / per)) $(($1 % per))
}

make_seg() # NAME OUT [SIZE_MIB [SEED]]
{
    python3 "$ROOT/tests/lib/walseg.py" "$1" "${3:-16}" "$2" "${4:-}"
}

# ---- keys ---------------------------------------------------------------------------------------

gpg_batch() # HOME ARGS...
{
    gpg --batch -q --homedir "$1" --pinentry-mode loopback "${@:2}"
}

# A gpg home with one new key; sets KEY_ID to its fingerprint.
new_key() # HOME EMAIL [PASSPHRASE [EXPIRE]]
{
    mkdir -p "$1"
    chmod 700 "$1"
    gpg_batch "$1" --gen-key >/dev/null 2>&1 <<END || fail "gpg cannot make a key"
$([[ -n ${3:-} ]] || echo %no-protection)
Key-Type: RSA
Key-Length: 2048
Key-Usage: sign
Subkey-Type: RSA
Subkey-Length: 2048
Subkey-Usage: encrypt
Name-Real: Test
Name-Email: $2
Expire-Date: ${4:-0}
$([[ -z ${3:-} ]] || echo "Passphrase: $3")
END
    KEY_ID=$(gpg_batch "$1" --with-colons --list-keys "$2" | awk -F: '/^fpr/ { print $10; exit }')
}

# Encrypts to a new key of this test from here on, or (none) does not.
use_key() # none|gpg
{
    KEY_OPTS=
    [[ $1 == gpg ]] || return 0
    GPG_READER=$T/gpg
    new_key "$GPG_READER" archive@example.com
    KEY_OPTS=gpg_home=$GPG_READER,gpg_key=$KEY_ID
}

# ---- a store that misbehaves --------------------------------------------------------------------

# The server belongs to the whole run, not to this test.
s3_server() # VERB
{
    WALEFS_TEST_MARK=${WALEFS_TEST_MARK%-*}-s3 "$ROOT/tests/lib/radosgw.sh" "$1" "$RUN/s3"
}

# Puts a proxy before radosgw, at an IPv6 address if one is given, and points STORE_OPTS to it; proxy_mode
# steers it.
use_fault_proxy() # [ADDRESS]
{
    PROXY_DIR=$T/proxy
    mkdir -p "$PROXY_DIR"
    python3 "$ROOT/tests/lib/faultproxy.py" "${WALEFS_TEST_ENDPOINT#http://}" "$PROXY_DIR" "$@" &
    wait_for 10 "the proxy" test -s "$PROXY_DIR/port"
    STORE_OPTS=endpoint=http://${1:+[}${1:-127.0.0.1}${1:+]}:$(cat "$PROXY_DIR/port")
}

proxy_mode()
{
    echo "$*" >"$PROXY_DIR/mode.new"
    mv "$PROXY_DIR/mode.new" "$PROXY_DIR/mode"
}
