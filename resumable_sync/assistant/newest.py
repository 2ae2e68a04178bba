"""Which stream is the newest of a chat: kept in the store, so that all processes agree.

Each chat has two records, streams of their own whose metadata names a stream and a number. The
record with the higher number counts. A new message takes the next number and, for its record, the place of the
one before the last, so that the chat is never without a record. Whoever acquires that place has the number; the
store sees to it that only one does. The end of a stream takes no place, so it cannot hide a newer one: whether
the newest stream still runs, the stream itself says.

A record runs as long as its stream is produced and what follows its end is done. It ends as `done`, or as
`interrupted` where the application did not get the message; a record whose process died reads so, too. Its bytes
say how the message ended where the stream is `done` and the message is not: `error` or `cancelled`.

A message takes its number as soon as its producer is elected. Of several that are sent to one chat at the same
moment each may become the newest, and for that moment a reader may see an earlier one; then the last one stands.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from typing import NamedTuple

from ..committer import Outbox, committer_for
from ..contract import Lease, Status, Store
from ..errors import ResumableStreamError, StoreUnavailableError, StreamNotFoundError

logger = logging.getLogger("resumable_sync")

RECORD_PREFIX = "chat."
"""The ids of all records begin so; streams of the application should not."""

_ROUNDS = 50  # in which others may be quicker
_HEARTBEAT = 5.0


class Record(NamedTuple):
    """What is kept of the newest stream of a chat."""

    number: int
    stream_id: str
    status: Status
    """`streaming` until all that follows the stream's end is done; then `done`, unless the application did not get
    the message."""
    awaited: bool
    """Whether the application is to get the message at the end."""
    has_bytes: bool
    record_id: str


class Claim:
    """A stream's place as the newest of its chat. One thread at a time."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._committer = committer_for(store, lease.stream_id)
        self._outbox: Outbox | None = None

    def keep(self) -> None:
        """Keep the record alive as a producer's stream is: one that ended now could expire before its stream."""
        self._outbox = self._committer.open(self._lease, _HEARTBEAT, lambda: None, owner=weakref.ref(self))

    def note(self, ending: str) -> None:
        """The message ended as `ending`, whatever the stream says. Stored when this returns; raises nothing. Of
        several the first counts."""
        if self._outbox is not None:
            try:
                self._committer.put(self._outbox, f"{ending} ".encode())
                self._committer.flush(self._outbox)
            except ResumableStreamError as error:
                logger.debug("the record %s was not written: %s", self._lease.stream_id, error)

    def end(self, status: Status = Status.DONE) -> None:
        """The stream has ended, or was never begun. The record lives on for its ttl. Raises nothing."""
        if self._outbox is not None:
            self._committer.close(self._outbox)
        try:
            self._store.finalize(self._lease, status)
        except ResumableStreamError as error:  # a newer record took its place; or its lease runs out
            logger.debug("the record %s was not ended: %s", self._lease.stream_id, error)


class ActiveStreams:
    """Remembers the newest stream of each chat. `scope` keeps the chats of several applications apart.

    A chat's id may be any text. Takes two small streams of the store per chat, which expire with its ttl.
    Thread-safe; blocks for a few calls of the store. Raises what the store raises.
    """

    def __init__(self, store: Store, scope: str = "") -> None:
        self._store = store
        self._scope = scope

    def begin(self, chat_id: str, stream_id: str, ttl: float | None = None, *, awaited: bool = False) -> Claim:
        """Make `stream_id` the newest stream of the chat. Call it once its producer is elected.

        Whoever produces keeps the claim, and ends it in any case. `awaited`: the application is to get the message
        at the end, and the claim ends only when it has. StoreUnavailableError if too many are
        begun in the chat at this moment.
        """
        for _ in range(_ROUNDS):
            newest = self.record(chat_id)
            number = newest.number + 1 if newest is not None else 1
            lease = self._take(chat_id, number, stream_id, ttl, awaited)
            if lease is None:
                continue
            newest = self.record(chat_id)
            if newest is not None and newest.stream_id == stream_id:
                return Claim(self._store, lease)
            # It was slow, and others have passed meanwhile: an earlier number is not the newest.
            Claim(self._store, lease).end()
        raise StoreUnavailableError("too many streams are begun in this chat")

    def newest(self, chat_id: str) -> str | None:
        """The id of the chat's newest stream, whether it has ended or not; None if there is none."""
        record = self.record(chat_id)
        return None if record is None else record.stream_id

    def record(self, chat_id: str) -> Record | None:
        """What is kept of the chat's newest stream; None if there is none."""
        records = [self._record(self._id(chat_id, place)) for place in (0, 1)]
        return max(
            (record for record in records if record is not None), default=None, key=lambda record: record.number
        )

    def noted(self, record: Record) -> str | None:
        """How the message ended where its stream does not say so: `error` or `cancelled`; None for no such
        thing."""
        if not record.has_bytes:
            return None
        try:
            return self._store.read(record.record_id, "").data.decode().split()[0]
        except StreamNotFoundError:
            return None

    def _id(self, chat_id: str, place: int) -> str:
        text = f"{self._scope}\0{chat_id}".encode("utf-8", "surrogatepass")
        return f"{RECORD_PREFIX}{hashlib.sha256(text).hexdigest()[:40]}.{place}"

    def _record(self, record_id: str) -> Record | None:
        info = self._store.info(record_id)
        if info is None:
            return None
        number = info.metadata.get("number", "")
        return Record(
            int(number) if number.isdecimal() else 0,
            info.metadata.get("stream", ""),
            info.status,
            "awaited" in info.metadata,
            info.size > 0,
            record_id,
        )

    def _take(self, chat_id: str, number: int, stream_id: str, ttl: float | None, awaited: bool) -> Lease | None:
        record_id = self._id(chat_id, number % 2)
        occupant = self._record(record_id)
        if occupant is not None:
            if occupant.number >= number:
                return None
            self._store.delete(record_id)
        kept = {"number": str(number), "stream": stream_id, **({"awaited": "1"} if awaited else {})}
        return self._store.acquire(record_id, ttl=ttl, metadata=kept)
