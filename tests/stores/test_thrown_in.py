"""Exceptions that signal handlers throw in, anywhere in a call: nothing is torn, and the call can be repeated."""

from __future__ import annotations

import _weakrefset
import itertools
import linecache
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import resumable_sync
from resumable_sync import MemoryStore, Status
from resumable_sync.contract import Batch, Lease, Position
from resumable_sync.errors import ResumableStreamError, StreamNotFoundError
from resumable_sync.stores.base import Snapshot
from resumable_sync.stores.pages import Page
from resumable_sync.stores.tail import Ending, Fetched, Tail
from resumable_sync.stores.wakeup import Channel
from resumable_sync.testing.kit import acquired, drain

from ..support import wait_until

PACKAGE = str(Path(resumable_sync.__file__).parent)
WEAK = (weakref.__file__, _weakrefset.__file__)
LIVES = 600.0  # as the grace time: whoever is not woken waits longer than the test


class Thrown(Exception):
    pass


def thrown_in(call: Callable[[], object], at: int) -> bool:
    """Make a call that breaks off before the `at`-th line of the package that it executes; False if it has fewer.

    Not where a `with` block ends: the interpreter lets no signal handler run between the block and its exit.
    """
    lines = itertools.count(1)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE):
            return None
        if event == "line" and not linecache.getline(name, frame.f_lineno).lstrip().startswith("with "):
            if next(lines) == at:
                raise Thrown
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Thrown:
        return True
    finally:
        sys.settrace(before)
    return False


def each_line(prepare: Callable[[], Callable[[], object]]) -> Iterator[Callable[[], object]]:
    """Calls that were broken off, each at another line, on something that `prepare` makes anew."""
    for at in itertools.count(1):
        call = prepare()
        if not thrown_in(call, at):
            assert at > 5  # lines were counted at all
            return
        yield call


