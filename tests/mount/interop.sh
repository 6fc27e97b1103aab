# shellcheck shell=bash disable=SC2034
# The archive's format against independent tools: lzop, gpg, curl, and what WAL-E itself wrote.
NEEDS_S3=1
FIXTURES=$ROOT/tests/fixtures/wal-e
A=000000010000000000000005
B=000000010000000000000006

# gpg home $T/rsa with WAL-E's key, its passphrase removed nowhere.
use_fixture_key()
{
    mkdir "$T/rsa"
    chmod 700 "$T/rsa"
    gpg_batch "$T/rsa" --passphrase-file "$FIXTURES/keys/passphrase.txt" \
        --import "$FIXTURES/keys/secret-with-passphrase.asc" 2>&1
    KEY_OPTS=gpg_home=$T/rsa,passphrase_file=$FIXTURES/keys/passphrase.txt
    GPG_READER=$T/rsa
    GPG_READER_PASS=$FIXTURES/keys/passphrase.txt
}

check_fixture() # MOUNT N
{
    assert_eq "$(sha256sum <"$T/$1/wal/00000001000000000000000$2" | cut -d' ' -f1)" \
        "$(grep "0$2\$" "$FIXTURES/wal.sha256" | cut -d' ' -f1)" "digest of segment $2"
}

written_by_us() # STORE
{
    local f
    use_store "$1"
    use_key gpg
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    printf '1\t0/5000000\treason\n' >"$T/h"
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    cp "$T/h" "$T/m/wal/00000002.history"
    umount_walefs m
    KEY_OPTS=
    mount_walefs m
    cp "$T/$B" "$T/m/wal/"
    umount_walefs m

    # With a key: OpenPGP outside, lzop inside; without: lzop.
    for f in "$A $A" "00000002.history h"; do
        store_get "wal_005/${f% *}.lzo" "$T/object"
        gpg_batch "$GPG_READER" -d <"$T/object" >"$T/lzo" || fail "gpg cannot decrypt ${f% *}"
        lzop -t <"$T/lzo" || fail "lzop finds fault with ${f% *}"
        lzop -dc <"$T/lzo" >"$T/plain"
        assert_same "$T/plain" "$T/${f#* }"
        gpg_batch "$GPG_READER" --list-packets <"$T/object" >"$T/packets" 2>/dev/null
        grep -q ':pubkey enc packet:' "$T/packets" || fail "not encrypted to a key"
        grep -q 'mdc_method: 2\|:aead encrypted' "$T/packets" || fail "no integrity protection"
    done
    store_get "wal_005/$B.lzo" "$T/object"
    lzop -dc <"$T/object" >"$T/plain"
    assert_same "$T/plain" "$T/$B"
    lzop --list <"$T/object" >/dev/null || fail "lzop cannot list $B"
}

test_written_by_us_file()
{
    written_by_us file
}

test_written_by_us_s3()
{
    written_by_us http
}

# Archives segment number COUNT the way CMD turns stdin into stdout.
add() # CMD...
{
    local n
    COUNT=$((COUNT + 1))
    n=$(seg_name "$COUNT" 1)
    make_seg "$n" "$T/$n" 1
    "$@" <"$T/$n" >"$T/o" || fail "$* failed"
    store_put "$T/o" "wal_005/$n.lzo"
}

from_file() # LZOP-OPTIONS...: name, mode, time and size go into the header
{
    cat >"$T/in"
    lzop "$@" -c "$T/in"
}

two_members()
{
    cat >"$T/in"
    head -c 400000 "$T/in" | lzop -c
    tail -c +400001 "$T/in" | lzop -c
}

