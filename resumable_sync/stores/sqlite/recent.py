"""What was committed last to a stream that is watched in this process, so that its viewers need not ask SQLite."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ...contract import Batch, Position, Status
from ..pages import Page
from ..tail import Tail


class State(NamedTuple):
    """How a stream stands in the file."""

    generation: int
    size: int
    status: Status


class News(NamedTuple):
    """What a look at the file found behind a tail."""

    state: State
    error: str | None
    life: float
    """Seconds that the stream lives from now."""
    rows: Sequence[Page]


RECENT_BYTES = 256 * 1024
"""Payload that is held for one stream at most (or one page)."""


class Recent(Tail):
    """The newest pages of one stream.

    Everything that happens to the stream, here or elsewhere, either extends them or makes them unknown, so who
    has read up to the end may wait without another look at the file, until the stream may have expired.
    """

    def caught_up(self, batch: Batch, life: float, changes: int) -> None:
        """A look found the end of a running stream that lives `life` seconds. `changes`: taken before the look."""
        if batch.status is not Status.STREAMING:
            return
        with self._lock:
            if self.changes != changes:
                return  # what was found may be outdated
            moved = batch.generation != self.generation or batch.size != self.end
            if moved:
                self._restart(batch.generation, batch.size)
            self._good_until = time.monotonic() + life
        if moved:
            self.bump()  # others may wait where the tail was: nobody else will tell them

    def extend(self, generation: int, rows: Sequence[Page]) -> None:
        """This process has committed these pages. Wakes all that wait."""
        with self._lock:
            self.changes += 1
            if generation != self.generation or not self._extend(rows):
                self._restart(0, 0)
        self.bump()

    def advance(self, before: Position, news: News | None) -> None:
        """Another process has committed something: `news`, None if it is not known what. `before`: the tail when
        the file was looked at. Wakes all that wait, unless there is nothing new."""
        with self._lock:
            if news is None or not news.state.generation == self.generation == before.generation:
                self._restart(0, 0)
            elif not (self._extend(news.rows) and before.offset <= news.state.size <= self.end):
                self._restart(0, 0)
            elif news.state.status is not Status.STREAMING:
                self._end(news.state, news.error, news.life)
            elif not news.rows:
                return
            self.changes += 1
        self.bump()

    def finish(self, state: State, error: str | None, life: float) -> None:
        """This process has ended the stream, which lives `life` seconds from now. Wakes all that wait."""
        with self._lock:
            self.changes += 1
            self._end(state, error, life)
        self.bump()

    def agrees(self, before: Position, state: State | None) -> bool:
        """Whether a look at the file found what is known here. `before`: the tail at some moment before it."""
        with self._lock:
            if state is None or not state.generation == self.generation == before.generation:
                return False
            status = self.ending[0] if self.ending else Status.STREAMING
            return before.offset <= state.size <= self.end and state.status is status

    def forget(self) -> None:
        """Something else has happened: all that wait must look."""
        with self._lock:
            self.changes += 1
            self._restart(0, 0)
        self.bump()

    def tail(self) -> Position:
        """Up to where the stream is known."""
        with self._lock:
            return Position(self.generation, self.end)

    # The helpers below are called with the lock held.

    def _extend(self, rows: Sequence[Page]) -> bool:
        """Add those of these pages that are not known yet; False if some are missing in between."""
        for row in rows:
            if row[0] - len(row[1]) > self.end:
                return False
            if row[0] > self.end:
                self._add(row)
        self._shorten(RECENT_BYTES)
        return True

    def _end(self, state: State, error: str | None, life: float) -> None:
        if self._finish(*state, error):
            self._good_until = min(self._good_until, time.monotonic() + life)
