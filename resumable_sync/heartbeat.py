"""Signs of life: one thread per store and process renews the leases of all producers there.

It shares nothing with the group commit but each producer's Pulse. An append may have to wait for a full disk, a
lock or a server that hangs, for as long as the store's timeout; a lease must be renewed meanwhile. So renewals
have a thread of their own, and that thread calls nothing of the store but `renew`, and `touch` for the shared
streams that are to live as long as a producer.

An append renews too. Whoever has made one notes in `signed_at` when it began: one assignment without a lock,
cheap enough for every append. The thread looks at it when it wakes, so a lease that was signed meanwhile costs
no call. It may miss the newest value; then it renews once too often.

`renew` gets copies of the leases: only one thread at a time may use a lease, and an append may be under way. A
copy has the offset of before the call, which is right, as a stored stream never shrinks.

What is asked for (`ask`) is made in any case: an append that succeeds meanwhile may be older than the reason.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from .contract import Lease, Store, shared_store
from .errors import ProducerInterruptedError, ResumableStreamError, StoreUnavailableError, StreamLostError
from .logs import about
from .process import start_thread
from .stats import Figures

logger = logging.getLogger("resumable_sync")

_EARLY = 0.2  # fraction of the interval: a lease due within it is renewed along with one that is due now
_RETRY_SECONDS = 1.0  # after a renewal that failed for the moment, at most
_IDLE_SECONDS = 5.0  # without any producer before the thread ends
_FAULT_SECONDS = 0.05  # that the thread pauses after an error of which nobody knows


class Pulse:
    """One producer's lease, or the id of a shared stream, which has none, and when it must be renewed. Guarded by
    the heartbeat's lock, but for `signed_at`."""

    def __init__(
        self,
        lease: Lease | str,
        interval: float,
        owner: weakref.ref[Any] | None = None,
        figures: Figures | None = None,
    ) -> None:
        self.lease = lease
        self.figures = figures  # where renewals that failed are counted
        self.owner = owner  # once it is collected nothing is renewed any more; None: there is none to look at
        self.interval = interval  # seconds from one sign of life to the next
        self.signed_at = -math.inf  # when the last successful append began
        self.renew_at = -math.inf  # when the thread is to look at it
        self.asked = False  # by `ask`, and not made yet

    @property
    def abandoned(self) -> bool:
        """Whether there was an owner, who is gone."""
        return self.owner is not None and self.owner() is None

    def is_due(self, now: float) -> bool:
        """Whether the lease is to be renewed now; if not, `renew_at` says when to look again."""
        self.renew_at = max(self.renew_at, self.signed_at + self.interval)
        return self.asked or self.renew_at <= now + self.interval * _EARLY

    def retry(self, now: float) -> None:
        """Look again sooner than in an interval: the lease is running out."""
        self.renew_at = now + min(self.interval, _RETRY_SECONDS)


def take_due(pulses: Iterable[Pulse], now: float) -> tuple[list[Pulse], float]:
    """Those to be renewed in one call, and when to look again. Pure, but for what the pulses remember.

    One that is only nearly due is renewed together with others, not for its own sake.
    """
    due = [pulse for pulse in pulses if pulse.is_due(now)]
    if not any(pulse.asked or pulse.renew_at <= now for pulse in due):
        due = []
    for pulse in due:
        pulse.asked = False
        pulse.retry(now)  # unless the renewal succeeds, which tells when the next one is due
    return due, min((pulse.renew_at for pulse in pulses), default=math.inf)