encrypted() # GPG-OPTIONS... [-- LZOP-OPTIONS...]
{
    local gpg=()
    while [[ $# != 0 && $1 != -- ]]; do
        gpg+=("$1")
        shift
    done
    from_file "${@:2}" | gpg_batch "$GPG_READER" --trust-model always -e "${gpg[@]}"
}

# One archive with every way in which lzop and gpg may have written it.
written_by_tools() # STORE
{
    local ours i n
    COUNT=0
    use_store "$1"
    use_key gpg
    ours=$KEY_ID
    new_key "$T/other" other@example.com
    gpg_batch "$T/other" --export other@example.com | gpg_batch "$GPG_READER" --import

    for i in -1 -2 -3 -6 -7 -9 --crc32 -C; do
        add from_file $i
        add encrypted -z 0 -r "$ours" -- $i
    done
    add encrypted -z 0 -r "$ours" -- -F
    add lzop -c
    add two_members
    add encrypted -z 6 -r "$ours"
    add encrypted -z 0 --cipher-algo CAMELLIA128 -r "$ours"
    add encrypted -z 0 -r "$ours" -r "$KEY_ID"
    add encrypted -z 0 -R "$ours"

    # Decoding goes by the object: the same with a key to write with, and without.
    for KEY_OPTS in "gpg_home=$GPG_READER,gpg_key=$ours" "gpg_home=$GPG_READER"; do
        mount_walefs m
        for ((i = 1; i <= COUNT; i++)); do
            n=$(seg_name "$i" 1)
            assert_same "$T/m/wal/$n" "$T/$n"
        done
        assert_eq "$(find "$T/m/wal" -type f -size 1048576c | wc -l)" "$COUNT" "files of 1 MiB"
        umount_walefs m
    done
}

test_written_by_tools_file()
{
    written_by_tools file
}

test_written_by_tools_s3()
{
    written_by_tools http
}

wal_e_archive() # STORE
{
    use_store "$1"
    use_fixture_key
    # Mixed: one segment as archived without the key, one with it.
    store_put "$FIXTURES/plain/wal_005/000000010000000000000002.lzo" \
        wal_005/000000010000000000000002.lzo
    store_put "$FIXTURES/gpg/wal_005/000000010000000000000003.lzo" \
        wal_005/000000010000000000000003.lzo
    mount_walefs m
    assert_eq "$(find "$T/m/wal" -type f -printf '%f %s\n' | sort | tr '\n' ' ')" \
        "000000010000000000000002 16777216 000000010000000000000003 16777216 " "listing"
    check_fixture m 2
    check_fixture m 3
    umount_walefs m
    store_put "$FIXTURES/gpg/wal_005/000000010000000000000002.lzo" \
        wal_005/000000010000000000000002.lzo
    mount_walefs m
    check_fixture m 2
}

test_wal_e_archive_file()
{
    wal_e_archive file
}

test_wal_e_archive_s3()
{
    wal_e_archive http
}

# PostgreSQL archives again what WAL-E had archived: the object stays WAL-E's.
test_again_over_wal_e()
{
    local n=000000010000000000000002
    use_store file
    use_fixture_key
    mkdir "$STORE_DIR/wal_005"
    for kind in plain gpg; do
        cp "$FIXTURES/$kind/wal_005/$n.lzo" "$STORE_DIR/wal_005/"
        mount_walefs m
        cat "$T/m/wal/$n" >"$T/$n"
        umount_walefs m
        mount_walefs m
        cp "$T/$n" "$T/m/wal/$n"
        assert_same "$STORE_DIR/wal_005/$n.lzo" "$FIXTURES/$kind/wal_005/$n.lzo"
        make_seg $n "$T/other"
        expect_fail "File exists" cp "$T/other" "$T/m/wal/$n"
        assert_same "$STORE_DIR/wal_005/$n.lzo" "$FIXTURES/$kind/wal_005/$n.lzo"
        umount_walefs m
    done
}

test_two_recipients()
{
    local one two
    use_store file
    new_key "$T/one" one@example.com
    one=$KEY_ID
    new_key "$T/two" two@example.com
    two=$KEY_ID
    mkdir "$T/both"
    chmod 700 "$T/both"
    { gpg_batch "$T/one" --export one@example.com; } | gpg_batch "$T/both" --import 2>&1
    { gpg_batch "$T/two" --export two@example.com; } | gpg_batch "$T/both" --import 2>&1
    make_seg $A "$T/$A"
    make_seg $B "$T/$B"
    # Only public keys here: what can archive need not be able to read.
    KEY_OPTS=gpg_home=$T/both,gpg_key=$one:$two
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    KEY_OPTS=gpg_home=$T/both,gpg_key=one@example.com,gpg_key=two@example.com
    mount_walefs m
    cp "$T/$B" "$T/m/wal/"
    umount_walefs m
    for GPG_READER in "$T/one" "$T/two"; do
        assert_archived $A "$T/$A"
        assert_archived $B "$T/$B"
        KEY_OPTS=gpg_home=$GPG_READER
        mount_walefs m
        assert_same "$T/m/wal/$A" "$T/$A"
        assert_same "$T/m/wal/$B" "$T/$B"
        umount_walefs m
    done
}

# Only public keys: archiving the same again must still be recognised.
test_again_without_secret_key()
{
    use_store file
    new_key "$T/full" one@example.com
    mkdir "$T/public"
    chmod 700 "$T/public"
    gpg_batch "$T/full" --export one@example.com | gpg_batch "$T/public" --import 2>&1
    make_seg $A "$T/$A"
    make_seg $A "$T/other" 16 other
    KEY_OPTS=gpg_home=$T/public,gpg_key=$KEY_ID
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    expect_fail "File exists" cp "$T/other" "$T/m/wal/$A"
}

foreign() # STORE
{
    local key
    use_store "$1"
    use_key none
    make_seg $A "$T/$A" 1
    lzop -c "$T/$A" >"$T/o"
    store_put "$T/o" "wal_005/$A.lzo"
    echo rubbish >"$T/junk"
    for key in "wal_005/$A.lz4" "wal_005/$A" "wal_005/$A.lzo.bak" "wal_005/$B.zst" "wal_005/README" \
        "wal_005/junk.lzo" "wal_005/sub/$B.lzo" "wal_005/${A,,}a.lzo" "wal_005/$A.history.lzo" \
        "wal_005/.lzo" "wal_006/$B.lzo" "basebackups_005/x" "junk"; do
        store_put "$T/junk" "$key"
    done
    store_ls '' >"$T/before"
    mount_walefs m
    assert_eq "$(ls -A "$T/m/wal")" "$A" "ls"
    [[ ! -e $T/m/wal/$B ]] || fail "$B exists"
    [[ ! -e $T/m/wal/$A.lzo ]] || fail "$A.lzo exists"
    expect_fail "No such file" cat "$T/m/wal/$B"
    assert_same "$T/m/wal/$A" "$T/$A"
    store_get "wal_005/$A.lz4" "$T/again"
    assert_same "$T/again" "$T/junk"
    make_seg $B "$T/$B" 1
    cp "$T/$B" "$T/m/wal/$B"
    assert_archived $B "$T/$B"
    store_get "wal_005/$B.zst" "$T/again"
    assert_same "$T/again" "$T/junk"
    assert_eq "$(ls -A "$T/m/wal")" "$A"$'\n'"$B" "ls"
    umount_walefs m
    mount_walefs m allow_delete
    rm "$T/m/wal/$A" "$T/m/wal/$B"
    umount_walefs m
    assert_eq "$(store_ls '' | grep -vx walefs_probe)" "$(grep -vx "wal_005/$A.lzo" "$T/before")" "what is left"
}

test_foreign_objects_file()
{
    foreign file
}

test_foreign_objects_s3()
{
    foreign http
}

# Prefixes that URLs encode, and one that ends in a slash.
test_s3_prefixes()
{
    local p
    use_store http
    use_key none
    make_seg $A "$T/$A" 1
    for p in "a b+c=d/übung" "trailing/" "deep/er/still"; do
        SOURCE="s3://$WALEFS_TEST_BUCKET/$WALEFS_TEST_MARK/$p"
        mount_walefs m
        cp "$T/$A" "$T/m/wal/"
        assert_same "$T/m/wal/$A" "$T/$A"
        assert_eq "$(ls "$T/m/wal")" "$A" "ls"
        umount_walefs m
        mount_walefs m
        assert_same "$T/m/wal/$A" "$T/$A"
        umount_walefs m
    done
    STORE_PREFIX=$WALEFS_TEST_MARK/trailing
    assert_archived $A "$T/$A"
}
