"""How one viewer follows several streams at once, in one thread.

A store can be asked to wait for one stream. So for each stream that somebody follows together with others, and
that has nothing more to give at the moment, the process has one small thread that does nothing but wait for it:
its **waker**. It rings the bells of all who follow the stream, and they read for themselves, without a wait. That
keeps

- threads bounded by the number of distinct streams, however many follow them;
- memory to one batch for each viewer: no bytes pass between threads, so no slow viewer can fill a queue;
- leaving at once: a viewer takes its bell away and goes. A waker that rings for nobody ends with its wait.

**Why no news is lost.** A viewer joins the waker, then reads once more. What was stored before that read, the read
finds. What is stored later lies after the position from which the waker waits, or the waker has yet to come back
from a wait that has seen it; either way it rings after that. And whatever ends a waker, its last act is to ring.

**Fairness.** Those that have something stand in a queue. Each gives one batch of bounded size in its turn and
goes to the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from .arrivals import Arrivals
from .contract import Batch, Status, Store
from .errors import (
    InvalidCursorError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamLostError,
    StreamNotFoundError,
)
from .interrupts import Alarm
from .logs import about
from .process import start_thread
from .viewer import RETRY_SECONDS, WAIT_SLICE, OpenReads, ViewerLoop

logger = logging.getLogger("resumable_sync")

_ARRIVAL_SECONDS = 1.0  # after which a waker of a stream that has not begun sees whether anybody is left

TURN_BYTES = 64 * 1024
"""Bytes that a stream gives in its turn (it may exceed this by the rest of one chunk)."""


class Bell:
    """What one viewer of several streams waits on. Any thread may ring, the viewer's alone waits."""

    def __init__(self) -> None:
        self._alarm = Alarm()
        self._rung: set[str] = set()  # single operations are atomic

    def ring(self, stream_id: str) -> None:
        """There is something new about this stream. Never blocks."""
        self._rung.add(stream_id)  # first: whom the alarm lets through, finds it
        self._alarm.ring()

    def wait(self, seconds: float) -> list[str]:
        """Wait until somebody rings, `seconds` at most; returns for which streams they did."""
        self._alarm.wait(seconds)
        found = []
        while self._rung:
            found.append(self._rung.pop())
        return found


class _Waker:
    """Waits for one stream. The lock of Wakers guards its fields."""

    def __init__(self) -> None:
        self.bells: set[Bell] = set()


