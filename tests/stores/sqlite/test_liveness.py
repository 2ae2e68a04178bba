"""Lock files as proof of death, leases where there is none, and the ending of orphans."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore, Status
from resumable_sync.stores.base import Limits
from resumable_sync.stores.sqlite import tables
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.sqlite.liveness import Liveness, ProcessLock, is_held
from resumable_sync.stores.sqlite.tables import Row, Steps

from .conftest import alter, run_directory


def add(connections: Connections, steps: Steps, stream_id: str, owner: str) -> Row:
    with connections.write() as connection:
        steps.begin(connection, stream_id, None, 60.0, "{}", owner)
        row = tables.select(connection, stream_id)
    assert row is not None
    return row


def test_a_free_lock_proves_a_death_and_a_held_or_missing_one_nothing(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "run")
    assert is_held(tmp_path / "run", lock.token) is not False
    lock.release(leave_proof=True)
    assert is_held(tmp_path / "run", lock.token) is False
    lock.path.unlink()
    assert is_held(tmp_path / "run", lock.token) is not False
    assert is_held(tmp_path / "run", "x" * 300) is None  # an error of the file system
    lock.release()  # again

    gone = ProcessLock(tmp_path / "run")
    gone.release()
    assert os.listdir(tmp_path / "run") == []


def test_a_removed_lock_file_is_put_back(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "run")
    lock.path.unlink()
    lock.path.parent.rmdir()
    lock.restore()
    assert lock.path.exists() and is_held(lock.path.parent, lock.token) is not False
    lock.release(leave_proof=True)
    assert is_held(lock.path.parent, lock.token) is False
    lock.path.unlink()
    lock._restore_at = 0.0
    lock.restore()  # released: nothing is put back
    assert not lock.path.exists()


def test_a_copy_of_a_lock_file_proves_nothing(tmp_path: Path) -> None:
    """As where somebody copies the directory, and moves the copy into its place."""
    lock = ProcessLock(tmp_path / "run")
    shutil.copytree(lock.path.parent, tmp_path / "copy", copy_function=shutil.copy2)
    lock.path.unlink()
    shutil.copy2(tmp_path / "copy" / lock.path.name, lock.path)
    assert is_held(lock.path.parent, lock.token) is None
    lock.restore()
    assert is_held(lock.path.parent, lock.token) is True
    lock.release(leave_proof=True)
    assert is_held(lock.path.parent, lock.token) is False


def test_where_a_lock_file_cannot_be_put_back_nothing_is_raised(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "run")
    lock.path.unlink()
    lock.path.parent.rmdir()
    lock.path.parent.write_bytes(b"in the way")
    lock.restore()
    assert is_held(lock.path.parent, lock.token) is not False
    lock.release()


def test_orphans_end_and_others_do_not(path: Path, connections: Connections, steps: Steps) -> None:
    with connections.read():
        pass
    mine, dead = ProcessLock(run_directory(path)), ProcessLock(run_directory(path))
    dead.release(leave_proof=True)
    liveness = Liveness(connections, run_directory(path), mine.token, steps)
    rows = {"own": add(connections, steps, "own", mine.token), "dead": add(connections, steps, "dead", dead.token)}
    assert [name for name, row in rows.items() if liveness.is_orphan(row)] == ["dead"]
    assert not liveness.is_orphan(rows["dead"]._replace(status=Status.DONE))

    (ended,) = liveness.end_dead(rows).values()
    assert ended is not None and ended.status is Status.INTERRUPTED
    assert liveness.end_dead(rows) == {}
    assert liveness.let_go(1.0) == ["own"] and liveness.let_go(1.0) == []
    mine.release()


def test_silence_beyond_the_lease_and_another_boot_make_an_orphan(connections: Connections) -> None:
    steps = Steps(Limits(100, 1000, 10, 2), grace=0.0, finished_ttl=None)
    row = add(connections, steps, "s", "own")
    liveness = Liveness(connections, Path("/nonexistent"), "own", steps)
    assert liveness.is_orphan(row)
    living = row._replace(lease_until=row.lease_until + 60)
    assert not liveness.is_orphan(living)
    assert liveness.is_orphan(living._replace(boot_id="another", expires_at=time.time() + 60))


def test_a_lease_renewed_in_between_saves_its_stream(connections: Connections, steps: Steps) -> None:
    row = add(connections, steps, "s", "own")
    liveness = Liveness(connections, Path("/nonexistent"), "own", steps)
    silent = row._replace(lease_until=0.0)  # as it was read before the renewal
    assert liveness.end_over([("s", silent)]) == {"s": row}
    with connections.write() as connection:
        tables.remove(connection, "s")
    assert liveness.end_over([("s", silent)]) == {"s": None}


@pytest.mark.parametrize("call", ["acquire", "cancel", "info", "status", "streams", "read"])
def test_every_call_finds_an_orphan_interrupted(store: SQLiteStore, call: str) -> None:
    lease = store.acquire("s")
    assert lease is not None
    alter(store.path, "UPDATE streams SET lease_until = 0")
    if call == "acquire":
        assert store.acquire("s") is None
    elif call == "cancel":
        assert store.cancel("s") is False
    elif call == "info":
        info = store.info("s")
        assert info is not None and info.status is Status.INTERRUPTED and not info.producer_alive
    elif call == "status":
        assert store.status("s") is Status.INTERRUPTED
    elif call == "streams":
        assert [info.status for info in store.streams()] == [Status.INTERRUPTED]
    else:
        assert store.read("s").status is Status.INTERRUPTED
    assert store.status("s") is Status.INTERRUPTED
