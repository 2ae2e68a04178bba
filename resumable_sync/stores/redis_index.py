"""The names of the Redis store's keys, and the index of all its streams."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

from ..errors import LimitExceededError, StreamLostError
from ..types import StreamInfo
from .redis_link import Link
from .redis_scripts import Argument, Call, script
from .redis_state import as_error, one, parse_info

_PAGE_OF_STREAMS = 200
_NOWHERE = 2**53  # as an offset: behind every stream's end


class Keys:
    """The names of keys."""

    def __init__(self, prefix: str, finished_ttl: Argument) -> None:
        self.prefix = prefix
        self.finished_ttl = finished_ttl
        self.index = f"{prefix}:index"

    def of(self, stream_id: str) -> tuple[str, str, str]:
        """meta, log and fence, as all scripts of a stream take them."""
        base = f"{self.prefix}:{{{stream_id}}}"
        return f"{base}:meta", f"{base}:log", f"{base}:fence"

    def log(self, stream_id: str) -> str:
        """The stream's log alone."""
        return self.of(stream_id)[1]

    def check(self, stream_id: str) -> Call:
        """A look at the state alone."""
        return script("read", self.of(stream_id), "", _NOWHERE, 1, self.finished_ttl)


class Index:
    """The ids of all streams, a sorted set. It lies in a slot of its own, so no script changes it with a stream:
    an id is added before its stream begins, and once more after; and put back if a sweep struck it off between.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def register(self, stream_id: str, max_streams: int) -> None:
        """Add an id. LimitExceededError if there is no room, also after a sweep."""
        call = script("register", [self._keys.index], stream_id, max_streams)
        if not one(self._link, call):
            self.sweep()
            if not one(self._link, call):
                raise LimitExceededError(f"the store holds max_streams={max_streams} streams already")

    def add(self, stream_id: str) -> None:
        """Add an id, whatever the limit."""
        one(self._link, Call(self._keys.index, ("ZADD", self._keys.index, 0, stream_id)))

    def discard(self, ids: Sequence[str]) -> int:
        """Strike ids off the index, and put back those that somebody has acquired meanwhile."""
        if not ids:
            return 0
        index = self._keys.index
        removed = int(one(self._link, Call(index, ("ZREM", index, *ids))))
        metas = [self._keys.of(stream_id)[0] for stream_id in ids]
        present = self._link.run([Call(meta, ("EXISTS", meta)) for meta in metas])
        for stream_id, reply in zip(ids, present):
            if reply != 0:
                self.add(stream_id)
                removed -= 1
        return removed

    def infos(self, ids: Sequence[str]) -> list[StreamInfo | None]:
        """Snapshots of these streams, None where there is none. Ends those whose producers died."""
        calls = [script("info", self._keys.of(stream_id), self._keys.finished_ttl) for stream_id in ids]
        replies = self._link.run(calls)
        infos: list[StreamInfo | None] = []
        for stream_id, reply in zip(ids, replies):
            if isinstance(reply, Exception):
                error = as_error(reply)
                if not isinstance(error, StreamLostError):
                    raise error
                infos.append(None)
            else:
                infos.append(parse_info(stream_id, reply) if reply[0] == b"found" else None)
        return infos

    def pages(self) -> Iterator[list[str]]:
        """The ids in order, some hundreds at a time."""
        last = "-"
        while True:
            call = Call(self._keys.index, ("ZRANGEBYLEX", self._keys.index, last, "+", "LIMIT", 0, _PAGE_OF_STREAMS))
            ids = [each.decode("utf-8") for each in one(self._link, call)]
            if not ids:
                return
            yield ids
            last = f"({ids[-1]}"

    def sweep(self) -> int:
        """Strike off, and remove, what has expired or is damaged. Returns how many."""
        removed = 0
        for ids in self.pages():
            gone = [stream_id for stream_id, info in zip(ids, self.infos(ids)) if info is None]
            calls = [script("delete", self._keys.of(each), secrets.token_hex(16), 1) for each in gone]
            for reply in self._link.run(calls) if calls else ():
                if isinstance(reply, Exception):
                    raise as_error(reply)
            removed += self.discard(gone)
        return removed
