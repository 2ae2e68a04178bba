"""What keeps a SQLite store in shape: checkpoints off the writers' way, sweeps in the background, checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path

from ...errors import StoreUnavailableError
from ..sweeper import Sweeper
from . import tables
from .connection import PAGE_BYTES, Connections, is_full
from .liveness import Liveness, is_held

_CHECKPOINT_BYTES = (
    16 * 1024 * 1024
)  # between checkpoints, each of which syncs the disk: one a second of 5,000 appends
_ROOM_MILLISECONDS = 250  # for which a checkpoint that makes room waits for others
_SWEEP_SECONDS = 30.0
_ROWS_OF_A_STEP = 200  # of one transaction, so that writers get in between
_PAGES_OF_A_STEP = 100
_FREE_BYTES_KEPT = 4 * 1024 * 1024
_STALE_FILE_SECONDS = 60.0


class Upkeep:
    """One process's maintenance of the file. Thread-safe. The first `expect` or `sweep_soon` starts its thread.

    `publish(ids)` tells the viewers of streams that were ended. The fields are hints that threads change without
    a lock: a lost update costs a round, which comes later.
    """

    def __init__(
        self,
        connections: Connections,
        run_directory: Path,
        liveness: Liveness,
        publish: Callable[[Collection[str]], object],
        shortest_ttl: float,
    ) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._liveness = liveness
        self._publish = publish
        self._shortest_ttl = shortest_ttl
        self._unchecked_bytes = 0  # that the log has grown by since the last checkpoint, roughly
        self._needs_room = False
        self._sweep_at = time.monotonic() + _SWEEP_SECONDS
        self._thread = Sweeper("resumable-sync-sqlite-upkeep", self._round, self._interval)

    def expect(self, ttl: float) -> None:
        """A stream with this ttl has begun: rounds are to come often enough for it."""
        self._thread.start()
        if ttl < self._shortest_ttl:
            self._shortest_ttl = ttl
            self._thread.hurry()

    def wrote(self, count: int, streams: int) -> None:
        """A transaction has written so many bytes to so many streams. Each takes a page of the log of its own at
        least, and so do their rows together: with small chunks that is most of it."""
        self._unchecked_bytes += count + PAGE_BYTES * (streams + 1)
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._thread.hurry()

    def refused(self, unavailable: StoreUnavailableError) -> None:
        """A write has failed; if for want of room, the next one begins with `make_room`."""
        self._needs_room = self._needs_room or is_full(unavailable)

    def make_room(self) -> None:
        """Before a write: if the last one found no room, have the log begin anew, in this thread. Otherwise it
        would grow on into all that becomes free, and leave none for a checkpoint. StoreUnavailableError while
        there is none. Waits a moment for other writers and readers; if they take longer, the next write tries.
        """
        if self._needs_room:
            with self._connections.outside_transactions() as connection:
                connection.execute(f"PRAGMA busy_timeout = {_ROOM_MILLISECONDS:d}")
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            self._needs_room = bool(busy)

    def sweep_soon(self) -> None:
        """There is something to remove."""
        self._sweep_at = 0.0
        self._thread.start()
        self._thread.hurry()

    def stop(self) -> None:
        """End the thread; waits for its present round, a second at most."""
        self._thread.stop()

    def sweep(self) -> int:
        """End the streams of dead producers, remove expired ones and the pages of removed ones, in this thread.
        Returns how many streams were removed."""
        removed = 0
        after: str | None = ""
        while after is not None:
            with self._connections.read() as connection:
                rows, after = tables.select_page(connection, after, _ROWS_OF_A_STEP)
            ended = self._liveness.end_over(rows)
            if ended:
                self._publish(ended)
            expired = [
                stream_id
                for stream_id, found in rows
                if (row := ended.get(stream_id, found)) is not None and row.expired
            ]
            if expired:
                with self._connections.write() as connection:
                    for stream_id, row in tables.select_many(connection, expired):
                        if row.expired:  # not if it was made anew since
                            removed += tables.remove(connection, stream_id)
        self._empty_trash()
        return removed

    def _empty_trash(self) -> None:
        """Delete the pages of removed streams, some at a time, and give free space back to the file system."""
        free_before = None
        while True:
            with self._connections.read() as connection:
                found = connection.execute("SELECT generation FROM trash LIMIT 1").fetchone()
                free = connection.execute("PRAGMA freelist_count").fetchone()[0]
                kept = _FREE_BYTES_KEPT // connection.page_bytes
            if found is None and (free <= kept or free == free_before):
                return
            free_before = free if found is None else None
            with self._connections.write() as connection:
                if found is None:
                    connection.execute(f"PRAGMA incremental_vacuum({kept // 2:d})").fetchall()
                    continue
                deleted = connection.execute(
                    "DELETE FROM pages WHERE generation = ? AND end IN"
                    " (SELECT end FROM pages WHERE generation = ? ORDER BY end LIMIT ?)",
                    (found[0], found[0], _PAGES_OF_A_STEP),
                ).rowcount
                if deleted < _PAGES_OF_A_STEP:
                    connection.execute("DELETE FROM trash WHERE generation = ?", found)

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the file, without holding up readers or writers."""
        with self._connections.outside_transactions() as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def remove_stale_files(self) -> None:
        """Remove the lock files and sockets of processes that died, once no running stream names them."""
        with self._connections.read() as connection:
            owners = {owner for (owner,) in connection.execute(_OWNERS)}
        now = time.time()
        for path in self._run_directory.iterdir():
            token = path.name.split(".")[0]
            try:
                stale = now - path.stat().st_mtime > _STALE_FILE_SECONDS
            except FileNotFoundError:
                continue
            if not stale or token in owners or token == "create":
                continue
            held = is_held(self._run_directory, token)
            if held is False or (held is None and not (self._run_directory / f"{token}.lock").exists()):
                path.unlink(missing_ok=True)

    def _interval(self) -> float:
        return min(_SWEEP_SECONDS, max(0.05, self._shortest_ttl / 2))

    def _round(self) -> None:
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._unchecked_bytes = 0
            self.checkpoint()
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self._interval()
            self.sweep()
            self.remove_stale_files()


_OWNERS = f"SELECT owner FROM {tables.RUNNING} UNION SELECT producer FROM {tables.CONTINUABLE}"


def check(connections: Connections) -> list[str]:
    """Everything that is wrong with the file, in words."""
    with connections.read() as connection:
        texts = [text for (text,) in connection.execute("PRAGMA integrity_check")]
        return [text for text in texts if text != "ok"] + list(tables.check(connection))


def remove_files(path: Path, directory: Path) -> None:
    """Delete the file with its companions."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        for leftover in directory.iterdir():
            leftover.unlink(missing_ok=True)
        directory.rmdir()
