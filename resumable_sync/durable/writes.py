"""POST: appends, closes, or both, in one commit.

What a process remembers of a stream is enough for the commit, which says what it goes by: the generation and the
notes it expects. So an append costs one call of the store. A refusal is never decided on what is remembered, but
on what was read for this request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..contract import SharedStore, Status, Store, StreamInfo, new_token, parse_cursor
from ..errors import (
    ConflictError,
    LeaseLostError,
    LimitExceededError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)
from ..wsgi.headers import Headers
from . import json_messages, producers
from .answers import CLOSED, EPOCH, EXPECTED_SEQ, NEXT_OFFSET, RECEIVED_SEQ, SEQ, Answer, Refusal, gone
from .forks import Forks
from .incoming import Request
from .producers import Claim, Verdict
from .streams import CLOSED_NOTE, SEQ_NOTE, Remembered, Stream, ending_of, media_type

_ROUNDS = 100  # of a commit that others come in between: each time one of them has stored something
_LONGEST_SEQ = 900  # bytes in UTF-8: a note holds 1 KiB


def chunks_of(body: bytes, content_type: str, max_chunk_bytes: int) -> list[bytes]:
    """A body as it is stored: a message of JSON in one chunk each, other bytes in as few as possible.

    Refusal: 400 for what is no JSON, 413 for a message that is too large.
    """
    if media_type(content_type) != json_messages.MEDIA_TYPE:
        return [body[at : at + max_chunk_bytes] for at in range(0, len(body), max_chunk_bytes)]
    try:
        messages = json_messages.split_messages(body)
    except json_messages.NotJSONError as error:
        raise Refusal(400, "the body is not JSON") from error
    except json_messages.TooManyError as error:
        raise Refusal(413, "the body holds too many messages") from error
    if messages and max(map(len, messages)) > max_chunk_bytes:
        raise Refusal(413, "a message is too large")
    return messages


@dataclass(frozen=True)
class Asked:
    """What a request wants to append."""

    body: bytes
    content_type: str | None
    closes: bool
    claim: Claim | None
    seq: str | None

    @property
    def names(self) -> list[str]:
        """Of the notes that decide."""
        own = [] if self.claim is None else [self.claim.note]
        return own if self.seq is None else [*own, SEQ_NOTE]


def parse(request: Request) -> Asked:
    """What headers and body say. Refusal 400."""
    try:
        claim = producers.parse_claim(*(request.header(f"Producer-{name}") for name in ("Id", "Epoch", "Seq")))
    except ValueError as error:
        raise Refusal(400, "invalid producer headers") from error
    seq = request.header("Stream-Seq")
    if seq is not None and len(seq.encode("utf-8")) > _LONGEST_SEQ:
        raise Refusal(400, "Stream-Seq is too long")
    closes = request.closes
    body = request.body()
    if not body and not closes:
        raise Refusal(400, "the body is empty")
    content_type = request.content_type
    if body and content_type is None:
        raise Refusal(400, "the body needs a Content-Type")
    return Asked(body, content_type, closes, claim, seq if body else None)


@dataclass
class _View:
    """A stream as a request goes by it."""

    stream: Stream
    notes: Mapping[str, str]
    status: Status = Status.STREAMING
    size: int = 0
    fresh: bool = False
    """Whether it was read for this request; else it is what was remembered."""


@dataclass
class _Plan:
    """What is to be committed."""

    chunks: list[bytes]
    expect: dict[str, str | None] = field(default_factory=dict)
    notes: dict[str, str | None] = field(default_factory=dict)


class Writes:
    """Answers POST. Thread-safe; blocks for the store."""

    def __init__(
        self, store: Store, shared: SharedStore, remembered: Remembered, forks: Forks, max_writers: int
    ) -> None:
        self._store = store
        self._shared = shared
        self._remembered = remembered
        self._forks = forks
        self._max_writers = max_writers

    def post(self, stream_id: str, asked: Asked) -> Answer:
        """Store it, or say why not: Refusal, or an answer where there is nothing left to do."""
        known = self._remembered.get(stream_id)
        view = (
            self._fetch(stream_id) if known is None else _View(known, self._remembered.notes(known, asked.names))
        )
        for _ in range(_ROUNDS):
            try:
                found = self._decide(view, asked)
            except Refusal:
                if view.fresh:
                    raise
                found = None
            if isinstance(found, Answer) and view.fresh:
                view.stream.renew(self._shared)
                return found
            if not isinstance(found, _Plan):
                view = self._fetch(stream_id)
                continue
            try:
                return self._commit(view.stream, found, asked)
            except ConflictError as conflict:
                view = self._after(view, conflict)
            except (StreamFinalizedError, StreamLostError, StreamNotFoundError, LeaseLostError):
                view = self._fetch(stream_id)
        raise StoreUnavailableError(f"others write to stream {stream_id} all the time")

    def _fetch(self, stream_id: str) -> _View:
        known = self._remembered.get(stream_id)
        info = self._store.info(stream_id)
        if known is not None and (info is None or info.generation != known.generation):
            self._remembered.forget(known)
        return self._view(self._forks.refuse_deleted(info))

    def _view(self, info: StreamInfo) -> _View:
        return _View(self._remembered.learn(info), info.notes, info.status, info.size, True)

    def _after(self, view: _View, conflict: ConflictError) -> _View:
        """What the refused commit has said, which is the present state, as far as it was asked for."""
        status = Status(conflict.status)
        if status.ended:
            return self._fetch(view.stream.stream_id)
        self._remembered.learn_notes(view.stream, conflict.notes)
        changed = {**view.notes, **conflict.notes}
        notes = {name: value for name, value in changed.items() if value is not None}
        position = parse_cursor(conflict.cursor)
        return _View(view.stream, notes, status, position.offset if position else 0, view.fresh)

    def _decide(self, view: _View, asked: Asked) -> _Plan | Answer | None:
        """What to commit; or what to answer. None: that needs a fresh view. Refusal."""
        stream = view.stream
        if not stream.shared or stream.configuration is None:
            raise Refusal(405, "the stream has a producer of its own", [("Allow", "GET, HEAD, OPTIONS")])
        if view.status.ended:
            return self._decide_ended(view, asked)
        if asked.body and media_type(asked.content_type or "") != stream.media_type:
            raise Refusal(409, "the stream has another content type")
        chunks = chunks_of(asked.body, stream.content_type, self._store.max_chunk_bytes) if asked.body else []
        if asked.body and not chunks:
            raise Refusal(400, "the body holds no message")
        plan = _Plan(chunks)
        if asked.claim is not None:
            repeated = self._check_producer(view, asked.claim, plan, asked.closes)
            if repeated is None and not view.fresh and asked.claim.note not in view.notes:
                return None  # a new producer: how many there are must be known
            if repeated is not None:
                return repeated
        if asked.seq is not None:
            last = view.notes.get(SEQ_NOTE)
            if last is not None and asked.seq <= last.partition(" ")[2]:  # by code points of Latin-1: by bytes
                raise Refusal(409, "Stream-Seq is not above the last one", [self._tail(view)])
            plan.expect[SEQ_NOTE] = last
            plan.notes[SEQ_NOTE] = f"{new_token()} {asked.seq}"
        return plan

    def _decide_ended(self, view: _View, asked: Asked) -> Answer:
        ending = ending_of(view.status)
        if ending:
            raise gone(ending)
        claim = asked.claim
        headers = [self._tail(view), (CLOSED, "true")]
        if asked.closes and claim is not None and view.notes.get(CLOSED_NOTE) == claim.signature:
            return Answer(204, [*headers, (EPOCH, str(claim.epoch)), (SEQ, str(claim.seq))])
        if asked.closes and claim is None and not asked.body:
            return Answer(204, headers)
        raise Refusal(409, "the stream is closed", headers)

    def _check_producer(self, view: _View, claim: Claim, plan: _Plan, closes: bool) -> Answer | None:
        """The answer to a repeated append; None, and the plan completed, for the next one. Refusal for others."""
        value = view.notes.get(claim.note)
        progress = producers.progress_of(value)
        verdict = producers.decide(claim, progress)
        if verdict is Verdict.STALE and progress is not None:
            raise Refusal(403, "the producer's epoch is over", [self._tail(view), (EPOCH, str(progress.epoch))])
        if verdict is Verdict.LATE_START:
            raise Refusal(400, "a new epoch begins with Producer-Seq 0")
        if verdict is Verdict.GAP:
            expected = 0 if progress is None else progress.seq + 1
            headers = [self._tail(view), (EXPECTED_SEQ, str(expected)), (RECEIVED_SEQ, str(claim.seq))]
            raise Refusal(409, "appends of the producer are missing", headers)
        if verdict is Verdict.REPEATED and progress is not None:
            headers = [self._tail(view), (EPOCH, str(progress.epoch)), (SEQ, str(progress.seq))]
            return Answer(204, headers)
        if value is None:
            self._make_room(view, plan)
        plan.expect[claim.note] = value
        plan.notes[claim.note] = producers.new_value(claim)
        if closes:
            plan.notes[CLOSED_NOTE] = claim.signature
        return None

    def _make_room(self, view: _View, plan: _Plan) -> None:
        """One more producer comes: those that are idle make way if there are too many."""
        if not view.fresh or len(producers.producers(view.notes)) < self._max_writers:
            return
        idle = producers.idle(view.notes)
        if not idle:
            raise LimitExceededError(f"the stream has {self._max_writers} producers", limit="max_writers")
        plan.expect.update(idle)
        plan.notes.update(dict.fromkeys(idle))

    def _commit(self, stream: Stream, plan: _Plan, asked: Asked) -> Answer:
        cursor = self._shared.commit(
            stream.stream_id,
            *plan.chunks,
            expect=plan.expect,
            notes=plan.notes,
            ending=Status.DONE if asked.closes else None,
            generation=stream.generation,
        )
        stream.renewed = time.monotonic()
        self._remembered.learn_notes(stream, plan.notes)
        position = parse_cursor(cursor)
        headers: Headers = [(NEXT_OFFSET, stream.lineage.token(position.offset if position else 0))]
        if asked.closes:
            headers.append((CLOSED, "true"))
        claim = asked.claim
        if claim is None:
            return Answer(204, headers)
        headers += [(EPOCH, str(claim.epoch)), (SEQ, str(claim.seq))]
        if not asked.body:
            return Answer(204, headers)
        return Answer(200, [*headers, ("Content-Type", stream.content_type), ("Content-Length", "0")])

    def _tail(self, view: _View) -> tuple[str, str]:
        return NEXT_OFFSET, view.stream.lineage.token(view.size)
