"""Exceptions that signal handlers throw into the main thread: whatever door they come through, other streams go
on, every stream ends, and nothing hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import (
    MemoryStore,
    ProducerInterruptedError,
    ResumableStreamContext,
    ResumableStreamError,
    Status,
)

from ..support import PATIENCE, wait_until
from ..thrown import Thrown

SECONDS = 2.0


def chunks() -> Iterator[bytes]:
    return (b"x" for _ in range(50))


def blocked(hangs: threading.Event) -> Iterator[bytes]:
    hangs.wait()
    yield b""


def write(context: ResumableStreamContext, stream_id: str) -> None:
    with context.writer(stream_id) as out:
        for number in range(20):
            out.write(b"%d " % number)
            if number % 3 == 0:
                out.flush()


def follow(context: ResumableStreamContext, stream_id: str) -> None:
    for _ in context.run(stream_id, chunks):
        pass


DOORS: dict[str, Callable[[ResumableStreamContext, str], object]] = {
    "writer": write,
    "produce": lambda context, stream_id: context.produce(stream_id, chunks),
    "run": follow,
    "start": lambda context, stream_id: context.start(stream_id, chunks),
    "wait": lambda context, stream_id: context.resume(stream_id, wait=0.002),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("door", DOORS)
def test_every_stream_ends_and_others_go_on(door: str, alarms: Callable[[float], object]) -> None:
    store = MemoryStore(grace=2.0)
    context = ResumableStreamContext(store, heartbeat=0.5)
    done, beside, failed = threading.Event(), [0], list[BaseException]()

    def go_on() -> None:
        try:
            with context.writer("beside") as out:
                while not done.is_set():
                    out.write(b"x")
                    out.flush()
                    beside[0] += 1
        except BaseException as error:
            failed.append(error)

    other = threading.Thread(target=go_on, daemon=True)
    other.start()
    rng, hits, ids, longest = random.Random(door), 0, list[str](), 0.0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or hits <= 20:
        ids.append(f"s{len(ids)}")
        began = time.monotonic()
        try:
            alarms(rng.uniform(0.00002, 0.002))
            DOORS[door](context, ids[-1])
            alarms(0)
        except Thrown:
            hits += 1
        except ResumableStreamError as error:
            with contextlib.suppress(Thrown):
                alarms(0)
            assert "Thrown" not in str(error), error  # what is thrown in goes to the caller as it is
        longest = max(longest, time.monotonic() - began)
    alarms(0)
    at = beside[0]
    wait_until(lambda: beside[0] > at or failed, what="the other stream stands still")
    done.set()
    other.join(PATIENCE)
    assert failed == [] and not other.is_alive() and longest < PATIENCE
    for stream_id in ids:
        wait_until(lambda: store.status(stream_id) is not Status.STREAMING, what=f"{stream_id} does not end")
    context.close()
    assert context.stats().starting == 0
    store.close()


class Broken(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("logging is broken")


@pytest.fixture
def broken_logging() -> Iterator[None]:
    broken, logger = Broken(), logging.getLogger("resumable_sync")
    logger.addFilter(broken)
    try:
        yield
    finally:
        logger.removeFilter(broken)


@pytest.mark.usefixtures("broken_logging")
def test_a_hung_source_is_ended_where_logging_is_broken() -> None:
    store, hangs = MemoryStore(), threading.Event()
    context = ResumableStreamContext(store)
    context.start("s", lambda: blocked(hangs), idle_timeout=0.1)
    wait_until(lambda: store.status("s") is Status.ERROR)
    hangs.set()
    context.close()
    store.close()


@pytest.mark.usefixtures("broken_logging")
def test_a_hook_that_raises_where_logging_is_broken_keeps_no_other_stream_from_its_end() -> None:
    def leave(*arguments: object) -> None:
        raise SystemExit

    store, hangs = MemoryStore(), threading.Event()
    context = ResumableStreamContext(store, on_finalize=leave, on_error=leave)
    for number in range(4):
        context.start(f"s{number}", lambda: blocked(hangs))
    context.close(1.0)
    assert {store.status(f"s{number}") for number in range(4)} == {Status.INTERRUPTED}
    hangs.set()
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("way", ["close", "leave", "raise", "flush", "fail"])
def test_a_forked_child_leaves_a_writer_to_its_parent(way: str) -> None:
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        out = context.writer("s").__enter__()
        out.write(b"first ")
        child = os.fork()
        if child == 0:
            with contextlib.suppress(ProducerInterruptedError):
                if way == "close":
                    out.close()
                elif way == "leave":
                    out.__exit__(None, None, None)
                elif way == "raise":
                    out.__exit__(SystemExit, SystemExit(), None)
                elif way == "flush":
                    out.flush()
                else:
                    out.fail("of the child")
            os._exit(0)
        wait_until(lambda: os.waitpid(child, os.WNOHANG)[0], what="the child hangs")
        out.write(b"second")
        out.close()
        assert b"".join(context.require_resume("s")) == b"first second"
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_hook_that_forks_makes_no_second_producer() -> None:
    children = list[int]()

    def fork(*arguments: object) -> None:
        children.append(os.fork())

    store = MemoryStore()
    with ResumableStreamContext(store, on_acquire=fork) as context:
        try:
            elected = context.start("s", chunks)
        except ProducerInterruptedError:
            os._exit(0)
        if children[0] == 0:
            os._exit(1)
        assert elected and os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        assert b"".join(context.require_resume("s")) == b"x" * 50
    store.close()


@pytest.mark.parametrize("hook", ["on_acquire", "on_append", "on_finalize"])
def test_what_is_thrown_into_a_hook_reaches_the_caller_of_a_writer(
    hook: str, alarms: Callable[[float], object]
) -> None:
    def hang(*arguments: object) -> None:
        alarms(0.01)
        time.sleep(PATIENCE)

    store = MemoryStore(grace=1.0)
    hooks: dict[str, Any] = {hook: hang}
    context = ResumableStreamContext(store, **hooks)
    with pytest.raises(Thrown), context.writer("s") as out:
        out.write(b"x")
        out.flush()
    wait_until(lambda: store.status("s") is not Status.STREAMING)
    context.close()
    store.close()
