"""End to end over HTTP, on a UNIX socket: gunicorn (gthread, one worker) or waitress, with the memory store.

Measured: the first byte of a short stored stream from the request on; the rate of a replay; the latency of a
live stream for all viewers that are held at the same time, one thread of the server for each. The clients are
threads of another process, whose work is in the figures. Not measured: a network, TLS, a proxy.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from .support import CHUNK_BYTES, Arrivals, Job, chunk, latency_metrics, percentile, sha256, start_threads

_START_SECONDS = 20.0


def serve(job: Job) -> dict[str, Any]:
    """Start the server, measure, end it."""
    path = os.path.join(job.directory, "http.sock")
    options = json.dumps(
        {
            "socket": path,
            "threads": job["viewers"] + 4,
            "stored": job["stored"],
            "chunks": job["chunks"],
            "rate": job["rate"],
        }
    )
    module = "benchmarks.programs.http_application"
    if job["server"] == "waitress":
        command = [sys.executable, "-m", module, options]
    else:
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--bind",
            f"unix:{path}",
            "--worker-class",
            "gthread",
            "--threads",
            str(job["viewers"] + 4),
            "--log-level",
            "error",
            "--graceful-timeout",
            "1",
            "--worker-connections",
            "2000",
            f"{module}:application({options!r})",
        ]
    server = subprocess.Popen(command, stdout=sys.stderr)
    try:
        return _measure(job, path, server)
    finally:
        server.terminate()
        server.wait()


def _measure(job: Job, path: str, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    await_start(path, server)
    firsts = []
    for _ in range(job["requests"]):
        begin = time.perf_counter()
        with get(path, "/short") as response:
            response.read(1)
            firsts.append((time.perf_counter() - begin) * 1e3)
            response.read()
    firsts.sort()
    begin = time.perf_counter()
    with get(path, "/stored") as response:
        data = response.read()
    seconds = time.perf_counter() - begin
    if sha256([data]) != sha256(map(chunk, range(job["stored"]))):
        raise AssertionError("other bytes than were stored came back")
    metrics = {
        "first_byte_ms": percentile(firsts, 0.5),
        "first_byte_p99_ms": percentile(firsts, 0.99),
        "chunks_per_s": job["stored"] / seconds,
    }
    arrivals = [Arrivals() for _ in range(job["viewers"])]
    responses = [get(path, "/live") for _ in arrivals]  # the headers come with the first chunk
    threads = start_threads(
        functools.partial(arrived.follow, _whole_chunks(response))
        for arrived, response in zip(arrivals, responses)
    )
    with get(path, "/begin") as response:
        response.read()
    for thread in threads:
        thread.join()
    if len({arrived.sha256 for arrived in arrivals}) != 1 or len(arrivals[0].latencies) != job["chunks"]:
        raise AssertionError("the viewers got different bytes")
    return {"metrics": metrics | {"viewers": job["viewers"]} | latency_metrics(arrivals)}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def get(path: str, target: str) -> http.client.HTTPResponse:
    """The answer to a request, its body unread."""
    connection = _Connection(path)
    connection.request("GET", target, headers={"Connection": "close"})
    response = connection.getresponse()
    if response.status != 200:
        raise AssertionError(f"{target}: {response.status}")
    return response


def _whole_chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    held = b""
    while data := response.read1(65536):
        held += data
        whole = len(held) // CHUNK_BYTES * CHUNK_BYTES
        if whole:
            yield held[:whole]
            held = held[whole:]


def await_start(path: str, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with get(path, "/short") as response:
                response.read()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.05)  # a server does not tell when it is up
