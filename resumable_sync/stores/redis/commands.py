"""What the Redis store asks of Redis for one stream, and what the replies mean. No I/O."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ...contract import Lease, Position, Status, StreamInfo
from ...errors import LimitExceededError, ResumableStreamError, StreamLostError, StreamNotFoundError
from .. import base, pages
from ..base import Chunks, Limits, Snapshot, conflict, ownership_error
from ..pages import PAGE_BYTES, Page
from .connection import as_error
from .keys import Keys
from .scripts import Argument, Call, script

_ROWS = 1000  # that one trip brings at most
_LAST_OFFSET = 2**63
_BEYOND_ALL = 2**53  # an offset that no stream reaches


class Commands:
    """Makes the commands of a store with these settings. `grace`: seconds. Immutable; thread-safe."""

    def __init__(self, keys: Keys, limits: Limits, grace: float, finished_ttl: float | None) -> None:
        self.keys = keys
        self._limits = limits
        self._grace = milliseconds(grace)
        self._finished_ttl: Argument = "" if finished_ttl is None else milliseconds(finished_ttl)

    def acquire(self, stream_id: str, ttl: float, metadata: dict[str, str]) -> Call:
        """Begin a generation. Replies it, or 0 if the id is taken."""
        token, life, text = secrets.token_hex(16), milliseconds(ttl), json.dumps(metadata)
        return script("acquire", self.keys.of(stream_id), token, self._grace, life, self._finished_ttl, text)

    def append(self, lease: Lease, chunks: Chunks) -> Append:
        """Store chunks at the lease's offset."""
        return Append(self.keys, self._limits, self._grace, lease, chunks)

    def renew(self, lease: Lease) -> Call:
        """Renew a lease; see `renewal_error`."""
        life = milliseconds(lease.ttl)
        return script("renew", self.keys.of(lease.stream_id), lease.generation, lease.offset, self._grace, life)

    def finalize(self, lease: Lease, ending: Status, error: str | None) -> Call:
        """End the stream. Replies its size, else see `finalize_error`."""
        text = "" if error is None else f"={error}"  # the error may be an empty text
        arguments = lease.generation, lease.offset, ending.value, text, self._finished_ttl
        return script("finalize", self.keys.of(lease.stream_id), *arguments)

    def cancel(self, stream_id: str) -> Call:
        """End the stream as cancelled. Replies 1 if this call did it."""
        return script("cancel", self.keys.of(stream_id), secrets.token_hex(16), self._finished_ttl)

    def delete(self, stream_id: str, *, unless_whole: bool = False) -> Call:
        """Remove the stream. Replies 1 if it was there. `unless_whole`: only an expired or a damaged one."""
        return script("delete", self.keys.of(stream_id), secrets.token_hex(16), int(unless_whole))

    def info(self, stream_id: str) -> Call:
        """All that is known of the stream; see `parse_info`. Ends it if its producer is dead."""
        return script("info", self.keys.of(stream_id), self._finished_ttl)

    def state(self, stream_id: str, position: Position | None) -> Call:
        """How the stream stands; see `parse_snapshot`. Ends one whose producer is dead, unless there is something
        to read after `position`."""
        generation, offset = position or ("", 0)
        return script("state", self.keys.of(stream_id), generation, offset, self._finished_ttl)

    def check(self, stream_id: str) -> Call:
        """As `state`, whatever is left to read."""
        return script("state", self.keys.of(stream_id), "", _BEYOND_ALL, self._finished_ttl)

    def rows(self, stream_id: str, start: Position, max_bytes: int) -> Call:
        """The rows after `start`, until `max_bytes` and the rest of a page. Their ids are their ends."""
        return self._range(stream_id, start, start.offset + max_bytes + PAGE_BYTES, _ROWS)

    def next_row(self, stream_id: str, start: Position) -> Call:
        """The one row after `start`, however large it is."""
        return self._range(stream_id, start, _LAST_OFFSET, 1)

    def _range(self, stream_id: str, start: Position, end: int, count: int) -> Call:
        log = self.keys.log(stream_id)
        last = f"{start.generation}-{min(end, _LAST_OFFSET)}"
        return Call(log, ("XRANGE", log, f"({start}", last, "COUNT", count))


