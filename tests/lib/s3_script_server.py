#!/usr/bin/env python3
"""A scripted HTTP server: answers each request with the next step of a script, right or wrong.

    s3_script_server.py FILE

FILE holds a Python literal, a list of dicts, one for each request in the order they come:

    expect   "METHOD TARGET", a regular expression that must match it whole
    headers  {name: regular expression, or None for a header that must not be there}
    body     what the request's body must be (str)
    status   of the answer, 200 by default
    reply    {name: value} of answer headers; "length": replaces the Content-Length (None: none)
    text     the answer's body (str, or a list of [str, count])
    error    an S3 error document with this code for a body
    etag     the ETag header, without quotes
    range    the Content-Range header, without "bytes "
    raw      the whole answer instead of all of these
    slow     bytes of the request's body that are read at a time, ten times a second
    sleep    seconds before the answer (the time-outs of a client)
    cut      bytes of the answer's body after which the connection is closed
    stall    bytes of the body after which nothing comes any more
    drop     "now": close before the request's body is read; "late": after it, without an answer
    reset    close with a TCP reset
    close    close after the answer
    times    the step serves so many requests (1)

Prints its port. On SIGTERM prints "ok" when all steps were used and every request fitted, else what
did not, and exits with 0 or 1."""
import ast
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

steps = []
for step in ast.literal_eval(open(sys.argv[1], encoding="utf-8").read()):
    steps += [step] * step.get("times", 1)
total = len(steps)
faults = []
lock = threading.Lock()


def finish():
    with lock:
        if steps and not faults:
            faults.append("%d of %d steps were not used, next: %s"
                          % (len(steps), total, steps[0].get("expect", steps[0])))
        line = faults[0] if faults else "ok"
    os.write(1, (line.replace("\n", " ") + "\n").encode())
    os._exit(1 if faults else 0)


def head_of(f):
    line = f.readline().decode("latin-1").strip()
    if not line:
        return None, {}
    headers = {}
    while True:
        text = f.readline().decode("latin-1").strip()
        if not text:
            return line, headers
        name, _, value = text.partition(":")
        headers[name.strip().lower()] = value.strip()


def take(line, headers):
    method, target = line.split(" ")[:2]
    with lock:
        if not steps:
            faults.append("one request too many: %s %s" % (method, target))
            return None
        step = steps.pop(0)
        if "expect" in step and not re.fullmatch(step["expect"], "%s %s" % (method, target)):
            faults.append("%s %s came, wanted %s" % (method, target, step["expect"]))
        for name, pattern in step.get("headers", {}).items():
            have = headers.get(name)
            if pattern is None and have is not None:
                faults.append("%s %s has %s: %s" % (method, target, name, have))
            if pattern is not None and (have is None or not re.fullmatch(pattern, have)):
                faults.append("%s %s has %s: %s, wanted %s" % (method, target, name, have, pattern))
        return step


def answer(conn, step, method):
    """Returns whether the connection goes on."""
    time.sleep(step.get("sleep", 0))
    if "raw" in step:
        conn.sendall(step["raw"].encode("latin-1"))
        return False
    text = step.get("text", "")
    if "error" in step:
        text = "<?xml version='1.0'?><Error><Code>%s</Code></Error>" % step["error"]
    if isinstance(text, list):
        text = "".join(s * n for s, n in text)
    body = text.encode()
    reply = dict(step.get("reply", {}))
    if "etag" in step:
        reply["ETag"] = '"%s"' % step["etag"]
    if "range" in step:
        reply["Content-Range"] = "bytes " + step["range"]
    length = reply.pop("length", len(body))
    lines = ["HTTP/1.1 %d Scripted" % step.get("status", 200)]
    lines += ["%s: %s" % item for item in reply.items()]
    if length is not None:
        lines.append("Content-Length: %s" % length)
    if method == "HEAD":
        body = b""
    limit = step.get("cut", step.get("stall", len(body)))
    conn.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body[:limit])
    if "stall" in step:
        time.sleep(60)
    return "cut" not in step and not step.get("close") and length is not None


def read_body(f, size, at_a_time):
    if not at_a_time:
        return f.read(size)
    body = memoryview(bytearray(size))  # not copied as it grows: that would take longer than a client waits
    have = 0
    while have < size:
        n = f.readinto(body[have : have + at_a_time])
        if n == 0:
            break
        have += n
        time.sleep(0.1)
    return body[:have]


def serve(conn):
    f = conn.makefile("rb")
    step = {}
    try:
        while True:
            line, headers = head_of(f)
            if line is None:
                break
            step = take(line, headers)
            if step is None:
                break
            if step.get("drop") == "now":
                break
            body = read_body(f, int(headers.get("content-length", 0)), step.get("slow"))
            if "body" in step and body != step["body"].encode():
                with lock:
                    faults.append("%s: body is %r" % (line, body[:200]))
            if step.get("drop") == "late":
                time.sleep(step.get("sleep", 0))
                break
            if not answer(conn, step, line.split(" ")[0]):
                break
    except OSError:
        pass
    try:
        if step and step.get("reset"):
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            conn.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    f.close()
    conn.close()


def accept(listener):
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


# Waited for, not handled: a handler would run only after an accept that has just begun.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if any("slow" in s for s in steps):  # else what the kernel holds hides for a second that all has been sent
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
listener.bind(("127.0.0.1", 0))
listener.listen(64)
threading.Thread(target=accept, args=(listener,), daemon=True).start()
os.write(1, b"%d\n" % listener.getsockname()[1])
signal.sigwait({signal.SIGTERM})
finish()
