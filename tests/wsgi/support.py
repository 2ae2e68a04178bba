"""What the tests of the responses share: sources, calls without a server, a wait with a deadline."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

from resumable_sync import current_producer
from resumable_sync.sse import Event, parse_events

from .. import support


def wait_until(predicate: Callable[[], bool], seconds: float = 10.0) -> None:
    """Look every few milliseconds; fail after `seconds`."""
    support.wait_until(predicate, seconds)


class Feed:
    """A source that the test feeds: `put` chunks, `end`, or an exception. Counts how often it was started."""

    def __init__(self, *chunks: bytes | str) -> None:
        self.started = 0
        self._queue: queue.Queue[bytes | str | BaseException | None] = queue.Queue()
        for chunk in chunks:
            self._queue.put(chunk)

    def put(self, *chunks: bytes | str) -> None:
        for chunk in chunks:
            self._queue.put(chunk)

    def end(self, error: BaseException | None = None) -> None:
        self._queue.put(error)

    def __call__(self) -> Iterator[bytes | str]:
        self.started += 1
        current_producer().on_cancel(self.end)
        while True:
            chunk = self._queue.get(timeout=30)
            if chunk is None:
                return
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk


def ended(*chunks: bytes | str) -> Feed:
    """A feed of these chunks that then ends as `done`."""
    feed = Feed(*chunks)
    feed.end()
    return feed


class Reply:
    """What an application answers, taken without a server."""

    def __init__(self, status: str, headers: list[tuple[str, str]], body: Iterable[bytes]) -> None:
        self.status = int(status.split()[0])
        self.pairs = headers
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body
        self._pieces = iter(body)

    def read(self) -> bytes:
        return b"".join(self._pieces)

    def read_bytes(self, count: int) -> bytes:
        """At least `count` bytes, without waiting for more than those."""
        found = b""
        while len(found) < count:
            found += next(self._pieces)
        return found

    def read_until(self, mark: bytes) -> bytes:
        found = b""
        while mark not in found:
            found += next(self._pieces)
        return found

    def events(self) -> list[Event]:
        return list(parse_events(self._pieces))

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


def request(method: str = "GET", query: str = "", **headers: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": query}
    for name, value in headers.items():
        environ[f"HTTP_{name.upper()}"] = value
    setup_testing_defaults(environ)
    return environ


def call(application: Any, method: str = "GET", query: str = "", **headers: str) -> Reply:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, pairs: list[tuple[str, str]], exc_info: object = None) -> object:
        started.append((status, pairs))
        return None

    body = application(request(method, query, **headers), start_response)
    ((status, pairs),) = started
    return Reply(status, pairs, body)
