"""PUT: creates a stream, with a body or closed at once or as a fork, or finds it as it was asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..contract import SharedStore, Status, Store, StreamInfo
from ..errors import StoreUnavailableError
from ..stores.base import MAX_TTL
from ..wsgi.headers import CONTENT_TYPE_KEY, Headers
from .answers import CLOSED, NEXT_OFFSET, Answer, Refusal
from .forks import Forks
from .incoming import (
    DEFAULT_TYPE,
    Request,
    check_ttl,
    parse_fork_header,
    parse_instant,
    parse_whole,
)
from .offsets import parse_token
from .streams import Configuration, Origin, Remembered, Stream, ending_of, is_deleted, media_type, new_metadata
from .writes import chunks_of

_LEAST_TTL = 0.001
_ROUNDS = 20


@dataclass(frozen=True)
class Asked:
    """What a request wants to create."""

    content_type: str | None
    ttl: str | None
    expires_at: str | None
    closed: bool
    source_id: str | None
    fork_offset: str | None
    sub: int


def parse(request: Request) -> Asked:
    """What the headers say. Refusal 400."""
    ttl, expires_at = request.header("Stream-TTL"), request.header("Stream-Expires-At")
    if ttl is not None and expires_at is not None:
        raise Refusal(400, "Stream-TTL and Stream-Expires-At exclude each other")
    if ttl is not None:
        check_ttl(ttl)
    if expires_at is not None:
        parse_instant(expires_at)
    source_id = request.source_id()
    offset = parse_fork_header(request, "Stream-Fork-Offset")
    sub = parse_fork_header(request, "Stream-Fork-Sub-Offset")
    if source_id is None and (offset is not None or sub is not None):
        raise Refusal(400, "fork headers need Stream-Forked-From")
    if offset is not None:
        parse_token(offset)
    return Asked(
        request.content_type,
        ttl,
        expires_at,
        request.closes,
        source_id,
        offset,
        0 if sub is None else parse_whole(sub, "Stream-Fork-Sub-Offset"),
    )


class Creations:
    """Answers PUT. Thread-safe; blocks for the store."""

    def __init__(
        self, store: Store, shared: SharedStore, remembered: Remembered, forks: Forks, default_ttl: float | None
    ) -> None:
        self._store = store
        self._shared = shared
        self._remembered = remembered
        self._forks = forks
        self._default_ttl = default_ttl

    def put(self, request: Request, asked: Asked) -> Answer:
        """The stream as it was asked for: 201 if this call has created it, 200 if it was there; Refusal 409 if it
        is there otherwise."""
        body = request.body()
        for _ in range(_ROUNDS):
            info = self._store.info(request.stream_id)
            if info is not None and is_deleted(info.notes):
                if self._forks.living(info):
                    raise Refusal(409, "stream is gone")
                self._forks.remove(info)
                info = self._store.info(request.stream_id)
            if info is not None:
                if is_deleted(info.notes):
                    time.sleep(0.01)  # somebody else is about to remove it
                    continue
                self._compare(asked, info)
                return self._answer(200, request, info)
            info = self._create(request, asked, body)
            if info is not None:
                return self._answer(201, request, info)
        raise StoreUnavailableError(f"stream {request.stream_id} was created and deleted again and again")

    def _create(self, request: Request, asked: Asked, body: bytes) -> StreamInfo | None:
        if asked.source_id is None:
            content_type = asked.content_type or DEFAULT_TYPE
            chunks: list[bytes] = []
            configuration, source = Configuration(asked.ttl, asked.expires_at), None
        else:
            source = self._source(asked.source_id)
            content_type, configuration, chunks = self._fork(asked, source)
        if body:
            chunks = [*chunks, *chunks_of(body, content_type, self._store.max_chunk_bytes)]
        ttl, sliding = self._life(configuration)
        info = self._shared.create(
            request.stream_id,
            *chunks,
            ttl=ttl,
            sliding=sliding,
            metadata=new_metadata(content_type, configuration),
            ending=Status.DONE if asked.closed else None,
        )
        if info is not None:
            self._remembered.learn(info).renewed = time.monotonic()
        if info is not None and source is not None and Stream.of(source).configuration is not None:
            self._forks.tell_source(source, info)
        return info

    def _source(self, source_id: str) -> StreamInfo:
        source = self._forks.refuse_deleted(self._store.info(source_id), 409)
        self._forks.check_room(source)
        return source

    def _fork(self, asked: Asked, source: StreamInfo) -> tuple[str, Configuration, list[bytes]]:
        stream = self._remembered.learn(source)
        content_type = asked.content_type or stream.content_type
        if media_type(content_type) != stream.media_type:
            raise Refusal(409, "the source has another content type")
        origin = self._forks.origin(source, stream, asked.fork_offset, asked.sub)
        chunks = self._forks.copy(source, stream, origin)
        own_life = asked.ttl is not None or asked.expires_at is not None
        life = (asked.ttl, asked.expires_at)
        if not own_life and stream.configuration is not None:
            life = (stream.configuration.ttl, stream.configuration.expires_at)
        inherited = stream.lineage.until(sum(map(len, chunks)))
        return content_type, Configuration(*life, own_life, origin, inherited, stream.depth + 1), chunks

    def _life(self, configuration: Configuration) -> tuple[float, bool]:
        """Seconds, and whether requests renew them."""
        if configuration.expires_at is not None:
            seconds, fraction = parse_instant(configuration.expires_at)
            left = seconds + float(f"0.{fraction or 0}") - time.time()
            return min(max(left, _LEAST_TTL), MAX_TTL), False
        if configuration.ttl is not None:
            return min(max(float(configuration.ttl), _LEAST_TTL), MAX_TTL), True
        return MAX_TTL if self._default_ttl is None else self._default_ttl, True

    def _compare(self, asked: Asked, info: StreamInfo) -> None:
        """Refusal 409 unless the stream is as it was asked for."""
        stream = self._remembered.learn(info)
        found = stream.configuration
        if found is None:
            raise Refusal(409, "the id is taken by another kind of stream")
        same = (
            _same_type(asked, stream)
            and _same_life(asked, found)
            and asked.closed == (info.status is Status.DONE)
            and not ending_of(info.status)
            and _same_origin(asked, found.origin, stream)
        )
        if not same:
            headers: Headers = [(CLOSED, "true")] if info.status is Status.DONE else []
            raise Refusal(409, "the stream exists with another configuration", headers)

    def _answer(self, status: int, request: Request, info: StreamInfo) -> Answer:
        stream = self._remembered.learn(info)
        headers = [
            ("Content-Type", info.metadata.get(CONTENT_TYPE_KEY, DEFAULT_TYPE)),
            (NEXT_OFFSET, stream.lineage.token(info.size)),
            ("Cache-Control", "no-store"),
            ("Content-Length", "0"),
            ("Location", request.location),
        ]
        if info.status is Status.DONE:
            headers.append((CLOSED, "true"))
        return Answer(status, headers)


def _same_type(asked: Asked, stream: Stream) -> bool:
    if asked.content_type is None and asked.source_id is not None:
        return True  # a fork has its source's
    return media_type(asked.content_type or DEFAULT_TYPE) == stream.media_type


def _same_life(asked: Asked, found: Configuration) -> bool:
    if asked.ttl is None and asked.expires_at is None:
        return not found.own_life or (found.ttl is None and found.expires_at is None)
    if asked.expires_at is not None:
        return found.expires_at is not None and parse_instant(asked.expires_at) == parse_instant(found.expires_at)
    return asked.ttl == found.ttl


def _same_origin(asked: Asked, found: Origin | None, stream: Stream) -> bool:
    if asked.source_id is None or found is None:
        return asked.source_id is None and found is None
    if asked.source_id != found.stream_id or asked.sub != found.sub:
        return False
    return asked.fork_offset is None or stream.lineage.offset(parse_token(asked.fork_offset)) == found.at
