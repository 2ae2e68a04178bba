"""What keeps a SQLite store in shape: sweeping, checkpoints, integrity, left-over files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path

from ..sweeper import Sweeper
from . import tables
from .connection import Connections
from .liveness import Liveness, is_dead

_CHECKPOINT_BYTES = 4 * 1024 * 1024  # written between checkpoints
_SWEEP_SECONDS = 30.0
_ROWS_OF_A_STEP = 200  # of one transaction, so that writers get in between
_PAGES_OF_A_STEP = 100
_FREE_PAGES_KEPT = 1024
_STALE_FILE_SECONDS = 60.0


Publish = Callable[[Collection[str]], object]


def sweep(connections: Connections, liveness: Liveness, publish: Publish) -> int:
    """End the streams of dead producers, remove expired ones and the pages of removed ones. Returns how many
    streams were removed. `publish` is told which streams ended."""
    removed = 0
    last = ""
    while True:
        with connections.read() as connection:
            rows = tables.select_page(connection, last, _ROWS_OF_A_STEP)
        if not rows:
            break
        last = rows[-1][0]
        ended = liveness.end([stream_id for stream_id, row in rows if liveness.is_orphan(row)])
        if ended:
            publish(ended)
        expired = [stream_id for stream_id, row in rows if row.expired]
        if expired:
            with connections.write() as connection:
                for stream_id in expired:
                    found = tables.select(connection, stream_id)  # it may have been made anew since
                    if found is not None and found.expired:
                        removed += tables.remove(connection, stream_id)
    _empty_trash(connections)
    return removed


def _empty_trash(connections: Connections) -> None:
    """Delete the pages of removed streams, some at a time, and give free space back to the file system."""
    free_before = None
    while True:
        with connections.read() as connection:
            found = connection.execute("SELECT generation FROM trash LIMIT 1").fetchone()
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        if found is None and (free <= _FREE_PAGES_KEPT or free == free_before):
            return
        free_before = free if found is None else None
        with connections.write() as connection:
            if found is None:
                connection.execute(f"PRAGMA incremental_vacuum({_FREE_PAGES_KEPT // 2:d})").fetchall()
                continue
            deleted = connection.execute(
                "DELETE FROM pages WHERE generation = ? AND end IN"
                " (SELECT end FROM pages WHERE generation = ? ORDER BY end LIMIT ?)",
                (found[0], found[0], _PAGES_OF_A_STEP),
            ).rowcount
            if deleted < _PAGES_OF_A_STEP:
                connection.execute("DELETE FROM trash WHERE generation = ?", found)


def checkpoint(connections: Connections) -> None:
    """Move what the write-ahead log holds into the file, without holding up readers or writers."""
    with connections.outside_transactions() as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def check(connections: Connections) -> list[str]:
    """Everything that is wrong with the file, in words."""
    problems = []
    with connections.read() as connection:
        for (text,) in connection.execute("PRAGMA integrity_check"):
            if text != "ok":
                problems.append(text)
        problems += tables.check_rows(connection)
        streams = connection.execute("SELECT stream_id, generation, size FROM streams").fetchall()
        for stream_id, generation, size in streams:
            found = tables.check_pages(connection, generation, size)
            problems += [f"stream {stream_id}: {problem}" for problem in found]
    return problems


def tidy(connections: Connections, directory: Path) -> None:
    """Remove the lock files and sockets of processes that died, once no running stream names them."""
    with connections.read() as connection:
        owners = {owner for (owner,) in connection.execute("SELECT owner FROM streams WHERE status = 'streaming'")}
    now = time.time()
    for path in directory.iterdir():
        token = path.name.split(".")[0]
        try:
            stale = now - path.stat().st_mtime > _STALE_FILE_SECONDS
        except FileNotFoundError:
            continue
        if not stale or token in owners or token == "create":
            continue
        lock = directory / f"{token}.lock"
        if is_dead(directory, token) or not lock.exists():
            path.unlink(missing_ok=True)


def remove_files(path: Path, directory: Path) -> None:
    """Delete the file with its companions."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        for leftover in directory.iterdir():
            leftover.unlink(missing_ok=True)
        directory.rmdir()


class Upkeep:
    """When a process does it: checkpoints off the writers' way, sweeps in the background. Thread-safe.

    Its thread starts with the first `expect` or `sweep_soon`.

    The fields are hints that threads change without a lock: a lost update costs a round, which comes later.
    """

    def __init__(
        self,
        connections: Connections,
        run_directory: Path,
        liveness: Liveness,
        publish: Publish,
        shortest_ttl: float,
    ) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._liveness = liveness
        self._publish = publish
        self._shortest_ttl = shortest_ttl
        self._unchecked_bytes = 0  # written since the last checkpoint, roughly
        self._sweep_at = time.monotonic() + _SWEEP_SECONDS
        self._sweeper = Sweeper("resumable-sync-sqlite-sweeper", self._round, self._interval)

    def expect(self, ttl: float) -> None:
        """A stream with this ttl has begun: from now on rounds come often enough for it."""
        self._sweeper.start()
        if ttl < self._shortest_ttl:
            self._shortest_ttl = ttl
            self._sweeper.hurry()

    def wrote(self, count: int) -> None:
        """`count` bytes were written."""
        self._unchecked_bytes += count
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._sweeper.hurry()

    def sweep_soon(self) -> None:
        """There is something to remove."""
        self._sweep_at = 0.0
        self._sweeper.start()
        self._sweeper.hurry()

    def sweep(self) -> int:
        """Sweep now, in this thread; returns how many streams were removed."""
        return sweep(self._connections, self._liveness, self._publish)

    def stop(self) -> None:
        """End the thread; waits for its present round, a second at most."""
        self._sweeper.stop()

    def _interval(self) -> float:
        return min(_SWEEP_SECONDS, max(0.05, self._shortest_ttl / 2))

    def _round(self) -> None:
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._unchecked_bytes = 0
            checkpoint(self._connections)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self._interval()
            self.sweep()
            tidy(self._connections, self._run_directory)
