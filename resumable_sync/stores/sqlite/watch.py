"""How a waiting viewer of the SQLite store learns that something was committed, here or in another process.

In this process the writer tells it directly, and what it wrote (see tail.py). Other processes send a hint to
each process that has waiting viewers (see peers.py). What never misses is the poll: one thread for each process
asks for SQLite's data_version while anybody waits. The thread also ends the streams whose producers died.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ...contract import Position, Status
from ...errors import ResumableStreamError, StreamLostError
from ...interrupts import Alarm
from ...process import start_thread
from ..base import Snapshot
from ..pages import Page
from ..tail import Ending, Tail, Tails
from . import tables
from .connection import Connections
from .peers import DATAGRAM_BYTES, EVERYTHING, Peers

logger = logging.getLogger("resumable_sync")

_TAIL_BYTES = 256 * 1024
_LINGER_SECONDS = 1.0  # that a stream stays followed after its last viewer left: most come right back
_POLL_SECONDS = 0.05  # between polls of data_version where hints arrive
_POLL_SECONDS_WITHOUT_HINTS = 0.005
_CHECK_SECONDS = 0.5  # between checks whether the producers of awaited streams live
_JOIN_SECONDS = 1.0
_FAULT_SECONDS = 0.05  # that the thread pauses after an error of which nobody knows
_IDLE_SECONDS = 5.0  # without a followed stream before the thread and its socket go
_DATAGRAMS = 64  # that are passed on together


class Watcher:
    """Keeps the tails of one process true, by one thread. Thread-safe. `_lock` guards `_thread`, `_idle` and
    `_closed`; it may be held while that of the tails is taken, never the other way round.

    `end_dead(ids)` ends those of these streams whose producers died and returns which; the thread calls it without
    locks, and tells the viewers. `name`: of this process's socket.
    """

    def __init__(
        self,
        connections: Connections,
        directory: Path,
        name: str,
        end_dead: Callable[[Collection[str]], Collection[str]],
    ) -> None:
        self.tails = Tails(self._follow, max_bytes=_TAIL_BYTES, linger=_LINGER_SECONDS)
        self._poller = _Poller(connections)
        self._end_dead = end_dead
        self._peers = Peers(directory, name)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._idle = False  # the thread is in the long wait of a process without viewers
        self._closed = False
        self._nudged = Alarm()  # ends the thread's wait where it has no socket

    def publish(self, stream_ids: Collection[str]) -> None:
        """Tell the viewers of these streams, here and elsewhere, that something was committed. Never blocks."""
        for tail in self._find(stream_ids).values():
            tail.forget()
        self._peers.tell(stream_ids)

    def publish_pages(self, written: Mapping[str, tuple[int, Sequence[Page]]]) -> None:
        """As `publish`, for what this process has appended: generation and pages by stream; no pages: unknown."""
        for stream_id, (generation, rows) in written.items():
            tail = self.tails.find(stream_id)
            if tail is not None and rows:
                tail.extend(generation, rows, self.tails.max_bytes)
            elif tail is not None:
                tail.forget()
        self._peers.tell(written)

    def publish_ending(
        self, stream_id: str, end: Position, status: Status, error: str | None, life: float
    ) -> None:
        """As `publish`, for a stream that this process has ended at `end`; it lives `life` seconds from now."""
        tail = self.tails.find(stream_id)
        if tail is not None:
            tail.finish(Ending(end, status, error, life))
        self._peers.tell([stream_id])

    def close(self) -> None:
        """Wake all viewers and end the thread; waits for it, a second at most."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self.tails.stop_reads()
        self._nudge()
        if thread is not None:
            thread.join(_JOIN_SECONDS)
        self._peers.close()

    def _follow(self, tail: Tail) -> None:
        """Have the thread run. Its next poll finds what was committed to a stream that is new to it."""
        with self._lock:
            if self._closed:
                return
            idle = self._idle  # the thread takes it back: until then each viewer nudges
            if self._thread is None:
                # May fail, then the next viewer tries it.
                self._thread = start_thread(self._run, "resumable-sync-watch")
        if idle:
            self._nudge()

    def _nudge(self) -> None:
        """End the thread's present wait."""
        self._nudged.ring()
        self._peers.nudge_self()

    def _find(self, stream_ids: Iterable[str]) -> dict[str, Tail]:
        return {stream_id: tail for stream_id in stream_ids if (tail := self.tails.find(stream_id)) is not None}

    # What follows is called by the thread alone.

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException:
            time.sleep(_FAULT_SECONDS)  # an error that comes again and again must not keep a core busy
            with self._lock:
                self._thread = None  # the next viewer that fetches starts another
            self._forget_all()
            raise

    def _watch(self) -> None:
        with self._peers.inbox() as inbox:
            poll_seconds = _POLL_SECONDS if inbox is not None else _POLL_SECONDS_WITHOUT_HINTS
            poll_at = check_at = 0.0
            idle_since = time.monotonic()
            while True:
                now = time.monotonic()
                with self._lock:
                    # A tail is entered before it is followed: it is among these, or `_follow` finds what is set.
                    tails = {tail.stream_id: tail for tail in self.tails.prune()}
                    if tails:
                        idle_since = now
                    self._idle = not tails
                    if self._closed or now - idle_since > _IDLE_SECONDS:
                        self._thread, self._idle = None, False
                        return
                if tails and now >= poll_at:
                    self._poll(tails)
                    poll_at = time.monotonic() + poll_seconds
                if tails and now >= check_at:
                    self._check(tails)
                    check_at = time.monotonic() + _CHECK_SECONDS
                wait = max(0.0, min(poll_at, check_at) - time.monotonic()) if tails else _IDLE_SECONDS
                if inbox is None:
                    self._nudged.wait(wait)
                else:
                    self._receive(inbox, wait)

    def _receive(self, inbox: socket.socket, wait: float) -> None:
        """Wait for hints and pass them on."""
        inbox.settimeout(wait or 0.0001)
        hinted: set[str] = set()
        try:
            for _ in range(_DATAGRAMS):
                datagram = inbox.recv(DATAGRAM_BYTES)
                if datagram == EVERYTHING:
                    self._forget_all()
                else:
                    # From outside anything may come: what names no awaited stream wakes nobody.
                    hinted.update(datagram.decode("ascii", "replace").split("\n"))
                inbox.settimeout(0.0)
        except (TimeoutError, BlockingIOError):
            pass  # there are no more
        tails = self._find(hinted)
        if tails:
            self._advance(tails)

    def _poll(self, tails: Mapping[str, Tail]) -> None:
        known = {stream_id: tail.known() for stream_id, tail in tails.items()}
        try:
            changes = self._poller.changes(tails)
        except ResumableStreamError:
            self._forget_all()  # each viewer fetches for itself and reports the trouble to its caller
            return
        outdated = {
            name: tails[name] for name, found in changes.items() if tails[name].confirm(known[name], found)
        }
        if outdated:
            self._advance(outdated)

    def _advance(self, tails: Mapping[str, Tail]) -> None:
        """Other processes have committed something to these streams: fetch it once for all viewers."""
        known = {stream_id: tail.known() for stream_id, tail in tails.items()}
        try:
            news = self._poller.news({name: position for name, position in known.items() if position.generation})
        except ResumableStreamError:
            news = {}  # as above
        for stream_id, tail in tails.items():
            found, rows = news.get(stream_id, (None, ()))
            if found is not None:
                end = Position(found.generation, found.size)
                ended = Ending(end, found.status, found.error, found.valid_for) if found.status.ended else None
                tail.extend(found.generation, rows, self.tails.max_bytes, ending=ended)
            if tail.confirm(known[stream_id], found):
                tail.forget()

    def _check(self, tails: Mapping[str, Tail]) -> None:
        try:
            dead = self._end_dead(list(tails))
        except ResumableStreamError:
            self._forget_all()  # as above: a locked or full file is for the viewers to report
            return
        if dead:
            self.publish(dead)

    def _forget_all(self) -> None:
        for tail in self.tails.followed():
            tail.forget()


