"""`demo --check`: the demo's story without a browser, on a real server, told as it happens."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import secrets
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from ..sse import Event, EventParser

_TIMEOUT = 30.0  # of one wait for the server
_EVENTS_BEFORE_CUT = 25
_BYTES_BEFORE_CUT = 1001


class StoryError(Exception):
    """Something was not as it should be."""


class Story:
    """Plays against the server at `url`, whose answers are `expected` (None: not known beforehand).

    `tell` gets one line for each thing that was seen.
    """

    def __init__(self, url: str, expected: bytes | None, tell: Callable[[str], object]) -> None:
        self._address = urlsplit(url).netloc
        self._expected = expected
        self._tell = tell
        self._run = secrets.token_hex(3)

    def play(self) -> None:
        """Start, cut, resume at the byte, compare, cancel another. StoryError or OSError if that fails."""
        answer, other = f"story-{self._run}", f"story-{self._run}-stopped"
        text, cursor = self._read_begin(answer)
        generation = cursor.partition("-")[0]
        prefix = self._read_raw(answer, f"{generation}-0", _BYTES_BEFORE_CUT)
        self._tell(f"raw       another viewer took {len(prefix)} bytes from the start, and was dropped too")
        rest = self._read_raw(answer, f"{generation}-{len(prefix)}")
        whole = prefix + rest
        self._tell(f"resume    at byte {len(prefix)}: {len(rest)} bytes more, to the end")
        text += self._read_rest(answer, cursor)
        self._compare("server-sent events", text, whole)
        if self._expected is not None:
            self._compare("the source", self._expected, whole)
        digest = hashlib.sha256(whole).hexdigest()
        self._tell(f"compare   all {len(whole)} bytes are equal, SHA-256 {digest[:16]}…")
        self._cancel(other)

    def _read_begin(self, stream_id: str) -> tuple[bytes, str]:
        text, cursor, count = b"", "", 0
        for event in self._events("POST", stream_id):
            if event.event == "end":
                raise StoryError(f"stream {stream_id} ended too soon to be cut: {event.data}")
            if event.event == "message":
                text += json.loads(event.data).encode()
                cursor, count = event.id, count + 1
            if count == _EVENTS_BEFORE_CUT:
                break
        self._tell(f"start     {stream_id}: {count} events, {len(text)} bytes; its viewer is dropped at {cursor}")
        return text, cursor

    def _read_rest(self, stream_id: str, cursor: str) -> bytes:
        text = b""
        for event in self._events("GET", stream_id, cursor):
            if event.event == "message":
                text += json.loads(event.data).encode()
            if event.event == "end":
                ending = json.loads(event.data)
                if ending["status"] != "done":
                    raise StoryError(f"stream {stream_id} ended as {ending}")
                self._tell(f"resume    with Last-Event-ID {cursor}: {len(text)} bytes more, then `done`")
                return text
        raise StoryError(f"the events of {stream_id} broke off without an end")

    def _cancel(self, stream_id: str) -> None:
        stopped_at = b""
        for event in self._events("POST", stream_id):
            if event.event == "message" and not stopped_at:
                stopped_at = json.loads(event.data).encode()
                with self._request("POST", f"/answers/{stream_id}/cancel") as response:
                    if json.load(response) != {"cancelled": True}:
                        raise StoryError(f"stream {stream_id} could not be cancelled")
            if event.event == "end":
                ending = json.loads(event.data)
                if ending["status"] != "cancelled":
                    raise StoryError(f"the stopped stream ended as {ending}")
                self._tell(f"stop      {stream_id}: its viewer was told `cancelled` at {ending['cursor']}")
                return
        raise StoryError(f"the viewer of {stream_id} was not told how it ended")

    def _compare(self, what: str, wanted: bytes, found: bytes) -> None:
        if wanted != found:
            same = len(os.path.commonprefix([wanted, found]))
            raise StoryError(f"{what}: {len(wanted)} bytes, raw: {len(found)}, different from byte {same} on")

    def _read_raw(self, stream_id: str, after: str, limit: int | None = None) -> bytes:
        """The raw bytes after `after`, at most `limit`: then the connection is dropped."""
        data = b""
        with self._request("GET", f"/answers/{stream_id}/raw?after={after}") as response:
            while limit is None or len(data) < limit:
                piece = response.read1(65_536 if limit is None else limit - len(data))
                if not piece:
                    break
                data += piece
        return data

    def _events(self, method: str, stream_id: str, cursor: str = "") -> Iterator[Event]:
        """The events of a response; leaving the loop drops its connection."""
        parser = EventParser()
        headers = {"Last-Event-ID": cursor} if cursor else {}
        with self._request(method, f"/answers/{stream_id}", headers) as response:
            while piece := response.read1(65_536):
                yield from parser.feed(piece)

    def _request(self, method: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._address, timeout=_TIMEOUT)
        try:
            connection.request(method, path, headers={**(headers or {}), "Connection": "close"})
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        # With `Connection: close` the response owns the socket, and closing it drops the connection.
        if response.status != 200:
            with response:
                raise StoryError(f"{method} {path}: {response.status} {response.read(200)!r}")
        return response
