"""The store contract, the producer's side: acquire and append."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from ..contract import ENDINGS, Status, Store, parse_cursor
from ..errors import (
    InvalidStreamIdError,
    LeaseLostError,
    LimitExceededError,
    StreamFinalizedError,
    StreamLostError,
)
from .kit import ContractKit, acquired, drain, guarantee, outcome, race, stale

BY_NAME = sorted(ENDINGS)

BAD_IDS = ("", "x" * 257, "a b", "a/b", "a\n", "a\x00", "ä", "a%", "*", None, 7, b"bytes")

BY_ID: dict[str, Callable[[Store, Any], object]] = {
    "acquire": lambda store, stream_id: store.acquire(stream_id),
    "cancel": lambda store, stream_id: store.cancel(stream_id),
    "read": lambda store, stream_id: store.read(stream_id),
    "status": lambda store, stream_id: store.status(stream_id),
    "info": lambda store, stream_id: store.info(stream_id),
    "delete": lambda store, stream_id: store.delete(stream_id),
}


class AcquireContract(ContractKit):
    """One producer for each id, and what comes with it."""

    @guarantee("G4")
    def test_acquire_elects_one_producer(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        assert (lease.stream_id, lease.offset) == ("s", 0)
        assert parse_cursor(lease.cursor) == (lease.generation, 0)
        assert store.acquire("s") is None
        assert acquired(store, "t").stream_id == "t"

    @guarantee("G4", "G5")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_an_ended_stream_is_not_free(self, ending: Status) -> None:
        store = self.new()
        store.finalize(acquired(store, "s"), ending)
        assert store.acquire("s") is None
        assert store.status("s") is ending

    @guarantee("G4", "G5")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_an_ended_stream_begins_anew_if_its_ending_is_named(self, ending: Status) -> None:
        store = self.new()
        first = acquired(store, "s", metadata={"life": "1"})
        store.append(first, b"old")
        end_of_first = first.cursor
        assert store.acquire("s", restart=ENDINGS) is None  # it runs
        store.finalize(first, ending)
        assert store.acquire("s", restart=ENDINGS - {ending}) is None
        second = store.acquire("s", restart=[ending.value], metadata={"life": "2"})
        assert second is not None and second.generation > first.generation
        assert store.status("s") is Status.STREAMING and drain(store, "s")[0] == b""
        info = store.info("s")
        assert info is not None and info.metadata == {"life": "2"} and info.size == 0
        with pytest.raises(LeaseLostError):
            store.append(first, b"late")
        with pytest.raises(StreamLostError):
            store.read("s", end_of_first)
        store.append(second, b"new")
        store.finalize(second, "done")
        assert drain(store, "s")[0] == b"new"
        assert store.acquire("new", restart=ENDINGS) is not None  # for a free id it changes nothing

    @guarantee("G4")
    def test_one_of_many_begins_an_ended_stream_anew(self) -> None:
        store = self.new()
        other = self.second(store)
        for round_number in range(5):
            store.finalize(acquired(store, f"s{round_number}"), "error")
            stores = (store, other)
            leases = race(8, lambda number: stores[number % 2].acquire(f"s{round_number}", restart={"error"}))
            assert sum(lease is not None for lease in leases) == 1

    @guarantee("G10")
    def test_a_stream_that_begins_anew_needs_no_room(self) -> None:
        store = self.new(max_streams=1)
        store.finalize(acquired(store, "s"), "error")
        assert store.acquire("s", restart={"error"}) is not None

    @guarantee("G10")
    @pytest.mark.parametrize(
        "restart", ["error", Status.ERROR, ["streaming"], ["missing"], ["ended"], 7, [7], None]
    )
    def test_what_is_no_collection_of_endings_is_refused(self, restart: Any) -> None:
        store = self.new()
        with pytest.raises(ValueError):
            store.acquire("s", restart=restart)
        assert store.status("s") is Status.MISSING

    @guarantee("G4")
    def test_generations_grow_across_delete(self) -> None:
        store = self.new()
        generations = []
        for _ in range(20):
            generations.append(acquired(store, "s").generation)
            assert store.delete("s")
        assert generations == sorted(set(generations))
        assert generations[-1] < 2**53  # exact as a double, too

    @guarantee("G4")
    def test_sixteen_claimants_one_producer(self) -> None:
        store = self.new()
        stores = store, self.second(store)
        for round_number in range(30):
            leases = race(16, lambda number: stores[number % 2].acquire(f"s{round_number}"))
            winners = [lease for lease in leases if lease is not None]
            assert len(winners) == 1
            info = store.info(f"s{round_number}")
            assert info is not None and info.generation == winners[0].generation

    @guarantee("G10")
    @pytest.mark.parametrize("stream_id", BAD_IDS, ids=lambda value: f"{value!r:.12}")
    @pytest.mark.parametrize("method", BY_ID)
    def test_bad_ids_are_refused(self, method: str, stream_id: Any) -> None:
        store = self.new()
        with pytest.raises(InvalidStreamIdError):
            BY_ID[method](store, stream_id)
        assert list(store.streams()) == []

    @guarantee("G10")
    @pytest.mark.parametrize("stream_id", ["x" * 256, "0", "-", ".", ":", "_", "A-Z.a_z:09"])
    def test_good_ids_are_taken(self, stream_id: str) -> None:
        store = self.new()
        store.append(acquired(store, stream_id), b"data")
        assert store.read(stream_id).data == b"data"
        assert [info.stream_id for info in store.streams()] == [stream_id]

    @guarantee("G10")
    @pytest.mark.parametrize("ttl", [0, -1.0, float("nan"), float("inf")])
    def test_a_bad_ttl_is_refused(self, ttl: float) -> None:
        store = self.new()
        with pytest.raises(ValueError):
            store.acquire("s", ttl=ttl)
        assert store.status("s") is Status.MISSING

    @guarantee("G8")
    def test_the_lease_says_its_ttl(self) -> None:
        store = self.new(ttl=500)
        assert acquired(store, "s").ttl == 500
        assert acquired(store, "t", ttl=70).ttl == 70

    @guarantee("G1")
    def test_metadata_comes_back(self) -> None:
        store = self.new()
        metadata = {"título": "日本 😀", "": "", "quotes": "\"'\\", "zero": "a\x00b", "line": "\r\n"}
        given = dict(metadata)
        store.acquire("s", metadata=given)
        given["later"] = "change"
        info = self.second(store).info("s")
        assert info is not None and dict(info.metadata) == metadata
        store.acquire("plain")
        plain = store.info("plain")
        assert plain is not None and dict(plain.metadata) == {}

    @guarantee("G10")
    @pytest.mark.parametrize("metadata", [{"a": 1}, {2: "b"}, {"c": None}, {"d": b"e"}])
    def test_metadata_must_be_text(self, metadata: Any) -> None:
        store = self.new()
        with pytest.raises(ValueError):
            store.acquire("s", metadata=metadata)
        assert store.status("s") is Status.MISSING

    @guarantee("G10")
    def test_metadata_is_bounded(self) -> None:
        store = self.new()
        with pytest.raises(LimitExceededError):
            store.acquire("s", metadata={"much": "x" * 1_000_000})
        assert store.status("s") is Status.MISSING

    @guarantee("G10")
    def test_max_streams(self) -> None:
        store = self.new(max_streams=3)
        leases = [acquired(store, name) for name in "abc"]
        with pytest.raises(LimitExceededError):
            store.acquire("d")
        assert store.status("d") is Status.MISSING
        assert store.acquire("a") is None  # taken, which needs no room
        store.append(leases[0], b"the others go on")
        store.delete("b")
        acquired(store, "d")
        with pytest.raises(LimitExceededError):
            store.acquire("b")

    @guarantee("G10")
    def test_max_streams_holds_in_a_race(self) -> None:
        store = self.new(max_streams=5)
        results = race(16, lambda number: outcome(store.acquire, f"s{number}"))
        assert sum(isinstance(result, LimitExceededError) for result in results) == 11
        assert len(list(store.streams())) == 5


class AppendContract(ContractKit):
    """What an append stores, once and in order, and what it refuses."""

    @guarantee("G2")
    def test_append_returns_the_cursor_after_it(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        assert store.append(lease, b"one") == f"{lease.generation}-3" == lease.cursor
        assert store.append(lease, b"two", b"three") == f"{lease.generation}-11" == lease.cursor
        batch = self.second(store).read("s")
        assert [entry.chunk for entry in batch.entries] == [b"one", b"two", b"three"]
        assert batch.cursor == lease.cursor

    @guarantee("G2")
    def test_any_bytes_are_kept(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        chunks = [bytes(range(256)), b"\x00" * 5, b"\r\n\r\n", b"\xff\xfe", b"x" * 100_000]
        for chunk in chunks:
            store.append(lease, chunk)
        data, last = drain(store, "s")
        assert data == b"".join(chunks)
        assert last.size == len(data)

    @guarantee("G2")
    def test_empty_chunks_store_nothing(self) -> None:
        store = self.new(max_entries=1)
        lease = acquired(store, "s")
        start = lease.cursor
        assert store.append(lease) == store.append(lease, b"") == store.append(lease, b"", b"") == start
        assert store.read("s").entries == []
        store.append(lease, b"", b"data", b"")
        info = store.info("s")
        assert info is not None and (info.size, info.entries) == (4, 1)

    @guarantee("G2")
    def test_a_buffer_may_be_reused(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        buffer = bytearray(b"first")
        store.append(lease, cast(bytes, buffer))
        buffer[:] = b"later"
        store.append(lease, cast(bytes, memoryview(buffer)[1:3]))
        buffer[:] = b"-----"
        assert [entry.chunk for entry in store.read("s").entries] == [b"first", b"at"]

    @guarantee("G2")
    @pytest.mark.parametrize("bad", ["text", None, 7, ["a"]])
    def test_only_bytes_are_taken(self, bad: Any) -> None:
        store = self.new()
        lease = acquired(store, "s")
        with pytest.raises(TypeError):
            store.append(lease, b"good", bad)
        assert (store.read("s").data, lease.offset) == (b"", 0)

    @guarantee("G3")
    def test_a_repeated_append_is_stored_once(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        for chunks in [(b"one",), (b"two", b"three"), (b"", b"four")]:
            unaware = stale(lease)
            store.append(lease, *chunks)
            again = stale(unaware)
            assert self.second(store).append(unaware, *chunks) == lease.cursor
            assert store.append(again, *chunks) == lease.cursor
            assert unaware.offset == again.offset == lease.offset
        store.append(unaware, b"five")  # a producer that repeated goes on as if nothing had happened
        assert [entry.chunk for entry in store.read("s").entries] == [b"one", b"two", b"three", b"four", b"five"]

    @guarantee("G3", "G10")
    def test_a_repeated_append_needs_no_room(self) -> None:
        store = self.new(max_stream_bytes=4, max_entries=1)
        lease = acquired(store, "s")
        unaware = stale(lease)
        store.append(lease, b"full")
        assert store.append(unaware, b"full") == lease.cursor
        with pytest.raises(LimitExceededError):
            store.append(unaware, b"x")

    @guarantee("G3", "G4")
    @pytest.mark.parametrize("other", [b"xyz", b"x", b"four", b"abcdef", b""])
    def test_other_bytes_at_the_same_offset_are_refused(self, other: bytes) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, b"000")
        unaware = stale(lease)
        store.append(lease, b"abc")
        with pytest.raises(LeaseLostError):
            store.append(unaware, other)
        assert unaware.offset == 3
        assert store.read("s").data == b"000abc"

    @guarantee("G4")
    def test_two_writers_on_one_lease_conflict(self) -> None:
        store = self.new()
        stores = store, self.second(store)
        lease = acquired(store, "s")
        written = b""
        for _ in range(10):
            copies = [stale(lease) for _ in range(8)]
            results = race(8, lambda number: outcome(stores[number % 2].append, copies[number], b"%d" % number))
            winners = [number for number, result in enumerate(results) if isinstance(result, str)]
            assert len(winners) == 1
            assert sum(isinstance(result, LeaseLostError) for result in results) == 7
            written += b"%d" % winners[0]
            lease = copies[winners[0]]
            assert store.read("s").data == written

    @guarantee("G6")
    def test_acknowledged_bytes_that_are_gone_are_noticed(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, b"abc")
        ahead = stale(lease, offset=4)  # as after a roll-back of the store
        with pytest.raises(StreamLostError):
            store.append(ahead, b"more")
        with pytest.raises(StreamLostError):
            store.finalize(ahead, Status.DONE)
        assert isinstance(store.renew([ahead])[0], StreamLostError)
        assert store.read("s").data == b"abc"
        assert store.status("s") is Status.STREAMING

    @guarantee("G6")
    def test_a_deleted_stream_refuses_its_producer(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, b"abc")
        assert self.second(store).delete("s")
        with pytest.raises(StreamLostError):
            store.append(lease, b"more")
        with pytest.raises(StreamLostError):
            store.finalize(lease, Status.DONE)
        assert isinstance(store.renew([lease])[0], StreamLostError)
        assert store.status("s") is Status.MISSING

    @guarantee("G4")
    def test_a_replaced_producer_is_refused(self) -> None:
        store = self.new()
        old = acquired(store, "s")
        store.append(old, b"old")
        store.delete("s")
        new = acquired(self.second(store), "s")
        for lease in (old, stale(old, offset=0)):  # also where the new stream has that offset
            with pytest.raises(LeaseLostError):
                store.append(lease, b"foreign")
            with pytest.raises(LeaseLostError):
                store.finalize(lease, Status.DONE)
            assert isinstance(store.renew([lease])[0], LeaseLostError)
        store.append(new, b"new")
        assert store.read("s").data == b"new"
        assert store.status("s") is Status.STREAMING

    @guarantee("G5")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_nothing_follows_an_ending(self, ending: Status) -> None:
        store = self.new()
        lease = acquired(store, "s")
        unaware = stale(lease)
        store.append(lease, b"abc")
        store.finalize(lease, ending)
        for producer, chunk in ((lease, b"more"), (lease, b""), (unaware, b"abc")):
            with pytest.raises(StreamFinalizedError) as refused:
                store.append(producer, chunk)
            assert refused.value.status == ending.value
        error = store.renew([lease])[0]
        assert isinstance(error, StreamFinalizedError) and error.status == ending.value
        assert store.read("s").data == b"abc"
