"""The bounded queue between the threads that write a message and the one that reads its chunks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType

from ..errors import ProducerInterruptedError, StreamCancelledError, StreamFinalizedError
from ..interrupts import Alarm, Waiters
from .message.builder import ChunkBuilder
from .message.chunks import AssistantStreamChunk, MessageFinish
from .message.jsontext import JsonValue

MAX_QUEUED = 64
"""Chunks that may wait for the reader before writers block."""

_SLICE = 5.0  # seconds between looks at whether the other side still lives


class ChunkQueue:
    """A `with queue.room(), queue as builder:` block is one atomic write: it waits for room and holds the lock.
    The lock is given back by C, since an exception thrown in could come before any step of a Python `__exit__`.

    One lock, `_lock`, guards all fields. The chunks of a block are queued together, so the bound
    may be exceeded by those of one operation. The lock is reentrant, for `cancel` may come from the garbage
    collector in the middle of anything; no thread enters a block inside another one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = Waiters()
        self._chunks: deque[AssistantStreamChunk] = deque()
        self._builder = ChunkBuilder(self._chunks.append)
        self._finished = False  # nothing more will be written
        self._cancelled = False  # nothing more will be read
        self._abandoned = False  # nobody is left who could write
        self._hooks: list[Callable[[], object]] = []  # to be called when the reader has gone
        self.state: JsonValue = None
        """What update-state chunks have made of the state. Written inside a `with` block alone."""
        self.ending: MessageFinish | None = None
        """Said when all parts are closed, unless cut off. Read and written inside a `with` block alone."""

    def room(self) -> threading.RLock:
        """Wait until there is room, or none is needed. Returns the lock, to be held while the queue is entered."""
        alarm = None
        while len(self._chunks) >= MAX_QUEUED:
            with self._lock:
                if len(self._chunks) < MAX_QUEUED or self._finished or self._cancelled:
                    break
                if alarm is None:
                    alarm = Alarm()
                    self._changed.wake_all()  # whoever filled it may have been broken off before
                self._changed.expect(alarm)
            alarm.wait(_SLICE)
        return self._lock

    def __enter__(self) -> ChunkBuilder:
        if self._finished:
            raise StreamFinalizedError("the message was closed: nothing more can be written to it")
        if self._cancelled:
            raise StreamCancelledError("the reader of this stream has gone")
        return self._builder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._changed.wake_all()

    def finish(
        self,
        first: Iterable[AssistantStreamChunk] = (),
        last: Iterable[AssistantStreamChunk] = (),
        *,
        cut_off: bool = False,
    ) -> bool:
        """End the stream: every open part is closed, between the `first` chunks and the `last`.

        With `cut_off` tool calls are left as they are, for what was written of them may not be all. True if this
        call ended the stream, False if it had ended before. Never blocks.
        """
        with self._lock:
            if self._finished or self._cancelled:
                return False
            for chunk in first:
                self._builder.enqueue(chunk)
            self._builder.finish(cut_off=cut_off, to_be_run=True)
            for chunk in last:
                self._builder.enqueue(chunk)
            if self.ending is not None and not cut_off:
                # Calls that are all answered ask for nothing more, whatever the model has ended for.
                if self.ending.finish_reason != "tool-calls" or self._builder.unanswered():
                    self._builder.enqueue(self.ending)
            self._finished = True
            self._changed.wake_all()
            return True

    def cancel(self) -> list[Callable[[], object]]:
        """The reader goes: queued chunks are dropped, every waiting and later write raises. Idempotent.

        What `add_hook` was given is the caller's to call, outside the lock.
        """
        with self._lock:
            self._cancelled = True
            self._chunks.clear()
            self._changed.wake_all()
            hooks, self._hooks = self._hooks, []
            return hooks

    def add_hook(self, hook: Callable[[], object]) -> bool:
        """Have `hook` called when the reader goes; False if it has gone already."""
        with self._lock:
            if not self._cancelled:
                self._hooks.append(hook)
            return not self._cancelled

    def remove_hook(self, hook: Callable[[], object]) -> None:
        """It is not wanted any more. Nothing happens if it was taken to be called."""
        with self._lock:
            if hook in self._hooks:
                self._hooks.remove(hook)

    @property
    def cancelled(self) -> bool:
        """Whether the reader has gone."""
        return self._cancelled

    def abandon(self) -> None:
        """Nobody is left who could write: a reader that has read all raises. No effect after the end."""
        with self._lock:
            self._abandoned = True
            self._changed.wake_all()

    def take(self, writer: threading.Thread | None) -> list[AssistantStreamChunk]:
        """Wait for chunks and take all that are there; none means the end.

        ProducerInterruptedError if `writer` is gone, or the stream abandoned, without having been ended.
        """
        alarm = Alarm()
        while True:
            with self._lock:
                if self._chunks or self._finished or self._cancelled:
                    taken = list(self._chunks)
                    self._chunks.clear()
                    self._changed.wake_all()
                    return taken
                if self._abandoned or (writer is not None and not writer.is_alive()):
                    raise ProducerInterruptedError("who wrote this stream is gone and has not ended it")
                self._changed.expect(alarm)
            alarm.wait(_SLICE)


class WriteEnd:
    """A queue as its writers hold it, where no thread of ours writes: once the last has gone, so has the stream.

    Thread-safe. What it offers is the queue's.
    """

    def __init__(self, queue: ChunkQueue) -> None:
        self._queue = queue

    def room(self) -> threading.RLock:
        """As of ChunkQueue."""
        return self._queue.room()

    def __enter__(self) -> ChunkBuilder:
        return self._queue.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.__exit__(kind, error, trace)

    def finish(
        self,
        first: Iterable[AssistantStreamChunk] = (),
        last: Iterable[AssistantStreamChunk] = (),
        *,
        cut_off: bool = False,
    ) -> bool:
        """As of ChunkQueue."""
        return self._queue.finish(first, last, cut_off=cut_off)

    def add_hook(self, hook: Callable[[], object]) -> bool:
        """As of ChunkQueue."""
        return self._queue.add_hook(hook)

    def remove_hook(self, hook: Callable[[], object]) -> None:
        """As of ChunkQueue."""
        self._queue.remove_hook(hook)

    @property
    def ending(self) -> MessageFinish | None:
        """As of ChunkQueue."""
        return self._queue.ending

    @ending.setter
    def ending(self, value: MessageFinish | None) -> None:
        self._queue.ending = value

    @property
    def state(self) -> JsonValue:
        """As of ChunkQueue."""
        return self._queue.state

    @state.setter
    def state(self, value: JsonValue) -> None:
        self._queue.state = value

    def __del__(self) -> None:
        self._queue.abandon()
