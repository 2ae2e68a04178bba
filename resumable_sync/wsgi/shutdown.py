"""An orderly end of a server process: streams end as `interrupted`, viewers go, threads come free."""

from __future__ import annotations

import copy
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from ..context import ResumableStreamContext
from ..interrupts import Event
from ..process import at_exit

try:
    import fcntl
except ImportError:  # Windows, where gunicorn does not run
    fcntl = None  # type: ignore[assignment]

Handler = Callable[[int, FrameType | None], Any]

logger = logging.getLogger("resumable_sync")

_WORKER_SECONDS = 0.25  # between looks at whether a gunicorn worker is to end
_NOTIFY_SECONDS = 0.5  # between signs of life of one that drains; gunicorn's timeout is at least 1
_DRAINED = -1  # among the numbers of signals: a context has drained


def close_on_sigterm(
    *contexts: ResumableStreamContext, timeout: float | None = None, drain: float | None = None
) -> None:
    """Close the contexts as soon as this process is told to end.

    A server that is told to end waits for its responses, and a viewer of a living stream would keep it waiting
    until it is killed, with its producers. With this, what runs here ends as `interrupted` within `timeout`
    seconds (see `ResumableStreamContext.close`), viewers come back to another process, and the server exits.
    `drain`: seconds for which the sources may run on to their own ends first, after SIGTERM. The viewers leave at
    once all the same, and the interpreter's exit waits for the rest. A second signal ends a drain at once.

    Call it in the main thread of each worker once the server has set its own handlers; under gunicorn
    `close_with_worker` does so and more. It goes on to the former handler of SIGTERM at once; the closing is done
    in a thread. Where there was none, SystemExit is raised in the main thread. SIGINT and SIGQUIT close without a
    drain where the server handles them. ValueError outside the main thread. Returns at once.
    """
    _Shutdown(contexts, timeout, drain).handle_signals()


def close_with_worker(
    worker: Any, *contexts: ResumableStreamContext, timeout: float | None = None, drain: float | None = None
) -> None:
    """Close the contexts when this gunicorn worker ends, for whatever reason. In gunicorn.conf.py:

        def post_worker_init(worker):
            close_with_worker(worker, context, drain=120)

    As `close_on_sigterm`, but only SIGINT or SIGQUIT end a drain, since gunicorn repeats its SIGTERM. While the
    worker drains the master is told that it lives, so gunicorn's `timeout` may be shorter. Its `graceful_timeout`
    must be longer than `drain` where the whole server is to end in order: the master kills then.

    It sees to `max_requests` itself, within a fraction of a second. gunicorn starts a successor only when a worker
    is gone, so with `drain` a worker goes on accepting until another one accepts, or nothing runs here; after
    `drain` seconds it ends what runs and goes. So a single worker never drains then: it waits for a quiet moment.
    """
    shutdown = _Shutdown(contexts, timeout, drain, repeated=True)
    shutdown.handle_signals()
    watch = _WorkerWatch(worker, contexts, shutdown)
    threading.Thread(target=watch.run, name="resumable-sync-worker", daemon=True).start()


def close_with_uwsgi(
    *contexts: ResumableStreamContext, timeout: float | None = None, drain: float | None = None
) -> None:
    """Close the contexts when this uWSGI worker is to be reloaded, gracefully or in a chain.

    As `close_on_sigterm`, but what tells it is SIGHUP, the signal of uWSGI's own graceful reload. That takes its
    course: it waits for the viewers, and then the interpreter's exit waits for the sources. `worker-reload-mercy`
    must be longer than `drain`, or uWSGI kills the worker. Reload by `touch-chain-reload`, with two workers or
    more: one answers while the other drains. At `max-requests` uWSGI tells nobody, and the worker stays until its
    last viewer has left by itself: leave that option out. An end that is not graceful closes without a drain.

    Call it where the application is made if that is done in each worker (`lazy-apps = true`), else in a function
    that `uwsgidecorators.postfork` calls. Returns at once. RuntimeError outside uWSGI, ValueError outside the main
    thread of the main interpreter.
    """
    if "uwsgi" not in sys.modules:
        raise RuntimeError("close_with_uwsgi is for uWSGI's workers; elsewhere use close_on_sigterm")
    _UwsgiWatch(_Shutdown(contexts, timeout, drain)).start()


