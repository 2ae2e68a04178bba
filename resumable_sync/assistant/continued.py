"""The message that a stream goes on with, where an earlier response began it: kept in a record beside the
stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..contract import Store
from ..errors import MalformedStreamError, StreamLostError, StreamNotFoundError
from .newest import RECORD_PREFIX, Claim
from .stored import stored_pieces

CONTINUES_KEY = "assistant-continues"
"""Where the metadata of such a stream says so."""


def keep_message(store: Store, stream_id: str, message: Mapping[str, Any], ttl: float | None) -> Claim:
    """Store `message` for a stream that goes on with it. The claim is kept while the stream is produced.

    Blocks for a few calls of the store, and raises what it raises. StreamLostError if there is one already.
    """
    lease = store.acquire(_record_id(stream_id), ttl=ttl)
    if lease is None:
        raise StreamLostError(f"the message that stream {stream_id} goes on with is there already")
    data, size = json.dumps(message, separators=(",", ":")).encode(), store.max_chunk_bytes
    claim = Claim(store, lease)
    try:
        for begin in range(0, len(data), size):
            store.append(lease, data[begin : begin + size])
    except BaseException:
        claim.end()
        raise
    return claim


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
