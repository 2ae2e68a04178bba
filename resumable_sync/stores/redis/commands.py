"""What the Redis store asks about one stream: each command, and what its reply means.

Nothing here asks Redis, but for `fetch`. A reply is a value of redis-py with strings as bytes, or the
ResumableStreamError that stands for it; see `Link.run`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ...contract import Batch, Lease, Position, Status, StreamInfo, new_token
from ...errors import (
    ConflictError,
    LimitExceededError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamLostError,
    StreamNotFoundError,
)
from .. import base, notes, pages
from ..base import MAX_EMPTY_TERMS, Chunks, Limits, Snapshot, conflict_error, ownership_error, start_position
from ..notes import MAX_NOTES, MAX_NOTES_BYTES, Commit, Creation, check_room_for_notes, commit_error
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

    def acquire(
        self,
        stream_id: str,
        token: str,
        ttl: float,
        metadata: str,
        restart: Collection[Status],
        handover: float = 0.0,
    ) -> Call:
        """Elect a producer, with `token` as its fence. Replies the new generation, or 0 if the id is taken."""
        endings = " ".join(sorted(ending.value for ending in restart))
        return script(
            "acquire",
            self.keys.of(stream_id),
            token,
            self._grace,
            _handover(handover),
            milliseconds(ttl),
            self._life(ttl, handover),
            self._finished_ttl,
            metadata,
            endings,
        )

    def take_over(self, stream_id: str, generation: int, token: str) -> Call:
        """Begin the next term, with `token` as its fence; see `parse_takeover`."""
        keys = self.keys.of(stream_id)
        return script("take_over", keys, generation, token, self._grace, self._finished_ttl, MAX_EMPTY_TERMS)

    def release(self, lease: Lease) -> Call:
        """Let go of the stream. Replies when, in the server's ms; else see `renewal_error`."""
        return script(
            "release",
            self.keys.of(lease.stream_id),
            lease.generation,
            lease.token,
            lease.released,
            lease.offset,
            _handover(lease.handover),
            self._grace,
            self._finished_ttl,
        )

    def orphan(self, stream_id: str) -> Call:
        """When the stream waits to be taken over: ms from now, or text that is empty if it never will."""
        return script("orphan", self.keys.of(stream_id), self._finished_ttl)

    def create(self, creation: Creation, token: str) -> Call:
        """Begin a shared stream, with `token` as its fence. Replies as `info`, or 0 if the id is taken."""
        return script(
            "create",
            self.keys.of(creation.stream_id),
            token,
            milliseconds(creation.ttl),
            int(creation.sliding),
            self._finished_ttl,
            json.dumps(creation.metadata),
            "" if creation.ending is None else creation.ending.value,
            len(creation.chunks),
            *_noted(creation.stream_id, creation.notes),
            *_as_notes(creation.notes),
            *_as_rows(pages.pack(creation.chunks, 0)),
        )

    def commit(self, commit: Commit) -> Committing:
        """Store what it says in one step."""
        return Committing(self.keys, self._limits, commit)

    def touch(self, stream_id: str) -> Call:
        """Renew the stream's life if it is sliding. Replies 1 if it is there."""
        return script("touch", self.keys.of(stream_id), self._grace, self._finished_ttl)

    def append(self, lease: Lease, chunks: Chunks, notes: Mapping[str, str | None] | None = None) -> Append:
        """Store the chunks, at the lease's offset or not at all."""
        life = self._life(lease.ttl, lease.handover)
        return Append(self.keys, self._limits, self._grace, life, lease, chunks, notes or {})

    def renew(self, lease: Lease) -> Call:
        """Renew lease and ttl; see `renewal_error`."""
        keys, life = self.keys.of(lease.stream_id), self._life(lease.ttl, lease.handover)
        handover = _handover(lease.handover)
        return script("renew", keys, lease.generation, lease.token, lease.offset, self._grace, handover, life)

    def finalize(
        self,
        lease: Lease,
        ending: Status,
        message: str | None,
        notes: Mapping[str, str | None] | None = None,
    ) -> Call:
        """End the stream. Replies its size; else see `finalize_error`."""
        return script(
            "finalize",
            self.keys.of(lease.stream_id),
            lease.generation,
            lease.token,
            lease.offset,
            ending.value,
            _as_message(message),
            self._finished_ttl,
            len(notes or ()),
            MAX_NOTES,
            MAX_NOTES_BYTES,
            *_as_notes(notes or {}),
        )

    def cancel(self, stream_id: str) -> Call:
        """End the stream as cancelled. Replies 1 if this did it."""
        return script("cancel", self.keys.of(stream_id), secrets.token_hex(16), self._finished_ttl)

    def delete(self, stream_id: str, *, only_remains: bool = False) -> Call:
        """Remove the stream; `only_remains`: if it has expired or is damaged. Replies 1 if it was there."""
        return script("delete", self.keys.of(stream_id), secrets.token_hex(16), int(only_remains))

    def info(self, stream_id: str, *, with_notes: bool = False) -> Call:
        """All that is known of the stream; see `parse_info`. Ends it if its producer is dead."""
        return script("info", self.keys.of(stream_id), self._finished_ttl, int(with_notes))

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

    def _life(self, ttl: float, handover: float) -> int:
        """As `BaseStore._life`, in ms."""
        life = milliseconds(ttl)
        return max(life, self._grace + milliseconds(handover)) if handover else life


