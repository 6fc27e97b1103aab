# shellcheck shell=bash disable=SC2034
# walefs check: what it says of sound archives and of such that are not, and how it ends.
NEEDS_S3=1
FIXTURES=$ROOT/tests/fixtures/wal-e
CLUSTER_WAL="2 3 4 5" # the cluster of make_cluster.py begins in segment 2

# Runs it with the store's and the key's options. Its lines are in $T/out.
check() # STATUS ARGS...
{
    local rc=0 opts
    opts=$(join_opts "$STORE_OPTS" "$KEY_OPTS" "${CHECK_OPTS:-}")
    timeout -k 5 120 "$WALEFS" check ${opts:+-o "$opts"} "${@:2}" "$SOURCE" </dev/null \
        >"$T/out" 2>"$T/err" || rc=$?
    sed 's/^/# /' "$T/out" "$T/err"
    assert_eq "$rc" "$1" "exit status of check"
    assert_eq "$(mounts_below "$T")" "" "mounts"
    ! grep -Ev '^(ok|warn|FAIL|unknown) +[a-z-]+ +[^ ]' "$T/out" || fail "not a line of a report"
}

says() # REGEX...
{
    local regex
    for regex in "$@"; do
        grep -Eq -e "$regex" "$T/out" || fail "says nothing like /$regex/"
    done
}

says_not() # REGEX
{
    ! grep -E -e "$1" "$T/out" || fail "says that"
}

# An archive with WAL and a base backup that needs it.
make_archive()
{
    local n
    python3 "$ROOT/tests/lib/make_cluster.py" "$T/cluster"
    mount_walefs w partition_size=1M
    for n in $CLUSTER_WAL; do
        make_seg "$(seg_name "$n")" "$T/seg"
        cp "$T/seg" "$T/w/wal/$(seg_name "$n")"
    done
    mkdir "$T/w/basebackups/nightly.partial"
    cp -aL "$T/cluster/." "$T/w/basebackups/nightly.partial/"
    mv -T "$T/w/basebackups/nightly.partial" "$T/w/basebackups/nightly"
    umount_walefs w
}

BACKUP=base_000000010000000000000002_00000040

sound()
{
    make_archive
    check 0 --deep
    says "^ok +bucket " "^ok +list " "^ok +write .*conditionally" \
        "^ok +read +wal/$(seg_name 5)" "^ok +backups +1 complete, the newest $BACKUP" \
        "^ok +wal +timeline 1: $(seg_name 2) to $(seg_name 5) \(4 segments\), 4 there" \
        "^ok +deep +6 objects decoded and verified.*0 of them damaged"
    assert_eq "$(cat "$T/err")" "" "stderr"
    check 0 --quiet
    assert_eq "$(cat "$T/out")" "" "what --quiet says when all is well"
}

test_sound_directory()
{
    use_store file
    sound
    says_not credentials
}

test_sound_s3_encrypted()
{
    use_store http
    use_key gpg
    sound
    check 0
    says "^ok +credentials " "^ok +clock " "^ok +key +encrypted to 1 key" "^ok +secret-key "
}

# Nothing but the probe is written, and with ro not even that.
test_writes_nothing()
{
    use_store file
    use_key gpg
    make_archive
    (cd "$STORE_DIR" && find . -printf '%p %T@ %s\n' | grep -v walefs_probe | sort) >"$T/before"
    check 0 --deep
    (cd "$STORE_DIR" && find . -printf '%p %T@ %s\n' | grep -v walefs_probe | sort) >"$T/after"
    grep -v '^\. ' "$T/before" >"$T/before.files"
    grep -v '^\. ' "$T/after" | cmp - "$T/before.files" || fail "the archive has changed"
    rm "$STORE_DIR/walefs_probe"
    find "$STORE_DIR" -printf '%p %T@ %s\n' | sort >"$T/before"
    CHECK_OPTS=ro check 0 --deep
    find "$STORE_DIR" -printf '%p %T@ %s\n' | sort | cmp - "$T/before" || fail "ro wrote"
    says_not "^ok +write"
}

test_gap()
{
    use_store http
    make_archive
    store_rm "wal_005/$(seg_name 3).lzo"
    store_rm "wal_005/$(seg_name 4).lzo"
    check 2
    says "^FAIL +gap +$(seg_name 3) to $(seg_name 4) \(2 segments\) is missing: recovery of $BACKUP ends before"
    check 2 --quiet
    assert_eq "$(wc -l <"$T/out")" 1 "lines of --quiet"
    store_rm "wal_005/$(seg_name 2).lzo"
    check 2
    says "^FAIL +gap +$(seg_name 2) is missing: $BACKUP cannot be restored"
}

