"""The newest rows of the streams that are followed in this process, from two sides.

A feed is filled by the committing side of this process and by the shared XREAD; both only ever add what lies right
behind it, so it makes no difference who is first. Viewers that are near the end of their stream are served from
it without asking Redis; the others page by themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from ...contract import Batch, Position, Status
from ..pages import Page
from ..tail import NEVER, Tail, Tails

FEED_BYTES = 1024 * 1024
"""Payload that a feed holds at most (or one row); all feeds of a process together hold ALL_FEEDS_BYTES."""

ALL_FEEDS_BYTES = 64 * 1024 * 1024

CHECK_SECONDS = 2.0
"""Seconds between looks whether a watched stream is still there and its producer lives."""

LINGER_SECONDS = 5.0
"""Seconds that a feed stays, and is kept up to date, after its last viewer left: most come right back."""


class Feed(Tail):
    """The newest rows of one stream. The lock guards the fields here too."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id)
        self.local = False  # produced in this process: no XREAD is needed
        self.check_at = NEVER  # monotonic: when Redis must be asked again
        self._behind = -1  # the end at which the last check found more stored than had come

    def caught_up(self, batch: Batch, due: float, local: bool) -> None:
        """A viewer has found the stream's end in Redis: follow from there. `due`: seconds until the next check."""
        with self._lock:
            if batch.status.ended or batch.generation < self.generation:
                return
            if batch.generation == self.generation and self.ending:
                return  # what was found is older than what is known here
            moved = batch.generation != self.generation or batch.size > self.end
            if moved:
                self._restart(batch.generation, batch.size)
                self.local = local
            self._check_in(min(CHECK_SECONDS, max(0.01, due)))
        if moved:
            self.bump()  # others may wait where the feed was: nobody else will tell them

    @property
    def life(self) -> float:
        """No end: the checks wake those that wait."""
        return math.inf

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
                    self._check_in(CHECK_SECONDS)
                if end > self.end:
                    self._add(row)
            self._shorten(limit)
        self.bump()

    def finish(self, generation: int, size: int, status: Status, error: str | None) -> None:
        """The stream has ended at `size`."""
        with self._lock:
            if self._finish(generation, size, status, error):
                # Good for those that wait; who comes later asks Redis, where it may have been deleted since.
                self._check_in(0.0)
        self.bump()

    def distrust(self) -> None:
        """Something is not as it was: every viewer must look for itself."""
        with self._lock:
            self._restart(0, 0)
        self.bump()

    def confirm(self, generation: int, size: int, due: float, known: int) -> None:
        """A check found the stream running. `known`: the feed's end when the check was sent.

        If more is stored than is known here, somebody else writes: the stream is `local` no longer. If it does
        not come by the next check either, the shared reader cannot get it: viewers must page by themselves.
        """
        with self._lock:
            stuck = size > self.end == self._behind
            self._behind = self.end if size > self.end else -1
            agreed = generation == self.generation and size >= known and not stuck
            if agreed:
                self.local = self.local and size <= self.end
                self._check_in(min(CHECK_SECONDS, max(0.01, due)))
        if not agreed:
            self.distrust()

    def _restart(self, generation: int, end: int) -> None:
        super()._restart(generation, end)
        self.check_at = NEVER
        self.local = self.local and generation != 0

    def _check_in(self, seconds: float) -> None:
        """A check is due then. One that is late (Redis is away) makes the feed silent: its viewers shall hear of
        the trouble."""
        self.check_at = time.monotonic() + seconds
        self._good_until = self.check_at + CHECK_SECONDS


class Feeds(Tails[Feed]):
    """The feeds of one process."""

    def __init__(self) -> None:
        super().__init__(Feed, LINGER_SECONDS)

    @property
    def limit(self) -> int:
        """Bytes that each feed may hold at the moment."""
        return min(FEED_BYTES, ALL_FEEDS_BYTES // max(1, len(self._tails)))
