"""Appends to one Durable Stream over HTTP, on loopback: several connections, each of which waits for its answers.

Measured: acknowledged appends of 64 bytes; how long each takes; and, in a second run, the latency of a reader that
follows by server-sent events while the connections append as fast as they can. The clients are one thread of this
process, which parses no more of the answers than it must. Not measured: a network, TLS, a proxy.
"""

from __future__ import annotations

import http.client
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from .support import CHUNK_BYTES, Job, percentile

_PREFIX = "/v1/stream"
_START_SECONDS = 20.0
_SECONDS = 100.0


def serve(job: Job) -> dict[str, Any]:
    """Start gunicorn on a listening socket, measure, end it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        store = {
            "memory": "memory://",
            "sqlite": f"sqlite:///{job.directory}/streams.db",
            "redis": f"unix://{job.redis}",
        }[job["store"]]
        application = f"benchmarks.programs.durable_application:application({store!r})"
        command = [sys.executable, "-m", "gunicorn", application, "--bind", f"fd://{listener.fileno()}"]
        command += ["--workers", str(job["workers"]), "--worker-class", "gthread", "--threads", "16"]
        command += ["--keep-alive", "75", "--graceful-timeout", "1", "--log-level", "critical"]
        server = subprocess.Popen(command, stdout=sys.stderr, pass_fds=[listener.fileno()])
    try:
        return _measure(job, port)
    finally:
        server.terminate()
        server.wait()


def load(job: Job) -> dict[str, Any]:
    """Measure a server that somebody else has started."""
    return _measure(job, job["port"])


def _measure(job: Job, port: int) -> dict[str, Any]:
    _request(port, "PUT", "warm")
    _Load(port, "warm", job["connections"], max(50, job["appends"] // 10)).run()
    _request(port, "PUT", "measured")
    alone = _Load(port, "measured", job["connections"], job["appends"])
    seconds = alone.run()
    _request(port, "PUT", "followed")
    followed = _Load(port, "followed", job["connections"], job["appends"] // 2, read=True)
    followed.run()
    for stream, count in (("measured", job["appends"]), ("followed", job["appends"] // 2)):
        _check(port, stream, count)
    waits, latencies = sorted(alone.waits), sorted(followed.latencies)
    return {
        "metrics": {
            "appends_per_s": job["appends"] / seconds,
            "p50_ms": percentile(waits, 0.5),
            "p99_ms": percentile(waits, 0.99),
            "reader_p50_ms": percentile(latencies, 0.5),
            "reader_p99_ms": percentile(latencies, 0.99),
        }
    }


def _head(method: str, stream: str, *headers: str, query: str = "") -> bytes:
    lines = [f"{method} {_PREFIX}/{stream}{query} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _request(port: int, method: str, target: str) -> tuple[http.client.HTTPResponse, bytes]:
    """The whole answer, of a server that may still have to start."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        try:
            connection.request(method, f"{_PREFIX}/{target}", headers={"Content-Type": "text/plain"})
            response = connection.getresponse()
            body = response.read()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # a server does not tell when it is up
        else:
            if response.status not in (200, 201):
                raise AssertionError(f"{method} {target}: {response.status} {body[:200]!r}")
            return response, body
        finally:
            connection.close()


def _check(port: int, stream: str, count: int) -> None:
    """Everything that was acknowledged is stored, once."""
    found: list[int] = []
    offset: str | None = "-1"
    at_tail = False
    while not at_tail:
        response, body = _request(port, "GET", f"{stream}?offset={offset}")
        found += [int(line.split()[1]) for line in body.splitlines()]
        offset = response.getheader("Stream-Next-Offset")
        at_tail = response.getheader("Stream-Up-To-Date") is not None
    if sorted(found) != list(range(count)):
        raise AssertionError(f"{stream} holds {len(found)} appends, {len(set(found))} different ones, of {count}")


class _Load:
    """`count` appends by `connections` together; `read`: one more connection follows them as events."""

    def __init__(self, port: int, stream: str, connections: int, count: int, *, read: bool = False) -> None:
        self.waits: list[float] = []
        self.latencies: list[float] = []
        self._head = _head("POST", stream, "Content-Type: text/plain", f"Content-Length: {CHUNK_BYTES}")
        self._left = count
        self._running = connections
        self._unread = count if read else 0
        self._selector = selectors.DefaultSelector()
        self._writers = [self._connect(port, self._answered) for _ in range(connections)]
        self._began = dict.fromkeys(self._writers, 0.0)
        self._line = b""
        if read:
            reader = self._connect(port, self._followed)
            reader.sendall(_head("GET", stream, query="?offset=-1&live=sse"))

    def _connect(self, port: int, act: Callable[[socket.socket], None]) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), _SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, act)
        return connection

    def run(self) -> float:
        """The seconds until the last append was acknowledged. The reader then has everything."""
        begin = end = time.perf_counter()
        for writer in self._writers:
            self._append(writer)
        while self._running or self._unread:
            ready = self._selector.select(_SECONDS)
            if not ready:
                raise TimeoutError(f"{self._left} appends are left and {self._unread} are not read")
            for key, _ in ready:
                key.data(key.fileobj)
            if self._running:
                end = time.perf_counter()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        return end - begin

    def _append(self, writer: socket.socket) -> None:
        if not self._left:
            self._running -= 1
            return
        self._left -= 1
        self._began[writer] = time.perf_counter()
        writer.sendall(self._head + b"%020d %042d\n" % (time.monotonic_ns(), self._left))

    def _answered(self, writer: socket.socket) -> None:
        answer = writer.recv(65536)
        while b"\r\n\r\n" not in answer:
            more = writer.recv(65536)
            if not more:
                raise AssertionError(f"an append was answered by {answer!r}")
            answer += more
        if not answer.startswith(b"HTTP/1.1 204"):
            raise AssertionError(f"an append was answered by {answer[:200]!r}")
        self.waits.append((time.perf_counter() - self._began[writer]) * 1e3)
        self._append(writer)

    def _followed(self, reader: socket.socket) -> None:
        data = reader.recv(1 << 20)
        if not data:
            raise AssertionError(f"the reader's response ended with {self._unread} to go")
        now = time.monotonic_ns()
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            stamp = line[5:].lstrip().split(b" ")[0]
            if line.startswith(b"data:") and len(stamp) == 20:
                self.latencies.append((now - int(stamp)) / 1e6)
                self._unread -= 1
