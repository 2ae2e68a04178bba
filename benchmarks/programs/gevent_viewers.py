"""Thousands of viewers of one stream in one gunicorn worker of class gevent, which has a core of its own.

The client is one thread of this process, on the other cores, that reads from all connections (HTTP/1.0 over a UNIX
socket) and notes when each chunk came: its work is in the latencies. Memory and CPU are the worker's: a core
delivers at most 1e6 / `cpu_us_per_delivery` chunks a second, and what is offered beyond that waits.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from typing import Any

from .http import await_start, get
from .support import CHUNK_BYTES, WARM_UP_CHUNKS, Job, percentile

_SECONDS = 150.0
_CONNECTS_AT_ONCE = 100  # fewer than a listener's backlog


def serve(job: Job) -> dict[str, Any]:
    """Start the server, measure, end it."""
    path = os.path.join(job.directory, "http.sock")
    stores = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{job.directory}/streams.db",
        "redis": f"unix://{job.redis}",
    }
    options = {"stored": 100, "chunks": job["chunks"], "rate": job["rate"], "store": stores[job["store"]]}
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{path}", "--worker-class", "gevent"]
    command += [
        "--worker-connections",
        str(job["viewers"] + 100),
        "--log-level",
        "error",
        "--graceful-timeout",
        "1",
    ]
    command += [f"benchmarks.programs.http_application:application({json.dumps(options)!r})"]
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]))
    try:
        os.sched_setaffinity(0, cores[1:] or cores)
        await_start(path, server)
        return _measure(job, path, _worker_of(server.pid))
    finally:
        server.terminate()
        server.wait()


def _measure(job: Job, path: str, worker: int) -> dict[str, Any]:
    before = _resident(worker)
    viewers = [_Viewer() for _ in range(job["viewers"])]
    with selectors.DefaultSelector() as selector:
        for number, viewer in enumerate(viewers):
            viewer.connect(path)
            selector.register(viewer.socket, selectors.EVENT_READ, viewer)
            if number % _CONNECTS_AT_ONCE == 0:
                _read(selector, lambda number=number: all(each.received for each in viewers[: number + 1]))
        _read(selector, lambda: all(each.received for each in viewers))  # all are there: they have the first chunk
        metrics = {"viewers": len(viewers), "kib_per_viewer": (_resident(worker) - before) / len(viewers) / 1024}
        cpu = _cpu_seconds(worker)
        with get(path, "/begin") as response:
            response.read()
        _read(selector, lambda: not selector.get_map())
    deliveries = len(viewers) * (job["chunks"] - 1)  # each has the first chunk already
    metrics["cpu_us_per_delivery"] = (_cpu_seconds(worker) - cpu) / deliveries * 1e6
    if {viewer.received for viewer in viewers} != {job["chunks"] * CHUNK_BYTES}:
        raise AssertionError("a viewer did not get the whole stream")
    found = sorted(ns / 1e6 for viewer in viewers for ns in viewer.latencies[WARM_UP_CHUNKS:])
    metrics |= {"p50_ms": percentile(found, 0.5), "p99_ms": percentile(found, 0.99), "max_ms": found[-1]}
    return {"metrics": metrics}


class _Viewer:
    """One connection. `received`: bytes of the body."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self.received = 0
        self._held = b""
        self._in_body = False

    def connect(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_SECONDS)
        self.socket.connect(path)
        self.socket.sendall(b"GET /live HTTP/1.0\r\n\r\n")

    def take(self) -> bool:
        """Read what is there; False at the end."""
        data = self.socket.recv(65536)
        now = time.monotonic_ns()
        held = self._held + data
        if not self._in_body:
            head, separator, body = held.partition(b"\r\n\r\n")
            if separator and b" 200 " not in head.splitlines()[0]:
                raise AssertionError(f"refused: {head!r}")
            self._in_body, held = bool(separator), body if separator else held
        if self._in_body:
            whole = len(held) // CHUNK_BYTES * CHUNK_BYTES
            for begin in range(0, whole, CHUNK_BYTES):
                self.latencies.append(now - int(held[begin : begin + 20]))
            self.received += whole
            held = held[whole:]
        self._held = held
        return bool(data)


def _read(selector: selectors.BaseSelector, over: Any) -> None:
    deadline = time.monotonic() + _SECONDS
    while not over():
        if time.monotonic() > deadline:
            raise TimeoutError("the viewers did not get on")
        for key, _ in selector.select(1):
            if not key.data.take():
                selector.unregister(key.fileobj)
                key.data.socket.close()


def _worker_of(master: int) -> int:
    with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as children:
        return int(children.read().split()[0])


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as counters:
        user, system = counters.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
