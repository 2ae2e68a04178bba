"""Whether the producers of a SQLite store's streams live, and the ending of those whose producers do not.

Each process holds one lock file. The kernel drops a flock when its holder dies, however it dies: within
milliseconds a free lock proves the death. A stopped (SIGSTOP) process keeps its lock, so a held lock proves
nothing: for that there are leases.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import filelock

from ...contract import Status
from . import clock as bootclock
from . import tables
from .connection import Connections
from .tables import Row, Steps

_ACQUIRE_SECONDS = 5.0
_RESTORE_SECONDS = 1.0  # between checks that the own lock file is there
_PROOF_SECONDS = 0.25  # that what a lock file told is good for
_PROOFS_KEPT = 1000


class ProcessLock:
    """This process's lock file in `directory`, held from construction to `release`. Thread-safe. Do not use it
    after a fork: filelock closes the descriptor in a child, so that the child does not keep the lock alive."""

    def __init__(self, directory: Path) -> None:
        self.token = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.path = _lock_path(directory, self.token)
        # Guards `_lock`, and the file: of two that put it back at once, one would undo what the other did.
        self._guard = threading.Lock()
        self._restore_at = 0.0  # a hint, changed without a lock
        self._lock: filelock.BaseFileLock | None = self._make()

    def restore(self) -> None:
        """Put the lock file back if somebody removed it, as cleaners of temporary files do. At most once a second;
        where it fails, a death shows by the lease alone."""
        now = time.monotonic()
        if now < self._restore_at:
            return
        self._restore_at = now + _RESTORE_SECONDS
        with contextlib.suppress(OSError):
            with self._guard:
                if self._lock is not None and not self.path.exists():
                    before, self._lock = self._lock, self._make()
                    before.release()

    def release(self, *, leave_proof: bool = False) -> None:
        """Let go and remove the file, or leave it, free, as after a death (see `is_dead`). Idempotent."""
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is None:
            return
        if not leave_proof:
            with contextlib.suppress(OSError):
                self.path.unlink()
        lock.release()

    def _make(self) -> filelock.BaseFileLock:
        """A lock file that is held before it has its name: streams may name it already, and a free one would
        prove that their producer died."""
        self.path.parent.mkdir(exist_ok=True)
        unnamed = self.path.with_suffix(".new")
        # Not thread-local: whatever thread closes the store releases it.
        lock = filelock.FileLock(unnamed, thread_local=False, is_singleton=False)
        lock.acquire(timeout=_ACQUIRE_SECONDS)
        unnamed.rename(self.path)
        return lock


def _lock_path(directory: Path, token: str) -> Path:
    return directory / f"{token}.lock"


def is_dead(directory: Path, token: str) -> bool:
    """True if the process of `token` is proven dead: its lock file is there and nobody holds it.

    A missing file, or one that may not be opened, proves nothing. Of two that try at once, each may find the lock
    held by the other: the next try tells.
    """
    path = _lock_path(directory, token)
    try:
        if not path.exists():
            return False
        probe = filelock.FileLock(path, thread_local=False)
        probe.acquire(blocking=False)
    except OSError:
        return False
    probe.release()
    return True


class Liveness:
    """Ends orphans as `interrupted`. Thread-safe. `own_token` names this process's lock file."""

    def __init__(self, connections: Connections, run_directory: Path, own_token: str, steps: Steps) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._own_token = own_token
        self._steps = steps
        # Token -> (when, whether dead): a thousand viewers of one process's streams share a try of its lock file.
        # Single dict operations are atomic, and a second try does no harm: no lock needed.
        self._proofs: dict[str, tuple[float, bool]] = {}

    def is_orphan(self, row: Row) -> bool:
        """Whether a running stream's producer is dead: rebooted, silent beyond its lease, or killed."""
        if row.status is not Status.STREAMING or row.expired:
            return False
        if row.boot_id != bootclock.boot_id() or bootclock.now() >= row.lease_until:
            return True
        return row.owner != self._own_token and self._is_dead(row.owner)

    def end_dead(self, stream_ids: Collection[str], patience: float | None = None) -> dict[str, Row | None]:
        """End those of these streams whose producers died. One read transaction; see `end_orphans`."""
        with self._connections.read() as connection:
            rows = tables.select_many(connection, stream_ids)
        return self.end_orphans(rows, patience)

    def end_orphans(self, rows: Iterable[tuple[str, Row]], patience: float | None = None) -> dict[str, Row | None]:
        """End the orphans among streams whose rows were just read; returns how these stand now (None: gone). One
        write transaction, none if there are no orphans. `patience`: see `Connections.write`.

        The rows are read again within it: of many that try one wins, and a lease renewed in between saves its
        stream.
        """
        now: dict[str, Row | None] = dict.fromkeys(stream_id for stream_id, row in rows if self.is_orphan(row))
        if now:
            with self._connections.write(patience) as connection:
                now.update(tables.select_many(connection, now))
                for stream_id, row in now.items():
                    if row is not None and self.is_orphan(row):
                        now[stream_id] = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        return now

    def end_owned(self, patience: float) -> list[str]:
        """End all that this process produces; returns the stream ids."""
        mine = "SELECT stream_id FROM streams WHERE owner = ? AND status = 'streaming'"
        with self._connections.read() as connection:  # a process that only reads need not wait for writers
            if connection.execute(f"{mine} LIMIT 1", (self._own_token,)).fetchone() is None:
                return []
        with self._connections.write(patience) as connection:
            ids = [stream_id for (stream_id,) in connection.execute(mine, (self._own_token,))]
            for stream_id, row in tables.select_many(connection, ids):
                self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        return ids

    def _is_dead(self, token: str) -> bool:
        now = bootclock.now()
        proved_at, dead = self._proofs.get(token, (0.0, False))
        if now - proved_at > _PROOF_SECONDS:
            dead = is_dead(self._run_directory, token)
            if len(self._proofs) > _PROOFS_KEPT:
                self._proofs.clear()
            self._proofs[token] = now, dead
        return dead
