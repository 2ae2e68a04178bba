"""A file for each test, and what lies below the store that uses it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync.stores.base import Limits
from resumable_sync.stores.sqlite import SQLiteStore
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.sqlite.liveness import Liveness, ProcessLock
from resumable_sync.stores.sqlite.tables import Steps

GRACE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with contextlib.closing(SQLiteStore(path)) as made:
        yield made


@pytest.fixture
def connections(path: Path) -> Iterator[Connections]:
    made = Connections(path, run_directory(path), 0.3, None)
    yield made
    made.close()


@pytest.fixture
def steps() -> Steps:
    return Steps(Limits(100, 1000, 10, 2), grace=GRACE, finished_ttl=None)


@pytest.fixture
def lock(path: Path, connections: Connections) -> Iterator[ProcessLock]:
    """The lock of the producing process."""
    with connections.read():
        pass
    made = ProcessLock(run_directory(path))
    yield made
    made.release()


@pytest.fixture
def liveness(path: Path, connections: Connections, lock: ProcessLock) -> Liveness:
    """What another process than the one of `lock` makes of it."""
    steps = Steps(Limits(100, 1000, 10, 10), grace=GRACE, finished_ttl=None)
    return Liveness(connections, run_directory(path), "own", steps)


def run_directory(path: Path) -> Path:
    return path.with_name(path.name + "-run")


def alter(path: Path, *statements: str) -> None:
    """Do something to the file, past the store."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
