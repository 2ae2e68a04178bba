"""Exceptions that signal handlers throw in: no thread hangs for one, and nobody is counted who has gone."""

from __future__ import annotations

import functools
import gc
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from resumable_sync import (
    MemoryStore,
    ProducerFailedError,
    ResumableStreamContext,
    ResumableStreamError,
    Status,
    current_producer,
)
from resumable_sync.context import _FAILURES_KEPT
from resumable_sync.interrupts import Alarm, Event, Roll, Waiters, was_thrown_in
from resumable_sync.wsgi import ViewerCap

from ..support import PATIENCE, wait_until
from ..thrown import Thrown, in_thread


class TestEvent:
    def test_all_that_wait_go_on(self) -> None:
        event = Event()
        waits = [in_thread(lambda: event.wait(PATIENCE)) for _ in range(5)]
        assert isinstance(event, threading.Event) and not event.is_set() and not event.wait(0.01)
        event.set()
        event.set()
        for wait in waits:
            wait.join(PATIENCE)
            assert not wait.is_alive()
        assert event.is_set() and event.wait() and event.wait(0)

    def test_a_cleared_one_is_waited_for_again(self) -> None:
        event = Event()
        for _ in range(3):
            event.set()
            assert event.wait(0)
            event.clear()
            assert not event.is_set() and not event.wait(0.01)

    @pytest.mark.parametrize("left", ["not opened", "taken"])
    def test_what_a_broken_call_left_shut_is_found(self, left: str) -> None:
        event = Event()
        wait = in_thread(event.wait)
        event._on = True  # as far as a `set`, or a `wait` that has passed the gate, had come
        if left == "taken":
            event._alarm.ring()
            event._alarm._gate.acquire()
        wait.join(PATIENCE)
        assert not wait.is_alive()


def test_those_that_wait_for_a_change_are_woken_by_the_next_one() -> None:
    lock, waiters, alarm = threading.Lock(), Waiters(), Alarm()
    for _ in range(2):
        with lock:
            waiters.expect(alarm)
            waiters.expect(alarm)
        began = time.monotonic()
        wait = in_thread(lambda: alarm.wait(PATIENCE))
        with lock:
            waiters.wake_all()
            waiters.wake_all()
        wait.join(PATIENCE)
        assert time.monotonic() - began < PATIENCE


class Member:
    pass


def test_a_roll_forgets_those_that_have_gone() -> None:
    roll, here, gone = Roll(), Member(), Member()
    for member in here, gone, here:
        roll.enter(member)
    assert len(roll) == 2 and here in roll and gone in roll
    gone.itself = gone  # type: ignore[attr-defined]  # as a traceback keeps a frame: collected later
    del gone, member
    gc.collect()
    assert len(roll) == 1 and here in roll
    roll.leave(here)
    roll.leave(here)
    assert not roll and here not in roll


def test_a_place_in_a_roll_is_taken_again_and_again() -> None:
    class Member:
        pass

    roll, member = Roll(), Member()
    place, unused = roll.place(member), roll.place(member)
    for _ in range(2):
        roll.occupy(place)
        assert member in roll and len(roll) == 1
        roll.vacate(place)
        roll.vacate(place)
        assert member not in roll
    roll.occupy(place)
    del member
    gc.collect()
    assert not roll and place() is None and unused() is None  # and nothing was raised, as pytest would tell


