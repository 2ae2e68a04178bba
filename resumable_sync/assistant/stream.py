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
from ..process import start
from ..producer import check_callback, is_asynchronous
from .chunk_queue import ChunkQueue, WriteEnd
from .controller import AssistantStreamController
from .error_text import ErrorFormatter, error_text
from .message.chunks import AssistantStreamChunk, Error

logger = logging.getLogger("resumable_sync")


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
    check_callback("format_error", format_error)
    if is_asynchronous(callback) or inspect.isgeneratorfunction(callback):
        raise TypeError("the callback must be a plain function that writes to the controller it is given")
    queue = ChunkQueue()
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run,
        args=(_write, queue, callback, format_error),
        name="assistant-stream",
        daemon=True,  # one that nobody reads any more must not keep the interpreter from ending
    )
    return AssistantStream(queue, thread)


def create_assistant_stream_controller(
    *, format_error: ErrorFormatter | None = None
) -> tuple[AssistantStream, AssistantStreamController]:
    """A stream together with the controller that writes it, for code that cannot hand over a callback.

    Any thread may write, another one iterates. The writer must end the stream: `close` does, and so does leaving
    a `with` block of the controller, where an exception becomes an `error` chunk as one of a callback does
    (`format_error` makes its text) and passes through. Once the controller and all that it made are gone without
    that, iterating raises ProducerInterruptedError. A call blocks while the consumer lags by more than the
    queue's bound, so one thread cannot do both. Does not block.
    """
    queue = ChunkQueue()
    return AssistantStream(queue, None), AssistantStreamController(WriteEnd(queue), format_error=format_error)


class AssistantStream(Iterator[AssistantStreamChunk]):
    """The chunks of one message, read once. One thread at a time iterates; `close` may come from any.

    `next` blocks until something is written. It raises ProducerInterruptedError in a forked child, where the
    callback does not run.
    """

    def __init__(self, queue: ChunkQueue, thread: threading.Thread | None) -> None:
        self._pid = os.getpid()  # before the queue, see __del__
        self._queue = queue
        self._taken: deque[AssistantStreamChunk] = deque()  # the reading thread's own
        self._thread = thread  # which writes, and is started by the first `next`; None if somebody else does
        self._started = False

    def __iter__(self) -> AssistantStream:
        return self

    def __next__(self) -> AssistantStreamChunk:
        if os.getpid() != self._pid:
            raise ProducerInterruptedError("this stream belongs to the process that was forked")
        if self._queue.cancelled:
            raise StopIteration
        if self._thread is not None and not self._started:
            self._started = True
            start(self._thread)
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
            for hook in self._queue.cancel():
                try:
                    hook()
                except Exception:
                    logger.exception("what was to be called when the reader of a message goes has failed")

    def __enter__(self) -> AssistantStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Without the hooks: the garbage collector may come by while this thread holds locks that they need.
        queue = getattr(self, "_queue", None)  # none where the constructor was broken off
        if queue is not None and os.getpid() == self._pid:
            queue.cancel()


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
