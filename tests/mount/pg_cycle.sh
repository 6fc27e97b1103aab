# shellcheck shell=bash disable=SC2034
# PostgreSQL archives with cp, loses its data directory, and is recovered with cp: to the last
# commit, and to a point in time; on each store, encrypted and not.
NEEDS_S3=1
TIME_LIMIT=240

rows() # CLUSTER
{
    pg_sql "$1" "select count(*) || ' ' || coalesce(sum(length(v)), 0) from t"
}

# What the cluster has archived of all that is in its pg_wal.
archived_by() # CLUSTER
{
    pg_sql "$1" "select w.name from pg_ls_waldir() w join pg_ls_archive_statusdir() s on s.name = w.name || '.done' order by 1"
}

cycle() # STORE KEY BASE-METHOD
{
    local m=$T/m before after name tli

    use_store "$1"
    use_key "$2"
    mount_walefs m "$(pg_mount_opts)"

    pg_init one
    pg_archive_with one "cp %p $m/wal/%f"
    pg_start one
    pg_sql one "create table t as select i, md5(i::text) v from generate_series(1, 50000) i"
    pg_dir "$T/base"
    if [[ $3 == stopped ]]; then
        pg_stop one
        cp -a "$(pg_data one)" "$T/base/data"
        pg_start one
    else
        pg_backup one "$T/base/data" -X none 2>&1
    fi

    pg_sql one "insert into t select i, md5(i::text) from generate_series(50001, 250000) i"
    before=$(rows one)
    pg_sql one "select pg_create_restore_point('before_the_mistake')" >/dev/null
    pg_sql one "delete from t where i % 2 = 0"
    pg_sql one "insert into t select i, md5(i::text) from generate_series(250001, 400000) i"
    after=$(rows one)
    pg_archive_all one >/dev/null
    assert_eq "$(pg_sql one "select failed_count from pg_stat_archiver")" 0 "failed_count"
    for name in $(archived_by one); do
        assert_archived "$name" "$(pg_data one)/pg_wal/$name"
    done
    [[ $3 == stopped ]] || assert_match "$(archived_by one)" '[.]backup$' "what is archived"
    pg_stop one immediate
    rm -rf "$(pg_data one)"

    # The archive alone is what is left; a fresh mount knows nothing from before.
    umount_walefs m
    mount_walefs m "$(pg_mount_opts)"
    pg_recover two "$T/base/data" "$m" "archive_command = 'cp %p $m/wal/%f'"
    assert_eq "$(rows two)" "$after" "rows after recovery to the last commit"
    pg_sql two "insert into t values (0, 'new timeline')"
    pg_archive_all two >/dev/null
    assert_eq "$(pg_sql two "select failed_count from pg_stat_archiver")" 0 "failed_count"
    [[ -s $m/wal/00000002.history ]] || fail "the second timeline's history is not in the archive"
    pg_stop two

    pg_recover three "$T/base/data" "$m" "recovery_target_name = 'before_the_mistake'" \
        "recovery_target_action = 'promote'" "recovery_target_timeline = 'current'" \
        "archive_command = 'cp %p $m/wal/%f'"
    assert_eq "$(rows three)" "$before" "rows at the restore point"
    tli=$(pg_sql three "checkpoint; select timeline_id from pg_control_checkpoint()")
    assert_eq "$tli" 3 "timeline after the second recovery"
    pg_archive_all three >/dev/null
    pg_stop three
    umount_walefs m
}

test_file_plain()
{
    cycle file none stopped
}

test_file_gpg()
{
    cycle file gpg basebackup
}

test_http_plain()
{
    cycle http none basebackup
}

test_http_gpg()
{
    cycle http gpg stopped
}

test_https_plain()
{
    cycle https none stopped
}

test_https_gpg()
{
    cycle https gpg basebackup
}

# A target time, where the restore point above was a name.
test_target_time()
{
    local m=$T/m when
    use_store file
    use_key gpg
    mount_walefs m "$(pg_mount_opts)"
    pg_init_with_base one "$m"
    pg_sql one "insert into t select generate_series(1, 1000)"
    when=$(pg_sql one "select clock_timestamp()")
    sleep 0.5
    pg_sql one "insert into t select generate_series(1, 77)"
    pg_archive_all one >/dev/null
    pg_stop one immediate
    pg_recover two "$T/base" "$m" "archive_mode = off" "recovery_target_time = '$when'" \
        "recovery_target_action = 'promote'"
    assert_eq "$(pg_sql two "select count(*) from t")" 1000 "rows at $when"
}

# A standby keeps asking for the segment that does not exist yet, and gets it when it does.
test_standby_follows()
{
    local m=$T/m
    use_store http
    use_key none
    mount_walefs m "$(pg_mount_opts)"
    pg_init_with_base one "$m"
    pg_home two
    cp -a "$T/base" "$(pg_data two)"
    pg_conf two "restore_command = 'cp $m/wal/%f %p'" "archive_mode = off" "hot_standby = on" \
        "wal_retrieve_retry_interval = '500ms'"
    as_pg touch "$(pg_data two)/standby.signal"
    pg_start two
    local i
    for i in 1 2 3; do
        pg_sql one "insert into t select generate_series(1, 1000)"
        pg_archive_all one >/dev/null
        wait_for 30 "the standby to replay round $i" pg_true two "(select count(*) from t) = $((i * 1000))"
    done
    pg_stop two
    pg_stop one
}

# A standby that has streamed and is promoted archives the end of the old timeline as .partial.
test_promoted_standby()
{
    local m=$T/m want name partial
    use_store http
    use_key gpg
    mount_walefs m "$(pg_mount_opts)"
    pg_init one
    pg_archive_with one "cp %p $m/wal/%f"
    pg_start one
    pg_sql one "create table t (i int)"
    pg_stop one
    cp -a "$(pg_data one)" "$T/base"
    pg_start one
    pg_home two
    cp -a "$T/base" "$(pg_data two)"
    pg_conf two "primary_conninfo = 'host=$T/pg/one user=postgres'"
    as_pg touch "$(pg_data two)/standby.signal"
    pg_start two
    pg_sql one "insert into t select generate_series(1, 1000)"
    want=1000
    wait_for 30 "the standby to replay" pg_true two "(select count(*) from t) = $want"
    pg_stop one immediate
    pg_true two "pg_promote()"
    pg_archive_all two >/dev/null
    partial=$(archived_by two | grep '[.]partial$')
    assert_match "$partial" '^00000001[0-9A-F]{16}[.]partial$' "what is archived of the old timeline"
    for name in $(archived_by two); do
        assert_archived "$name" "$(pg_data two)/pg_wal/$name"
    done
    assert_match "$(archived_by two)" '^00000002[.]history$' "what is archived"
    assert_eq "$(pg_sql two "select failed_count from pg_stat_archiver")" 0 "failed_count"
    pg_stop two
    pg_recover three "$T/base" "$m" "archive_mode = off"
    assert_eq "$(pg_sql three "select count(*) from t")" "$want" "rows"
    pg_stop three
}
