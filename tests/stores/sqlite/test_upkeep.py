"""Sweeps, checkpoints and left-over files, without waiting for the thread."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore, Status, StoreUnavailableError
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.sqlite.liveness import Liveness, ProcessLock
from resumable_sync.stores.sqlite.store import _Process
from resumable_sync.stores.sqlite.tables import Steps
from resumable_sync.stores.sqlite.upkeep import Upkeep

from ...support import wait_until
from .conftest import alter, run_directory


@pytest.fixture
def published() -> list[str]:
    return []


@pytest.fixture
def upkeep(path: Path, connections: Connections, steps: Steps, published: list[str]) -> Upkeep:
    liveness = Liveness(connections, run_directory(path), "own", steps)
    return Upkeep(connections, run_directory(path), liveness, published.extend, 60.0)


def test_a_sweep_ends_removes_and_leaves_the_rest(
    store: SQLiteStore, upkeep: Upkeep, published: list[str]
) -> None:
    for stream_id in ("dead", "expired", "living"):
        lease = store.acquire(stream_id)
        assert lease is not None
        store.append(lease, b"abc")
    alter(store.path, "UPDATE streams SET lease_until = 0 WHERE stream_id = 'dead'")
    alter(store.path, "UPDATE streams SET expires_boot = 0 WHERE stream_id = 'expired'")
    assert upkeep.sweep() == 1 and published == ["dead"]
    assert {info.stream_id: info.status for info in store.streams()} == {
        "dead": Status.INTERRUPTED,
        "living": Status.STREAMING,
    }
    assert store.check() == [] and upkeep.sweep() == 0


def test_a_sweep_deletes_the_pages_of_removed_streams(
    store: SQLiteStore, upkeep: Upkeep, connections: Connections
) -> None:
    lease = store.acquire("s")
    assert lease is not None
    for _ in range(250):  # more than one step deletes
        store.append(lease, b"x")
    alter(store.path, "UPDATE streams SET expires_boot = 0")
    assert upkeep.sweep() == 1
    with connections.read() as connection:
        for table in ("pages", "trash", "streams"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_log_that_a_long_reader_let_grow_shrinks_again(
    path: Path, connections: Connections, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resumable_sync.stores.sqlite.connection._LOG_BYTES", 100_000)
    log = path.with_name(path.name + "-wal")

    def write(size: int) -> None:
        with connections.write() as connection:
            connection.execute(
                "INSERT INTO pages VALUES (1, ?, zeroblob(?), NULL, 0)", (time.monotonic_ns(), size)
            )

    write(1)
    with connections.read() as reader:
        reader.execute("SELECT count(*) FROM pages").fetchone()
        for _ in range(4):
            write(500_000)
        upkeep.checkpoint()
        assert log.stat().st_size > 1_900_000
    upkeep.checkpoint()
    write(1)  # begins the log anew
    assert log.stat().st_size <= 100_000


def test_small_chunks_count_as_what_they_take_in_the_log(store: SQLiteStore) -> None:
    before = store.path.stat().st_size
    lease = store.acquire("s")
    assert lease is not None
    for _ in range(9000):  # 18,000 pages of the log, more than there are between checkpoints; and 9,000 bytes
        store.append(lease, b"x")
    wait_until(lambda: store.path.stat().st_size > before)


def test_files_of_the_dead_go_when_no_stream_names_them(store: SQLiteStore, upkeep: Upkeep) -> None:
    directory = run_directory(store.path)
    named, unnamed, living = (ProcessLock(directory) for _ in range(3))
    named.release(leave_proof=True)
    unnamed.release(leave_proof=True)
    (directory / f"{unnamed.token}.1.sock").touch()
    assert store.acquire("s") is not None
    alter(store.path, f"UPDATE streams SET owner = '{named.token}'")
    upkeep.remove_stale_files()
    assert unnamed.path.exists()  # younger than a minute
    for file in directory.iterdir():
        os.utime(file, (1, 1))
    upkeep.remove_stale_files()
    names = {file.name.split(".")[0] for file in directory.iterdir()}
    assert {named.token, living.token, "create"} <= names and unnamed.token not in names
    living.release()


def test_trouble_with_the_run_directory_is_a_typed_error(
    path: Path, connections: Connections, steps: Steps
) -> None:
    path.write_bytes(b"")
    with pytest.raises(StoreUnavailableError, match="streams.db"):
        _Process(connections, path, steps, 60.0)  # a file where the directory should be
    SQLiteStore(path).close()
    for file in run_directory(path).iterdir():
        file.unlink()
    run_directory(path).rmdir()
    run_directory(path).write_bytes(b"in the way")
    with pytest.raises(StoreUnavailableError, match="streams.db-run"):
        SQLiteStore(path)