class _Poller:
    """Remembers how the awaited streams stood. For one thread."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._seen: dict[str, tuple[int, Status, int] | None] = {}

    def changes(self, stream_ids: Collection[str]) -> dict[str, Snapshot | None]:
        """Those of these streams that changed since the last call, or that it did not name; None: not there."""
        with self._connections.read() as connection:
            # SQLite raises data_version with every commit of another connection; reading it costs next to nothing.
            # As this connection saw it last, all that was committed up to then has been polled.
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version == connection.seen_version and self._seen.keys() >= set(stream_ids):
                return {}
            found = dict(tables.select_many(connection, stream_ids))
            connection.seen_version = version
        before, self._seen = self._seen, {}
        changed: dict[str, Snapshot | None] = {}
        for name in stream_ids:
            row = found.get(name)
            state = None if row is None else (row.generation, row.status, row.size)
            self._seen[name] = state
            if name not in before or state != before[name]:
                changed[name] = None if row is None else _as_snapshot(row)
        return changed

    def news(self, known: Mapping[str, Position]) -> dict[str, tuple[Snapshot, Sequence[Page]]]:
        """What was committed after these positions, of one moment. Streams that are gone, and those that went on
        by more than a tail holds, are left out."""
        news: dict[str, tuple[Snapshot, Sequence[Page]]] = {}
        if not known:
            return news
        with self._connections.read() as connection:
            for stream_id, row in tables.select_many(connection, known):
                generation, offset = known[stream_id]
                if row.expired or row.generation != generation or row.size - offset > _TAIL_BYTES:
                    continue
                try:
                    rows = list(tables.select_pages(connection, generation, offset)) if row.size > offset else []
                except StreamLostError:
                    continue  # each viewer finds the damage, and tells its caller
                news[stream_id] = _as_snapshot(row), rows
        return news


def _as_snapshot(row: tables.Row) -> Snapshot:
    return Snapshot(row.generation, row.status, row.size, row.entries, row.error, row.life)
