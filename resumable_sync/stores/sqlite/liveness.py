"""Whether the producers of a SQLite store's streams live, and the ending of streams that have none any more.

Each process holds one lock file. The kernel drops a flock when its holder dies, however it dies: within
milliseconds a free lock proves the death. A stopped (SIGSTOP) process keeps its lock, so a held lock proves
nothing: for that there are leases. They are times of a clock that processes of other containers need not share
(see clock.py). There a held lock does prove life, and where there is none to be seen, the wall clock decides.
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment, unused-ignore]

from ...contract import Status, new_token
from . import clock as bootclock
from . import tables
from .connection import Connections
from .tables import Row, Steps

_ACQUIRE_SECONDS = 5.0
_RESTORE_SECONDS = 1.0  # between checks that the own lock file is there
_PROOF_SECONDS = 0.25  # that what a lock file told is good for
_PROOFS_KEPT = 1000
_INODE_BYTES = 64  # of a lock file, which says which inode it was made with


class ProcessLock:
    """This process's lock file in `directory`, held from construction to `release`. Thread-safe. Do not use it
    after a fork: filelock closes the descriptor in a child, so that the child does not keep the lock alive."""

    def __init__(self, directory: Path) -> None:
        self.token = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.path = _lock_path(directory, self.token)
        # Guards `_lock`, and the file: of two that put it back at once, one would undo what the other did.
        self._guard = threading.Lock()
        self._restore_at = 0.0  # a hint, changed without a lock
        self._made = 0
        self._identity = (0, 0)  # of the file
        self._lock: filelock.BaseFileLock | None = None
        self._make()

    def restore(self) -> None:
        """Put the lock file back if somebody removed or replaced it, as cleaners of temporary files do. At most
        once a second; where it fails, a death shows by the lease alone."""
        now = time.monotonic()
        if now < self._restore_at:
            return
        self._restore_at = now + _RESTORE_SECONDS
        with contextlib.suppress(OSError):
            with self._guard:
                if self._lock is not None and _identity(self.path) != self._identity:
                    before = self._lock
                    self._make()
                    before.release()

    def release(self, *, leave_proof: bool = False) -> None:
        """Let go and remove the file, or leave it, free, as after a death (see `is_held`). Idempotent."""
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is None:
            return
        if not leave_proof:
            with contextlib.suppress(OSError):
                self.path.unlink()
        lock.release()

    def _make(self) -> None:
        """A lock file that is held before it has its name: streams may name it already, and a free one would
        prove that their producer died. An exception may be thrown in between any two lines: so the lock is also
        kept before that, and a try that was broken off leaves a name that the next does not use."""
        self.path.parent.mkdir(exist_ok=True)
        self._made += 1
        unnamed = self.path.with_suffix(f".new{self._made}")
        # Not thread-local: whatever thread closes the store releases it.
        lock = filelock.FileLock(unnamed, thread_local=False, is_singleton=False)
        lock.acquire(timeout=_ACQUIRE_SECONDS)
        self._identity = _identity(unnamed)
        self._lock = lock
        with contextlib.suppress(OSError):
            unnamed.write_bytes(_inode(self._identity[1]))  # so that a copy is known as one
        unnamed.rename(self.path)


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _inode(number: int) -> bytes:
    return b"inode %d" % number


def _lock_path(directory: Path, token: str) -> Path:
    return directory / f"{token}.lock"


def is_held(directory: Path, token: str) -> bool | None:
    """Whether the process of `token` holds its lock file: False if nobody does, which proves it dead; None if the
    file is missing, may not be opened, or is a copy of it, which proves nothing."""
    path = str(_lock_path(directory, token))
    try:
        file = os.open(path, os.O_RDONLY)  # never made here: a free one would prove a death
    except OSError:
        return None
    try:
        if fcntl is None:
            return _is_held_by_filelock(path)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: of two that try at once both succeed
        opened, named = os.fstat(file), os.stat(path)
        if (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino):
            return None  # put back in the meantime: that is another one
        inode = os.read(file, _INODE_BYTES)  # empty: of edition 0.1.0, or of a full disk
        return None if inode and inode != _inode(opened.st_ino) else False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(file)


def _is_held_by_filelock(path: str) -> bool:
    """Where there is no flock. Of two that try at once, each may find the lock held by the other: the next try
    tells."""
    probe = filelock.FileLock(path, thread_local=False)
    try:
        probe.acquire(blocking=False)
    except filelock.Timeout:
        return True
    probe.release()
    return False


class Liveness:
    """Tells which streams nobody produces, and ends as `interrupted` those that nobody may take over any more.
    Thread-safe. `own_token` names this process's lock file."""

    def __init__(self, connections: Connections, run_directory: Path, own_token: str, steps: Steps) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._own_token = own_token
        self._steps = steps
        # Token -> (when, whether held): a thousand viewers of one process's streams share a try of its lock file.
        # Single dict operations are atomic, and a second try does no harm: no lock needed.
        self._proofs: dict[str, tuple[float, bool | None]] = {}

    def is_orphan(self, row: Row) -> bool:
        """Whether nobody produces a running stream: its producer was killed, is silent beyond its lease, went with
        a reboot, or has let go."""
        if row.status is not Status.STREAMING or row.shared or row.expired:
            return False
        token = row.owner
        if row.handover:
            token = row.producer
            if not token:
                return True
        if row.boot_id == bootclock.domain():
            if bootclock.now() >= row.lease_end:
                return True
            return token != self._own_token and self._is_held(token) is False
        held = self._is_held(token)
        return not held if held is not None else time.time() >= row.updated_at + self._steps.grace

    def is_over(self, row: Row) -> bool:
        """Whether a running stream is an orphan that nobody may take over: it is to be ended."""
        if not self.is_orphan(row):
            return False
        if not row.handover:
            return True
        if row.boot_id == bootclock.domain():
            return bootclock.now() >= row.lease_until
        return time.time() >= row.updated_at + self._steps.grace + row.handover

    def end_dead(self, stream_ids: Collection[str], patience: float | None = None) -> dict[str, Row | None]:
        """End those of these streams that are over. One read transaction; see `end_over`."""
        with self._connections.read() as connection:
            rows = tables.select_many(connection, stream_ids)
        return self.end_over(rows, patience)

    def end_over(self, rows: Iterable[tuple[str, Row]], patience: float | None = None) -> dict[str, Row | None]:
        """End those streams that are over, of rows that were just read; returns how these stand now (None: gone).
        One write transaction, none if there is nothing to end. `patience`: see `Connections.write`.

        The rows are read again within it: of many that try one wins, and a lease renewed in between saves its
        stream, as a takeover does.
        """
        now: dict[str, Row | None] = dict.fromkeys(stream_id for stream_id, row in rows if self.is_over(row))
        if now:
            with self._connections.write(patience) as connection:
                now.update(tables.select_many(connection, now))
                for stream_id, row in now.items():
                    if row is not None and self.is_over(row):
                        now[stream_id] = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        return now

    def let_go(self, patience: float) -> list[str]:
        """Release all that this process produces: what has no handover ends. Returns the stream ids."""
        mine = (
            f"SELECT stream_id FROM {tables.RUNNING} AND owner = :token UNION ALL"
            f" SELECT stream_id FROM {tables.CONTINUABLE} AND producer = :token"
        )
        token = {"token": self._own_token}
        with self._connections.read() as connection:  # a process that only reads need not wait for writers
            if connection.execute(f"{mine} LIMIT 1", token).fetchone() is None:
                return []
        with self._connections.write(patience) as connection:
            ids = [stream_id for (stream_id,) in connection.execute(mine, token)]
            for stream_id, row in tables.select_many(connection, ids):
                self._steps.release(connection, stream_id, row, new_token())
        return ids

    def _is_held(self, token: str) -> bool | None:
        now = bootclock.now()
        proved_at, held = self._proofs.get(token, (-_PROOF_SECONDS, None))
        if not 0 <= now - proved_at <= _PROOF_SECONDS:
            held = is_held(self._run_directory, token)
            if len(self._proofs) > _PROOFS_KEPT:
                self._proofs.clear()
            self._proofs[token] = now, held
        return held
