"""The exceptions of resumable_sync, one class for each thing a caller can do about it.

Every error has a `code` (stable, for programs and wire formats) and an `http_status`
(what a web application would answer if nothing has been sent yet).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ConflictError",
    "InvalidCursorError",
    "InvalidStreamIdError",
    "LeaseLostError",
    "LimitExceededError",
    "MalformedStreamError",
    "ProducerFailedError",
    "ProducerInterruptedError",
    "ResumableStreamError",
    "StoreUnavailableError",
    "StreamCancelledError",
    "StreamFinalizedError",
    "StreamLostError",
    "StreamNotFoundError",
    "StreamTakenError",
    "UnsupportedError",
    "UpstreamError",
]


class ResumableStreamError(Exception):
    """Base of all errors raised by this library; catches everything that it may raise."""

    code = "failed"
    http_status = 500


class StreamNotFoundError(ResumableStreamError):
    """There is no stream of this id: it never existed, expired, or was deleted.

    Nothing was changed; the id is free to be produced.
    """

    code = "missing"
    http_status = 404


class StreamLostError(ResumableStreamError):
    """The stream was deleted, expired, replaced or damaged while somebody held a position in it.

    Bytes received before stay valid, but the rest of that generation will never come.
    Start again from the beginning of whatever stream the id names now.
    """

    code = "lost"
    http_status = 410


class StreamFinalizedError(ResumableStreamError):
    """The stream has ended, so nothing can be appended to it and its ending cannot be changed.

    What was stored before stays readable until it expires. `status` is the ending that stands
    ("done", "error", "cancelled" or "interrupted"), so a producer learns why it was stopped. In an assistant
    stream it is also raised for a part of the message that is closed.
    """

    code = "finalized"
    http_status = 409

    def __init__(self, message: str = "", status: str | None = None) -> None:
        super().__init__(message)
        self.status = status


class LeaseLostError(ResumableStreamError):
    """This producer no longer owns the stream: another generation, or another writer, has taken its place.

    Nothing was stored by the refused call. The producer should close its source.
    """

    code = "superseded"
    http_status = 409


class StreamTakenError(ResumableStreamError):
    """The id is taken: somebody produces the stream, or it has ended and is still there. Nothing was changed."""

    code = "taken"
    http_status = 409


class ConflictError(ResumableStreamError):
    """A note has another value than `commit` was told to expect. Nothing was changed.

    All of it is of the very step that refused: `status` and `cursor` of the stream, and `notes`, the present
    values of the notes that were named in `expect` (None: absent).
    """

    code = "conflict"
    http_status = 409

    def __init__(
        self,
        message: str = "",
        *,
        status: str = "",
        cursor: str = "",
        notes: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.cursor = cursor
        self.notes: Mapping[str, str | None] = dict(notes or {})


class UnsupportedError(ResumableStreamError):
    """The store cannot do this: it has no takeover, or no shared streams. Nothing was changed."""

    code = "unsupported"
    http_status = 501


class ProducerFailedError(ResumableStreamError):
    """The stream ended with status `error`: its source raised. All bytes before were delivered.

    In the process that produced, `__cause__` is what the source raised.
    """

    code = "error"
    http_status = 500


class ProducerInterruptedError(ProducerFailedError):
    """The stream ended with status `interrupted`: its producer died, froze or was shut down.

    All bytes that were stored before were delivered; the rest was never made.
    """

    code = "interrupted"
    http_status = 503


class StreamCancelledError(ResumableStreamError):
    """The stream ended with status `cancelled`: somebody stopped it. All bytes before were delivered."""

    code = "cancelled"
    http_status = 409


class InvalidStreamIdError(ResumableStreamError, ValueError):
    """The stream id is not 1 to 256 characters of `A-Z a-z 0-9 _ . : -`."""

    code = "invalid-id"
    http_status = 400


class InvalidCursorError(ResumableStreamError, ValueError):
    """The cursor is not `<generation>-<offset>`, or points beyond the end of the stream."""

    code = "invalid-cursor"
    http_status = 400


class LimitExceededError(ResumableStreamError):
    """A limit (chunk, stream, entries, streams, producers) would be exceeded; nothing was stored.

    `limit` names the setting, such as "max_streams"; empty where there is none.
    """

    code = "limit"
    http_status = 503

    def __init__(self, message: str = "", *, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


class StoreUnavailableError(ResumableStreamError):
    """The store cannot be reached, is locked, full, damaged or closed.

    Whether a refused append was stored is unknown; repeating it is safe (it is stored once). `transient` tells
    whether trying again may help: false for a store that was closed, or a file that is damaged or too new.
    `fate_unknown`: of a `commit`: it may have been stored, and only a fenced one may be repeated (see
    `SharedStore.commit`); false where it was certainly not.
    """

    code = "unavailable"
    http_status = 503

    def __init__(self, message: str = "", *, transient: bool = True, fate_unknown: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.fate_unknown = fate_unknown


class MalformedStreamError(ResumableStreamError, ValueError):
    """Chunks, or bytes of a response, break the rules of their format.

    What was decoded before stays valid. A lenient decoder skips what it can instead of raising this.
    """

    code = "malformed"
    http_status = 502


class UpstreamError(ResumableStreamError):
    """A model's server reported an error in the middle of an answer, or the answer broke off.

    What came before stays. Asking the model again may help.
    """

    code = "upstream"
    http_status = 502
