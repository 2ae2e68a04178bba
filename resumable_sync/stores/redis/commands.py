"""What the Redis store asks about one stream: each command, and what its reply means.

Nothing here asks Redis, but for `fetch`. A reply is a value of redis-py with strings as bytes, or the
ResumableStreamError that stands for it; see `Link.run`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from ...contract import Batch, Lease, Position, Status, StreamInfo
from ...errors import LimitExceededError, ResumableStreamError, StreamLostError, StreamNotFoundError
from .. import base, pages
from ..base import Chunks, Limits, Snapshot, conflict_error, ownership_error, start_position
from ..pages import PAGE_BYTES, Page
from .connection import Link
from .keys import Keys
from .scripts import Argument, Call, script

_MAX_ROWS = 1000  # that one trip brings
_LAST_OFFSET = 2**63
_NOWHERE = 2**53  # as an offset: after every stream's end


class Commands:
    """Makes the commands of a store with these settings. Immutable; thread-safe.

    `grace` and `finished_ttl` are in seconds; `finished_ttl` None: as the stream's own ttl.
    """

    def __init__(self, keys: Keys, limits: Limits, grace: float, finished_ttl: float | None) -> None:
        self.keys = keys
        self._limits = limits
        self._grace = milliseconds(grace)
        self._finished_ttl: Argument = "" if finished_ttl is None else milliseconds(finished_ttl)

    def acquire(self, stream_id: str, ttl: float, metadata: str, restart: Collection[Status]) -> Call:
        """Elect a producer. Replies the new generation, or 0 if the id is taken."""
        keys, life = self.keys.of(stream_id), milliseconds(ttl)
        endings = " ".join(sorted(ending.value for ending in restart))
        token = secrets.token_hex(16)
        return script("acquire", keys, token, self._grace, life, self._finished_ttl, metadata, endings)

    def append(self, lease: Lease, chunks: Chunks) -> Append:
        """Store the chunks, at the lease's offset or not at all."""
        return Append(self.keys, self._limits, self._grace, lease, chunks)

    def renew(self, lease: Lease) -> Call:
        """Renew lease and ttl; see `renewal_error`."""
        life = milliseconds(lease.ttl)
        return script("renew", self.keys.of(lease.stream_id), lease.generation, lease.offset, self._grace, life)

    def finalize(self, lease: Lease, ending: Status, message: str | None) -> Call:
        """End the stream. Replies its size; else see `finalize_error`."""
        keys, text = self.keys.of(lease.stream_id), _as_message(message)
        return script("finalize", keys, lease.generation, lease.offset, ending.value, text, self._finished_ttl)

    def cancel(self, stream_id: str) -> Call:
        """End the stream as cancelled. Replies 1 if this did it."""
        return script("cancel", self.keys.of(stream_id), secrets.token_hex(16), self._finished_ttl)

    def delete(self, stream_id: str, *, only_remains: bool = False) -> Call:
        """Remove the stream; `only_remains`: if it has expired or is damaged. Replies 1 if it was there."""
        return script("delete", self.keys.of(stream_id), secrets.token_hex(16), int(only_remains))

    def info(self, stream_id: str) -> Call:
        """All that is known of the stream; see `parse_info`. Ends it if its producer is dead."""
        return script("info", self.keys.of(stream_id), self._finished_ttl)

    def state(self, stream_id: str, position: Position | None) -> Call:
        """How the stream stands; see `parse_snapshot`. Ends it if its producer is dead and nothing is left to read
        after `position` (None: the start)."""
        generation, offset = position or ("", 0)
        return script("state", self.keys.of(stream_id), generation, offset, self._finished_ttl)

    def check(self, stream_id: str) -> Call:
        """As `state`, but ends the stream of a dead producer whatever is left to read."""
        return script("state", self.keys.of(stream_id), "", _NOWHERE, self._finished_ttl)

    def rows(self, stream_id: str, start: Position, max_bytes: int, count: int = _MAX_ROWS) -> Call:
        """The rows after `start`, until `max_bytes` and what is left of a page; see `parse_rows`. The ids are the
        ends of the rows."""
        end = min(start.offset + max_bytes + PAGE_BYTES, _LAST_OFFSET)
        log = self.keys.log(stream_id)
        return Call(log, ("XRANGE", log, f"({start}", f"{start.generation}-{end}", "COUNT", count))


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

    def acknowledge(self, reply: Any) -> ResumableStreamError | None:
        """Advance the lease, or say why the append was refused."""
        if isinstance(reply, int):
            self.lease.offset += self._length
            return None
        found = parse_snapshot(reply)
        if isinstance(found, ResumableStreamError):
            return found
        error = base.append_error(self.lease, found, self._length)
        if error is None and found is not None and found.size == self.lease.offset:
            try:
                size, entries = found.size + self._length, found.entries + self._count
                self._limits.check_room(self.lease.stream_id, size, entries)
            except LimitExceededError as limit:
                return limit
        return error or conflict_error(self.lease)


