"""Real servers on loopback, and a client that can leave in the middle."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import werkzeug.serving

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.wsgi import ViewerCap

from .application import Application
from .support import wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HEARTBEAT = 1.0
"""Seconds. Short, and long against what a busy machine takes to run a thread."""
THREADS = 8
VIEWERS = 6


class Connection:
    """One request over a socket of its own."""

    def __init__(self, port: int, method: str, path: str, headers: dict[str, str]) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            self._http.request(method, path, headers=headers)
            self.response = self._http.getresponse()
        except BaseException:
            self._http.close()
            raise
        self.status = self.response.status
        self.headers = {name.lower(): value for name, value in self.response.getheaders()}

    def read_bytes(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        found = b""
        while len(found) < count:
            piece = self.response.read1(count - len(found))
            if not piece:
                break
            found += piece
        return found

    def read_until(self, mark: bytes) -> bytes:
        found = b""
        while mark not in found:
            piece = self.response.read1(1)
            assert piece, f"{mark!r} did not come, but {found!r}"
            found += piece
        return found

    def read(self) -> bytes:
        return self.response.read()

    def leave(self) -> None:
        self.response.close()
        self._http.close()


class Server:
    """A running server, as its clients see it."""

    def __init__(self, port: int, kind: str) -> None:
        self.port = port
        self.kind = kind

    def get(self, path: str, method: str = "GET", **headers: str) -> Connection:
        return Connection(self.port, method, path, {k.replace("_", "-"): v for k, v in headers.items()})

    def ask(self, path: str) -> dict[str, Any]:
        connection = self.get(path)
        try:
            answer = json.loads(connection.read())
            assert isinstance(answer, dict)
            return answer
        finally:
            connection.leave()

    def viewers(self) -> int:
        return int(self.ask("/viewers")["viewers"])


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer has left while its answer was written: what these tests do."""


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def in_process(kind: str) -> Iterator[Server]:
    """wsgiref (threading), werkzeug or waitress in a thread of this process, on a MemoryStore."""
    store = MemoryStore()
    context = ResumableStreamContext(store)
    with serving(kind, Application(context, ViewerCap(VIEWERS), HEARTBEAT)) as port:
        try:
            yield Server(port, kind)
        finally:
            context.close()
    store.close()


@contextlib.contextmanager
def serving(kind: str, application: WSGIApplication) -> Iterator[int]:
    """The port at which wsgiref (threading), werkzeug or waitress serves this, in a thread of this process."""
    server: Any
    if kind == "wsgiref":
        server = make_server("127.0.0.1", 0, application, _ThreadingServer, _QuietHandler)
        port, serve, stop = server.server_port, server.serve_forever, server.shutdown
    elif kind == "werkzeug":
        server = werkzeug.serving.make_server("127.0.0.1", 0, application, threaded=True)
        port, serve, stop = server.server_port, server.serve_forever, server.shutdown
    else:
        waitress_server: Any = importlib.import_module("waitress.server")  # it has no types
        server = waitress_server.create_server(application, host="127.0.0.1", port=0, threads=THREADS)
        port, over = server.effective_port, threading.Event()

        def serve() -> None:
            while not over.is_set():
                server.asyncore.loop(timeout=0.05, map=server._map, count=1)

        def stop() -> None:
            server.task_dispatcher.shutdown()
            wait_until(lambda: not server.active_channels)
            over.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        stop()
        thread.join(10)  # first: it would wait for sockets that are closed
        if kind == "waitress":
            server.close()
            for dispatcher in list(server._map.values()):
                dispatcher.close()
        else:
            server.server_close()
    assert not thread.is_alive()


T = TypeVar("T", bound="Gunicorn")


class Gunicorn(Server):
    """gunicorn with gthread workers, in processes of its own."""

    def __init__(
        self,
        directory: Path,
        store: str,
        *arguments: str,
        viewers: int = VIEWERS,
        application: str = "tests.wsgi.application:from_environment()",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        threads = viewers + THREADS - VIEWERS
        with socket.create_server(("127.0.0.1", 0)) as listener:
            super().__init__(listener.getsockname()[1], "gunicorn")
            environment = {
                **os.environ,
                "TEST_STORE": store,
                "TEST_VIEWERS": str(viewers),
                "TEST_HEARTBEAT": str(HEARTBEAT),
                "PYTHONWARNINGS": "default",
                **(settings or {}),
            }
            root = Path(__file__).parents[2]
            command = [
                sys.executable,
                "-m",
                "gunicorn",
                application,
                "--config",
                str(Path(__file__).with_name("gunicorn_conf.py")),
                "--chdir",
                str(root),
                "--bind",
                f"fd://{listener.fileno()}",
                "--worker-class",
                "gthread",
                "--threads",
                str(threads),
                "--graceful-timeout",
                "20",
                "--timeout",
                "60",
                "--worker-tmp-dir",
                str(directory),
                "--no-control-socket",
                *arguments,
            ]
            self.log = directory / "gunicorn.log"
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command, env=environment, cwd=root, pass_fds=[listener.fileno()], stdout=log, stderr=log
                )
        wait_until(self._answers, 30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.ask("/viewers"))
        except OSError:
            return False

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.terminate()
            try:
                # gunicorn kills after its graceful timeout, of 20 s, a worker that it forked at this very moment.
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
