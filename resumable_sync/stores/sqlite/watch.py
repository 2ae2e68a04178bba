"""How a waiting reader of the SQLite store learns that something was committed, here or in another process.

In this process the writer tells it directly, and what it wrote (see Recent). Other processes send a datagram
naming the changed streams to each process that has waiting readers (a UNIX socket beside the file); it is a hint
only. What never misses is the poll: one thread for each process looks at SQLite's data_version while anybody
waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import ResumableStreamError
from ..pages import Page
from ..tail import Tails
from .poll import Poller
from .recent import Recent, State

logger = logging.getLogger("resumable_sync")

_POLL_SECONDS = 0.05  # between looks at data_version where hints arrive
_POLL_SECONDS_WITHOUT_HINTS = 0.005
_CHECK_SECONDS = 0.5  # between looks whether the producers of awaited streams live
_JOIN_SECONDS = 1.0
_LINGER_SECONDS = 1.0  # that a stream stays watched after its last reader left: most come right back
_IDLE_SECONDS = 5.0  # without a watched stream before the thread and its socket go
_DATAGRAM_BYTES = 8192
_DATAGRAMS = 64  # that are passed on together
_SUN_PATH_BYTES = 100  # of a socket's address; Linux allows 108, other systems less
_COARSE_CLOCK_SECONDS = 0.05  # a directory's mtime may stand still this long while entries are added


class Watch(Tails[Recent]):
    """The waiting readers of one process. The lock guards `_thread` and `_closed` too.

    `poller` tells which streams changed; `check(ids)` ends those whose producers died. Both are called by
    the watch's thread, without locks.
    """

    def __init__(
        self, directory: Path, name: str, poller: Poller, check: Callable[[Collection[str]], object]
    ) -> None:
        super().__init__(Recent, _LINGER_SECONDS)
        self._poller = poller
        self._check = check
        self._thread: threading.Thread | None = None
        self._closed = False
        self._idle = False  # the thread is in the long wait of a process without readers
        self._peers = _Peers(directory, name)

    def enter(self, stream_id: str) -> Recent:
        """The stream's tail, for a reader who must `leave` it again: meanwhile no change goes unnoticed."""
        tail = super().enter(stream_id)
        try:
            if self._thread is None or self._idle:
                with self._lock:
                    nudge, self._idle = self._idle, False
                    if self._thread is None and not self._closed:
                        thread = threading.Thread(target=self._run, name="resumable-sync-watch", daemon=True)
                        thread.start()  # may fail, then the next reader tries it
                        self._thread = thread
                if nudge:
                    self._peers.nudge_self()
        except BaseException:
            self.leave(tail)
            raise
        return tail

    def publish(self, stream_ids: Collection[str]) -> None:
        """Tell the readers of these streams, here and elsewhere, that something was committed. Never blocks."""
        self._wake(stream_ids)
        self._peers.tell(stream_ids)

    def publish_pages(self, written: Mapping[str, tuple[int, Sequence[Page]]]) -> None:
        """As `publish`, for what this process has appended: generation and pages by stream; no pages: unknown."""
        for stream_id, (generation, rows) in written.items():
            tail = self.find(stream_id)
            if tail is not None and rows:
                tail.extend(generation, rows)
            elif tail is not None:
                tail.forget()
        self._peers.tell(written)

    def publish_ending(self, stream_id: str, state: State, error: str | None, life: float) -> None:
        """As `publish`, for a stream that this process has ended and that lives `life` seconds from now."""
        tail = self.find(stream_id)
        if tail is not None:
            tail.finish(state, error, life)
        self._peers.tell([stream_id])

    def close(self) -> None:
        """Wake all readers and end the thread; waits for it, a second at most."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self.stop_reads()
        self._peers.nudge_self()
        if thread is not None:
            thread.join(_JOIN_SECONDS)
        self._peers.close()

    def _wake(self, stream_ids: Collection[str]) -> None:
        for tail in self._find_all(stream_ids).values():
            tail.forget()

    def _find_all(self, stream_ids: Iterable[str]) -> dict[str, Recent]:
        return {stream_id: tail for stream_id in stream_ids if (tail := self.find(stream_id)) is not None}

    def _advance(self, stream_ids: Iterable[str]) -> None:
        """Other processes have committed something to these streams: look at it once for all readers."""
        tails = self._find_all(stream_ids)
        known = {stream_id: tail.tail() for stream_id, tail in tails.items()}
        try:
            news = self._poller.news({name: position for name, position in known.items() if position.generation})
        except ResumableStreamError:
            news = {}  # each reader looks for itself and reports the trouble to its caller
        for stream_id, tail in tails.items():
            tail.advance(known[stream_id], news.get(stream_id))

    def _wake_every(self) -> None:
        for tail in self.watched():
            tail.forget()

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException:
            with self._lock:
                self._thread = None  # the next reader starts another; those that wait look at their slice's end
            raise

    def _watch(self) -> None:
        with self._peers.inbox() as inbox:
            poll_seconds = _POLL_SECONDS if inbox is not None else _POLL_SECONDS_WITHOUT_HINTS
            pause = threading.Event()  # never set: a timer where there is no socket to wait on
            poll_at = check_at = 0.0
            idle_since = time.monotonic()
            while True:
                now = time.monotonic()
                with self._lock:
                    # Who registers behind this section finds what it has set, so `enter` looks without the lock.
                    ids = [tail.stream_id for tail in self._watched()]
                    if ids:
                        idle_since = now
                    self._idle = not ids
                    if self._closed or now - idle_since > _IDLE_SECONDS:
                        self._thread = None
                        return
                if ids and now >= poll_at:
                    self._poll(ids)
                    poll_at = time.monotonic() + poll_seconds
                if ids and now >= check_at:
                    self._guarded_check(ids)
                    check_at = time.monotonic() + _CHECK_SECONDS
                wait = max(0.0, min(poll_at, check_at) - time.monotonic()) if ids else _IDLE_SECONDS
                if inbox is None:
                    pause.wait(wait if ids else poll_seconds)
                else:
                    self._receive(inbox, wait)

    def _receive(self, inbox: socket.socket, wait: float) -> None:
        """Wait for hints and pass them on."""
        inbox.settimeout(wait or 0.0001)
        hinted: set[str] = set()
        try:
            for _ in range(_DATAGRAMS):
                datagram = inbox.recv(_DATAGRAM_BYTES)
                if datagram == _EVERYTHING:
                    self._wake_every()
                else:
                    # From outside anything may come: what names no awaited stream wakes nobody.
                    hinted.update(datagram.decode("ascii", "replace").split("\n"))
                inbox.settimeout(0.0)
        except (TimeoutError, BlockingIOError):
            pass  # there are no more
        if hinted:
            self._advance(hinted)

    def _poll(self, ids: list[str]) -> None:
        tails = self._find_all(ids)
        known = {stream_id: tail.tail() for stream_id, tail in tails.items()}
        try:
            changes = self._poller.changes(tails)
            # What was known before must be there, and no more than is known now: else it was somebody else.
            self._advance(name for name, state in changes.items() if not tails[name].agrees(known[name], state))
        except ResumableStreamError:
            self._wake_every()  # each reader looks for itself and reports the trouble to its caller

    def _guarded_check(self, ids: list[str]) -> None:
        try:
            self._check(ids)
        except ResumableStreamError:
            self._wake_every()  # as above: a locked or full file is for the readers to report


_EVERYTHING = b"*"


class _Peers:
    """The sockets of the processes that wait, and our own. Nothing here blocks.

    Writers share `_known` and `_known_at` without a lock: a stale list costs a hint, which the poll makes good.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._prefix = f"{name}."
        self._bound = 0  # how often we bound: each socket has a name of its own
        self._known: list[str] = []
        self._known_at = -1  # mtime of the directory when it was listed, in ns
        self._directory_fd = -1
        self._sender: socket.socket | None = None
        if hasattr(socket, "AF_UNIX"):
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)

    def tell(self, stream_ids: Collection[str]) -> None:
        """Send a hint to every other process that waits."""
        names = self._names()
        if not names:
            return
        datagram = "\n".join(stream_ids).encode("ascii")
        for name in names:
            self._send(name, datagram if len(datagram) <= _DATAGRAM_BYTES else _EVERYTHING)

    def nudge_self(self) -> None:
        """End the present wait of this process's own thread."""
        self._send(self._own_name, _EVERYTHING)

    def close(self) -> None:
        """Let go of the sending socket; nothing is told from now on."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()
        if self._directory_fd >= 0:
            os.close(self._directory_fd)

    @contextlib.contextmanager
    def inbox(self) -> Iterator[socket.socket | None]:
        """This process's socket, bound for the time of the block; None where there can be none."""
        self._bound += 1
        name = self._own_name
        inbox = self._bind(name)
        try:
            yield inbox
        finally:
            if inbox is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._directory / name)
                inbox.close()

    @property
    def _own_name(self) -> str:
        return f"{self._prefix}{self._bound}.sock"

    def _bind(self, name: str) -> socket.socket | None:
        if self._sender is None:
            return None
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            inbox.bind(self._address(name))
        except OSError:
            # A file system without sockets, or a path too long for one: the poll alone does, more often.
            logger.debug("no wake-up socket in %s", self._directory, exc_info=True)
            inbox.close()
            return None
        return inbox

    def _names(self) -> list[str]:
        """The sockets of other processes; the directory is listed again when it changed."""
        try:
            changed_at = os.stat(self._directory).st_mtime_ns
            if changed_at != self._known_at or time.time_ns() - changed_at < _COARSE_CLOCK_SECONDS * 1e9:
                found = os.listdir(self._directory)
                self._known = [name for name in found if name.endswith(".sock") and not self._is_own(name)]
                self._known_at = changed_at
        except OSError:
            return []
        return self._known

    def _is_own(self, name: str) -> bool:
        return name.startswith(self._prefix)

    def _send(self, name: str, datagram: bytes) -> None:
        sender = self._sender
        if sender is None:
            return
        try:
            sender.sendto(datagram, self._address(name))
        except ConnectionRefusedError:  # left behind by a killed process
            with contextlib.suppress(OSError):
                os.unlink(self._directory / name)
        except OSError:
            pass  # gone, closing, or its queue is full: its poll finds the change

    def _address(self, name: str) -> str:
        path = str(self._directory / name)
        if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
            return path
        if self._directory_fd < 0:  # addressed through a descriptor, a long path becomes a short one
            self._directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory_fd}/{name}"