def renewal_error(lease: Lease, reply: Any) -> ResumableStreamError | None:
    """Why a renewal was refused; None if it was not."""
    if isinstance(reply, int):
        return None
    found = parse_snapshot(reply)
    if isinstance(found, ResumableStreamError):
        return found
    return ownership_error(lease, found) or conflict_error(lease)


def finalize_error(lease: Lease, reply: Any, ending: Status) -> ResumableStreamError | None:
    """Why an ending was refused; None if it was not."""
    if isinstance(reply, int):
        return None
    found = parse_snapshot(reply)
    if isinstance(found, ResumableStreamError):
        return found
    return base.finalize_error(lease, found, ending) or conflict_error(lease)


def parse_snapshot(reply: Any) -> Snapshot | ResumableStreamError | None:
    """How a stream stands, as `state` and refusals tell it; None if it is missing or damaged."""
    if isinstance(reply, ResumableStreamError):
        return reply
    if reply[0] != b"found":
        return None
    generation, status, size, entries = reply[1:5]
    error, valid_for = reply[5:7] or (b"", 0)
    return Snapshot(
        int(generation),
        Status(status.decode("ascii")),
        int(size),
        int(entries),
        parse_message(error),
        int(valid_for) / 1000,
    )


def parse_info(stream_id: str, reply: Sequence[bytes]) -> StreamInfo | None:
    """The public snapshot, from the fields of `meta`; None if the stream is missing or damaged."""
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
        error=parse_message(meta["error"]),
        metadata=json.loads(meta["metadata"]),
        producer_alive=status is Status.STREAMING,
    )


def parse_rows(reply: Any, size: int) -> list[Page]:
    """The rows up to offset `size` as pages. StreamLostError if one is none: somebody else wrote into the log."""
    if isinstance(reply, ResumableStreamError):
        raise reply
    try:
        rows = [(int(row_id[row_id.index(b"-") + 1 :]), fields) for row_id, fields in reply]
        if any(fields[0] != b"p" for _, fields in rows):
            raise ValueError("not a row of chunks")
        return [(end, fields[1], fields[3] if len(fields) > 3 else None) for end, fields in rows if end <= size]
    except (ValueError, IndexError, TypeError) as wrong:
        raise StreamLostError(f"the stream's log holds what is not of it: {wrong}") from wrong


def parse_message(message: bytes) -> str | None:
    """An ending's message, which the scripts keep as "" for none, else as "=" and the text, which may be empty."""
    return message[1:].decode("utf-8", "replace") if message else None


def fetch(
    link: Link, commands: Commands, stream_id: str, position: Position | None, max_bytes: int
) -> tuple[Batch, float]:
    """What Redis has after `position`, and for how many seconds that holds unless something happens.

    One trip, if a position is given and no chunk is larger than a page; else up to three. The batch is of the
    moment at which the state was taken: rows are only ever added, and newer ones are left out.
    """
    try:
        return _fetch(link, commands, stream_id, position, max_bytes)
    except StreamLostError:  # maybe only because the stream was replaced between two commands
        return _fetch(link, commands, stream_id, position, max_bytes)


def milliseconds(seconds: float) -> int:
    """Seconds as the scripts take them."""
    return max(1, round(seconds * 1000))


def _fetch(
    link: Link, commands: Commands, stream_id: str, position: Position | None, max_bytes: int
) -> tuple[Batch, float]:
    calls = [commands.state(stream_id, position)]
    if position is not None:
        calls.append(commands.rows(stream_id, position, max_bytes))
    replies = link.run(calls)
    found = parse_snapshot(replies[0])
    if isinstance(found, ResumableStreamError):
        raise found
    if found is None:
        if replies[0][0] == b"damaged":
            raise StreamLostError(f"stream {stream_id} is damaged: a part of it was evicted, trimmed or replaced")
        raise StreamNotFoundError(f"there is no stream {stream_id}")
    start = start_position(stream_id, found, position)
    data = b""
    lengths: Sequence[int] = ()
    if start.offset < found.size:
        if position is None:
            replies += link.run([commands.rows(stream_id, start, max_bytes)])
        rows = parse_rows(replies[1], found.size)
        if not rows:  # a chunk that is larger than the range
            reply = link.run([commands.rows(stream_id, start, _LAST_OFFSET, count=1)])[0]
            rows = parse_rows(reply, found.size)
        data, lengths = pages.unpack(rows, start.offset, max_bytes)
    return Batch(start, data, lengths, size=found.size, status=found.status, error=found.error), found.valid_for


def _as_message(error: str | None) -> str:
    """The reverse of `parse_message`."""
    return "" if error is None else f"={error}"
