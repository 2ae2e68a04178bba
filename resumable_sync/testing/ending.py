"""The store contract, the producer's side: limits, many streams at once, endings."""

from __future__ import annotations

from typing import Any

import pytest

from ..contract import Lease, Status
from ..errors import LeaseLostError, LimitExceededError, StreamFinalizedError, StreamLostError
from .kit import PATIENCE, ContractKit, acquired, call, drain, guarantee, outcome, race, stale
from .producing import BY_NAME


class LimitContract(ContractKit):
    """Each limit is kept exactly, and a refused append has stored nothing."""

    @guarantee("G10")
    def test_max_chunk_bytes(self) -> None:
        store = self.new(max_chunk_bytes=8)
        assert store.max_chunk_bytes == 8
        lease = acquired(store, "s")
        store.append(lease, b"x" * 8, b"y" * 8)
        with pytest.raises(LimitExceededError):
            store.append(lease, b"fits", b"z" * 9)
        assert lease.offset == 16
        store.append(lease, b"on")
        assert store.read("s").data == b"x" * 8 + b"y" * 8 + b"on"

    @guarantee("G10")
    def test_max_stream_bytes(self) -> None:
        store = self.new(max_stream_bytes=10)
        lease = acquired(store, "s")
        store.append(lease, b"12345678")
        with pytest.raises(LimitExceededError):
            store.append(lease, b"9", b"0x")
        assert lease.offset == 8
        store.append(lease, b"9", b"0")
        with pytest.raises(LimitExceededError):
            store.append(lease, b"x")
        store.finalize(lease, Status.ERROR)  # a full stream can still be ended
        assert store.read("s").data == b"1234567890"

    @guarantee("G10")
    def test_max_entries(self) -> None:
        store = self.new(max_entries=3)
        lease = acquired(store, "s")
        store.append(lease, b"1")
        with pytest.raises(LimitExceededError):
            store.append(lease, b"2", b"3", b"4")
        store.append(lease, b"2", b"3")
        with pytest.raises(LimitExceededError):
            store.append(lease, b"4")
        assert store.append(lease, b"") == lease.cursor
        assert [entry.chunk for entry in store.read("s").entries] == [b"1", b"2", b"3"]

    @guarantee("G10")
    @pytest.mark.parametrize("name", ["max_chunk_bytes", "max_stream_bytes", "max_entries", "max_streams"])
    def test_a_limit_must_be_positive(self, name: str) -> None:
        with pytest.raises(ValueError):
            self.new(**{name: 0})


