"""The tables: what a step writes is what is read; what is damaged is named."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from resumable_sync import (
    LimitExceededError,
    ResumableStreamError,
    SQLiteStore,
    Status,
    StoreUnavailableError,
    StreamLostError,
)
from resumable_sync.contract import Lease
from resumable_sync.stores.sqlite import tables
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.sqlite.tables import Row, Steps

from .conftest import alter


def begin(steps: Steps, connection: sqlite3.Connection, stream_id: str, expired: Row | None = None) -> Lease:
    return steps.begin(connection, stream_id, expired, 60.0, '{"a": "b"}', "owner")


def test_steps_write_what_is_read(connections: Connections, steps: Steps) -> None:
    with connections.write() as connection:
        lease = begin(steps, connection, "s")
        assert steps.append(connection, lease, [b"ab", b"cde"], 5) == [(5, b"abcde", b"\x02\0\0\0\x03\0\0\0")]
        row = tables.select(connection, "s")
        assert row is not None and (row.status, row.size, row.entries) == (Status.STREAMING, 5, 2)
        assert 59 < row.life <= 60 and row.info("s").metadata == {"a": "b"}
        parts, lengths = tables.read(connection, lease.generation, 1, 100)
        assert (parts, list(lengths)) == ([b"bcde"], [1, 3])
        ended = steps.end(connection, "s", row, Status.ERROR, "no")
        assert tables.select(connection, "s") == ended
        assert (ended.status, ended.error, ended.size) == (Status.ERROR, "no", 5)
        assert ended.finished_at == ended.updated_at and list(tables.check(connection)) == []


def test_an_append_is_stored_once_and_in_its_place(connections: Connections, steps: Steps) -> None:
    with connections.write() as connection:
        lease = begin(steps, connection, "s")
        assert isinstance(steps.append(connection, lease, [b"abc"], 3), list)
        assert steps.append(connection, lease, [b"abc"], 3) == []  # its reply was lost: the lease did not advance
        for chunks in ([b"xyz"], [b"ab"], [b"abcd"]):
            refused = steps.append(connection, lease, chunks, len(chunks[0]))
            assert isinstance(refused, ResumableStreamError)
        row = tables.select(connection, "s")
        assert row is not None and (row.size, row.entries) == (3, 1)


def test_limits_hold_to_the_byte(connections: Connections, steps: Steps) -> None:
    with connections.write() as connection:
        lease = begin(steps, connection, "s")
        for _ in range(10):
            assert isinstance(steps.append(connection, lease, [bytes(100)], 100), list)
            lease.offset += 100
        assert isinstance(steps.append(connection, lease, [b"x"], 1), LimitExceededError)
        assert isinstance(steps.append(connection, lease, [bytes(101)], 101), LimitExceededError)
        begin(steps, connection, "t")
        with pytest.raises(LimitExceededError, match="max_streams=2"):
            begin(steps, connection, "u")


def test_a_new_generation_replaces_an_expired_one(connections: Connections, steps: Steps) -> None:
    with connections.write() as connection:
        first = begin(steps, connection, "s")
        steps.append(connection, first, [b"old"], 3)
        second = begin(steps, connection, "s", tables.select(connection, "s"))
        assert second.generation > first.generation
        assert connection.execute("SELECT generation FROM trash").fetchall() == [(first.generation,)]
        assert connection.execute("SELECT stream_count FROM meta").fetchone() == (1,)
        assert isinstance(steps.renew(connection, first), ResumableStreamError)
        assert steps.renew(connection, second) is None


@pytest.mark.parametrize(
    "column, value",
    [
        ("generation", "'x'"),
        ("status", "'missing'"),
        ("size", "1.5"),
        ("error", "1"),  # the column has TEXT affinity: stored as '1', and so as good as any
        ("lease_until", "x'00'"),
        ("expires_boot", "'x'"),
        ("finished_at", "'x'"),
        ("metadata", "'[1]'"),
    ],
)
def test_a_row_is_checked_where_it_is_read(store: SQLiteStore, column: str, value: str) -> None:
    for stream_id in ("a", "b"):
        assert store.acquire(stream_id) is not None
    alter(store.path, f"UPDATE streams SET {column} = {value} WHERE stream_id = 'a'")
    if column == "error":
        assert [info.stream_id for info in store.streams()] == ["a", "b"]
        return
    with pytest.raises(StoreUnavailableError, match=f"stream a is damaged: {column} is .*; delete it") as raised:
        store.info("a")
    assert not raised.value.transient
    assert [info.stream_id for info in store.streams()] == ["b"]
    assert len(store.check()) == 1 and store.sweep() == 0
    assert store.delete("a") and store.check() == []
    assert store.acquire("a") is not None


@pytest.mark.parametrize("change", ["payload = 'abc'", "checksum = 1.5", "end = 'x'", "lengths = x'0102'"])
def test_a_page_is_checked_where_it_is_read(store: SQLiteStore, change: str) -> None:
    for stream_id, text in ("a", b"abc"), ("b", b"def"):
        lease = store.acquire(stream_id)
        assert lease is not None
        store.append(lease, text)
    alter(store.path, f"UPDATE pages SET {change} WHERE payload = x'616263'")
    with pytest.raises(StreamLostError, match="damaged"):
        store.read("a")
    assert store.read("b").data == b"def"
    (problem,) = store.check()
    assert problem.startswith("stream a: ")


def test_a_listing_goes_on_after_a_page_of_damaged_rows(connections: Connections, steps: Steps) -> None:
    with connections.write() as connection:
        begin(steps, connection, "a")
        begin(steps, connection, "b")
        connection.execute("UPDATE streams SET size = 'x' WHERE stream_id = 'a'")
        assert tables.select_page(connection, "", 1) == ([], "a")
        rows, after = tables.select_page(connection, "a", 2)
        assert [stream_id for stream_id, _ in rows] == ["b"] and after is None


@pytest.mark.parametrize("column", ["last_generation", "stream_count"])
@pytest.mark.parametrize("damage", ["x", b"\xff", 1.5, math.inf, -5, 2**62, 2**63 - 1])
def test_counters_that_cannot_be_are_made_anew(column: str, damage: object, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db", max_streams=3)
    assert store.acquire("other")
    connection = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    connection.execute(f"UPDATE meta SET {column} = ?", (damage,))
    connection.close()
    lease = store.acquire("s")
    assert lease is not None and 0 < lease.generation < 2**53
    store.append(lease, b"x")
    assert store.read("s").data == b"x" and store.acquire("third")
    with pytest.raises(LimitExceededError):
        store.acquire("fourth")
    store.close()