class Append:
    """One stream's part of a group commit. `call` is None if it was refused before: then `error` tells why."""

    def __init__(self, keys: Keys, limits: Limits, grace: int, lease: Lease, chunks: Chunks) -> None:
        self.lease = lease
        self.rows: list[Page] = []
        self.error: ResumableStreamError | None = None
        self.call: Call | None = None
        self._limits = limits
        self._length = sum(map(len, chunks))
        self._count = len(chunks)
        try:
            limits.check_chunks(chunks)
        except LimitExceededError as error:
            self.error = error
            return
        self.rows = pages.pack(chunks, lease.offset)
        arguments: list[Argument] = [
            lease.generation,
            lease.offset,
            self._length,
            self._count,
            limits.max_stream_bytes,
            limits.max_entries,
            grace,
            milliseconds(lease.ttl),
        ]
        for _, payload, lengths in self.rows:
            arguments += (payload, lengths or b"")
        self.call = script("append", keys.of(lease.stream_id), *arguments)

    def record(self, reply: Any) -> ResumableStreamError | None:
        """Record what the script replied: the lease advances, or the error is returned."""
        if isinstance(reply, int):
            self.lease.offset += self._length
            return None
        found = parse_snapshot(self.lease.stream_id, reply)
        state = _state(found)
        if isinstance(found, ResumableStreamError) and not isinstance(found, StreamNotFoundError):
            return found
        error = base.append_error(self.lease, state, self._length)
        if error is None and state is not None and state.size == self.lease.offset:
            try:
                size, entries = state.size + self._length, state.entries + self._count
                self._limits.check_room(self.lease.stream_id, size, entries)
            except LimitExceededError as limit:
                return limit
        return error or conflict(self.lease)


def renewal_error(lease: Lease, reply: Any) -> ResumableStreamError | None:
    """Why a renewal was refused; None if it was not."""
    if isinstance(reply, int):
        return None
    found = parse_snapshot(lease.stream_id, reply)
    if isinstance(found, ResumableStreamError) and not isinstance(found, StreamNotFoundError):
        return found
    return ownership_error(lease, _state(found)) or conflict(lease)


def finalize_error(lease: Lease, reply: Any, ending: Status) -> ResumableStreamError | None:
    """Why an ending was refused; None if it was not."""
    if isinstance(reply, int):
        return None
    found = parse_snapshot(lease.stream_id, reply)
    if isinstance(found, ResumableStreamError) and not isinstance(found, StreamNotFoundError):
        return found
    return base.finalize_error(lease, _state(found), ending) or conflict(lease)


def _state(found: Snapshot | ResumableStreamError) -> Snapshot | None:
    return found if isinstance(found, Snapshot) else None


def parse_snapshot(stream_id: str, reply: Any) -> Snapshot | ResumableStreamError:
    """How the stream stands, from the reply of `state` or a refusal (which lacks error and due); or the error
    that the reply is: StreamNotFoundError, StreamLostError, StoreUnavailableError."""
    if isinstance(reply, Exception):
        return as_error(reply)
    if reply[0] == b"missing":
        return StreamNotFoundError(f"there is no stream {stream_id}")
    if reply[0] != b"found":
        return StreamLostError(f"stream {stream_id} is damaged: Redis evicted or trimmed a part of it")
    generation, status, size, entries = reply[1:5]
    error, due = reply[5:7] if len(reply) > 5 else (b"", 0)
    return Snapshot(
        int(generation),
        Status(status.decode("ascii")),
        int(size),
        int(entries),
        parse_error_text(error),
        int(due) / 1000,
    )


def parse_error_text(stored: bytes) -> str | None:
    """An ending's error text, from how the scripts keep it: nothing for none, else "=" and the text."""
    return stored[1:].decode("utf-8", "replace") if stored else None


def parse_info(stream_id: str, reply: Any) -> StreamInfo | None:
    """The public snapshot from the reply of `info`; None for a missing or damaged stream. Raises other errors."""
    if isinstance(reply, Exception):
        error = as_error(reply)
        if isinstance(error, StreamLostError):
            return None
        raise error
    if reply[0] != b"found":
        return None
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
        error=parse_error_text(meta["error"]),
        metadata=json.loads(meta["metadata"]),
        producer_alive=status is Status.STREAMING,
    )


def parse_rows(reply: Any, size: int) -> list[Page]:
    """The rows up to offset `size` as pages. StreamLostError if one is none: somebody else wrote into the log."""
    if isinstance(reply, Exception):
        raise as_error(reply)
    try:
        rows = [(int(row_id[row_id.index(b"-") + 1 :]), fields) for row_id, fields in reply]
        if any(fields[0] != b"p" for _, fields in rows):
            raise ValueError("not a row of chunks")
        return [(end, fields[1], fields[3] if len(fields) > 3 else None) for end, fields in rows if end <= size]
    except (ValueError, IndexError, TypeError) as wrong:
        raise StreamLostError(f"the stream's log holds what is not of it: {wrong}") from wrong


def milliseconds(seconds: float) -> int:
    """Seconds as the scripts take them."""
    return max(1, round(seconds * 1000))
