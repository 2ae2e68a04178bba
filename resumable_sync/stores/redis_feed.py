"""What the viewers of one process share: for each watched stream its newest rows, and where to wait for more.

A feed is filled from two sides, by the committing side of this process and by the shared XREAD; both only ever add
what lies right behind it, so it makes no difference who is first. Viewers that are near the end of their
stream are served from it without asking Redis; the others page by themselves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from ..types import Batch, Position, Status
from . import pages
from .channel import Channel
from .pages import Page

FEED_BYTES = 1024 * 1024
"""Payload that a feed holds at most (or one row); all feeds of a process together hold ALL_FEEDS_BYTES."""

ALL_FEEDS_BYTES = 64 * 1024 * 1024

CHECK_SECONDS = 2.0
"""Seconds between looks whether a watched stream is still there and its producer lives."""

NEVER = float("-inf")
"""As the time of a check that is due: nothing in the feed is to be relied on."""

LINGER_SECONDS = 5.0
"""Seconds that a feed stays, and is kept up to date, after its last viewer left: most come right back."""


class Feed(Channel):
    """The newest rows of one stream. `_lock` guards the fields below; `version` and waiting are the channel's.

    The rows held reach without a gap from byte `begin` to byte `end` of `generation`; 0 is no generation.
    """

    def __init__(self, stream_id: str) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.idle_since = time.monotonic()  # guarded by the lock of Feeds, as `listeners` is
        self._lock = threading.Lock()
        self._rows: list[Page] = []
        self._held = 0  # bytes in _rows
        self.generation = 0
        self.end = 0
        self.local = False  # produced in this process: no XREAD is needed
        self.ending: tuple[Status, str | None] | None = None
        self.check_at = NEVER  # monotonic: when Redis must be asked again

    def serve(self, position: Position, max_bytes: int) -> Batch | None:
        """What follows `position`, as of this moment; None if only Redis knows."""
        with self._lock:
            # A check that is late (Redis is away) makes the feed silent: its viewers shall hear of the trouble.
            if position.generation != self.generation or time.monotonic() > self.check_at + CHECK_SECONDS:
                return None
            end, ending, rows = self.end, self.ending, self._rows
            if not end - self._held <= position.offset <= end:
                return None
            found = rows[bisect_right(rows, position.offset, key=_row_end) :]
        status, error = ending or (Status.STREAMING, None)
        if not found:
            return Batch(position, b"", (), size=end, status=status, error=error)
        data, lengths = pages.unpack(found, position.offset, max_bytes)
        return Batch(position, data, lengths, size=end, status=status, error=error)

    def caught_up(self, batch: Batch, due: float, local: bool) -> None:
        """A viewer has found the stream's end in Redis: follow from there. `due`: seconds until the next check."""
        with self._lock:
            if batch.status.ended or batch.generation < self.generation:
                return
            if batch.generation == self.generation and self.ending:
                return  # what was found is older than what is known here
            if batch.generation != self.generation or batch.size > self.end:
                self._restart(batch.generation, batch.size)
                self.local = local
            self.check_at = time.monotonic() + min(CHECK_SECONDS, max(0.01, due))

    def tail(self) -> Position | None:
        """Where another process's rows are awaited; None if none are."""
        with self._lock:
            if self.local or self.ending or not self.generation:
                return None
            return Position(self.generation, self.end)

    def to_check(self) -> tuple[float, int, int] | None:
        """(when a check is due, generation, end); None if there is nothing to check."""
        with self._lock:
            if self.ending or not self.generation:
                return None
            return self.check_at, self.generation, self.end

    def extend(self, generation: int, rows: Sequence[Page], limit: int, *, local: bool = False) -> None:
        """Add what was stored; rows that are known already are passed over, a gap empties the feed first."""
        with self._lock:
            if generation < self.generation:
                return
            self.local = local or (self.local and generation == self.generation)
            for row in rows:
                end, payload, _ = row
                if generation != self.generation or end - len(payload) > self.end:
                    self._restart(generation, end - len(payload))
                    self.check_at = time.monotonic() + CHECK_SECONDS
                if end > self.end:
                    self._rows.append(row)
                    self._held += len(payload)
                    self.end = end
            while self._held > limit and len(self._rows) > 1:
                # A new list: viewers may be cutting their part out of the old one.
                dropped = self._drop(limit)
                self._rows = self._rows[dropped:]
        self.bump()

    def finish(self, generation: int, size: int, status: Status, error: str | None) -> None:
        """The stream has ended at `size`."""
        with self._lock:
            if generation == self.generation and size == self.end:
                self.ending = (status, error)
                # Good for those that wait; who comes later asks Redis, where it may have been deleted since.
                self.check_at = time.monotonic()
            else:
                self.check_at = NEVER
        self.bump()

    def distrust(self) -> None:
        """Something is not as it was: every viewer must look for itself."""
        with self._lock:
            self._restart(0, 0)
        self.bump()

    def confirm(self, generation: int, size: int, due: float, known: int) -> None:
        """A check found the stream running. `known`: the feed's end when the check was sent.

        If more is stored than is known here, somebody else writes: the stream is `local` no longer.
        """
        with self._lock:
            agreed = generation == self.generation and size >= known
            if agreed:
                self.local = self.local and size <= self.end
                self.check_at = time.monotonic() + min(CHECK_SECONDS, max(0.01, due))
        if not agreed:
            self.distrust()

    def _restart(self, generation: int, offset: int) -> None:
        self.generation, self.end = generation, offset
        self._rows, self._held = [], 0
        self.ending = None
        self.check_at = NEVER
        self.local = self.local and generation != 0

    def _drop(self, limit: int) -> int:
        """How many of the oldest rows must go, at half of the limit so that it is not done for each row."""
        dropped = 0
        while self._held > limit // 2 and dropped < len(self._rows) - 1:
            self._held -= len(self._rows[dropped][1])
            dropped += 1
        return dropped


def _row_end(row: Page) -> int:
    return row[0]


class Feeds:
    """The feeds of one process. `_lock` guards `_feeds`, and each feed's `listeners` and `idle_since`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}
        self.wakes = 0  # grows with every wake_all(); a waiting read returns when it has changed

    @contextlib.contextmanager
    def listen(self, stream_id: str) -> Iterator[Feed]:
        """The stream's feed, for the time of the block and a little longer."""
        with self._lock:
            feed = self._feeds.get(stream_id)
            if feed is None:
                feed = self._feeds[stream_id] = Feed(stream_id)
            feed.listeners += 1
        try:
            yield feed
        finally:
            with self._lock:
                feed.listeners -= 1
                feed.idle_since = time.monotonic()

    def find(self, stream_id: str) -> Feed | None:
        """The stream's feed if it is watched. Cheap: it is asked for every append."""
        return self._feeds.get(stream_id)  # a dict is read atomically

    @property
    def limit(self) -> int:
        """Bytes that each feed may hold at the moment."""
        return min(FEED_BYTES, ALL_FEEDS_BYTES // max(1, len(self._feeds)))

    def watched(self) -> list[Feed]:
        """All feeds, without those that nobody came back to."""
        stale = time.monotonic() - LINGER_SECONDS
        with self._lock:
            for feed in [each for each in self._feeds.values() if not each.listeners and each.idle_since < stale]:
                del self._feeds[feed.stream_id]
            return list(self._feeds.values())

    def wake_all(self) -> None:
        """Make every waiting read return."""
        self.wakes += 1
        with self._lock:
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.bump()
