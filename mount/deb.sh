#!/bin/bash
# Makes a Debian package of what "make install" installs: deb.sh VERSION BUILD-DIR. Its control data
# is made here; the package is BUILD-DIR/walefs_VERSION_ARCHITECTURE.deb.
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$1
build=$2
arch=$(dpkg --print-architecture)
work=$build/deb
root=$work/root
deb=$build/walefs_${version}_$arch.deb
when=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
maintainer="${DEBFULLNAME:-walefs maintainers} <${DEBEMAIL:-maintainers@walefs.invalid}>"

rm -rf "$work"
mkdir -p "$work/debian" "$root/DEBIAN"

# Debian 12 has its units, and mount(8)'s helpers, below /lib and /sbin.
make -s install DESTDIR="$root" PREFIX=/usr UNIT_DIR=/lib/systemd/system HELPER_DIR=/sbin BUILD="$build"
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/walefs"

# ---- documents ----------------------------------------------------------------------------------

doc=$root/usr/share/doc/walefs
cat >"$doc/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: walefs

Files: *
Copyright: $(date -u -d "@$when" +%Y) the walefs authors
License: GPL-3+
 This program is free software: you can redistribute it and/or modify it under the terms of the GNU
 General Public License as published by the Free Software Foundation, either version 3 of the
 License, or (at your option) any later version.
 .
 On Debian systems, the text of that license is in /usr/share/common-licenses/GPL-3.
END
cat >"$doc/changelog" <<END
walefs ($version) unstable; urgency=medium

  * Built from walefs $version.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$when")
END
gzip -9n "$doc/changelog"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
find "$root/usr/share/man" -type l | while read -r link; do
    ln -s "$(readlink "$link").gz" "$link.gz"
    rm "$link"
done

# ---- control ------------------------------------------------------------------------------------

# dpkg-shlibdeps wants a source package around it.
printf 'Source: walefs\n\nPackage: walefs\nArchitecture: any\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/bin/walefs | sed -n 's/^shlibs:Depends=//p')

cat >"$root/DEBIAN/control" <<END
Package: walefs
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size "$root" | cut -f1)
Depends: $depends, fuse3
Recommends: gnupg, postgresql-client
Section: database
Priority: optional
Description: PostgreSQL archive in S3, mounted as a directory
 walefs shows a PostgreSQL archive that lives in S3, in WAL-E's format, as a
 directory tree: WAL segments and base backups are archived and restored with
 cp, pg_basebackup and tar, while compression, OpenPGP encryption and
 verification happen underneath.
 .
 What WAL-E wrote can be read, and what walefs writes can be read by WAL-E.
END
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) \
    >"$root/DEBIAN/md5sums"

SOURCE_DATE_EPOCH=$when dpkg-deb --root-owner-group --build "$root" "$deb" >/dev/null
echo "$deb"
