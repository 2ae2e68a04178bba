"""The doors of a context beside `run`: start, produce, batches that read back, waiting, restarting, limits."""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import (
    LimitExceededError,
    MemoryStore,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamContext,
    Status,
    Store,
    StoreUnavailableError,
    StreamLostError,
    StreamNotFoundError,
    current_producer,
)

from ..backends import Backend
from ..support import PATIENCE, wait_until

TIMEOUT = 30.0


@pytest.fixture
def context(store: Store) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as made:
        yield made


class Fault(Exception):
    """Of a source."""


def failing() -> Iterator[bytes]:
    yield b"so far"
    raise Fault("of the source")


def test_start_says_whether_it_was_elected(context: ResumableStreamContext) -> None:
    assert context.start("s", lambda: [b"one"])
    assert not context.start("s", lambda: [b"two"])
    assert b"".join(context.require_resume("s")) == b"one"
    assert not context.start("s", lambda: [b"three"])


def test_produce_runs_in_the_calling_thread_to_the_end(context: ResumableStreamContext) -> None:
    threads = []

    def source() -> Iterator[bytes]:
        threads.append(threading.current_thread())
        assert current_producer().stream_id == "s"
        yield b"whole"

    assert context.produce("s", source) is Status.DONE
    assert threads == [threading.current_thread()]
    assert context.store.read("s").data == b"whole" and context.status("s") is Status.DONE
    assert context.produce("s", source) is Status.DONE and len(threads) == 1  # stored by an earlier run
    with pytest.raises(LookupError):
        current_producer()


def test_produce_hands_the_source_s_exception_on_once_it_is_stored(
    context: ResumableStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Fault):
        context.produce("s", failing)
    info = context.info("s")
    assert info is not None and info.status is Status.ERROR and info.error == "Fault: of the source"
    assert not [record for record in caplog.records if record.levelno > logging.INFO]  # the caller has it
    assert context.produce("s", failing) is Status.ERROR  # as an earlier run stored it


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_a_process_that_is_told_to_end_while_it_produces_says_so(
    context: ResumableStreamContext, leaving: type[BaseException]
) -> None:
    def source() -> Iterator[bytes]:
        yield b"so far"
        raise leaving

    with pytest.raises(leaving):
        context.produce("s", source)
    assert context.status("s") is Status.INTERRUPTED and context.store.read("s").data == b"so far"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_the_source_forks_is_told_whose_stream_it_is(context: ResumableStreamContext) -> None:
    def source() -> Iterator[bytes]:
        yield b"the parent's"
        if os.fork() == 0:
            yield b"the child's"
        else:
            assert os.wait()[1] == 0

    parent = os.getpid()
    try:
        status = context.produce("s", source)
    except ProducerInterruptedError:
        if os.getpid() != parent:
            os._exit(0)
        raise
    if os.getpid() != parent:
        os._exit(1)
    assert status is Status.DONE and context.store.read("s").data == b"the parent's"


def test_produce_beside_another_producer(context: ResumableStreamContext) -> None:
    free = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"x"
        free.wait(TIMEOUT)

    context.start("s", source)
    assert context.produce("s", lambda: [b"never"]) is Status.STREAMING
    free.set()


@pytest.mark.parametrize(
    "end, expected",
    [
        (lambda context, other: other.cancel("s"), Status.CANCELLED),
        (lambda context, other: other.delete("s"), StreamLostError),
        (lambda context, other: context.close(), ProducerInterruptedError),
    ],
)
def test_produce_when_the_stream_is_ended_from_outside(
    store: Store, end: Callable[[ResumableStreamContext, ResumableStreamContext], object], expected: Any
) -> None:
    begun = threading.Event()

    def source() -> Iterator[bytes]:
        while True:
            yield b"x"
            begun.set()
            current_producer().cancelled.wait(0.005)

    with ResumableStreamContext(store, heartbeat=0.1) as context, ResumableStreamContext(store) as other:

        def meddle() -> None:
            assert begun.wait(TIMEOUT)
            end(context, other)

        thread = threading.Thread(target=meddle)
        thread.start()
        if isinstance(expected, Status):
            assert context.produce("s", source) is expected
        else:
            with pytest.raises(expected):
                context.produce("s", source)
        thread.join(PATIENCE)


def test_what_is_stored_is_read_back_without_waiting(context: ResumableStreamContext) -> None:
    free = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"so"
        yield b" far"
        free.wait(TIMEOUT)

    context.start("s", source)
    wait_until(lambda: context.store.read("s").size == 6)
    found = list(context.batches("s", live=False))
    assert b"".join(batch.data for batch in found) == b"so far"
    assert found[-1].status is Status.STREAMING and found[-1].offset == found[-1].size == 6
    (rest,) = context.batches("s", found[-1].cursor, live=False)
    assert rest.data == b"" and rest.status is Status.STREAMING
    context.cancel("s")
    free.set()
    (rest,) = context.batches("s", found[-1].cursor, live=False)  # no ending is raised
    assert rest.data == b"" and rest.status is Status.CANCELLED


