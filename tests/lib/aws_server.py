#!/usr/bin/env python3
"""Plays the services that give AWS credentials: the instance metadata service (version 2), a
container's endpoint, and STS; as AWS documents them.

    aws_server.py DIR

Listens on a free port of 127.0.0.1 and writes it to DIR/port. What it gives out is read anew from
DIR/keys for each request, "ID SECRET [SECONDS-TO-LIVE [TOKEN]]". DIR/given gets a line for each time
credentials were given: imds, container, web or role. DIR/mode, when it is there:

    no-put      a PUT is never answered (the hop limit of a container)
    no-role     the instance has no role
    refuse      every question for credentials is answered with an error

DIR/auth is the Authorization that the container's endpoint (/container) wants, DIR/web-token the
token that STS takes. AssumeRole must be signed with the key in DIR/base, "ID SECRET".
"""
import hashlib
import hmac
import http.server
import os
import sys
import threading
import time
import urllib.parse

DIR = sys.argv[1]
IMDS_TOKEN = "TOKEN-OF-IMDS=="
ROLES = "/latest/meta-data/iam/security-credentials/"
lock = threading.Lock()


def text_of(name):
    try:
        with open(os.path.join(DIR, name), encoding="utf-8") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


def keys():
    words = text_of("keys").split()
    seconds = int(words[2]) if len(words) > 2 else 3600
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return words[0], words[1], words[3] if len(words) > 3 else "", until


def given(what):
    with lock, open(os.path.join(DIR, "given"), "a", encoding="utf-8") as f:
        f.write(what + "\n")


def json_keys(what, first=""):
    given(what)
    return ('{%s"AccessKeyId": "%s", "SecretAccessKey": "%s", "Token": "%s", "Expiration": "%s"}'
            % ((first,) + keys()))


def signed_right(headers, body):
    """The check of a signature, as in AWS's documentation of Signature Version 4."""
    key_id, secret = text_of("base").split()
    fields = dict(part.strip().split("=", 1)
                  for part in headers["authorization"].split(" ", 1)[1].split(","))
    scope = fields["Credential"].split("/", 1)[1]
    names = fields["SignedHeaders"].split(";")
    canonical = "\n".join(["POST", "/", ""] + ["%s:%s" % (n, headers[n]) for n in names]
                          + ["", ";".join(names), hashlib.sha256(body).hexdigest()])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope,
                         hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    want = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return (fields["Signature"] == want and fields["Credential"].startswith(key_id + "/")
            and scope.endswith("/sts/aws4_request"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_PUT(self):
        if text_of("mode") == "no-put":
            time.sleep(60)
        ttl = int(self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "0"))
        if self.path != "/latest/api/token" or not 1 <= ttl <= 21600:
            return self.answer(400, "")
        return self.answer(200, IMDS_TOKEN)

    def imds(self):
        if self.headers.get("X-aws-ec2-metadata-token") != IMDS_TOKEN:
            return self.answer(401, "")
        if text_of("mode") == "no-role":
            return self.answer(404, "")
        if self.path == ROLES:
            return self.answer(200, "the-role")
        if self.path != ROLES + "the-role":
            return self.answer(404, "")
        return self.answer(200, json_keys("imds", '"Code": "Success", "Type": "AWS-HMAC", '))

    def do_GET(self):
        if text_of("mode") == "refuse":
            return self.answer(400, '{"code": "Refused", "message": "told to refuse"}')
        if self.path.startswith(ROLES):
            return self.imds()
        if self.path != "/container":
            return self.answer(404, "")
        if self.headers.get("Authorization", "") != text_of("auth"):
            return self.answer(403, '{"code": "AccessDenied", "message": "wrong authorization"}')
        return self.answer(200, json_keys("container"), "application/json")

    def sts_error(self, status, code, message):
        self.answer(status, '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                    "<Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>"
                    "</ErrorResponse>" % (code, message), "text/xml")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        form = dict(urllib.parse.parse_qsl(body.decode()))
        action = form.get("Action", "")
        if form.get("Version") != "2011-06-15" or not form.get("RoleSessionName"):
            return self.sts_error(400, "ValidationError", "version or session name")
        if not form.get("RoleArn", "").startswith("arn:aws:iam::"):
            return self.sts_error(400, "ValidationError", "not a role")
        if text_of("mode") == "refuse":
            return self.sts_error(403, "AccessDenied", "not authorized to assume the role")
        if action == "AssumeRoleWithWebIdentity":
            if form.get("WebIdentityToken") != text_of("web-token"):
                return self.sts_error(400, "InvalidIdentityToken", "the token is not valid")
            given("web")
        elif action == "AssumeRole":
            headers = {name.lower(): value for name, value in self.headers.items()}
            if "authorization" not in headers or not signed_right(headers, body):
                return self.sts_error(403, "SignatureDoesNotMatch", "the signature is wrong")
            given("role")
        else:
            return self.sts_error(400, "InvalidAction", action)
        key_id, secret, token, until = keys()
        return self.answer(
            200, '<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%sResult>'
            "<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey>"
            "<SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></%sResult>"
            "</%sResponse>" % (action, action, key_id, secret, token, until, action, action),
            "text/xml")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
with open(os.path.join(DIR, "port.new"), "w", encoding="utf-8") as port:
    port.write("%d\n" % server.server_address[1])
os.rename(os.path.join(DIR, "port.new"), os.path.join(DIR, "port"))
server.serve_forever()
