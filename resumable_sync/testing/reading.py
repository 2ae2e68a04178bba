"""The store contract, the consumer's side, without waiting: read, status, info, streams."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from ..contract import DEFAULT_READ_BYTES, MAX_WAIT, Entry, Lease, Status, Store
from ..errors import InvalidCursorError, StreamLostError, StreamNotFoundError
from .kit import PATIENCE, ContractKit, acquired, call, drain, guarantee
from .producing import BY_NAME

CHUNKS = (b"one", b"2", "drei 😀".encode(), b"\x00\xff", b"fifth and longest", b"6")

BAD_CURSORS = (
    "x",
    "-",
    "1-",
    "-1",
    "1",
    "1--1",
    "-1-0",
    "01-0",
    "1-00",
    "1-01",
    "1-0-0",
    " 1-0",
    "1-0 ",
    "1-0\n",
    "+1-0",
    "1-+0",
    "1.0-0",
    "1e3-0",
    "0x1-0",
    "1_0-0",
    "٣-0",
    "1-٠",
    "1-0\x00",
    "1" * 17 + "-0",
    "1-" + "1" * 17,
    "9" * 5000 + "-0",
    None,
    7,
    b"1-0",
)


def cut(chunks: Sequence[bytes], generation: int, offset: int) -> list[Entry]:
    """The entries of a stream of `chunks` after `offset`, as the contract wants them."""
    entries, end = [], 0
    for chunk in chunks:
        end += len(chunk)
        if end > offset:
            entries.append(Entry(f"{generation}-{end}", chunk[max(0, offset - end + len(chunk)) :]))
    return entries


class ReadContract(ContractKit):
    """What a read returns from which cursor."""

    def _filled(self) -> tuple[Store, Lease]:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, *CHUNKS[:2])
        store.append(lease, CHUNKS[2])
        store.append(lease, *CHUNKS[3:])
        return store, lease

    @guarantee("G1")
    def test_resume_at_every_byte(self) -> None:
        store, lease = self._filled()
        whole = b"".join(CHUNKS)
        for offset in range(len(whole) + 1):
            batch = store.read("s", f"{lease.generation}-{offset}")
            assert batch.data == whole[offset:]
            assert batch.entries == cut(CHUNKS, lease.generation, offset)
            assert (batch.start, batch.cursor) == (f"{lease.generation}-{offset}", lease.cursor)
            assert (batch.generation, batch.offset, batch.size) == (lease.generation, len(whole), len(whole))
            assert (batch.status, batch.error) == (Status.STREAMING, None)
        assert store.read("s").entries == cut(CHUNKS, lease.generation, 0)

    @guarantee("G1", "G10")
    @pytest.mark.parametrize("max_bytes", [1, 2, 3, 4, 7, 16, 30, 1000])
    def test_pages_of_any_size_join(self, max_bytes: int) -> None:
        store, lease = self._filled()
        for first in range(lease.offset):
            position = first
            while position < lease.offset:
                batch = store.read("s", f"{lease.generation}-{position}", max_bytes=max_bytes)
                expected, length = [], 0
                for entry in cut(CHUNKS, lease.generation, position):
                    if length >= max_bytes:
                        break
                    expected.append(entry)
                    length += len(entry.chunk)
                assert batch.entries == expected
                assert batch.data == b"".join(entry.chunk for entry in expected)
                assert (batch.offset, batch.size) == (position + length, lease.offset)
                position = batch.offset

    @guarantee("G10")
    def test_a_read_is_bounded_unless_told_otherwise(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        chunk = bytes(range(256)) * 4
        for _ in range(10):
            store.append(lease, *[chunk] * 100)
        batch = store.read("s")
        assert len(batch.data) == DEFAULT_READ_BYTES  # a multiple of the chunk, so not a byte more
        assert batch.size == lease.offset
        data, _ = drain(store, "s", max_bytes=100_000)
        assert data == chunk * 1000

    @guarantee("G1")
    def test_many_small_chunks(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        chunks = [b"%d," % number for number in range(5000)]
        for begin in range(0, 5000, 250):
            store.append(lease, *chunks[begin : begin + 250])
        batch = store.read("s")
        assert [entry.chunk for entry in batch.entries] == chunks
        middle = store.read("s", batch.entries[2499].cursor)
        assert [entry.chunk for entry in middle.entries] == chunks[2500:]
        assert drain(store, "s", max_bytes=777)[0] == b"".join(chunks)

    @guarantee("G5")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_bytes_come_before_the_ending(self, ending: Status) -> None:
        store, lease = self._filled()
        store.finalize(lease, ending, "why")
        data, last = drain(store, "s", max_bytes=5)
        assert data == b"".join(CHUNKS)
        end = store.read("s", last.cursor, timeout=PATIENCE)
        assert (end.data, end.entries, end.cursor) == (b"", [], lease.cursor)
        assert (end.status, end.error, end.size) == (ending, "why", lease.offset)

    @guarantee("G1")
    def test_an_empty_stream(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        for after in ("", lease.cursor):
            batch = store.read("s", after)
            assert (batch.data, batch.entries, batch.cursor, batch.size) == (b"", [], lease.cursor, 0)
            assert batch.status is Status.STREAMING
        store.finalize(lease, Status.DONE)
        assert store.read("s").status is Status.DONE

    @guarantee("G6")
    def test_a_missing_stream_is_not_found(self) -> None:
        store = self.new()
        for after in ("", "1-0", f"{2**50}-5"):
            with pytest.raises(StreamNotFoundError):
                store.read("s", after, timeout=PATIENCE)
        lease = acquired(store, "s")
        store.delete("s")
        for after in ("", lease.cursor):
            with pytest.raises(StreamNotFoundError):
                store.read("s", after, timeout=PATIENCE)

    @guarantee("G1")
    @pytest.mark.parametrize("cursor", BAD_CURSORS, ids=lambda value: f"{value!r:.14}")
    def test_a_malformed_cursor_is_refused(self, cursor: Any) -> None:
        store, _ = self._filled()
        with pytest.raises(InvalidCursorError):
            store.read("s", cursor, timeout=PATIENCE)

    @guarantee("G1")
    @pytest.mark.parametrize("ended", [False, True])
    def test_a_cursor_beyond_the_end_is_refused(self, ended: bool) -> None:
        store, lease = self._filled()
        if ended:
            store.finalize(lease, Status.DONE)
        for offset in (lease.offset + 1, 2**31, 2**53 - 1, 10**16 - 1):
            with pytest.raises(InvalidCursorError):
                store.read("s", f"{lease.generation}-{offset}", timeout=PATIENCE)

    @guarantee("G1", "G6")
    def test_a_cursor_of_another_generation_is_refused(self) -> None:
        store, old = self._filled()
        store.delete("s")
        new = acquired(store, "s")
        store.append(new, b"other bytes, and more of them than the old stream ever had")
        for generation in (old.generation, new.generation - 1, new.generation + 1, 0, 10**16 - 1):
            for offset in (0, 1, old.offset, 10**16 - 1):
                with pytest.raises(StreamLostError):
                    store.read("s", f"{generation}-{offset}", timeout=PATIENCE)

    @guarantee("G10")
    @pytest.mark.parametrize("max_bytes", [0, -1, 1.5])
    def test_a_read_of_no_bytes_is_refused(self, max_bytes: int) -> None:
        store = self.new()
        store.append(acquired(store, "s"), b"abc")
        with pytest.raises(ValueError):
            store.read("s", max_bytes=max_bytes)

    @guarantee("G10")
    @pytest.mark.parametrize("timeout", [-0.1, MAX_WAIT + 1, float("inf"), float("nan")])
    def test_no_wait_is_unbounded(self, timeout: float) -> None:
        store, _ = self._filled()
        with pytest.raises(ValueError):
            store.read("s", timeout=timeout)

    @guarantee("G7", "G9")
    def test_looking_changes_nothing(self) -> None:
        store, lease = self._filled()
        other = self.second(store)
        for _ in range(5):
            other.read("s")
            other.read("s", lease.cursor)
            assert other.status("s") is Status.STREAMING
            assert other.info("s") == store.info("s") == next(other.streams())
            assert other.sweep() == 0
            assert other.acquire("s") is None
        store.append(lease, b"goes on")
        assert other.read("s", max_bytes=1000).data == b"".join(CHUNKS) + b"goes on"

    @guarantee("G1", "G5")
    def test_bytes_and_status_are_of_one_snapshot(self) -> None:
        store = self.new()
        other = self.second(store)
        for round_number in range(12):
            lease = acquired(store, f"s{round_number}")
            chunks = [b"%d;" % number for number in range(60)]

            def write() -> None:
                for chunk in chunks:
                    store.append(lease, chunk)
                store.finalize(lease, Status.DONE)

            writer = call(write)
            data, size, after = b"", 0, f"{lease.generation}-0"
            while True:
                batch = other.read(lease.stream_id, after, max_bytes=9, timeout=PATIENCE)
                assert batch.start == after
                assert size <= batch.size and batch.offset <= batch.size
                size, after = batch.size, batch.cursor
                data += batch.data
                if batch.status.ended:
                    assert batch.size == len(b"".join(chunks))  # the ending came last
                    if not batch.data:
                        break
                else:
                    assert batch.data  # not before a timeout
            assert data == b"".join(chunks)
            writer.result(PATIENCE)


class InfoContract(ContractKit):
    """status, info and streams."""

    @guarantee("G5")
    def test_status_follows_the_stream(self) -> None:
        store = self.new()
        assert store.status("s") is Status.MISSING
        for ending in BY_NAME:
            lease = acquired(store, "s")
            assert store.status("s") is Status.STREAMING
            store.append(lease, b"data")
            assert store.status("s") is Status.STREAMING
            store.finalize(lease, ending)
            assert store.status("s") is ending
            store.delete("s")
            assert store.status("s") is Status.MISSING

    @guarantee("G2", "G5")
    def test_info_says_what_is_stored(self) -> None:
        store = self.new()
        before = time.time()
        lease = acquired(store, "s")
        fresh = store.info("s")
        assert fresh is not None and (fresh.size, fresh.entries, fresh.cursor) == (0, 0, lease.cursor)
        store.append(lease, b"abc", b"", b"de")
        running = store.info("s")
        assert running is not None
        assert (running.stream_id, running.status, running.error) == ("s", Status.STREAMING, None)
        assert (running.generation, running.size, running.entries) == (lease.generation, 5, 2)
        assert running.cursor == lease.cursor
        assert running.producer_alive and running.finished_at is None
        store.finalize(lease, Status.DONE)
        ended = store.info("s")
        assert ended is not None and ended.finished_at is not None
        assert (ended.status, ended.size, ended.entries) == (Status.DONE, 5, 2)
        assert not ended.producer_alive
        # Wall clocks of a server and ours may differ a little; those of one store not at all.
        assert abs(ended.created_at - before) < 60
        assert ended.created_at == fresh.created_at == running.created_at
        assert fresh.created_at <= running.updated_at <= ended.finished_at <= ended.updated_at
        assert store.info("t") is None

    @guarantee("G10")
    def test_streams_are_complete_and_in_order(self) -> None:
        store = self.new()
        assert list(store.streams()) == []
        ids = ["a", "B", "_", "-", ":", ".", "0", "aa", "a.b", "a:b", "Z" * 256]
        ids += [f"n{number}" for number in range(240)]
        for stream_id in ids:
            lease = acquired(store, stream_id)
            if len(stream_id) == 1:
                store.append(lease, stream_id.encode())
                store.finalize(lease, Status.DONE)
        store.delete("aa")
        found = list(self.second(store).streams())
        assert [info.stream_id for info in found] == sorted(set(ids) - {"aa"})
        for info in found[::20]:
            assert info == store.info(info.stream_id)

    @guarantee("G10")
    def test_streams_may_change_while_they_are_listed(self) -> None:
        store = self.new()
        ids = sorted(f"s{number:03}" for number in range(60))
        for stream_id in ids:
            acquired(store, stream_id)
        seen = []
        for info in store.streams():
            seen.append(info.stream_id)
            store.delete(info.stream_id)
            acquired(store, "a" + info.stream_id)  # in front of the place reached: not listed any more
        assert seen == ids
        assert [info.stream_id for info in store.streams()] == ["a" + stream_id for stream_id in ids]