# pg_basebackup -X stream and -X fetch leave in the backup the WAL that it needs: it is whole without wal/,
# as a restore shows.
wal_inside() # STORE KEY OPTIONS...
{
    local name index
    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)"
    pg_init src
    pg_conf src "wal_level = replica"
    pg_archive_with src "cp %p $T/m/wal/%f"
    pg_start src
    pg_backup src "$T/m/basebackups/whole" "${@:3}"
    pg_archive_all src >/dev/null
    pg_stop src
    name=$(readlink "$T/m/basebackups/whole")
    umount_walefs m
    check 0
    store_ls wal_005/ | while read -r key; do store_rm "$key"; done
    check 1
    says "^warn +read +no WAL" "^ok +backups +1 complete"
    says_not "cannot be restored"
    mount_walefs m "$(pg_mount_opts)"
    ! grep "cannot be restored" "$T/m/status/summary" || fail "status/summary says that"
    assert_match "$(cat "$T/m/status/metrics")" "^walefs_backups_with_gaps 0$" "status/metrics"
    pg_dir "$T/restored"
    "$ROOT/mount/walefs-restore" --start --start-options "-c unix_socket_directories='$T/pg/src'" --backup whole "$T/m" "$T/restored" >"$T/restore.log" 2>&1 ||
        fail "walefs-restore: $(tail -n 5 "$T/restore.log")"
    grep -q "PostgreSQL runs and is consistent" "$T/restore.log" || fail "$(cat "$T/restore.log")"
    as_pg "$PG_BIN/pg_ctl" -D "$T/restored" -m immediate -w stop >/dev/null
    umount_walefs m
    # without an index nobody knows
    index=basebackups_005/$name/tar_partitions/walefs-index.lzo
    store_rm "$index"
    check 2
    says "^FAIL +gap +.*cannot be restored without it, unless it has its WAL inside, which could not be looked up"
}

test_wal_streamed_into_a_backup()
{
    wal_inside file none -Ft -X stream
}

test_wal_fetched_into_a_backup()
{
    wal_inside http gpg -Ft -X fetch
}

test_wal_streamed_into_a_tree()
{
    wal_inside file none -Fp -X stream
}

# What lies before the oldest backup is nobody's loss.
test_gap_that_no_backup_needs()
{
    use_store file
    make_archive
    make_seg "$(seg_name 0)" "$T/seg"
    lzop -c "$T/seg" >"$STORE_DIR/wal_005/$(seg_name 0).lzo"
    check 0
    says "^ok +wal +timeline 1: .*missing are 1 that no backup needs"
    rm -r "$STORE_DIR/basebackups_005"
    check 1
    says "^warn +backups .*no complete" "^warn +wal +timeline 1: .*a backup may have needed"
}

# status/ of a mount: that $1 segments are missing after the backup, the first of which is $2.
mount_says_first_of_missing()
{
    mount_walefs w
    assert_match "$(cat "$T/w/status/summary")" \
        "; $1 segments after it are missing, the first is $2$" "status/summary"
    assert_match "$(cat "$T/w/status/metrics")" "^walefs_backups_with_gaps 1$" "status/metrics"
    umount_walefs w
}

# The history says where timeline 1 was left: after that, its segments are not missed.
test_timelines()
{
    local n
    use_store file
    use_key gpg
    make_archive
    printf '1\t0/4800000\tno recovery target specified\n' >"$T/00000002.history"
    mount_walefs w
    cp "$T/00000002.history" "$T/w/wal/"
    for n in 4 5 6; do
        make_seg "$(seg_name "$n" 16 2)" "$T/seg"
        cp "$T/seg" "$T/w/wal/$(seg_name "$n" 16 2)"
    done
    umount_walefs w
    rm "$STORE_DIR/wal_005/$(seg_name 4).lzo"
    check 0 --deep
    says "^ok +wal +timeline 1: .*missing are 1 that no backup needs" \
        "^ok +wal +timeline 2: $(seg_name 4 16 2) to $(seg_name 6 16 2)" "^ok +deep +9 objects"
    rm "$STORE_DIR/wal_005/$(seg_name 5 16 2).lzo"
    check 2
    says "^FAIL +gap +$(seg_name 5 16 2) is missing"
    mount_says_first_of_missing 1 "$(seg_name 5 16 2)"
    # of the segment in which timeline 1 was left, it is the new timeline's copy that counts
    store_rm "wal_005/$(seg_name 4 16 2).lzo"
    check 2
    says "^FAIL +gap +$(seg_name 4 16 2) to $(seg_name 5 16 2) \(2 segments\) is missing"
    mount_says_first_of_missing 2 "$(seg_name 4 16 2)"
}