def test_reading_back_in_pages(store: Store) -> None:
    with ResumableStreamContext(store, read_bytes=10) as context:
        assert context.produce("s", lambda: [b"%03d" % number for number in range(100)]) is Status.DONE
        found = list(context.batches("s", live=False))
        assert b"".join(batch.data for batch in found) == b"".join(b"%03d" % number for number in range(100))
        assert len(found) > 10 and found[-1].status is Status.DONE


def test_a_viewer_that_comes_before_the_producer_waits(backend: Backend, store: Store) -> None:
    elsewhere = backend.second(store) if backend.shared else store
    with ResumableStreamContext(store) as context, ResumableStreamContext(elsewhere) as worker:
        assert context.resume("s") is None and context.resume("s", wait=0.05) is None
        with pytest.raises(StreamNotFoundError):
            context.require_resume("s", wait=0.01)
        got: list[bytes] = []

        def view() -> None:
            got.append(b"".join(context.require_resume("s", wait=TIMEOUT)))

        threads = [threading.Thread(target=view) for _ in range(5)]
        for thread in threads:
            thread.start()
        awaited = context._running.get().arrivals._awaited
        wait_until(lambda: "s" in awaited and len(awaited["s"].waiting) == 5)
        worker.start("s", lambda: [b"whole"])
        for thread in threads:
            thread.join(PATIENCE)
        assert got == [b"whole"] * 5 and not context._running.get().arrivals._awaited
        (entry,) = context.entries("s", wait=1.0)
        assert entry.chunk == b"whole"
    if elsewhere is not store:
        elsewhere.close()


