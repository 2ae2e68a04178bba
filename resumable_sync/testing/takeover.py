"""The store contract, second part: streams that survive their producer (`TakeoverStore`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one since Python 3.11
from typing import Any

import pytest

from ..contract import ENDINGS, Lease, Status, Store
from ..errors import (
    InvalidStreamIdError,
    LeaseLostError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    UnsupportedError,
)
from .kit import (
    CLOCK_TOLERANCE,
    PATIENCE,
    AdditionKit,
    FullStore,
    acquired,
    call,
    drain,
    guarantee,
    known,
    outcome,
    race,
    stale,
)
from .living import SHORT, pass_grace
from .producing import BY_NAME
from .waiting import PAUSE

LONG = 1000.0
"""A handover that does not come to its end within a test."""

EMPTY_TERMS = 3
"""So many terms in a row that store nothing are allowed."""


def begun(store: FullStore, stream_id: str, *chunks: bytes, handover: float = LONG, **options: Any) -> Lease:
    """The lease of a new stream that may be taken over, with these chunks."""
    lease = store.acquire(stream_id, handover=handover, **options)
    assert lease is not None, f"{stream_id} was not free"
    store.append(lease, *chunks)
    return lease


def taken_over(store: FullStore, lease: Lease) -> Lease:
    """The lease of the next term, which is expected to begin."""
    later = store.take_over(lease.stream_id, lease.generation)
    assert later is not None, f"{lease.stream_id} could not be taken over"
    return later


def handed_on(store: FullStore, lease: Lease) -> Lease:
    """The lease of the next term, after `lease` was released."""
    store.release(lease)
    return taken_over(store, lease)


def pass_handover(store: FullStore, handover: float = SHORT) -> None:
    """Return when a stream with this handover, whose producer gave its last sign of life just now, has ended."""
    begun(store, "clock", handover=handover)
    assert store.read("clock", timeout=PATIENCE / 3).status is Status.INTERRUPTED


def pass_seconds(store: FullStore, seconds: float) -> None:
    """Return after so many seconds of the store's time, whatever its grace time."""
    end = time.monotonic() + seconds + CLOCK_TOLERANCE
    begun(store, "slice", ttl=LONG)
    while time.monotonic() < end:
        store.read("slice", timeout=max(0.0, end - time.monotonic()))
    store.delete("slice")


def waits(store: FullStore, stream_id: str) -> bool:
    """Whether the stream runs and nobody produces it."""
    info = known(store, stream_id)
    return info.status is Status.STREAMING and not info.producer_alive


def eventually(store: Store, holds: Callable[[], bool]) -> None:
    """Return when `holds()` is true. The time in between is a wait of the store."""
    acquired(store, "slice", ttl=LONG)
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        outcome(store.read, "slice", timeout=0.02)


def _finalized_as(ending: Status) -> Callable[[FullStore, Lease], object]:
    return lambda store, lease: outcome(store.finalize, lease, ending)


USES: dict[str, Callable[[FullStore, Lease], object]] = {
    "append": lambda store, lease: outcome(store.append, lease, b"late"),
    "empty append": lambda store, lease: outcome(store.append, lease),
    "append_many": lambda store, lease: store.append_many([(lease, [b"late"])])[0],
    "renew": lambda store, lease: store.renew([lease])[0],
    **{f"finalize as {ending.value}": _finalized_as(ending) for ending in BY_NAME},
}
"""What a producer does with its lease, but for `release`: each gives the error, or what is answered."""


