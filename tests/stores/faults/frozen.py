"""Stopping a process by SIGSTOP, but not where it would keep all others from writing."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from ...support import wait_until


def freeze(pid: int, path: Path | None, more: Callable[[], object] = lambda: None) -> int:
    """Stop the process, but not within a transaction of the SQLite file; returns how often that took another try.

    `more` is called before each of those: what the process is to have done by then.
    """
    tries = 0
    while True:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _state(pid) == "T", what="stopped")
        if path is None or not holds_the_file(path):
            return tries
        tries += 1
        os.kill(pid, signal.SIGCONT)
        more()


def holds_the_file(path: Path) -> bool:
    """Whether somebody is within a write transaction, or on the way into one: a process frozen there keeps all
    others from writing."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.1)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return False
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
