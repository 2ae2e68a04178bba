"""The names of the Redis store's keys, and the index of all its streams."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence

from ...contract import Batch, StreamInfo
from ...errors import InvalidCursorError, LimitExceededError, StreamLostError, StreamNotFoundError
from .connection import Link
from .scripts import Argument, Call, script
from .state import as_error, one, parse_info

_PAGE_OF_STREAMS = 200
_ELECTION_MS = 30_000  # for which a sweep leaves an id alone that was registered
_NOWHERE = 2**53  # as an offset: behind every stream's end


class Keys:
    """The names of keys."""

    def __init__(self, prefix: str, finished_ttl: Argument) -> None:
        self.prefix = prefix
        self.finished_ttl = finished_ttl
        # A tag that no stream has, so that both lie in one slot of a cluster.
        self.index = (f"{prefix}:{{~}}:index", f"{prefix}:{{~}}:fresh")

    def of(self, stream_id: str) -> tuple[str, str, str]:
        """meta, log and fence, as all scripts of a stream take them."""
        base = f"{self.prefix}:{{{stream_id}}}"
        return f"{base}:meta", f"{base}:log", f"{base}:fence"

    def log(self, stream_id: str) -> str:
        """The stream's log alone."""
        return self.of(stream_id)[1]

    def check(self, stream_id: str) -> Call:
        """A look at the state alone."""
        return script("look", self.of(stream_id), "", _NOWHERE, self.finished_ttl)


class Index:
    """The ids of all streams, a sorted set. It lies in a slot of its own, so no script changes it with a stream:
    an id is added before its stream begins, and once more after. A sweep spares what is in between, and puts back
    what was acquired while it struck it off.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def register(self, stream_id: str, max_streams: int) -> None:
        """Add an id. LimitExceededError if there is no room, also after a sweep."""
        call = script("register", self._keys.index, stream_id, max_streams, _ELECTION_MS)
        if not one(self._link, call):
            self.sweep()
            if not one(self._link, call):
                raise LimitExceededError(f"the store holds max_streams={max_streams} streams already")

    def settle(self, stream_id: str, won: bool) -> None:
        """The election is over: the id is no longer spared by a sweep."""
        # If Redis is away now: the index was right before.
        self._link.run([script("settle", self._keys.index, stream_id, int(won))])

    def discard(self, ids: Sequence[str], since: int = _NOWHERE) -> int:
        """Strike ids off, unless they were acquired after `since` (server ms). Returns how many."""
        if not ids:
            return 0
        index = self._keys.index[0]
        struck = one(self._link, script("strike", self._keys.index, since, *ids))
        metas = [self._keys.of(stream_id.decode("ascii"))[0] for stream_id in struck]
        back = 0
        for stream_id, reply in zip(struck, self._link.run([Call(meta, ("EXISTS", meta)) for meta in metas])):
            if reply != 0:  # acquired meanwhile, or Redis does not tell: a later sweep strikes it off
                one(self._link, Call(index, ("ZADD", index, 0, stream_id)))
                back += 1
        return len(struck) - back

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
            index = self._keys.index[0]
            call = Call(index, ("ZRANGEBYLEX", index, last, "+", "LIMIT", 0, _PAGE_OF_STREAMS))
            ids = [each.decode("utf-8") for each in one(self._link, call)]
            if not ids:
                return
            yield ids
            last = f"({ids[-1]}"

    def sweep(self) -> int:
        """Strike off, and remove, what has expired or is damaged. Returns how many."""
        removed = 0
        for ids in self.pages():
            seconds, micros = one(self._link, Call(self._keys.index[0], ("TIME",)))
            gone = [stream_id for stream_id, info in zip(ids, self.infos(ids)) if info is None]
            calls = [script("delete", self._keys.of(each), secrets.token_hex(16), 1) for each in gone]
            for reply in self._link.run(calls) if calls else ():
                if isinstance(reply, Exception):
                    raise as_error(reply)
            removed += self.discard(gone, int(seconds) * 1000 + int(micros) // 1000)
        return removed


def verify(read: Callable[[str, str], Batch], stream_id: str) -> str | None:
    """What is wrong with a stream, in words, after reading all of it; None if it is whole, or gone by now."""
    for last_try in (False, True):  # it may be deleted and made anew in between: once is no proof
        cursor = ""
        try:
            while True:
                batch = read(stream_id, cursor)
                if batch.offset >= batch.size:
                    return None
                cursor = batch.cursor
        except (StreamNotFoundError, InvalidCursorError):
            return None
        except StreamLostError as lost:
            if last_try:
                return str(lost)
    return None


def milliseconds(seconds: float) -> int:
    """Seconds as the scripts take them."""
    return max(1, round(seconds * 1000))