class ManyContract(ContractKit):
    """append_many and renew: one result for each, none hides another."""

    def _mixed(self) -> tuple[Any, list[Lease]]:
        """A store, and leases that are good, ended, deleted, replaced, used by another writer, and good."""
        store = self.new(max_chunk_bytes=100)
        leases = [acquired(store, name) for name in ("good", "ended", "deleted", "replaced", "shared", "fine")]
        store.finalize(leases[1], Status.ERROR)
        store.delete("deleted")
        store.delete("replaced")
        acquired(store, "replaced")
        store.append(stale(leases[4]), b"another writer's")
        return store, leases

    @guarantee("G2", "G4", "G6")
    def test_append_many_answers_for_each(self) -> None:
        store, leases = self._mixed()
        oversized = acquired(store, "oversized")
        batches = [(lease, [b"ab", b"c"]) for lease in leases] + [(oversized, [b"x" * 101])]
        results = store.append_many(batches)
        expected = [str, StreamFinalizedError, StreamLostError, LeaseLostError, LeaseLostError, str]
        assert [type(result) for result in results] == expected + [LimitExceededError]
        assert (results[0], results[5]) == (leases[0].cursor, leases[5].cursor)
        assert [lease.offset for lease in leases] == [3, 0, 0, 0, 0, 3]
        for name in ("good", "fine"):
            assert [entry.chunk for entry in store.read(name).entries] == [b"ab", b"c"]
        assert store.read("ended").data == store.read("replaced").data == store.read("oversized").data == b""
        assert store.read("shared").data == b"another writer's"
        assert store.append_many([]) == []

    @guarantee("G3")
    def test_append_many_takes_each_lease_once(self) -> None:
        """With one lease in two batches it would depend on the store which of them is taken for a repeat."""
        store = self.new()
        lease, other = acquired(store, "s"), acquired(store, "other")
        for twice in (lease, stale(lease)):
            with pytest.raises(ValueError):
                store.append_many([(lease, [b"one"]), (other, [b"x"]), (twice, [b"two"])])
        assert drain(store, "s")[0] == drain(store, "other")[0] == b""
        assert lease.offset == other.offset == 0

    @guarantee("G4")
    def test_append_many_takes_the_late_producer_of_an_earlier_life(self) -> None:
        """A process that produces both writes them in one group commit: only the late one is refused."""
        store = self.new()
        late = acquired(store, "s")
        store.delete("s")
        present = acquired(store, "s")
        for batches in ([late, present], [present, late]):
            results = dict(
                zip(
                    (lease.generation for lease in batches),
                    store.append_many([(lease, [b"x"]) for lease in batches]),
                )
            )
            assert isinstance(results[late.generation], LeaseLostError)
            assert results[present.generation] == present.cursor
        assert store.read("s").data == b"xx"

    @guarantee("G3")
    def test_append_many_may_be_repeated(self) -> None:
        store = self.new()
        leases = [acquired(store, name) for name in "abc"]
        unaware = [stale(lease) for lease in leases]
        first = store.append_many([(lease, [b"1", b"2"]) for lease in leases[:2]])
        again = store.append_many([(lease, [b"1", b"2"]) for lease in unaware])
        assert again[:2] == first
        assert again[2] == unaware[2].cursor
        assert [store.read(name).data for name in "abc"] == [b"12"] * 3

    @guarantee("G4", "G7")
    def test_renew_answers_for_each(self) -> None:
        store, leases = self._mixed()
        for _ in range(2):
            kinds = [type(result) for result in store.renew(leases)]
            assert kinds[:4] == [type(None), StreamFinalizedError, StreamLostError, LeaseLostError]
            assert kinds[5] is type(None)
        assert [lease.offset for lease in leases] == [0] * 6
        assert store.renew([]) == []


