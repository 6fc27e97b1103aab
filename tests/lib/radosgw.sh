#!/bin/bash
# A real S3 server for tests: one-node Ceph (mon, mgr, osd in memory, radosgw) below one directory,
# on free ports of 127.0.0.1, without any system service.
#
#   radosgw.sh start DIR    brings it up (about 12 s) and writes DIR/env, to be sourced:
#                             WALEFS_TEST_S3=1
#                             WALEFS_TEST_ENDPOINT      http://127.0.0.1:PORT
#                             WALEFS_TEST_ENDPOINT_TLS  https://localhost:PORT
#                             WALEFS_TEST_CA            the CA file for it
#                             WALEFS_TEST_BUCKET        an empty bucket of
#                             AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION
#                             WALEFS_TEST_OTHER_KEY_ID, WALEFS_TEST_OTHER_SECRET
#                                                       a user without rights on the bucket
#                             WALEFS_TEST_RADOSGW       DIR, for freeze, thaw, down, up
#   radosgw.sh stop DIR     ends the processes that start began
#   radosgw.sh freeze DIR   stops radosgw in mid-air (SIGSTOP); thaw lets it go on
#   radosgw.sh down DIR     ends radosgw alone (what is stored stays); up starts it again, same ports
#   radosgw.sh crypt DIR    encrypts what is stored from now on, and so takes sse=AES256 but makes no
#                           copies (501); plain ends that
set -euo pipefail

