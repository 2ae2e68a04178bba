"""The committer's decisions, one by one: state and event in, new state and what is to be done out.

No thread, store or clock takes part. `NOW` is the time of each event; GRACE and the interval are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resumable_sync import (
    Lease,
    LimitExceededError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamFinalizedError,
)
from resumable_sync.committer import MAX_PENDING_CHUNKS, Offer, Outbox, Place, Schedule, Turn

NOW = 1000.0
GRACE = 15.0
INTERVAL = 5.0

AWAY = StoreUnavailableError("away")
BROKEN = StoreUnavailableError("damaged", transient=False)
FULL_STREAM = LimitExceededError("full")
CANCELLED = StreamFinalizedError("cancelled", status="cancelled")
REFUSAL = ProducerInterruptedError("closing")


def new_outbox(max_pending_bytes: int = 10) -> Outbox:
    return Outbox(Lease("s", 1), INTERVAL, max_pending_bytes, lambda: None)


class World:
    """A schedule with the outbox `one` that a case is about, and `other`, an idle one of another stream."""

    def __init__(self) -> None:
        self.schedule = Schedule(GRACE)
        self.one, self.other = new_outbox(), new_outbox()
        self.schedule.add(self.one)
        self.schedule.add(self.other)

    def idle(self) -> None:
        pass

    def queued(self) -> None:
        assert self.schedule.offer(self.one, b"one", NOW, slow=False) is Offer.WAKE

    def writing(self) -> None:
        """One chunk is being written by the thread."""
        self.queued()
        assert self.schedule.next_turn(NOW) == Turn([self.one], NOW)

    def writing_directly(self) -> None:
        assert self.schedule.offer(self.one, b"one", NOW, slow=True) is Offer.DIRECT

    def writing_with_more(self) -> None:
        self.writing()
        assert self.schedule.offer(self.one, b"more", NOW, slow=True) is Offer.QUEUED

    def other_queued(self) -> None:
        self.schedule.offer(self.other, b"other", NOW, slow=False)

    def other_writing_directly(self) -> None:
        assert self.schedule.offer(self.other, b"other", NOW, slow=True) is Offer.DIRECT

    def retrying(self) -> None:
        """The store was away a moment ago; the next try is 0.05 s from now."""
        self.writing()
        self.schedule.record_appends([self.one], [AWAY], NOW)
        self.schedule.end_turn(NOW)

    def away_for_the_grace_time(self) -> None:
        self.retrying()
        assert self.schedule.next_turn(NOW + GRACE) == Turn([self.one], NOW + GRACE)

    def full_of_bytes(self) -> None:
        self.queued()
        assert self.schedule.offer(self.one, b"seven..", NOW, slow=False) is Offer.QUEUED

    def full_of_chunks(self) -> None:
        self.queued()
        self.one.max_pending_bytes = MAX_PENDING_CHUNKS * 2
        while len(self.one.pending) < MAX_PENDING_CHUNKS:
            self.schedule.offer(self.one, b"x", NOW, slow=False)

    def refusing(self) -> None:
        self.one.refusal = REFUSAL

    def stopped(self) -> None:
        assert self.schedule.stop(self.one, CANCELLED)

    def stopped_while_writing(self) -> None:
        self.writing_with_more()
        self.stopped()

    def removed_while_writing(self) -> None:
        self.writing_with_more()
        self.schedule.remove(self.one)

    def nobody(self) -> None:
        self.schedule.remove(self.one)
        self.schedule.remove(self.other)

    def nobody_for(self, seconds: float) -> None:
        self.nobody()
        self.schedule.next_turn(NOW - seconds)


State = Callable[[World], None]


def made(state: State) -> World:
    world = World()
    state(world)
    return world


@pytest.mark.parametrize(
    "state, slow, offer, place",
    [
        (World.idle, True, Offer.DIRECT, Place.WRITING),
        (World.idle, False, Offer.WAKE, Place.QUEUED),
        (World.queued, True, Offer.QUEUED, Place.QUEUED),
        (World.writing, True, Offer.QUEUED, Place.WRITING),
        (World.writing_directly, True, Offer.QUEUED, Place.WRITING),
        (World.other_queued, True, Offer.QUEUED, Place.QUEUED),
        (World.other_writing_directly, True, Offer.QUEUED, Place.QUEUED),  # whose end wakes the thread
        (World.retrying, True, Offer.QUEUED, Place.QUEUED),
        (World.full_of_bytes, True, Offer.FULL, Place.QUEUED),
        (World.full_of_chunks, True, Offer.FULL, Place.QUEUED),
    ],
)
def test_a_chunk_is_offered(state: State, slow: bool, offer: Offer, place: Place) -> None:
    world = made(state)
    before = [*world.one.in_flight, *world.one.pending]
    assert world.schedule.offer(world.one, b"new", NOW, slow) is offer
    assert world.one.place is place
    added = [] if offer is Offer.FULL else [b"new"]
    assert [*world.one.in_flight, *world.one.pending] == before + added
    assert world.one.pending_bytes == sum(map(len, world.one.pending))
    if offer is Offer.DIRECT:
        assert world.schedule.turn == Turn([world.one], NOW)


@pytest.mark.parametrize("state, error", [(World.stopped, CANCELLED), (World.refusing, REFUSAL)])
def test_a_chunk_is_refused(state: State, error: ResumableStreamError) -> None:
    world = made(state)
    with pytest.raises(type(error)) as raised:
        world.schedule.offer(world.one, b"new", NOW, slow=True)
    assert raised.value is error and not world.one.pending


def test_a_chunk_above_the_bound_goes_alone() -> None:
    world = made(World.writing)
    assert world.schedule.offer(world.one, b"x" * 100, NOW, slow=False) is Offer.QUEUED
    assert world.schedule.offer(world.one, b"x", NOW, slow=False) is Offer.FULL


def test_each_outbox_has_its_own_bound() -> None:
    world = made(World.full_of_bytes)
    world.other.max_pending_bytes = 1000
    world.schedule.offer(world.other, b"x" * 900, NOW, slow=False)
    assert world.schedule.offer(world.other, b"x" * 100, NOW, slow=False) is Offer.QUEUED
    assert world.schedule.offer(world.one, b"x", NOW, slow=False) is Offer.FULL


@pytest.mark.parametrize(
    "state, now, writes",
    [
        (World.queued, NOW, ["one"]),
        (World.retrying, NOW + 0.05, ["one"]),
        (lambda world: (world.queued(), world.other_queued()), NOW, ["one", "other"]),
    ],
)
def test_a_round_begins(state: State, now: float, writes: list[str]) -> None:
    world = made(state)
    turn = world.schedule.next_turn(now)
    assert isinstance(turn, Turn) and world.schedule.turn is turn
    assert turn == Turn([getattr(world, name) for name in writes], now)
    for outbox in turn.writes:
        assert outbox.place is Place.WRITING and outbox.in_flight and not outbox.pending


@pytest.mark.parametrize(
    "state, now, wait",
    [
        (World.idle, NOW, 5.0),
        (World.stopped, NOW, 5.0),
        (World.retrying, NOW, 0.05),
        (World.writing_directly, NOW, 5.0),  # the end of the turn wakes
        (lambda world: (world.writing_directly(), world.other_queued()), NOW, 5.0),
        (World.nobody, NOW, 5.0),
        (lambda world: world.nobody_for(3), NOW, 2.0),
        (lambda world: world.nobody_for(5), NOW, None),
    ],
)
def test_the_thread_waits_or_ends(state: State, now: float, wait: float | None) -> None:
    assert made(state).schedule.next_turn(now) == pytest.approx(wait)


def test_a_thread_that_waited_for_an_end_waits_anew_after_another_stream() -> None:
    world = made(lambda world: world.nobody_for(4))
    world.schedule.add(world.one)
    world.schedule.remove(world.one)
    assert world.schedule.next_turn(NOW + 2) == 5.0


def test_a_round_is_bounded_and_the_rest_takes_the_next() -> None:
    world = World()
    for outbox in (world.one, world.other):
        outbox.max_pending_bytes = 1 << 30
        world.schedule.offer(outbox, bytes(5 << 20), NOW, slow=False)
    assert world.schedule.next_turn(NOW) == Turn([world.one], NOW)
    world.schedule.record_appends([world.one], ["1-5242880"], NOW)
    world.schedule.end_turn(NOW)
    assert world.schedule.next_turn(NOW) == Turn([world.other], NOW)


STORED = "1-3"


@pytest.mark.parametrize(
    "state, result, place, chunks, acknowledged, error, told",
    [
        (World.writing, STORED, Place.IDLE, [], [3], None, False),
        (World.writing_directly, STORED, Place.IDLE, [], [3], None, False),
        (World.writing_with_more, STORED, Place.QUEUED, [b"more"], [3], None, False),
        (World.writing, AWAY, Place.QUEUED, [b"one"], [], None, False),
        (World.writing_directly, AWAY, Place.QUEUED, [b"one"], [], None, False),
        (World.writing_with_more, AWAY, Place.QUEUED, [b"one", b"more"], [], None, False),
        (World.away_for_the_grace_time, AWAY, Place.IDLE, [], [], AWAY, True),
        (World.writing_with_more, BROKEN, Place.IDLE, [], [], BROKEN, True),
        (World.writing_with_more, FULL_STREAM, Place.IDLE, [], [], FULL_STREAM, True),
        (World.stopped_while_writing, STORED, Place.IDLE, [], [3], CANCELLED, False),
        (World.stopped_while_writing, AWAY, Place.IDLE, [], [], CANCELLED, False),
        (World.stopped_while_writing, FULL_STREAM, Place.IDLE, [], [], CANCELLED, False),
        (World.removed_while_writing, STORED, Place.IDLE, [], [3], None, False),
        (World.removed_while_writing, AWAY, Place.IDLE, [], [], AWAY, True),
    ],
)
def test_an_append_is_recorded(
    state: State,
    result: Any,
    place: Place,
    chunks: list[bytes],
    acknowledged: list[int],
    error: ResumableStreamError | None,
    told: bool,
) -> None:
    world = made(state)
    now = NOW + GRACE if state is World.away_for_the_grace_time else NOW
    assert world.schedule.record_appends([world.one], [result], now) == ([world.one] if told else [])
    assert world.schedule.end_turn(now) == [] and world.schedule.turn is None
    assert world.one.place is place and (world.one in world.schedule.queue) is (place is Place.QUEUED)
    assert [*world.one.in_flight, *world.one.pending] == chunks
    assert list(world.one.acknowledged) == acknowledged and world.one.error is error


def test_pauses_grow_while_the_store_is_away_and_end_with_it() -> None:
    world = made(World.queued)
    world.other_queued()
    now, pauses = NOW, []
    for _ in range(7):
        turn = world.schedule.next_turn(now)
        assert isinstance(turn, Turn) and turn.writes == [world.one, world.other]
        assert world.one.in_flight == [b"one"]  # the very same append
        world.schedule.record_appends(turn.writes, [AWAY, AWAY], now)
        world.schedule.end_turn(now)
        pauses.append(world.schedule.retry_at - now)
        now = world.schedule.retry_at
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    turn = world.schedule.next_turn(now)
    assert isinstance(turn, Turn)
    world.schedule.record_appends(turn.writes, [STORED, AWAY], now)
    world.schedule.end_turn(now)
    assert world.schedule.retry_at == pytest.approx(now + 0.05)  # it is back, for one at least
    assert world.one.unavailable_since is None and world.other.unavailable_since == NOW


@pytest.mark.parametrize("result, signed_at", [(STORED, NOW), (AWAY, -math.inf)])
def test_an_append_that_succeeds_is_a_sign_of_life_of_when_it_began(result: Any, signed_at: float) -> None:
    world = made(World.writing)
    world.schedule.record_appends([world.one], [result], NOW + 1)
    assert world.one.pulse.signed_at == signed_at


@pytest.mark.parametrize("state", [World.writing, World.writing_directly])
@pytest.mark.parametrize("advanced", [False, True])
def test_an_append_that_is_broken_off_is_repeated_unless_its_lease_has_advanced(
    state: State, advanced: bool
) -> None:
    world = made(state)
    if advanced:
        world.one.lease.offset += 3
    assert world.schedule.end_turn(NOW) == [] and world.schedule.turn is None
    if advanced:
        assert world.one.place is Place.IDLE and list(world.one.acknowledged) == [3] and not world.one.in_flight
    else:
        assert world.one.place is Place.QUEUED and world.one.in_flight == [b"one"]
        assert world.schedule.next_turn(NOW + 0.05) == Turn([world.one], NOW + 0.05)


def test_an_append_that_is_broken_off_again_and_again_stops_its_stream() -> None:
    world = made(World.away_for_the_grace_time)
    assert world.schedule.end_turn(NOW + GRACE) == [world.one]
    assert isinstance(world.one.error, StoreUnavailableError) and not world.one.in_flight


@pytest.mark.parametrize(
    "state, kept",
    [(World.idle, []), (World.queued, []), (World.retrying, []), (World.writing_with_more, [b"one"])],
)
def test_a_stream_is_stopped_wherever_it_is(state: State, kept: list[bytes]) -> None:
    """Only an append that is under way is still waited for."""
    world = made(state)
    assert world.schedule.stop(world.one, CANCELLED)
    assert not world.schedule.stop(world.one, FULL_STREAM) and world.one.error is CANCELLED
    assert [*world.one.in_flight, *world.one.pending] == kept and world.one.pending_bytes == 0
    assert not world.schedule.queue


@pytest.mark.parametrize("state", [World.idle, World.queued, World.retrying])
def test_an_outbox_that_is_removed_leaves_no_work(state: State) -> None:
    world = made(state)
    world.schedule.remove(world.one)
    world.schedule.remove(world.one)
    assert not world.schedule.queue and world.schedule.outboxes == {world.other}


class Walk(RuleBasedStateMachine):
    """Whatever happens in whatever order: no chunk is lost, doubled or overtaken until its stream stops."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.schedule = Schedule(GRACE)
        self.outboxes = [new_outbox() for _ in range(3)]
        self.put: dict[Outbox, list[int]] = {outbox: [] for outbox in self.outboxes}
        for outbox in self.outboxes:
            self.schedule.add(outbox)

    which = st.integers(0, 2)

    @rule(which=which, size=st.integers(1, 12), slow=st.booleans())
    def offer(self, which: int, size: int, slow: bool) -> None:
        outbox = self.outboxes[which]
        direct = outbox.place is Place.WRITING and self.schedule.turn is not None and self.direct
        if direct or outbox.error is not None or outbox not in self.schedule.outboxes:
            return  # its thread is inside the append, or has ended
        offer = self.schedule.offer(outbox, bytes(size), self.now, slow)
        if offer is not Offer.FULL:
            self.put[outbox].append(size)
        self.direct = self.direct or offer is Offer.DIRECT

    direct = False

    @rule()
    def next_turn(self) -> None:
        if self.schedule.turn is None:
            turn = self.schedule.next_turn(self.now)
            assert turn is None or isinstance(turn, Turn) or 0 < turn <= 5.0

    @rule(results=st.lists(st.sampled_from(["stored", AWAY, FULL_STREAM, None]), min_size=3, max_size=3))
    def end(self, results: list[Any]) -> None:
        """None: broken off before it was recorded."""
        turn = self.schedule.turn
        if turn is None:
            return
        for outbox, result in zip(turn.writes, results):
            if result is not None:
                self.schedule.record_appends([outbox], [result], self.now)
        self.schedule.end_turn(self.now)
        self.direct = False

    @rule(which=which)
    def stop(self, which: int) -> None:
        self.schedule.stop(self.outboxes[which], CANCELLED)

    @rule(which=which)
    def remove(self, which: int) -> None:
        self.schedule.remove(self.outboxes[which])

    @rule(seconds=st.sampled_from([0.01, 0.3, 4.0, 16.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def places_are_true(self) -> None:
        turn = self.schedule.turn
        for outbox in self.outboxes:
            assert self.schedule.queue.count(outbox) == (outbox.place is Place.QUEUED)
            assert (outbox.place is Place.WRITING) == (turn is not None and outbox in turn.writes)
            assert bool(outbox.in_flight or outbox.pending) == (outbox.place is not Place.IDLE)

    @invariant()
    def chunks_are_kept_in_order(self) -> None:
        for outbox in self.outboxes:
            kept = [*outbox.acknowledged, *map(len, outbox.in_flight), *map(len, outbox.pending)]
            put = self.put[outbox]
            open_still = outbox.error is None and outbox in self.schedule.outboxes
            assert kept == put if open_still else kept == put[: len(kept)]


TestWalk = Walk.TestCase


def _left_direct(world: World) -> None:
    """`offer` got as far as to take the chunk."""
    world.one.in_flight = [b"one"]


def _left_out_of_the_queue(world: World) -> None:
    world.queued()
    world.schedule.queue.clear()


def _left_pending(world: World) -> None:
    world.one.pending = [b"one"]


def _left_stored(world: World) -> None:
    """The append was stored, and its result not recorded."""
    world.writing_directly()
    world.one.lease.offset = 3
    world.schedule.turn, world.one.place = None, Place.IDLE


def _left_without_a_turn(world: World) -> None:
    world.writing_directly()
    world.schedule.turn = None


def _left_dropped(world: World) -> None:
    """`stop` got as far as to take it out of the queue."""
    world.queued()
    world.one.pending, world.one.pending_bytes = [], 0
    world.schedule.queue.clear()


@pytest.mark.parametrize(
    "left, chunks",
    [
        (_left_direct, [b"one"]),
        (_left_out_of_the_queue, [b"one"]),
        (_left_pending, [b"one"]),
        (_left_stored, []),
        (_left_without_a_turn, [b"one"]),
        (_left_dropped, []),
        (World.queued, [b"one"]),
        (World.retrying, [b"one"]),
        (World.idle, []),
    ],
)
def test_what_a_call_that_was_broken_off_has_left(left: State, chunks: list[bytes]) -> None:
    world = made(left)
    assert world.schedule.repair(world.one, object(), NOW) == []
    place = Place.QUEUED if chunks else Place.IDLE
    assert world.one.place is place and world.schedule.queue.count(world.one) == len(chunks)
    assert [*world.one.in_flight, *world.one.pending] == chunks
    if chunks:
        assert world.schedule.next_turn(NOW + 0.05) == Turn([world.one], NOW + 0.05)


@pytest.mark.parametrize("stored", [False, True])
def test_a_turn_is_given_back_by_the_call_whose_it_is(stored: bool) -> None:
    world, mine = World(), object()
    assert world.schedule.offer(world.one, b"one", NOW, slow=True, caller=mine) is Offer.DIRECT
    for other in object(), None:
        assert world.schedule.repair(world.one, other, NOW) == []
        assert world.schedule.turn == Turn([world.one], NOW, mine) and world.one.place is Place.WRITING
    world.one.lease.offset += 3 * stored
    assert world.schedule.repair(world.one, mine, NOW) == [] and world.schedule.turn is None
    assert world.one.place is (Place.IDLE if stored else Place.QUEUED)
