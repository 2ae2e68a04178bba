"""Which stream is the newest of a chat: kept in the store, so that all processes agree.

Each chat has one record, a shared stream without bytes whose notes name the stream. A message takes its place by
one commit, which expects the turn that it has read and sets one of its own. So the last one that took it stands,
also of several that are sent at once; the chat is never without a record, and none of an earlier message shows
again.

The producing process notes what cannot be read from the stream: that all that follows the stream's end is done, or
that the application did not get the message; and how the message ended where the stream is `done` and the message
is not. A process that dies notes nothing more. Whether it runs, and since when the stream has ended, the stream
says.

**Edition 1** kept two records for each chat: streams whose ids end in `.0` and `.1`, and whose metadata name the
stream and a number. The one with the higher number counts. They are read, too, so that a chat is found whose
newest message was begun by a worker of that edition. Its workers do not see the records of this one. Which is
newer: a record keeps the generations that the two had when its message took its place, and those of an id only
grow.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from ..contract import INTERNAL_PREFIXES, SharedStore, Status, Store, StreamInfo, new_token, shared_store
from ..errors import (
    ConflictError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamNotFoundError,
    UnsupportedError,
)
from ..logs import about
from ..production import retry_while_away

logger = logging.getLogger("resumable_sync")

RECORD_PREFIX = INTERNAL_PREFIXES[0]
"""The ids of all records begin so; streams of the application should not."""

_ROUNDS = 50  # in which others may be quicker

# The names of the notes.
_TURN = "turn"  # a random text, of the message that took the place
_STREAM = "stream"
_AWAITED = "awaited"
_PAIR = "pair"  # the generations of the two records of edition 1 at that time
_ENDING = "ending"
_FOLLOWED = "followed"  # what came of all that follows the stream's end


class Record(NamedTuple):
    """What is kept of the newest stream of a chat."""

    stream_id: str
    status: Status
    """`streaming` until the producing process has noted that all that follows the stream's end is done: then
    `done`, or `interrupted` where the application did not get the message. One that died notes nothing."""
    awaited: bool
    """Whether the application is to get the message at the end."""
    ending: str | None
    """How the message ended where its stream does not say so: `error` or `cancelled`; None for no such thing."""


class Claim:
    """A stream's place as the newest of its chat. It can note something for as long as it has that place.
    Thread-safe."""

    def __init__(self, store: SharedStore, record: StreamInfo, turn: str) -> None:
        self.record = record
        """Where it is kept."""
        self._store = store
        self._turn = turn

    def note(self, ending: str, patience: float = 0.0) -> None:
        """The message ended as `ending`, whatever the stream says. Stored when this returns; tried again for
        `patience` seconds while the store is away. Raises nothing. Of several the first counts."""
        self._set(_ENDING, ending, patience)

    def end(self, status: Status = Status.DONE) -> None:
        """All that follows the stream's end is done; `interrupted`: the application did not get the message.
        Raises nothing. Of several the first counts."""
        self._set(_FOLLOWED, status.value, 0.0)

    def _set(self, name: str, value: str, patience: float) -> None:
        record_id, expect = self.record.stream_id, {_TURN: self._turn, name: None}
        commit = functools.partial(self._store.commit, record_id, expect=expect, notes={name: value})
        try:
            retry_while_away(commit, time.monotonic() + patience)
        except ResumableStreamError as error:  # another has the place; it is noted; the store is away
            extra = about("not-noted", record_id, self.record.generation)
            logger.debug("%s was not noted in %s: %s", name, record_id, error, extra=extra)


class ActiveStreams:
    """Remembers the newest stream of each chat. `scope` keeps the chats of several applications apart.

    A chat's id may be any text. Takes one small stream of the store per chat. That is kept for the ttl of the
    chat's first message, from the end of its last one. UnsupportedError for a store that has no shared streams.
    Thread-safe; blocks for a few calls of the store. Raises what the store raises.
    """

    def __init__(self, store: Store, scope: str = "") -> None:
        shared = shared_store(store)
        if shared is None:
            raise UnsupportedError(
                f"{type(store).__name__} has no shared streams, in which a chat's newest stream is kept: give it "
                "`_create`, `_commit` and `_touch_life` (see resumable_sync.stores.base)"
            )
        self._store = store
        self._shared = shared
        self._scope = scope

    def begin(self, chat_id: str, stream_id: str, ttl: float | None = None, *, awaited: bool = False) -> Claim:
        """Make `stream_id` the newest stream of the chat. Call it once its producer is elected.

        Whoever produces keeps the record alive, and ends the claim in any case. `awaited`: the application is to
        get the message at the end, and the claim ends only when it has. StoreUnavailableError if too many are
        begun in the chat at this moment.
        """
        record_id, turn = self._id(chat_id), new_token()
        notes = {
            _TURN: turn,
            _STREAM: stream_id,
            _AWAITED: "1" if awaited else None,
            _ENDING: None,
            _FOLLOWED: None,
        }
        for _ in range(_ROUNDS):
            info = self._store.info(record_id)
            # After that, and so no earlier than the message whose turn it is looked at them.
            generations = (0 if kept is None else kept.generation for kept in self._pair(record_id))
            notes[_PAIR] = " ".join(map(str, generations))
            if info is None:
                info = self._shared.create(record_id, ttl=ttl, notes=notes)
                if info is not None:
                    return Claim(self._shared, info, turn)
                continue
            try:
                self._shared.commit(record_id, expect={_TURN: info.notes.get(_TURN)}, notes=notes)
                return Claim(self._shared, info, turn)
            except (ConflictError, StreamNotFoundError):  # another was quicker; or it has just expired
                continue
        raise StoreUnavailableError("too many streams are begun in this chat")

    def newest(self, chat_id: str) -> str | None:
        """The id of the chat's newest stream, whether it has ended or not; None if there is none."""
        record = self.record(chat_id)
        return None if record is None else record.stream_id

    def record(self, chat_id: str) -> Record | None:
        """What is kept of the chat's newest stream; None if there is none."""
        record_id = self._id(chat_id)
        # First: a message that takes the place meanwhile has looked at these, or at later ones.
        pair = self._pair(record_id)
        info = self._store.info(record_id)
        notes = {} if info is None else info.notes
        seen = notes.get(_PAIR, "0 0").split()
        earlier = max((kept for kept in pair if kept is not None), default=None, key=_number)
        if earlier is not None and earlier.generation > int(seen[pair.index(earlier)]):
            return Record(earlier.metadata.get("stream", ""), earlier.status, False, None)
        if _STREAM not in notes:
            return None
        status = Status(notes.get(_FOLLOWED, Status.STREAMING))
        return Record(notes[_STREAM], status, _AWAITED in notes, notes.get(_ENDING))

    def _id(self, chat_id: str) -> str:
        text = f"{self._scope}\0{chat_id}".encode("utf-8", "surrogatepass")
        return f"{RECORD_PREFIX}{hashlib.sha256(text).hexdigest()[:40]}"

    def _pair(self, record_id: str) -> Sequence[StreamInfo | None]:
        """The records of edition 1."""
        return [self._store.info(f"{record_id}.{place}") for place in (0, 1)]


def _number(info: StreamInfo) -> int:
    number = info.metadata.get("number", "")
    return int(number) if number.isdecimal() else 0
