"""The sockets by which the processes that share a SQLite file tell each other what they committed.

Each process that has waiting viewers binds a UNIX datagram socket in the directory beside the file. A process that
has committed sends the ids of the changed streams to all of them. A datagram is a hint: it may be lost, or come
from anybody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

logger = logging.getLogger("resumable_sync")

DATAGRAM_BYTES = 8192

EVERYTHING = b"*"
"""A datagram that names no streams, as there were too many."""

_SUN_PATH_BYTES = 100  # of a socket's address; Linux allows 108, other systems less
_COARSE_CLOCK_SECONDS = 0.05  # a directory's mtime may stand still this long while entries are added


class Peers:
    """The sockets of the processes that wait, and our own. Thread-safe, but for `inbox`, which is for one thread.
    Nothing here blocks. `name` is this process's own.

    Writers share `_known` and `_known_at` without a lock: a stale list costs a hint, which the poll makes good.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = str(directory)
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
        names = self._names() if stream_ids else []
        if not names:
            return
        datagram = "\n".join(stream_ids).encode("ascii")
        for name in names:
            self._send(name, datagram if len(datagram) <= DATAGRAM_BYTES else EVERYTHING)

    def nudge_self(self) -> None:
        """End the present wait of this process's own thread."""
        self._send(self._own_name, b"\n")

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
                    os.unlink(self._path(name))
                inbox.close()

    @property
    def _own_name(self) -> str:
        return f"{self._prefix}{self._bound}.sock"

    def _bind(self, name: str) -> socket.socket | None:
        if self._sender is None:
            return None
        with contextlib.ExitStack() as stack:
            try:
                inbox = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                inbox.bind(self._address(name))
            except OSError:
                # No descriptor is free, a file system without sockets, or a path too long for one: the poll alone
                # does, more often.
                logger.debug("no wake-up socket in %s", self._directory, exc_info=True)
                return None
            stack.pop_all()
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
        except ConnectionRefusedError:  # what a killed process has left
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))
        except OSError:
            pass  # gone, closing, or its queue is full: its poll finds the change

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _address(self, name: str) -> str:
        path = self._path(name)
        if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
            return path
        if self._directory_fd < 0:  # addressed through a descriptor, a long path becomes a short one
            self._directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory_fd}/{name}"