class EndingContract(ContractKit):
    """One ending for each generation, whoever tries, and what stays readable after it."""

    @guarantee("G5")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_an_ending_stays(self, ending: Status) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, b"abc")
        store.finalize(lease, ending.value, "the first text")
        store.finalize(lease, ending, "another text")
        for other in BY_NAME:
            if other is not ending:
                with pytest.raises(StreamFinalizedError) as refused:
                    store.finalize(lease, other)
                assert refused.value.status == ending.value
        assert store.cancel("s") is False
        batch = self.second(store).read("s")
        assert (batch.data, batch.status, batch.error) == (b"abc", ending, "the first text")
        info = store.info("s")
        assert info is not None and (info.status, info.error) == (ending, "the first text")
        assert not info.producer_alive and info.finished_at is not None

    @guarantee("G5")
    @pytest.mark.parametrize("status", ["streaming", "missing", "bogus", "", "DONE"])
    def test_only_endings_end(self, status: str) -> None:
        store = self.new()
        lease = acquired(store, "s")
        with pytest.raises(ValueError):
            store.finalize(lease, status)
        store.append(lease, b"goes on")
        assert store.status("s") is Status.STREAMING

    @guarantee("G5")
    @pytest.mark.parametrize(
        "error", [None, "", "Größe 😀\nsecond line", "zero \x00 inside", "undecodable \udc80"]
    )
    def test_the_error_text_comes_back(self, error: str | None) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.finalize(lease, Status.ERROR, error)
        batch = store.read("s")
        assert batch.status is Status.ERROR
        if error is not None and "\udc80" in error:
            assert batch.error is not None and batch.error.startswith("undecodable ")
        else:
            assert batch.error == error

    @guarantee("G10")
    def test_a_long_error_text_is_cut(self) -> None:
        store = self.new()
        store.finalize(acquired(store, "s"), Status.ERROR, "0123456789" * 100_000)
        info = store.info("s")
        assert info is not None and info.status is Status.ERROR
        assert info.error is not None and 1000 <= len(info.error) <= 100_000
        assert ("0123456789" * 100_000).startswith(info.error)

    @guarantee("G5")
    def test_an_unaware_producer_may_still_end_its_stream(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        unaware = stale(lease)
        store.append(lease, b"stored, but the reply was lost")
        store.finalize(unaware, Status.ERROR)
        assert store.status("s") is Status.ERROR

    @guarantee("G5")
    def test_one_ending_wins_a_race(self) -> None:
        store = self.new()
        stores = store, self.second(store)
        for round_number in range(15):
            lease = acquired(store, f"s{round_number}")

            def end(number: int) -> object:
                return outcome(stores[number % 2].finalize, stale(lease), BY_NAME[number // 2])

            results = race(8, end)
            standing = store.status(lease.stream_id)
            for number, result in enumerate(results):
                if BY_NAME[number // 2] is standing:
                    assert result is None
                else:
                    assert isinstance(result, StreamFinalizedError) and result.status == standing.value

    @guarantee("G9")
    def test_cancel_ends_a_running_stream(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, b"abc")
        assert self.second(store).cancel("s") is True
        assert store.cancel("s") is False
        assert store.status("s") is Status.CANCELLED
        assert store.read("s").data == b"abc"
        with pytest.raises(StreamFinalizedError) as refused:
            store.append(lease, b"more")
        assert refused.value.status == "cancelled"
        with pytest.raises(StreamFinalizedError):
            store.finalize(lease, Status.DONE)
        store.finalize(lease, Status.CANCELLED)  # the producer agrees

    @guarantee("G9")
    def test_cancel_of_nothing_is_false(self) -> None:
        store = self.new()
        assert store.cancel("missing") is False
        assert store.acquire("missing") is not None  # and it left no mark
        for ending in BY_NAME:
            store.finalize(acquired(store, ending.value), ending)
            assert store.cancel(ending.value) is False
            assert store.status(ending.value) is ending

    @guarantee("G9")
    def test_one_of_many_cancels_did_it(self) -> None:
        store = self.new()
        stores = store, self.second(store)
        for round_number in range(10):
            acquired(store, f"s{round_number}")
            results = race(16, lambda number: stores[number % 2].cancel(f"s{round_number}"))
            assert results.count(True) == 1

    @guarantee("G2", "G5")
    def test_an_ending_under_a_writer_keeps_what_was_acknowledged(self) -> None:
        store = self.new()
        other = self.second(store)
        for round_number in range(10):
            lease = acquired(store, f"s{round_number}")

            def write() -> bytes:
                written = b""
                while True:
                    chunk = b"%d;" % len(written)
                    try:
                        store.append(lease, chunk)
                    except StreamFinalizedError:
                        return written
                    written += chunk

            writer = call(write)
            assert other.read(lease.stream_id, lease.cursor, timeout=PATIENCE).data
            assert other.cancel(lease.stream_id)
            data, last = drain(store, lease.stream_id)
            assert last.status is Status.CANCELLED
            assert data == writer.result(PATIENCE)

    @guarantee("G6")
    def test_delete_says_whether_it_did(self) -> None:
        store = self.new()
        stores = store, self.second(store)
        assert store.delete("s") is False
        for status in (Status.STREAMING, *BY_NAME):
            lease = acquired(store, "s")
            store.append(lease, b"abc")
            if status.ended:
                store.finalize(lease, status)
            results = race(6, lambda number: stores[number % 2].delete("s"))
            assert results.count(True) == 1
            assert store.status("s") is Status.MISSING
            assert store.info("s") is None
            assert list(store.streams()) == []
