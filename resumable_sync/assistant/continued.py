"""The message that a stream goes on with, where an earlier response began it: kept in a record beside the
stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..contract import Status, Store, StreamInfo, shared_store
from ..errors import MalformedStreamError, StreamLostError, StreamNotFoundError, UnsupportedError
from .newest import RECORD_PREFIX
from .stored import stored_pieces

CONTINUES_KEY = "assistant-continues"
"""Where the metadata of such a stream says so."""


def keep_message(store: Store, stream_id: str, message: Mapping[str, Any], ttl: float | None) -> StreamInfo:
    """Store `message` for a stream that goes on with it, in one step. Whoever produces keeps the record alive.

    Blocks for a call of the store, and raises what it raises; UnsupportedError if it has no shared streams.
    StreamLostError if there is one already.
    """
    shared = shared_store(store)
    if shared is None:
        raise UnsupportedError(f"{type(store).__name__} has no shared streams, which the message is kept in")
    data, size = json.dumps(message, separators=(",", ":")).encode(), store.max_chunk_bytes
    chunks = [data[begin : begin + size] for begin in range(0, len(data), size)]
    info = shared.create(_record_id(stream_id), *chunks, ttl=ttl, ending=Status.DONE)
    if info is None:
        raise StreamLostError(f"the message that stream {stream_id} goes on with is there already")
    return info


def kept_message(store: Store, stream_id: str, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The message that a stream goes on with; None for one that begins its own.

    Blocks for a few calls of the store. StreamLostError if it should be there and is not, MalformedStreamError if
    it is something else.
    """
    if CONTINUES_KEY not in metadata:
        return None
    try:
        message = json.loads(b"".join(stored_pieces(store, _record_id(stream_id))))
    except StreamNotFoundError as error:
        raise StreamLostError(f"the message that stream {stream_id} goes on with is lost") from error
    except ValueError as error:
        raise MalformedStreamError(f"the message that stream {stream_id} goes on with is none") from error
    if not isinstance(message, dict):
        raise MalformedStreamError(f"the message that stream {stream_id} goes on with is none")
    return message


def _record_id(stream_id: str) -> str:
    return f"{RECORD_PREFIX}{stream_id}.start"
