"""Deploys under a real gunicorn: sources run to their own ends, viewers go on elsewhere, requests are answered."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from resumable_sync.sse import parse_events
from resumable_sync.stores.sqlite import SQLiteStore

from ..support import PATIENCE, wait_until
from .deploy_application import chunks
from .servers import Connection, Gunicorn, Server

CONF = Path(__file__).with_name("deploy_conf.py")
ANSWERS = [pytest.param(12, id="few"), pytest.param(50, id="heavy", marks=pytest.mark.heavy)]


class Deployed(Gunicorn):
    """gunicorn with the application and configuration of these tests. `exits` says when a worker went."""

    def __init__(self, directory: Path, *arguments: str, drain: float = 60.0, **settings: str) -> None:
        self.url = f"sqlite:///{directory / 'streams.db'}"
        self.directory = directory
        chosen = {"TEST_DRAIN": str(drain), "TEST_DIRECTORY": str(directory), **settings}
        super().__init__(
            directory,
            self.url,
            "--config",
            str(CONF),
            *arguments,
            viewers=80,
            application="tests.wsgi.deploy_application:from_environment()",
            settings=chosen,
        )
        self.store = SQLiteStore(directory / "streams.db")

    def exits(self) -> dict[int, float]:
        """By process id, the monotonic time at which a worker's interpreter had closed everything."""
        found = {}
        for path in self.directory.glob("exit-*"):
            found[int(path.name.partition("-")[2])] = float(path.read_text())
        return found

    def worker(self) -> int:
        """The process id of one that answers now."""
        return int(self.ask("/viewers")["pid"])

    def __exit__(self, *raised: object) -> None:
        try:
            super().__exit__(*raised)
        finally:
            self.store.close()


class Stored(Protocol):
    """A server whose streams lie in `store`."""

    store: SQLiteStore

    def get(self, path: str) -> Connection:
        """One request."""


class Answer:
    """One answer, begun and followed to its end as a client does: it comes back with its cursor when it is cut.

    `refusals` counts what kept it from going on at once.
    """

    def __init__(self, server: Stored, number: int, seconds: float) -> None:
        self.stream_id = f"{'events' if number % 2 else 'raw'}-{number}"
        self.expected = b"".join(chunks(self.stream_id, seconds))
        self.data = b""
        self.begun = threading.Event()
        self.ending: str | None = None
        self.refusals: Counter[int | str] = Counter()
        self.cuts = 0
        self.fault: BaseException | None = None
        self._server = server
        self._seconds = seconds
        self._cursor = ""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            deadline = time.monotonic() + PATIENCE
            while self.ending is None:
                assert time.monotonic() < deadline, f"{self.stream_id} never ended: {self.refusals}"
                try:
                    self._follow()
                except (OSError, http.client.HTTPException) as error:
                    self.refusals[type(error).__name__] += 1
                    self.begun.wait(0.05)
        except BaseException as fault:
            self.fault = fault
        finally:
            self.begun.set()

    def _follow(self) -> None:
        events = self.stream_id.startswith("events")
        query = f"?after={self._cursor}" if self._cursor else ""
        route = "again" if self._cursor else "begin"
        connection = self._server.get(f"/{route}/{self.stream_id}/{self._seconds}{query}")
        try:
            if connection.status == 204 and events:  # it had come to the end, but not to the event that says so
                self.ending = "over"
                return
            if connection.status != 200:
                self.refusals[connection.status] += 1
                assert connection.status == 503 and int(connection.headers["retry-after"]) > 0, connection.status
                threading.Event().wait(0.1)  # a client that does not take its time
                return
            if events:
                self._read_events(connection)
            else:
                self._read_bytes(connection)
        finally:
            connection.leave()
        self.cuts += self.ending is None

    def _read_events(self, connection: Any) -> None:
        for event in parse_events(iter(lambda: connection.response.read1(65536), b"")):
            if event.event == "end":
                self.ending = event.data
                return
            self._cursor = event.id or self._cursor
            if event.event in (None, "", "message"):
                self.data += event.data.encode()
            self.begun.set()

    def _read_bytes(self, connection: Any) -> None:
        generation, _, offset = connection.headers["x-resumable-cursor"].partition("-")
        at = int(offset)
        assert at == len(self.data)
        try:
            while piece := connection.response.read1(65536):
                self.data += piece
                self._cursor = f"{generation}-{len(self.data)}"
                self.begun.set()
        except (OSError, http.client.HTTPException):
            return  # cut: only a stream that is done ends in order
        self.ending = "complete"

    def check(self) -> None:
        self.thread.join(PATIENCE)
        assert self.fault is None, (self.stream_id, self.fault)
        assert self._server.store.status(self.stream_id) == "done", self.stream_id
        assert self.data == self.expected, (self.stream_id, len(self.data), len(self.expected))


