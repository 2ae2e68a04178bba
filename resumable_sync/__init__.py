"""Byte streams that survive their connection: resumable responses for Flask, WSGI and plain scripts.

A background thread produces a stream into a store; any number of viewers, in any process that shares the
store, follow it as plain generators from any byte. See `ResumableStreamContext` for the main door,
`resumable_sync.types` for what is guaranteed, `resumable_sync.wsgi` for responses.
"""

from ._version import __version__
from .context import ResumableStreamContext
from .errors import (
    InvalidCursorError,
    InvalidStreamIdError,
    LeaseLostError,
    LimitExceededError,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamCancelledError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)
from .producer import Producer, current_producer
from .stores import open_store
from .stores.memory import MemoryStore
from .types import Batch, Entry, Lease, Status, Store, StreamInfo

__all__ = [
    "Batch",
    "Entry",
    "InvalidCursorError",
    "InvalidStreamIdError",
    "Lease",
    "LeaseLostError",
    "LimitExceededError",
    "MemoryStore",
    "Producer",
    "ProducerFailedError",
    "ProducerInterruptedError",
    "ResumableStreamContext",
    "ResumableStreamError",
    "Status",
    "Store",
    "StoreUnavailableError",
    "StreamCancelledError",
    "StreamFinalizedError",
    "StreamInfo",
    "StreamLostError",
    "StreamNotFoundError",
    "__version__",
    "current_producer",
    "open_store",
]
