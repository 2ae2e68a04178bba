"""An asynchronous iterable as a source: in its own loop, cancelled while it awaits, closed in every case."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import (
    MemoryStore,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamContext,
    Status,
    StoreUnavailableError,
    StreamCancelledError,
    current_producer,
)
from resumable_sync.async_source import from_async

from ..support import PATIENCE, Process, wait_until


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    made = MemoryStore()
    yield made
    made.close()


@pytest.fixture
def context(store: MemoryStore) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as made:
        yield made


class Fault(Exception):
    """Of a source."""


async def three() -> AsyncIterator[bytes | str]:
    yield b"one "
    await asyncio.sleep(0)
    yield "zwö"
    yield b" three"


class Iterable:
    """No generator: it has no `aclose`."""

    def __init__(self) -> None:
        self._left = ["one ", b"zw\xc3\xb6", " three"]

    def __aiter__(self) -> Iterable:
        return self

    async def __anext__(self) -> bytes | str:
        await asyncio.sleep(0)
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)  # type: ignore[return-value]


async def later() -> AsyncIterator[bytes | str]:
    await asyncio.sleep(0)
    return three()


class Agent:
    """A method, and an object that can be called."""

    async def stream(self) -> AsyncIterator[bytes | str]:
        async for chunk in three():
            yield chunk

    def __call__(self) -> AsyncIterator[bytes | str]:
        return self.stream()


@pytest.mark.parametrize(
    "make", [three, Iterable, lambda: Iterable(), later, lambda: later(), Agent().stream, Agent()]
)
def test_what_a_source_may_be(context: ResumableStreamContext, make: Any) -> None:
    assert b"".join(context.run("run", from_async(make))).decode() == "one zwö three"
    assert context.produce("produce", from_async(make)) is Status.DONE
    assert [entry.chunk for entry in context.entries("produce")] == [b"one ", "zwö".encode(), b" three"]


def test_an_empty_one_is_done(context: ResumableStreamContext) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for chunk in list[bytes]():
            yield chunk

    assert context.produce("s", from_async(nothing)) is Status.DONE


user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


def test_contextvars_of_the_caller_and_the_producer(context: ResumableStreamContext) -> None:
    async def source() -> AsyncIterator[str]:
        yield user.get()
        yield await asyncio.to_thread(lambda: current_producer().stream_id)
        await asyncio.create_task(asyncio.sleep(0))
        yield current_producer().stream_id

    def calls() -> bytes:
        user.set("ann ")
        return b"".join(context.run("s-", from_async(source)))

    assert contextvars.copy_context().run(calls) == b"ann s-s-"


def test_what_is_entered_before_a_chunk_is_left_after_it(context: ResumableStreamContext) -> None:
    """Tracers reset their contextvars, and timeouts and task groups want the task that entered them."""

    async def source() -> AsyncIterator[str]:
        token = user.set("own")
        task = asyncio.current_task()
        async with asyncio.Lock():
            yield user.get()
            assert asyncio.current_task() is task
            yield user.get()
        user.reset(token)

    assert context.produce("s", from_async(source)) is Status.DONE


def test_make_is_called_in_the_running_loop(context: ResumableStreamContext) -> None:
    def make() -> AsyncIterator[bytes | str]:
        loop = asyncio.get_running_loop()

        async def source() -> AsyncIterator[bytes | str]:
            assert asyncio.get_running_loop() is loop
            yield b"x"

        return source()

    assert context.produce("s", from_async(make)) is Status.DONE


def test_an_exception_ends_the_stream_once_everything_is_cleaned_up(context: ResumableStreamContext) -> None:
    steps = []

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"so far"
            await asyncio.sleep(0)
            raise Fault("of the source")
        finally:
            await asyncio.sleep(0)
            steps.append("finally")

    with pytest.raises(Fault):
        context.produce("s", from_async(source))
    assert steps == ["finally"]
    info = context.info("s")
    assert info is not None and info.status is Status.ERROR and info.error == "Fault: of the source"
    with pytest.raises(ProducerFailedError):
        list(context.run("t", from_async(source)))


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_raised_in_a_source(
    context: ResumableStreamContext, leaving: type[BaseException]
) -> None:
    steps = list[str]()

    async def source() -> AsyncIterator[bytes]:
        asyncio.create_task(ends(steps.append))
        try:
            yield b"so far"
            raise leaving
        finally:
            steps.append("finally")

    with pytest.raises(leaving):
        context.produce("s", from_async(source))
    assert steps == ["finally", "ended"] and context.status("s") is Status.INTERRUPTED


async def ends(report: Callable[[str], object]) -> None:
    """A task that says when it was cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        report("ended")


