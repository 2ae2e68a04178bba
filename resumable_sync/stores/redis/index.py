"""The index of all streams of a Redis store: their ids, in a sorted set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...contract import StreamInfo
from ...errors import LimitExceededError
from .commands import Commands, parse_info
from .connection import Link, as_error
from .scripts import Call, script

_PAGE_OF_STREAMS = 200
_ELECTION_MS = 30_000  # for which a sweep leaves an id alone that was added
_NEVER = 2**53  # as a time of the server: later than all


class Index:
    """The ids of all streams. They lie in a slot of their own, so no script changes them together with a stream:
    an id is added before its stream begins, and confirmed after. A sweep spares what is in between, and puts back
    what was acquired while it removed it. Thread-safe.
    """

    def __init__(self, link: Link, commands: Commands) -> None:
        self._link = link
        self._commands = commands
        self._keys = commands.keys

    def add(self, stream_id: str, max_streams: int) -> None:
        """Add an id. LimitExceededError if there is no room, also after a sweep."""
        call = script("index_add", self._keys.index, stream_id, max_streams, _ELECTION_MS)
        if not self._link.call(call):
            self.sweep()
            if not self._link.call(call):
                raise LimitExceededError(f"the store holds max_streams={max_streams} streams already")

    def confirm(self, stream_id: str, won: bool) -> None:
        """The election is over: the id is no longer spared by a sweep."""
        # An error does no harm: the id is in the index already, and leaves `fresh` after a while.
        self._link.run([script("index_confirm", self._keys.index, stream_id, int(won))])

    def remove(self, ids: Sequence[str], since: int = _NEVER) -> int:
        """Remove ids, unless they were acquired after `since` (server ms). Returns how many."""
        if not ids:
            return 0
        index = self._keys.index[0]
        removed = self._link.call(script("index_remove", self._keys.index, since, *ids))
        metas = [self._keys.of(stream_id.decode("ascii"))[0] for stream_id in removed]
        back = 0
        for stream_id, reply in zip(removed, self._link.run([Call(meta, ("EXISTS", meta)) for meta in metas])):
            if reply != 0:  # acquired meanwhile, or Redis does not tell: a later sweep removes it
                self._link.call(Call(index, ("ZADD", index, 0, stream_id)))
                back += 1
        return len(removed) - back

    def drop(self) -> None:
        """Remove the index itself."""
        index, fresh = self._keys.index
        self._link.call(Call(index, ("UNLINK", index, fresh)))

    def infos(self, ids: Sequence[str]) -> list[StreamInfo | None]:
        """Snapshots of these streams, None where there is none. Ends those whose producers died."""
        replies = self._link.run([self._commands.info(stream_id) for stream_id in ids])
        return list(map(parse_info, ids, replies))

    def pages(self) -> Iterator[list[str]]:
        """The ids in order, some hundreds at a time."""
        last = "-"
        while True:
            index = self._keys.index[0]
            call = Call(index, ("ZRANGEBYLEX", index, last, "+", "LIMIT", 0, _PAGE_OF_STREAMS))
            ids = [each.decode("utf-8") for each in self._link.call(call)]
            if not ids:
                return
            yield ids
            last = f"({ids[-1]}"

    def sweep(self) -> int:
        """Remove what has expired or is damaged. Returns how many."""
        removed = 0
        for ids in self.pages():
            seconds, micros = self._link.call(Call(self._keys.index[0], ("TIME",)))
            gone = [stream_id for stream_id, info in zip(ids, self.infos(ids)) if info is None]
            calls = [self._commands.delete(stream_id, unless_whole=True) for stream_id in gone]
            for reply in self._link.run(calls) if calls else ():
                if isinstance(reply, Exception):
                    raise as_error(reply)
            removed += self.remove(gone, int(seconds) * 1000 + int(micros) // 1000)
        return removed
