"""Receives events by POST, checks who sent them, and prints them. Standard library only."""

import base64
import hashlib
import hmac
import json
import os
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# From events.webhooks_file: "whsec_" and base64. While one is replaced: both, joined by a comma.
SECRETS = os.environ["SECRETS"].split(",")
PORT = int(os.environ.get("PORT", "9000"))
TOLERANCE = 5 * 60  # seconds; an older message may have been sent by somebody who recorded it
LONGEST = 1024 * 1024  # bytes

KEYS = [base64.b64decode(secret.removeprefix("whsec_")) for secret in SECRETS]
done = OrderedDict()  # the ids of the last messages; several receivers would share them


def is_ours(headers, body):
    """Whether one of our secrets has signed the message, a moment ago."""
    sent = headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > TOLERANCE:
        return False
    signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
    for given in headers.get("webhook-signature", "").split():
        version, _, signature = given.partition(",")
        for key in KEYS:
            made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
            if version == "v1" and hmac.compare_digest(made, signature.encode()):
                return True
    return False


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection open

    def do_POST(self):
        length = int(self.headers.get("content-length", "0"))
        if length > LONGEST:
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_ours(self.headers, body):
            return self.answer(401)
        message = self.headers["webhook-id"]
        if message not in done:  # it comes again if our last answer was lost
            for event in json.loads(body)["data"]["events"]:
                print(event["type"], event.get("user", "-"), event.get("session", "-"), flush=True)
            done[message] = True
            if len(done) > 10_000:
                done.popitem(last=False)
        self.answer(204)

    def answer(self, status):
        self.close_connection = status >= 400
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
    print("listening on", server.server_address[1], flush=True)
    server.serve_forever()
