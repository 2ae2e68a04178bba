"""Resets connections, where the end of a connection is all that tells the end of a body.

HTTP/1.0 has no chunks: a response of unknown length ends with its connection, and one that was cut looks
complete. One that was reset does not, neither to a client nor to nginx, which talks HTTP/1.0 to its upstreams
unless told otherwise. So such a connection is armed while the body lasts: it is reset when the body is broken off,
and, since the kernel does it, also when the process is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

from .probe import Probe, by_http_1_1

logger = logging.getLogger("resumable_sync")

_AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: closing resets
_NOWHERE = bytes(16)  # a socket address of AF_UNSPEC


class Reset:
    """One connection that ends in a reset unless `disarm` comes first. One thread at a time.

    It works on a descriptor of its own: the server may close its socket in another thread, and the number may then
    be another connection's. Linger alone would not do: most servers shut the connection down before they close it,
    and that says "the end". So `fire` dissolves it (`connect` to AF_UNSPEC), after which there is nothing left to
    shut down. Where a system does not know this (macOS), the linger is what remains.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket.socket | None = None
        self._linger = b""
        self._pid = 0

    def arm(self) -> None:
        """From now on the connection ends in a reset. Does nothing if it is closed already."""
        try:
            self._pid = os.getpid()
            self._socket = socket.socket(fileno=os.dup(self._connection.fileno()))
            self._linger = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_AT_ONCE))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        except (OSError, ValueError) as error:  # closed under our hands: ValueError is for the descriptor -1
            logger.debug("a connection that has gone cannot be armed: %s", error)
            self._release()

    def disarm(self) -> None:
        """The body is complete: the connection may end as the server likes. Idempotent."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the viewer has left
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, self._linger)
        self._release()

    def fire(self) -> None:
        """Reset the connection now, if it is armed; what is still on its way may not arrive. Idempotent."""
        own = self._socket
        if own is not None and self._pid == os.getpid():  # a forked child answers nobody
            if _libc().connect(own.fileno(), _NOWHERE, len(_NOWHERE)) != 0:
                logger.debug("a connection is not dissolved: errno %s", ctypes.get_errno())
        self._release()

    def _release(self) -> None:
        own, self._socket = self._socket, None
        if own is not None:
            own.close()


def find_reset(environ: Mapping[str, Any], probe: Probe | None) -> Reset | None:
    """For a body whose length is not announced. None where the server tells its end, and where nothing can; of
    that, one warning is logged for each process."""
    framed = by_http_1_1(environ) if probe is None else probe.frames
    if framed:
        return None
    if probe is not None and probe.resettable():
        return Reset(probe.connection)
    if "SERVER_SOFTWARE" in environ or "uwsgi.version" in environ:  # a request that a test made up names no server
        _warn(str(environ.get("SERVER_SOFTWARE") or "uWSGI"))
    return None


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _warn(server: str) -> None:
    logger.warning(
        "%s answers over HTTP/1.0 or without chunks, on a connection that cannot be reset: a raw response that is "
        "broken off looks complete. Let the proxy use HTTP/1.1 (nginx: proxy_http_version 1.1), or TCP "
        "instead of a Unix socket, or have clients check x-resumable-status and x-resumable-size with HEAD",
        server,
    )
