"""Streams that survive their producer under a real gunicorn: its worker is killed, frozen, replaced (G7, G11)."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resumable_sync import Status, Store, open_store
from resumable_sync.sse import parse_events

from ..stores.faults.frozen import freeze
from ..stores.faults.rounds import rounds
from ..stores.redis.server import shared_server
from ..support import PATIENCE, wait_until
from .servers import Gunicorn
from .takeover_application import text

CONF = Path(__file__).with_name("takeover_conf.py")
GRACE = 1.0
CHUNKS = 90
VIEWERS = 8  # of each worker
SILENCE = 1.0
"""Seconds without a byte after which a viewer comes back: its server may be frozen."""


class Takeovers(Gunicorn):
    """Two workers on the store at `url`."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        super().__init__(
            directory,
            url,
            "--config",
            str(CONF),
            "--workers",
            "2",
            viewers=60,
            application="tests.wsgi.takeover_application:from_environment()",
            settings={"TEST_DIRECTORY": str(directory), "TEST_GRACE": str(GRACE)},
        )

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return len(self.workers()) == 2

    def workers(self) -> set[int]:
        """The process ids of those that take requests."""
        master = self.process.pid
        children = map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())
        return {child for child in children if (self.directory / f"ready-{child}").exists()}

    def start(self, stream_id: str) -> int:
        """Begin a stream; the process id of who produces it."""
        connection = self.get(f"/start/{stream_id}/{CHUNKS}")
        try:
            return int(connection.read())
        finally:
            connection.leave()

    def lines(self, name: str) -> list[str]:
        """What was written down."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


class Viewer:
    """One that follows to the end and comes back by its cursor, first at the worker that it is to have."""

    def __init__(self, server: Takeovers, stream_id: str, worker: int) -> None:
        self.stream_id = stream_id
        self.data = b""
        self.times: list[float] = []
        self.ending = ""
        self.fault: BaseException | None = None
        self.begun = threading.Event()
        self._server = server
        self._worker = worker
        self._cursor = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive(), f"{self.stream_id}: at {len(self.data)}"
        if self.fault is not None:
            raise self.fault

    def longest_silence(self) -> float:
        return max(later - earlier for earlier, later in zip(self.times, self.times[1:]))

    def _run(self) -> None:
        try:
            deadline = time.monotonic() + PATIENCE
            while not self.ending:
                assert time.monotonic() < deadline, f"{self.stream_id} never ended"
                try:
                    self._follow()
                except (OSError, http.client.HTTPException):
                    threading.Event().wait(0.02)
        except BaseException as fault:
            self.fault = fault
        finally:
            self.begun.set()

    def _follow(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=SILENCE)
        try:
            after = f"?after={self._cursor}" if self._cursor else ""
            connection.request("GET", f"/begin/{self.stream_id}{after}")
            response = connection.getresponse()
            if response.status == 503:
                threading.Event().wait(0.02)
                return
            if response.status == 204:  # it had come to the end, but not to the event that says so
                self.ending = "done"
                return
            assert response.status == 200, (response.status, response.read(1000))
            if not self._cursor and response.getheader("X-Worker") != str(self._worker):
                return
            if self.stream_id.startswith("events"):
                self._read_events(response)
            else:
                self._read_bytes(response)
        finally:
            connection.close()

    def _read_events(self, response: http.client.HTTPResponse) -> None:
        for event in parse_events(iter(lambda: response.read1(65536), b"")):
            if event.event == "end":
                self.ending = json.loads(event.data)["status"]
                return
            self._cursor = event.id or self._cursor
            if event.event in (None, "", "message"):
                self._got(event.data.encode())

    def _read_bytes(self, response: http.client.HTTPResponse) -> None:
        generation, _, offset = str(response.getheader("X-Resumable-Cursor")).partition("-")
        assert int(offset) == len(self.data)
        while piece := response.read1(65536):
            self._got(piece)
            self._cursor = f"{generation}-{len(self.data)}"
        self.ending = "done"  # only then does the answer end in order

    def _got(self, data: bytes) -> None:
        self.data += data
        self.times.append(time.monotonic())
        self.begun.set()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/streams.db?grace={GRACE}"
    return f"{shared_server().url}?prefix=takeovers&grace={GRACE}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    for info in opened.streams():
        opened.delete(info.stream_id)
    opened.close()


def _kill(server: Takeovers, stream_id: str, producer: int, path: Path | None, rng: random.Random) -> None:
    os.kill(producer, signal.SIGKILL)


def _freeze(server: Takeovers, stream_id: str, producer: int, path: Path | None, rng: random.Random) -> None:
    freeze(producer, path)
    try:
        wait_until(lambda: len(server.lines(f"producer-{stream_id}")) > 1, what="a second term")
        threading.Event().wait(rng.uniform(0, 0.5))
    finally:
        os.kill(producer, signal.SIGCONT)
    # It learns that the stream is not its own any more.
    wait_until(lambda: any(f"{producer} LeaseLostError" in line for line in server.lines(f"error-{stream_id}")))


def _hang_up(server: Takeovers, stream_id: str, producer: int, path: Path | None, rng: random.Random) -> None:
    os.kill(producer, signal.SIGHUP)  # which only the master knows: it ends a worker at once


def _reload(server: Takeovers, stream_id: str, producer: int, path: Path | None, rng: random.Random) -> None:
    former = server.workers()
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(server.workers() - former) == 2, what="new workers")


FAULTS: dict[str, Callable[[Takeovers, str, int, Path | None, random.Random], None]] = {
    "kill": _kill,
    "freeze": _freeze,
    "reload": _reload,
    "hang up": _hang_up,
}
BRIEF = ("kill", "freeze", "reload")


@rounds(1, 100, 7200)
def test_the_producing_worker_goes(
    rounds: int, url: str, store: Store, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Every viewer, on either worker, gets the exact bytes and `done`; none is told `interrupted`."""
    path = tmp_path / "streams.db" if url.startswith("sqlite") else None
    faults = {kind: fault for kind, fault in FAULTS.items() if rounds > 1 or kind in BRIEF}
    silences: dict[str, list[float]] = {kind: [] for kind in faults}
    terms: dict[str, int] = dict.fromkeys(faults, 0)
    with Takeovers(tmp_path, url) as server:
        for number in range(rounds):
            for kind, fault in faults.items():
                rng = random.Random(f"{kind} {number}")
                stream_id = f"{rng.choice(('events', 'raw'))}-{kind.replace(' ', '-')}-{number}"
                wait_until(lambda: len(server.workers()) == 2, what="two workers")
                workers = server.workers()
                producer = server.start(stream_id)
                assert server.lines(f"producer-{stream_id}") == [str(producer)]
                viewers = [Viewer(server, stream_id, worker) for worker in workers for _ in range(VIEWERS)]
                for viewer in viewers:
                    assert viewer.begun.wait(PATIENCE)
                threading.Event().wait(rng.uniform(0, 0.3))
                fault(server, stream_id, producer, path, rng)
                for viewer in viewers:
                    viewer.join()
                    assert viewer.ending == "done", (stream_id, viewer.ending)
                    assert viewer.data == text(CHUNKS), (stream_id, len(viewer.data))
                info = store.info(stream_id)
                assert info is not None and info.status is Status.DONE and info.term > 1, info
                assert store.read(stream_id).data == text(CHUNKS)
                terms[kind] += info.term
                silences[kind].append(max(viewer.longest_silence() for viewer in viewers))
                store.delete(stream_id)
    assert "Traceback" not in server.log.read_text(), server.log.read_text()
    for kind, found in silences.items():
        report(
            fault=kind,
            rounds=rounds,
            terms=terms[kind],
            longest_silence=max(found),
            median=statistics.median(found),
            above_2_s=sum(each > 2.0 for each in found),
            above_grace_and_2_s=sum(each > GRACE + 2.0 for each in found),
        )
