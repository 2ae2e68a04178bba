"""Connections: turns, transactions, errors, and the making of the file."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resumable_sync import StoreUnavailableError
from resumable_sync.stores.sqlite.connection import APPLICATION_ID, SCHEMA_VERSION, Connections

from .conftest import alter, run_directory


def count(connections: Connections) -> int:
    with connections.read() as connection:
        return int(connection.execute("SELECT stream_count FROM meta").fetchone()[0])


def count_up(connections: Connections) -> None:
    with connections.write() as connection:
        connection.execute("UPDATE meta SET stream_count = stream_count + 1")


def test_an_error_rolls_back_and_frees_the_turn(connections: Connections) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            with connections.write() as connection:
                connection.execute("UPDATE meta SET stream_count = 7")
                raise ZeroDivisionError
    with connections.write() as connection:
        connection.execute("UPDATE meta SET stream_count = stream_count + 1")
    assert count(connections) == 1


def test_a_second_writer_waits_for_its_turn_within_its_patience(connections: Connections) -> None:
    with connections.write() as connection:
        connection.execute("UPDATE meta SET stream_count = 1")
        with pytest.raises(StoreUnavailableError, match="no connection became free within 0.01 s") as raised:
            with connections.write(0.01):
                pass
        assert raised.value.transient
        assert count(connections) == 0  # a reader does not wait, and sees what is committed
    assert count(connections) == 1


def test_patience_bounds_the_wait_for_other_processes_alone(path: Path) -> None:
    connections = Connections(path, run_directory(path), 30.0, None)
    with connections.read():
        pass
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            with connections.write(0.01):
                pass
        other.execute("ROLLBACK")
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            patient = pool.submit(count_up, connections)
            with pytest.raises(concurrent.futures.TimeoutError):
                patient.result(0.5)
            other.execute("ROLLBACK")
            patient.result(20.0)
    connections.close()


def test_a_read_transaction_is_one_snapshot(connections: Connections) -> None:
    with connections.read() as connection:
        before = connection.execute("SELECT stream_count FROM meta").fetchone()
        with connections.write() as writer:
            writer.execute("UPDATE meta SET stream_count = 5")
        assert connection.execute("SELECT stream_count FROM meta").fetchone() == before
    assert count(connections) == 5


def test_a_closed_one_keeps_no_connection(connections: Connections) -> None:
    with connections.read() as borrowed:
        connections.close()
    with pytest.raises(sqlite3.ProgrammingError):
        borrowed.execute("SELECT 1")


def test_a_file_is_made_once_by_many(path: Path) -> None:
    everybody = [Connections(path, run_directory(path), 10.0, None) for _ in range(8)]
    start = threading.Barrier(len(everybody))

    def use(connections: Connections) -> int:
        start.wait(10.0)
        with connections.write() as connection:
            connection.execute("UPDATE meta SET stream_count = stream_count + 1")
        connections.close()
        return 1

    with ThreadPoolExecutor(len(everybody)) as pool:
        assert sum(pool.map(use, everybody)) == len(everybody)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT stream_count FROM meta").fetchall() == [(len(everybody),)]
        assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
        assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_schema_is_made_whole_or_not_at_all(path: Path, connections: Connections) -> None:
    last_to_make = "CREATE TABLE trash (taken)"
    alter(path, f"PRAGMA application_id = {APPLICATION_ID}", last_to_make)
    with pytest.raises(StoreUnavailableError, match="trash already exists"):
        with connections.read():
            pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("trash",)]
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 0
    alter(path, "DROP TABLE trash")
    assert count(connections) == 0