class Heartbeat:
    """Renews leases in time. Thread-safe. `_lock` guards all fields; the store and `on_refused` are called without
    it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)  # notified when the thread has something to do sooner
        self._pulses: dict[Pulse, Callable[[ResumableStreamError], object]] = {}  # with their `on_refused`
        self._thread: threading.Thread | None = None
        self._look_at = -math.inf  # monotonic: until when the thread waits

    def add(self, pulse: Pulse, on_refused: Callable[[ResumableStreamError], object]) -> None:
        """Renew its lease every `interval` seconds from now on, until `remove`.

        `on_refused` is called, without locks, with the error of a renewal that will not succeed any more.
        StoreUnavailableError if no thread can be started.
        """
        with self._lock:
            if self._thread is None:
                # May fail, then nothing is renewed for a producer that there is not.
                self._thread = start_thread(self._run, "resumable-sync-heartbeat")
            pulse.renew_at = time.monotonic() + pulse.interval
            self._pulses[pulse] = on_refused
            self._look_no_later(pulse.renew_at)

    def remove(self, pulse: Pulse) -> None:
        """Renew no more. A renewal that is under way may still be made. Idempotent."""
        with self._lock:
            self._pulses.pop(pulse, None)

    def ask(self, pulse: Pulse) -> None:
        """Renew this lease next, and so ask the store whether it still stands. Does not wait for it."""
        with self._lock:
            pulse.asked = True
            self._look_no_later(-math.inf)

    def _look_no_later(self, at: float) -> None:
        """Called with the lock held."""
        if at < self._look_at:
            self._wake.notify()  # first: if this is broken off, the next one does it
            self._look_at = at

    def _run(self) -> None:
        idle_until = math.inf
        while True:
            try:
                with self._lock:
                    now = time.monotonic()
                    due, self._look_at = take_due(self._pulses, now)
                    idle_until = min(idle_until, now + _IDLE_SECONDS) if not self._pulses else math.inf
                    if now >= idle_until:
                        self._thread = None
                        return
                    if not due:
                        self._wake.wait(min(self._look_at - now, _IDLE_SECONDS))
                        continue
                self._renew(due)
            except BaseException:
                with contextlib.suppress(BaseException):  # logging may be what failed
                    logger.exception(
                        "the heartbeat of %r goes on after an unexpected error",
                        self._store,
                        extra=about("store-fault"),
                    )
                time.sleep(_FAULT_SECONDS)  # an error that comes again and again must not keep a core busy

    def _renew(self, pulses: Sequence[Pulse]) -> None:
        began = time.monotonic()
        owned = [pulse for pulse in pulses if not pulse.abandoned]
        leases = [replace(pulse.lease) for pulse in owned if isinstance(pulse.lease, Lease)]
        renewed = iter(self._ask_store(leases) if leases else [])
        results = [self._touch(each.lease) if isinstance(each.lease, str) else next(renewed) for each in owned]
        for pulse in set(pulses).difference(owned):
            self._refuse(pulse, ProducerInterruptedError("whoever produced the stream is gone without ending it"))
        for pulse, result in zip(owned, results):
            if result is None:
                with self._lock:
                    pulse.renew_at = began + pulse.interval
            elif isinstance(result, StoreUnavailableError) and result.transient:
                with self._lock:
                    pulse.retry(time.monotonic())
                    if pulse.figures is not None:
                        pulse.figures.failed_renewals += 1
            else:
                self._refuse(pulse, result)

    def _refuse(self, pulse: Pulse, error: ResumableStreamError) -> None:
        with self._lock:
            on_refused = self._pulses.pop(pulse, None)
        if on_refused is not None:
            on_refused(error)

    def _ask_store(self, leases: Sequence[Lease]) -> Sequence[ResumableStreamError | None]:
        try:
            return self._store.renew(leases)
        except ResumableStreamError as error:
            return [error] * len(leases)
        except Exception as error:  # its streams' next append will tell whether the fault stays
            logger.exception("renew failed", extra=about("store-fault"))
            return [StoreUnavailableError(f"the store failed: {error!r}")] * len(leases)

    def _touch(self, stream_id: str) -> ResumableStreamError | None:
        store = shared_store(self._store)
        try:
            if store is not None and store.touch(stream_id):
                return None
            return StreamLostError(f"stream {stream_id} was deleted or has expired")
        except ResumableStreamError as error:
            return error
        except Exception as error:
            logger.exception("touch failed", extra=about("store-fault", stream_id))
            return StoreUnavailableError(f"the store failed: {error!r}")