class HandoverContract(AdditionKit):
    """The time after the loss of a producer."""

    @guarantee("G7", "G11")
    def test_the_handover_is_kept(self) -> None:
        store = self.full()
        lease = begun(store, "s", handover=12.5)
        assert (lease.handover, lease.term) == (12.5, 1)
        info = known(self.second_full(store), "s")
        assert (info.handover, info.term, info.producer_alive) == (12.5, 1, True)
        assert next(store.streams()).handover == 12.5
        plain = acquired(store, "plain")
        assert (plain.handover, known(store, "plain").handover) == (0.0, 0.0)

    @guarantee("G10")
    @pytest.mark.parametrize("handover", [-1.0, float("nan"), float("inf"), 1e11])
    def test_a_bad_handover_is_refused(self, handover: float) -> None:
        store = self.full()
        with pytest.raises(ValueError):
            store.acquire("s", handover=handover)
        assert store.status("s") is Status.MISSING

    @guarantee("G7", "G11")
    def test_in_its_handover_a_stream_runs_with_nobody_who_produces_it(self) -> None:
        store = self.full(grace=SHORT)
        other = self.second_full(store)
        lease = begun(store, "s", b"abc")
        pass_grace(store)
        for _ in range(2):
            assert waits(other, "s")
            assert other.status("s") is Status.STREAMING
            assert other.acquire("s") is other.acquire("s", restart=ENDINGS) is None
            assert other.sweep() == 0
            (listed,) = [info for info in other.streams() if info.stream_id == "s"]
            assert listed.status is Status.STREAMING and not listed.producer_alive
            batch = other.read("s", lease.cursor, timeout=0.01)
            assert (batch.data, batch.status) == (b"", Status.STREAMING)
        assert other.read("s").data == b"abc"

    @guarantee("G7", "G11")
    @pytest.mark.parametrize("across", [False, True], ids=["same store", "second store"])
    def test_a_viewer_waits_for_the_next_producer(self, across: bool) -> None:
        store = self.full(grace=SHORT)
        lease = begun(store, "s", b"abc")
        watching = self.second(store) if across else store
        viewer = call(watching.read, "s", lease.cursor, timeout=PATIENCE)
        pass_grace(store)
        with pytest.raises(FutureTimeoutError):
            viewer.result(PAUSE)
        store.append(taken_over(store, lease), b"def")
        batch = viewer.result(PATIENCE)
        assert (batch.start, batch.data, batch.status) == (lease.cursor, b"def", Status.STREAMING)

    @guarantee("G7")
    def test_it_is_interrupted_once_lease_and_handover_are_over(self) -> None:
        store = self.full(grace=SHORT)
        begin = time.monotonic()
        lease = begun(store, "s", b"abc", handover=SHORT)
        batch = self.second(store).read("s", lease.cursor, timeout=PATIENCE)
        taken = time.monotonic() - begin
        assert (batch.data, batch.status) == (b"", Status.INTERRUPTED)
        assert 2 * SHORT - CLOCK_TOLERANCE <= taken < PATIENCE / 3
        assert store.take_over("s", lease.generation) is None

    @guarantee("G7")
    def test_after_a_release_the_handover_begins_at_once(self) -> None:
        store = self.full(grace=LONG)
        lease = begun(store, "s", b"abc", handover=SHORT)
        begin = time.monotonic()
        store.release(lease)
        assert self.second(store).read("s", lease.cursor, timeout=PATIENCE).status is Status.INTERRUPTED
        assert SHORT - CLOCK_TOLERANCE <= time.monotonic() - begin < PATIENCE / 3

    @guarantee("G7")
    @pytest.mark.parametrize("method", ["read", "acquire", "status", "info", "streams", "sweep", "take_over"])
    def test_any_method_declares_it(self, method: str) -> None:
        store = self.full(grace=SHORT)
        lease = begun(store, "s", handover=SHORT)
        pass_handover(store)
        if method == "read":
            assert store.read("s").status is Status.INTERRUPTED
        elif method == "acquire":
            assert store.acquire("s") is None
        elif method == "status":
            assert store.status("s") is Status.INTERRUPTED
        elif method == "info":
            assert known(store, "s").status is Status.INTERRUPTED
        elif method == "streams":
            assert [info.status for info in store.streams()] == [Status.INTERRUPTED] * 2  # and the clock
        elif method == "sweep":
            assert store.sweep() == 0
        else:
            assert store.take_over("s", lease.generation) is None
            assert store.status("s") is Status.INTERRUPTED
        for name, use in USES.items():
            if name != "finalize as interrupted":  # which repeats the ending
                refused = use(store, lease)
                assert isinstance(refused, StreamFinalizedError) and refused.status == "interrupted"
        assert store.take_over("s", lease.generation) is None
        assert (store.read("s").data, store.status("s")) == (b"", Status.INTERRUPTED)

    @guarantee("G4", "G5")
    def test_an_id_is_kept_for_as_long_as_the_stream_may_be_taken_over(self) -> None:
        store = self.full(grace=SHORT)
        lease = begun(store, "s", b"old", handover=SHORT)
        kept = begun(store, "kept", b"old")
        pass_handover(store)
        assert store.acquire("kept", restart={"interrupted"}) is None
        again = store.acquire("s", restart={"interrupted"}, handover=LONG)
        assert again is not None and again.generation > lease.generation
        assert store.take_over("s", lease.generation) is None
        assert (known(store, "s").size, known(store, "s").term, known(store, "s").handover) == (0, 1, LONG)
        store.append(taken_over(store, kept), b"+new")
        assert store.read("kept").data == b"old+new"

    @guarantee("G4", "G7")
    def test_a_late_producer_goes_on_if_nobody_took_over(self) -> None:
        store = self.full(grace=SHORT)
        leases = {name: begun(store, name, b"abc") for name in ("append", "renew", "finalize")}
        pass_grace(store)
        assert all(waits(store, name) for name in leases)  # seen, which does not end it
        store.append(leases["append"], b"late")
        assert store.renew([leases["renew"]]) == [None]
        store.finalize(leases["finalize"], Status.DONE)
        assert [store.status(name) for name in leases] == ["streaming", "streaming", "done"]
        assert store.read("append").data == b"abclate"

    @guarantee("G4", "G7")
    def test_a_late_producer_is_alive_again(self) -> None:
        store = self.full(grace=2 * SHORT)
        lease = begun(store, "s")
        pass_grace(store)
        assert waits(store, "s")

        def comes_back() -> bool:  # or the machine is too busy to see it in time
            store.append(lease, b"x")
            return known(store, "s").producer_alive

        eventually(store, comes_back)

    @guarantee("G8")
    def test_a_stream_never_expires_in_its_handover(self) -> None:
        store = self.full(grace=SHORT)
        lease = begun(store, "s", b"abc", ttl=SHORT / 2)
        released = begun(store, "released", b"abc", ttl=SHORT / 2)
        store.release(released)
        assert lease.ttl == known(store, "s").ttl == SHORT / 2
        pass_seconds(store, 2 * SHORT)
        assert store.sweep() == 0
        assert waits(store, "s") and waits(store, "released")
        for late in (lease, released):
            later = taken_over(store, late)
            assert later.ttl == SHORT / 2
            store.append(later, b"def")
            assert store.read(late.stream_id).data == b"abcdef"
        pass_seconds(store, 2 * SHORT)
        assert store.status("s") is store.status("released") is Status.STREAMING  # again in their handover

    @guarantee("G7", "G8")
    def test_a_late_release_is_a_sign_of_life(self) -> None:
        store = self.full(grace=SHORT)
        for stream_id in ("first", "second", "third"):
            lease = begun(store, stream_id, handover=4 * SHORT, ttl=5 * SHORT)
            pass_seconds(store, 2 * SHORT)  # its lease is over, and nobody took the stream over
            if isinstance(outcome(store.release, lease), StreamLostError):
                continue  # the machine is too busy: the stream has expired
            # From here on it has a whole handover, which is longer than what was left of its life. It has expired
            # if nobody comes by within SHORT after that.
            found = outcome(store.read, stream_id, timeout=PATIENCE / 3)
            if not isinstance(found, StreamLostError):
                break
        else:
            pytest.skip("the machine is too busy: the stream has expired")
        assert store.status(stream_id) is Status.INTERRUPTED

    @guarantee("G8")
    def test_the_ttl_counts_again_after_the_ending(self) -> None:
        store = self.full(grace=LONG)
        lease = begun(store, "s", ttl=SHORT)
        store.finalize(lease, Status.DONE)
        assert store.touch("s")  # for as long again, and not for what is left of a handover
        pass_seconds(store, SHORT)
        assert store.status("s") is Status.MISSING

    @guarantee("G8")
    def test_what_was_interrupted_stays_for_its_ttl(self) -> None:
        store = self.full(grace=SHORT, ttl=LONG)
        begun(store, "s", b"abc", handover=SHORT)
        pass_handover(store)
        assert store.status("s") is Status.INTERRUPTED
        pass_seconds(store, SHORT)
        assert store.read("s").data == b"abc"


