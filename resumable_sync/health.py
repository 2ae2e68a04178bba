"""A health check that goes all the way: begins a stream, appends, reads back and deletes, within a deadline."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from dataclasses import dataclass

from .contract import HEALTH_PREFIX, Store, new_token
from .errors import ResumableStreamError, StoreUnavailableError, StreamLostError
from .interrupts import Event
from .logs import about
from .process import start_thread

__all__ = ["Health"]

logger = logging.getLogger("resumable_sync")

_RECORD_TTL = 60.0  # seconds: should the process be killed between append and delete


@dataclass(frozen=True)
class Health:
    """What a health check found. Immutable."""

    ok: bool
    step: str = ""
    """Where it failed, or still was at the deadline: `context` (closed or draining), `thread`, `acquire`,
    `append`, `read` or `delete`; empty where all is well."""
    code: str = ""
    """The code of the error, as of every error of the library; `timeout` at the deadline; `fault` for an exception
    that a store must not raise."""
    error: BaseException | None = None
    """What went wrong. For the server's eyes: it may name files and hosts."""
    seconds: float = 0.0
    """How long this call took."""


class _Probe:
    """One check, in a thread of its own, where it may hang. `result` is written before `done` is set."""

    def __init__(self, store: Store, stream_id: str) -> None:
        self._store = store
        self._stream_id = stream_id
        self.step = "thread"
        self.done = Event()
        self.result = Health(False)

    def run(self) -> None:
        try:
            self._check()
            self.result = Health(True)
        except ResumableStreamError as error:
            self.fail(error.code, error)
        except BaseException as error:  # whatever a store raises is what was asked for
            self.fail("fault", error)
        finally:
            self.done.set()

    def fail(self, code: str, error: BaseException) -> None:
        self.result = Health(False, self.step, code, error)

    def _check(self) -> None:
        store, stream_id, payload = self._store, self._stream_id, new_token().encode()
        deleted = False
        self.step = "acquire"
        try:
            lease = store.acquire(stream_id, ttl=_RECORD_TTL)
            if lease is None:  # what an earlier check could not delete
                store.delete(stream_id)
                lease = store.acquire(stream_id, ttl=_RECORD_TTL)
            if lease is None:
                raise StreamLostError(f"the record {stream_id} can be neither begun nor deleted")
            self.step = "append"
            store.append(lease, payload)
            self.step = "read"
            batch = store.read(stream_id, f"{lease.generation}-0")
            if batch.data != payload:
                raise StreamLostError(f"the record {stream_id} does not hold what was appended")
            self.step = "delete"
            deleted = store.delete(stream_id)
            if not deleted:
                raise StreamLostError(f"the record {stream_id} was gone before it was deleted")
        finally:
            if not deleted:  # also where the reply to `acquire` was lost
                with contextlib.suppress(ResumableStreamError):  # then the next check, or its ttl
                    store.delete(stream_id)


class HealthCheck:
    """The checks of one context in one process. Thread-safe: `_lock` guards `_probe`.

    One runs at a time, and those who ask meanwhile share it. So a store that hangs holds one thread, however often
    it is asked.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stream_id = HEALTH_PREFIX + new_token()
        self._lock = threading.Lock()
        self._probe: _Probe | None = None

    def check(self, timeout: float) -> Health:
        """What a check finds within `timeout` seconds. Raises nothing of the store's. ValueError for a bad
        timeout."""
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
        began = time.monotonic()
        with self._lock:
            probe = self._probe
            if probe is None or probe.done.is_set():
                mine = probe = self._probe = _Probe(self._store, self._stream_id)
            else:
                mine = None
        if mine is not None:
            try:
                start_thread(mine.run, "resumable-sync-health")
            except StoreUnavailableError as error:
                mine.fail("unavailable", error)
                mine.done.set()
        if probe.done.wait(timeout):
            found = probe.result
        else:
            found = Health(False, probe.step, "timeout", TimeoutError(f"no answer within {timeout:g} s"))
        if not found.ok:
            logger.warning(
                "a health check failed at %s: %s",
                found.step,
                found.error,
                extra=about("unhealthy", self._stream_id),
            )
        return Health(found.ok, found.step, found.code, found.error, time.monotonic() - began)