class Append:
    """One stream's part of a group commit. `call` is None if it was refused before: then `error` tells why."""

    def __init__(
        self,
        keys: Keys,
        limits: Limits,
        grace: int,
        life: int,
        lease: Lease,
        chunks: Chunks,
        notes: Mapping[str, str | None],
    ) -> None:
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
        head = (
            lease.generation,
            lease.token,
            lease.offset,
            self._count,
            limits.max_stream_bytes,
            limits.max_entries,
            grace,
            _handover(lease.handover),
            life,
            len(notes),
        )
        arguments: list[Argument] = list(map(str, head))  # in one go: `_Packer` would look at each
        if notes:
            arguments += (MAX_NOTES, MAX_NOTES_BYTES, *_as_notes(notes))
        for _, payload, lengths in self.rows:
            arguments += (payload, lengths or b"")
        self.call = script("append_noted" if notes else "append", keys.of(lease.stream_id), *arguments)

    def acknowledge(self, reply: Any) -> ResumableStreamError | None:
        """Advance the lease, or say why the append was refused."""
        if isinstance(reply, int):
            self.lease.offset += self._length
            return None
        found = _refusal(self.lease, reply)
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


class Stored(NamedTuple):
    """What became of a commit."""

    generation: int
    size: int
    """Of the stream, after the chunks."""
    rows: list[Page]


class Committing:
    """A commit on its way. `fenced`: it may be repeated though an attempt may have been carried out."""

    def __init__(self, keys: Keys, limits: Limits, commit: Commit) -> None:
        self._commit = commit
        self._limits = limits
        self._error: LimitExceededError | None = None  # what refuses it if nothing before does
        self._rows = pages.pack(commit.chunks, 0)
        max_bytes = limits.max_stream_bytes
        try:
            limits.check_chunks(commit.chunks)
        except LimitExceededError as error:
            self._error, max_bytes = error, -1  # the script refuses it, in its turn
        self.fenced = bool(commit.fencing)
        self.call = script(
            "commit",
            keys.of(commit.stream_id),
            "" if commit.generation is None else commit.generation,
            commit.length,
            len(commit.chunks),
            max_bytes,
            limits.max_entries,
            "" if commit.ending is None else commit.ending.value,
            _as_message(commit.error),
            new_token() if self.fenced else "",
            MAX_NOTES,
            MAX_NOTES_BYTES,
            len(commit.expect),
            len(commit.notes),
            *_as_notes(commit.expect),
            *_as_notes(commit.notes),
            *(() if self._error else _as_rows(self._rows)),
        )

    def result(self, reply: Any, doubtful: bool) -> Stored:
        """What was stored; raises what refused it. `doubtful`: an attempt before this reply may have been carried
        out."""
        if isinstance(reply, StoreUnavailableError):
            reply.fate_unknown = doubtful
        if isinstance(reply, ResumableStreamError):
            raise reply
        try:
            return self._result(reply, doubtful)
        except (ValueError, TypeError, IndexError) as wrong:  # others, on the same trip, are not to suffer from it
            raise _damaged_error(self._commit.stream_id) from wrong

    def _result(self, reply: Any, doubtful: bool) -> Stored:
        kind = reply[0]
        if kind == b"stored":
            generation, size = int(reply[1]), int(reply[2])
            begin = size - self._commit.length
            return Stored(generation, size, [(begin + end, data, lengths) for end, data, lengths in self._rows])
        stream_id = self._commit.stream_id
        if kind == b"damaged":
            raise _damaged_error(stream_id)
        if kind == b"missing":
            raise StreamNotFoundError(f"there is no stream {stream_id}")
        error = self._refused(reply)
        if doubtful and isinstance(error, ConflictError):
            # Somebody may have set the notes after an attempt that was carried out.
            raise StoreUnavailableError(
                f"Redis: whether the commit to {stream_id} was stored is not known", fate_unknown=True
            ) from error
        raise error

    def _refused(self, reply: Sequence[bytes]) -> ResumableStreamError:
        generation, status, size, entries, shared, count, noted = reply[1:8]
        state = _Shared(int(generation), Status(status.decode("ascii")), int(size), shared == b"1")
        values = zip(self._commit.expect, reply[8:])
        present = {name: value[1:].decode("utf-8") for name, value in values if value}
        error = commit_error(self._commit, state, lambda names: present) or self._error
        if error is not None:
            return error
        try:
            if self._commit.chunks:
                chunks = int(entries) + len(self._commit.chunks)
                self._limits.check_room(self._commit.stream_id, state.size + self._commit.length, chunks)
            check_room_for_notes(self._commit.stream_id, int(count), int(noted))
        except LimitExceededError as limit:
            return limit
        return StoreUnavailableError(f"Redis: the commit to {self._commit.stream_id} was refused: {reply!r:.200}")


