"""What viewers share: woken one by one, none is left waiting; served from memory, none gets what is not so."""

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
from resumable_sync.errors import StreamLostError, StreamNotFoundError
from resumable_sync.stores import pages
from resumable_sync.stores.base import Snapshot
from resumable_sync.stores.pages import Page
from resumable_sync.stores.tail import Ending, Fetched, Tail, Tails
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
    for number in range(last):
        time.sleep(0.0005 if number % 2 else 0.0)  # at many moments of their waits
        channel.bump()
    for thread in threads:
        thread.join(60)
    assert seen == [last] * READERS
    assert time.monotonic() - began < 30  # the patient ones were woken
    assert not channel._waiting and channel._called == 0


def test_a_slow_wake_opens_all_gates() -> None:
    """Where each wake takes long, because another thread computes, readers must not come one by one."""
    for slow in (False, True):
        channel = Channel()
        gates = [threading.Lock() for _ in range(READERS)]
        for gate in gates:
            gate.acquire()
        channel._waiting.extend(gates)
        channel._called = READERS
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


CHECK_SECONDS = 60.0
KINDS = pytest.mark.parametrize("check_seconds", [None, CHECK_SECONDS], ids=["told", "checked"])


def at_end(size: int, generation: int = 1, status: Status = Status.STREAMING) -> Fetched:
    return Fetched(Batch(Position(generation, size), b"", (), size=size, status=status), 60.0)


def is_good(tail: Tail) -> bool:
    return tail.good_until > time.monotonic()


@KINDS
def test_a_fetch_that_found_more_wakes_those_that_wait_for_it(check_seconds: float | None) -> None:
    """A viewer that fetches before the news of it came moves the tail: then the news holds nothing new."""
    tail = Tail("s", check_seconds)
    for size in (3, 5):
        version = tail.version
        tail.caught_up(at_end(size), version)
        assert tail.version > version
    threads = start(lambda number: tail.wait(tail.version, 60.0))
    wait_until(lambda: len(tail._waiting) == READERS)
    tail.caught_up(at_end(6), tail.version)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    version = tail.version
    tail.extend(1, [(6, b"abcdef", None)], 100)
    assert tail.version == version  # so those that wait are not woken for nothing


@KINDS
def test_an_older_fetch_that_comes_later_counts_for_nothing(check_seconds: float | None) -> None:
    tail = Tail("s", check_seconds)
    version = tail.version
    tail.caught_up(at_end(5), version)
    tail.caught_up(at_end(3), version)
    assert tail.known() == Position(1, 5)


@KINDS
def test_a_fetch_that_something_passed_counts_for_nothing(check_seconds: float | None) -> None:
    """Nothing else remembers what happens to a stream while its tail is unknown."""
    for happen in (
        Tail.forget,
        lambda tail: tail.finish(Ending(Position(1, 3), Status.DONE, None, 60.0)),
        lambda tail: tail.confirm(tail.known(), None),
    ):
        tail = Tail("s", check_seconds)
        version = tail.version
        happen(tail)
        tail.caught_up(at_end(3), version)
        assert not is_good(tail)


@KINDS
def test_what_comes_of_an_older_generation_is_ignored(check_seconds: float | None) -> None:
    tail = Tail("s", check_seconds)
    tail.caught_up(at_end(3, generation=2), tail.version)
    tail.extend(1, [(5, b"abcde", None)], 100)
    tail.finish(Ending(Position(1, 5), Status.DONE, None, 60.0))
    assert is_good(tail) and tail.known() == Position(2, 3) and tail.ending is None


