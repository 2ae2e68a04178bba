"""One lock file for each producing process: proof of its death within milliseconds.

flock is dropped by the kernel when its holder dies, however it dies. A stopped (SIGSTOP) process keeps it,
so a free lock proves death and a held lock proves nothing: for that there are leases.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import filelock

_ACQUIRE_SECONDS = 5.0


class ProcessLock:
    """This process's lock file in `directory`, held from construction to `release`. Do not use it after a fork:
    filelock closes the descriptor in a child, so that the child does not keep the lock alive."""

    def __init__(self, directory: Path) -> None:
        self.token = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._path = lock_path(directory, self.token)
        # Not thread-local: whatever thread closes the store releases it.
        self._lock = filelock.FileLock(self._path, thread_local=False)
        # Free but for a tidying process that looks at the new file for a moment.
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

    A missing file proves nothing (somebody may have tidied up). Two that look at once may both find the
    lock held, by each other: the next look tells.
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