@contextlib.contextmanager
def asking(server: Server) -> Iterator[list[float]]:
    """Ask for something short all the time, on a new connection each. Nothing but 200 may come. Yields the seconds
    that each took."""
    seconds: list[float] = []
    faults: list[object] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            began = time.monotonic()
            try:
                connection = server.get("/short")
                try:
                    if connection.status != 200 or connection.read() != b"short":
                        faults.append(connection.status)
                finally:
                    connection.leave()
            except (OSError, http.client.HTTPException) as error:
                faults.append(error)
            seconds.append(time.monotonic() - began)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join(PATIENCE)
    assert not faults, faults
    assert seconds


def begin(server: Stored, numbers: Iterable[int], seconds: float) -> list[Answer]:
    answers = [Answer(server, number, seconds) for number in numbers]
    for answer in answers:
        assert answer.begun.wait(PATIENCE) and answer.fault is None, answer.fault
    return answers


def last_end(server: Deployed, names: set[str]) -> float:
    """The monotonic time at which the last of these sources returned, as it wrote down itself."""
    return max(float((server.directory / f"ended-{name}").read_text()) for name in names)


@pytest.mark.parametrize("count", ANSWERS)
def test_a_reload_interrupts_no_answer(tmp_path: Path, count: int, report: Callable[..., None]) -> None:
    # gunicorn's own patience is shorter than the sources: it repeats SIGTERM, and its timeout passes.
    with Deployed(tmp_path, "--timeout", "2", "--graceful-timeout", "1") as server:
        old = server.worker()
        with asking(server) as asked:
            answers = begin(server, range(count), 3.5)
            names = {answer.stream_id for answer in answers}
            server.process.send_signal(signal.SIGHUP)
            for answer in answers:
                answer.check()
            wait_until(lambda: old in server.exits())
            gone = server.exits()[old] - last_end(server, names)
        report(answers=count, slowest_short=max(asked), cuts=sum(a.cuts for a in answers), exit_after_last=gone)
        assert all(answer.cuts for answer in answers)  # its viewers were sent away
        assert server.worker() != old
        assert gone < 10.0
    text = server.log.read_text()
    assert "WORKER TIMEOUT" not in text and "Traceback" not in text and "SIGKILL" not in text, text


@pytest.mark.parametrize(
    "jitter", [pytest.param("0", id="together"), pytest.param("30", id="jitter", marks=pytest.mark.heavy)]
)
def test_workers_that_reach_max_requests_take_turns(
    tmp_path: Path, jitter: str, report: Callable[..., None]
) -> None:
    arguments = ("--workers", "2", "--max-requests", "30", "--max-requests-jitter", jitter, "--timeout", "3")
    with Deployed(tmp_path, *arguments) as server:
        with asking(server) as asked:
            answers = begin(server, range(12), 2.5)
            for answer in answers:
                answer.check()
            wait_until(lambda: len(server.exits()) >= 2)
        report(slowest_short=max(asked), exits=len(server.exits()), cuts=sum(a.cuts for a in answers))
        assert max(asked) < 10.0  # while one boots it may wait
    text = server.log.read_text()
    assert "Traceback" not in text and "WORKER TIMEOUT" not in text, text
    assert not list(tmp_path.glob("resumable-sync-*"))


def test_one_worker_accepts_while_the_other_drains(tmp_path: Path) -> None:
    with Deployed(tmp_path, "--workers", "2", "--max-requests", "20") as server:
        names = [f"long-{number}" for number in range(8)]
        for name in names:
            server.get(f"/start/{name}/{2 * PATIENCE}").leave()
        with asking(server) as asked:
            wait_until(lambda: len(asked) > 150)  # each worker has answered more than it is to
            assert max(asked) < 10.0
            assert all(server.store.status(name) == "streaming" for name in names)
            for name in names:
                server.store.cancel(name)
            wait_until(lambda: len(server.exits()) >= 2)


