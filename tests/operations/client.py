"""A client that begins an answer, or joins it, and comes back with its cursor as often as it is cut."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter

from resumable_sync.sse import parse_events

from ..support import PATIENCE
from .deployment import Deployment
from .sources import whole

_PAUSE = 0.1  # seconds between tries: one that does not take its time


class Client:
    """Follows one answer in a thread of its own. `kind`: answers, files or exports.

    `ending`: the status that its `end` event told, `complete` for raw bytes that ended in order, or `over` for one
    that came back to a stream of which it had all. `statuses`: of its requests, and 0 for those without an answer.
    `times`: when something came.
    """

    def __init__(self, server: Deployment, name: str, seconds: float, kind: str, *, begins: bool = True) -> None:
        self.name = name
        self.kind = kind
        self.expected = whole(name, seconds)
        self.data = b""
        self.cursor = ""
        self.ending = ""
        self.ended_at = 0.0
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []
        self.fault: BaseException | None = None
        self.begun = threading.Event()
        self._server = server
        self._question = f"{name} {seconds}"
        self._begins = begins
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def generation(self) -> str:
        return self.cursor.partition("-")[0]

    def join(self) -> None:
        """Wait for its ending."""
        self.thread.join(2 * PATIENCE)
        assert not self.thread.is_alive(), f"{self.name}: {self.statuses}, at {len(self.data)}"
        if self.fault is not None:
            raise self.fault

    def check(self) -> None:
        """Wait for the whole answer."""
        self.join()
        assert self.ending in ("done", "complete", "over"), (self.name, self.ending, self.statuses)
        assert self.data == self.expected, (self.name, len(self.data), len(self.expected))

    def longest_silence(self, since: float, until: float = float("inf")) -> float:
        """Seconds without anything, of those that ended between these moments."""
        pairs = zip(self.times, self.times[1:])
        return max((later - earlier for earlier, later in pairs if since <= later <= until), default=0.0)

    def _run(self) -> None:
        try:
            deadline = time.monotonic() + 2 * PATIENCE
            pause = threading.Event()  # never set
            while not self.ending:
                assert time.monotonic() < deadline, f"{self.name} never ended: {self.statuses}"
                try:
                    self._follow()
                except (OSError, http.client.HTTPException):
                    self.statuses[0] += 1
                if not self.ending:
                    pause.wait(_PAUSE)
            self.ended_at = time.monotonic()
        except BaseException as fault:
            self.fault = fault
        finally:
            self.begun.set()

    def _follow(self) -> None:
        method, body = ("POST", self._question) if self._begins and not self.cursor else ("GET", None)
        after = f"?after={self.cursor}" if self.cursor else ""
        with contextlib.closing(self._server.connect(method, f"/{self.kind}/{self.name}{after}", body)) as sent:
            response = sent.getresponse()
            self.statuses[response.status] += 1
            if response.status == 503:
                assert int(response.headers["Retry-After"]) > 0
            elif response.status == 204 and self.kind != "files":
                self.ending = "over"
            elif response.status == 200:
                (self._read_bytes if self.kind == "files" else self._read_events)(response)
            else:
                assert response.status in (404, 502), (self.name, response.status, response.read(1000))

    def _came(self, data: bytes, cursor: str) -> None:
        self.data += data
        self.cursor = cursor or self.cursor
        self.times.append(time.monotonic())
        self.begun.set()

    def _read_events(self, response: http.client.HTTPResponse) -> None:
        for event in parse_events(iter(lambda: response.read1(65536), b"")):
            if event.event == "end":
                self.ending = json.loads(event.data)["status"]
                return
            is_chunk = event.event in (None, "", "message")
            self._came(event.data.encode() if is_chunk else b"", event.id or "")

    def _read_bytes(self, response: http.client.HTTPResponse) -> None:
        generation, _, offset = response.headers["x-resumable-cursor"].partition("-")
        assert int(offset) == len(self.data)
        try:
            while piece := response.read1(65536):
                self._came(piece, f"{generation}-{len(self.data) + len(piece)}")
        except (OSError, http.client.HTTPException):
            return  # cut: only a stream that is done ends in order
        self.ending = "complete"
