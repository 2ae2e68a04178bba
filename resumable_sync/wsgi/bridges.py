"""Probes for WSGI applications under ASGI servers, where a bridge hides the connection.

The bridges run the application in a thread and tell it nothing of the viewer: what is written after he left is
dropped in silence, so that without a probe his thread would follow the stream to its end. What the server has told
the bridge is found where the bridge keeps it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from .probe import Probe, by_http_1_1


class _Bridged(Probe):
    """A viewer of whom somebody else knows whether they are gone."""

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


def of_a2wsgi(environ: dict[str, Any]) -> Probe | None:
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


def of_hypercorn(environ: dict[str, Any]) -> Probe | None:
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