class TakeOverContract(AdditionKit):
    """The next term."""

    @guarantee("G11")
    def test_a_takeover_goes_on_where_the_bytes_end(self) -> None:
        store = self.full(ttl=500)
        other = self.second_full(store)
        first = begun(store, "s", b"one", b"two", ttl=70, metadata={"job": "é"})
        before = known(store, "s")
        second = handed_on(other, first)
        assert (second.stream_id, second.generation, second.offset) == ("s", first.generation, 6)
        assert (second.term, second.ttl, second.handover) == (2, 70, LONG)
        assert len({first.token, first.released, second.token, second.released}) == 4
        info = known(store, "s")
        assert (info.term, info.producer_alive, info.handover, info.ttl) == (2, True, LONG, 70)
        assert (info.metadata, info.created_at) == (before.metadata, before.created_at)
        assert other.append(second, b"three") == f"{first.generation}-11" == second.cursor
        third = handed_on(store, second)
        store.append(third, b"four")
        store.finalize(third, Status.DONE)
        assert known(store, "s").term == 3
        assert [entry.chunk for entry in store.read("s").entries] == [b"one", b"two", b"three", b"four"]
        assert other.read("s", first.cursor).data == b"threefour"  # from a cursor of an earlier term

    @guarantee("G3", "G11")
    def test_it_begins_after_what_was_stored_without_an_acknowledgement(self) -> None:
        store = self.full()
        first = begun(store, "s", b"one")
        store.append(stale(first), b"two")  # its reply is lost
        assert first.offset == 3
        store.release(first)
        second = taken_over(store, first)
        assert second.offset == 6
        store.append(second, b"three")
        assert store.read("s").data == b"onetwothree"

    @guarantee("G4", "G11")
    def test_a_lost_producers_stream_is_taken_over(self) -> None:
        store = self.full(grace=SHORT)
        other = self.second_full(store)
        lease = begun(store, "s", b"abc")
        pass_grace(store)
        later = taken_over(other, lease)
        assert later.term == 2
        assert other.renew([later]) == [None]
        other.append(later, b"def")
        for use in USES.values():
            assert isinstance(use(store, lease), LeaseLostError)
        assert store.read("s").data == b"abcdef"

    @guarantee("G4", "G11")
    @pytest.mark.parametrize("case", ["living", "no handover", "missing", "deleted", "older", "newer", "anew"])
    def test_what_is_not_taken_over(self, case: str) -> None:
        store = self.full()
        lease = begun(store, "s", b"abc", handover=0.0 if case == "no handover" else LONG)
        generation = lease.generation
        if case not in ("living", "no handover"):
            store.release(lease)
        if case in ("missing", "deleted", "anew"):
            store.delete("s")
        if case == "anew":
            store.release(begun(store, "s"))
        if case == "missing":
            assert store.take_over("t", generation) is None
        number = {"older": generation - 1, "newer": generation + 1}.get(case, generation)
        before = store.info("s")
        assert self.second_full(store).take_over("s", number) is None
        assert store.info("s") == before
        assert [info.stream_id for info in store.streams()] == ([] if before is None else ["s"])

    @guarantee("G5", "G11")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_no_ending_is_lifted(self, ending: Status) -> None:
        store = self.full()
        lease = begun(store, "s", b"abc")
        store.finalize(lease, ending, "why")
        before = store.info("s")
        assert store.take_over("s", lease.generation) is None
        assert store.info("s") == before

    @guarantee("G7", "G11")
    def test_without_a_handover_a_dead_producers_stream_is_interrupted(self) -> None:
        store = self.full(grace=SHORT)
        lease = acquired(store, "s")
        pass_grace(store)
        assert store.take_over("s", lease.generation) is None
        assert store.status("s") is Status.INTERRUPTED

    @guarantee("G10")
    def test_a_takeover_wants_an_id_and_a_generation(self) -> None:
        store = self.full()
        generation: Any
        for generation in ("1", 1.5, None):
            with pytest.raises(ValueError):
                store.take_over("s", generation)
        with pytest.raises(InvalidStreamIdError):
            store.take_over("a b", 1)

    @guarantee("G4", "G11")
    def test_one_of_many_wins(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        for number in range(20):
            lease = begun(store, f"s{number}", b"abc")
            store.release(lease)
            found = race(16, lambda turn: stores[turn % 2].take_over(lease.stream_id, lease.generation))
            (winner,) = [later for later in found if later is not None]
            assert (winner.term, winner.offset) == (2, 3)
            store.append(winner, b"def")
            assert store.read(lease.stream_id).data == b"abcdef"

    @guarantee("G4", "G11")
    def test_every_use_of_an_earlier_lease_is_refused(self) -> None:
        store = self.full()
        first = begun(store, "s", b"abc")
        unaware = stale(first, 0)  # it never saw the reply of its only append
        second = handed_on(store, first)
        store.append(second, b"def")
        for other in (store, self.second_full(store)):
            for lease in (first, unaware):
                for name, use in USES.items():
                    assert isinstance(use(other, stale(lease)), LeaseLostError), name
                with pytest.raises(LeaseLostError):
                    other.release(stale(lease))
            for chunk in (b"abc", b"abcdef"):  # bytes that are there: no repeat, since another term has begun
                with pytest.raises(LeaseLostError):
                    other.append(stale(unaware), chunk)
            with pytest.raises(LeaseLostError):
                other.append(stale(first), b"def")  # the bytes that its successor has put there
        assert (first.offset, unaware.offset) == (3, 0)
        assert store.append(second, b"ghi") == second.cursor
        assert store.read("s").data == b"abcdefghi"

    @guarantee("G4", "G5")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_an_ending_of_a_later_term_is_none_of_an_earlier_one(self, ending: Status) -> None:
        """A producer that was superseded must not take the ending of its successor for its own."""
        store = self.full()
        first = begun(store, "s")
        second = handed_on(store, first)
        store.finalize(second, ending)
        store.finalize(second, ending)  # a repeated ending
        for name, use in USES.items():
            assert isinstance(use(store, stale(first)), LeaseLostError), name
        with pytest.raises(LeaseLostError):
            store.release(first)

    @guarantee("G4", "G11")
    def test_append_many_takes_the_late_producer_of_an_earlier_term(self) -> None:
        """A process that has both writes them in one group commit: only the late one is refused."""
        store = self.full()
        late = begun(store, "s")
        present = handed_on(store, late)
        for pair in ([late, present], [present, late]):
            results = dict(
                zip((lease.term for lease in pair), store.append_many([(lease, [b"x"]) for lease in pair]))
            )
            assert isinstance(results[1], LeaseLostError)
            assert results[2] == present.cursor
        assert store.read("s").data == b"xx"

    @guarantee("G3", "G11")
    def test_within_a_term_a_repeated_append_is_stored_once(self) -> None:
        store = self.full()
        second = handed_on(store, begun(store, "s", b"abc"))
        unaware = stale(second)
        store.append(second, b"def")
        assert store.append(unaware, b"def") == second.cursor
        assert store.read("s").data == b"abcdef"

    @guarantee("G4", "G6")
    def test_delete_and_a_new_life_in_between(self) -> None:
        store = self.full()
        first = begun(store, "s", b"abc")
        second = handed_on(store, first)
        assert self.second(store).delete("s")
        for lease in (first, second):
            for use in USES.values():
                assert isinstance(use(store, stale(lease)), StreamLostError)
            with pytest.raises(StreamLostError):
                store.release(lease)
        new = begun(store, "s")
        for lease in (first, second):
            for use in USES.values():
                assert isinstance(use(store, stale(lease)), LeaseLostError)
            with pytest.raises(LeaseLostError):
                store.release(lease)
            assert store.take_over("s", lease.generation) is None
        assert (known(store, "s").generation, known(store, "s").term) == (new.generation, 1)
        store.append(new, b"new")
        assert store.read("s").data == b"new"

    @guarantee("G6", "G11")
    def test_a_term_that_knows_of_more_than_is_stored_is_refused(self) -> None:
        store = self.full()
        lease = begun(store, "s", b"abc")
        ahead = stale(lease, 4)  # as after a roll-back of the store
        with pytest.raises(StreamLostError):
            store.release(ahead)
        assert known(store, "s").producer_alive

    @guarantee("G4", "G11")
    @pytest.mark.parametrize("rival", ["append", "renew", "finalize", "release"])
    def test_a_takeover_and_the_late_producer(self, rival: str) -> None:
        """One of them wins: of two steps at once none is half done."""
        store = self.full(grace=SHORT)
        other = self.second_full(store)
        for round_number in range(4):
            leases = [begun(store, f"{rival}{round_number}.{number}", b"abc") for number in range(4)]
            pass_grace(store)
            store.delete("clock")

            def act(number: int) -> object:
                lease = leases[number // 2]
                if number % 2:
                    return other.take_over(lease.stream_id, lease.generation)
                if rival == "release":
                    return outcome(store.release, stale(lease))
                late = stale(lease)
                if rival == "append":
                    return outcome(store.append, late, b"def")
                return store.renew([late])[0] if rival == "renew" else outcome(store.finalize, late, "done")

            results = race(8, act)
            for number, lease in enumerate(leases):
                late, later = results[2 * number : 2 * number + 2]
                if later is None:
                    assert rival != "release" and not isinstance(late, Exception)
                    continue
                assert isinstance(later, Lease)
                if rival == "release" and late is None:
                    assert later.term == 2
                else:
                    assert isinstance(late, LeaseLostError)
                assert later.offset == 3
                store.append(later, b"xyz")
                assert store.read(lease.stream_id).data == b"abcxyz"

    @guarantee("G4", "G9", "G11")
    @pytest.mark.parametrize("rival", ["cancel", "delete"])
    def test_a_takeover_and_the_end(self, rival: str) -> None:
        store = self.full()
        other = self.second_full(store)
        for round_number in range(15):
            lease = begun(store, f"s{round_number}", b"abc")
            store.release(lease)

            def act(number: int) -> object:
                if number:
                    return other.take_over(lease.stream_id, lease.generation)
                return store.cancel(lease.stream_id) if rival == "cancel" else store.delete(lease.stream_id)

            ended, later = race(2, act)
            assert ended is True
            assert store.status(lease.stream_id) == ("cancelled" if rival == "cancel" else "missing")
            if later is not None:
                assert isinstance(later, Lease)
                with pytest.raises(StreamFinalizedError if rival == "cancel" else StreamLostError):
                    store.append(later, b"def")

    @guarantee("G2", "G4", "G11")
    def test_nothing_of_an_earlier_term_follows(self) -> None:
        """A producer that writes on while others let go of its stream: what it was told was stored comes before
        the takeover, and nothing after it."""
        store = self.full()
        other = self.second_full(store)
        for round_number in range(8):
            lease = begun(store, f"s{round_number}")

            def write() -> bytes:
                mine, written = stale(lease), b""
                while True:
                    chunk = b"%d;" % len(written)
                    try:
                        store.append(mine, chunk)
                    except LeaseLostError:
                        return written
                    written += chunk

            writer = call(write)
            assert other.read(lease.stream_id, lease.cursor, timeout=PATIENCE).data
            later = handed_on(other, stale(lease))
            other.append(later, b"later")
            written = writer.result(PATIENCE)
            assert later.offset == len(written) + len(b"later")
            assert drain(store, lease.stream_id)[0] == written + b"later"


class ReleaseContract(AdditionKit):
    """Letting go."""

    @guarantee("G4", "G11")
    def test_a_released_stream_waits_for_its_next_producer(self) -> None:
        store = self.full()
        other = self.second_full(store)
        lease = begun(store, "s", b"abc")
        store.release(lease)
        assert waits(other, "s")
        for name, use in USES.items():
            assert isinstance(use(store, stale(lease)), LeaseLostError), name
        with pytest.raises(LeaseLostError):
            store.append(stale(lease, 0), b"abc")  # bytes that are there: no repeat any more
        assert (store.read("s").data, store.status("s")) == (b"abc", Status.STREAMING)
        store.append(taken_over(other, lease), b"def")
        assert store.read("s").data == b"abcdef"

    @guarantee("G7")
    @pytest.mark.parametrize("across", [False, True], ids=["same store", "second store"])
    def test_without_a_handover_it_is_interrupted_at_once(self, across: bool) -> None:
        store = self.full(grace=LONG)
        lease = acquired(store, "s")
        store.append(lease, b"abc")
        watching = self.second(store) if across else store
        viewer = call(watching.read, "s", lease.cursor, timeout=PATIENCE)
        with pytest.raises(FutureTimeoutError):
            viewer.result(PAUSE)
        store.release(lease)
        assert viewer.result(PATIENCE).status is Status.INTERRUPTED
        assert store.status("s") is Status.INTERRUPTED
        store.release(lease)
        self.second_full(store).release(stale(lease))
        assert store.take_over("s", lease.generation) is None
        for name, use in USES.items():
            assert isinstance(use(store, stale(lease)), LeaseLostError), name

    @guarantee("G4")
    def test_a_release_may_be_repeated(self) -> None:
        store = self.full()
        other = self.second_full(store)
        lease = begun(store, "s", b"abc")
        unaware = stale(lease)
        for _ in range(2):
            store.release(lease)
            other.release(unaware)
        assert race(8, lambda number: outcome((store, other)[number % 2].release, stale(lease))) == [None] * 8
        later = taken_over(store, lease)
        with pytest.raises(LeaseLostError):  # it would take the stream away from its successor
            store.release(lease)
        assert known(store, "s").producer_alive
        store.append(later, b"def")

    @guarantee("G5", "G6")
    def test_what_cannot_be_released(self) -> None:
        store = self.full()
        ended, cancelled, deleted, anew = (begun(store, name) for name in ("done", "cancelled", "deleted", "anew"))
        store.finalize(ended, Status.DONE)
        store.cancel("cancelled")
        store.delete("deleted")
        store.delete("anew")
        begun(store, "anew")
        for lease in (ended, cancelled):
            with pytest.raises(StreamFinalizedError) as refused:
                store.release(lease)
            assert refused.value.status == lease.stream_id
        with pytest.raises(StreamLostError):
            store.release(deleted)
        with pytest.raises(LeaseLostError):
            store.release(anew)
        assert known(store, "anew").producer_alive

    @guarantee("G9")
    @pytest.mark.parametrize("by", ["silence", "release"])
    def test_a_stream_that_waits_is_cancelled(self, by: str) -> None:
        store = self.full(grace=SHORT if by == "silence" else LONG)
        lease = begun(store, "s", b"abc")
        if by == "silence":
            pass_grace(store)
        else:
            store.release(lease)
        assert waits(store, "s")
        assert self.second(store).cancel("s") is True
        assert store.cancel("s") is False
        assert store.status("s") is Status.CANCELLED
        assert store.take_over("s", lease.generation) is None
        refused = outcome(store.append, lease, b"late")
        assert isinstance(refused, StreamFinalizedError if by == "silence" else LeaseLostError)
        assert store.read("s").data == b"abc"

    @guarantee("G9")
    def test_a_cancel_wakes_the_viewers_of_a_stream_that_waits(self) -> None:
        store = self.full()
        lease = begun(store, "s", b"abc")
        store.release(lease)
        viewers = [call(each.read, "s", lease.cursor, timeout=PATIENCE) for each in (store, self.second(store))]
        with pytest.raises(FutureTimeoutError):
            viewers[0].result(PAUSE)
        store.cancel("s")
        assert [viewer.result(PATIENCE).status for viewer in viewers] == [Status.CANCELLED] * 2

    @guarantee("G7", "G11")
    def test_a_store_that_closes_leaves_its_streams_to_others(self) -> None:
        store = self.full(grace=SHORT)
        other = self.second_full(store)
        if other is store:
            return  # a store of one process: its streams go with it
        lease = begun(other, "s", b"abc")
        other.close()
        assert store.status("s") is Status.STREAMING
        found: list[Lease] = []

        def wins() -> bool:
            later = store.take_over("s", lease.generation)
            found.extend([] if later is None else [later])
            return bool(found)

        eventually(store, wins)
        store.append(found[0], b"def")
        assert store.read("s").data == b"abcdef"

    @guarantee("G10")
    @pytest.mark.parametrize("method", ["take_over", "release", "orphans"])
    def test_a_closed_store_refuses(self, method: str) -> None:
        store = self.full()
        lease = begun(store, "s")
        store.close()
        with pytest.raises(StoreUnavailableError):
            if method == "take_over":
                store.take_over("s", lease.generation)
            elif method == "release":
                store.release(lease)
            else:
                list(store.orphans())


class OrphanContract(AdditionKit):
    """Which streams wait for a producer. It is a hint; the takeover decides."""

    @guarantee("G11")
    def test_orphans_names_those_that_wait(self) -> None:
        store = self.full(grace=SHORT)
        other = self.second_full(store)
        wanted = {f"lost.{number}" for number in range(3)} | {f"released.{number}" for number in range(3)}
        leases = {name: begun(store, name, b"x") for name in sorted(wanted)}
        for name, lease in leases.items():
            if name.startswith("released"):
                store.release(lease)
        pass_grace(store)
        for each in (store, other):
            eventually(each, lambda: wanted <= set(each.orphans()))
            store.delete("slice")
        for name in other.orphans():
            if name in wanted:
                assert taken_over(other, leases[name]).term == 2
                wanted.remove(name)
        assert wanted == set()

    @guarantee("G11")
    def test_orphans_forgets_what_needs_nobody(self) -> None:
        store = self.full(grace=SHORT)
        for name in ("done", "cancelled", "deleted", "waits"):
            lease = begun(store, name)
            if name == "done":
                store.finalize(lease, Status.DONE)
            else:
                store.release(lease)
            if name == "cancelled":
                store.cancel(name)
            elif name == "deleted":
                store.delete(name)
        acquired(store, "plain")
        eventually(store, lambda: set(store.orphans()) == {"waits"})

    @guarantee("G7", "G11")
    def test_looking_for_orphans_ends_nothing(self) -> None:
        store = self.full(grace=SHORT)
        lease = begun(store, "s", b"abc")
        pass_grace(store)
        for _ in range(3):
            list(store.orphans())
        store.append(lease, b"def")
        assert store.read("s").data == b"abcdef"

    @guarantee("G11")
    def test_a_new_life_is_an_orphan_of_its_own(self) -> None:
        store = self.full()
        store.release(begun(store, "s"))
        store.delete("s")
        second = begun(store, "s")
        assert store.take_over("s", second.generation) is None
        store.release(second)
        eventually(store, lambda: "s" in set(store.orphans()))
        assert taken_over(store, second).generation == second.generation


class TermContract(AdditionKit):
    """A job that kills its process must not go from worker to worker."""

    @guarantee("G7", "G11")
    def test_three_terms_that_store_nothing_are_enough(self) -> None:
        store = self.full()
        other = self.second_full(store)
        lease = begun(store, "s")
        for term in range(2, EMPTY_TERMS + 1):
            lease = handed_on(other, lease)
            assert lease.term == term
            store.append(lease)  # nothing
            assert store.renew([lease]) == [None]
        store.release(lease)
        assert store.status("s") is Status.STREAMING
        viewer = call(other.read, "s", timeout=PATIENCE)
        assert store.take_over("s", lease.generation) is None
        assert viewer.result(PATIENCE).status is Status.INTERRUPTED
        assert store.status("s") is Status.INTERRUPTED
        assert store.take_over("s", lease.generation) is None
        again = store.acquire("s", restart={"interrupted"}, handover=LONG)
        assert again is not None
        assert handed_on(store, again).term == 2  # the next life counts anew

    @guarantee("G11")
    def test_bytes_begin_the_count_anew(self) -> None:
        store = self.full()
        lease = begun(store, "s", b"1")
        for _ in range(2):
            for _ in range(EMPTY_TERMS - 1):
                lease = handed_on(store, lease)
            lease = handed_on(store, lease)
            store.append(lease, b"x")
        for _ in range(EMPTY_TERMS):
            lease = handed_on(store, lease)
        store.release(lease)
        assert store.take_over("s", lease.generation) is None
        assert (store.read("s").data, store.status("s")) == (b"1xx", Status.INTERRUPTED)

    @guarantee("G11", "G12")
    def test_notes_begin_the_count_anew(self) -> None:
        store = self.full()
        lease = begun(store, "s")
        if isinstance(outcome(store.append, lease, notes={"at": "0"}), UnsupportedError):
            pytest.skip("this store has no notes")
        for number in range(EMPTY_TERMS + 2):
            lease = handed_on(store, lease)
            store.append(lease, notes={"at": str(number)})
        for _ in range(EMPTY_TERMS):
            lease = handed_on(store, lease)
            store.commit("s", notes={"somebody": "else"})  # which is nothing that the producer has stored
        store.release(lease)
        assert store.take_over("s", lease.generation) is None
        assert store.status("s") is Status.INTERRUPTED

    @guarantee("G5", "G11")
    def test_many_at_once_end_it_once(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        for round_number in range(5):
            lease = begun(store, f"s{round_number}")
            for _ in range(EMPTY_TERMS - 1):
                lease = handed_on(store, lease)
            store.release(lease)
            found = race(8, lambda number: stores[number % 2].take_over(lease.stream_id, lease.generation))
            assert found == [None] * 8
            assert store.status(lease.stream_id) is Status.INTERRUPTED


class TakeoverContract(HandoverContract, TakeOverContract, ReleaseContract, OrphanContract, TermContract):
    """Everything that `resumable_sync.contract.TakeoverStore` promises, as pytest tests.

    For a store that passes `StoreContract`; it has the same hooks, and is subclassed in the same way. It takes
    some ten seconds.
    """
