"""Reading what a client yields: events of any kind of object, and a connection that a cancelled stream shuts."""

from __future__ import annotations

import inspect
import logging
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import StreamCancelledError
from ..controller import AssistantStreamController

logger = logging.getLogger("resumable_sync")

_HOLDERS = ("response", "_response", "_raw_stream", "completion_stream")
"""Where clients keep the response that they read: OpenAI, Anthropic, their helpers; LiteLLM has OpenAI's."""
_DEPTH = 4


def field(value: object, name: str) -> Any:
    """A member of an object or of a dict; None where there is none."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def text_of(value: object, name: str) -> str:
    """A member that is text, else ""."""
    found = field(value, name)
    return found if isinstance(found, str) else ""


def list_of(value: object, name: str) -> list[Any]:
    """A member that is a list, else []."""
    found = field(value, name)
    return list(found) if isinstance(found, (list, tuple)) else []


def plain(value: Any) -> Any:
    """`value` as JSON types, as far as models of pydantic and the like can say."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    dump = getattr(value, "model_dump", None)
    return plain(dump(mode="json", exclude_none=True) if callable(dump) else vars(value))


def usage_of(given: Mapping[str, object]) -> dict[str, int]:
    """What was counted."""
    return {name: count for name, count in given.items() if isinstance(count, int)}


@contextmanager
def reading(controller: AssistantStreamController, stream: Iterable[Any]) -> Iterator[Iterable[Any]]:
    """The events of `stream`, which is closed in any case, and at once when the reader of the message goes.

    StreamCancelledError in place of what that makes the client raise. TypeError for what cannot be iterated.
    """
    if not hasattr(stream, "__iter__"):
        hint = "its client is asynchronous, and callbacks are not" if hasattr(stream, "__aiter__") else ""
        hint = hint or (
            "enter it: `with … as stream`" if hasattr(stream, "__enter__") else "was stream=True left out?"
        )
        raise TypeError(f"not a stream of events, but {type(stream).__name__}: {hint}")
    connection = _Connection(stream)
    try:
        with controller.on_cancel(connection.cut):
            yield stream
    except Exception as error:
        if connection.done():
            raise StreamCancelledError("the reader of this stream has gone") from error
        raise
    finally:
        connection.done()
        _close(stream)


class _Connection:
    """The connection that a stream reads from. `cut` may come from any thread."""

    def __init__(self, stream: object) -> None:
        self._stream = stream
        self._lock = threading.Lock()  # guards the fields below, and that nothing is shut once the stream is done
        self._done = False
        self._was_cut = False

    def done(self) -> bool:
        """Nothing is to be cut any more: the client may use its connection again. Whether it was cut."""
        with self._lock:
            self._done = True
            return self._was_cut

    def cut(self) -> None:
        """Break the wait of whoever reads.

        Closing a socket does not wake the thread that reads it; shutting it down does, and does not block, so it
        is done under the lock. The reading thread closes the rest, in its own time.
        """
        with self._lock:
            if self._done:
                return
            self._was_cut = True
            if _shut(self._stream, _DEPTH):
                return
        if not inspect.isgenerator(self._stream):  # which only the thread that runs it can close
            _close(self._stream)


def _shut(holder: object, depth: int) -> bool:
    """Shut the socket of the response that `holder` is, or holds; whether there was one."""
    extensions = getattr(holder, "extensions", None)
    if isinstance(extensions, Mapping):
        if getattr(holder, "is_closed", False):  # its connection may have gone to another request
            return True
        ask = getattr(extensions.get("network_stream"), "get_extra_info", None)
        found = ask("socket") if callable(ask) else None
        if isinstance(found, socket.socket):
            try:
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # of TLS too: the session belongs to the reader
            except OSError:
                logger.debug("the connection of a cancelled answer was gone already", exc_info=True)
            return True
    held = [getattr(holder, name, None) for name in _HOLDERS] if depth else []
    return any(_shut(each, depth - 1) for each in held if each is not None)


def _close(stream: object) -> None:
    close = getattr(stream, "close", None)
    if callable(close):
        try:
            close()
        except Exception:
            logger.warning("closing what a model's client streamed failed", exc_info=True)
