"""What was committed last to a stream that is watched in this process, so that its viewers need not ask SQLite."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Sequence

from ..types import Batch, Position, Status
from . import pages
from .channel import Channel
from .pages import Page

RECENT_BYTES = 256 * 1024
"""Payload that is held for one stream at most (or one page)."""


class Recent(Channel):
    """The viewers of one stream in this process, and its newest pages. `_lock` guards the fields below it.

    Held are the bytes `_end - _held` to `_end` of `_generation`, without a gap; 0 is no generation. Everything
    that happens to the stream, here or elsewhere, either extends them or makes them unknown, so who has read
    up to `_end` may wait without another look at the file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.idle_since = time.monotonic()  # guarded by the lock of the watch, as `listeners` is
        self._lock = threading.Lock()
        self.changes = 0  # grows with all that happens to the stream
        self._generation = 0
        self._end = 0
        self._held = 0
        self._pages: list[Page] = []
        self._look_at = 0.0  # monotonic: the stream may have expired then

    def serve(self, position: Position, max_bytes: int) -> tuple[Batch, float] | None:
        """What follows `position`, and the seconds until a look is due; None if only the file tells."""
        with self._lock:
            end, left = self._end, self._look_at - time.monotonic()
            if position.generation != self._generation or left <= 0:
                return None
            if not end - self._held <= position.offset <= end:
                return None
            found = self._pages[bisect_right(self._pages, position.offset, key=_end_of) :]
        if not found:
            return Batch(position, b"", (), size=end, status=Status.STREAMING), left
        data, lengths = pages.unpack(found, position.offset, max_bytes)
        return Batch(position, data, lengths, size=end, status=Status.STREAMING), left

    def caught_up(self, batch: Batch, life: float, changes: int) -> None:
        """A look found the end of a running stream that lives `life` seconds. `changes`: taken before the look."""
        if batch.status is not Status.STREAMING:
            return
        with self._lock:
            if self.changes != changes:
                return  # what was found may be outdated
            if batch.generation != self._generation or batch.size != self._end:
                self._restart(batch.generation, batch.size)
            self._look_at = time.monotonic() + life

    def extend(self, generation: int, rows: Sequence[Page]) -> None:
        """This process has committed these pages. Wakes all that wait."""
        with self._lock:
            self.changes += 1
            first = rows[0]
            if generation != self._generation or first[0] - len(first[1]) != self._end:
                self._restart(0, 0)
            else:
                self._pages += rows
                self._end = rows[-1][0]
                self._held += sum(len(payload) for _, payload, _ in rows)
                if self._held > RECENT_BYTES:
                    self._shorten()
        self.bump()

    def forget(self) -> None:
        """Something else has happened: all that wait must look."""
        with self._lock:
            self.changes += 1
            self._restart(0, 0)
        self.bump()

    def tail(self) -> Position:
        """Up to where the stream is known."""
        with self._lock:
            return Position(self._generation, self._end)

    def _restart(self, generation: int, end: int) -> None:
        self._generation, self._end, self._held, self._pages = generation, end, 0, []

    def _shorten(self) -> None:
        """Drop the oldest pages, down to half, so that it is not done for each."""
        dropped = 0
        while self._held > RECENT_BYTES // 2 and dropped < len(self._pages) - 1:
            self._held -= len(self._pages[dropped][1])
            dropped += 1
        self._pages = self._pages[dropped:]


def _end_of(page: Page) -> int:
    return page[0]
