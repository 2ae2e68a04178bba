"""The blocking XREADs of one process: one connection for all its viewers, whatever their number.

On a Redis Cluster one XREAD cannot name keys of different slots, so there is one connection for each watched
stream instead.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from redis.exceptions import RedisError, ResponseError

from ...contract import Position, Status
from ...interrupts import Event
from ...process import start_thread
from ..pages import Page
from ..tail import Ending, Tail, Tails
from .commands import parse_message
from .connection import Link
from .keys import Keys
from .scripts import Call

logger = logging.getLogger("resumable_sync")

BLOCK_SECONDS = 2.0
"""How long an XREAD blocks at most: it is told nothing of DEL, FLUSHALL, expiry or RENAME."""

_REPLY_SECONDS = 3.0  # beyond BLOCK, before the connection counts as broken
_ROWS = 64  # of all streams together that one XREAD asks for, but at least two of each
_PAUSE_SECONDS = (0.05, 1.0)  # first and longest between attempts to connect
_NUDGE_LIFE = "60000"  # ms


class Reader:
    """A thread that blocks in XREAD for the tails that are produced elsewhere. Thread-safe.

    `only`: the one stream that it serves, on a cluster; otherwise it serves all, and also reads a key of its own,
    `control`, into which `nudge` writes: so a new stream is taken up at once. `_lock` guards `_thread` and
    `_nudged`; `_followed` is replaced as a whole.
    """

    def __init__(self, link: Link, tails: Tails, keys: Keys, control: str, only: str | None = None) -> None:
        self._link = link
        self._tails = tails
        self._keys = keys
        self._control = control
        self._only = only
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._nudged = False
        self._followed: dict[str, int] = {}  # stream ids of the present XREAD, with their generations
        self._control_id = "0-0"
        self._closed = Event()

    def follow(self, tail: Tail) -> None:
        """See to it that the tail's stream is read. One short command if it is not yet, else nothing."""
        awaited = tail.awaited()
        if awaited is None or self._followed.get(tail.stream_id) == awaited.generation:
            return
        with self._lock:
            if self._closed.is_set():
                return
            if self._thread is None:
                # May fail, then the next viewer tries it.
                self._thread = start_thread(self._run, "resumable-sync-redis-reader")
                return
            nudge = not self._nudged and self._only is None
            self._nudged = True
        if nudge:
            # If this fails the reader has trouble too, or takes the stream up when its BLOCK ends.
            self._link.run(
                [
                    Call(self._control, ("XADD", self._control, "MAXLEN", "1", "*", "n", "1")),
                    Call(self._control, ("PEXPIRE", self._control, _NUDGE_LIFE)),
                ]
            )

    def close(self) -> None:
        """Let the thread end when its present XREAD does."""
        self._closed.set()

    def _run(self) -> None:
        connection: Any = None
        pause = 0.0
        try:
            while not self._closed.is_set():
                positions = self._positions()
                if not positions and self._retire():
                    return
                if not positions:
                    continue
                try:
                    if connection is None:
                        key = self._keys.log(self._only) if self._only else self._control
                        connection = self._link.endpoint(key).connection(BLOCK_SECONDS + _REPLY_SECONDS)
                        self._control_id = "0-0"
                    count = max(2, _ROWS // (len(positions) + (self._only is None)))
                    reply = self._read(connection, positions, count)
                    pause = 0.0
                except (RedisError, OSError):
                    # The positions are kept, so nothing is missed; the checks report what lasts.
                    logger.debug("the shared reader lost its connection", exc_info=True)
                    if connection is not None:
                        connection.disconnect()
                        connection = None
                    if self._closed.wait(pause):
                        return
                    pause = min(max(_PAUSE_SECONDS[0], pause * 2), _PAUSE_SECONDS[1])
                    self._link.recover()
                else:
                    self._hand_out(reply, positions, count)
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None
                    self._followed = {}
            if connection is not None:
                connection.disconnect()

    def _retire(self) -> bool:
        """Nothing is to be read: end the thread unless somebody came meanwhile."""
        with self._lock:
            if self._nudged:
                return False
            self._thread = None
            self._followed = {}
            return True

    def _positions(self) -> dict[str, tuple[Tail, Position]]:
        with self._lock:
            self._nudged = False  # a reader that comes from here on needs none
        found = {}
        for tail in self._tails.prune():
            awaited = tail.awaited() if self._only in (None, tail.stream_id) else None
            if awaited is not None:
                found[self._keys.log(tail.stream_id)] = (tail, awaited)
        self._followed = {tail.stream_id: awaited.generation for tail, awaited in found.values()}
        return found

    def _read(self, connection: Any, positions: dict[str, tuple[Tail, Position]], count: int) -> dict[bytes, Any]:
        """What follows these positions, `count` rows of each at most."""
        keys = list(positions)
        ids = [str(awaited) for _, awaited in positions.values()]
        if self._only is None:
            keys.append(self._control)
            ids.append(self._control_id)
        block = int(BLOCK_SECONDS * 1000)
        options = ("COUNT", count, "BLOCK", block)
        connection.send_command("XREAD", *options, "STREAMS", *keys, *ids, check_health=False)
        try:
            reply = connection.read_response(disable_decoding=True)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                for tail, _ in positions.values():  # one of them is no stream any more: its viewers find out
                    tail.forget()
            raise
        if not reply:
            return {}
        return reply if isinstance(reply, dict) else dict(reply)  # a map in protocol 3, pairs in 2

    def _hand_out(self, reply: dict[bytes, Any], positions: dict[str, tuple[Tail, Position]], count: int) -> None:
        max_bytes = self._tails.max_bytes
        for key, rows in reply.items():
            found = positions.get(key.decode("utf-8"))
            if found is not None:
                # The last of as many as were asked for is asked for again: what was stored with it may follow.
                is_cut = len(rows) == count and rows[-1][1][0] == b"p"
                deliver(found[0], rows[:-1] if is_cut else rows, max_bytes)
            else:
                self._control_id = rows[-1][0].decode("ascii")


def deliver(tail: Tail, rows: list[Any], max_bytes: int) -> None:
    """Put rows as Redis gave them, [id, [field, value, …]], into a tail; an ending with those before it."""
    pages: list[Page] = []
    for row_id, fields in rows:
        generation, end = map(int, row_id.split(b"-"))
        kind = fields[0]
        if kind == b"p":
            pages.append((end, fields[1], fields[3] if len(fields) > 3 else None))
            continue
        if kind == b"e":
            told = dict(zip(fields[::2], fields[1::2]))
            status = Status(told[b"e"].decode("ascii"))
            ending = Ending(Position(generation, int(told[b"n"])), status, parse_message(told[b"m"]), None)
            tail.extend(generation, pages, max_bytes, ending=ending)
        else:  # deleted, or begun anew
            tail.forget()
        pages = []
    if pages:
        tail.extend(generation, pages, max_bytes)