def wait_in_threads(count: int, wait: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=wait, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


class Memory:
    """A store with a stream of five bytes."""

    def __init__(self) -> None:
        self.store = MemoryStore(grace=LIVES)
        self.lease: Lease = acquired(self.store, "s")
        self.store.append(self.lease, b"abc", b"de")

    def check(self, *sizes: int) -> None:
        """The stream is whole, and of one of these sizes, whoever asks."""
        data, batch = drain(self.store, "s")
        info = self.store.info("s")
        assert info is not None and info.size == batch.size == len(data) and len(data) in sizes
        assert data == b"abcdefghij"[: len(data)]
        assert info.entries == {5: 2, 9: 4, 10: 5}[len(data)]


def test_an_append_in_memory_is_stored_as_a_whole_and_once() -> None:
    memory = Memory()

    def prepare() -> Callable[[], object]:
        nonlocal memory
        memory.store.close()
        memory = Memory()
        return lambda: memory.store.append(memory.lease, b"fg", b"hi")

    for append in each_line(prepare):
        memory.check(5, 9)
        if memory.lease.offset == 5:  # as the contract says: for the same state of the lease
            append()
        memory.check(9)
        memory.store.append(memory.lease, b"j")
        memory.check(10)
        memory.store.finalize(memory.lease, "done")


@pytest.mark.parametrize("ending", ["done", "error", "cancel"])
def test_an_ending_in_memory_is_whole_and_everybody_is_told(ending: str) -> None:
    memory = Memory()

    def prepare() -> Callable[[], object]:
        nonlocal memory
        memory.store.close()
        memory = Memory()
        if ending == "cancel":
            return lambda: memory.store.cancel("s")
        return lambda: memory.store.finalize(memory.lease, ending, "why")

    for end in each_line(prepare):
        info = memory.store.info("s")
        assert info is not None and (info.finished_at is None) == (info.status is Status.STREAMING)
        assert info.status is Status.STREAMING or info.error == ("why" if ending != "cancel" else None)
        at_end = f"{memory.lease.generation}-5"
        threads = wait_in_threads(2, lambda: memory.store.read("s", at_end, timeout=300.0))
        end()
        join(threads)
        assert memory.store.status("s") == ("cancelled" if ending == "cancel" else ending)
        memory.check(5)


def test_a_deletion_in_memory_can_be_repeated_and_a_new_life_begins() -> None:
    memory = Memory()

    def prepare() -> Callable[[], object]:
        nonlocal memory
        memory.store.close()
        memory = Memory()
        return lambda: memory.store.delete("s")

    for delete in each_line(prepare):
        delete()
        with pytest.raises(StreamNotFoundError):
            memory.store.read("s")
        late, memory.lease = memory.lease, acquired(memory.store, "s")
        assert memory.lease.generation > late.generation
        with pytest.raises(ResumableStreamError):
            memory.store.append(late, b"x")
        memory.store.append(memory.lease, b"abc", b"de")
        memory.check(5)


@pytest.mark.parametrize("readers", [1, 20])
def test_the_main_thread_may_break_off_a_wake_up_or_a_wait(readers: int) -> None:
    """The next one reaches all, however far the one before came."""
    channel = Channel()
    threads: list[threading.Thread] = []

    def prepare() -> Callable[[], object]:
        nonlocal channel, threads
        channel = Channel()
        threads = wait_in_threads(readers, lambda: channel.wait(channel.version, 300.0))
        wait_until(lambda: len(channel._waiting) == readers)
        return channel.bump

    for bump in each_line(prepare):
        assert len(channel._waiting) >= channel._called
        bump()
        join(threads)
        assert not channel._waiting and channel._called == 0

    def prepare_wait() -> Callable[[], object]:
        nonlocal threads
        threads = wait_in_threads(readers, lambda: channel.wait(channel.version, 300.0))
        wait_until(lambda: len(channel._waiting) == readers)
        return lambda: channel.wait(channel.version, 0.001)

    for _ in each_line(prepare_wait):
        channel.bump()
        join(threads)
    channel.bump()
    join(threads)
    assert not channel._waiting and channel._called == 0 and not channel._main


ROWS: list[Page] = [(3, b"abc", None), (5, b"de", None), (9, b"fghi", None)]
DATA = b"abcdefghi"


def fetched(size: int, generation: int = 1) -> Fetched:
    return Fetched(Batch(Position(generation, size), b"", (), size=size, status=Status.STREAMING), LIVES)


def ending(size: int) -> Ending:
    return Ending(Position(1, size), Status.DONE, None, LIVES)


CHANGES: dict[str, Callable[[Tail], object]] = {
    "extend": lambda tail: tail.extend(1, ROWS[1:], 100),
    "extend and shorten": lambda tail: tail.extend(1, ROWS[1:], 4),
    "a gap": lambda tail: tail.extend(1, ROWS[2:], 100),
    "extend to the end": lambda tail: tail.extend(1, ROWS[1:], 100, ending=ending(7)),
    "finish": lambda tail: tail.finish(ending(3)),
    "forget": Tail.forget,
    "caught up": lambda tail: tail.caught_up(fetched(5), tail.version),
    "caught up with another life": lambda tail: tail.caught_up(fetched(5, 2), tail.version),
    "confirm": lambda tail: tail.confirm(tail.known(), Snapshot(1, Status.STREAMING, 9, 1, valid_for=LIVES)),
}


@pytest.mark.parametrize("check_seconds", [None, LIVES], ids=["told", "checked"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_tail_tells_nothing_that_is_not_so(change: str, check_seconds: float | None) -> None:
    tail = Tail("s")

    def prepare() -> Callable[[], object]:
        nonlocal tail
        tail = Tail("s", check_seconds)
        tail.caught_up(fetched(0), tail.version)
        tail.extend(1, ROWS[:1], 100)
        check()  # which also makes the batches that viewers share
        return lambda: CHANGES[change](tail)

    def check() -> None:
        for generation, offset in itertools.product((1, 2), range(len(DATA) + 1)):
            batch = tail.serve(Position(generation, offset), 100)
            if batch is not None:
                assert batch.offset == batch.size == tail.end and generation == tail.generation
                assert batch.data == DATA[offset : batch.size]
                assert (batch.status is Status.DONE) == (tail.ending is not None)
        assert tail.end - tail._begin <= sum(len(payload) for _, payload, _ in tail._rows)

    for again in each_line(prepare):
        check()
        again()
        check()
        tail.extend(1, ROWS, 100)
        check()


def expected(size: int) -> bytes:
    """What `append_next` stores."""
    data = b""
    while len(data) < size:
        data += b"%d " % len(data)
    return data


def test_a_store_in_memory_under_a_storm_of_signals() -> None:
    """An alarm raises within appends, reads, renewals and endings, which are repeated: the bytes are exact, and a
    follower gets them all and is told the ending."""

    def throw(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename in WEAK:  # as a callback, whose exceptions reach nobody
            signal.setitimer(signal.ITIMER_REAL, 0.0001)
            return
        raise Thrown

    store, chooser = MemoryStore(grace=LIVES), random.Random(7)
    before = signal.signal(signal.SIGALRM, throw)

    def until_thrown(call: Callable[[], object]) -> None:
        """Make this call again and again until an exception is thrown in."""
        try:
            signal.setitimer(signal.ITIMER_REAL, chooser.uniform(0.00001, 0.0005))
            while True:
                call()
        except Thrown:
            pass

    def follow(stream_id: str, got: bytearray, endings: list[Status]) -> None:
        batch = store.read(stream_id, timeout=LIVES)
        while batch.data or not batch.status.ended:
            got += batch.data
            batch = store.read(stream_id, batch.cursor, timeout=LIVES)
        endings.append(batch.status)

    try:
        for life in range(20):
            stream_id = f"s{life}"
            lease = acquired(store, stream_id)
            got, endings = bytearray(), list[Status]()
            follower = threading.Thread(target=follow, args=(stream_id, got, endings), daemon=True)
            follower.start()
            calls: list[Callable[[], object]] = [
                lambda: store.append(lease, b"%d " % lease.offset),
                lambda: store.read(stream_id),
                lambda: store.read(stream_id, f"{lease.generation}-{lease.offset}", timeout=0.0001),
                lambda: store.renew([lease]),
            ]
            for number in range(15):
                until_thrown(calls[number % len(calls)])
                store.append(lease, b"%d " % lease.offset)
                data, batch = drain(store, stream_id)
                assert data == expected(len(data)) and batch.size == len(data) == lease.offset
            end = (lambda: store.cancel(stream_id)) if life % 2 else (lambda: store.finalize(lease, "done"))
            until_thrown(end)
            end()
            follower.join(60)
            assert endings == [Status.CANCELLED if life % 2 else Status.DONE]
            assert bytes(got) == expected(len(got)) and len(got) == lease.offset
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        store.close()
