"""Runs one of the servers that are started from Python: `python -m tests.wsgi.launch KIND DESCRIPTOR`.

DESCRIPTOR is a listening socket. The application is that of `application.from_environment`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS = 8


def _load() -> Any:
    from resumable_sync.wsgi import close_on_sigterm

    from .application import from_environment

    application = from_environment()
    close_on_sigterm(application.context)
    return application


def _interruptible() -> None:
    """SIGTERM as SIGINT: these servers end orderly at Ctrl-C alone. `close_on_sigterm` passes it on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def cheroot(listener: socket.socket) -> None:
    _interruptible()
    # As systemd does: it takes a listening socket from descriptor 3, which nothing else has yet.
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.dup2(listener.detach(), 3)
    wsgi = importlib.import_module("cheroot.wsgi")
    wsgi.Server(("127.0.0.1", 0), _load(), numthreads=THREADS, shutdown_timeout=5).safe_start()


def gevent(listener: socket.socket) -> None:
    importlib.import_module("gevent.monkey").patch_all()
    pywsgi = importlib.import_module("gevent.pywsgi")
    own = importlib.import_module("gevent.socket").socket(fileno=listener.detach())
    _interruptible()
    server = pywsgi.WSGIServer(own, _load(), log=None)
    server.serve_forever()


def uvicorn(listener: socket.socket) -> None:
    a2wsgi = importlib.import_module("a2wsgi")
    importlib.import_module("uvicorn").run(
        a2wsgi.WSGIMiddleware(_load(), workers=THREADS),
        fd=listener.fileno(),
        log_level="warning",
        timeout_graceful_shutdown=5,
    )


def hypercorn(listener: socket.socket) -> None:
    asyncio = importlib.import_module("asyncio")
    config = importlib.import_module("hypercorn.config").Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = 5
    application = _load()

    async def serve() -> None:
        # Its threads are those of the event loop: of itself five more than there are cores.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        await importlib.import_module("hypercorn.asyncio").serve(application, config, mode="wsgi")

    asyncio.run(serve())


def werkzeug(listener: socket.socket) -> None:
    _interruptible()
    serving = importlib.import_module("werkzeug.serving")
    port = listener.getsockname()[1]
    serving.make_server("127.0.0.1", port, _load(), threaded=True, fd=listener.fileno()).serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        globals()[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))
