"""What only a store in a file can meet: damaged rows, files that somebody else prepared."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resumable_sync import Status, StoreUnavailableError
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import wait_until
from .conftest import alter


def test_a_damaged_row_fails_its_own_stream_alone(store: SQLiteStore) -> None:
    good, bad = store.acquire("good"), store.acquire("bad")
    assert good is not None and bad is not None
    alter(store.path, "UPDATE streams SET status = 'nonsense' WHERE stream_id = 'bad'")

    cursor, refused = store.append_many([(good, [b"x"]), (bad, [b"y"])])
    assert cursor == f"{good.generation}-1" and isinstance(refused, StoreUnavailableError)
    assert not refused.transient
    assert [type(result) for result in store.renew([bad, good])] == [StoreUnavailableError, type(None)]
    assert store.read("good", timeout=0.01).data == b"x"
    assert [info.stream_id for info in store.streams()] == ["good"]
    store.sweep()
    with pytest.raises(StoreUnavailableError):
        store.status("bad")
    assert store.check() == ["stream bad is damaged: status is 'nonsense'; delete it"]

    assert store.delete("bad") and not store.delete("bad")
    assert store.check() == []
    assert store.acquire("bad") is not None and store.status("bad") is Status.STREAMING


def test_an_empty_file_of_another_program_shrinks_too(path: Path) -> None:
    alter(path, "PRAGMA journal_mode = WAL")
    with contextlib.closing(SQLiteStore(path)) as store:
        lease = store.acquire("large")
        assert lease is not None
        for _ in range(8):
            store.append(lease, bytes(1024 * 1024))
        assert pages(path) > 2048
        store.delete("large")
        store.sweep()
        assert pages(path) <= 1200


def test_a_sweep_ends_though_the_file_does_not_shrink(store: SQLiteStore) -> None:
    alter(store.path, "PRAGMA journal_mode = DELETE", "PRAGMA auto_vacuum = NONE", "VACUUM")
    alter(store.path, "PRAGMA journal_mode = WAL")
    lease = store.acquire("large")
    assert lease is not None
    for _ in range(8):
        store.append(lease, bytes(1024 * 1024))
    store.delete("large")
    assert store.sweep() == 0
    assert pages(store.path) > 2048


def pages(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])


def test_a_strange_datagram_wakes_nobody_and_stops_nothing(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.acquire("s")
    assert lease is not None
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(store.read, "s", timeout=20.0)
        inbox = wait_for_socket(store.path.with_name("streams.db-run"))
        monkeypatch.chdir(inbox.parent)  # a whole path may be longer than an address can be
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as stranger:
            stranger.sendto(b"\xff\xfe\n*", inbox.name)
        with contextlib.closing(SQLiteStore(store.path)) as other:
            other.cancel("s")  # only the watch's thread can learn of it
        assert reader.result(10.0).status is Status.CANCELLED


def wait_for_socket(directory: Path) -> Path:
    wait_until(lambda: list(directory.glob("*.sock")))
    return next(directory.glob("*.sock"))
