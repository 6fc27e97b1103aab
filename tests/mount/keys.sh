# shellcheck shell=bash disable=SC2034
# Keys: with a passphrase, wrong, unknown, expired; and that no secret shows anywhere.
FIXTURES=$ROOT/tests/fixtures/wal-e
A=000000010000000000000005
B=000000010000000000000006

# The mount must fail by itself, soon, with one message that matches.
expect_no_mount() # REGEX OPTIONS
{
    local t0=$SECONDS
    mkdir -p "$T/none"
    expect_fail "$1" timeout -k 5 40 "$WALEFS" -f -o "$2" "$SOURCE" "$T/none"
    ((SECONDS - t0 < 30)) || fail "the refusal took $((SECONDS - t0)) s"
    ! mountpoint -q "$T/none" || fail "mounted all the same"
}

# gpg home $T/locked with a key that has the passphrase "open sesame" in $T/pass.
locked_key()
{
    new_key "$T/locked" locked@example.com "open sesame"
    echo "open sesame" >"$T/pass"
    chmod 600 "$T/pass"
    gpgconf --homedir "$T/locked" --kill gpg-agent
}

test_passphrase_file()
{
    use_store file
    locked_key
    make_seg $A "$T/$A"
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    mount_walefs m
    assert_same "$T/m/wal/$A" "$T/$A"
    umount_walefs m
    GPG_READER=$T/locked GPG_READER_PASS=$T/pass
    assert_archived $A "$T/$A"
}

test_passphrase_file_reads_wal_e()
{
    local n
    use_store file
    mkdir "$T/rsa"
    chmod 700 "$T/rsa"
    gpg_batch "$T/rsa" --passphrase-file "$FIXTURES/keys/passphrase.txt" \
        --import "$FIXTURES/keys/secret-with-passphrase.asc"
    gpgconf --homedir "$T/rsa" --kill gpg-agent
    cp -r "$FIXTURES/gpg/wal_005" "$STORE_DIR/"
    KEY_OPTS=gpg_home=$T/rsa,passphrase_file=$FIXTURES/keys/passphrase.txt
    mount_walefs m
    (cd "$T/m/wal" && sha256sum -c "$FIXTURES/wal.sha256") || fail "wrong content"
}

