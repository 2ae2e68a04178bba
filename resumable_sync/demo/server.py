"""A small threaded WSGI server from the standard library, for the demo on one machine."""

from __future__ import annotations

import socketserver
import sys
import threading
from socketserver import BaseServer
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the terminal for what matters."""


class DemoServer(socketserver.ThreadingMixIn, WSGIServer):
    """Serves `application` at `host:port`, one thread per request, from construction to `close`."""

    daemon_threads = True  # a viewer that is never done must not keep the process
    block_on_close = False
    request_queue_size = 64

    def __init__(self, host: str, port: int, application: WSGIApplication) -> None:
        super().__init__((host, port), _Handler)
        self.set_app(application)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="demo-server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.server_name}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which may ask the network."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A viewer that left is no news; everything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            BaseServer.handle_error(self, request, client_address)  # type: ignore[arg-type]

    def close(self) -> None:
        """Take no more requests. Those that are answered go on until their context is closed."""
        self.shutdown()
        self._thread.join()
        self.server_close()
