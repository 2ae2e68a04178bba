"""What the viewers of one process share of a stream: its newest rows, and where to wait for more."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, Union

from ..contract import Batch, Position, Status
from ..errors import InvalidCursorError, StoreUnavailableError, StreamLostError, StreamNotFoundError
from . import pages
from .pages import Page
from .wakeup import Channel

NEVER = float("-inf")
"""As a time until which something is good: it is not."""

_SHARED_BATCH_BYTES = 4 * 1024
_SHARED_BATCHES = 4


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
        self.changes = 0  # grows with all that happens to the stream, if the store counts it; guarded by the lock
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

    @property
    def life(self) -> float:
        """Seconds that a viewer may wait for a wake-up before it must look by itself."""
        return self._good_until - time.monotonic()

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

Look = Callable[[str, Union[Position, None], int], tuple[Batch, float]]
"""Asks the store what follows a position, and in how many seconds that may change by itself. Raises as `read`."""


class Tails(Generic[T]):
    """The followed streams of one process. `_lock` guards `_tails`, their `listeners` and `idle_since`.

    `linger`: seconds that a stream stays after its last viewer left: most come right back.
    """

    def __init__(self, make: Callable[[str], T], linger: float) -> None:
        self._make = make
        self._linger = linger
        self._lock = threading.Lock()
        self._tails: dict[str, T] = {}
        self._wakes = object()  # another one after every wake_all(): then a waiting read returns
        self._stopped = False

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

    def read(
        self,
        stream_id: str,
        position: Position | None,
        max_bytes: int,
        deadline: float,
        look: Look,
        caught_up: Callable[[T, Batch, float, int], object],
        *,
        look_first: bool = False,
    ) -> Batch:
        """`Store.read` with a wait, until `deadline` (monotonic) at most. `look_first`: to follow costs something,
        so it is left to those who find nothing.

        `caught_up(tail, batch, due, changes)` is called with a look that found the stream's end, and the changes
        that the tail had seen before; it makes the tail follow from there.
        """
        wakes = self._wakes
        seen = False  # by this call: then it is no longer missing but lost
        if look_first and self.find(stream_id) is None:
            batch, _ = look(stream_id, position, max_bytes)
            if batch.data or batch.status.ended:
                return batch
            seen, position = True, Position(batch.generation, batch.offset)
        tail = self.enter(stream_id)
        woken = True
        try:
            while True:
                version, changes = tail.version, tail.changes  # before the look: nothing after it is missed
                # Behind a wait without any news the store has the last word.
                served = tail.serve(position, max_bytes) if position is not None and woken else None
                if served is not None:
                    batch = served
                else:
                    try:
                        batch, due = look(stream_id, position, max_bytes)
                    except (StreamNotFoundError, InvalidCursorError) as gone:
                        if not seen:
                            raise
                        raise StreamLostError(f"stream {stream_id} was lost while it was read: {gone}") from gone
                    seen = True
                    position = Position(batch.generation, batch.offset - len(batch.data))
                    if batch.offset == batch.size:
                        caught_up(tail, batch, due, changes)
                left = deadline - time.monotonic()
                if batch.data or batch.status.ended or left <= 0:
                    return batch
                if self._stopped:
                    raise StoreUnavailableError("the store is closed", transient=False)
                if self._wakes is not wakes:
                    return batch
                woken = tail.wait(version, min(left, tail.life))
        finally:
            self.leave(tail)

    def find(self, stream_id: str) -> T | None:
        """The stream's tail if it is followed. Cheap: it is asked for every append."""
        return self._tails.get(stream_id)  # a dict is read atomically

    def watched(self) -> list[T]:
        """All tails, without those that nobody came back to."""
        with self._lock:
            return self._watched()

    def wake_all(self) -> None:
        """Make every waiting read return."""
        self._wakes = object()  # one assignment: unlike +=, no wake of another thread can undo it
        with self._lock:
            tails = list(self._tails.values())
        for tail in tails:
            tail.bump()

    def stop_reads(self) -> None:
        """The store is closed: waiting reads are to raise StoreUnavailableError."""
        self._stopped = True
        self.wake_all()

    def _watched(self) -> list[T]:
        """As `watched`. Called with the lock held."""
        stale = time.monotonic() - self._linger
        for tail in list(self._tails.values()):
            if not tail.listeners and tail.idle_since < stale:
                del self._tails[tail.stream_id]
        return list(self._tails.values())


def _row_end(row: Page) -> int:
    return row[0]
