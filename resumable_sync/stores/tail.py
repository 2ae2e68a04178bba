"""What the viewers of one process share of a stream: its newest rows, and where to wait for more."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..types import Batch, Position, Status
from . import pages
from .channel import Channel
from .pages import Page

NEVER = float("-inf")
"""As a time until which something is good: it is not."""

_SHARED_BATCH_BYTES = 16 * 1024
_SHARED_BATCHES = 8


class Tail(Channel):
    """The newest rows of one stream. `_lock` guards the fields behind it; version and waiting are the channel's.

    The rows reach without a gap from byte `end - _held` to byte `end` of `generation`; 0 is no generation.
    `_batches` is what viewers were given last: those of one stream mostly want the same. It is replaced, as a
    whole, with every change, and read without the lock: it is of some moment since the viewer took the version,
    so what makes it outdated also ends the viewer's wait.
    """

    def __init__(self, stream_id: str) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.listeners = 0  # guarded by the lock of Tails, as idle_since is
        self.idle_since = time.monotonic()
        self._lock = threading.Lock()
        self.generation = 0
        self.end = 0
        self.ending: tuple[Status, str | None] | None = None
        self._good_until = NEVER  # monotonic: from then on only the store knows
        self._rows: list[Page] = []
        self._held = 0
        self._batches: dict[tuple[Position, int], Batch] = {}

    def serve(self, position: Position, max_bytes: int) -> Batch | None:
        """What follows `position`, as of this moment; None if only the store knows."""
        batch = self._batches.get((position, max_bytes))
        if time.monotonic() > self._good_until:
            return None
        if batch is not None:
            return batch
        with self._lock:
            if position.generation != self.generation:
                return None
            end, ending, rows, batches = self.end, self.ending, self._rows, self._batches
            if not end - self._held <= position.offset <= end:
                return None
            found = rows[bisect_right(rows, position.offset, key=_row_end) :]
        status, error = ending or (Status.STREAMING, None)
        data = b""
        lengths: Sequence[int] = ()
        if found:
            data, lengths = pages.unpack(found, position.offset, max_bytes)
        batch = Batch(position, data, lengths, size=end, status=status, error=error)
        if len(data) <= _SHARED_BATCH_BYTES and len(batches) < _SHARED_BATCHES:
            batches[position, max_bytes] = batch
        return batch

    # The helpers below are called with the lock held.

    def _restart(self, generation: int, end: int) -> None:
        """Hold nothing, and know nothing but where the stream ends."""
        self.generation, self.end, self.ending = generation, end, None
        self._good_until = NEVER
        self._rows, self._held, self._batches = [], 0, {}

    def _finish(self, generation: int, size: int, status: Status, error: str | None) -> bool:
        """Book the ending if the rows reach up to it; else know nothing, and return False."""
        if generation != self.generation or size != self.end:
            self._restart(0, 0)
            return False
        self.ending, self._batches = (status, error), {}
        return True

    def _add(self, row: Page) -> None:
        """Put the row that begins at the end there."""
        self._rows.append(row)
        self._held += len(row[1])
        self.end = row[0]
        self._batches = {}

    def _shorten(self, limit: int) -> None:
        """Drop the oldest rows of more than `limit` bytes: down to half, so that it is not done for each.

        A new list: viewers may be cutting their part out of the old one.
        """
        dropped = 0
        while self._held > (limit // 2 if dropped else limit) and dropped < len(self._rows) - 1:
            self._held -= len(self._rows[dropped][1])
            dropped += 1
        if dropped:
            self._rows = self._rows[dropped:]


T = TypeVar("T", bound=Tail)


class Tails(Generic[T]):
    """The followed streams of one process. `_lock` guards `_tails`, their `listeners` and `idle_since`.

    `linger`: seconds that a stream stays after its last viewer left: most come right back.
    """

    def __init__(self, make: Callable[[str], T], linger: float) -> None:
        self._make = make
        self._linger = linger
        self._lock = threading.Lock()
        self._tails: dict[str, T] = {}
        self.wakes = object()  # another one after every wake_all(): a waiting read returns when it has changed

    def enter(self, stream_id: str) -> T:
        """The stream's tail, for a viewer who must `leave` it again."""
        with self._lock:
            tail = self._tails.get(stream_id)
            if tail is None:
                tail = self._tails[stream_id] = self._make(stream_id)
            tail.listeners += 1
            return tail

    def leave(self, tail: T) -> None:
        """The viewer has returned."""
        with self._lock:
            tail.listeners -= 1
            tail.idle_since = time.monotonic()

    def find(self, stream_id: str) -> T | None:
        """The stream's tail if it is followed. Cheap: it is asked for every append."""
        return self._tails.get(stream_id)  # a dict is read atomically

    def watched(self) -> list[T]:
        """All tails, without those that nobody came back to."""
        with self._lock:
            return self._watched()

    def wake_all(self) -> None:
        """Make every waiting read return."""
        self.wakes = object()  # one assignment: unlike +=, no wake of another thread can undo it
        with self._lock:
            tails = list(self._tails.values())
        for tail in tails:
            tail.bump()

    def _watched(self) -> list[T]:
        """As `watched`. Called with the lock held."""
        stale = time.monotonic() - self._linger
        for tail in list(self._tails.values()):
            if not tail.listeners and tail.idle_since < stale:
                del self._tails[tail.stream_id]
        return list(self._tails.values())


def _row_end(row: Page) -> int:
    return row[0]
