"""What viewers share: woken one by one, none is left behind; served from memory, none gets what is not so."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from resumable_sync.contract import Batch, Position, Status
from resumable_sync.stores import pages
from resumable_sync.stores.pages import Page
from resumable_sync.stores.redis.feed import Feed
from resumable_sync.stores.sqlite.recent import News, Recent, State
from resumable_sync.stores.wakeup import Channel

from ..support import wait_until

READERS = 60


def start(target: Callable[[int], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, args=(number,), daemon=True) for number in range(READERS)]
    for thread in threads:
        thread.start()
    return threads


def test_one_wake_reaches_all() -> None:
    channel = Channel()
    woken: list[bool] = []
    threads = start(lambda number: woken.append(channel.wait(0, 60.0)))
    wait_until(lambda: len(channel._waiting) == READERS)
    channel.bump()
    for thread in threads:
        thread.join(60)
    assert woken == [True] * READERS


def test_readers_that_leave_leave_nobody_behind() -> None:
    """Some time out at any moment, also between being called and being woken, and yet all see the last wake-up."""
    channel = Channel()
    last = 400
    seen: list[int] = []

    def read(number: int) -> None:
        chooser = random.Random(number)
        version = 0
        while version < last:
            patient = number % 3 == 0
            channel.wait(version, 60.0 if patient else chooser.random() / 500)
            version = channel.version
        seen.append(version)

    began = time.monotonic()
    threads = start(read)
    pause = threading.Event()  # never set
    for number in range(last):
        pause.wait(0.0005 if number % 2 else 0.0)
        channel.bump()
    for thread in threads:
        thread.join(60)
    assert seen == [last] * READERS
    assert time.monotonic() - began < 30  # the patient ones were woken
    assert not channel._waiting and not channel._called


def test_a_slow_wake_opens_all_gates() -> None:
    """Where each wake takes long, because another thread computes, readers must not come one by one."""
    for slow in (False, True):
        channel = Channel()
        gates = [threading.Lock() for _ in range(READERS)]
        channel._called.extend(gates)
        channel._opened_at = time.monotonic() - (1.0 if slow else -1.0)
        assert channel._next(True) == (gates if slow else gates[:1])


def test_nobody_depends_on_the_main_thread() -> None:
    """A signal handler that wakes all waits until all others are awake; the main thread itself waits here."""
    channel = Channel()
    woken: list[bool] = []
    order: list[str] = []

    def handle(number: int, frame: object) -> None:
        channel.bump()
        wait_until(lambda: len(woken) == READERS)
        order.append("handler")

    def interrupt() -> None:
        wait_until(lambda: len(channel._main) == 1 and len(channel._waiting) == READERS)
        with channel._turn:  # the main thread is in its wait, not in the section before
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        start(lambda number: woken.append(channel.wait(0, 60.0)))
        threading.Thread(target=interrupt, daemon=True).start()
        assert channel.wait(0, 60.0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert order == ["handler"] and woken == [True] * READERS


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_who_finds_more_wakes_those_that_wait_for_it(store: str) -> None:
    """A viewer that looks before the news of it came moves the tail: then the news holds nothing new."""
    tail: Recent | Feed = Recent("s") if store == "sqlite" else Feed("s")
    for size in (3, 5):
        version = tail.version
        batch = Batch(Position(1, size), b"", (), size=size, status=Status.STREAMING)
        if isinstance(tail, Recent):
            tail.caught_up(batch, 60.0, tail.changes)
        else:
            tail.caught_up(batch, 60.0, local=False)
        assert tail.version > version


class TailMachine(RuleBasedStateMachine):
    """A stream, and the tails of two stores, which hear of what happens to it, or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 1
        self.rows: list[Page] = []
        self.data = b""
        self.ending: Status | None = None
        self.recent, self.feed = Recent("s"), Feed("s")

    @property
    def status(self) -> Status:
        return self.ending or Status.STREAMING

    def found(self) -> Batch:
        """A look at the store, at the end."""
        return Batch(Position(self.generation, len(self.data)), b"", (), size=len(self.data), status=self.status)

    def state(self) -> State:
        return State(self.generation, len(self.data), self.status)

    def news(self, position: Position) -> News:
        return News(self.state(), None, 60.0, [row for row in self.rows if row[0] > position.offset])

    @rule()
    def look(self) -> None:
        self.recent.caught_up(self.found(), 60.0, self.recent.changes)
        self.feed.caught_up(self.found(), 60.0, local=False)

    @precondition(lambda self: self.ending is None)
    @rule(
        chunks=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4),
        told=st.sampled_from([True, True, False]),
        twice=st.booleans(),
    )
    def append(self, chunks: list[bytes], told: bool, twice: bool) -> None:
        rows = pages.pack(chunks, len(self.data))
        self.rows += rows
        self.data += b"".join(chunks)
        for _ in range(told + (told and twice)):
            self.recent.extend(self.generation, rows)
            self.feed.extend(self.generation, rows, 30)

    @precondition(lambda self: self.ending is None)
    @rule(ending=st.sampled_from([Status.DONE, Status.CANCELLED]), told=st.booleans())
    def end(self, ending: Status, told: bool) -> None:
        self.check_reads(back=0, inside=False, max_bytes=4)  # of which something may be kept
        self.ending = ending
        if told:
            self.recent.finish(self.state(), None, 60.0)
            self.feed.finish(self.generation, len(self.data), ending, None)
        self.check_reads(back=0, inside=False, max_bytes=4)

    @rule(lost=st.booleans())
    def hint(self, lost: bool) -> None:
        """Another process's commit: the rows behind the tail, of which some may be known by now."""
        tail = self.recent.tail()
        self.recent.advance(tail, None if lost else self.news(tail))
        if tail.generation == self.generation and not lost:
            assert self.recent.end == len(self.data) and bool(self.recent.ending) == bool(self.ending)
        position = self.feed.tail()
        if position is not None and position.generation == self.generation:
            self.feed.extend(self.generation, self.news(position).rows, 30)

    @precondition(lambda self: len(self.rows) > 5)
    @rule()
    def recreate(self) -> None:
        """Deleted and begun anew, with the notice that stores give."""
        self.generation += 1
        self.rows, self.data, self.ending = [], b"", None
        self.recent.forget()
        self.feed.distrust()

    @precondition(lambda self: self.rows)
    @rule()
    def roll_back(self) -> None:
        """The last rows are gone, as in a file restored from a backup; only a hint tells."""
        tail = self.recent.tail()
        end, payload, _ = self.rows.pop()
        self.data, self.ending = self.data[: end - len(payload)], None
        self.recent.advance(tail, self.news(tail))
        self.feed.distrust()

    @rule(back=st.integers(0, 3), inside=st.booleans(), max_bytes=st.sampled_from([4, 100]))
    def read(self, back: int, inside: bool, max_bytes: int) -> None:
        self.check_reads(back, inside, max_bytes)

    def check_reads(self, back: int, inside: bool, max_bytes: int) -> None:
        ends = [0, *(end for end, _, _ in self.rows)]
        offset = ends[max(0, len(ends) - 1 - back)]
        position = Position(self.generation, max(0, offset - inside))
        for tail in (self.recent, self.feed):
            batch = tail.serve(position, max_bytes)
            if batch is None:
                continue
            assert batch.start == str(position)
            assert (batch.size, batch.status) == (tail.end, tail.ending[0] if tail.ending else Status.STREAMING)
            assert batch.data == self.data[position.offset : position.offset + len(batch.data)]
            assert batch.data or position.offset == batch.size
            assert b"".join(entry.chunk for entry in batch.entries) == batch.data
            if batch.status.ended:
                assert (batch.status, batch.size) == (self.ending, len(self.data))

    @rule(offset=st.integers(0, 3))
    def read_what_is_gone(self, offset: int) -> None:
        for tail in (self.recent, self.feed):
            for generation in (0, self.generation - 1):
                assert tail.serve(Position(generation, offset), 10) is None

    @invariant()
    def knows_no_more_than_there_is(self) -> None:
        for tail in (self.recent, self.feed):
            assert tail.end <= len(self.data) or tail.generation != self.generation
            assert tail._held == sum(len(payload) for _, payload, _ in tail._rows)


TailMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestTails = TailMachine.TestCase