def test_many_that_wait_ask_the_store_as_one() -> None:
    class Counting(MemoryStore):
        asked = 0

        def status(self, stream_id: str) -> Status:
            self.asked += 1
            return super().status(stream_id)

    store = Counting()
    with ResumableStreamContext(store) as context:
        began = time.monotonic()
        threads = [threading.Thread(target=lambda: context.resume("s", wait=1.0), daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        seconds = time.monotonic() - began
    assert 1 <= store.asked <= seconds / 0.15 + 2
    store.close()


def test_a_cursor_of_a_stream_that_is_gone_is_not_waited_for(context: ResumableStreamContext) -> None:
    context.produce("s", lambda: [b"x"])
    cursor = context.store.read("s").cursor
    context.delete("s")
    began = time.monotonic()
    assert context.resume("s", cursor, wait=TIMEOUT) is None
    assert time.monotonic() - began < TIMEOUT


def test_closing_ends_a_wait() -> None:
    store = MemoryStore()
    context = ResumableStreamContext(store)
    refused = threading.Event()

    def view() -> None:
        with pytest.raises(StoreUnavailableError):  # not "missing": another process may know the stream
            context.resume("s", wait=PATIENCE)
        refused.set()

    thread = threading.Thread(target=view)
    thread.start()
    wait_until(lambda: "s" in context._running.get().arrivals._awaited)
    context.close()
    assert refused.wait(TIMEOUT)
    thread.join(PATIENCE)
    store.close()


@pytest.mark.parametrize("wait", [-1.0, float("nan"), float("inf")])
def test_a_wait_that_is_none(wait: float) -> None:
    with ResumableStreamContext(MemoryStore()) as context:
        with pytest.raises(ValueError, match="wait"):
            context.resume("s", wait=wait)


def test_a_stream_that_failed_begins_anew(context: ResumableStreamContext) -> None:
    for stored in (b"one", b"two"):

        def source(stored: bytes = stored) -> Iterator[bytes]:
            yield stored
            raise Fault

        viewer = context.run("s", source, restart={"error", "interrupted"})
        with pytest.raises(ProducerFailedError):
            list(viewer)
        assert context.store.read("s").data == stored
    assert not context.start("s", lambda: [b"three"])
    assert not context.start("s", lambda: [b"three"], restart=["done"])
    with pytest.raises(ValueError, match="restart"):
        context.start("s", lambda: [b"three"], restart="error")
    assert context.start("s", lambda: [b"three"], restart=[Status.ERROR])
    assert b"".join(context.require_resume("s")) == b"three"


def test_a_source_that_hangs_ends_as_an_error(context: ResumableStreamContext) -> None:
    told, free = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def source() -> Iterator[bytes]:
        current_producer().on_cancel(told.set)
        for _ in range(3):
            yield b"x"
        free.wait(TIMEOUT)

    with ResumableStreamContext(context.store, on_error=lambda _, error: failures.append(error)) as watching:
        viewer = watching.run("s", source, idle_timeout=0.3)
        with pytest.raises(ProducerFailedError, match="0.3 s"):
            list(viewer)
        assert told.wait(TIMEOUT) and watching.store.read("s").data == b"xxx"
        wait_until(lambda: failures)
        assert isinstance(failures[0], TimeoutError)
        free.set()
    assert context.status("s") is Status.ERROR


def test_a_slow_store_is_not_the_source_s_silence() -> None:
    class Slow(MemoryStore):
        def append_many(self, batches: Any, *rest: Any) -> Any:
            time.sleep(0.5)
            return super().append_many(batches, *rest)

    store = Slow()
    with ResumableStreamContext(store) as context:
        assert context.produce("s", lambda: [b"x"] * 3, idle_timeout=0.25) is Status.DONE
    store.close()


@pytest.mark.parametrize("idle_timeout", [0, -1.0, float("nan"), float("inf")])
def test_an_idle_timeout_that_is_none(idle_timeout: float) -> None:
    with ResumableStreamContext(MemoryStore()) as context:
        with pytest.raises(ValueError, match="idle_timeout"):
            context.run("s", lambda: [b"x"], idle_timeout=idle_timeout)
        assert context.status("s") is Status.MISSING


def test_only_so_many_producers_at_once(store: Store) -> None:
    free = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"x"
        free.wait(TIMEOUT)

    with ResumableStreamContext(store, max_producers=2) as context:
        context.start("a", source)
        context.start("b", source)
        with pytest.raises(LimitExceededError) as raised:
            context.run("c", source)
        assert raised.value.limit == "max_producers" and context.status("c") is Status.MISSING
        assert next(context.run("a", source)) == b"x"  # to follow needs no room
        assert not context.start("b", source)
        free.set()
        for stream_id in "ab":
            assert b"".join(context.require_resume(stream_id)) == b"x"
        wait_until(lambda: not context._running.get().producers)
        assert b"".join(context.run("c", source)) == b"x"
    with pytest.raises(ValueError):
        ResumableStreamContext(store, max_producers=0)


class AsyncCallable:
    async def __call__(self) -> Any:
        return None


async def coroutine() -> list[bytes]:
    return [b"x"]


async def asynchronous() -> Any:
    yield b"x"


@pytest.mark.parametrize(
    "mistake",
    [
        [b"x"],
        b"bytes",
        "text",
        None,
        failing(),
        coroutine,
        asynchronous,
        functools.partial(coroutine),
        functools.partial(functools.partial(asynchronous)),
        functools.cache(coroutine),
        functools.lru_cache(maxsize=1)(functools.partial(asynchronous)),
        staticmethod(coroutine),
        AsyncCallable(),
    ],
    ids=lambda mistake: type(mistake).__name__,
)
def test_what_can_never_be_a_source_is_refused_at_the_call(mistake: Any) -> None:
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        for door in (context.run, context.start, context.produce):
            with pytest.raises(TypeError, match="make_stream"):
                door("s", mistake)
            assert store.status("s") is Status.MISSING
    store.close()


@pytest.mark.parametrize(
    "source, hint",
    [
        (lambda: [1], "bytes or str, not int"),
        (lambda: [{"a": 1}], "json.dumps"),
        (lambda: [None], "NoneType"),
        (lambda: None, "returned None"),
        (lambda: b"bytes", r"\[data\]"),
        (lambda: 7, "int"),
        (lambda: coroutine(), "from_async"),
        (lambda: asynchronous(), "from_async"),
        (failing, "of the source"),
    ],
)
def test_a_failing_source_is_logged_once_with_its_traceback(
    source: Any, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        viewer = context.run("the-stream", source)
        with pytest.raises(ProducerFailedError) as raised:
            list(viewer)
        assert isinstance(raised.value.__cause__, (TypeError, Fault))  # in the process that produced
        with pytest.raises(ProducerFailedError) as later:
            list(context.require_resume("the-stream"))
        assert later.value.__cause__ is raised.value.__cause__
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR and "the-stream" in record.getMessage() and record.exc_info
    assert re.search(hint, str(record.exc_info[1]))
    store.close()


def test_a_hook_for_errors_takes_the_place_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    store, errors = MemoryStore(), list[BaseException]()
    with ResumableStreamContext(store, on_error=lambda _, error: errors.append(error)) as context:
        with pytest.raises(ProducerFailedError):
            list(context.run("s", failing))
        wait_until(lambda: errors)
    assert isinstance(errors[0], Fault)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    store.close()


def test_a_refused_door_starts_nothing(store: Store) -> None:
    context = ResumableStreamContext(store)
    context.close()
    for door in (
        lambda: context.run("s", lambda: [b"x"]),
        lambda: context.start("s", lambda: [b"x"]),
        lambda: context.produce("s", lambda: [b"x"]),
        lambda: context.writer("s").__enter__(),
        lambda: context.resume("s"),
    ):
        with pytest.raises(StoreUnavailableError):
            door()
    assert store.status("s") is Status.MISSING


@pytest.mark.parametrize("hook", ["on_acquire", "on_append", "on_finalize", "on_error", "recover"])
def test_what_can_never_be_called_is_refused_at_once(hook: str) -> None:
    async def asynchronous(*arguments: object) -> None: ...

    wrong: Any
    for wrong in 5, "name", [], asynchronous:
        with pytest.raises(TypeError, match=hook):
            ResumableStreamContext(MemoryStore(), **{hook: wrong})
