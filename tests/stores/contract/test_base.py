"""What BaseStore does for every store that stands on it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from resumable_sync import MemoryStore, StoreUnavailableError
from resumable_sync.contract import Batch, Position
from resumable_sync.testing.kit import acquired

from .file_store import FileStore


@pytest.mark.parametrize(
    "settings",
    [{"ttl": 0}, {"finished_ttl": -1}, {"grace": float("nan")}, {"max_chunk_bytes": 0}, {"max_streams": 1.5}],
    ids=lambda settings: next(iter(settings)),
)
def test_bad_settings_are_refused(settings: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FileStore(tmp_path, **settings)


def test_with_closes_the_store() -> None:
    with MemoryStore() as store:
        acquired(store, "s")
    with pytest.raises(StoreUnavailableError):
        store.status("s")
    with pytest.raises(KeyError), MemoryStore() as failed:
        raise KeyError
    with pytest.raises(StoreUnavailableError):
        failed.status("s")


def test_a_closed_store_is_the_error_of_every_part() -> None:
    store = MemoryStore()
    leases = [acquired(store, stream_id) for stream_id in "ab"]
    store.close()
    for results in (store.append_many([(lease, [b"x"]) for lease in leases]), store.renew(leases)):
        assert [type(result) for result in results] == [StoreUnavailableError] * 2
    assert [lease.offset for lease in leases] == [0, 0]


def test_close_works_once_however_often_it_is_called(tmp_path: Path) -> None:
    closed = []

    class Counting(FileStore):
        def _close(self) -> None:
            closed.append(self._closed)
            super()._close()

    store = Counting(tmp_path)
    threads = [threading.Thread(target=store.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert closed == [True]


def test_check_finds_bytes_that_are_gone(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for stream_id in ("cut", "whole"):
        store.append(acquired(store, stream_id), b"first", b"second")
    file = store._folder("cut") / "chunks"
    file.write_bytes(file.read_bytes()[: 8 + len(b"first")])
    assert store.check() == ["stream cut holds 5 of 11 bytes"]


def test_check_reads_no_more_of_a_growing_stream_than_it_held_at_first(tmp_path: Path) -> None:
    class Growing(FileStore):
        reads = 0

        def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
            self.reads += 1
            batch = super()._read(stream_id, position, 1, timeout)
            self.append(lease, b"more")
            return batch

    store = Growing(tmp_path)
    lease = acquired(store, "s")
    store.append(lease, b"1", b"2", b"3")
    assert store.check() == []
    assert store.reads == 3


def test_chunks_may_come_from_an_iterator() -> None:
    with MemoryStore() as store:
        lease = acquired(store, "s")
        results = store.append_many([(lease, iter([b"a", b"", bytearray(b"b")]))])  # type: ignore[list-item]
        assert results == [lease.cursor] and store.read("s").data == b"ab"
        assert store.append_many([(lease, iter([b"c", b"d"]))]) == [lease.cursor]  # type: ignore[list-item]
        assert store.read("s").data == b"abcd"