class _Shared(NamedTuple):
    """What decides on a commit; see SharedState."""

    generation: int
    status: Status
    size: int
    shared: bool


def parse_takeover(stream_id: str, generation: int, token: str, reply: Any) -> Lease | None:
    """The lease of the new term; None if there was nothing to take over."""
    if not reply:
        return None
    size, term, ttl, handover = map(int, reply)
    return Lease(stream_id, generation, ttl / 1000, size, token, term, handover / 1000)


def renewal_error(lease: Lease, reply: Any) -> ResumableStreamError | None:
    """Why a renewal, or a release, was refused; None if it was not."""
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
    found = _refusal(lease, reply)
    if isinstance(found, ResumableStreamError):
        return found
    return base.finalize_error(lease, found, ending) or conflict_error(lease)


def parse_snapshot(reply: Any) -> Snapshot | ResumableStreamError | None:
    """How a stream stands, as `state` and refusals tell it; None if it is missing or damaged."""
    if isinstance(reply, ResumableStreamError):
        return reply
    if reply[0] != b"found":
        return None
    generation, status, size, entries, error, valid_for = reply[1:7]
    fence = reply[7] if len(reply) > 7 else b""  # only a refused caller is told
    return Snapshot(
        int(generation),
        Status(status.decode("ascii")),
        int(size),
        int(entries),
        parse_message(error),
        int(valid_for) / 1000,
        fence.decode("utf-8", "replace"),
    )


def parse_info(stream_id: str, reply: Sequence[bytes]) -> StreamInfo | None:
    """The public snapshot, from the fields of `meta`; None if the stream is missing, or damaged in what its bytes
    depend on. StreamLostError if another field is none of the scripts'. With the notes, if they were asked for."""
    if reply[0] != b"found":
        return None
    try:
        return _parse_info(stream_id, reply)
    except (ValueError, TypeError, IndexError, KeyError, ResumableStreamError) as wrong:
        raise _damaged_error(stream_id) from wrong


def _parse_info(stream_id: str, reply: Sequence[bytes]) -> StreamInfo:
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
        metadata=base.check_metadata(json.loads(meta["metadata"])),
        producer_alive="alive" in meta,
        shared="shared" in meta,
        term=int(meta.get("term", 1)),
        handover=int(meta.get("handover", 0)) / 1000,
        ttl=int(meta["ttl"]) / 1000,
        sliding=meta.get("sliding") != b"0",
        notes={
            name[2:]: value.split(b":", 2)[2].decode("utf-8") for name, value in meta.items() if name[:2] == "n:"
        },
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
            raise _damaged_error(stream_id)
        raise StreamNotFoundError(f"there is no stream {stream_id}")
    start = start_position(stream_id, found, position)
    parts: Sequence[bytes] = ()
    lengths: Sequence[int] = ()
    if start.offset < found.size:
        if position is None:
            replies += link.run([commands.rows(stream_id, start, max_bytes)])
        rows = parse_rows(replies[1], found.size)
        if not rows:  # a chunk that is larger than the range
            reply = link.run([commands.rows(stream_id, start, _LAST_OFFSET, count=1)])[0]
            rows = parse_rows(reply, found.size)
        parts, lengths = pages.unpack(rows, start.offset, max_bytes)
    return Batch(start, parts, lengths, size=found.size, status=found.status, error=found.error), found.valid_for


def _damaged_error(stream_id: str) -> StreamLostError:
    return StreamLostError(f"stream {stream_id} is damaged: a part of it was evicted, trimmed or replaced")


def _refusal(lease: Lease, reply: Any) -> Snapshot | ResumableStreamError | None:
    """As `parse_snapshot`; notes may be what refuses."""
    if isinstance(reply, list) and reply[0] == b"notes":
        try:
            check_room_for_notes(lease.stream_id, reply[1], reply[2])
        except LimitExceededError as error:
            return error
    return parse_snapshot(reply)


def _handover(seconds: float) -> int:
    """As the scripts take it: ms, 0 for none."""
    return milliseconds(seconds) if seconds else 0


def _noted(stream_id: str, first: Mapping[str, str]) -> tuple[int, int]:
    """How many notes these are, and their bytes. LimitExceededError if they are too many for a stream."""
    notes.with_notes(stream_id, {}, first)
    return len(first), sum(len(name) + len(value.encode("utf-8")) for name, value in first.items())


def _as_notes(values: Mapping[str, str | None]) -> list[Argument]:
    """As notes.lua takes them."""
    arguments: list[Argument] = []
    for name, value in values.items():
        arguments += (name, "" if value is None else f"={value}")
    return arguments


def _as_rows(rows: Sequence[Page]) -> list[Argument]:
    """As rows.lua takes them."""
    return [argument for _, payload, lengths in rows for argument in (payload, lengths or b"")]


def _as_message(error: str | None) -> str:
    """The reverse of `parse_message`."""
    return "" if error is None else f"={error}"