def test_a_single_worker_that_reaches_max_requests_waits_for_a_quiet_moment(tmp_path: Path) -> None:
    with Deployed(tmp_path, "--max-requests", "20") as server:
        old = server.worker()
        with asking(server) as asked:
            answers = begin(server, range(2), 2.0)
            for answer in answers:
                answer.check()
            assert not any(answer.cuts for answer in answers)
            wait_until(lambda: old in server.exits())
            wait_until(lambda: server.worker() != old)
            wait_until(lambda: len(asked) > 20)
        assert max(asked) < 10.0


@pytest.mark.heavy
def test_a_single_worker_that_reaches_max_requests_does_not_wait_for_ever(tmp_path: Path) -> None:
    with Deployed(tmp_path, "--max-requests", "5", drain=1.5) as server:
        answer = Answer(server, 1, 60.0)
        assert answer.begun.wait(PATIENCE)
        with asking(server) as asked:
            wait_until(lambda: server.store.status(answer.stream_id) == "interrupted")
            wait_until(lambda: answer.ending)  # it came back, and was told
        assert max(asked) < 10.0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="gthread"),
        pytest.param(("--preload", "--workers", "2"), id="preload", marks=pytest.mark.heavy),
        pytest.param(("--worker-class", "sync"), id="sync", marks=pytest.mark.heavy),
    ],
)
def test_a_server_that_ends_lets_its_sources_end(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with Deployed(tmp_path, *arguments) as server:
        names = ["one", "two", "failing"]
        for name in names:
            connection = server.get(f"/start/{name}/1.5")
            assert connection.status == 200
            connection.leave()
        server.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert [server.store.status(name) for name in names] == ["done", "done", "error"]
        for name in names[:2]:
            assert server.store.read(name, max_bytes=10**6).data == b"".join(chunks(name, 1.5))
    text = server.log.read_text()
    assert "SIGKILL" not in text and text.count("Traceback") == 1, text  # of the failing source


@pytest.mark.heavy
def test_a_drain_in_worker_exit_goes_together_with_it(tmp_path: Path) -> None:
    with Deployed(tmp_path, "--timeout", "2", TEST_WORKER_EXIT="1") as server:
        server.get("/start/one/2.5").leave()
        server.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert server.store.status("one") == "done"
    assert "Traceback" not in server.log.read_text()


def test_sigquit_ends_a_drain_at_once(tmp_path: Path) -> None:
    with Deployed(tmp_path) as server:
        answer = Answer(server, 1, 60.0)
        assert answer.begun.wait(PATIENCE)
        worker = server.worker()
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: answer.cuts)
        os.kill(worker, signal.SIGTERM)  # as gunicorn repeats it
        size = server.store.read(answer.stream_id).size
        wait_until(lambda: server.store.read(answer.stream_id).size > size + 50)
        assert server.store.status(answer.stream_id) == "streaming"
        os.kill(worker, signal.SIGQUIT)
        wait_until(lambda: answer.ending)
        assert server.store.status(answer.stream_id) == "interrupted" and worker in server.exits()
    assert "Traceback" not in server.log.read_text()


def test_a_kept_connection_to_a_draining_worker_is_refused_or_closed(tmp_path: Path) -> None:
    with Deployed(tmp_path) as server:
        server.get("/start/long/2.0").leave()
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        kept.request("GET", "/short")
        assert kept.getresponse().read() == b"short"
        server.process.send_signal(signal.SIGHUP)
        refused = closed = False
        while not (refused or closed):
            try:
                kept.request("GET", "/begin/raw-new/1.0")
                answer = kept.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                closed = True
            else:
                refused = answer.status == 503 and int(answer.headers["Retry-After"]) > 0
                assert refused or answer.status == 200
                closed = kept.sock is None  # told so by the header
        kept.close()
        wait_until(lambda: server.store.status("long") == "done")


@pytest.mark.heavy
def test_gevent(tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    with Deployed(tmp_path, "--worker-class", "gevent") as server:
        server.get("/start/one/1.0").leave()
        server.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert server.store.status("one") == "done"
    assert "Traceback" not in server.log.read_text()
