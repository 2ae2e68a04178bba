"""A file of edition 1 is brought up to this one in place, while others of either edition have it open."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore, Status, StoreUnavailableError
from resumable_sync.stores.sqlite.connection import Connections, _sql, _statements
from resumable_sync.testing.kit import race

from ...support import PATIENCE, Process, wait_until
from ..contract.test_edition_1 import EDITION_1, WHEEL, edition_1


@pytest.fixture
def old(path: Path) -> Path:
    shutil.copy(EDITION_1 / "streams.sqlite", path)
    return path


def schema(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        found = connection.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall()
        for (table,) in tables:
            found += [column[1:4] for column in connection.execute(f"PRAGMA table_info({table})")]
        return [*found, ("version", connection.execute("PRAGMA user_version").fetchone()[0])]


def run_edition_1(program: str, *arguments: object) -> str:
    """What a program of edition 1 prints."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(WHEEL)},
        cwd=EDITION_1,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout


def test_an_old_file_becomes_as_a_new_one(old: Path, tmp_path: Path) -> None:
    SQLiteStore(old).close()
    SQLiteStore(tmp_path / "new.db").close()
    assert schema(old) == schema(tmp_path / "new.db")
    before = schema(old)
    SQLiteStore(old).close()
    assert schema(old) == before and before[-1] == ("version", 1)


def test_of_many_that_open_it_at_once_one_adds(old: Path) -> None:
    def open_and_use(number: int) -> None:
        with SQLiteStore(old, timeout=PATIENCE) as store:
            assert store.create(f"{number}", b"x", notes={"n": "1"}) is not None
            assert store.check() == []

    race(8, open_and_use)
    with SQLiteStore(old) as store:
        assert len(list(store.streams())) == 8 + 6


def test_the_additions_are_made_whole_or_not_at_all(
    old: Path, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema(old)
    with monkeypatch.context() as patched:
        patched.setattr(
            "resumable_sync.stores.sqlite.connection._statements",
            lambda script: [*list(_statements(script))[:-1], "CREATE TABLE streams (x)"],
        )
        with pytest.raises(StoreUnavailableError):
            connections.connect()
    assert schema(old) == before
    connections.connect().close()
    assert schema(old) != before


def test_the_script_is_cut_into_its_statements() -> None:
    statements = list(_statements(_sql("additions.sql")))
    assert "".join(statements).strip() == _sql("additions.sql").strip()
    assert statements[-1].count(";") == 2, "the trigger is one"


def test_an_old_file_is_read_though_nobody_may_write_more_into_it(old: Path) -> None:
    """`max_file_bytes` counts from then on."""
    with SQLiteStore(old, max_file_bytes=4096) as store:
        assert store.status("ended.done") is Status.DONE


def test_a_busy_file_is_waited_for(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError) as caught:
            SQLiteStore(old, timeout=0.1)
        assert caught.value.transient
        connection.execute("ROLLBACK")
    SQLiteStore(old).close()


def test_an_old_process_goes_on_with_a_file_that_gets_the_additions(old: Path) -> None:
    """It produces and follows; what it began is never taken over, and ends with it."""
    where = f"sqlite:///{old}"
    with edition_1("produce", where, "theirs") as producer:
        assert producer.stdin is not None and producer.stdout is not None
        producer.stdin.write("one\n")
        producer.stdin.flush()
        assert producer.stdout.readline() == "stored\n"
        with SQLiteStore(old) as store:
            producer.stdin.write("two\n")
            producer.stdin.flush()
            assert producer.stdout.readline() == "stored\n"
            assert store.read("theirs").data == b"one\ntwo\n"
            info = store.info("theirs")
            assert info is not None and info.producer_alive and info.term == 1
            assert list(store.orphans()) == [] and store.take_over("theirs", info.generation) is None
            producer.kill()
            producer.wait(PATIENCE)
            assert store.take_over("theirs", info.generation) is None
            wait_until(lambda: store.status("theirs") is Status.INTERRUPTED)
            with edition_1("produce", where, "more") as another:  # it inserts into the wider table
                assert another.stdin is not None and another.stdout is not None
                another.stdin.write("three\n")
                another.stdin.close()
                assert another.stdout.readline() == "stored\n"
                assert another.wait(PATIENCE) == 0
            assert store.read("more").data == b"three\n" and store.status("more") is Status.DONE


def test_an_old_process_leaves_a_stream_in_its_handover_alone(path: Path) -> None:
    """It follows it through a takeover to its end, though the producer was killed; and a shared one."""
    where = f"sqlite:///{path}"
    store = SQLiteStore(path)
    shared = store.create("shared", b"a", notes={"n": "1"})
    assert shared is not None
    with Process("tests.stores.faults.programs", "append", path, "s", 1, 3600, 0.01, 3600) as producer:
        producer.until("stored")
        with edition_1("follow", where, "s") as follower, edition_1("follow", where, "shared") as second:
            for each in follower, second:
                assert each.stdout is not None and each.stdout.readline() == "ready\n"
            producer.kill()
            wait_until(lambda: "s" in store.orphans())
            with edition_1("produce", where, "noise") as old:  # whose sweeps and listings come across it
                assert old.communicate("x\n", PATIENCE)[0] == "stored\n"
            program = (
                "import sys, resumable_sync; store = resumable_sync.open_store(sys.argv[1]); store.sweep();"
                " print(*(info.status for info in store.streams()))"
            )
            assert run_edition_1(program, where).split() == ["done", "streaming", "streaming"]
            info = store.info("s")
            assert info is not None and info.status is Status.STREAMING and not info.producer_alive
            lease = store.take_over("s", info.generation)
            assert lease is not None
            store.append(lease, b"the end")
            store.finalize(lease, "done")
            store.commit("shared", b"b", ending="done")
            assert follower.stdout is not None and second.stdout is not None
            assert follower.stdout.read().endswith("the end")
            assert second.stdout.read() == "ab"
    program = "import sys, resumable_sync; print(resumable_sync.open_store(sys.argv[1]).delete('shared'))"
    assert run_edition_1(program, where) == "True\n"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,), "they went with their row"
    store.close()
