#!/bin/bash
# The Debian packages that walefs is built, shown, tested and checked with.
#
#   packages.sh list KIND      all names
#   packages.sh missing KIND   those that are not installed
#   packages.sh ensure KIND    installs what is missing (root), or prints the line that would
#
# KIND is build, demo, test or lint; demo and test include build.
#
# Installing never starts a service and never makes a PostgreSQL cluster: a policy-rc.d refuses
# service starts for as long as apt-get runs, and where no PostgreSQL server has been installed yet
# its package is told not to create its "main" cluster. What exists already is left as it is.
set -euo pipefail

build=(gcc make pkg-config libc6-dev
    libfuse3-dev fuse3 libcurl4-openssl-dev libssl-dev libgpgme-dev liblzo2-dev libexpat1-dev
    libjansson-dev libarchive-dev libdeflate-dev)
demo=("${build[@]}" gnupg gpg-agent postgresql)
test=("${demo[@]}" libcmocka-dev lzop rsync curl openssl python3 attr ca-certificates systemd lintian mandoc
    radosgw ceph-mon ceph-osd ceph-mgr)
lint=("${build[@]}" libcmocka-dev clang clang-format clang-tidy cppcheck shellcheck mandoc valgrind)

die()
{
    echo "packages.sh: $*" >&2
    exit 1
}

list()
{
    case $1 in
    build) printf '%s\n' "${build[@]}" ;;
    demo) printf '%s\n' "${demo[@]}" ;;
    test) printf '%s\n' "${test[@]}" ;;
    lint) printf '%s\n' "${lint[@]}" ;;
    *) die "unknown kind '$1' (build, demo, test or lint)" ;;
    esac
}

installed()
{
    [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null || true) == ii* ]]
}

missing()
{
    local p
    for p in $(list "$1"); do
        installed "$p" || echo "$p"
    done
}

# Root's file system is changed in two places only: one that goes again, and one that is new.
policy=/usr/sbin/policy-rc.d
policy_ours=
cluster_conf=/etc/postgresql-common/createcluster.conf

refuse_services()
{
    [[ -e $policy ]] && return
    policy_ours=1
    printf '#!/bin/sh\n# Temporary: no service starts while packages are installed.\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

allow_services()
{
    [[ -z $policy_ours ]] || rm -f "$policy"
}

refuse_main_cluster()
{
    if compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
        return # a server of this machine: installing more beside it is its owner's business
    fi
    if [[ ! -e $cluster_conf ]]; then
        mkdir -p "${cluster_conf%/*}"
        printf '%s\n' '# Written before PostgreSQL was installed for the tests of walefs.' \
            'create_main_cluster = false' >"$cluster_conf"
        return
    fi
    grep -Eq '^[[:space:]]*create_main_cluster[[:space:]]*=?[[:space:]]*.?(false|off|no|0)' \
        "$cluster_conf" ||
        die "$cluster_conf exists and would let the package create a cluster:" \
            "set create_main_cluster = false there, or install postgresql yourself"
}

ensure()
{
    local need
    mapfile -t need < <(missing "$1")
    [[ ${#need[@]} -gt 0 ]] || return 0

    if [[ $(id -u) != 0 ]]; then
        echo "These packages are missing; as root:" >&2
        echo "apt-get update && apt-get install --no-install-recommends -y ${need[*]}"
        exit 1
    fi

    echo "installing: ${need[*]}" >&2
    if [[ " ${need[*]} " == *" postgresql "* ]]; then
        refuse_main_cluster
    fi
    trap allow_services EXIT
    trap 'exit 130' INT TERM HUP
    refuse_services

    local log
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 NEEDRESTART_MODE=l
    if ! { apt-get update && apt-get install -y --no-install-recommends --no-remove \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "${need[@]}"; } \
        </dev/null >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "apt-get failed (above: the end of what it said)"
    fi
    rm -f "$log"
}

[[ $# == 2 ]] || die "usage: packages.sh list|missing|ensure build|demo|test|lint"
case $1 in
list | missing | ensure)
    list "$2" >/dev/null
    "$1" "$2"
    ;;
*) die "unknown verb '$1' (list, missing or ensure)" ;;
esac
