"""A cap on the viewers of one process."""

from __future__ import annotations

import threading

from ..interrupts import Roll
from ..process import PerProcess


class _Count:
    """`lock` guards that a place is taken."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.places = Roll()


class Place:
    """One viewer's place under a cap. Given back once, by `release` or when it is collected."""

    def __init__(self, count: _Count) -> None:
        self._count = count

    def release(self) -> None:
        """Give the place back. Idempotent; thread-safe."""
        self._count.places.leave(self)


class ViewerCap:
    """At most `limit` responses follow streams in this process at once; more are turned away.

    A threaded server gives each viewer a thread. When all of them are taken, new requests of any kind hang
    without an answer, so set the limit below the number of threads: with gunicorn `threads = 64`, say 48. Hand
    one cap to all the responses that share the threads.

    A viewer that is turned away is told to come back after `retry_after` whole seconds: by 503 and `Retry-After`.
    An EventSource gives up for good at a 503. With `event_source=True` server-sent events (`sse_response`,
    `resume_sse_response`, `several_sse_response`) are answered 200 instead, with `Retry-After` and a body that
    says `retry:` and ends at once, so that EventSource comes back by itself, with the cursor that it has. It
    holds no event, no id and no ending; a stream that the response is to begin is begun all the same, for who
    comes back. This library's clients take it for what it is; of others only those that reconnect after an end
    without an `end` event. Other responses keep the 503. ValueError if `retry_after` is 0 then: nobody would wait.

    Each process of a pre-forking server counts for itself. Thread-safe; never blocks.
    """

    def __init__(self, limit: int, *, retry_after: int = 5, event_source: bool = False) -> None:
        if limit < 1 or retry_after < 0:
            raise ValueError("limit must be positive and retry_after not negative")
        if event_source and not retry_after:
            raise ValueError("with event_source retry_after must be positive")
        self.limit = limit
        self.retry_after = retry_after
        self.event_source = event_source
        self._counts = PerProcess(_Count)

    @property
    def viewers(self) -> int:
        """How many follow a stream in this process now."""
        return len(self._counts.get().places)

    def enter(self) -> Place | None:
        """Take a place; None if all are taken. The responses do it."""
        count = self._counts.get()
        with count.lock:
            if len(count.places) >= self.limit:
                return None
            place = Place(count)
            count.places.enter(place)
        return place
