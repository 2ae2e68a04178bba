"""Thousands of viewers in one gevent worker; a foreign lock on a SQLite file, which must not stop the others."""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import resource
import selectors
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ..backends import BACKEND_PARAMS, BACKENDS
from ..figures import Report
from ..javascript import cannot
from ..support import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
LINE = re.compile(rb"\s*(\d+\.\d+)\n")

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]


@contextmanager
def served(directory: Path, url: str, connections: int) -> Iterator[tuple[int, int]]:
    """A gunicorn with one gevent worker: its port, and the worker's process."""
    if importlib.util.find_spec("gevent") is None:
        cannot("gevent", "install the extra: servers")
    log = directory / "log"
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener, log.open("wb") as output:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "tests.wsgi.gevent_application:application"),
                *("--bind", f"fd://{listener.fileno()}", "--worker-class", "gevent", "--backlog", "4096"),
                *("--worker-connections", str(connections), "--no-control-socket", "--timeout", "120"),
            ],
            env={**os.environ, "TEST_STORE": url},
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=output,
        )
    try:
        found: list[int] = []

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            found[:] = map(int, re.findall(r"Booting worker with pid: (\d+)", log.read_text()))
            return bool(found) and ping(port) is not None

        wait_until(answers, PATIENCE)
        yield port, found[0]
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ping(port: int, path: str = "/ping") -> float | None:
    """Seconds that a request took; None if it was not answered."""
    began = time.monotonic()
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("GET", path)
            assert connection.getresponse().read() == b"ok"
    except OSError:
        return None
    return time.monotonic() - began


class Viewers:
    """Sockets in one thread: when each got each line."""

    def __init__(self, port: int, count: int, streams: int) -> None:
        self._selector = selectors.DefaultSelector()
        self.delays: list[float] = []
        self.lines = [0] * count
        self.ended = 0
        self._begun: set[int] = set()  # whose headers have come
        for number in range(count):
            one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            # By HTTP/1.0 the body ends with the connection, and nothing stands between its bytes.
            one.sendall(b"GET /see/%d HTTP/1.0\r\n\r\n" % (number % streams))
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ, (number, bytearray()))

    def follow(self, seconds: float) -> None:
        """Until all have ended."""
        deadline = time.monotonic() + seconds
        while self._selector.get_map():
            assert time.monotonic() < deadline, f"{self.ended} have ended"
            for key, _ in self._selector.select(1.0):
                self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        number, rest = key.data
        assert isinstance(key.fileobj, socket.socket)
        piece = key.fileobj.recv(65536)
        now = time.monotonic()
        if not piece:
            self.ended += 1
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
            return
        rest += piece
        if number not in self._begun:
            head, mark, body = bytes(rest).partition(b"\r\n\r\n")
            if not mark:
                return
            assert b" 200 OK" in head.partition(b"\r\n")[0], head
            self._begun.add(number)
            rest[:] = body
        last = 0
        for match in LINE.finditer(rest):
            self.delays.append(now - float(match[1]))
            self.lines[number] += 1
            last = match.end()
        del rest[:last]


@pytest.mark.parametrize("streams", [1, 500])
@pytest.mark.parametrize("kind", BACKEND_PARAMS)
def test_five_thousand_viewers(kind: str, streams: int, tmp_path: Path, report: Report) -> None:
    """No viewer is refused, none lost; other requests are answered meanwhile."""
    count, chunks = 5_000, 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16_384, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    with served(tmp_path, BACKENDS[kind].url(tmp_path), count + 100) as (port, worker):
        before = memory(worker)
        viewers = Viewers(port, count, streams)
        waits: list[float] = []
        over = threading.Event()

        def others() -> None:
            while not over.wait(0.2):
                waited = ping(port)
                assert waited is not None
                waits.append(waited)

        thread = threading.Thread(target=others)
        wait_until(lambda: ping(port) is not None)
        thread.start()
        ping(port, f"/start/{streams}/{chunks}/1.0")
        viewers.follow(120)
        each = (memory(worker) - before) / count
        over.set()
        thread.join()
    assert set(viewers.lines) == {chunks}
    delays = sorted(viewers.delays)
    report(
        viewers=count,
        p50_ms=1000 * statistics.median(delays),
        p99_ms=1000 * delays[int(0.99 * len(delays))],
        slowest_other=max(waits),
        kib_each=each / 1024,
    )
    assert statistics.median(waits) < 2.0


def memory(pid: int) -> int:
    """Bytes that a process has in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_a_foreign_lock_does_not_stop_the_hub(tmp_path: Path, report: Report) -> None:
    """Another process is within a transaction for five seconds, while a source wants to store."""
    file = tmp_path / "streams.db"
    with served(tmp_path, f"sqlite:///{file}", 100) as (port, _):
        assert ping(port, "/start/1/50/0.01") is not None
        foreign = sqlite3.connect(file, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        until = time.monotonic() + 5
        waits = []
        while time.monotonic() < until:
            waited = ping(port)
            assert waited is not None
            waits.append(waited)
        foreign.execute("ROLLBACK")
        foreign.close()
        with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)) as viewer:
            viewer.sendall(b"GET /see/0 HTTP/1.0\r\n\r\n")
            whole = b"".join(iter(lambda: viewer.recv(65536), b""))
        assert len(LINE.findall(whole.partition(b"\r\n\r\n")[2])) == 50
    report(requests=len(waits), slowest=max(waits))
    assert max(waits) < 4
