"""Does the viewer of a response still hold its connection? Asked of the socket, without writing to it.

No WSGI server interrupts an application that waits: it learns of a gone viewer when it next writes. So
whoever waits long looks at the connection itself, where the server shows it.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_RDHUP: int = getattr(select, "POLLRDHUP", 0)  # Linux: the peer closed, even with unread bytes before that
_GONE: int = select.POLLERR | select.POLLHUP | select.POLLNVAL | _RDHUP if hasattr(select, "poll") else 0


def by_http_1_1(environ: Mapping[str, Any]) -> bool:
    """Whether the request came by HTTP/1.1 or later, as far as is known."""
    return environ.get("SERVER_PROTOCOL", "HTTP/1.1") not in ("HTTP/0.9", "HTTP/1.0")


class Probe:
    """Looks at one connection. One thread at a time; never blocks, never reads or writes.

    A peer that shuts down only its sending half counts as gone; HTTP clients do not do that.
    """

    def __init__(self, connection: Any, *, owned: bool = False, frames: bool = False) -> None:
        self.connection = connection
        self.frames = frames
        """Whether the server tells the viewer where a body of unknown length ends."""
        self._owned = owned

    def gone(self) -> bool:
        """True once the peer has closed the connection, or the server has."""
        poll = _unpatched_poll()
        if poll is None:
            return False
        poller = poll()
        try:
            poller.register(self.connection.fileno(), select.POLLIN | _RDHUP)
            events = sum(found for _, found in poller.poll(0))
            if events & _GONE:
                return True
            return bool(events & select.POLLIN) and not _RDHUP and self._at_end()
        except (OSError, ValueError):  # closed under our hands: ValueError is for the descriptor -1
            return True

    def close(self) -> None:
        """Free what the probe itself has opened. Idempotent."""
        if self._owned:
            self.connection.close()

    def resettable(self) -> bool:
        """Whether the viewer can tell a reset of it from its end: TCP, no Unix socket."""
        return getattr(self.connection, "family", None) in (socket.AF_INET, socket.AF_INET6)

    def _at_end(self) -> bool:
        """Whether a readable connection is readable because it has ended."""
        raw = getattr(self.connection, "_sock", self.connection)  # gevent's recv would wait
        # Past SSLSocket.recv, which refuses flags: bytes of the TLS layer say as well that the peer is there.
        receive = socket.socket.recv if isinstance(raw, socket.socket) else type(raw).recv
        try:
            return not receive(raw, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False


def _of_its_key(environ: dict[str, Any]) -> Probe | None:
    """gunicorn, werkzeug: the socket has a key of the environ. A werkzeug with one thread sends no chunks."""
    several = bool(environ.get("wsgi.multithread") or environ.get("wsgi.multiprocess"))
    for name, sends_chunks in (("gunicorn.socket", True), ("werkzeug.socket", several)):
        if hasattr(environ.get(name), "fileno"):
            return Probe(environ[name], frames=sends_chunks and by_http_1_1(environ))
    return None


def _of_waitress(environ: dict[str, Any]) -> Probe | None:
    """waitress tells of a disconnect only with channel_request_lookahead > 0; its channel's socket always does."""
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    channel_socket = getattr(channel, "socket", None)
    return Probe(channel_socket, frames=by_http_1_1(environ)) if hasattr(channel_socket, "fileno") else None


def _of_uwsgi(environ: dict[str, Any]) -> Probe | None:
    """uWSGI: its module names the descriptor. It sends no chunks, unless its router does."""
    if "uwsgi.version" not in environ or "uwsgi" not in sys.modules:
        return None
    descriptor = os.dup(sys.modules["uwsgi"].connection_fd())
    return Probe(socket.socket(fileno=descriptor), owned=True)


def _of_wsgiref(environ: dict[str, Any]) -> Probe | None:
    """wsgiref, and what is built on it; cheroot, gevent's pywsgi: the socket under the file that bodies are read
    from. The last two wrap it, and send chunks."""
    file = environ.get("wsgi.input")
    is_wrapped = hasattr(file, "rfile")
    while (wrapped := getattr(file, "rfile", None)) is not None:
        file = wrapped
    server_socket = getattr(getattr(file, "raw", None), "_sock", None)
    if not hasattr(server_socket, "fileno"):
        return None
    return Probe(server_socket, frames=is_wrapped and by_http_1_1(environ))


class _Bridged(Probe):
    """The viewer of a WSGI application under an ASGI server, where a bridge hides the connection.

    The bridges run the application in a thread and tell it nothing of the viewer: what is written after they left
    is dropped in silence, so that without a probe the thread would follow the stream to its end. What the server
    has told the bridge is found where the bridge keeps it.
    """

    def __init__(
        self, environ: dict[str, Any], is_gone: Callable[[], bool], close: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(None, frames=by_http_1_1(environ))
        self._is_gone = is_gone
        self._close = close

    def gone(self) -> bool:
        return self._is_gone()

    def close(self) -> None:
        self._close()


def _of_a2wsgi(environ: dict[str, Any]) -> Probe | None:
    """a2wsgi: the server's `receive` returns once the viewer is gone; asked only where no body is left to read.

    Needs the body's `loop` and `receive` (a2wsgi 1.10).
    """
    body, asyncio = environ.get("wsgi.input"), sys.modules.get("asyncio")
    receive, loop = getattr(body, "receive", None), getattr(body, "loop", None)
    if "asgi.scope" not in environ or asyncio is None or receive is None or loop is None:
        return None
    unread = environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
    if unread and getattr(body, "has_more", True):
        return None
    left = asyncio.run_coroutine_threadsafe(_until_gone(receive), loop)
    return _Bridged(environ, left.done, left.cancel)


async def _until_gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _of_hypercorn(environ: dict[str, Any]) -> Probe | None:
    """hypercorn's own bridge: its function `run_app`, which calls the application, holds the request's stream.

    Needs its local variable `send`, and the stream's `closed` (hypercorn 0.17 and 0.18).
    """
    if "hypercorn.app_wrappers" not in sys.modules:
        return None
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "run_app" and frame.f_globals.get("__name__") == "hypercorn.app_wrappers":
            break
        frame = frame.f_back  # type: ignore[assignment]
    else:
        return None
    for bound in getattr(frame.f_locals.get("send"), "args", ()):
        stream: Any = getattr(bound, "__self__", None)
        if hasattr(stream, "closed"):
            return _Bridged(environ, lambda: bool(stream.closed))
    return None


PROBES: tuple[Callable[[dict[str, Any]], Probe | None], ...] = (
    _of_its_key,
    _of_waitress,
    _of_uwsgi,
    _of_a2wsgi,
    _of_hypercorn,
    _of_wsgiref,
)
"""Asked in this order; the first that finds a connection counts. First come those that go by a server's own names:
their order does not matter, as no two servers share them. Last comes the one that goes by the shape of
`wsgi.input`, which other servers may have too."""


def find_probe(environ: dict[str, Any]) -> Probe | None:
    """The probe for a request, None where the server does not show its connection (granian, mod_wsgi)."""
    for probe_of in PROBES:
        probe = probe_of(environ)
        if probe is not None:
            return probe
    return None


def _unpatched_poll() -> Any:
    """`select.poll` itself: gevent's takes its place, does not know POLLRDHUP, and would switch greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        return monkey.get_original("select", "poll")
    return getattr(select, "poll", None)
