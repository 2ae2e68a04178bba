"""GET and HEAD: what is stored after an offset, at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..context import ResumableStreamContext
from ..contract import Batch, Position, SharedStore, Status, StreamInfo
from ..errors import InvalidCursorError, StoreUnavailableError, StreamLostError, StreamNotFoundError
from ..wsgi.headers import Headers
from . import json_messages
from .answers import CLOSED, ENDING, EXPIRES_AT, NEXT_OFFSET, TTL, UP_TO_DATE, Answer, Refusal, gone
from .forks import Forks
from .offsets import Token, parse_token
from .streams import Remembered, Stream, ending_of

LIVE_MODES = ("long-poll", "sse")

_ROUNDS = 20  # in which a stream may be deleted and made anew while it is read
_ETAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True)
class Asked:
    """What a request wants to read."""

    now: bool
    """From the tail on."""
    token: Token | None
    """After this offset; None: from the start."""
    live: str | None
    cursor: str
    """The `Stream-Cursor` that the client has; empty if none."""


def parse(query: Mapping[str, list[str]]) -> Asked:
    """What the query says. Refusal 400."""
    offsets, lives = query.get("offset", []), query.get("live", [])
    if len(offsets) > 1 or len(lives) > 1 or offsets == [""]:
        raise Refusal(400, "invalid offset")
    if lives and (not offsets or lives[0] not in LIVE_MODES):
        raise Refusal(400, "live needs an offset, and is long-poll or sse")
    now = offsets == ["now"]
    token = parse_token(offsets[0]) if offsets and not now else None
    return Asked(now, token, lives[0] if lives else None, query.get("cursor", [""])[-1])


@dataclass(frozen=True)
class Reading:
    """What was found after an offset."""

    stream: Stream
    batch: Batch

    @property
    def start(self) -> str:
        """The token before the data."""
        return self.stream.lineage.token(self.batch.offset - len(self.batch.data))

    @property
    def next_offset(self) -> str:
        """The token after it."""
        return self.stream.lineage.token(self.batch.offset)

    @property
    def at_tail(self) -> bool:
        """Whether nothing more is stored."""
        return self.batch.offset == self.batch.size

    @property
    def closed(self) -> bool:
        """Whether nothing more will come, and the stream is complete."""
        return self.at_tail and self.batch.status is Status.DONE

    @property
    def ending(self) -> str:
        """See `ending_of`."""
        return ending_of(self.batch.status)

    def refuse_incomplete(self) -> None:
        """Refusal 410 at the tail of a stream that did not end as `done`: it must not look complete."""
        if self.ending and not self.batch.data:
            raise gone(self.ending)

    def body(self) -> bytes:
        """The data as it is sent: of JSON an array."""
        if self.stream.is_json:
            return json_messages.join_messages(entry.chunk for entry in self.batch.entries)
        return self.batch.data

    def headers(self) -> Headers:
        """Where the reader is then. At the tail of a stream that failed it is not up to date: it is to ask again,
        and to be told."""
        headers = [("Content-Type", self.stream.content_type), (NEXT_OFFSET, self.next_offset)]
        if self.at_tail and not self.ending:
            headers.append((UP_TO_DATE, "true"))
        if self.closed:
            headers.append((CLOSED, "true"))
        return headers


class Reads:
    """Answers GET without `live`, and HEAD; finds what live readers begin with. Thread-safe; blocks for the
    store."""

    def __init__(
        self,
        context: ResumableStreamContext,
        shared: SharedStore,
        remembered: Remembered,
        forks: Forks,
        read_bytes: int,
        cache_control: str,
    ) -> None:
        self._context = context
        self._store = context.store
        self._shared = shared
        self._remembered = remembered
        self._forks = forks
        self._read_bytes = read_bytes
        self._cache_control = cache_control

    def head(self, stream_id: str) -> Answer:
        """Where the stream stands."""
        info = self._forks.refuse_deleted(self._store.info(stream_id))
        stream = self._remembered.learn(info)
        headers = [
            ("Content-Type", stream.content_type),
            (NEXT_OFFSET, stream.lineage.token(info.size)),
            ("Cache-Control", "no-store"),
        ]
        life = stream.configuration
        if life is not None and life.ttl is not None:
            headers.append((TTL, life.ttl))
        if life is not None and life.expires_at is not None:
            headers.append((EXPIRES_AT, life.expires_at))
        if info.status is Status.DONE:
            headers.append((CLOSED, "true"))
        if ending_of(info.status):
            headers.append((ENDING, ending_of(info.status)))
        return Answer(200, headers)

    def get(self, stream_id: str, asked: Asked, if_none_match: str | None) -> Answer:
        """What is stored after the offset, up to `read_bytes`."""
        reading = self.open(stream_id, asked)
        reading.refuse_incomplete()
        if asked.now:
            body = reading.body()
            return self._ok(reading, body, [("Cache-Control", "no-store")])
        closed = "-closed" if reading.closed else ""
        etag = f'"{reading.stream.generation}-{reading.start}-{reading.next_offset}{closed}"'
        headers = [("ETag", etag), ("Cache-Control", self._cache_control)]
        if if_none_match is not None and _matches(if_none_match, etag):
            return Answer(304, [*headers, *reading.headers()[1:]])
        return self._ok(reading, reading.body(), headers)

    def _ok(self, reading: Reading, body: bytes, headers: Headers) -> Answer:
        return Answer(200, [*reading.headers(), ("Content-Length", str(len(body))), *headers], [body])

    def open(self, stream_id: str, asked: Asked) -> Reading:
        """What is stored after the offset, and the life renewed. Refusal: 404, 400, 410."""
        for _ in range(_ROUNDS):
            known = None if asked.now else self._remembered.get(stream_id)
            info = None
            if known is None:
                info = self._fetch(stream_id)
                known = self._remembered.learn(info)
            try:
                reading = self._read(known, info, asked)
            except _Replaced:
                self._remembered.forget(known)
                continue
            if reading is not None:
                known.renew(self._shared)
                return reading
        raise StoreUnavailableError(f"stream {stream_id} was deleted and made anew again and again")

    def _fetch(self, stream_id: str) -> StreamInfo:
        return self._forks.refuse_deleted(self._store.info(stream_id))

    def _read(self, stream: Stream, info: StreamInfo | None, asked: Asked) -> Reading:
        """`info`: of this very request; else the stream is only remembered."""
        if asked.now and info is not None:
            offset = info.size
        else:
            found = stream.lineage.offset(asked.token)
            if found is None:
                if info is None:
                    raise _Replaced
                raise gone()
            offset = found
        try:
            batch = self._read_after(stream, offset)
        except (StreamLostError, StreamNotFoundError) as lost:
            raise _Replaced from lost
        except InvalidCursorError as error:
            raise Refusal(400, "the offset is beyond the tail") from error
        if batch.status.ended and info is None and stream.configuration is not None:
            # It may be deleted, and there only for its forks: that stands in its notes.
            if self._fetch(stream.stream_id).generation != stream.generation:
                raise _Replaced
        return Reading(stream, batch)

    def _read_after(self, stream: Stream, offset: int) -> Batch:
        """What is stored after `offset`. Of JSON only whole messages: Refusal 400 for an offset within one."""
        one_before = 1 if stream.is_json and offset else 0
        cursor = f"{stream.generation}-{offset - one_before}"
        batch = self._store.read(stream.stream_id, cursor, max_bytes=self._read_bytes + one_before)
        if not one_before:
            return batch
        lengths = [len(entry.chunk) for entry in batch.entries]
        if not lengths:
            raise InvalidCursorError("beyond the tail")
        if lengths[0] != 1:
            raise Refusal(400, "the offset is within a message")
        return Batch(
            Position(stream.generation, offset),
            batch.data[1:],
            lengths[1:],
            size=batch.size,
            status=batch.status,
            error=batch.error,
        )


class _Replaced(Exception):
    """What was remembered of a stream does not hold any more."""


def _matches(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in _ETAG.findall(header)
