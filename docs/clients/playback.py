"""Holds one of a user's slots while something plays. Standard library only."""

import json
import os
import signal
import sys
import threading
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen
from uuid import uuid4

API = os.environ.get("API", "http://127.0.0.1:8080")
USER = os.environ.get("USER_ID", "alice")
TOKEN = os.environ.get("TOKEN")  # from http.tokens_file, if that is set
# Whose slot to take if all are taken: a session's id, or "oldest".
TAKEOVER = os.environ.get("TAKEOVER")

# No network, no answer in time, a 5xx, or an answer that is not streamgate's.
OUTAGE = (OSError, HTTPException, ValueError)
RETRY = 5  # seconds


class Refused(Exception):
    """It may not start or go on. `problem` says why, and who holds the slots if all are taken."""

    def __init__(self, problem):
        super().__init__(problem.get("detail"))
        self.problem = problem


class Playback:
    def __init__(self, user, **facts):  # any of device, content, position
        self.id = str(uuid4())  # always a new one: an ended id can't be used again
        self.url = f"{API}/v1/users/{quote(user, safe='')}/sessions/{self.id}"
        self.facts = facts
        self.stopped = threading.Event()
        self.problem = None  # why it has stopped, if others stopped it

    def start(self, takeover=None):
        """Returns when it may play; raises Refused if it may not. In an outage it keeps asking."""
        while not (wait := self._beat(takeover)):
            time.sleep(RETRY)
        threading.Thread(target=self._beats, args=(wait,), daemon=True).start()

    def release(self):
        self.stopped.set()
        try:
            self._call("DELETE")
        except (Refused, *OUTAGE):
            pass  # its lease runs out

    def _beats(self, wait):
        try:
            while not self.stopped.wait(wait):
                wait = self._beat() or RETRY
        except Refused as refused:
            self.problem = refused.problem
            self.stopped.set()

    def _beat(self, takeover=None):
        """Seconds until the next beat; nothing in an outage, which stops nobody who is watching."""
        try:
            return self._call("PUT", {**self.facts, "takeover": takeover}).get("renew_after_seconds")
        except OUTAGE:
            return None

    def _call(self, method, body=None):
        headers = {"content-type": "application/json"}
        if TOKEN:
            headers["authorization"] = f"Bearer {TOKEN}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self.url, data, headers, method=method), timeout=5) as answer:
                return json.loads(answer.read() or "{}")
        except HTTPError as error:
            try:
                problem = json.load(error)
            except ValueError:
                problem = {"reason": str(error.code)}  # a gateway's
            passing = error.code >= 500 or error.code in (408, 429)
            if passing and problem.get("reason") != "full":
                raise
            raise Refused(problem) from None


def main():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())  # so that `finally` is not left out
    playback = Playback(USER, device="python", content="film-7")
    try:
        playback.start(TAKEOVER)
        print("playing as", playback.id, flush=True)
        playback.stopped.wait()  # play here
        problem = playback.problem
    except Refused as refused:
        problem = refused.problem
    finally:
        playback.release()
    sys.exit(json.dumps(problem, indent=2))


if __name__ == "__main__":
    main()