def test_rows_that_do_not_come_by_the_next_check_are_fetched_by_each_viewer() -> None:
    tail = Tail("s", CHECK_SECONDS)
    tail.caught_up(at_end(3)._replace(local=True), tail.version)
    assert tail.awaited() is None
    more = Snapshot(1, Status.STREAMING, 5, 2, None, 60.0)
    assert tail.confirm(tail.known(), more)
    assert is_good(tail) and tail.awaited() == Position(1, 3)
    tail.extend(1, [(5, b"ab", None)], 100)
    assert not tail.confirm(tail.known(), more) and is_good(tail)
    much_more = Snapshot(1, Status.STREAMING, 9, 4, None, 60.0)
    assert tail.confirm(tail.known(), much_more) and is_good(tail)
    assert not tail.confirm(tail.known(), much_more)  # forgotten: nobody is to fetch for it
    assert not is_good(tail)


@KINDS
def test_what_leads_out_of_unknown(check_seconds: float | None) -> None:
    """A check that agrees, where the tail is only no longer good; rows, where the store is checked."""
    tail = Tail("s", check_seconds)
    tail.caught_up(at_end(3), tail.version)
    tail.good_until = time.monotonic() - 1.0
    tail.extend(1, [(4, b"d", None)], 100)
    assert not is_good(tail)
    found = Snapshot(1, Status.STREAMING, 4, 2, None, 60.0)
    assert not tail.confirm(tail.known(), found) and is_good(tail)
    tail.forget()
    assert not tail.confirm(tail.known(), found)  # nothing is known that it could agree with
    assert not is_good(tail)
    tail.extend(1, [(5, b"e", None)], 100)
    assert is_good(tail) == (check_seconds is not None)


@KINDS
def test_an_ending_of_which_the_life_is_not_known_holds_for_the_time_between_checks(
    check_seconds: float | None,
) -> None:
    tail = Tail("s", check_seconds)
    tail.caught_up(at_end(3), tail.version)
    tail.finish(Ending(Position(1, 3), Status.DONE, None, None))
    assert tail.ending == (Status.DONE, None) and is_good(tail) == (check_seconds is not None)


class Watched(Tail):
    """Remembers what those that it wakes are given."""

    def __init__(self, check_seconds: float | None) -> None:
        super().__init__("s", check_seconds)
        self.given: list[tuple[bytes, Status] | None] = []

    def wake(self) -> None:
        batch = self.serve(Position(1, 3), 100)
        self.given.append(None if batch is None else (batch.data, batch.status))
        super().wake()


@KINDS
def test_rows_and_the_ending_that_comes_with_them_are_seen_together(check_seconds: float | None) -> None:
    tail = Watched(check_seconds)
    tail.caught_up(at_end(3), tail.version)
    tail.given.clear()
    ending = Ending(Position(1, 7), Status.DONE, None, 60.0)
    rows = [(5, b"la", None), (7, b"st", None)]
    tail.extend(1, rows, 100, ending=ending)
    assert tail.given == [(b"last", Status.DONE)]
    tail.extend(1, rows, 100, ending=ending)  # twice, as it may be told from two sides
    assert set(tail.given) == {(b"last", Status.DONE)}
    behind = Watched(check_seconds)
    behind.caught_up(at_end(3), behind.version)
    behind.given.clear()
    behind.extend(1, [], 100, ending=ending)  # whose rows have not come
    assert behind.given == [None]


class Source:
    """A stream in memory, and the tails of one process, which are told of what happens to it, sooner or later."""

    def __init__(self, check_seconds: float | None = None) -> None:
        self.followed: list[Tail] = []
        self.tails = Tails(self.follow, max_bytes=200, linger=60.0, check_seconds=check_seconds)
        self.chance = random.Random(1)
        self.rows: list[Page] = []
        self.ending: Status | None = None
        self.gone = False

    def follow(self, tail: Tail) -> None:
        self.followed.append(tail)

    def pause(self) -> None:
        if self.chance.random() < 0.5:
            time.sleep(self.chance.random() / 1000)  # so that others come in between

    def fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        ending, rows = self.ending, list(self.rows)  # in this order: no rows come after the ending
        self.pause()
        if self.gone:
            raise StreamNotFoundError("there is no stream s")
        size = rows[-1][0] if rows else 0
        offset = position.offset if position else 0
        found = [row for row in rows if row[0] > offset]
        data, lengths = pages.unpack(found, offset, max_bytes) if found else (b"", ())
        status = ending or Status.STREAMING
        return Fetched(Batch(Position(1, offset), data, lengths, size=size, status=status), 60.0)

    def append(self, chunk: bytes) -> None:
        row = pages.pack([chunk], self.rows[-1][0] if self.rows else 0)
        self.rows += row
        self.pause()
        tail = self.tails.find("s")
        if tail is not None:
            tail.extend(1, row, self.tails.max_bytes)

    def end(self) -> None:
        self.ending = Status.DONE
        self.pause()
        tail = self.tails.find("s")
        if tail is not None:
            tail.finish(Ending(Position(1, self.rows[-1][0]), Status.DONE, None, 60.0))

    def read(self, position: Position | None = None, timeout: float = 60.0) -> Batch:
        return self.tails.read("s", position, 100, time.monotonic() + timeout, self.fetch)


