"""Running a callback in the background and reading what it writes."""

from __future__ import annotations

import contextvars
import inspect
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

from ..errors import ProducerInterruptedError, StreamCancelledError
from .chunk_queue import ChunkQueue
from .controller import AssistantStreamController
from .message.chunks import AssistantStreamChunk, Error

DEFAULT_ERROR_TEXT = "An error occurred."
"""What a client is told of an exception unless the application says otherwise."""

logger = logging.getLogger("resumable_sync")

ErrorFormatter = Callable[[BaseException], str]


def create_assistant_stream(
    callback: Callable[[AssistantStreamController], object], *, format_error: ErrorFormatter | None = None
) -> AssistantStream:
    """Run `callback(controller)` in a thread and return the chunks that it writes, in the order of its calls.

    The thread starts when the first chunk is asked for, in a copy of the caller's context variables. It may
    be ahead of the reader by a bounded number of chunks; then its next call blocks. Every part is closed at
    the end. If the callback raises, an `error` chunk precedes the closing, tool calls that are open stay cut
    off, so that no client runs them, and the stream ends normally; the exception is logged, and clients read
    "An error occurred." unless `format_error` turns the exception into another text. Closing the iterator makes
    the callback's next call of the controller raise StreamCancelledError.

    TypeError if `callback` cannot be called, or is a coroutine or generator function.
    """
    if not callable(callback):
        raise TypeError(f"the callback is not callable: {callback!r:.80}")
    if inspect.iscoroutinefunction(callback) or inspect.isgeneratorfunction(callback):
        raise TypeError("the callback must be a plain function that writes to the controller it is given")
    return AssistantStream(callback, format_error)


class AssistantStream(Iterator[AssistantStreamChunk]):
    """The chunks of one message, read once. One thread at a time iterates; `close` may come from any.

    `next` blocks until the callback writes. It raises ProducerInterruptedError in a forked child, where the
    callback does not run.
    """

    def __init__(
        self, callback: Callable[[AssistantStreamController], object], format_error: ErrorFormatter | None
    ) -> None:
        self._queue = ChunkQueue()
        self._taken: deque[AssistantStreamChunk] = deque()  # the reading thread's own
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run,
            args=(_write, self._queue, callback, format_error),
            name="assistant-stream",
            daemon=True,  # one that nobody reads any more must not keep the interpreter from ending
        )
        self._pid = os.getpid()
        self._started = False

    def __iter__(self) -> AssistantStream:
        return self

    def __next__(self) -> AssistantStreamChunk:
        if os.getpid() != self._pid:
            raise ProducerInterruptedError("this stream belongs to the process that was forked")
        if self._queue.cancelled:
            raise StopIteration
        if not self._started:
            self._started = True
            self._thread.start()
        if not self._taken:
            self._taken.extend(self._queue.take(self._thread))
            if not self._taken:
                raise StopIteration
        return self._taken.popleft()

    def close(self) -> None:
        """Stop the callback at its next call of the controller and wake a blocked `next`.

        Returns at once. Idempotent.
        """
        if os.getpid() == self._pid:  # a lock may have been held while the process was forked
            self._queue.cancel()

    def __enter__(self) -> AssistantStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _write(
    queue: ChunkQueue, callback: Callable[[AssistantStreamController], object], format_error: ErrorFormatter | None
) -> None:
    first: list[AssistantStreamChunk] = []
    try:
        callback(AssistantStreamController(queue))
    except BaseException as error:  # SystemExit and the like too: the reader must learn of every ending
        if queue.cancelled:
            if not isinstance(error, StreamCancelledError):
                logger.info("an assistant callback failed after its reader had gone", exc_info=True)
        else:
            logger.error("an assistant callback failed", exc_info=True)
        first.append(Error(error=error_text(error, format_error)))
    finally:
        queue.finish(first, cut_off=bool(first))


def error_text(error: BaseException, format_error: ErrorFormatter | None) -> str:
    """What clients are told of `error`. Never raises."""
    if format_error is None:
        return DEFAULT_ERROR_TEXT
    try:
        return str(format_error(error))
    except Exception:
        logger.error("format_error failed", exc_info=True)
        return DEFAULT_ERROR_TEXT
