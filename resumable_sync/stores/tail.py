"""What the viewers of one process share of a stream: its newest rows, and where to wait for more.

Theory of operation
-------------------

A `Tail` is what this process knows of the end of one stream. A viewer is a call of `Tails.read`, in a thread of
its own. Whatever happens to a stream is told to its tail:

    extend      rows were committed, here or elsewhere, perhaps with the stream's ending: nobody sees them
                without it
    finish      the stream has ended
    forget      something happened that is not known in detail, or that does not fit what is known
    caught_up   a viewer has fetched from the store and reached the end of a running stream
    confirm     somebody has checked the store: it agrees, or has more, or contradicts

A tail is in one of three states. `caught_up` leads out of the first. So does `confirm`, where the tail is only
no longer good and the store does not contradict it; and, where the store is checked, so do rows that do not follow
on what is known: with them it begins anew.

    unknown     generation 0, or no longer good: viewers fetch for themselves
    running     the stream runs, and the rows reach without a gap from byte `_begin` to byte `end`
    ended       as running, and nothing comes after `end`: an ending is taken only if the rows reach up to it

A viewer goes round this loop:

    1 take the tail's version
    2 ask the tail (`serve`); if that is not followed, or does not know, or a wait brought no news: fetch
    3 after a fetch that reached the end of the stream, tell the tail (`caught_up`) and have it followed
    4 return, if there is anything to return or it is time to; else wait for another version, and go to 1

**Why no wake-up is lost.** The version grows with all that changes what the tail says. That is the last step of
the change, under the tail's lock, and those that wait are woken after it. So whoever has seen a version sees in
2 at least what the tail said then, and what comes later ends the wait in 4. The tail itself learns of
everything while it is good: that is what `follow` is for. It is called before the viewer waits, and the store
then compares the tail with what is stored, since something may have happened between the fetch and `follow`.

**Why no viewer sees what is not so.** What a fetch found may be outdated by the time it is told. So `caught_up`
takes the version of step 1 with it and counts only if that is still the tail's: then nothing was told since
before the fetch, and the store knew as much as the tail. Rows may come late, twice and from two sides: what is
known already is passed over, what is of an older generation is ignored, and after a gap nothing from before it
is kept. A viewer whose position the rows do not reach is not served.

**Until when a tail is good.** There are two kinds of stores.

- Told of everything, at once (SQLite: by the writer, or by the poll). `check_seconds` is None. The tail is good
  until the stream's life runs out; viewers wait no longer than that, then fetch. A gap makes it unknown, since
  what came in between may have been an ending.
- Told of rows, but not of a deletion or of a dead producer (Redis). The store is checked every `check_seconds`.
  A check that is late by as much again (Redis is away) makes the tail unknown, so that viewers who come hear of
  the trouble. Those that wait do so until they are told: the check tells them too when it fails.

**Interleavings that were thought of.**

- A viewer joins while others wait: it shares the tail as it is, or moves it by `caught_up`. That wakes the
  others: the news of what was appended will hold nothing new, so nobody else would.
- Two viewers fetch, and the later fetch is told first: that changed the version, so the older one is refused.
- An append passes a fetch: the version has changed, so the fetch does not count, the wait returns at once, and
  the viewer asks again. The same goes for an ending or a deletion while the tail is unknown, which remembers
  neither.
- `forget` during `serve`: the viewer returns what was so at some moment of its read. If there was nothing to
  return it waits for another version than one that it took before, and that is there.
- The ending comes before the last rows: the tail is unknown, and each viewer fetches the rest, then the ending.
- `wake_all` or `stop_reads` comes between the check in 4 and the wait: they set their mark, then change the
  version.
- A signal handler raises within a call of the main thread, at any step: no step leaves what is not so. Rows and
  their end change by one append to the list; a restart begins and ends with "unknown". What has not been told
  is told when the call is repeated, or found out by the viewers' next fetch.
- The last viewer of a tail leaves. If the tail is unknown or nobody follows it, it is dropped there and then,
  as no thread may ever come to do so. Whoever still tells it something tells an object that nobody asks.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..contract import Batch, Position, Status
from ..errors import InvalidCursorError, StoreUnavailableError, StreamLostError, StreamNotFoundError
from . import pages
from .base import Snapshot
from .pages import Page
from .wakeup import Channel

_NEVER = float("-inf")  # as a time until which something is good: it is not
_ALL_BYTES = 64 * 1024 * 1024  # of payload that all tails of a process hold at most
_SOONEST_CHECK_SECONDS = 0.01
_SHARED_BATCH_BYTES = 4 * 1024
_SHARED_BATCHES = 4


class Fetched(NamedTuple):
    """What the store had after a position, all of one moment."""

    batch: Batch
    valid_for: float
    """Seconds for which this holds, from that moment, unless something is told: then the stream's lease or its
    life runs out by itself."""
    local: bool = False
    """Whether this process produces the stream."""


class Ending(NamedTuple):
    """How a stream has ended."""

    end: Position
    status: Status
    error: str | None
    valid_for: float | None
    """Seconds, from now, for which this holds: the life that the stream has left. None: not known, so the store is
    asked when it would next have been checked."""


class Tail(Channel):
    """The newest rows of one stream, and whether it has ended. Thread-safe. `_lock` guards all fields and the
    version, but for `viewers`, `followed` and `idle_since`, which the lock of Tails guards. They are changed under
    their lock, but some are read without it:

    - `good_until` and `followed`, by viewers. Each is one value. Whoever sees an older one is served what was so
      after it took the version, or fetches once too often. What makes a tail bad also changes its version, so
      nobody waits on it then.
    - `generation`, by the last viewer to leave, and `local`, by whoever has the tail read. Each is one value. An
      older one means that the tail is kept until `prune` or made anew, or that it is read from the next check on.
    - `_batches`, what viewers were given last: those of one stream mostly want the same. It is replaced, as a
      whole, with every change. So what a viewer finds in it is of some moment since it took the version, and what
      makes that outdated also ends its wait.

    `serve` also adds to `_batches` without the lock, by single operations of a dict: to the one that it took
    together with the rows. If another has taken its place meanwhile, nobody looks into the old one any more. Two
    viewers may add the same, or a few more than there should be.
    """

    def __init__(self, stream_id: str, check_seconds: float | None = None) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.viewers = 0
        self.followed = False
        self.idle_since = time.monotonic()
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self.generation = 0  # 0: nothing is known
        self.ending: tuple[Status, str | None] | None = None
        self.local = False  # this process produces the stream: nobody else's rows are awaited
        self.good_until = _NEVER  # monotonic: from then on only the store knows
        self.check_at = _NEVER  # monotonic: when the store is to be checked
        self._begin = 0  # where the rows begin
        self._rows: list[Page] = []
        self._missing_at = -1  # the end at which the last check found more stored than had come
        self._batches: dict[tuple[Position, int], Batch] = {}

    @property
    def end(self) -> int:
        """Where the rows end: what is known of the stream's size. The caller holds the lock, or needs no more than
        some recent value."""
        rows = self._rows
        return rows[-1][0] if rows else self._begin

    def serve(self, position: Position, max_bytes: int) -> Batch | None:
        """What follows `position`, as of this moment; None if only the store knows."""
        batch = self._batches.get((position, max_bytes))
        if time.monotonic() > self.good_until:
            return None
        if batch is not None:
            return batch
        with self._lock:
            if position.generation != self.generation:
                return None
            ending, rows, batches = self.ending, self._rows, self._batches
            end, offset = rows[-1][0] if rows else self._begin, position.offset
            if not self._begin <= offset <= end:
                return None
            if offset == end:
                found = []
            elif offset >= end - len(rows[-1][1]):  # as most often: without a call for each look at the others
                found = rows[-1:]
            else:
                found = rows[bisect_right(rows, offset, key=_row_end) :]
        status, error = ending or (Status.STREAMING, None)
        data: bytes | Sequence[bytes] = b""
        lengths: Sequence[int] = ()
        if len(found) == 1 and found[0][2] is None and len(found[0][1]) == end - offset <= max_bytes:
            data, lengths = found[0][1], (end - offset,)  # one live chunk, as most often
        elif found:
            parts, lengths = pages.unpack(found, offset, max_bytes)
            data = parts[0] if len(parts) == 1 else parts
        batch = Batch(position, data, lengths, size=end, status=status, error=error)
        if batch.length <= _SHARED_BATCH_BYTES and len(batches) < _SHARED_BATCHES:
            batches[position, max_bytes] = batch
        return batch

    @property
    def patience(self) -> float:
        """Seconds that a viewer may wait to be woken before it must fetch."""
        return self.good_until - time.monotonic() if self._check_seconds is None else math.inf

    def known(self) -> Position:
        """Up to where the stream is known; generation 0 if it is not."""
        with self._lock:
            return Position(self.generation, self.end)

    def awaited(self) -> Position | None:
        """From where on another process's rows are awaited; None if none are."""
        with self._lock:
            if self.local or self.ending or not self.generation:
                return None
            return Position(self.generation, self.end)

    def next_check(self) -> float:
        """When the store is to be checked (monotonic); infinite if there is nothing to check."""
        with self._lock:
            return math.inf if self.ending or not self.generation else self.check_at

    def caught_up(self, found: Fetched, version: int) -> None:
        """A viewer has reached the end of a running stream. `version`: the tail's, taken before the fetch."""
        batch = found.batch
        with self._lock:
            if self.version != version:
                return  # what was found may be outdated
            moved = batch.generation != self.generation or batch.size != self.end or self.ending is not None
            if moved:
                self._restart(batch.generation, batch.size)
                self.local = found.local
                self.version += 1
            self._trust(found.valid_for)
        if moved:
            self.wake()  # others may wait where the tail was: nobody else will tell them

    def extend(
        self,
        generation: int,
        rows: Sequence[Page],
        max_bytes: int,
        *,
        local: bool = False,
        ending: Ending | None = None,
    ) -> None:
        """These rows were committed, by this process if `local`, and with them the `ending`, if there is one.
        Wakes all that wait, unless all is known.

        `max_bytes` of payload are held (or one row).
        """
        with self._lock:
            if generation < self.generation:
                return
            self.local = local or (self.local and generation == self.generation)
            changed, known = False, self.end
            for row in rows:
                end, payload, _ = row
                if generation != self.generation or end - len(payload) > known:
                    if self._check_seconds is None:
                        self._restart(0, 0)
                        changed = True
                        break
                    known = end - len(payload)
                    self._restart(generation, known)
                    self._trust(self._check_seconds)
                if end > known:
                    self._add(row)
                    changed, known = True, end
            if not changed and ending is None:
                return
            if known - self._begin > max_bytes:
                self._shorten(max_bytes)
            if ending is not None:
                self._finish(ending)
            self.version += 1
        self.wake()

    def finish(self, ending: Ending) -> None:
        """The stream has ended. Wakes all that wait."""
        with self._lock:
            if ending.end.generation < self.generation:
                return
            self._finish(ending)
            self.version += 1
        self.wake()

    def forget(self) -> None:
        """Something else has happened: every viewer must fetch. Wakes all that wait."""
        with self._lock:
            self._restart(0, 0)
            self.version += 1
        self.wake()

    def confirm(self, known: Position, found: Snapshot | None) -> bool:
        """Judge the tail by what a check found in the store; `known`: up to where the stream was known before it.

        True if rows or the ending are missing, which the caller is to fetch. If they have not come by the next
        check, nobody here can get them: then, and where the store contradicts what is known, the tail is forgotten
        and there is nothing to fetch for it. Otherwise, unless it has ended, the tail is good again.
        """
        with self._lock:
            if found is not None and found.generation == self.generation == known.generation:
                missing = found.size > self.end or (found.status.ended and self.ending is None)
                stuck = missing and self.end == self._missing_at
                self._missing_at = self.end if missing else -1
                if found.size >= known.offset and not stuck:
                    self.local = self.local and not missing
                    if self.ending is None:
                        self._trust(found.valid_for)
                    return missing
        self.forget()
        return False

    def bump(self) -> None:
        """Wake all that wait, though nothing has happened."""
        with self._lock:
            self.version += 1
        self.wake()

    # The helpers below are called with the lock held.

    def _restart(self, generation: int, end: int) -> None:
        """Hold nothing, and know nothing but where the stream ends."""
        self.good_until = self.check_at = _NEVER
        self.generation = 0  # until all the rest is so
        self._batches = {}
        self._rows = []
        self._begin = end
        self.ending = None
        self.local = self.local and generation != 0
        self._missing_at = -1
        self.generation = generation

    def _finish(self, ending: Ending) -> None:
        """The stream has ended where the rows end, or else is not known any more."""
        if ending.end != (self.generation, self.end):
            self._restart(0, 0)  # the last rows have not come
            return
        self._batches = {}  # first: a batch of before would hide the ending
        self.ending = (ending.status, ending.error)
        good_for = (ending.valid_for or 0.0) + (self._check_seconds or 0.0)
        self.good_until = min(self.good_until, time.monotonic() + good_for)

    def _trust(self, valid_for: float) -> None:
        """What is known holds for `valid_for` seconds, unless something is told."""
        if self._check_seconds is None:
            self.good_until = time.monotonic() + valid_for
        else:
            self.check_at = time.monotonic() + min(self._check_seconds, max(_SOONEST_CHECK_SECONDS, valid_for))
            self.good_until = self.check_at + self._check_seconds

    def _add(self, row: Page) -> None:
        """Put the row that begins at the end there."""
        self._batches = {}
        self._rows.append(row)  # one step, with which the end moves, too

    def _shorten(self, limit: int) -> None:
        """Drop the oldest rows of more than `limit` bytes: down to half, so that it is not done for each.

        A new list: viewers may be cutting their part out of the old one.
        """
        begin, end, dropped = self._begin, self.end, 0
        while end - begin > (limit // 2 if dropped else limit) and dropped < len(self._rows) - 1:
            begin = self._rows[dropped][0]
            dropped += 1
        if dropped:
            self._begin = begin  # first: then nobody is served from rows that are about to go
            self._rows = self._rows[dropped:]


class Tails:
    """The tails of one process. Thread-safe. `_lock` guards `_tails`, and each tail's `viewers`, `followed` and
    `idle_since`.

    `follow(tail)` is called, without locks, when a viewer has reached the end of a stream in the store; it sees to
    it that the tail is told of what comes. `max_bytes`: payload that one tail holds. `linger`: seconds that a
    followed tail stays after its last viewer left: most come right back. `check_seconds`: see above.
    """

    def __init__(
        self, follow: Callable[[Tail], None], *, max_bytes: int, linger: float, check_seconds: float | None = None
    ) -> None:
        self._follow = follow
        self._max_bytes = max_bytes
        self._linger = linger
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._tails: dict[str, Tail] = {}
        self._wakes = object()  # another one after every wake_all(): then a waiting read returns
        self._stopped = False

    @property
    def max_bytes(self) -> int:
        """Bytes that each tail may hold at the moment."""
        return min(self._max_bytes, _ALL_BYTES // max(1, len(self._tails)))

    def read(
        self,
        stream_id: str,
        position: Position | None,
        max_bytes: int,
        deadline: float,
        fetch: Callable[[str, Position | None, int], Fetched],
    ) -> Batch:
        """`Store.read` with a wait, until `deadline` (monotonic) at most. `fetch` asks the store what follows a
        position, without a wait, and raises as `Store.read`."""
        wakes = self._wakes
        tail = self.enter(stream_id)
        seen = False  # whether this call has seen the stream: if it goes then, it is lost, not missing
        ask_tail = True  # not after a wait that brought no news: then only the store may know more
        try:
            while True:
                version = tail.version  # before all else: nothing that comes after it is missed
                batch = None
                if position is not None and tail.followed and ask_tail:
                    batch = tail.serve(position, max_bytes)
                if batch is None:
                    try:
                        fetched = fetch(stream_id, position, max_bytes)
                    except (StreamNotFoundError, InvalidCursorError) as gone:
                        if not seen:
                            raise
                        raise StreamLostError(f"stream {stream_id} was lost while it was read: {gone}") from gone
                    batch = fetched.batch
                    position = Position(batch.generation, batch.offset - batch.length)
                    if batch.offset == batch.size:
                        self._caught_up(tail, fetched, version)
                seen = True
                left = deadline - time.monotonic()
                if batch.length or batch.status.ended or left <= 0:
                    return batch
                if self._stopped:
                    raise StoreUnavailableError("the store is closed", transient=False)
                if self._wakes is not wakes:
                    return batch
                ask_tail = tail.wait(version, min(left, tail.patience))
        finally:
            self.leave(tail)

    def enter(self, stream_id: str) -> Tail:
        """The stream's tail, for a viewer who must `leave` it again."""
        with self._lock:
            tail = self._tails.get(stream_id)
            if tail is None:
                tail = self._tails[stream_id] = Tail(stream_id, self._check_seconds)
            tail.viewers += 1
            return tail

    def leave(self, tail: Tail) -> None:
        """The viewer has returned."""
        with self._lock:
            tail.viewers -= 1
            tail.idle_since = time.monotonic()
            if not tail.viewers and not (tail.followed and tail.generation):
                del self._tails[tail.stream_id]

    def find(self, stream_id: str) -> Tail | None:
        """The stream's tail if there is one. Cheap: it is asked for every append."""
        return self._tails.get(stream_id)  # a dict is read atomically

    def followed(self) -> list[Tail]:
        """The tails that must be told of what happens."""
        with self._lock:
            return self._followed()

    def prune(self) -> list[Tail]:
        """Drop the tails that nobody came back to; returns the others that must be told."""
        with self._lock:
            stale = time.monotonic() - self._linger
            for tail in list(self._tails.values()):
                if not tail.viewers and tail.idle_since < stale:
                    del self._tails[tail.stream_id]
            return self._followed()

    def _followed(self) -> list[Tail]:
        """Called with the lock held."""
        return [tail for tail in self._tails.values() if tail.followed]

    def wake_all(self) -> None:
        """Make every waiting read return."""
        self._wakes = object()  # one assignment: unlike +=, no wake of another thread can undo it
        with self._lock:
            tails = list(self._tails.values())
        for tail in tails:
            tail.bump()

    def stop_reads(self) -> None:
        """The store is closed: waiting reads are to raise StoreUnavailableError."""
        self._stopped = True
        self.wake_all()

    def _caught_up(self, tail: Tail, fetched: Fetched, version: int) -> None:
        """A viewer has reached the end of what is stored: its tail goes on from there."""
        if fetched.batch.status.ended:
            return
        tail.caught_up(fetched, version)
        with self._lock:
            tail.followed = True
        try:
            self._follow(tail)
        except BaseException:
            tail.forget()  # others may wait on it already
            raise


def _row_end(row: Page) -> int:
    return row[0]