@KINDS
def test_viewers_that_come_and_go_miss_nothing(check_seconds: float | None) -> None:
    """Appends, fetches and wake-ups in all orders: whoever missed one would wait for a minute."""
    source = Source(check_seconds)
    expected = b"".join(b"%04d" % number for number in range(300))
    seen: list[bytes] = []

    def view(number: int) -> None:
        data = b""
        position: Position | None = None
        chance = random.Random(number)
        while True:
            batch = source.read(position, chance.choice([0.001, 60.0]) if number % 2 else 60.0)
            data += batch.data
            position = Position(batch.generation, batch.offset)
            if batch.status.ended and not batch.data:
                break
        seen.append(data)

    began = time.monotonic()
    threads = start(view)
    for begin in range(0, len(expected), 4):
        source.append(expected[begin : begin + 4])
        if begin % 40 == 0:
            source.tails.wake_all()
        tail = source.tails.find("s")
        if begin % 100 == 0 and tail is not None:
            tail.forget()
        source.pause()
    source.end()
    for thread in threads:
        thread.join(60)
    assert seen == [expected] * READERS
    assert time.monotonic() - began < 40


def test_no_tail_stays_that_nobody_follows() -> None:
    """Of a replay, and of a stream that has ended: no thread would ever come to drop it."""
    source = Source()
    source.append(b"abc")
    batch = source.read()
    assert batch.data == b"abc" and source.tails.find("s") is not None and source.followed  # it goes on
    source = Source()
    for _ in range(40):
        source.append(b"abcd")
    assert len(source.read().data) == 100
    assert source.tails.find("s") is None and not source.followed
    source.end()
    batch = source.read(Position(1, 160))
    assert batch.status is Status.DONE
    assert source.tails.find("s") is None and not source.followed


def test_a_tail_that_nobody_came_back_to_goes_when_they_are_pruned() -> None:
    source = Source()
    source.append(b"abc")
    source.read()
    tail = source.tails.find("s")
    assert tail is not None and source.tails.prune() == [tail]
    tail.idle_since -= 3600.0
    assert source.tails.followed() == [tail]  # to look drops nothing
    assert source.tails.prune() == source.tails.followed() == [] and source.tails.find("s") is None


def test_nobody_waits_on_a_tail_that_nobody_follows() -> None:
    """Though it was filled by the committing side, for a viewer that has not yet reached the end."""
    source = Source(CHECK_SECONDS)
    tail = source.tails.enter("s")
    source.append(b"abc")
    assert is_good(tail) and not source.followed
    thread = threading.Thread(target=source.read, args=[Position(1, 3)], daemon=True)
    thread.start()
    wait_until(lambda: source.followed == [tail], 20.0)  # sooner than the read would fetch anyhow
    source.append(b"d")
    thread.join(30)
    assert not thread.is_alive()


