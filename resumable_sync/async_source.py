"""An asynchronous iterable as a source: agent frameworks and async clients have no other.

The only module of this library that imports asyncio; nothing else needs it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

from .producer import Producer, Source, current_producer

Chunk = bytes | str
AsyncSource = Callable[[], AsyncIterable[Chunk] | Awaitable[AsyncIterable[Chunk]]]


def from_async(make: AsyncSource) -> Source:
    """A `make_stream` for `run`, `start` and `produce` that iterates over what `make()` returns.

    `make` is an async generator function, or any function (also a coroutine function) that returns an async
    iterable of bytes or str. It runs in the producer's thread, in an event loop of its own, which goes on only while
    a chunk is waited for. When the stream is stopped, what is awaited is cancelled at once (asyncio.CancelledError);
    the iterable is closed in every case, then what else runs in the loop is cancelled.

    Raises TypeError, where `make` is called, if it returns no async iterable. RuntimeError in a thread that runs an
    event loop already: there call `produce` by asyncio.to_thread.
    """

    def make_stream() -> Iterator[Chunk]:
        return _chunks(make, current_producer())

    return make_stream


class _Loop:
    """An event loop in the producer's thread. `_lock` guards `_task`, which other threads cancel."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def run(self, awaited: Coroutine[Any, Any, Any]) -> Any:
        """What the coroutine returns. Raises asyncio.CancelledError after `cancel`."""
        with self._lock:
            cancelled = self._cancelled
            self._task = task = self._loop.create_task(awaited)
        if cancelled:
            task.cancel()
        try:
            return self._loop.run_until_complete(task)
        finally:
            with self._lock:
                self._task = None

    def cancel(self) -> None:
        """Cancel what runs, and what is run from now on. For any thread."""
        with self._lock:
            self._cancelled = True
            if self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def close(self, closing: Callable[[], Coroutine[Any, Any, Any]] | None) -> None:
        """Run `closing`, cancel what still runs, and close the loop."""
        with self._lock:
            self._cancelled = False  # what closes is not to be cancelled
        try:
            if closing is not None:
                self.run(closing())
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()


def _chunks(make: AsyncSource, producer: Producer) -> Iterator[Chunk]:
    loop = _Loop()
    closing: Callable[[], Coroutine[Any, Any, Any]] | None = None
    try:
        producer.on_cancel(loop.cancel)
        made = make()
        if inspect.isawaitable(made):
            made = loop.run(_await(made))
        iterator = _iterate(made)
        closing = getattr(iterator, "aclose", None)
        while True:
            try:
                chunk = loop.run(_next(iterator))
            except StopAsyncIteration:
                return
            yield chunk
    except asyncio.CancelledError:
        if not producer.cancelled.is_set():
            raise RuntimeError("the asynchronous source was cancelled from within") from None
    finally:
        loop.close(closing)


def _iterate(made: Any) -> AsyncIterator[Chunk]:
    if not hasattr(type(made), "__aiter__"):
        raise TypeError(f"an async source must return an async iterable of chunks, not {type(made).__name__}")
    iterator: AsyncIterator[Chunk] = type(made).__aiter__(made)
    return iterator


async def _await(made: Awaitable[Any]) -> Any:
    return await made


async def _next(iterator: AsyncIterator[Chunk]) -> Chunk:
    return await iterator.__anext__()
