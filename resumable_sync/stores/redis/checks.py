"""Checks of the streams that viewers of this process wait for; not on the way of a chunk.

A waiting viewer learns of what is stored without it. In this process the committing side tells its tail directly
(see tail.py); what other processes store comes by the shared XREAD (see reader.py). Both only ever add what lies
right after what is known, so it makes no difference which is first. Neither tells of a deletion or a dead
producer: for these a thread checks each followed stream now and then. It also has the reader begin where somebody
else writes. Viewers near the end of their stream need not ask Redis; the others page by themselves.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

from ...contract import Position
from ...process import start_thread
from ..base import Snapshot
from ..tail import Ending, Tail, Tails
from .commands import Commands, parse_snapshot
from .connection import Link
from .reader import Reader

logger = logging.getLogger("resumable_sync")

CHECK_SECONDS = 2.0
"""Seconds between checks whether a followed stream is still there and its producer lives."""

TAIL_BYTES = 1024 * 1024
"""Payload that a tail holds at most (or one row)."""

_LINGER_SECONDS = 5.0  # that a stream stays followed after its last viewer left: most come right back
_EARLY_SECONDS = 0.5  # by which a tail may be checked too early, together with one that is due
_CHECKS_OF_A_TRIP = 100
_IDLE_SECONDS = 1.0  # between checks whether any tail is left, while there is nothing else to do


class Checker:
    """Keeps the tails of one process true: checks them all by one thread, a command for each followed stream in
    CHECK_SECONDS, and has them read. Thread-safe. `_lock` guards `_thread`, `_closed`, `_next` and `_readers`.

    `control`: a key of this process's own, see Reader. `per_stream`: each stream has a reader of its own, as on a
    Cluster.
    """

    def __init__(self, link: Link, commands: Commands, control: str, per_stream: bool) -> None:
        self.tails = Tails(self._follow, max_bytes=TAIL_BYTES, linger=_LINGER_SECONDS, check_seconds=CHECK_SECONDS)
        self._link = link
        self._commands = commands
        self._control = control
        self._per_stream = per_stream
        self._lock = threading.Lock()
        self._kick = threading.Condition(self._lock)
        self._next = 0.0  # monotonic: when the thread wakes to make the next checks
        self._thread: threading.Thread | None = None
        self._readers: dict[str, Reader] = {}
        self._closed = False

    def close(self) -> None:
        """Wake all viewers and end the threads; they do not outlive their present wait."""
        with self._lock:
            self._closed = True
            self._kick.notify()
            readers = list(self._readers.values())
        for reader in readers:
            reader.close()
        self.tails.stop_reads()

    def _follow(self, tail: Tail) -> None:
        """Have the tail checked and, if its rows come from elsewhere, read."""
        check_at = tail.next_check()
        if check_at == math.inf:
            return
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                # May fail, then the next viewer tries it.
                self._thread = start_thread(self._run, "resumable-sync-redis-checks")
            elif check_at < self._next:
                self._next = check_at
                self._kick.notify()
            reader = self._reader(tail) if not tail.local else None
        if reader is not None:
            reader.follow(tail)

    def _reader(self, tail: Tail) -> Reader:
        """The reader of this tail. Called with the lock held."""
        only = tail.stream_id if self._per_stream else None
        reader = self._readers.get(only or "")
        if reader is None:
            reader = Reader(self._link, self.tails, self._commands.keys, self._control, only)
            self._readers[only or ""] = reader
        return reader

    def _run(self) -> None:
        try:
            while True:
                tails = self.tails.prune()
                with self._lock:
                    if self._closed or not (tails or self.tails.followed()):
                        self._thread = None
                        return
                    kept = {tail.stream_id for tail in tails}
                    for name in [name for name in self._readers if name and name not in kept]:
                        self._readers.pop(name).close()
                now = time.monotonic()
                checks = [(tail.next_check(), tail) for tail in tails]
                soonest = min([now + _IDLE_SECONDS, *(check_at for check_at, _ in checks)])
                soon = [tail for check_at, tail in checks if check_at <= now + _EARLY_SECONDS]
                if soonest <= now:
                    self._check(soon)
                    continue
                with self._lock:
                    self._next = min(self._next, soonest) if self._next > now else soonest
                    wait = self._next - time.monotonic()
                    if wait > 0 and not self._closed:
                        self._kick.wait(wait)
                    self._next = 0.0
        except BaseException:
            with self._lock:
                self._thread = None  # the next viewer starts another; tails grow stale and are silent meanwhile
            raise

    def _check(self, tails: list[Tail]) -> None:
        for begin in range(0, len(tails), _CHECKS_OF_A_TRIP):
            part = tails[begin : begin + _CHECKS_OF_A_TRIP]
            known = [tail.known() for tail in part]
            replies = self._link.run([self._commands.check(tail.stream_id) for tail in part])
            for tail, position, reply in zip(part, known, replies):
                self._judge(tail, position, reply)

    def _judge(self, tail: Tail, known: Position, reply: Any) -> None:
        snapshot = parse_snapshot(reply)
        if not isinstance(snapshot, Snapshot):
            tail.forget()  # gone, or out of reach: each viewer finds out and tells its caller
            return
        if snapshot.status.ended:
            end = Position(snapshot.generation, snapshot.size)
            tail.finish(Ending(end, snapshot.status, snapshot.error, None))
        elif tail.confirm(known, snapshot):
            self._follow(tail)  # somebody else writes
