"""What keeps a SQLite store in shape: sweeping, checkpoints, integrity, left-over files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path

from ...contract import Status
from . import pages as sqlite_pages
from . import rows as sqlite_rows
from .connection import Connections
from .process_lock import is_dead

_ROWS_OF_A_STEP = 200  # of one transaction, so that writers get in between
_PAGES_OF_A_STEP = 100
_FREE_PAGES_KEPT = 1024
_STALE_FILE_SECONDS = 60.0


def sweep(connections: Connections, end_dead: Callable[[Collection[str]], object]) -> int:
    """End the streams of dead producers, remove expired ones and the pages of removed ones. Returns how many
    streams were removed."""
    removed = 0
    last = ""
    while True:
        with connections.read() as connection:
            rows = sqlite_rows.select_page(connection, last, _ROWS_OF_A_STEP)
        if not rows:
            break
        last = rows[-1][0]
        end_dead([stream_id for stream_id, row in rows if row.status is Status.STREAMING])
        expired = [stream_id for stream_id, row in rows if row.expired]
        if expired:
            with connections.write() as connection:
                for stream_id in expired:
                    found = sqlite_rows.select(connection, stream_id)  # it may have been made anew since
                    if found is not None and found.expired:
                        removed += sqlite_rows.remove(connection, stream_id)
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
        problems += sqlite_rows.check(connection)
        streams = connection.execute("SELECT stream_id, generation, size FROM streams").fetchall()
        for stream_id, generation, size in streams:
            found = sqlite_pages.check(connection, generation, size)
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