def test_an_exception_thrown_in_anywhere(
    alarms: Callable[[float], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into calls of a context whose producers and viewers wait for each other: afterwards it works as before, its
    account holds nobody, and it closes."""
    # What pytest collects of these would keep the frames, and all that is in them.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    monkeypatch.setattr(threading, "excepthook", lambda raised: None)
    monkeypatch.setattr(logging.getLogger("resumable_sync"), "disabled", True)
    context = ResumableStreamContext(MemoryStore(grace=2.0), max_producers=50)
    cap = ViewerCap(1)

    def source() -> Iterator[bytes]:
        producer = current_producer()
        for _ in range(20):
            yield b"some bytes"
            if producer.cancelled.wait(0.001):
                return

    def fails() -> Iterator[bytes]:
        raise ValueError("as it is meant to")

    def use(number: int) -> None:
        stream_id = f"s{number}"
        place = cap.enter()
        if number % 5 == 0:
            context.produce(stream_id, source)
        elif number % 5 == 1:
            with context.writer(stream_id) as out:
                for _ in range(number % 7):
                    out.write(b"some bytes")
        else:
            viewer = context.run(stream_id, source)
            for _ in range(number % 7):
                next(viewer, None)
        if number % 3 == 0:
            context.cancel(stream_id)
        context.resume(f"missing-{number}", wait=0.002)
        if place is not None:
            place.release()

    rng, hits, number = random.Random(1), 0, 0
    until = time.monotonic() + 3.0
    while time.monotonic() < until or hits < 500:
        number += 1
        try:
            try:
                alarms(rng.uniform(0.00002, 0.004))
                use(number)
            finally:
                alarms(0)
        except Thrown:
            hits += 1
        except ResumableStreamError:
            pass
    for each in range(_FAILURES_KEPT):  # those kept for late viewers, with their tracebacks, make room for these
        with pytest.raises(ProducerFailedError):
            list(context.run(f"fails-{each}", fails) or ())
    gc.collect()
    running = context._running.get()
    assert cap.viewers == 0 and len(running.starting) == 0 and running.arrivals.waiting() == 0
    assert len(running.reads.following) == len(running.reads.viewers) == 0
    ended = in_thread(lambda: [context.cancel(f"s{each}") for each in range(1, number + 1)])
    ended.join(PATIENCE)
    wait_until(lambda: context.stats().producers == 0)
    viewer = context.run("last", source)
    assert viewer is not None and b"".join(viewer) == b"some bytes" * 20
    closing = in_thread(context.close)
    closing.join(PATIENCE)
    assert not ended.is_alive() and not closing.is_alive()


@pytest.mark.parametrize("moment", ["before it has a thread", "before it has begun"])
def test_a_producer_that_was_broken_off_is_none(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps, where no `except` can end its stream: its lease runs out."""
    store = MemoryStore(grace=0.3)
    context = ResumableStreamContext(store)

    def throw(*arguments: object) -> None:
        raise Thrown

    step = "_launch_or_give_up" if moment == "before it has a thread" else "_begin"
    with monkeypatch.context() as patch, pytest.raises(Thrown):
        patch.setattr(context, step, throw)
        context.run("s", lambda: [b"x"])
    wait_until(lambda: store.status("s") is Status.INTERRUPTED)
    wait_until(lambda: context.stats().producers == 0)
    assert context.stats().starting == 0
    assert context.close()


class Handler:
    def __call__(self, *arguments: object) -> None:
        raise Thrown

    def method(self, *arguments: object) -> None:
        self(*arguments)


def no_handler() -> None:
    raise Thrown


def once(number: int, frame: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise Thrown


def with_number(number: int) -> None:
    raise Thrown


@pytest.mark.parametrize(
    "handler",
    [Handler(), Handler().method, functools.partial(Handler(), "more"), once, functools.lru_cache(once)],
)
def test_what_a_handler_raises_is_told_from_a_fault(
    handler: Callable[..., None], alarms: Callable[[float], object]
) -> None:
    signal.signal(signal.SIGALRM, handler)
    with pytest.raises(Thrown) as thrown:
        alarms(0.01)
        Alarm().wait(PATIENCE)
    assert was_thrown_in(thrown.value)
    with pytest.raises(Thrown) as raised:
        no_handler()
    assert not was_thrown_in(raised.value)
    with pytest.raises(Thrown) as raised:
        with_number(1)
    assert not was_thrown_in(raised.value)


def test_a_writer_that_is_dropped_after_a_cancel_leaves_nothing() -> None:
    with ResumableStreamContext(MemoryStore()) as context:
        for number in range(3):
            writer = context.writer(f"s{number}").__enter__()
            context.cancel(f"s{number}")
            wait_until(writer.cancelled.is_set)
            del writer
            gc.collect()
        assert context.start("last", lambda: [b"x"])
        assert len(context._running.get().producers) <= 1
