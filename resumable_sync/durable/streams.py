"""What a stream is to this protocol, and what a process remembers of the streams that it has met.

What never changes within a generation (content type, life, where a fork comes from) lies in the stream's metadata;
what changes (producers, Stream-Seq, forks, who closed it) in its notes.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..contract import Notes, SharedStore, Status, StreamInfo
from ..process import PerProcess
from ..stores.base import MAX_TTL
from ..wsgi.headers import CONTENT_TYPE_KEY, kept_content_type
from . import json_messages
from .offsets import Lineage

KEY = "durable-stream"
"""Where the metadata keeps the Configuration. Streams without it are not this protocol's own."""
SEQ_NOTE = "durable.seq"
CLOSED_NOTE = "durable.closed"
"""By which append of which producer the stream was closed."""
DELETED_NOTE = "durable.deleted"
"""There once the stream is deleted, for as long as a fork of it lives."""
FORK_PREFIX = "durable.fork."

_STREAMS = 2048  # that are remembered
_NOTES = 16384
_RENEWALS = 50  # in the life of a stream: more often, the store is not asked to renew it


@dataclass(frozen=True)
class Origin:
    """Where a fork comes from."""

    stream_id: str
    generation: int
    at: int
    """Byte offset, without the sub-offset."""
    sub: int


@dataclass(frozen=True)
class Configuration:
    """What a stream was created with. Kept in its metadata."""

    ttl: str | None = None
    """As the client gave it, or as it was inherited."""
    expires_at: str | None = None
    own_life: bool = True
    """Whether the life was not inherited."""
    origin: Origin | None = None
    inherited: tuple[tuple[int, int], ...] = ()
    """See Lineage."""
    depth: int = 0
    """How many forks, one of the other, lead to it."""

    def as_text(self) -> str:
        """For the metadata."""
        members: dict[str, Any] = {}
        if self.ttl is not None:
            members["ttl"] = self.ttl
        if self.expires_at is not None:
            members["expires"] = self.expires_at
        if self.origin is not None:
            origin = self.origin
            members["origin"] = [origin.stream_id, origin.generation, origin.at, origin.sub]
            members["own_life"] = self.own_life
            members["inherited"] = self.inherited
            members["depth"] = self.depth
        return json.dumps(members, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Configuration:
        """What `as_text` made."""
        members = json.loads(text)
        origin = members.get("origin")
        return cls(
            members.get("ttl"),
            members.get("expires"),
            members.get("own_life", True),
            None if origin is None else Origin(*origin),
            tuple((lineage, end) for lineage, end in members.get("inherited", ())),
            members.get("depth", 0),
        )


def media_type(content_type: str) -> str:
    """`text/plain` of `Text/Plain; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(eq=False)
class Stream:
    """One generation of a stream. All of it is final but `renewed`; thread-safe."""

    stream_id: str
    generation: int
    content_type: str
    configuration: Configuration | None
    """None: the stream is not this protocol's own, such as one that a context produces."""
    shared: bool
    ttl: float
    sliding: bool
    renewed: float = -math.inf
    """When this process last renewed its life."""
    lineage: Lineage = field(init=False)
    media_type: str = field(init=False)

    def __post_init__(self) -> None:
        inherited = () if self.configuration is None else self.configuration.inherited
        self.lineage = Lineage(self.generation, inherited)
        self.media_type = media_type(self.content_type)

    @classmethod
    def of(cls, info: StreamInfo) -> Stream:
        """The stream of a snapshot."""
        text = info.metadata.get(KEY) if info.shared else None
        return cls(
            info.stream_id,
            info.generation,
            kept_content_type(info.metadata),
            None if text is None else Configuration.from_text(text),
            info.shared,
            info.ttl,
            info.sliding,
        )

    @property
    def is_json(self) -> bool:
        """Whether its chunks are messages."""
        return self.media_type == json_messages.MEDIA_TYPE

    @property
    def depth(self) -> int:
        """How many forks, one of the other, lead to it."""
        return 0 if self.configuration is None else self.configuration.depth

    @property
    def renewable(self) -> bool:
        """Whether requests renew its life."""
        return self.configuration is not None and self.sliding and self.ttl < MAX_TTL

    def renew(self, store: SharedStore) -> None:
        """A request has used it: renew its life, to within a fiftieth of it."""
        now = time.monotonic()
        if self.renewable and now - self.renewed >= self.ttl / _RENEWALS:
            self.renewed = now  # two at once may both ask: that costs a call
            store.touch(self.stream_id)


def new_metadata(content_type: str, configuration: Configuration) -> dict[str, str]:
    """What a new stream keeps."""
    return {CONTENT_TYPE_KEY: content_type, KEY: configuration.as_text()}


def is_deleted(notes: Mapping[str, str]) -> bool:
    """Whether a stream is deleted, though it is still there for the sake of its forks."""
    return DELETED_NOTE in notes


def ending_of(status: Status | str) -> str:
    """How the stream ended if not as `done`; empty if it did, or has not ended."""
    ended = Status(status)
    return str(ended) if ended.ended and ended is not Status.DONE else ""


K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values that were used last, up to a number of them. `_lock` guards them; nothing is called under it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, if it is still there."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """From now on this is the value."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._limit:
                self._values.popitem(last=False)

    def remove(self, key: K) -> None:
        """There is none any more."""
        with self._lock:
            self._values.pop(key, None)


class Remembered:
    """The streams that a process has met last, and some of their notes. Any of it may have changed since.

    Bounded; thread-safe; a forked child begins with nothing.
    """

    def __init__(self) -> None:
        self._streams = PerProcess[Recent[str, Stream]](lambda: Recent(_STREAMS))
        self._notes = PerProcess[Recent[tuple[str, int, str], str]](lambda: Recent(_NOTES))

    def get(self, stream_id: str) -> Stream | None:
        """What is remembered of a stream."""
        return self._streams.get().get(stream_id)

    def learn(self, info: StreamInfo) -> Stream:
        """The stream of a new snapshot."""
        streams = self._streams.get()
        known = streams.get(info.stream_id)
        if known is not None and known.generation >= info.generation:
            return known if known.generation == info.generation else Stream.of(info)
        stream = Stream.of(info)
        streams.put(info.stream_id, stream)
        return stream

    def forget(self, stream: Stream) -> None:
        """It is not there any more."""
        if self.get(stream.stream_id) is stream:
            self._streams.get().remove(stream.stream_id)

    def notes(self, stream: Stream, names: Iterable[str]) -> dict[str, str]:
        """Those of these notes that are remembered. A commit that expects them finds out whether they hold."""
        recent = self._notes.get()
        found = {name: recent.get((stream.stream_id, stream.generation, name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def learn_notes(self, stream: Stream, notes: Notes) -> None:
        """These are the notes now."""
        recent = self._notes.get()
        for name, value in notes.items():
            key = (stream.stream_id, stream.generation, name)
            if value is None:
                recent.remove(key)
            else:
                recent.put(key, value)
