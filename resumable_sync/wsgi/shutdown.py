"""An orderly end of a server process: streams end as `interrupted`, viewers go, threads come free."""

from __future__ import annotations

import copy
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from ..context import ResumableStreamContext

Handler = Callable[[int, FrameType | None], Any]

logger = logging.getLogger("resumable_sync")

_WORKER_SECONDS = 0.25  # between looks at whether a gunicorn worker is to end


def close_on_sigterm(
    *contexts: ResumableStreamContext, timeout: float | None = None, drain: float | None = None
) -> None:
    """Close the contexts as soon as this process is told to end.

    A server that is told to end waits for its responses, and a viewer of a living stream would keep it waiting
    until it is killed, with its producers. With this, what runs here ends as `interrupted` within `timeout`
    seconds (see `ResumableStreamContext.close`), viewers come back to another process, and the server exits.
    `drain`: seconds for which the sources may run on to their own ends first. The viewers leave at once all the same,
    and the interpreter's exit waits for the rest.

    Call it in the main thread of each worker once the server has set its own handlers; under gunicorn
    `close_with_worker` does so and more. It goes on to the former handler of SIGTERM at once; the closing is done in
    a thread. Where there was none, SystemExit is raised in the main thread. SIGINT and SIGQUIT are treated likewise
    where the server handles them. ValueError outside the main thread. Returns at once.
    """
    _Shutdown(contexts, timeout, drain)


def close_with_worker(
    worker: Any, *contexts: ResumableStreamContext, timeout: float | None = None, drain: float | None = None
) -> None:
    """Close the contexts when this gunicorn worker ends, for whatever reason. In gunicorn.conf.py:

        def post_worker_init(worker):
            close_with_worker(worker, context, drain=120)

    As `close_on_sigterm`, and also where no signal tells: after `max_requests` a worker accepts nothing, but waits
    for its responses. While it drains the master is told that it lives, so `timeout` of gunicorn may be shorter; its
    `graceful_timeout` must be longer than `drain` where the whole server is to end in order, since the master kills
    then. A single worker that has reached `max_requests` drains nothing: gunicorn starts its successor only once it
    is gone, and nobody would be answered until then.
    """
    shutdown = _Shutdown(contexts, timeout, drain)
    life = copy.copy(worker.tmp)
    # gunicorn closes its own as soon as the worker's loop has ended.
    life._tmp = os.fdopen(os.dup(worker.tmp.fileno()), "w+b")

    def watch() -> None:
        # Nothing tells that the worker is to end but this flag, so there is nothing to wait for but time.
        while worker.alive:
            time.sleep(_WORKER_SECONDS)
        if not shutdown.told:  # by a signal
            if worker.cfg.workers == 1:
                shutdown.drain = None
            shutdown.tell(0)
        while not shutdown.over.wait(1.0):
            life.notify()

    threading.Thread(target=watch, name="resumable-sync-worker", daemon=True).start()


class _Shutdown:
    """Closes the contexts when this process is told to end. `told` turns True once, in a signal handler or by
    `tell`; `over` is set once everything is closed."""

    def __init__(
        self, contexts: Sequence[ResumableStreamContext], timeout: float | None, drain: float | None
    ) -> None:
        self.told = False
        self.over = threading.Event()
        self.drain = drain
        self._contexts = contexts
        self._timeout = timeout
        self._pid = os.getpid()
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may be called in a signal handler
        formers = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
        for number in (signal.SIGINT, signal.SIGQUIT):
            former = signal.getsignal(number)
            if callable(former):
                formers[number] = former
        for number, former in formers.items():
            signal.signal(number, self._chain(former))
        # Started here: a signal handler may interrupt the very code that starts a thread.
        threading.Thread(target=self._run, name="resumable-sync-shutdown", daemon=True).start()

    def tell(self, number: int) -> None:
        """Close now; `number` is the signal that said so, or 0."""
        self.told = True
        self._requests.put(number)

    def _chain(self, former: Handler | int | None) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() == self._pid:  # a forked child has inherited the handler, not what runs
                self.tell(number)
            if callable(former):
                former(number, frame)
            elif former != signal.SIG_IGN:
                raise SystemExit(128 + number)

        return handle

    def _run(self) -> None:
        number = self._requests.get()
        logger.info("%s: closing what runs here", f"signal {number}" if number else "the worker is to end")
        # Side by side: each may take its time.
        threads = [threading.Thread(target=self._close, args=(each,), daemon=True) for each in self._contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.over.set()

    def _close(self, context: ResumableStreamContext) -> None:
        try:
            if self.drain is None:
                context.close(self._timeout)
            else:
                context.close(self.drain, drain=True)
        except Exception:
            logger.exception("closing a context failed")