# How many bytes of the passphrase, repeated, are hashed to use the keys in the private home of mount
# NAME. (Those that only sign stay as they were imported.)
hashed_bytes() # NAME
{
    local home f text
    home=$(readlink "/proc/${MOUNT_PID[$1]}"/fd/* | grep /walefs-gpg. | head -n 1)
    [[ -d $home ]] || fail "no private gpg home"
    for f in "$home"/private-keys-v1.d/*.key; do
        text=$(tr -d '\n ' <"$f")
        [[ $text == *openpgp-native* ]] || grep -aoE '"[0-9]+"\)' <<<"$text" | tr -dc '0-9\n'
    done | sort -u
}

# The key is unlocked once, with the many thousand rounds that guard it, and not for each object.
test_unlocked_once()
{
    local i n t0 took
    use_store file
    locked_key
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass,prefetch=0
    mount_walefs m
    for i in {1..20}; do
        n=$(seg_name "$i" 1)
        make_seg "$n" "$T/$n" 1
        cp "$T/$n" "$T/m/wal/"
    done
    umount_walefs m
    mount_walefs m
    assert_eq "$(hashed_bytes m)" 65536 "bytes hashed for each object"
    t0=$(now_ms)
    for i in {1..20}; do
        n=$(seg_name "$i" 1)
        assert_same "$T/m/wal/$n" "$T/$n"
    done
    took=$((($(now_ms) - t0) / 20))
    echo "# figure: a 1 MiB segment under a protected key is read in $took ms"
    assert_eq "$(hashed_bytes m)" 65536 "bytes hashed for each object"
    umount_walefs m
}

test_wrong_passphrase()
{
    use_store file
    locked_key
    echo wrong >"$T/pass"
    expect_no_mount passphrase "gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass"
    : >"$T/pass"
    expect_no_mount passphrase "gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass"
    expect_no_mount "$T/no-such" "gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/no-such"
}

test_unknown_key()
{
    use_store file
    new_key "$T/gpg" archive@example.com
    expect_no_mount "DEADBEEF01234567" "gpg_home=$T/gpg,gpg_key=DEADBEEF01234567"
    expect_no_mount "DEADBEEF01234567" "gpg_home=$T/gpg,gpg_key=$KEY_ID:DEADBEEF01234567"
    expect_no_mount "nobody@example.com" "gpg_home=$T/gpg,gpg_key=nobody@example.com"
}

test_expired_key()
{
    use_store file
    new_key "$T/gpg" archive@example.com "" seconds=1
    sleep 2
    expect_no_mount expired "gpg_home=$T/gpg,gpg_key=$KEY_ID"
    # Reading does not need a key that can still be written to.
    mount_walefs r ro "gpg_home=$T/gpg"
}

# With allow_expired it is really encrypted to that key, and gpg reads it.
test_allow_expired()
{
    use_store file
    new_key "$T/gpg" archive@example.com "" seconds=1
    sleep 2
    make_seg $A "$T/$A" 1
    KEY_OPTS=gpg_home=$T/gpg,gpg_key=$KEY_ID
    mount_walefs m allow_expired
    assert_log m "warning: key $KEY_ID .* expired on .* allow_expired"
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    GPG_READER=$T/gpg
    assert_archived $A "$T/$A"
    gpg_batch "$T/gpg" --list-packets "$STORE_DIR/wal_005/$A.lzo" 2>&1 | grep -q "pubkey enc packet" ||
        fail "not encrypted to a key"
    mount_walefs r ro
    assert_same "$T/r/wal/$A" "$T/$A"
}

test_key_expires_soon()
{
    use_store file
    new_key "$T/gpg" archive@example.com "" 20d
    mount_walefs m "gpg_home=$T/gpg" "gpg_key=$KEY_ID"
    assert_log m "warning: key $KEY_ID .* expires on .*nothing can be archived"
    umount_walefs m
    new_key "$T/gpg2" other@example.com "" 60d
    mount_walefs n "gpg_home=$T/gpg2" "gpg_key=$KEY_ID"
    ! grep -q expires "$T/n.log" || fail "warned 60 days before"
}

# As systemd hands it to a unit with LoadCredential=passphrase:FILE.
test_passphrase_from_credentials()
{
    use_store file
    locked_key
    make_seg $A "$T/$A" 1
    mkdir -m 700 "$T/creds"
    mv "$T/pass" "$T/creds/passphrase"
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID
    export CREDENTIALS_DIRECTORY=$T/creds
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    umount_walefs m
    mv "$T/creds/passphrase" "$T/creds/pg.pass"
    mount_walefs n passphrase_file=pg.pass
    assert_same "$T/n/wal/$A" "$T/$A"
    umount_walefs n
    echo wrong >"$T/creds/pg.pass"
    expect_no_mount "wrong passphrase for key $KEY_ID" "$KEY_OPTS,passphrase_file=pg.pass"
    unset CREDENTIALS_DIRECTORY
    expect_no_mount pg.pass "$KEY_OPTS,passphrase_file=pg.pass"
}

# The file says something else now: what is mounted goes on with what it knows, the next mount says so.
test_changed_passphrase()
{
    use_store file
    locked_key
    make_seg $A "$T/$A" 1
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass
    mount_walefs m prefetch=0
    cp "$T/$A" "$T/m/wal/"
    echo "another one" >"$T/pass"
    assert_same "$T/m/wal/$A" "$T/$A"
    umount_walefs m
    expect_no_mount "wrong passphrase for key $KEY_ID" "$KEY_OPTS"
}

# gpg-agent asks nobody here, but may know the passphrase already. Until it does, a restore waits.
test_passphrase_known_to_agent()
{
    local pid
    use_store file
    locked_key
    make_seg $A "$T/$A" 1
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID
    mount_walefs w
    cp "$T/$A" "$T/w/wal/"
    umount_walefs w
    mount_walefs soft soft,soft_timeout=2,ro
    expect_fail "Input/output error" timeout 40 cat "$T/soft/wal/$A"
    assert_log soft "key [0-9A-F]+ is locked.*(passphrase_file|gpg-agent)"
    mount_walefs hard ro
    cp "$T/hard/wal/$A" "$T/out" 2>"$T/err" &
    pid=$!
    wait_for 20 "the reason in the log" grep -Eq "$A.*key [0-9A-F]+ is locked" "$T/hard.log"
    alive $pid || fail "cp ended instead of waiting: $(cat "$T/err")"
    echo x | gpg_batch "$T/locked" -r "$KEY_ID" --trust-model always -e >"$T/x.gpg"
    gpg_batch "$T/locked" --passphrase-file "$T/pass" -d "$T/x.gpg" >"$T/x"
    reap_child $pid 60 "the waiting cp" || fail "cp failed: $(cat "$T/err")"
    assert_same "$T/out" "$T/$A"
    mount_walefs m ro
    assert_same "$T/m/wal/$A" "$T/$A"
}

# Only this test's own agents: that of its gpg home, or that of walefs' private home.
test_agent_killed()
{
    local i opts pid
    use_store file
    for opts in "" "passphrase_file=$T/pass"; do
        rm -rf "$T/locked" "$STORE_DIR"
        mkdir "$STORE_DIR"
        if [[ -n $opts ]]; then
            locked_key
        else
            new_key "$T/locked" open@example.com
        fi
        KEY_OPTS=$(join_opts "gpg_home=$T/locked" "gpg_key=$KEY_ID" "$opts")
        mount_walefs m prefetch=0
        for i in 1 2 3; do
            make_seg "$(seg_name $i 1)" "$T/seg" 1
            cp "$T/seg" "$T/m/wal/$(seg_name $i 1)"
            cp "$T/seg" "$T/seg.$i"
        done
        umount_walefs m
        mount_walefs m prefetch=0
        for i in 1 2 3; do
            assert_same "$T/m/wal/$(seg_name $i 1)" "$T/seg.$i"
            for pid in $(marked_running gpg-agent); do
                kill -KILL "$pid"
            done
        done
        umount_walefs m
        wait_for 5 "walefs' own gpg-agent to end" no_private_agents
    done
}

# Old objects stay readable with the old key, new ones go to the new key, and in between to both.
test_rotation()
{
    local old new
    use_store file
    new_key "$T/locked" old@example.com "open sesame"
    old=$KEY_ID
    new_key "$T/locked" new@example.com "open sesame"
    new=$KEY_ID
    echo "open sesame" >"$T/pass"
    for n in 1 2 3; do
        make_seg "$(seg_name $n 1)" "$T/seg.$n" 1
    done
    KEY_OPTS=gpg_home=$T/locked,passphrase_file=$T/pass
    mount_walefs m gpg_key="$old"
    cp "$T/seg.1" "$T/m/wal/$(seg_name 1 1)"
    umount_walefs m
    mount_walefs m gpg_key="$old:$new"
    cp "$T/seg.2" "$T/m/wal/$(seg_name 2 1)"
    umount_walefs m
    mount_walefs m gpg_key="$new"
    cp "$T/seg.3" "$T/m/wal/$(seg_name 3 1)"
    umount_walefs m
    for n in 1 2 3; do
        assert_eq "$(gpg --homedir "$T/locked" --batch --list-only --list-packets \
            "$STORE_DIR/wal_005/$(seg_name $n 1).lzo" 2>/dev/null | grep -c ':pubkey enc')" \
            "$((n == 2 ? 2 : 1))" "recipients of segment $n"
    done
    mount_walefs m ro
    for n in 1 2 3; do
        assert_same "$T/m/wal/$(seg_name $n 1)" "$T/seg.$n"
    done
    umount_walefs m
    # Without the old key it says which is missing, and for which object.
    gpg_batch "$T/locked" --yes --delete-secret-and-public-key "$old"
    mount_walefs m ro soft,soft_timeout=2
    assert_same "$T/m/wal/$(seg_name 2 1)" "$T/seg.2"
    assert_same "$T/m/wal/$(seg_name 3 1)" "$T/seg.3"
    expect_fail "Input/output error" timeout 40 cat "$T/m/wal/$(seg_name 1 1)"
    assert_log m "$(seg_name 1 1).*no secret key: the message is encrypted to [0-9A-F]{16}; import"
}

# The very subkey that is named is used, though a newer one is there.
test_named_subkey()
{
    local fpr subs
    use_store file
    new_key "$T/gpg" archive@example.com
    fpr=$KEY_ID
    gpg_batch "$T/gpg" --passphrase '' --quick-add-key "$fpr" rsa2048 encr never
    mapfile -t subs < <(gpg --homedir "$T/gpg" --with-colons -k "$fpr" | awk -F: '/^sub/ { print $5 }')
    assert_eq ${#subs[@]} 2 "encryption subkeys"
    make_seg $A "$T/$A" 1
    KEY_OPTS=gpg_home=$T/gpg
    for i in 0 1; do
        rm -rf "$STORE_DIR/wal_005"
        mount_walefs m "gpg_key=${subs[i]}!"
        cp "$T/$A" "$T/m/wal/"
        umount_walefs m
        assert_match "$(gpg --homedir "$T/gpg" --batch --list-only --list-packets \
            "$STORE_DIR/wal_005/$A.lzo" 2>/dev/null)" "keyid ${subs[i]}" "the recipient"
    done
}

# gpg -c, with the passphrase at hand.
test_symmetric_objects()
{
    use_store file
    locked_key
    make_seg $A "$T/$A" 1
    mkdir "$STORE_DIR/wal_005"
    lzop -c "$T/$A" | gpg_batch "$T/locked" --passphrase-file "$T/pass" -c -z 0 \
        >"$STORE_DIR/wal_005/$A.lzo"
    gpgconf --homedir "$T/locked" --kill gpg-agent
    mount_walefs m "gpg_home=$T/locked,passphrase_file=$T/pass"
    assert_same "$T/m/wal/$A" "$T/$A"
    mount_walefs soft "gpg_home=$T/locked" soft,soft_timeout=2
    expect_fail "Input/output error" timeout 40 cat "$T/soft/wal/$A"
    assert_log soft "$A.*passphrase only.*set passphrase_file"
}

test_revoked_and_disabled_key()
{
    use_store file
    new_key "$T/gpg" archive@example.com
    sed 's/^:-----BEGIN/-----BEGIN/' "$T/gpg/openpgp-revocs.d/$KEY_ID.rev" |
        gpg_batch "$T/gpg" --import
    expect_no_mount revoked "gpg_home=$T/gpg,gpg_key=$KEY_ID"
}

# A key that only signs.
test_key_cannot_encrypt()
{
    use_store file
    mkdir -p "$T/gpg"
    chmod 700 "$T/gpg"
    gpg_batch "$T/gpg" --passphrase '' --quick-gen-key sign@example.com rsa2048 sign never
    expect_no_mount "encrypt" "gpg_home=$T/gpg,gpg_key=sign@example.com"
}

test_missing_home()
{
    use_store file
    expect_no_mount "$T/nowhere" "gpg_home=$T/nowhere,gpg_key=archive@example.com"
}

test_gpg_not_installed()
{
    local stay
    use_store file
    mkdir "$T/empty"
    new_key "$T/gpg" archive@example.com
    mkdir "$T/none"
    for stay in -f ""; do
        expect_fail "gpg" env PATH="$T/empty" "$(command -v timeout)" 30 "$WALEFS" $stay \
            -o "gpg_home=$T/gpg,gpg_key=$KEY_ID" "$SOURCE" "$T/none"
        grep -Eiq 'install|not found|path' "$T/.err" || fail "no hint: $(cat "$T/.err")"
        assert_eq "$(wc -l <"$T/.err")" 1 "lines on stderr: $(cat "$T/.err")"
        assert_eq "$(mounts_below "$T")" "" "mounts"
    done
}

# An object for a key that is not here: no data, no ENOENT, and the log says why.
test_object_for_another_key()
{
    local pid
    use_store file
    new_key "$T/theirs" theirs@example.com
    make_seg $A "$T/$A" 1
    mkdir "$STORE_DIR/wal_005"
    lzop -c "$T/$A" | gpg_batch "$T/theirs" --trust-model always -e -z 0 -r "$KEY_ID" \
        >"$STORE_DIR/wal_005/$A.lzo"
    use_key gpg
    mount_walefs soft soft,soft_timeout=3
    expect_fail "Input/output error" timeout 30 cat "$T/soft/wal/$A"
    assert_eq "$(wc -c <"$T/.out")" 0 "bytes handed out"
    assert_log soft "$A.*(secret key|no key|key)"
    mount_walefs m
    timeout 60 cat "$T/m/wal/$A" >"$T/out" 2>&1 &
    pid=$!
    sleep 3
    alive $pid || fail "cat ended instead of waiting for the key: $(cat "$T/out")"
    # The key arrives: the wait ends.
    gpg_batch "$T/theirs" --export-secret-keys theirs@example.com | gpg_batch "$GPG_READER" --import
    reap_child $pid 60 "cat" || fail "cat failed"
    assert_same "$T/out" "$T/$A"
}

test_no_secret_shows()
{
    local pid
    use_store file
    locked_key
    make_seg $A "$T/$A"
    mkdir "$T/cache"
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass
    mount_walefs m debug,cache_dir="$T/cache"
    cp "$T/$A" "$T/m/wal/" &
    pid=$!
    while alive $pid; do
        ps -o args= -p "$(marked "$WALEFS_TEST_MARK" | paste -sd,)" >>"$T/args" || true
    done
    wait $pid
    cat "$T/m/wal/$A" >/dev/null
    ps -o args= -p "$(marked "$WALEFS_TEST_MARK" | paste -sd,)" >>"$T/args" || true
    ! grep -q sesame "$T/args" || fail "the passphrase is in ps"
    ! grep -q sesame "$T/m.log" || fail "the passphrase is in the log"
    find "$T/cache" -type f -perm /077 | grep . && fail "cache files are readable by others"

    # Also after a crash, nothing is left in the cache, and no gpg-agent stays behind for long.
    kill -KILL "${MOUNT_PID[m]}"
    wait "${MOUNT_PID[m]}" 2>/dev/null || true
    umount -l "$T/m"
    assert_eq "$(find "$T/cache" -type f)" "" "files left in the cache"
}

# The gpg-agents of this test other than that of its own gpg home.
no_private_agents()
{
    local pid
    for pid in $(marked "$WALEFS_TEST_MARK"); do
        ! tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep gpg-agent | grep -qv "$T/locked" ||
            return 1
    done
}

test_no_agent_left()
{
    use_store file
    locked_key
    make_seg $A "$T/$A" 1
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass
    mount_walefs m
    cp "$T/$A" "$T/m/wal/"
    cat "$T/m/wal/$A" >/dev/null
    umount_walefs m
    wait_for 5 "walefs' own gpg-agent to end" no_private_agents
}
