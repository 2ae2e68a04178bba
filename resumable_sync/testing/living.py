"""The store contract and time: who counts as dead when, and how long a stream stays.

Time is passed by letting the store itself wait: a read of another stream, younger by design, returns when
that one's ttl or lease has run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ..contract import Lease, Status, Store
from ..errors import LimitExceededError, StreamFinalizedError, StreamLostError
from .kit import CLOCK_TOLERANCE, PATIENCE, ContractKit, acquired, guarantee, outcome

SHORT = 0.8
"""The ttl or grace that is to run out."""

SPARED = 0.9
"""The ttl or grace that is to be renewed, every STEP, for TURNS."""

STEP = 0.15
TURNS = 9


def _appended(store: Store, lease: Lease, *chunks: bytes) -> None:
    store.append(lease, *chunks)


def _appended_again(store: Store, lease: Lease) -> None:
    lease.offset = 0  # as if no reply had ever come
    store.append(lease, b"x")


def _renewed(store: Store, lease: Lease) -> None:
    (error,) = store.renew([lease])
    if error is not None:
        raise error


SIGNS: dict[str, Callable[[Store, Lease], None]] = {
    "append": lambda store, lease: _appended(store, lease, b"x"),
    "empty-append": _appended,
    "repeated-append": _appended_again,
    "renew": _renewed,
}
"""The signs of life a producer may give."""


def pass_ttl(store: Store, seconds: float = SHORT) -> None:
    """Return when a stream of that ttl that was begun, or renewed, just now has expired."""
    acquired(store, "clock", ttl=seconds)
    with pytest.raises(StreamLostError):
        store.read("clock", timeout=PATIENCE / 3)


def pass_grace(store: Store) -> None:
    """Return when a producer that gave its last sign of life just now counts as dead."""
    acquired(store, "clock")
    assert store.read("clock", timeout=PATIENCE / 3).status is Status.INTERRUPTED


class LeaseContract(ContractKit):
    """Silent producers."""

    @guarantee("G7")
    def test_a_silent_producer_is_interrupted(self) -> None:
        store = self.new(grace=SHORT)
        assert store.grace == SHORT
        lease = acquired(store, "s")
        begin = time.monotonic()
        cursor = store.append(lease, b"last words")
        batch = self.second(store).read("s", cursor, timeout=PATIENCE)
        taken = time.monotonic() - begin
        assert (batch.data, batch.status) == (b"", Status.INTERRUPTED)
        assert SHORT - CLOCK_TOLERANCE <= taken < PATIENCE / 3
        assert self.second(store).read("s").data == b"last words"

    @guarantee("G7")
    @pytest.mark.parametrize("method", ["read", "acquire", "status", "info", "streams", "sweep"])
    def test_any_method_declares_it(self, method: str) -> None:
        store = self.new(grace=SHORT)
        lease = acquired(store, "s")
        pass_grace(store)
        if method == "read":
            assert store.read("s").status is Status.INTERRUPTED
        elif method == "acquire":
            assert store.acquire("s") is None
        elif method == "status":
            assert store.status("s") is Status.INTERRUPTED
        elif method == "info":
            info = store.info("s")
            assert info is not None and info.status is Status.INTERRUPTED and not info.producer_alive
        elif method == "streams":
            assert [info.status for info in store.streams()] == [Status.INTERRUPTED] * 2  # and the clock
        else:
            assert store.sweep() == 0  # ended, not removed
        with pytest.raises(StreamFinalizedError) as refused:
            store.append(lease, b"late")
        assert refused.value.status == "interrupted"
        with pytest.raises(StreamFinalizedError):
            store.finalize(lease, Status.DONE)
        error = store.renew([lease])[0]
        assert isinstance(error, StreamFinalizedError) and error.status == "interrupted"
        assert (store.read("s").data, store.status("s")) == (b"", Status.INTERRUPTED)

    @guarantee("G7")
    def test_a_late_producer_goes_on_if_nobody_noticed(self) -> None:
        store = self.new(grace=SHORT)
        appending, renewing, ending = (acquired(store, name) for name in "abc")
        pass_grace(store)
        store.append(appending, b"late")
        assert store.renew([renewing]) == [None]
        store.finalize(ending, Status.DONE)
        assert [store.status(name) for name in "abc"] == ["streaming", "streaming", "done"]
        assert store.read("a").data == b"late"

    @guarantee("G7", "G9")
    def test_cancel_of_a_dead_producers_stream(self) -> None:
        store = self.new(grace=SHORT)
        lease = acquired(store, "s")
        pass_grace(store)
        done = store.cancel("s")
        assert store.status("s") is (Status.CANCELLED if done else Status.INTERRUPTED)
        with pytest.raises(StreamFinalizedError):
            store.append(lease, b"late")

    @guarantee("G7", "G8")
    @pytest.mark.parametrize("limit", ["ttl", "grace"])
    def test_signs_of_life_keep_a_stream(self, limit: str) -> None:
        store = self.new(**{limit: SPARED})
        watch = self.second(store)
        for attempt in ("first", "second", "third"):
            signed, longest_gap = time.monotonic(), 0.0  # the first sign of life is that they begin
            leases = {sign: acquired(store, f"{attempt}-{sign}") for sign in SIGNS}
            slice_of_time = acquired(store, f"{attempt}-slice", ttl=1000)
            errors: list[object] = []
            for _ in range(TURNS):
                outcome(watch.read, slice_of_time.stream_id, timeout=STEP)
                store.renew([slice_of_time])
                before = time.monotonic()
                for sign, lease in leases.items():
                    errors.append((sign, outcome(SIGNS[sign], store, lease)))
                longest_gap = max(longest_gap, time.monotonic() - signed)
                signed = before
            found = {sign: watch.status(lease.stream_id) for sign, lease in leases.items()}
            longest_gap = max(longest_gap, time.monotonic() - signed)
            if longest_gap < SPARED - CLOCK_TOLERANCE:
                assert errors == [(sign, None) for sign in SIGNS] * TURNS
                assert found == dict.fromkeys(SIGNS, Status.STREAMING)
                return
        pytest.skip("this machine was too busy to give signs of life in time")


class TtlContract(ContractKit):
    """Expiry."""

    @guarantee("G6", "G8")
    def test_an_expired_stream_is_gone(self) -> None:
        store = self.new()
        lease = acquired(store, "running", ttl=SHORT)
        ended = acquired(store, "ended", ttl=SHORT)
        store.append(lease, b"data")
        store.finalize(ended, Status.DONE)
        pass_ttl(store)
        with pytest.raises(StreamLostError):
            store.append(lease, b"more")
        with pytest.raises(StreamLostError):
            store.finalize(lease, Status.DONE)
        assert isinstance(store.renew([lease])[0], StreamLostError)
        assert list(store.streams()) == []
        for name in ("running", "ended"):
            assert (store.status(name), store.info(name)) == (Status.MISSING, None)
            assert store.cancel(name) is store.delete(name) is False
        new = acquired(store, "running")
        assert new.generation > lease.generation
        assert store.read("running").data == b""

    @guarantee("G8")
    def test_an_ending_starts_the_ttl_anew(self) -> None:
        store = self.new(ttl=SPARED)
        lease = acquired(store, "s")
        acquired(store, "other")
        store.read("other", timeout=SPARED / 2)
        begin = time.monotonic()
        store.finalize(lease, Status.DONE)
        finalized = time.monotonic()
        while store.status("s") is Status.DONE:  # asking does not prolong it either
            acquired(store, "slice")
            store.read("slice", timeout=0.02)
            store.delete("slice")
            assert time.monotonic() - finalized < SPARED + PATIENCE / 3
        assert time.monotonic() - begin >= SPARED - CLOCK_TOLERANCE

    @guarantee("G8")
    def test_finished_ttl_is_the_life_after_the_ending(self) -> None:
        store = self.new(ttl=1000, finished_ttl=SHORT)
        running, ended = acquired(store, "running"), acquired(store, "ended")
        cancelled = acquired(store, "cancelled")
        store.finalize(ended, Status.DONE)
        store.cancel(cancelled.stream_id)
        assert store.status("ended") is Status.DONE
        pass_ttl(store, SHORT + 2 * CLOCK_TOLERANCE)
        assert [store.status(name) for name in ("ended", "cancelled")] == [Status.MISSING] * 2
        assert store.append(running, b"goes on") == running.cursor

    @guarantee("G8")
    def test_a_stream_has_a_ttl_of_its_own(self) -> None:
        store = self.new(ttl=SHORT)
        longer = acquired(store, "longer", ttl=1000)
        ended = acquired(store, "ended", ttl=1000)
        store.finalize(ended, Status.DONE)
        store.append(longer, b"x")
        acquired(store, "default")
        pass_ttl(store)
        assert store.sweep() <= 2
        assert [info.stream_id for info in store.streams()] == ["ended", "longer"]

    @guarantee("G8", "G10")
    def test_sweep_removes_what_has_expired(self) -> None:
        store = self.new()  # its own ttl is long, so its own sweep is not due meanwhile
        acquired(store, "stays")
        assert store.sweep() == 0
        for name in "abc":
            acquired(store, name, ttl=SHORT)
        store.finalize(acquired(store, "d", ttl=SHORT), Status.DONE)
        pass_ttl(store)
        store.delete("clock")
        removed = self.second(store).sweep()
        assert removed <= 5  # fewer where the own sweep of the store came first; 5 with the clock's row
        assert self.second(store).sweep() == 0
        assert [info.stream_id for info in store.streams()] == ["stays"]

    @guarantee("G10")
    def test_expired_streams_take_no_room(self) -> None:
        store = self.new(max_streams=3)
        acquired(store, "a", ttl=SHORT)
        acquired(store, "b", ttl=SHORT)
        pass_ttl(store)
        for name in "cde":
            acquired(store, name)
        with pytest.raises(LimitExceededError):
            store.acquire("f")
