"""What the scripts of the Redis store say about a stream, parsed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from ...contract import Status, StreamInfo
from ...errors import ResumableStreamError, StreamLostError, StreamNotFoundError
from .connection import Link, failure
from .scripts import Call


class Found(NamedTuple):
    """A stream's state, as `append`, `renew`, `finalize` (the first four fields) and `look` tell it."""

    generation: int
    status: Status
    size: int
    entries: int
    error: str | None = None
    due: float = 0.0
    """Seconds until its lease or its life runs out."""


def parse_found(reply: Any) -> Found | str | ResumableStreamError:
    """A state; "missing" or "damaged"; or the error that the reply is."""
    if isinstance(reply, Exception):
        return as_error(reply)
    kind = reply[0].decode("ascii")
    if kind != "found":
        return str(kind)
    generation, status, size, entries = reply[1:5]
    found = Found(int(generation), Status(status.decode("ascii")), int(size), int(entries))
    if len(reply) > 5:
        error, due = reply[5:7]
        found = found._replace(error=parse_message(error), due=int(due) / 1000)
    return found


def one(link: Link, call: Call) -> Any:
    """The reply to one call; raises the store's error for Redis's."""
    reply = link.run([call])[0]
    if isinstance(reply, Exception):
        raise as_error(reply)
    return reply


def as_error(reply: Exception) -> ResumableStreamError:
    """The store's error for one of Redis."""
    if isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
        return StreamLostError(f"a key of the stream was replaced by something else: {reply}")
    return failure(reply)


def as_message(error: str | None) -> str:
    """An ending's message as the scripts keep it: "" for none, else "=" and the text, which may be empty."""
    return "" if error is None else f"={error}"


def parse_message(message: bytes) -> str | None:
    """The reverse of `as_message`."""
    return message[1:].decode("utf-8", "replace") if message else None


def absent(stream_id: str, kind: str) -> ResumableStreamError:
    """The error of a reader that finds no stream, or not all of it."""
    if kind == "damaged":
        return StreamLostError(f"stream {stream_id} is damaged: Redis evicted or trimmed a part of it")
    return StreamNotFoundError(f"there is no stream {stream_id}")


def parse_info(stream_id: str, reply: Sequence[bytes]) -> StreamInfo:
    """The public snapshot from the fields of `meta`."""
    meta = {name.decode("ascii"): value for name, value in zip(reply[1::2], reply[2::2])}
    status = Status(meta["status"].decode("ascii"))
    finished = meta.get("finished")
    return StreamInfo(
        stream_id=stream_id,
        status=status,
        generation=int(meta["generation"]),
        size=int(meta["size"]),
        entries=int(meta["entries"]),
        created_at=int(meta["created"]) / 1000,
        updated_at=int(meta["updated"]) / 1000,
        finished_at=None if finished is None else int(finished) / 1000,
        error=parse_message(meta["error"]),
        metadata=json.loads(meta["metadata"]),
        producer_alive=status is Status.STREAMING,
    )