usage() { sed -n '2,22s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[ $# -eq 2 ] || usage
verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
conf=$dir/ceph.conf

say() { echo "radosgw.sh: $*" >&2; }

fail() {
	say "$*"
	for log in "$dir"/log/*.out; do
		[ -s "$log" ] || continue
		say "--- the end of $log"
		tail -n 15 "$log" >&2
	done
	stop_all
	exit 1
}

free_ports() {
	python3 - "$1" <<-'PY'
	import socket, sys
	held = [socket.socket() for _ in range(int(sys.argv[1]))]
	for s in held:
	    s.bind(("127.0.0.1", 0))
	print(*[s.getsockname()[1] for s in held])
	PY
}

# A pid file holds "PID STARTTIME": a number that was given to another process is not ours.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

running() {
	local pid started
	[ -r "$dir/pid/$1" ] && read -r pid started < "$dir/pid/$1" || return 1
	[ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

launch() {
	local name=$1
	shift
	# Also when a test starts it again, it belongs to the run and not to that test.
	[ -e "$dir/mark" ] || printf '%s' "${WALEFS_TEST_MARK:-}" > "$dir/mark"
	WALEFS_TEST_MARK=$(cat "$dir/mark") setsid "$@" < /dev/null >> "$dir/log/$name.out" 2>&1 &
	local pid=$!
	disown "$pid"
	echo "$pid $(start_time "$pid")" > "$dir/pid/$name"
}

end() {
	local pid _
	pid=$(running "$1") || { rm -f "$dir/pid/$1"; return 0; }
	kill -CONT "$pid" 2> /dev/null || true
	kill -TERM "$pid" 2> /dev/null || true
	for _ in $(seq "${2:-20}"); do
		running "$1" > /dev/null || break
		sleep 0.1
	done
	if pid=$(running "$1"); then
		kill -KILL "$pid" 2> /dev/null || true
	fi
	rm -f "$dir/pid/$1"
}

stop_all() {
	local name
	end rgw 10
	for name in osd mgr mon; do
		end $name 5
	done
}

# wait_for WHAT SECONDS DAEMON COMMAND...: fails early when DAEMON has died
wait_for() {
	local what=$1 tries=$(($2 * 10)) daemon=$3
	shift 3
	for _ in $(seq $tries); do
		"$@" > /dev/null 2>&1 && return 0
		running "$daemon" > /dev/null || fail "$daemon died while waiting for $what"
		sleep 0.1
	done
	fail "no $what in $((tries / 10)) s"
}

ceph_() { timeout 20 ceph -c "$conf" --connect-timeout 10 "$@"; }

write_conf() {
	cat > "$conf" <<-CONF
	[global]
	fsid = $(cat /proc/sys/kernel/random/uuid)
	mon host = v2:127.0.0.1:$1
	public addr = 127.0.0.1
	cluster addr = 127.0.0.1
	ms bind ipv6 = false
	keyring = $dir/keyring
	mon data = $dir/mon
	mgr data = $dir/mgr
	osd data = $dir/osd
	rgw data = $dir/rgw
	run dir = $dir/run
	log file = $dir/log/\$name.log
	mon cluster log file = $dir/log/cluster.log
	pid file =
	admin socket = $dir/run/\$name.\$pid.asok
	crash dir = $dir/crash
	osd pool default size = 1
	osd pool default min size = 1
	osd pool default pg num = 8
	osd pool default pgp num = 8
	osd pool default pg autoscale mode = off
	osd crush chooseleaf type = 0
	mon allow pool size one = true
	mon max pg per osd = 1000
	mon data avail crit = 1
	mon data avail warn = 1
	osd objectstore = memstore
	memstore device bytes = 8589934592
	osd memory target = 1073741824
	osd op num shards = 2
	mgr initial modules =
	mgr pool = false
	rgw thread pool size = 48
	rgw enable usage log = false
	rgw enable gc threads = true
	rgw crypt require ssl = false
	rgw dns name = localhost
	rgw frontends = beast endpoint=127.0.0.1:$2 ssl_endpoint=127.0.0.1:$3 ssl_certificate=$dir/tls/server.pem ssl_private_key=$dir/tls/server.key
	CONF
}

make_tls() {
	mkdir -p "$dir/tls"
	cd "$dir/tls"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 \
		-subj "/CN=walefs test CA" -addext basicConstraints=critical,CA:TRUE 2> openssl.out
	openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr \
		-subj "/CN=localhost" 2>> openssl.out
	printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' > server.ext
	openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
		-extfile server.ext -out server.pem 2>> openssl.out
	cd - > /dev/null
}

make_keyring() {
	local keyring=$dir/keyring
	ceph-authtool --create-keyring "$keyring" --gen-key -n mon. --cap mon 'allow *'
	ceph-authtool "$keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' \
		--cap mgr 'allow *'
	ceph-authtool "$keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' \
		--cap osd 'allow *' --cap mgr 'allow profile osd'
	ceph-authtool "$keyring" --gen-key -n mgr.x --cap mon 'allow profile mgr' \
		--cap osd 'allow *' --cap mds 'allow *'
	ceph-authtool "$keyring" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
}

start_rgw() {
	running rgw > /dev/null && return
	launch rgw radosgw -f -c "$conf" -n client.rgw --setuser root --setgroup root
	wait_for "answer of radosgw" 60 rgw curl -sf --noproxy '*' --max-time 2 "$(cat "$dir/endpoint")/"
}

s3_curl() { # METHOD PATH
	local empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
	curl -sS --noproxy "*" --max-time 20 -H "x-amz-content-sha256: $empty" -o "$dir/log/curl.out" -w '%{http_code}' -X "$1" \
		--user "$key:$secret" --aws-sigv4 aws:amz:us-east-1:s3 "$(cat "$dir/endpoint")$2"
}

make_user() { # UID KEY SECRET
	timeout 60 radosgw-admin -c "$conf" -n client.rgw user create --uid="$1" --display-name="$1" \
		--access-key="$2" --secret="$3" > "$dir/log/user-$1.out" 2>&1 ||
		fail "the user $1 could not be made"
}

random_hex() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

start() {
	local tool mon_port http_port tls_port
	for tool in ceph ceph-mon ceph-mgr ceph-osd radosgw radosgw-admin monmaptool openssl curl python3; do
		command -v $tool > /dev/null || { say "$tool is not installed"; exit 1; }
	done
	if [ -e "$dir/pid/mon" ] && running mon > /dev/null; then
		say "$dir is in use"
		exit 1
	fi
	rm -rf "$dir"/{mon,mgr,osd,rgw,run,log,pid,crash,tls} "$dir"/{keyring,monmap,env,endpoint}
	mkdir -p "$dir"/{mon,mgr,osd,rgw,run,log,pid,crash}
	chmod 700 "$dir"
	read -r mon_port http_port tls_port <<< "$(free_ports 3)"
	make_tls || fail "no certificate"
	write_conf "$mon_port" "$http_port" "$tls_port"
	make_keyring > "$dir/log/keyring.out" 2>&1 || fail "no keyring"
	echo "http://127.0.0.1:$http_port" > "$dir/endpoint"

	local fsid
	fsid=$(sed -n 's/^fsid = //p' "$conf")
	{
		monmaptool --create --fsid "$fsid" --addv x "[v2:127.0.0.1:$mon_port]" "$dir/monmap"
		ceph-mon -c "$conf" --mkfs -i x --monmap "$dir/monmap" --keyring "$dir/keyring" \
			--setuser root --setgroup root
	} > "$dir/log/mkfs.out" 2>&1 || fail "the monitor's store could not be made"
	launch mon ceph-mon -f -c "$conf" -i x --setuser root --setgroup root
	wait_for "answer of the monitor" 60 mon ceph_ mon stat
	ceph_ auth import -i "$dir/keyring" > "$dir/log/auth.out" 2>&1 || fail "keys were not taken"

	launch mgr ceph-mgr -f -c "$conf" -i x --setuser root --setgroup root
	local uuid
	uuid=$(cat /proc/sys/kernel/random/uuid)
	{
		ceph_ osd new "$uuid" 0 &&
		ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid" --setuser root --setgroup root
	} > "$dir/log/osd-mkfs.out" 2>&1 || fail "the osd could not be made"
	launch osd ceph-osd -f -c "$conf" -i 0 --setuser root --setgroup root
	wait_for "osd" 60 osd sh -c "timeout 10 ceph -c '$conf' osd stat | grep -q '1 up'"

	start_rgw
	key=AK$(random_hex 9 | tr a-f A-F)
	secret=$(random_hex 20)
	local other_key other_secret code bucket=walefs-test
	other_key=AK$(random_hex 9 | tr a-f A-F)
	other_secret=$(random_hex 20)
	make_user walefs "$key" "$secret"
	make_user other "$other_key" "$other_secret"
	code=$(s3_curl PUT "/$bucket" || true)
	[ "$code" = 200 ] || fail "the bucket could not be made (HTTP $code)"
	(
		umask 077
		cat > "$dir/env.tmp" <<-ENV
		export WALEFS_TEST_S3=1
		export WALEFS_TEST_ENDPOINT=http://127.0.0.1:$http_port
		export WALEFS_TEST_ENDPOINT_TLS=https://localhost:$tls_port
		export WALEFS_TEST_CA=$dir/tls/ca.pem
		export WALEFS_TEST_BUCKET=$bucket
		export WALEFS_TEST_OTHER_KEY_ID=$other_key
		export WALEFS_TEST_OTHER_SECRET=$other_secret
		export WALEFS_TEST_RADOSGW=$dir
		export AWS_ACCESS_KEY_ID=$key
		export AWS_SECRET_ACCESS_KEY=$secret
		export AWS_REGION=us-east-1
		ENV
	)
	mv "$dir/env.tmp" "$dir/env"
}

# What is encrypted can only be read while it has the key.
set_crypt_key() { # KEY
	local socket pid
	pid=$(need_rgw)
	socket=$(find "$dir/run" -name "client.rgw*.$pid*.asok" | head -n 1)
	ceph_ --admin-daemon "$socket" config set rgw_crypt_default_encryption_key "$1" > /dev/null
}

# up, thaw and plain do no harm to one that is well
need_rgw() { running rgw || { say "no radosgw runs in $dir"; exit 1; }; }

case $verb in
start) start ;;
stop) stop_all ;;
freeze) kill -STOP "$(need_rgw)" ;;
thaw) kill -CONT "$(need_rgw)" ;;
down) end rgw 10 ;;
up) start_rgw ;;
crypt) set_crypt_key "$(head -c 32 /dev/urandom | base64 -w0)" ;;
plain) set_crypt_key "" ;;
*) usage ;;
esac
