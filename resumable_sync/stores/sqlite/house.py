"""When a process keeps house for a SQLite store: checkpoints off the writers' way, sweeps in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from ..sweeper import Janitor
from . import upkeep as sqlite_upkeep
from .connection import Connections

_CHECKPOINT_BYTES = 4 * 1024 * 1024  # written between checkpoints
_SWEEP_SECONDS = 30.0


class House:
    """One process's housekeeping; its thread starts with the first `expect` or `sweep_soon`. Thread-safe.

    The fields are hints that threads change without a lock: a lost update costs a round, which comes later.
    """

    def __init__(
        self,
        connections: Connections,
        run_directory: Path,
        end_dead: Callable[[Collection[str]], object],
        shortest_ttl: float,
    ) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._end_dead = end_dead
        self._shortest_ttl = shortest_ttl
        self._unchecked_bytes = 0  # written since the last checkpoint, roughly
        self._sweep_at = time.monotonic() + _SWEEP_SECONDS
        self._janitor = Janitor("resumable-sync-sqlite-janitor", self._round, self._interval)

    def expect(self, ttl: float) -> None:
        """A stream with this ttl has begun: rounds are to come often enough for it."""
        self._janitor.start()
        if ttl < self._shortest_ttl:
            self._shortest_ttl = ttl
            self._janitor.hurry()

    def wrote(self, count: int) -> None:
        """So many bytes were written."""
        self._unchecked_bytes += count
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._janitor.hurry()

    def sweep_soon(self) -> None:
        """There is something to clear away."""
        self._sweep_at = 0.0
        self._janitor.start()
        self._janitor.hurry()

    def sweep(self) -> int:
        """Sweep now, in this thread; returns how many streams were removed."""
        return sqlite_upkeep.sweep(self._connections, self._end_dead)

    def stop(self) -> None:
        """End the thread; waits for its present round, a second at most."""
        self._janitor.stop()

    def _interval(self) -> float:
        return min(_SWEEP_SECONDS, max(0.05, self._shortest_ttl / 2))

    def _round(self) -> None:
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._unchecked_bytes = 0
            sqlite_upkeep.checkpoint(self._connections)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self._interval()
            self.sweep()
            sqlite_upkeep.tidy(self._connections, self._run_directory)