# Nobody gets onto a timeline whose history is missing.
test_history_missing()
{
    local n
    use_store file
    make_archive
    for n in 4 5 6; do
        make_seg "$(seg_name "$n" 16 2)" "$T/seg"
        lzop -c "$T/seg" >"$STORE_DIR/wal_005/$(seg_name "$n" 16 2).lzo"
    done
    check 2
    says "^FAIL +wal +wal/00000002.history is missing: recovery would end on the old timeline"
    printf '1\t0/4800000\tno recovery target specified\n' | lzop -c >"$STORE_DIR/wal_005/00000002.history.lzo"
    check 0
    says_not "00000002.history"
}

# A backup of the timeline itself is all there is: it can be followed.
test_history_missing_that_no_backup_needs()
{
    local n dir
    use_store file
    make_archive
    dir=$STORE_DIR/basebackups_005
    for n in $CLUSTER_WAL; do
        make_seg "$(seg_name "$n" 16 2)" "$T/seg"
        lzop -c "$T/seg" >"$STORE_DIR/wal_005/$(seg_name "$n" 16 2).lzo"
    done
    rm "$STORE_DIR"/wal_005/00000001*
    sed -i -E 's/000000010000/000000020000/g; s/timeline": ?1/timeline": 2/g' "$dir"/*_sentinel.json
    mv "$dir/$BACKUP" "$dir/${BACKUP/_00000001/_00000002}"
    mv "$dir"/*_sentinel.json "$dir/${BACKUP/_00000001/_00000002}_backup_stop_sentinel.json"
    check 1
    says "^warn +wal +wal/00000002.history is missing: no backup of an older timeline"
}

# It was complete once: not a rest that anybody should delete, however many others there are.
test_sentinel_damaged()
{
    local dir newer=base_000000010000000000000003_00000040
    use_store file
    make_archive
    dir=$STORE_DIR/basebackups_005
    cp -r "$dir/$BACKUP" "$dir/$newer"
    check 0
    says "^ok +backups +$newer is not complete.*rmdir"
    printf '{"wal_segment_backup_stop": "0000' >"$dir/${newer}_backup_stop_sentinel.json"
    check 2
    says "^FAIL +backups +$newer: its sentinel cannot be read; restore basebackups_005/${newer}_backup_stop_sentinel.json .*do not delete" \
        "^ok +backups +1 complete"
    says_not rmdir
    rm -r "${dir:?}/$newer" "$dir/${newer}_backup_stop_sentinel.json"
    printf '{"wal_segment_backup_stop": "0000' >"$dir/${BACKUP}_backup_stop_sentinel.json"
    check 2
    says "^FAIL +backups +$BACKUP: its sentinel cannot be read"
    says_not rmdir
}

flip() # FILE OFFSET
{
    python3 - "$1" "$2" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    byte = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([byte ^ 4]))
END
}

damage() # what --deep must find
{
    local part
    make_archive
    flip "$STORE_DIR/wal_005/$(seg_name 3).lzo" 100000
    check 0
    check 2 --deep
    says "^FAIL +deep +wal_005/$(seg_name 3).lzo: " "^FAIL +deep +6 objects .*1 of them damaged"
    # A segment with sound checksums, and a page of another one in it.
    make_seg "$(seg_name 4)" "$T/seg"
    flip "$T/seg" $((20 * 8192 + 9))
    lzop -c "$T/seg" >"$STORE_DIR/wal_005/$(seg_name 4).lzo"
    # A tar that is no tar.
    part=$(find "$STORE_DIR/basebackups_005" -name 'part_00000000.tar.lzo')
    head -c 100000 /dev/urandom | lzop -c >"$part"
    check 2 --deep
    says "^FAIL +deep +wal_005/$(seg_name 4).lzo: .*the page at offset 163840 is that of LSN" \
        "^FAIL +deep +basebackups_005/$BACKUP/tar_partitions/part_00000000.tar.lzo: " \
        "^FAIL +deep +6 objects .*3 of them damaged"
    rm "$part"
    check 2
    says "^FAIL +backups +$BACKUP has no partitions"
}

test_damage_plain()
{
    use_store file
    damage
}

test_damage_encrypted()
{
    use_store file
    use_key gpg
    damage
}

# Dumps: damaged, sound but another content of the same size, another size, of others; nothing is read without --deep.
dumps()
{
    local d=$STORE_DIR/dumps_005 name
    make_archive
    mount_walefs w
    mkdir "$T/w/dumps/day!"
    for name in flipped other short sound; do
        head -c 300000 /dev/urandom >"$T/w/dumps/day!/$name"
    done
    : >"$T/w/dumps/empty"
    umount_walefs w
    head -c 1000 /dev/urandom | lzop -c >"$d/foreign.lzo"
    check 0 --deep
    says "^ok +dumps +6 files, .*of 1 no size and checksum" "^ok +deep +12 objects decoded .*0 of them damaged"
    flip "$d/day!/flipped.lzo" 150000
    check 0
    says "^ok +dumps +6 files, .*not read"
    check 2 --deep
    says "^FAIL +deep +dumps_005/day!/flipped.lzo: " "^FAIL +deep +12 objects .*1 of them damaged"
}

test_dumps_plain()
{
    use_store file
    dumps
}

test_dumps_encrypted()
{
    use_store file
    use_key gpg
    dumps
}

# Puts another object in the place of a dump, and gives it the facts of the old one.
replace_dump() # NAME FILE
{
    local facts
    cp "$2" "$STORE_DIR/dumps_005/$1.lzo"
    facts=$(echo "$STORE_DIR/dumps_facts_005/$1.lzo!"*)
    mv "$facts" "${facts%!*}!$(python3 -c 'import os, sys
st = os.stat(sys.argv[1])
print("%x-%x-%x" % (st.st_mtime_ns, st.st_size, st.st_ino))' "$STORE_DIR/dumps_005/$1.lzo")"
}

# Sound objects, whose content is not what was written.
test_dump_of_another_content()
{
    local d name
    use_store file
    make_archive
    d=$STORE_DIR
    mount_walefs w
    for name in one two three; do
        head -c 30000 /dev/urandom >"$T/w/dumps/$name"
    done
    umount_walefs w
    # facts that name the objects as they are now
    head -c 30000 /dev/urandom | lzop -c >"$T/same_size"
    head -c 20000 /dev/urandom | lzop -c >"$T/shorter"
    replace_dump one "$T/same_size"
    replace_dump two "$T/shorter"
    check 2 --deep
    says "^FAIL +deep +dumps_005/one.lzo: its content has another checksum" \
        "^FAIL +deep +dumps_005/two.lzo: it has 20000 bytes, and was written with 30000" \
        "^FAIL +deep +9 objects .*2 of them damaged"
    says_not dumps_005/three
    # no facts of this content: only that it can be decoded is known
    cp "$T/shorter" "$d/dumps_005/three.lzo"
    touch -d 2020-01-01 "$d/dumps_005/three.lzo"
    check 2 --deep
    says "^ok +dumps +.*of 1 no size"
    says_not dumps_005/three
}

# Sound tar, but not what the sentinel has the checksum of.
test_partition_of_another_backup()
{
    local part
    use_store file
    make_archive
    part=$(find "$STORE_DIR/basebackups_005" -name 'part_00000000.tar.lzo')
    tar -C "$T" -cf "$T/x.tar" cluster/PG_VERSION
    lzop -c "$T/x.tar" >"$part"
    check 2 --deep
    says "^FAIL +deep +.*part_00000000.tar.lzo: .*checksum"
}

test_newest_segment_damaged()
{
    use_store file
    make_archive
    flip "$STORE_DIR/wal_005/$(seg_name 5).lzo" 5000
    check 2
    says "^FAIL +read +wal/$(seg_name 5): "
}

test_wrong_credentials()
{
    use_store http
    AWS_SECRET_ACCESS_KEY=wrong check 2
    says "^FAIL +credentials .*SignatureDoesNotMatch"
    AWS_ACCESS_KEY_ID=NOBODY check 2
    says "^FAIL +credentials "
    AWS_ACCESS_KEY_ID='' check 2
    says "^FAIL +credentials .*no AWS credentials; looked at"
}

test_no_such_bucket()
{
    use_store http
    SOURCE=s3://walefs-no-such-bucket/x
    check 2
    says "^FAIL +bucket .*NoSuchBucket"
    SOURCE=file://localhost$T/nowhere STORE_OPTS='' check 2
    says "^FAIL +bucket .*$T/nowhere"
}

test_store_not_reachable()
{
    use_store http
    STORE_OPTS=endpoint=http://127.0.0.1:1
    check 3
    says "^unknown +list "
}

test_clock()
{
    use_store http
    use_fault_proxy
    check 1 # nothing archived
    says "^ok +clock "
    proxy_mode date 120
    check 1
    says "^warn +clock +this host's is 1[0-9]+ seconds behind the store's"
    proxy_mode date -2000
    check 2
    says "^FAIL +clock +this host's is 20[0-9]+ seconds ahead of the store's"
}

test_keys()
{
    use_store file
    new_key "$T/gpg" archive@example.com "" seconds=1
    sleep 2
    KEY_OPTS=gpg_home=$T/gpg,gpg_key=$KEY_ID
    check 2
    says "^FAIL +key .*$KEY_ID .*expired on.*allow_expired"
    CHECK_OPTS=allow_expired check 1
    says "^warn +key .*expired on" "^ok +secret-key +what is written here can be decrypted here"
    new_key "$T/soon" soon@example.com "" 10d
    KEY_OPTS=gpg_home=$T/soon,gpg_key=$KEY_ID
    check 1
    says "^warn +key .*expires on .* days"
    new_key "$T/locked" locked@example.com "open sesame"
    gpgconf --homedir "$T/locked" --kill gpg-agent
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID
    echo wrong >"$T/pass"
    CHECK_OPTS=passphrase_file=$T/pass check 2
    says "^FAIL +key .*wrong passphrase for key $KEY_ID"
}

# A host that only archives has no secret key: fit for archiving, and that is said.
test_no_secret_key()
{
    use_store file
    use_key gpg
    make_archive
    mkdir -m 700 "$T/public"
    gpg_batch "$GPG_READER" --export "$KEY_ID" | gpg_batch "$T/public" --import
    KEY_OPTS=gpg_home=$T/public,gpg_key=$KEY_ID
    check 0
    says "^ok +secret-key .*can archive, but not restore" "^ok +read .*no secret key"
    CHECK_OPTS=ro check 2
    says "^FAIL +read .*no secret key: the message is encrypted to [0-9A-F]{16}"
    check 2 --deep
    says "^FAIL +deep .*no secret key"
}

# WAL-E's own archive; the backup's name is not where it begins.
test_wal_e()
{
    use_store file
    cp -r "$FIXTURES/gpg/." "$STORE_DIR/"
    mkdir -m 700 "$T/rsa"
    gpg_batch "$T/rsa" --passphrase-file "$FIXTURES/keys/passphrase.txt" \
        --import "$FIXTURES/keys/secret-with-passphrase.asc"
    gpgconf --homedir "$T/rsa" --kill gpg-agent
    KEY_OPTS=gpg_home=$T/rsa,passphrase_file=$FIXTURES/keys/passphrase.txt
    CHECK_OPTS=ro check 1 --deep
    says "^ok +read +wal/000000010000000000000004, .*encrypted" "^ok +backups +1 complete" \
        "^warn +gap .*WAL-E got wrong" "^ok +deep +4 objects .*0 of them damaged"
}

test_arguments()
{
    use_store file
    "$WALEFS" check --help | grep -q -- --deep || fail "no help"
    check 3 --no-such
    check 3 -o no_such_option
    timeout 60 env WALE_FILE_PREFIX="$SOURCE" "$WALEFS" check >"$T/out" || true
    says "^ok +bucket +$SOURCE"
}

# Whatever it is doing, and with nothing left behind.
test_interrupted()
{
    local pid rc=0
    use_store http
    new_key "$T/locked" locked@example.com "open sesame"
    echo "open sesame" >"$T/pass"
    KEY_OPTS=gpg_home=$T/locked,gpg_key=$KEY_ID,passphrase_file=$T/pass
    make_archive
    gpgconf --homedir "$T/locked" --kill gpg-agent
    use_fault_proxy
    # the key is unlocked and everything is listed; then the store hangs
    "$WALEFS" check -o "ro,$STORE_OPTS,$KEY_OPTS" --deep "$SOURCE" >"$T/out" 2>"$T/err" &
    pid=$!
    wait_for 60 "the first lines" grep -q secret-key "$T/out"
    proxy_mode hang
    sleep 0.5
    kill -INT $pid
    reap_child $pid 5 "walefs check" || rc=$?
    if alive $pid; then fail "still there"; fi
    sed 's/^/# /' "$T/out" "$T/err"
    [[ $rc == 3 || $rc == 0 ]] || fail "exit status $rc"
    [[ $rc == 0 ]] || grep -q interrupted "$T/err" || fail "does not say why it ended"
    wait_for 5 "the private gpg-agent to end" no_private_agents
    proxy_mode pass
}

# The gpg-agents of this test other than that of its own gpg home.
no_private_agents()
{
    local pid
    for pid in $(marked_running gpg-agent); do
        tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$T/locked" || return 1
    done
}