class Wakers:
    """The wakers of one context in one process. Thread-safe. `_lock` guards `_wakers` and their bells; nothing is
    rung, read or started under it."""

    def __init__(self, reads: OpenReads, arrivals: Arrivals) -> None:
        self._reads = reads
        self._arrivals = arrivals
        self._lock = threading.Lock()
        self._wakers: dict[str, _Waker] = {}

    def join(self, store: Store, stream_id: str, cursor: str, bell: Bell) -> bool:
        """Have `bell` rung from now on. True if it was not before: then the caller must read once more.

        A waker that is started for it begins to wait at `cursor`; "" also waits for the stream to begin.
        StoreUnavailableError if the process can have no more threads.
        """
        with self._lock:
            waker = self._wakers.get(stream_id)
            is_new = waker is None
            if waker is None:
                waker = self._wakers[stream_id] = _Waker()
            elif bell in waker.bells:
                return False
            waker.bells.add(bell)
        if is_new:
            try:
                run = partial(self._run, store, stream_id, cursor, waker)
                start_thread(run, f"resumable-sync-waker-{stream_id}")
            except BaseException:
                self._retire(stream_id, waker)
                raise
        return True

    def leave(self, stream_ids: Iterable[str], bell: Bell) -> None:
        """Ring this bell no more."""
        with self._lock:
            for stream_id in stream_ids:
                waker = self._wakers.get(stream_id)
                if waker is not None:
                    waker.bells.discard(bell)

    def __len__(self) -> int:
        return len(self._wakers)

    def _run(self, store: Store, stream_id: str, cursor: str, waker: _Waker) -> None:
        try:
            while self._needed(stream_id, waker):
                try:
                    batch = self._await(store, stream_id, cursor, waker)
                except StoreUnavailableError as unavailable:
                    if not unavailable.transient:
                        return
                    self._ring(stream_id, waker)  # they judge for themselves how long to bear it
                    self._reads.closed.wait(RETRY_SECONDS)
                    continue
                except ResumableStreamError:
                    return  # it is gone, or they may not follow any more: their own reads say so
                if batch is None:
                    continue
                if batch.status.ended:
                    return
                if batch.length or not cursor:
                    self._ring(stream_id, waker)
                cursor = f"{batch.generation}-{batch.size}"
        except Exception:
            logger.exception("waiting for stream %s failed", stream_id, extra=about("viewer-failed", stream_id))
            self._reads.closed.wait(RETRY_SECONDS)  # those that still follow it start another waker
        finally:
            self._retire(stream_id, waker)

    def _await(self, store: Store, stream_id: str, cursor: str, waker: _Waker) -> Batch | None:
        """Wait for what follows `cursor`, or for the stream to begin; None where it had not begun."""
        place = self._reads.place(waker)
        self._reads.enter(place, cursor)
        try:
            return store.read(stream_id, cursor, max_bytes=1, timeout=WAIT_SLICE)
        except StreamNotFoundError:
            if cursor:
                raise
        finally:
            self._reads.leave(place)
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        found = self._arrivals.wait(stream_id, deadline, lambda: store.status(stream_id) is not Status.MISSING)
        if not found and time.monotonic() < deadline:
            raise StoreUnavailableError("the context is closed", transient=False)
        if found:
            self._ring(stream_id, waker)
        return None

    def _needed(self, stream_id: str, waker: _Waker) -> bool:
        """Whether anybody is to be woken; otherwise the next one to come starts another waker."""
        with self._lock:
            if waker.bells:
                return self._wakers.get(stream_id) is waker
            if self._wakers.get(stream_id) is waker:
                del self._wakers[stream_id]
            return False

    def _ring(self, stream_id: str, waker: _Waker) -> None:
        with self._lock:
            bells = list(waker.bells)
        for bell in bells:
            bell.ring(stream_id)

    def _retire(self, stream_id: str, waker: _Waker) -> None:
        with self._lock:
            if self._wakers.get(stream_id) is waker:
                del self._wakers[stream_id]
        self._ring(stream_id, waker)


class Turn(NamedTuple):
    """What one stream gave in its turn."""

    stream_id: str
    batch: Batch | None
    """What was read; perhaps empty. None for a stream of which nothing could be read."""
    over: bool = False
    """Whether nothing comes after it."""
    ending: ResumableStreamError | None = None
    """Why it is over; None: it is `done`."""


class _Followed:
    """Where the viewer stands in one stream."""

    def __init__(self, cursor: str, begins_by: float) -> None:
        self.cursor = cursor  # "" until it is known to have begun
        self.begins_by = begins_by  # monotonic: until then it may be missing
        self.live = False  # it was caught up once
        self.unavailable_since: float | None = None
        self.due: float | None = None  # monotonic: when to read it, although nobody rings