class Waiting:
    """A source that awaits for ever after its first chunk, and keeps what happened to it."""

    def __init__(self) -> None:
        self.awaiting, self.ended = threading.Event(), threading.Event()
        self.raised: BaseException | None = None

    async def __call__(self) -> Any:
        return self.source()

    async def source(self) -> AsyncIterator[bytes]:
        try:
            yield b"so far"
            asyncio.get_running_loop().call_soon(self.awaiting.set)
            await asyncio.Event().wait()
        except BaseException as raised:
            self.raised = raised
            raise
        finally:
            await asyncio.sleep(0)
            self.ended.set()


def test_a_cancel_reaches_what_is_awaited_at_once() -> None:
    """It waits for no heartbeat."""
    source = Waiting()
    with (
        MemoryStore(grace=30 * PATIENCE) as store,
        ResumableStreamContext(store, heartbeat=10 * PATIENCE) as context,
    ):
        viewer = context.run("s", from_async(source))
        assert source.awaiting.wait(PATIENCE)
        assert context.cancel("s")
        assert source.ended.wait(PATIENCE) and isinstance(source.raised, asyncio.CancelledError)
        with pytest.raises(StreamCancelledError):
            list(viewer)
        assert context.status("s") is Status.CANCELLED and store.read("s").data == b"so far"


def test_a_cancel_elsewhere_is_learnt_within_a_heartbeat(store: MemoryStore) -> None:
    source = Waiting()
    with ResumableStreamContext(store, heartbeat=0.05) as context:
        context.start("s", from_async(source))
        assert source.awaiting.wait(PATIENCE)
        store.cancel("s")
        assert source.ended.wait(PATIENCE) and isinstance(source.raised, asyncio.CancelledError)


def test_produce_is_cancelled(context: ResumableStreamContext) -> None:
    source, statuses = Waiting(), list[Status]()
    thread = threading.Thread(target=lambda: statuses.append(context.produce("s", from_async(source))))
    thread.start()
    assert source.awaiting.wait(PATIENCE)
    context.cancel("s")
    thread.join(PATIENCE)
    assert statuses == [Status.CANCELLED] and source.ended.is_set()


def test_a_source_that_awaits_before_its_first_chunk_is_cancelled(context: ResumableStreamContext) -> None:
    awaiting = threading.Event()
    raised = threading.Event()

    async def make() -> AsyncIterator[bytes | str]:
        asyncio.get_running_loop().call_soon(awaiting.set)
        try:
            await asyncio.Event().wait()
        finally:
            raised.set()
        return three()

    context.start("s", from_async(make))
    assert awaiting.wait(PATIENCE)
    context.cancel("s")
    assert raised.wait(PATIENCE)
    wait_until(lambda: not context._running.get().producers)


def test_closing_the_context_ends_what_awaits(store: MemoryStore) -> None:
    source = Waiting()
    context = ResumableStreamContext(store)
    viewer = context.run("s", from_async(source))
    assert source.awaiting.wait(PATIENCE)
    assert not context.close(PATIENCE)
    assert source.ended.is_set() and context.status("s") is Status.INTERRUPTED
    with pytest.raises((ProducerInterruptedError, StoreUnavailableError)):
        list(viewer)


def test_a_hung_source_is_cancelled_by_its_idle_timeout(context: ResumableStreamContext) -> None:
    source = Waiting()
    with pytest.raises(TimeoutError):
        context.produce("s", from_async(source), idle_timeout=0.1)
    assert isinstance(source.raised, asyncio.CancelledError) and source.ended.is_set()
    assert context.status("s") is Status.ERROR


@pytest.mark.parametrize("then", ["yields", "returns", "raises"])
def test_a_source_that_swallows_the_cancellation(context: ResumableStreamContext, then: str) -> None:
    awaiting, ended = threading.Event(), threading.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"so far"
            try:
                asyncio.get_running_loop().call_soon(awaiting.set)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            if then == "raises":
                raise Fault
            while then == "yields":
                yield b"never"
        finally:
            ended.set()

    context.start("s", from_async(source))
    assert awaiting.wait(PATIENCE)
    context.cancel("s")
    assert ended.wait(PATIENCE)
    wait_until(lambda: not context._running.get().producers)
    assert context.status("s") is Status.CANCELLED and context.store.read("s").data == b"so far"


def test_what_cleans_up_after_a_cancel_is_left_in_peace(context: ResumableStreamContext) -> None:
    """A cancel that is told again, as by the close of the context, does not break it."""
    awaiting, cleaning, goes_on = threading.Event(), threading.Event(), threading.Event()
    steps = []

    async def source() -> AsyncIterator[bytes]:
        yield b"so far"
        try:
            awaiting.set()
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            while not goes_on.is_set():
                await asyncio.sleep(0.002)
            steps.append("clean")

    context.start("s", from_async(source))
    assert awaiting.wait(PATIENCE)
    context.cancel("s")
    assert cleaning.wait(PATIENCE)
    closing = threading.Thread(target=context.close)
    closing.start()
    wait_until(lambda: context.closed)
    goes_on.set()
    closing.join(PATIENCE)
    wait_until(lambda: steps)


