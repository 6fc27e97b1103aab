# shellcheck shell=bash disable=SC2034
# The Debian package: built, checked, installed, used, removed. A layer in memory lies over the
# directories that dpkg writes to, in a mount namespace of the test's own, so that what this machine
# has installed stays as it is.
A=000000010000000000000005

build_package()
{
    make -s -C "$ROOT" deb BUILD="$(dirname "$WALEFS")" >"$T/out" 2>"$T/make.log"
    DEB=$(cd "$ROOT" && realpath "$(tail -n 1 "$T/out")")
    [[ -s $DEB ]] || fail "make deb made nothing"
}

test_contents()
{
    local f
    build_package
    dpkg-deb --fsys-tarfile "$DEB" | tar -t >"$T/list"
    for f in ./usr/bin/walefs ./usr/bin/walefs-restore ./usr/bin/walefs-prune ./sbin/mount.walefs \
        ./lib/systemd/system/walefs@.service ./usr/share/man/man8/walefs.8.gz \
        ./usr/share/doc/walefs/copyright ./usr/share/doc/walefs/changelog.gz \
        ./usr/share/bash-completion/completions/walefs; do
        grep -qx -- "$f" "$T/list" || fail "$f is missing"
    done
    assert_match "$(dpkg-deb -f "$DEB" Depends)" 'libfuse3-3.*fuse3' "Depends"
    assert_match "$(dpkg-deb -f "$DEB" Recommends)" 'gnupg.*postgresql-client' "Recommends"
    lintian --allow-root --fail-on error,warning "$DEB" >"$T/lintian" 2>&1 || fail "lintian: $(cat "$T/lintian")"
    # the same sources give the same package
    cp "$DEB" "$T/first.deb"
    build_package
    assert_same "$DEB" "$T/first.deb"
}

used()
{
    local d
    mkdir "$T/layers"
    mount -t tmpfs layers "$T/layers"
    for d in /usr /etc /var /bin /sbin /lib; do
        [[ ! -L $d ]] || continue
        mkdir -p "$T/layers$d/"{upper,work}
        mount -t overlay -o "lowerdir=$d,upperdir=$T/layers$d/upper,workdir=$T/layers$d/work" over "$d"
    done
    rm -f /usr/local/bin/walefs /usr/local/sbin/walefs /usr/sbin/mount.walefs
    DEBIAN_FRONTEND=noninteractive dpkg -i "$DEB" >"$T/dpkg.log" 2>&1 || fail "$(cat "$T/dpkg.log")"
    assert_eq "$(dpkg -V walefs | grep -v ' /usr/share/' || true)" "" "what differs from the package"
    assert_eq "$(walefs --version)" "walefs $(dpkg-query -W -f='${Version}' walefs)" "version"

    use_store file
    mkdir "$T/m"
    make_seg $A "$T/$A" 1
    env -i WALEFS_TEST_MARK="$WALEFS_TEST_MARK" /bin/mount -t walefs "$SOURCE" "$T/m"
    cp "$T/$A" "$T/m/wal/"
    cmp "$T/$A" "$T/m/wal/$A"
    umount "$T/m"
    wait_for 20 "walefs to end" walefs_is_gone
    assert_archived $A "$T/$A"
    systemd-analyze verify --man=no walefs@mnt-pg.service >"$T/verify" 2>&1 || fail "$(cat "$T/verify")"

    dpkg -r walefs >>"$T/dpkg.log" 2>&1 || fail "$(cat "$T/dpkg.log")"
    dpkg-deb --fsys-tarfile "$DEB" | tar -t | grep -v '/$' | sed 's/^[.]//' >"$T/files"
    while read -r d; do
        [[ ! -e $d && ! -L $d ]] || fail "$d is left"
    done <"$T/files"
}

walefs_is_gone()
{
    [[ -z $(marked_running walefs) ]]
}

test_installed_and_used()
{
    build_package
    export DEB
    unshare --mount --propagation private bash "$ROOT/tests/run" --case "${BASH_SOURCE[0]}" used
    [[ ! -e /usr/bin/walefs || $(stat -c %Y /usr/bin/walefs) -lt $(stat -c %Y "$T/out") ]] ||
        fail "the package was installed outside of the layer"
}

# A machine without the libraries gets one line that says what to do.
test_packages_are_named()
{
    local rc=0
    mkdir "$T/bin"
    printf '#!/bin/sh\nexit 1\n' >"$T/bin/dpkg-query"
    chmod 755 "$T/bin/dpkg-query"
    PATH=$T/bin:$PATH make -s -C "$ROOT" BUILD="$T/build" PKG_CONFIG=false >"$T/out" 2>&1 || rc=$?
    [[ $rc != 0 ]] || fail "built without pkg-config"
    assert_eq "$(grep -vc '^make' "$T/out")" 1 "lines: $(cat "$T/out")"
    assert_match "$(cat "$T/out")" 'apt-get install .*libfuse3-dev.*liblzo2-dev' "what make says"
}
