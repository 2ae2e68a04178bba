"""Byte streams that survive their connection: resumable responses for Flask, WSGI and plain scripts.

A background thread produces a stream into a store; any number of viewers, in any process that shares the
store, follow it as plain generators from any byte. `ResumableStreamContext` is the main entry point;
`resumable_sync.contract` says what is guaranteed; `resumable_sync.wsgi` has the responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .context import ResumableStreamContext
from .contract import Batch, Entry, Lease, Status, Store, StreamInfo
from .errors import (
    ConflictError,
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
    StreamTakenError,
    UnsupportedError,
)
from .health import Health
from .producer import Producer, current_producer
from .shared_writer import SharedWriter
from .stats import Stats
from .stores import open_store
from .stores.memory import MemoryStore
from .writer import Writer

if TYPE_CHECKING:
    from .stores.redis import RedisStore as RedisStore  # noqa: F401  lazy, and not in __all__: see __getattr__
    from .stores.sqlite import SQLiteStore

__all__ = [
    "Batch",
    "ConflictError",
    "Entry",
    "Health",
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
    "SQLiteStore",
    "SharedWriter",
    "Stats",
    "Status",
    "Store",
    "StoreUnavailableError",
    "StreamCancelledError",
    "StreamFinalizedError",
    "StreamInfo",
    "StreamLostError",
    "StreamNotFoundError",
    "StreamTakenError",
    "UnsupportedError",
    "Writer",
    "__version__",
    "current_producer",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Import a store when it is asked for: its packages are not needed before.

    RedisStore is not in `__all__`, so that `from resumable_sync import *` works without the extra `redis`.
    """
    if name == "SQLiteStore":
        from .stores.sqlite import SQLiteStore

        return SQLiteStore
    if name == "RedisStore":
        from .stores.redis import RedisStore  # noqa: F811

        return RedisStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