class _Shutdown:
    """Closes the contexts when this process is told to end. `told` turns True once, in a signal handler or by
    `tell`; `over` is set once everything is closed.

    `repeated`: SIGTERM may come again and again, and means nothing more then.
    """

    def __init__(
        self,
        contexts: Sequence[ResumableStreamContext],
        timeout: float | None,
        drain: float | None,
        *,
        repeated: bool = False,
    ) -> None:
        for context in contexts:
            context._enter()  # a worker that nobody calls recovers, too
        self.told = False
        self.over = Event()
        self.drain = drain
        self._contexts = contexts
        self._timeout = timeout
        self._repeated = repeated
        self._pid = os.getpid()
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may be called in a signal handler
        self._drains = threading.Semaphore(0)  # released once for each context that is to drain
        # Started here: a signal handler may interrupt the very code that starts a thread, and the signal may come
        # when the interpreter starts no more of them.
        threading.Thread(target=self._run, name="resumable-sync-shutdown", daemon=True).start()
        if drain is not None:
            for context in contexts:  # a thread for each: side by side, as each may take its time
                name = "resumable-sync-drain"
                threading.Thread(target=self._drain, args=(context,), name=name, daemon=True).start()
        # Later than those of the contexts, and so called before them: they would close what is still to drain.
        at_exit(self, _Shutdown._wait_at_exit)

    def handle_signals(self) -> None:
        """Let SIGTERM, and SIGINT and SIGQUIT where they are handled, tell. ValueError outside the main thread."""
        formers = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
        for number in (signal.SIGINT, signal.SIGQUIT):
            former = signal.getsignal(number)
            if callable(former):
                formers[number] = former
        for number, former in formers.items():
            signal.signal(number, self._chain(former))

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
        try:
            number = self._requests.get()
            logger.info("%s: closing what runs here", f"signal {number}" if number else "the worker is to end")
            if self.drain is None or number != signal.SIGTERM or not self._wait_for_drains():
                self._close_all()
        finally:
            self.over.set()

    def _wait_for_drains(self) -> bool:
        """Let all contexts drain. False as soon as a signal says that this takes too long."""
        left = len(self._contexts)
        self._drains.release(left)
        while left:
            number = self._requests.get()
            if number == _DRAINED:
                left -= 1
            elif number != signal.SIGTERM or not self._repeated:
                logger.info("signal %d: the drain ends", number)
                return False
        return True

    def _drain(self, context: ResumableStreamContext) -> None:
        self._drains.acquire()
        if self.drain is not None:
            _close(context, self.drain, drain=True)
        self._requests.put(_DRAINED)

    def _close_all(self) -> None:
        threads = []
        for context in self._contexts:
            thread = threading.Thread(target=_close, args=(context, self._timeout), daemon=True)
            try:
                thread.start()
                threads.append(thread)
            except RuntimeError:  # the interpreter is ending and starts no thread any more
                _close(context, self._timeout)
        for thread in threads:
            thread.join()

    def _wait_at_exit(self) -> None:
        """What was begun is brought to its end, which it has within the drain and the timeout."""
        while self.told and os.getpid() == self._pid and not self.over.is_set():
            try:
                self.over.wait()
            except BaseException:  # of a handler of a signal, which has told what is to be done about it
                logger.debug("a signal came at the interpreter's exit", exc_info=True)


def _close(context: ResumableStreamContext, timeout: float | None, *, drain: bool = False) -> None:
    try:
        context.close(timeout, drain=drain)
    except Exception:
        logger.exception("closing a context failed")


class _WorkerWatch:
    """Watches whether one gunicorn worker is to end, in a thread of its own, and says that it lives while it
    drains."""

    def __init__(self, worker: Any, contexts: Sequence[ResumableStreamContext], shutdown: _Shutdown) -> None:
        self._worker = worker
        self._contexts = contexts
        self._shutdown = shutdown
        self._life = copy.copy(worker.tmp)
        # gunicorn closes its own as soon as the worker's loop has ended.
        self._life._tmp = os.fdopen(os.dup(worker.tmp.fileno()), "w+b")
        # Left to gunicorn it would stop accepting, whoever else accepts.
        self._max_requests, worker.max_requests = worker.max_requests, sys.maxsize
        self._reached_at: float | None = None  # monotonic
        self._accepting = _Accepting(worker)
        at_exit(self._accepting, _Accepting.stop)  # which may come before this thread notices

    def run(self) -> None:
        """Watch until the worker is to end, then until everything is closed."""
        shutdown, worker = self._shutdown, self._worker
        # Nothing tells that the worker is to end but its flag, so there is nothing to wait for but time.
        while worker.alive and not shutdown.told and os.getppid() == worker.ppid:
            if worker.nr >= self._max_requests and self._may_go():
                logger.info("worker %d has answered %d requests: it goes", os.getpid(), worker.nr)
                os.kill(os.getpid(), signal.SIGTERM)  # as if the master had said so
                break
            time.sleep(_WORKER_SECONDS)
        else:
            if not shutdown.told:  # by a signal
                shutdown.tell(0)
        self._accepting.stop()
        while not shutdown.over.wait(_NOTIFY_SECONDS):
            self._life.notify()
        self._life._tmp.close()

    def _may_go(self) -> bool:
        """Whether a worker that has answered `max_requests` goes now; without a drain if nobody else accepts."""
        drain = self._shutdown.drain
        if drain is None or self._accepting.leave_to_others():
            return True
        now = time.monotonic()
        self._reached_at = self._reached_at or now
        if now < self._reached_at + drain and any(map(_is_busy, self._contexts)):
            return False
        self._shutdown.drain = None
        return True


