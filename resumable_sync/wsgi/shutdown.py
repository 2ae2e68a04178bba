"""An orderly end of a server process: streams end as `interrupted`, viewers go, threads come free."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..context import ResumableStreamContext

Handler = Callable[[int, FrameType | None], Any]

logger = logging.getLogger("resumable_sync")


def close_on_sigterm(*contexts: ResumableStreamContext, timeout: float | None = None) -> None:
    """Close the contexts as soon as this process is told to end.

    A server that is told to end waits for its responses, and a viewer of a living stream would keep it waiting
    until it is killed, with its producers. With this, what runs here ends as `interrupted` within `timeout`
    seconds (see `ResumableStreamContext.close`), viewers come back to another process, and the server exits.

    Call it in the main thread of each worker once the server has set its own handlers. In gunicorn.conf.py:

        def post_worker_init(worker):
            close_on_sigterm(context)

    It goes on to the former handler of SIGTERM at once; the closing is done in a thread.
    Where there was none, SystemExit is raised in the main thread. SIGINT and SIGQUIT are treated likewise where
    the server handles them. ValueError outside the main thread. Returns at once.
    """
    requests: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may be called in a signal handler
    pid = os.getpid()

    def close() -> None:
        number = requests.get()
        logger.info("signal %d: closing what runs here", number)
        for context in contexts:
            try:
                context.close(timeout)
            except Exception:
                logger.exception("closing a context failed")

    def chain(former: Handler | int | None) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() == pid:  # a forked child has inherited the handler, not what runs
                requests.put(number)
            if callable(former):
                former(number, frame)
            elif former != signal.SIG_IGN:
                raise SystemExit(128 + number)

        return handle

    formers = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    for number in (signal.SIGINT, signal.SIGQUIT):
        former = signal.getsignal(number)
        if callable(former):
            formers[number] = former
    for number, former in formers.items():
        signal.signal(number, chain(former))
    # Started here: a signal handler may interrupt the very code that starts a thread.
    threading.Thread(target=close, name="resumable-sync-shutdown", daemon=True).start()