def test_a_source_that_is_cancelled_from_within_has_failed(context: ResumableStreamContext) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"so far"
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="from within"):
        context.produce("s", from_async(source))
    assert context.status("s") is Status.ERROR


def test_a_source_between_chunks_is_closed(context: ResumableStreamContext) -> None:
    raised: list[BaseException] = []

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        except BaseException as each:
            raised.append(each)
            await asyncio.sleep(0)
            raise

    context.start("s", from_async(source))
    wait_until(lambda: context.store.read("s").size)
    context.cancel("s")
    wait_until(lambda: not context._running.get().producers)
    assert [type(each) for each in raised] == [GeneratorExit]


def test_tasks_and_generators_left_behind_are_ended(context: ResumableStreamContext) -> None:
    steps: list[str] = []

    async def inner() -> AsyncIterator[bytes]:
        try:
            yield b"x"
        finally:
            steps.append("closed")

    async def source() -> AsyncIterator[bytes]:
        asyncio.get_running_loop().create_task(ends(steps.append))
        left = inner()
        yield await left.__anext__()
        source.left = left  # type: ignore[attr-defined]

    assert context.produce("s", from_async(source)) is Status.DONE
    assert sorted(steps) == ["closed", "ended"]


def test_a_task_that_does_not_end_is_reported_and_left(
    context: ResumableStreamContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("resumable_sync.async_source._LEFT_SECONDS", 0.05)

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    async def source() -> AsyncIterator[bytes]:
        source.task = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        yield b"x"

    with caplog.at_level(logging.WARNING):
        assert context.produce("s", from_async(source)) is Status.DONE
    assert "stubborn" in caplog.text
    source.task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_thread_of_the_loop_does_not_delay_the_end(context: ResumableStreamContext) -> None:
    began, free = threading.Event(), threading.Event()

    def blocks() -> None:
        began.set()
        free.wait(PATIENCE)

    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.to_thread(blocks)

    context.start("s", from_async(source))
    assert began.wait(PATIENCE)
    context.cancel("s")
    wait_until(lambda: not context._running.get().producers, 4.0)  # not for as long as tasks are waited for
    assert not free.is_set()
    free.set()


def test_a_close_that_fails_hides_nothing(
    context: ResumableStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Iterable):
        async def aclose(self) -> None:
            raise Fault("in close")

    assert context.produce("s", from_async(Failing)) is Status.DONE
    assert "in close" in caplog.text


def test_produce_where_a_loop_runs(context: ResumableStreamContext) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="asyncio.to_thread"):
            context.produce("s", from_async(three))
        assert context.status("s") is Status.ERROR
        assert await asyncio.to_thread(context.produce, "t", from_async(three)) is Status.DONE
        assert context.start("u", from_async(three))

    asyncio.run(main())
    assert b"".join(context.require_resume("u")).decode() == "one zwö three"


async def returns_nothing() -> Any:
    return None


async def yields_numbers() -> AsyncIterator[Any]:
    yield 7


@pytest.mark.parametrize(
    "make, hint",
    [
        (lambda: [b"x"], "list, not an async iterable .* needs no from_async"),
        (lambda: (b"x" for _ in "x"), "generator, not an async iterable .* needs no from_async"),
        (lambda: None, "is a return missing"),
        (returns_nothing, "is a return missing"),
        (lambda: 7, "int, not an async iterable"),
        (lambda: three, "function, not an async iterable"),
        (yields_numbers, "bytes or str, not int"),
    ],
)
def test_what_is_no_source(context: ResumableStreamContext, make: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        context.produce("s", from_async(make))
    assert context.status("s") is Status.ERROR


@pytest.mark.parametrize("mistake", [three(), Iterable(), [b"x"], None])
def test_what_is_no_function(mistake: Any) -> None:
    with pytest.raises(TypeError, match="without calling it"):
        from_async(mistake)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_many_streams_leave_nothing(context: ResumableStreamContext) -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield b"x"
        raise Fault

    async def busy() -> AsyncIterator[bytes]:
        asyncio.create_task(ends(lambda _: None))
        yield (await asyncio.to_thread(lambda: b"x"))

    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    def round_of(name: str) -> None:
        for number, make in enumerate([three, fails, busy, never, lambda: 7] * 8):
            context.start(f"{name}-{number}", from_async(make))  # type: ignore[arg-type]
        for number in range(3, 40, 5):
            wait_until(lambda number=number: context.store.read(f"{name}-{number}").size)  # type: ignore[misc]
            context.cancel(f"{name}-{number}")
        wait_until(lambda: not context._running.get().producers)

    logging.getLogger("resumable_sync").disabled = True
    try:
        round_of("first")  # whatever is made once
        wait_until(lambda: len(producing()) == 0)
        before, threads = descriptors(), threading.active_count()
        round_of("second")
        wait_until(lambda: descriptors() <= before and threading.active_count() <= threads)
    finally:
        logging.getLogger("resumable_sync").disabled = False
    loops = [each for each in gc.get_objects() if isinstance(each, asyncio.BaseEventLoop)]
    assert not [each for each in loops if not each.is_closed()]


def producing() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(("resumable-sync-producer", "asyncio"))]


