"""Whether the producers of a SQLite store's streams live, and the ending of those whose producers do not.

Each producing process holds one lock file. flock is dropped by the kernel when its holder dies, however it dies,
so a free lock proves death within milliseconds. A stopped (SIGSTOP) process keeps its lock, so a held lock proves
nothing: that is what the leases are for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection
from pathlib import Path

import filelock

from ...contract import Status
from . import clock, tables
from .connection import Connections
from .tables import Row

_PROBE_SECONDS = 0.25  # for which the result of a probe of a lock file is good
_PROBES_KEPT = 1000
_ACQUIRE_SECONDS = 5.0


class ProcessLock:
    """This process's lock file in `directory`, held from construction to `release`. Do not use it after a fork:
    filelock closes the descriptor in a child, so that the child does not keep the lock alive."""

    def __init__(self, directory: Path) -> None:
        self.token = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._path = lock_path(directory, self.token)
        # Not thread-local: whatever thread closes the store releases it.
        self._lock = filelock.FileLock(self._path, thread_local=False)
        # Nobody else holds it, but for a process that tidies up and probes the new file for a moment.
        self._lock.acquire(timeout=_ACQUIRE_SECONDS)

    def release(self, *, leave_proof: bool = False) -> None:
        """Let go and remove the file, or leave it, free, as after a death (see `is_dead`). Idempotent."""
        if not leave_proof:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._lock.release()


def lock_path(directory: Path, token: str) -> Path:
    """Where the process of `token` keeps its lock."""
    return directory / f"{token}.lock"


def is_dead(directory: Path, token: str) -> bool:
    """True if the process of `token` is proven dead: its lock file is there and nobody holds it.

    A missing file proves nothing (somebody may have tidied up). Two that probe at once may both find the
    lock held, by each other: the next probe tells.
    """
    path = lock_path(directory, token)
    if not path.exists():
        return False
    probe = filelock.FileLock(path, thread_local=False)
    try:
        probe.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return False
    probe.release()
    return True


class Liveness:
    """Ends orphans as `interrupted`. One for each process, whose lock file `token` names. Thread-safe."""

    def __init__(
        self, connections: Connections, run_directory: Path, token: str, finished_ttl: float | None
    ) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._token = token
        self._finished_ttl = finished_ttl
        # Token -> (when, whether dead): a thousand viewers of one process's streams share a probe of its lock
        # file. Single dict operations are atomic, and a double probe does no harm: no lock needed.
        self._probes: dict[str, tuple[float, bool]] = {}

    def is_orphan(self, row: Row | None) -> bool:
        """Whether a running stream's producer is dead: rebooted, silent beyond its lease, or killed."""
        if row is None or row.expired or row.status is not Status.STREAMING:
            return False
        if row.boot_id != clock.boot_id() or clock.now() >= row.lease_until:
            return True
        return row.owner != self._token and self._is_dead(row.owner)

    def end_dead(self, stream_ids: Collection[str], patience: float | None = None) -> list[str]:
        """End those of these streams whose producers died; returns which. `patience`: see `Connections.write`."""
        with self._connections.read() as connection:
            found = tables.select_many(connection, stream_ids)
        return self.end([stream_id for stream_id, row in found if self.is_orphan(row)], patience)

    def end(self, orphans: Collection[str], patience: float | None = None) -> list[str]:
        """End these streams, which were found to be orphans; returns those that still were.

        They are judged again within the transaction: of many that try one wins, and a lease that was renewed in
        between saves its stream.
        """
        ended = []
        if orphans:
            with self._connections.write(patience) as connection:
                for stream_id in orphans:
                    row = tables.select_living(connection, stream_id)
                    if row is not None and self.is_orphan(row):
                        tables.end(connection, stream_id, row, Status.INTERRUPTED, None, self._finished_ttl)
                        ended.append(stream_id)
        return ended

    def end_owned(self, patience: float) -> list[str]:
        """End all that this process produces; returns the stream ids."""
        mine = "SELECT stream_id FROM streams WHERE owner = ? AND status = 'streaming'"
        with (
            self._connections.read() as connection
        ):  # a process that only reads need not wait for its turn to write
            if connection.execute(f"{mine} LIMIT 1", (self._token,)).fetchone() is None:
                return []
        with self._connections.write(patience) as connection:
            owned = connection.execute(mine, (self._token,)).fetchall()
            for (stream_id,) in owned:
                row = tables.select(connection, stream_id)
                if row is not None:
                    tables.end(connection, stream_id, row, Status.INTERRUPTED, None, self._finished_ttl)
        return [stream_id for (stream_id,) in owned]

    def _is_dead(self, token: str) -> bool:
        now = clock.now()
        probed_at, dead = self._probes.get(token, (0.0, False))
        if now - probed_at > _PROBE_SECONDS:
            dead = is_dead(self._run_directory, token)
            if len(self._probes) > _PROBES_KEPT:
                self._probes.clear()
            self._probes[token] = now, dead
        return dead
