"""An asynchronous iterable as a source: agent frameworks and async clients have no other.

The only module of this library that imports asyncio; nothing else needs it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

from .interrupts import was_thrown_in
from .logs import Extra, about
from .producer import Source, current_producer

__all__ = ["from_async"]

logger = logging.getLogger("resumable_sync")

_LEFT_SECONDS = 5.0  # that tasks and generators which the source left may take to end

Chunk = bytes | str
AsyncSource = Callable[[], AsyncIterable[Chunk] | Awaitable[AsyncIterable[Chunk]]]


def from_async(make: AsyncSource) -> Source:
    """A `make_stream` for `run`, `start` and `produce` that iterates over what `make()` returns.

    `make` is an async generator function, or any function (also a coroutine function) that returns an async
    iterable of bytes or str. It runs in the producer's thread, as one asyncio task, so that contextvars, timeouts
    and task groups may span chunks, in an event loop of its own, which goes on only while a chunk is waited for.

    When the stream is stopped, what is awaited is cancelled at once (asyncio.CancelledError, once); a source that
    goes on all the same is closed at its next chunk. The iterable is closed in every case (GeneratorExit in a
    generator that was not awaiting anything). Then other tasks in the loop are cancelled, and may take 5 s to
    end; threads of asyncio.to_thread are not waited for.

    Raises TypeError for a `make` that is no function; the stream fails with TypeError if it returns no async
    iterable, and with RuntimeError in a thread that runs an event loop: there use `start`, or call `produce`
    by asyncio.to_thread.
    """
    if not callable(make):
        raise TypeError(
            f"from_async takes a function that returns an async iterable, not {type(make).__name__}: hand over "
            "the async generator function itself, without calling it"
        )

    def make_stream() -> Iterator[Chunk]:
        if _loop_runs_here():
            raise RuntimeError(
                "an event loop runs in this thread already: call start, which has a thread of its own, or "
                "await asyncio.to_thread(context.produce, ...)"
            )
        return _chunks(make)

    return make_stream


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _chunks(make: AsyncSource) -> Iterator[Chunk]:
    """What the source makes; all in the thread that iterates."""
    producer = current_producer()
    process = os.getpid()
    run = _Run(make)
    try:
        producer.on_cancel(run.cancel)
        while run.advance():
            yield run.take()
    except asyncio.CancelledError as cancelled:
        if not producer.cancelled.is_set():
            raise RuntimeError("the asynchronous source was cancelled from within") from cancelled
    finally:
        if os.getpid() == process:  # a forked child shares the loop's descriptors, and must not touch them
            run.close()


class _Run:
    """One source in its event loop. All methods but `cancel` are for the producer's thread, which runs the loop.

    The source is one task for its whole life. It rests in `_wanted` between chunks. `_lock` guards `_stopped` and
    `_closed`; all else belongs to the producer's thread.
    """

    def __init__(self, make: AsyncSource) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._stopped = False
        self._closed = False
        self._pulling = False  # the source is at work, and may be cancelled
        self._chunk: list[Chunk] = []  # one at most
        self._task: asyncio.Task[None] | None = None
        self._thrown: BaseException | None = None  # by a signal handler, into a callback of the loop
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._report)
        self._wanted: asyncio.Future[bool] = self._loop.create_future()  # True: make another; False: close

    def advance(self) -> bool:
        """Run the loop until the next chunk is there. False at the end; raises what the source raises."""
        with self._lock:
            if self._stopped:
                return False
        self._raise_thrown()
        self._pulling = True
        if self._task is None:
            self._task = self._begin(self._drive())
        else:
            self._wanted.set_result(True)
        while not self._chunk and not self._thrown and not self._task.done():
            self._loop.run_forever()
        if self._chunk:
            return True
        self._raise_thrown()
        self._task.result()
        return False

    def take(self) -> Chunk:
        """The chunk that `advance` has found."""
        return self._chunk.pop()

    def cancel(self) -> None:
        """Cancel what the source awaits, now or as soon as it does. For any thread; idempotent; does not block."""
        with self._lock:
            self._stopped = True
            if not self._closed:
                self._loop.call_soon_threadsafe(self._cancel_pull)

    def close(self) -> None:
        """Close the source, end what else runs in the loop, and close that."""
        try:
            task = self._task
            if task is not None and not task.done():
                if self._pulling:  # the loop was left by an exception, such as KeyboardInterrupt
                    self._cancel_pull()
                else:
                    self._wanted.set_result(False)
                self._run_to_end(task)
            if task is not None and not task.cancelled():
                task.exception()  # it was raised already
            self._run_to_end(self._begin(self._end_others()))
            self._raise_thrown()
        finally:
            with self._lock:
                self._closed = True
            self._loop.close()  # does not wait for the threads of asyncio.to_thread

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler. asyncio would log the time limit of a task queue, and go on."""
        raised = context.get("exception")
        if raised is not None and was_thrown_in(raised):
            self._thrown = raised
            loop.stop()
        else:
            loop.default_exception_handler(context)

    def _raise_thrown(self) -> None:
        thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(lambda _: self._loop.stop())
        return task

    def _run_to_end(self, task: asyncio.Task[None]) -> None:
        """Run the loop until the task has ended, whoever else stops it."""
        while not task.done():
            self._loop.run_forever()

    def _cancel_pull(self) -> None:
        """Cancel the source if it is at work. Once: what it then does to clean up is left alone."""
        if self._pulling and self._task is not None:
            self._pulling = False
            self._task.cancel()

    async def _drive(self) -> None:
        """The task. `make` is called in it as well: it may want a running loop."""
        made = self._make()
        if inspect.isawaitable(made):
            made = await made
        iterator = _iterate(made)
        try:
            async for chunk in iterator:
                self._pulling = False
                self._chunk.append(chunk)
                self._wanted = self._loop.create_future()
                self._loop.stop()
                if not await self._wanted:
                    return
        finally:
            self._pulling = False
            await _close(iterator)

    async def _end_others(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        shutdown = asyncio.create_task(self._loop.shutdown_asyncgens())
        _, unwilling = await asyncio.wait({*left, shutdown}, timeout=_LEFT_SECONDS)
        if unwilling:
            logger.warning(
                "an asynchronous source left what does not end when it is cancelled: %s", unwilling, extra=_about()
            )


def _iterate(made: object) -> AsyncIterator[Chunk]:
    kind = type(made)
    if not hasattr(kind, "__aiter__"):
        hint = "is a return missing?" if made is None else "yield in an async def, or return an async iterable"
        if hasattr(kind, "__iter__"):
            hint = "what is not asynchronous needs no from_async"
        raise TypeError(f"make returned {kind.__name__}, not an async iterable of chunks; {hint}")
    iterator: AsyncIterator[Chunk] = kind.__aiter__(made)
    return iterator


async def _close(iterator: object) -> None:
    close = getattr(iterator, "aclose", None)
    if callable(close):
        try:
            await close()
        except Exception:  # what the source made counts; a failing close must not hide how it ended
            logger.warning("closing an asynchronous source failed", exc_info=True, extra=_about())


def _about() -> Extra:
    producer = current_producer()  # a task has the contextvars of the thread that began it
    return about("source-close-failed", producer.stream_id, producer.generation)