def test_a_slow_store_holds_the_source_back() -> None:
    free, made = threading.Event(), list[int]()

    class Slow(MemoryStore):
        def append_many(self, batches: Any, *rest: Any) -> Any:
            free.wait(PATIENCE)
            return super().append_many(batches, *rest)

    async def source() -> AsyncIterator[bytes]:
        for number in range(1000):
            made.append(number)
            yield b"x" * 100

    store = Slow()
    with ResumableStreamContext(store, max_pending_bytes=1000) as context:
        context.start("s", from_async(source))
        wait_until(lambda: made)
        seen = -1
        while seen != len(made):  # until it makes no more
            seen = len(made)
            threading.Event().wait(0.05)
        assert seen < 50
        free.set()
        assert len(b"".join(context.require_resume("s"))) == 100_000
    store.close()


@pytest.mark.parametrize(
    "number, left_by, status",
    [
        (signal.SIGINT, "KeyboardInterrupt", Status.INTERRUPTED),
        (signal.SIGTERM, "SystemExit", Status.INTERRUPTED),
        (signal.SIGUSR1, "TimeoutError", Status.ERROR),
    ],
)
def test_a_signal_while_a_command_awaits(number: int, left_by: str, status: Status, tmp_path: Path) -> None:
    """As in a management command that is stopped by Ctrl-C, or by a handler that raises."""
    path = tmp_path / "streams.db"
    with Process("tests.core.async_program", path) as process:
        process.until("awaiting")
        process.signal(number)
        assert process.until("cleaned up after ") == "CancelledError"
        assert process.until("left by ") == left_by
        assert process.until("status ") == status
        assert process.wait() == 0


def out_of_time(number: int, frame: object) -> None:
    raise TimeoutError("out of time")


def out_of_time_once(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)
    out_of_time(number, frame)


def out_of_this_time(text: str, number: int, frame: object) -> None:
    raise TimeoutError(text)


class OutOfTime:
    def __call__(self, number: int, frame: object) -> None:
        out_of_time(number, frame)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(out_of_time, id="function"),
        pytest.param(out_of_time_once, id="unset"),
        pytest.param(functools.partial(out_of_this_time, "out of time"), id="partial"),
        pytest.param(OutOfTime(), id="object"),
    ],
)
def test_a_signal_handler_that_raises_into_a_callback_of_the_loop(
    context: ResumableStreamContext, handler: Callable[[int, object], None]
) -> None:
    """asyncio itself would log it and go on, and the time limit of a task queue would be lost."""
    closed = []

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"so far"
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGUSR1)
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeoutError, match="out of time"):
            context.produce("s", from_async(source))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert closed and context.status("s") is Status.ERROR


def test_a_callback_that_fails_by_itself_is_logged(
    context: ResumableStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise Fault("in a callback")

    async def source() -> AsyncIterator[bytes]:
        asyncio.get_running_loop().call_soon(fails)
        await asyncio.sleep(0)
        yield b"x"

    assert context.produce("s", from_async(source)) is Status.DONE
    assert "in a callback" in caplog.text


def test_a_forked_child_leaves_the_loop_to_its_parent(context: ResumableStreamContext) -> None:
    """They share its descriptors: closed in the child, the parent could not be woken any more."""
    awaiting, exit_codes = threading.Event(), list[int]()

    async def source() -> AsyncIterator[bytes]:
        child = os.fork()
        if child == 0:
            try:
                yield b"never"
            finally:
                os._exit(1)  # not reached: nothing is closed here
        exit_codes.append(os.waitpid(child, 0)[1])
        yield b"x"
        asyncio.get_running_loop().call_soon(awaiting.set)
        await asyncio.Event().wait()

    context.start("s", from_async(source))
    assert awaiting.wait(PATIENCE)
    context.cancel("s")
    wait_until(lambda: not context._running.get().producers)
    assert exit_codes == [0] and context.store.read("s").data == b"x"