class Several:
    """One viewer's way along several streams: iterate `turns` once. One thread at a time.

    `cursors`: what follows which cursor, by stream id. `wait`: seconds for which a stream may be missing.
    `loop_of`: the viewer's loop of one stream, which knows why it failed. `refusing`: whether streams that have
    not begun will not begin here.
    """

    def __init__(
        self,
        store: Store,
        reads: OpenReads,
        wakers: Wakers,
        cursors: Mapping[str, str],
        *,
        wait: float,
        heartbeat: float,
        loop_of: Callable[[str], ViewerLoop],
        refusing: Callable[[], bool],
    ) -> None:
        self._store = store
        self._reads = reads
        self._place = reads.place(self)
        self._wakers = wakers
        self._heartbeat = heartbeat
        self._loop_of = loop_of
        self._refusing = refusing
        self._bell = Bell()
        begins_by = time.monotonic() + wait
        self._followed = {stream_id: _Followed(cursor, begins_by) for stream_id, cursor in cursors.items()}

    def drop(self, stream_id: str) -> None:
        """Follow this one no more."""
        self._followed.pop(stream_id, None)
        self._wakers.leave([stream_id], self._bell)

    def turns(self) -> Iterator[Turn | None]:
        """What the streams give, each in its turn, until all are over or dropped; None whenever nothing came
        for a heartbeat.

        A stream's first turn after which it has nothing more, for now, comes even if it is empty.
        StoreUnavailableError as of a viewer of one stream.
        """
        stream_ids = list(self._followed)
        ready = deque(stream_ids)  # each once
        quiet_since = time.monotonic()
        self._reads.following.enter(self)
        try:
            while self._followed:
                rung = self._bell.wait(0.0 if ready else self._patience(quiet_since))
                ready.extend(each for each in {*rung, *self._due()}.difference(ready) if each in self._followed)
                if not ready:
                    if time.monotonic() - quiet_since >= self._heartbeat:
                        yield None
                        quiet_since = time.monotonic()
                    continue
                stream_id = ready.popleft()
                followed = self._followed.get(stream_id)
                if followed is None:
                    continue
                turn, again = self._take(stream_id, followed)
                if again:
                    ready.append(stream_id)
                if turn is None:
                    continue
                if turn.over:
                    self.drop(stream_id)
                yield turn
                del turn  # its bytes are not kept for as long as the viewer waits
                quiet_since = time.monotonic()
        finally:
            self._reads.following.leave(self)
            self._wakers.leave(stream_ids, self._bell)

    def _patience(self, quiet_since: float) -> float:
        """Seconds to wait for a bell."""
        dues = [each.due for each in self._followed.values() if each.due is not None]
        return min([quiet_since + self._heartbeat, *dues]) - time.monotonic()

    def _due(self) -> list[str]:
        """The streams to be read although nobody rang for them."""
        now = time.monotonic()
        found = [key for key, each in self._followed.items() if each.due is not None and each.due <= now]
        for stream_id in found:
            self._followed[stream_id].due = None
        return found

    def _take(self, stream_id: str, followed: _Followed) -> tuple[Turn | None, bool]:
        """Read a stream; returns what it gave, and whether to read it again."""
        cursor = followed.cursor
        try:
            batch = self._read(stream_id, cursor)
        except StreamNotFoundError as missing:
            if cursor:
                return Turn(stream_id, None, True, _lost(stream_id, cursor, missing)), False
            return self._await(stream_id, followed, missing)
        except InvalidCursorError as invalid:
            return Turn(stream_id, None, True, _lost(stream_id, cursor, invalid)), False
        except StreamLostError as lost:
            return Turn(stream_id, None, True, lost), False
        except StoreUnavailableError as unavailable:
            now = time.monotonic()
            since = followed.unavailable_since = followed.unavailable_since or now
            if not unavailable.transient or now - since >= self._store.grace:
                raise
            followed.due = now + RETRY_SECONDS  # the others have their turns meanwhile
            return None, False
        followed.unavailable_since = followed.due = None
        followed.cursor = batch.cursor
        if batch.offset < batch.size:
            return Turn(stream_id, batch), True
        if batch.status.ended:  # of the same moment as the bytes
            return Turn(stream_id, batch, True, self._loop_of(stream_id).ending(batch)), False
        again = self._wakers.join(self._store, stream_id, batch.cursor, self._bell)
        told, followed.live = followed.live, True
        return Turn(stream_id, batch) if batch.length or not told else None, again

    def _await(
        self, stream_id: str, followed: _Followed, missing: StreamNotFoundError
    ) -> tuple[Turn | None, bool]:
        """The stream has not begun."""
        if time.monotonic() >= followed.begins_by:
            return Turn(stream_id, None, True, missing), False
        if self._refusing():
            raise StoreUnavailableError("the context is closed", transient=False) from missing
        followed.due = followed.begins_by
        return None, self._wakers.join(self._store, stream_id, "", self._bell)

    def _read(self, stream_id: str, cursor: str) -> Batch:
        self._reads.enter(self._place, cursor)
        try:
            return self._store.read(stream_id, cursor, max_bytes=TURN_BYTES)
        finally:
            self._reads.leave(self._place)


def _lost(stream_id: str, cursor: str, found: ResumableStreamError) -> StreamLostError:
    """The cursor was good when it was given out: what it points at is gone."""
    lost = StreamLostError(f"stream {stream_id} was lost after {cursor}: {found}")
    lost.__cause__ = found
    return lost
