"""Forks: copies of the beginning of a stream, and what becomes of a stream that is deleted while it has some.

A note of the source names each fork. Nothing is counted: whether one of them lives is found out when somebody
asks. So a crash leaks nothing; one between the creation of a fork and the note on its source costs this: should
the source be deleted, it is missing (404) where it would have been gone (410).
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping

from ..context import ResumableStreamContext
from ..contract import SharedStore, Status, StreamInfo, new_token
from ..errors import (
    ConflictError,
    InvalidCursorError,
    LimitExceededError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)
from .answers import Refusal, gone, missing
from .offsets import parse_token
from .streams import DELETED_NOTE, FORK_PREFIX, KEY, Configuration, Origin, Stream, is_deleted

MAX_FORKS = 900
"""Living forks of one stream."""

MAX_DEPTH = 32
"""Forks of forks, one of the other."""
MAX_LOOKS = 100
"""Streams that are looked up for one question."""

_CLAIM_SECONDS = 60.0  # after which whoever was about to remove a stream counts as dead
_ROUNDS = 20
_COPY_BYTES = 1024 * 1024  # that are read at once


class Forks:
    """What is asked of forks and their sources. Thread-safe; every call blocks for the store."""

    def __init__(self, context: ResumableStreamContext, shared: SharedStore, max_bytes: int) -> None:
        self._context = context
        self._store = context.store
        self._shared = shared
        self._max_bytes = max_bytes

    def living(self, info: StreamInfo) -> bool:
        """Whether a stream has a fork that lives, or that has one, and so on.

        At most MAX_LOOKS streams are looked up; where that leaves it open, it counts as true. Notes of forks that
        are gone are removed on the way.
        """
        looks, found = 0, False
        gone: dict[str, str] = {}
        open_ends = [info]
        while open_ends and not found:
            source = open_ends.pop()
            for name, value in _notes_of_forks(source).items():
                looks += 1
                if looks > MAX_LOOKS:
                    found = True
                    break
                fork = self._store.info(name[len(FORK_PREFIX) :])
                if fork is None or str(fork.generation) != value:
                    if source is info:
                        gone[name] = value
                elif is_deleted(fork.notes):
                    open_ends.append(fork)
                else:
                    found = True
                    break
        if found and gone:
            self._set(info, expect=gone, notes=dict.fromkeys(gone))
        return found

    def refuse_deleted(self, info: StreamInfo | None, status: int = 410) -> StreamInfo:
        """`info` if there is such a stream. Refusal: 404 where there is none, `status` where it is deleted and
        only its forks live."""
        if info is not None and is_deleted(info.notes):
            if self.living(info):
                raise gone() if status == 410 else Refusal(status, "stream is gone")
            self.remove(info)
            info = None
        if info is None:
            raise missing()
        return info

    def remove(self, info: StreamInfo) -> None:
        """Remove a deleted stream of which no fork lives, and deleted sources of which it was the last one.

        One of several that find it so removes it: the store knows no deletion of one generation only, and a stream
        that was made anew meanwhile must stay. So it is claimed first, by the note that says that it is deleted.
        """
        found: StreamInfo | None = info
        while found is not None and is_deleted(found.notes) and not self.living(found):
            value = found.notes[DELETED_NOTE]
            since, _, claimed = value.partition(" ")
            if claimed and time.time() - _seconds(since) < _CLAIM_SECONDS:
                return
            claim = f"{int(time.time())} {new_token()}"
            if not self._set(found, expect={DELETED_NOTE: value}, notes={DELETED_NOTE: claim}):
                return
            self._context.delete(found.stream_id)
            found = self.source(found)

    def source(self, info: StreamInfo) -> StreamInfo | None:
        """The stream that this one was forked from, where it is still there."""
        text = info.metadata.get(KEY)
        origin = None if text is None else Configuration.from_text(text).origin
        source = None if origin is None else self._store.info(origin.stream_id)
        return source if source is not None and origin and source.generation == origin.generation else None

    def delete(self, stream_id: str) -> None:
        """Delete a stream; while a fork of it lives, it is only marked. Refusal: 404, 410."""
        for _ in range(_ROUNDS):
            info = self.refuse_deleted(self._store.info(stream_id))
            if not self.living(info):
                if not self._context.delete(stream_id):
                    raise missing()
                source = self.source(info)
                if source is not None:
                    self.remove(source)
                return
            ending = None if info.status.ended else Status.CANCELLED  # those who wait for more leave
            with contextlib.suppress(
                ConflictError, StreamFinalizedError, StreamLostError, StreamNotFoundError
            ):  # it was not as it is now
                self._shared.commit(
                    stream_id,
                    expect={DELETED_NOTE: None},
                    notes={DELETED_NOTE: f"{int(time.time())}"},
                    ending=ending,
                    generation=info.generation,
                )
                return
        raise StoreUnavailableError(f"stream {stream_id} changes too fast to be deleted")

    def check_room(self, source: StreamInfo) -> None:
        """LimitExceededError if a stream has too many forks."""
        notes = _notes_of_forks(source)
        if len(notes) < MAX_FORKS:
            return
        dead = {}
        for name in random.sample(sorted(notes), min(len(notes), MAX_LOOKS)):
            fork = self._store.info(name[len(FORK_PREFIX) :])
            if fork is None or str(fork.generation) != notes[name]:
                dead[name] = notes[name]
        if not (dead and self._set(source, expect=dead, notes=dict.fromkeys(dead))):
            raise LimitExceededError(f"stream {source.stream_id} has {MAX_FORKS} forks", limit="max_forks")

    def tell_source(self, source: StreamInfo, fork: StreamInfo) -> None:
        """Note on the source that it has a fork. A source that went meanwhile needs no note."""
        self._set(source, expect={}, notes={FORK_PREFIX + fork.stream_id: str(fork.generation)})

    def _set(self, info: StreamInfo, *, expect: Mapping[str, str | None], notes: Mapping[str, str | None]) -> bool:
        """Set notes of this generation; False if they are not as expected, or it is gone."""
        try:
            self._shared.commit(info.stream_id, expect=expect, notes=notes, generation=info.generation)
        except (ConflictError, StreamLostError, StreamNotFoundError):
            return False
        return True

    def origin(self, source: StreamInfo, stream: Stream, offset: str | None, sub: int) -> Origin:
        """The point of a fork. Refusal 400 for what is no offset of the source."""
        at: int | None = source.size
        if offset is not None:
            at = stream.lineage.offset(parse_token(offset))
        if at is None or at > source.size or (at + sub > source.size and not stream.is_json):
            raise Refusal(400, "invalid fork offset")
        if stream.depth >= MAX_DEPTH:
            raise Refusal(413, "the fork is one of too many forks of forks")
        return Origin(source.stream_id, source.generation, at, sub)

    def copy(self, source: StreamInfo, stream: Stream, origin: Origin) -> list[bytes]:
        """The chunks that a fork begins with. Refusal: 400 for an offset within a JSON message and a sub-offset
        beyond what is there, 413 for too many bytes, 404 if the source goes meanwhile."""
        if origin.at > self._max_bytes:
            raise Refusal(413, "the fork is too large")
        try:
            return self._copy(source, stream.is_json, origin)
        except (StreamLostError, StreamNotFoundError, InvalidCursorError) as lost:
            raise missing() from lost

    def _copy(self, source: StreamInfo, is_json: bool, origin: Origin) -> list[bytes]:
        chunks: list[bytes] = []
        total, sub = 0, origin.sub  # bytes that are copied; what of the sub-offset is left
        for chunk in self._chunks(source):
            rest = origin.at - total
            if rest <= 0 and not sub:
                break
            if is_json:
                if 0 < rest < len(chunk):
                    raise Refusal(400, "invalid fork offset")
                sub -= rest <= 0
                length = len(chunk)
            else:
                into = len(chunk) - max(0, rest)  # bytes of it after the offset
                length = len(chunk) - max(0, into)
                if into > 0 and sub:
                    if sub > into:
                        raise Refusal(400, "invalid fork offset")
                    length, sub = length + sub, 0
            chunks.append(chunk[:length])
            total += length
            if total > self._max_bytes:
                raise Refusal(413, "the fork is too large")
        if total < origin.at or sub:
            raise Refusal(400, "invalid fork offset")
        return chunks

    def _chunks(self, source: StreamInfo) -> Iterator[bytes]:
        cursor = f"{source.generation}-0"
        while True:
            batch = self._store.read(source.stream_id, cursor, max_bytes=_COPY_BYTES)
            yield from (entry.chunk for entry in batch.entries)
            if batch.offset >= source.size:
                return
            cursor = batch.cursor


def _notes_of_forks(info: StreamInfo) -> dict[str, str]:
    return {name: value for name, value in info.notes.items() if name.startswith(FORK_PREFIX)}


def _seconds(text: str) -> int:
    return int(text) if text.isdecimal() else 0
