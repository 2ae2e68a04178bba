"""Commits that meet share a transaction; what one of them does, or suffers, is its own."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from resumable_sync import ConflictError, SQLiteStore, Status, StoreUnavailableError, StreamNotFoundError
from resumable_sync.contract import parse_cursor
from resumable_sync.testing.kit import acquired, call, drain

from ...support import PATIENCE, wait_until
from .conftest import alter, run_directory
from .test_transactions import WRITE, begun

__all__ = ["begun"]


@contextlib.contextmanager
def busy(path: Path) -> Iterator[None]:
    """Another program is in a write transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def waits(store: SQLiteStore, count: int) -> None:
    """One thread waits for the file, and `count` for that thread."""
    commits = store._processes.get().commits
    wait_until(lambda: len(commits._queue) == count and len(commits._turns._holders) == 1)


def test_they_share_a_transaction(begun: list[str], store: SQLiteStore) -> None:
    assert store.create("a") and store.create("b")
    begun.clear()
    with busy(store.path):
        first = call(store.commit, "a", b"0 ")
        waits(store, 0)
        others = []
        for number in range(1, 9):
            others.append(call(store.commit, "ab"[number % 2], b"%d " % number))
            waits(store, number)
    cursors = [other.result(PATIENCE) for other in [first, *others]]
    assert begun == [WRITE, WRITE]
    assert drain(store, "a")[0] == b"0 2 4 6 8 " and drain(store, "b")[0] == b"1 3 5 7 "
    positions = [parse_cursor(cursor) for cursor in cursors]
    assert [position and position.offset for position in positions] == [2, 2, 4, 4, 6, 6, 8, 8, 10]


def test_each_has_an_outcome_of_its_own(store: SQLiteStore) -> None:
    for name in ("ends", "ended", "noted", "other"):
        assert store.create(name)
    with busy(store.path):
        first = call(store.commit, "other", b"first")
        waits(store, 0)
        calls: dict[str, Future[str]] = {}

        def add(name: str, *arguments: object, **options: object) -> None:
            calls[name] = call(store.commit, *arguments, **options)
            waits(store, len(calls))

        add("wins", "noted", b"x", expect={"n": None}, notes={"n": "1"})
        add("loses", "noted", b"y", expect={"n": None}, notes={"n": "2"})
        add("missing", "nowhere", b"z")
        add("last", "ends", b"last", ending="done")
        add("late", "ends", b"late")
        add("bare ending", "ended", ending="error", error="why")
        add("plain", "other", b" and second")
    assert first.result(PATIENCE)
    assert calls["wins"].result(PATIENCE)
    with pytest.raises(ConflictError) as conflict:
        calls["loses"].result(PATIENCE)
    assert conflict.value.notes == {"n": "1"}
    with pytest.raises(StreamNotFoundError):
        calls["missing"].result(PATIENCE)
    assert calls["last"].result(PATIENCE)
    assert "has ended" in str(calls["late"].exception(PATIENCE))
    assert calls["bare ending"].result(PATIENCE) and calls["plain"].result(PATIENCE)
    assert drain(store, "noted")[0] == b"x" and drain(store, "other")[0] == b"first and second"
    data, last = drain(store, "ends")
    assert (data, last.status) == (b"last", Status.DONE)
    assert (store.status("ended"), store.read("ended").error) == (Status.ERROR, "why")


def test_viewers_are_told_of_all(store: SQLiteStore) -> None:
    """Of a stream that goes on, and of one that ends in the same transaction as a chunk of somebody else's."""
    assert store.create("goes_on", b".") and store.create("ends", b".")
    starts = {name: store.read(name).cursor for name in ("goes_on", "ends")}
    views = {name: call(store.read, name, cursor, timeout=PATIENCE) for name, cursor in starts.items()}
    with busy(store.path):
        calls = [call(store.commit, "goes_on", b"1")]
        waits(store, 0)
        for number, arguments in enumerate([("goes_on", b"2"), ("ends", b"3"), ("goes_on", b"4")], 1):
            calls.append(call(store.commit, *arguments))
            waits(store, number)
        calls.append(call(store.commit, "ends", ending="done"))
        waits(store, 4)
    for each in calls:
        assert each.result(PATIENCE)
    for view in views.values():
        assert view.result(PATIENCE).data
    assert drain(store, "goes_on", starts["goes_on"])[0] == b"124"
    data, last = drain(store, "ends", starts["ends"])
    assert (data, last.status) == (b"3", Status.DONE)


def test_a_damaged_stream_fails_its_own_commit_alone(store: SQLiteStore) -> None:
    assert store.create("whole") and store.create("damaged", notes={"n": "1"})
    alter(store.path, "UPDATE notes SET value = x'00' WHERE stream_id = 'damaged'")
    with busy(store.path):
        first = call(store.commit, "whole", b"1")
        waits(store, 0)
        damaged = call(store.commit, "damaged", b"x", expect={"n": "1"}, notes={"n": "2"})
        waits(store, 1)
        second = call(store.commit, "whole", b"2")
        waits(store, 2)
    assert first.result(PATIENCE) and second.result(PATIENCE)
    with pytest.raises(StoreUnavailableError, match="damaged"):
        damaged.result(PATIENCE)
    assert drain(store, "whole")[0] == b"12"


def test_the_ending_of_a_dead_producer_is_told_though_the_commit_that_found_it_is_refused(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquired(store, "s")
    store.commit("s", notes={"n": "1"})
    alter(store.path, "UPDATE notes SET value = x'00'", "UPDATE streams SET lease_until = 0.0")
    told: list[str] = []
    process = store._processes.get()
    monkeypatch.setattr(process, "publish_ending", lambda stream_id, row: told.append(f"{stream_id} {row.status}"))
    with pytest.raises(StoreUnavailableError, match="damaged"):
        store.commit("s", expect={"n": "1"}, notes={"n": "2"})
    assert told == ["s interrupted"]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_a_commit_that_stores_no_bytes_wakes_no_other_process(store: SQLiteStore) -> None:
    assert store.create("s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(run_directory(store.path) / "other.1.sock"))
        other.settimeout(PATIENCE)
        store.commit("s", notes={"n": "1"})
        store.commit("s", b"x")
        assert other.recv(100) == b"s"


def test_the_file_stays_busy_for_longer_than_the_patience(path: Path) -> None:
    """Each that waits is told in its time, whoever was to make its commit; and nothing of it is stored later."""
    with SQLiteStore(path, timeout=0.5) as store:
        assert store.create("s")
        with busy(path):
            calls = []
            for number in range(4):
                calls.append(call(store.commit, "s", b"x"))
                wait_until(lambda: len(store._processes.get().commits._queue) >= number)
            for each in calls:
                with pytest.raises(StoreUnavailableError) as told:
                    each.result(PATIENCE)
                assert told.value.transient and not told.value.fate_unknown
        assert drain(store, "s")[0] == b""
        assert store.commit("s", b"y")
