#!/usr/bin/env python3
"""Makes what looks like a PostgreSQL data directory, for tests.

make_cluster.py DIR [label] [pid] [odd] [tablespace] [bulk=BYTES] [manifest]

The start position is 0/2000028 on timeline 1: base_000000010000000000000002_00000040."""
import hashlib
import json
import os
import random
import struct
import sys


def crc32c_table():
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC32C = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def control():
    fields = bytearray(8192)
    struct.pack_into("<QIII", fields, 0, 7777777777777777777, 1300, 202209061, 1)
    struct.pack_into("<QQI", fields, 32, 0x2000060, 0x2000028, 1)
    struct.pack_into("<d", fields, 232, 1234567.0)
    struct.pack_into("<I", fields, 252, 16 << 20)
    struct.pack_into("<I", fields, 280, crc32c(fields[:280]))
    return bytes(fields)


def put(top, name, data, mtime_ns=1700000000 * 10**9, mode=0o600):
    path = os.path.join(os.fsencode(top), os.fsencode(name))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def put_manifest(top):
    """backup_manifest as PostgreSQL writes it, of all that is there."""
    space = os.path.abspath(top) + ".16384"
    lines = []
    for real, shown in ((top, ""), (space, "pg_tblspc/16384/")):
        for directory, _, files in os.walk(os.fsencode(real)):
            for name in files:
                path = os.path.join(directory, name)
                if os.path.islink(path):
                    continue
                with open(path, "rb") as f:
                    data = f.read()
                member = os.fsencode(shown) + os.path.relpath(path, os.fsencode(real))
                entry = {"Size": len(data), "Last-Modified": "2026-11-24 08:00:00 GMT",
                         "Checksum-Algorithm": "CRC32C",
                         "Checksum": struct.pack("<I", crc32c(data)).hex()}
                try:
                    entry = {"Path": member.decode(), **entry}
                except UnicodeDecodeError:
                    entry = {"Encoded-Path": member.hex(), **entry}
                lines.append(json.dumps(entry, ensure_ascii=False))
    text = ('{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n' + ",\n".join(lines) +
            '\n],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/2000028", '
            '"End-LSN": "0/2000100" }\n],\n').encode()
    put(top, "backup_manifest", text + b'"Manifest-Checksum": "' +
        hashlib.sha256(text).hexdigest().encode() + b'"}\n')


def main():
    top, words = sys.argv[1], sys.argv[2:]
    rng = random.Random(5)
    os.makedirs(top, mode=0o700, exist_ok=True)
    if "label" in words:
        put(top, "backup_label", b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
            b"CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n"
            b"START TIME: 2026-11-24 08:00:00 UTC\nLABEL: test\nSTART TIMELINE: 1\n")
    put(top, "PG_VERSION", b"15\n")
    put(top, "base/1/1255", rng.randbytes(8192 * 3))
    put(top, "base/1/empty", b"")
    put(top, "base/5/odd_size", rng.randbytes(1023), mode=0o640)
    put(top, "global/pg_control", control())
    os.makedirs(os.path.join(top, "pg_replslot"), mode=0o700, exist_ok=True)
    os.makedirs(os.path.join(top, "pg_tblspc"), mode=0o700, exist_ok=True)
    if "pid" in words:
        put(top, "postmaster.pid", b"1\n")
    if "odd" in words:
        put(top, "base/1/" + "n" * 200, b"long")
        put(top, "base/" + "d" * 120 + "/" + "e" * 120 + "/f", b"deep")
        put(top, b"base/1/utf8-\xc3\xa9", b"utf8")
        put(top, b"base/1/latin1-\xe9", b"latin1")
        put(top, "base/1/new\nline", b"newline")
        put(top, "base/1/back\\slash\ttab", b"x")
        put(top, "base/1/old", b"old", mtime_ns=0)
        os.chown(os.path.join(top, "base/1/old"), 3000000, 2500000)
        os.symlink("x" * 300, os.path.join(top, "base/1/long_link"))
        os.symlink("/somewhere/else", os.path.join(top, "pg_wal"))
        os.symlink("elsewhere", os.path.join(top, "pg_tblspc/not_an_oid"))
    if "tablespace" in words:
        space = os.path.abspath(top) + ".16384"
        put(space, "PG_15_202209061/5/16385", rng.randbytes(40000))
        os.symlink("/srv/old place/ts1", os.path.join(top, "pg_tblspc/16384"))
    for word in words:
        if word.startswith("bulk="):
            left, i = int(word[5:]), 0
            while left > 0:
                n = min(left, 700001)
                put(top, "base/5/%05d" % (20000 + i), rng.randbytes(n))
                left, i = left - n, i + 1
    if "manifest" in words:
        put_manifest(top)


main()
