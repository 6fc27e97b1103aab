#!/usr/bin/env python3
"""A forward proxy for HTTP, as http_proxy and https_proxy name one: requests with an absolute URL,
and tunnels (CONNECT).

    httpproxy.py DIR

Listens on a free port of 127.0.0.1 and writes it to DIR/port. DIR/requests gets a line for each
request ("GET http://host:port/path", with a Range behind it, or "CONNECT host:port") and DIR/connections one for each
connection of a client. While there is DIR/refuse, every request is answered with 407."""
import http.client
import http.server
import os
import select
import socket
import sys
import threading
import urllib.parse

DIR = sys.argv[1]
lock = threading.Lock()
HOP = {"connection", "proxy-connection", "proxy-authorization", "keep-alive", "transfer-encoding"}


def note(name, line):
    with lock, open(os.path.join(DIR, name), "a") as f:
        f.write(line + "\n")


def relay(a, b):
    other = {a: b, b: a}
    while True:
        for s in select.select([a, b], [], [])[0]:
            data = s.recv(65536)
            if not data:
                return
            other[s].sendall(data)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server_side = None
        note("connections", "%s:%d" % self.client_address)

    def finish(self):
        super().finish()
        if self.server_side is not None:
            self.server_side.close()

    def log_message(self, *_):
        pass

    def refused(self):
        note("requests", " ".join([self.command, self.path, *self.headers.get_all("Range", [])]))
        if not os.path.exists(os.path.join(DIR, "refuse")):
            return False
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True
        return True

    def do_CONNECT(self):
        if self.refused():
            return
        host, port = self.path.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 10) as server:
            server.settimeout(None)
            self.send_response(200)
            self.end_headers()
            try:
                relay(self.connection, server)
            except OSError:
                pass
        self.close_connection = True

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refused():
            return
        url = urllib.parse.urlsplit(self.path)
        if self.server_side is None:
            self.server_side = http.client.HTTPConnection(url.netloc, timeout=60)
        target = self.path[len("http://" + url.netloc):] or "/"
        self.server_side.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP:
                self.server_side.putheader(name, value)
        self.server_side.endheaders(body or None)
        answer = self.server_side.getresponse()
        text = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(os.path.join(DIR, "port.new"), "w") as f:
    f.write(str(server.server_address[1]))
os.rename(os.path.join(DIR, "port.new"), os.path.join(DIR, "port"))
server.serve_forever()
