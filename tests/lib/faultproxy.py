#!/usr/bin/env python3
"""A TCP proxy before an HTTP server that can be told to misbehave.

    faultproxy.py UPSTREAM_HOST:PORT DIR [ADDRESS]

Listens on a free port of 127.0.0.1, or of ADDRESS (IPv6), and writes it to DIR/port. DIR/mode is read
anew for each piece of data, so that it also changes what happens on open connections:

    pass            relay unchanged (also when DIR/mode is missing)
    hang            relay nothing, close nothing
    reset           drop the connection
    cut N           relay N bytes of a response, then close
    reply FILE      answer each request with the bytes of FILE and close
    date SECONDS    relay, with the Date of every response moved by so many
    reply-get FILE  the same for GET and HEAD of a key below wal_005 only, the rest passes
    reply-put FILE  the same for each PUT
    no-condition FILE       the same for each PUT that asks for no object to be there
    freeze FILE     the same for GET of WAL and of partitions only (an archive storage class, as listings say)
    freeze-sentinels FILE   the same for GET of sentinels only

DIR/bytes holds the number of response bytes relayed so far, DIR/deletes the number of requests that
delete, DIR/connections a line for each connection.
"""
import email.utils
import os
import re
import socket
import struct
import sys
import threading
import time

HOST, PORT = sys.argv[1].rsplit(":", 1)
DIR = sys.argv[2]
lock = threading.Lock()
relayed = 0
deletes = 0


def mode():
    try:
        with open(os.path.join(DIR, "mode")) as f:
            words = f.read().split()
    except FileNotFoundError:
        words = []
    return words or ["pass"]


def note(name, value):
    with open(os.path.join(DIR, name + ".new"), "w") as f:
        f.write(str(value))
    os.rename(os.path.join(DIR, name + ".new"), os.path.join(DIR, name))


def count(n):
    global relayed
    with lock:
        relayed += n
        note("bytes", relayed)


def count_deletes(data):
    global deletes
    if re.match(rb"DELETE |POST [^ ]*[?&]delete", data):
        with lock:
            deletes += 1
            note("deletes", deletes)


def drop(*socks):
    for s in socks:
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.shutdown(socket.SHUT_RD)  # wakes the other thread, and sends no FIN
        except OSError:
            pass
        s.close()


def close(*socks):
    for s in socks:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        s.close()


def wait_out_hang():
    words = mode()
    while words[0] == "hang":
        time.sleep(0.1)
        words = mode()
    return words


def moved(date, seconds):
    when = email.utils.parsedate_to_datetime(date.decode()).timestamp() + seconds
    return email.utils.formatdate(when, usegmt=True).encode()


def downstream(client, server):
    """Server to client."""
    allowed = None
    try:
        while data := server.recv(65536):
            words = wait_out_hang()
            if words[0] == "reset":
                return drop(client, server)
            if words[0] == "cut":
                allowed = int(words[1]) if allowed is None else allowed
                data = data[:allowed]
                allowed -= len(data)
                client.sendall(data)
                if allowed == 0:
                    return close(client, server)
                continue
            allowed = None
            if words[0] == "date":
                data = re.sub(rb"(?i)(?<=\r\ndate: )[^\r]{29}",
                              lambda m: moved(m[0], int(words[1])), data)
            if words[0] == "freeze":
                data = data.replace(b">STANDARD</StorageClass>", b">GLACIER</StorageClass> ")  # as long
            client.sendall(data)
            count(len(data))
    except OSError:
        pass
    close(client, server)


def answer(client, server, first, path):
    """Takes the rest of the request, so that closing does not reset what was answered."""
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", first)
    want = first.find(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    got = len(first)
    if re.search(rb"(?i)\r\nexpect: *100", first):
        got = want
    while got < want and (data := client.recv(65536)):
        got += len(data)
    with open(path, "rb") as f:
        client.sendall(f.read())
    close(client, server)


def upstream(client, server):
    """Client to server."""
    try:
        while data := client.recv(65536):
            words = wait_out_hang()
            is_get = re.match(rb"(GET|HEAD) [^ ?]*/wal_005/", data)
            if words[0] == "reset":
                return drop(client, server)
            is_put = data.startswith(b"PUT ")
            is_guarded = is_put and re.search(rb"(?i)\r\nif-none-match: *[*]", data)
            is_read = re.match(rb"GET [^ ?]*/(wal_005/|tar_partitions/part_)[^ ?]*[.]lzo ", data)
            is_sentinel = re.match(rb"GET [^ ?]*_backup_stop_sentinel[.]json ", data)
            if (
                words[0] == "reply"
                or (words[0] == "reply-get" and is_get)
                or (words[0] == "reply-put" and is_put)
                or (words[0] == "no-condition" and is_guarded)
                or (words[0] == "freeze" and is_read)
                or (words[0] == "freeze-sentinels" and is_sentinel)
            ):
                return answer(client, server, data, words[1])
            count_deletes(data)
            server.sendall(data)
    except OSError:
        pass
    close(client, server)


def serve(client):
    words = wait_out_hang()
    if words[0] == "reset":
        return drop(client)
    try:
        server = socket.create_connection((HOST, int(PORT)), 10)
    except OSError:
        return drop(client)
    server.settimeout(None)
    threading.Thread(target=downstream, args=(client, server), daemon=True).start()
    upstream(client, server)


if len(sys.argv) > 3:
    listener = socket.create_server((sys.argv[3], 0), family=socket.AF_INET6)
else:
    listener = socket.create_server(("127.0.0.1", 0))
with open(os.path.join(DIR, "port.new"), "w") as f:
    f.write(str(listener.getsockname()[1]))
os.rename(os.path.join(DIR, "port.new"), os.path.join(DIR, "port"))
while True:
    connection, peer = listener.accept()
    with open(os.path.join(DIR, "connections"), "a") as f:
        f.write("%s:%d\n" % peer[:2])
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