class _UwsgiWatch:
    """Watches whether one uWSGI worker is to be reloaded, in a thread of its own.

    Python calls its handlers when the main thread runs Python code, and that may wait in uWSGI for a request for
    hours. What Python does at once is to write the signal's number into a descriptor. So its handler stands in
    front of uWSGI's, which goes back to its place, and is called, when the signal has come. Only functions of C
    can do that: https://docs.python.org/3/c-api/sys.html
    """

    def __init__(self, shutdown: _Shutdown) -> None:
        import ctypes

        number, handler = ctypes.c_int, ctypes.c_void_p
        self._get_handler = ctypes.PYFUNCTYPE(handler, number)(("PyOS_getsig", ctypes.pythonapi))
        self._set_handler = ctypes.PYFUNCTYPE(handler, number, handler)(("PyOS_setsig", ctypes.pythonapi))
        self._shutdown = shutdown

    def start(self) -> None:
        """Begin. ValueError outside the main thread of the main interpreter."""
        woken, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        threading.Thread(target=self._run, args=(woken,), name="resumable-sync-worker", daemon=True).start()

    def _run(self, woken: int) -> None:
        pythons = self._get_handler(signal.SIGHUP)
        # uWSGI sets its own when all hooks have run and the application is loaded.
        while (uwsgis := self._get_handler(signal.SIGHUP)) == pythons:
            time.sleep(_WORKER_SECONDS)
        self._set_handler(signal.SIGHUP, pythons)
        while signal.SIGHUP not in os.read(woken, 4096):
            pass
        self._set_handler(signal.SIGHUP, uwsgis)
        os.kill(os.getpid(), signal.SIGHUP)  # uWSGI accepts no more from here on
        self._shutdown.tell(signal.SIGTERM)


def _is_busy(context: ResumableStreamContext) -> bool:
    """Whether a stream is produced here; or followed, where nobody else can serve its viewers."""
    running = context._running.get()
    alone = not getattr(context.store, "shared", True)
    return bool(running.working or running.starting or (alone and running.reads.following))


class _Accepting:
    """Whether other workers accept on this worker's listener. Each holds a shared lock on one file while it does.

    `stop` may be called in another thread than the rest. Where there is no such file, nobody else accepts.
    """

    def __init__(self, worker: Any) -> None:
        self._file: int | None = None
        self._path = ""
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards the file; nothing that waits happens under it
        if fcntl is None or not worker.sockets:
            return
        listener = os.fstat(worker.sockets[0].fileno()).st_ino  # inherited, so the same for all workers
        directory = worker.cfg.worker_tmp_dir or tempfile.gettempdir()
        self._path = os.path.join(directory, f"resumable-sync-{os.getuid()}-{worker.ppid}-{listener}")
        try:
            while self._file is None:
                self._file = self._open()
        except OSError as error:
            logger.warning("%s: %s; this worker counts as the only one", self._path, error)

    def _open(self) -> int | None:
        """Open and share the file; None if the last of its users has removed it meanwhile."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH)  # waits for no more than a glance of `leave_to_others`
        if os.fstat(file).st_nlink:
            return file
        os.close(file)
        return None

    def leave_to_others(self) -> bool:
        """Stop counting as one that accepts, if another one does. False if there is none.

        Of several that ask at once, one stays: whoever is last to give up its share gets the file for itself.
        """
        with self._lock:
            if self._file is None:
                return False
            if not self._locked_alone(self._file):
                return True
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return False

    def stop(self) -> None:
        """Stop counting; the last one removes the file. Idempotent."""
        if os.getpid() != self._pid:  # a forked child shares the lock, and must not give it up
            return
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            if self._locked_alone(file):
                try:
                    os.unlink(self._path)
                except OSError as error:
                    logger.debug("%s: %s", self._path, error)
            os.close(file)

    @staticmethod
    def _locked_alone(file: int) -> bool:
        """Exchange the share for the whole lock; for nothing if somebody else has a share."""
        fcntl.flock(file, fcntl.LOCK_UN)  # first: of two that ask at once, one finds the other gone
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