def test_a_stream_that_goes_while_it_is_awaited_is_lost() -> None:
    """Also for a viewer that was served without a fetch until then."""
    source = Source()
    source.append(b"abc")
    source.read()
    errors: list[type] = []

    def view() -> None:
        try:
            source.read(Position(1, 3))
        except StreamLostError as error:
            errors.append(type(error))

    thread = threading.Thread(target=view, daemon=True)
    thread.start()
    tail = source.tails.find("s")
    assert tail is not None
    wait_until(lambda: len(tail._waiting) == 1)
    source.gone = True
    tail.forget()
    thread.join(10)
    assert errors == [StreamLostError]
    with pytest.raises(StreamNotFoundError):
        source.read(Position(1, 3))


def test_a_tail_that_cannot_be_followed_is_unknown() -> None:
    """The thread that would keep it true may not start; others may wait on it already."""
    source = Source()
    source.append(b"abc")
    tail = source.tails.enter("s")
    refusal = RuntimeError("can't start new thread")

    def refuse(tail: Tail) -> None:
        assert is_good(tail)
        raise refusal

    source.tails._follow = refuse
    with pytest.raises(RuntimeError) as raised:
        source.read()
    assert raised.value is refusal and not is_good(tail)


class TailMachine(RuleBasedStateMachine):
    """A stream, and a tail of each kind, which hear of what happens to it, or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 1
        self.rows: list[Page] = []
        self.data = b""
        self.ending: Status | None = None
        self.told, self.checked = Tail("s"), Tail("s", CHECK_SECONDS)
        self.tails = (self.told, self.checked)
        self.untold = False  # something happened of which `told` has not heard yet
        self.checks = 0  # in a row, of `checked`
        self.fetches: list[tuple[Tail, int, Fetched]] = []

    @property
    def status(self) -> Status:
        return self.ending or Status.STREAMING

    def snapshot(self) -> Snapshot:
        return Snapshot(self.generation, self.status, len(self.data), len(self.rows), None, 60.0)

    def rows_after(self, position: Position) -> list[Page]:
        return [row for row in self.rows if row[0] > position.offset]

    @rule(number=st.integers(0, 1))
    def begin_fetch(self, number: int) -> None:
        """By a viewer at the end."""
        tail = self.tails[number]
        self.fetches.append((tail, tail.version, at_end(len(self.data), self.generation, self.status)))

    @precondition(lambda self: self.fetches)
    @rule(number=st.integers(0, 3))
    def end_fetch(self, number: int) -> None:
        """Others may have ended before it, and anything may have happened meanwhile."""
        tail, version, fetched = self.fetches.pop(number % len(self.fetches))
        self.caught_up(tail, fetched, version)
        self.checks = 0

    @rule()
    def fetch(self) -> None:
        for tail in self.tails:
            self.caught_up(tail, at_end(len(self.data), self.generation, self.status), tail.version)

    def caught_up(self, tail: Tail, fetched: Fetched, version: int) -> None:
        if not fetched.batch.status.ended:
            tail.caught_up(fetched, version)

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
        self.checks = 0
        self.untold = self.untold or not told
        for _ in range(told + (told and twice)):
            for tail in self.tails:
                tail.extend(self.generation, rows, 30)

    @precondition(lambda self: self.ending is None)
    @rule(ending=st.sampled_from([Status.DONE, Status.CANCELLED]), told=st.booleans())
    def end(self, ending: Status, told: bool) -> None:
        self.check_reads(back=0, inside=False, max_bytes=4)  # of which something may be kept
        self.ending = ending
        self.checks = 0
        self.untold = self.untold or not told
        if told:
            for tail in self.tails:
                tail.finish(Ending(Position(self.generation, len(self.data)), ending, None, 60.0))
        for back in range(4):
            self.check_reads(back, inside=False, max_bytes=4)

    @precondition(lambda self: self.ending is None)
    @rule(chunk=st.binary(min_size=1, max_size=9), told=st.booleans())
    def append_and_end(self, chunk: bytes, told: bool) -> None:
        """In one step."""
        self.check_reads(back=0, inside=False, max_bytes=4)
        rows = pages.pack([chunk], len(self.data))
        self.rows += rows
        self.data += chunk
        self.ending = Status.DONE
        self.checks = 0
        self.untold = self.untold or not told
        if told:
            for tail in self.tails:
                end = Position(self.generation, len(self.data))
                tail.extend(self.generation, rows, 30, ending=Ending(end, Status.DONE, None, 60.0))
        for back in range(4):
            self.check_reads(back, inside=False, max_bytes=4)

    @rule(lost=st.booleans())
    def hint(self, lost: bool) -> None:
        """Another process's commit: the rows after the tail, of which some may be known by now."""
        known, found = self.told.known(), None if lost else self.snapshot()
        if found is not None and known.generation == self.generation:
            end = Position(found.generation, found.size)
            ending = Ending(end, found.status, None, 60.0) if found.status.ended else None
            self.told.extend(found.generation, self.rows_after(known), 30, ending=ending)
        assert not self.told.confirm(known, found)  # nothing is missing now
        self.untold = False
        if known.generation == self.generation and not lost:
            assert self.told.end == len(self.data) and bool(self.told.ending) == bool(self.ending)

    @rule()
    def receive(self) -> None:
        """The shared reader brings rows to the other tail."""
        position = self.checked.awaited()
        if position is not None and position.generation == self.generation:
            end = Position(self.generation, len(self.data))
            ending = None if self.ending is None else Ending(end, self.ending, None, None)
            self.checked.extend(self.generation, self.rows_after(position), 30, ending=ending)
            self.checks = 0

    @rule()
    def check(self) -> None:
        """Twice in a row without any rows: what has not come is not awaited."""
        if self.ending:
            self.checked.finish(Ending(Position(self.generation, len(self.data)), self.ending, None, None))
        else:
            self.checked.confirm(self.checked.known(), self.snapshot())
        self.checks += 1
        if self.checks > 1 and is_good(self.checked):
            self.is_true(self.checked)

    @precondition(lambda self: len(self.rows) > 5)
    @rule()
    def recreate(self) -> None:
        """Deleted and begun anew, with the notice that stores give."""
        self.generation += 1
        self.rows, self.data, self.ending = [], b"", None
        self.untold, self.checks = False, 0
        for tail in self.tails:
            tail.forget()

    @precondition(lambda self: self.rows)
    @rule()
    def roll_back(self) -> None:
        """The last rows are gone, as in a file restored from a backup; only a poll or a check tells."""
        known = [tail.known() for tail in self.tails]
        end, payload, _ = self.rows.pop()
        self.data, self.ending = self.data[: end - len(payload)], None
        for tail, position in zip(self.tails, known):
            tail.confirm(position, self.snapshot())
            tail.bump()  # a fetch of before is not of this stream any more
        self.untold, self.checks = True, 0

    @rule(back=st.integers(0, 3), inside=st.booleans(), max_bytes=st.sampled_from([4, 100]))
    def read(self, back: int, inside: bool, max_bytes: int) -> None:
        self.check_reads(back, inside, max_bytes)

    def check_reads(self, back: int, inside: bool, max_bytes: int) -> None:
        ends = [0, *(end for end, _, _ in self.rows)]
        offset = ends[max(0, len(ends) - 1 - back)]
        position = Position(self.generation, max(0, offset - inside))
        for tail in self.tails:
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
        for tail in self.tails:
            for generation in (0, self.generation - 1):
                assert tail.serve(Position(generation, offset), 10) is None

    def is_true(self, tail: Tail) -> None:
        assert tail.known() == Position(self.generation, len(self.data))
        assert (tail.ending and tail.ending[0]) == self.ending

    @invariant()
    def knows_no_more_than_there_is(self) -> None:
        for tail in self.tails:
            assert tail.end <= len(self.data) or tail.generation != self.generation
            assert tail.end - tail._begin == sum(len(payload) for _, payload, _ in tail._rows)

    @invariant()
    def is_good_only_while_it_is_true(self) -> None:
        """Of a tail that has heard of everything: whoever waits on it waits for what has not happened yet."""
        if not self.untold and is_good(self.told):
            self.is_true(self.told)


TailMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestTails = TailMachine.TestCase
