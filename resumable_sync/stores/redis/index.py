"""The index of all streams in the Redis store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from ...contract import StreamInfo
from ...errors import LimitExceededError, ResumableStreamError, StreamLostError
from ...logs import about
from .commands import Commands, milliseconds, parse_info
from .connection import Link
from .scripts import Argument, Call, script

logger = logging.getLogger("resumable_sync")

_PAGE_OF_STREAMS = 200  # also of those that may wait to be taken over
_ELECTION_MS = 30_000  # for which a sweep leaves an id alone that was registered
_EVER = 2**53  # as a server's time: after all that were given out


class Index:
    """The ids of all streams, a sorted set. It lies in a slot of its own, so no script changes it with a stream:
    an id is registered before its stream begins, and confirmed after. A sweep spares what is in between, and puts
    back what was acquired while it removed it. Thread-safe: all state is in Redis.

    The orphans are a part of it: the ids of streams with a handover, with the time from which on somebody is to
    look whether the stream waits to be taken over. It does not lie after the end of the lease, so whoever looks
    then finds what is to be done: nothing yet, since the lease was renewed; a takeover; or the stream is over.
    What was found is put down only where the time is still the one that was seen.
    """

    def __init__(self, link: Link, commands: Commands) -> None:
        self._link = link
        self._commands = commands
        self._keys = commands.keys.index

    def register(self, stream_id: str, max_streams: int, look_after: float | None = None) -> None:
        """Add an id. LimitExceededError if there is no room, also after a sweep. `look_after`: seconds, of a
        stream that is to have a handover."""
        call = script("index_add", self._keys, stream_id, max_streams, _ELECTION_MS, _delay(look_after))
        if not self._link.ask(call):
            self.sweep()
            if not self._link.ask(call):
                raise LimitExceededError(
                    f"the store holds max_streams={max_streams} streams already; delete some, or raise it",
                    limit="max_streams",
                )

    def confirm(self, stream_id: str, won: bool, look_after: float | None = None) -> None:
        """The election is over: a sweep no longer spares the id."""
        # A failure does not matter: the id is in the index, and is spared only for the time of an election.
        self._link.run([script("index_confirm", self._keys, stream_id, int(won), _delay(look_after))])

    def released(self, stream_id: str, at: int) -> None:
        """The stream waits to be taken over from `at` on (server's ms)."""
        orphans = self._keys[2]
        # A failure does not matter: somebody looks when its lease would have ended.
        self._link.run([Call(orphans, ("ZADD", orphans, at, stream_id))])

    def orphans(self) -> Iterator[str]:
        """The ids of the streams that wait to be taken over. Takes out of the index what is over."""
        passed = 0
        while True:
            orphans = self._keys[2]
            found = self._link.ask(script("index_due", (orphans,), passed, _PAGE_OF_STREAMS))
            ids = [each.decode("utf-8") for each in found[::2]]
            if not ids:
                return
            changes: list[Argument] = []
            waiting: list[str] = []
            replies = self._link.run([self._commands.orphan(stream_id) for stream_id in ids])
            for stream_id, score, reply in zip(ids, found[1::2], replies):
                if isinstance(reply, ResumableStreamError):
                    passed += 1  # it is one stream's matter, or one node's: somebody looks again
                elif reply and int(reply) <= 0:
                    passed += 1
                    waiting.append(stream_id)
                else:
                    changes += (stream_id, score, reply)
            if changes:
                self._link.ask(script("index_update", (orphans,), *changes))
            yield from waiting
            if len(ids) < _PAGE_OF_STREAMS:
                return

    def remove(self, ids: Sequence[str], since: int = _EVER) -> int:
        """Remove ids, unless they were acquired after `since` (server ms). Returns how many."""
        if not ids:
            return 0
        index, _, orphans = self._keys
        removed = self._link.ask(script("index_remove", self._keys, since, *ids))
        metas = [self._commands.keys.of(stream_id.decode("ascii"))[0] for stream_id in removed]
        back = 0
        for stream_id, reply in zip(removed, self._link.run([Call(meta, ("EXISTS", meta)) for meta in metas])):
            if reply != 0:  # acquired meanwhile, or Redis does not tell: a later sweep removes it
                self._link.ask(Call(index, ("ZADD", index, 0, stream_id)))
                self._link.ask(Call(orphans, ("ZADD", orphans, 0, stream_id)))  # whoever looks finds out
                back += 1
        return len(removed) - back

    def drop(self) -> None:
        """Remove the index itself."""
        self._link.ask(Call(self._keys[0], ("UNLINK", *self._keys)))

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of this stream, with its notes, None where there is none. Ends it if its producer died."""
        return parse_info(stream_id, self._link.ask(self._commands.info(stream_id, with_notes=True)))

    def infos(self, ids: Sequence[str]) -> list[StreamInfo | None]:
        """Snapshots of these streams, without their notes, None where there is none. Ends those whose producers
        died."""
        infos: list[StreamInfo | None] = []
        for found in self._fetch(ids) if ids else ():
            if isinstance(found, StreamLostError):  # it is damaged, which is this stream's matter
                logger.warning("a listing passed over a stream: %s", found, extra=about("damaged"))
                found = None
            if isinstance(found, ResumableStreamError):
                raise found
            infos.append(found)
        return infos

    def _fetch(self, ids: Sequence[str]) -> Iterator[StreamInfo | ResumableStreamError | None]:
        for stream_id, reply in zip(ids, self._link.run([self._commands.info(stream_id) for stream_id in ids])):
            try:
                yield reply if isinstance(reply, ResumableStreamError) else parse_info(stream_id, reply)
            except StreamLostError as damaged:
                yield damaged

    def pages(self, prefix: str = "") -> Iterator[list[str]]:
        """The ids that begin with `prefix`, in order, some hundreds at a time."""
        begin = prefix.encode("utf-8", "surrogatepass")
        last, end = (b"[" + begin, b"(" + begin + b"\xff") if begin else (b"-", b"+")
        while True:
            index = self._keys[0]
            call = Call(index, ("ZRANGEBYLEX", index, last, end, "LIMIT", 0, _PAGE_OF_STREAMS))
            ids = [each.decode("utf-8") for each in self._link.ask(call)]
            if not ids:
                return
            yield ids
            last = b"(" + ids[-1].encode("utf-8")

    def sweep(self) -> int:
        """Remove what has expired or is damaged, with its id. Returns how many.

        What a server does not tell, or refuses to remove, is logged and left to a later sweep: it is one stream's
        matter, or one node's.
        """
        removed = 0
        self._link.ask(script("index_remove", self._keys, _EVER))  # what is no index makes room for one
        for ids in self.pages():
            seconds, micros = self._link.ask(Call(self._keys[0], ("TIME",)))
            found = dict(zip(ids, self._fetch(ids)))
            gone = [stream_id for stream_id, info in found.items() if info is None]
            calls = [self._commands.delete(stream_id, only_remains=True) for stream_id in gone]
            found.update(zip(gone, self._link.run(calls) if calls else ()))
            for stream_id, failed in found.items():
                if isinstance(failed, ResumableStreamError):
                    extra = about("sweep-failed", stream_id)
                    logger.warning("the sweep passed over stream %s: %s", stream_id, failed, extra=extra)
            gone = [stream_id for stream_id in gone if not isinstance(found[stream_id], ResumableStreamError)]
            removed += self.remove(gone, int(seconds) * 1000 + int(micros) // 1000)
        for _ in self.orphans():
            pass  # what is over is taken out
        return removed


def _delay(seconds: float | None) -> Argument:
    return "" if seconds is None else milliseconds(seconds)
