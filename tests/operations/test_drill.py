"""The drill: a deployment as operators are told to make it, and what they can expect when something goes wrong.

Each step of the drill meets its line of EXPECTED, statuses and seconds. The short one, which runs by default, asks
for the statuses alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from resumable_sync import Store, open_store

from ..figures import Report
from ..stores.redis.server import RedisServer
from ..support import PATIENCE, wait_until
from .client import Client
from .deployment import Deployment, deployed
from .texts import NAMES, shown

GRACE = 15.0
MEBIBYTE = 1024 * 1024
CUT = 0
"""In place of a status: the connection ended without an answer."""


class Expected(NamedTuple):
    """What is to come at one step of the drill: nothing but these statuses, within so many seconds."""

    statuses: Collection[int]
    seconds: float
    on_redis: float | None = None
    """Seconds with Redis, if they are others."""


EXPECTED = {
    # kill -HUP while answers run. Seconds: after the last source's end; of a request; after the last source's end.
    "deploy: answers complete": Expected({200, 204, 503}, 3.0),
    "deploy: other requests": Expected({200}, 5.0),
    "deploy: the old workers have gone": Expected((), 3.0),
    "deploy: the new edition answers": Expected({200}, 5.0),
    # kill -9 of a worker. Seconds: after the kill; of a viewer's silence; of a request; of the whole answer.
    "kill: viewers are told interrupted": Expected({200, 204, 502, CUT}, 3.0, GRACE + 5.0),
    "kill: viewers of the other worker's streams go on": Expected({200, 204, 502, CUT}, 2.0),
    "kill: with a handover it goes on": Expected({200, 204, 502, CUT}, 3.0, GRACE + 5.0),
    "kill: other requests": Expected({200, 502, CUT}, 3.0),
    "kill: two workers answer again": Expected({200}, 5.0),
    "kill: begun anew, complete": Expected({200}, 3.0),
    # No room on the disk. Seconds: of a request; after the disk is full; after the sources' ends, which the time
    # without room puts off.
    "disk: a new stream": Expected({503}, 2.0),
    "disk: /health": Expected({503}, 2.5),
    "disk: a stored answer is read": Expected({200}, 1.0),
    "disk: other requests": Expected({200, 502, CUT}, 3.0),  # as a worker is killed here, too
    "disk: a killed worker is replaced": Expected({200}, 5.0),
    "disk: room in time, answers complete": Expected({200, 204}, 5.0),
    "disk: room again, /health": Expected({200}, 2.0),
    # Until the lease runs out, a read comes by that would end the stream, and has been repeated for long enough.
    "disk: no room in time, viewers are refused": Expected({200, 503, 502, CUT}, 3 * GRACE + 3.0),
    "disk: room at last, viewers are told interrupted": Expected({200, 503, 502, CUT}, 5.0),
    "disk: begun anew, complete": Expected({200}, 3.0),
    # Redis away for 8 seconds. Seconds: of a request; after it is back; after the sources' ends, so put off.
    "redis: a new stream": Expected({503}, 6.0),
    "redis: /health": Expected({503}, 2.5),
    "redis: other requests": Expected({200, 502, CUT}, 3.0),  # as a worker is killed here, too
    "redis: a killed worker is replaced": Expected({200}, 5.0),
    "redis: back, viewers go on": Expected({200, 204}, 3.0),
    "redis: back, /health": Expected({200}, 2.0),
    "redis: answers complete": Expected({200, 204}, 2.0),
    # The workers' ports. Seconds: until the figures say so.
    "metrics: what was done": Expected((), 2.0),
    "metrics: lost": Expected((), 6.0),
    "metrics: viewers": Expected((), 2.0),
    # As many viewers as there are places, and more. Seconds: of a request; until the places are free.
    "viewers: one more": Expected({503}, 0.5),
    "viewers: other requests": Expected({200}, 0.5),
    "viewers: places of streams that run": Expected({200}, 5.0),
    "viewers: places of streams that are silent": Expected({200}, 31.0),
}


class Record:
    """Compares with EXPECTED, and reports what was measured."""

    def __init__(self, report: Report, kind: str, strict: bool) -> None:
        self._report = report
        self._on_redis = kind == "redis"
        self._strict = strict

    def met(self, step: str, seconds: float, statuses: Iterable[int] = ()) -> None:
        found = Counter(statuses)  # a Counter's own counts stay
        expected = EXPECTED[step]
        limit = expected.on_redis if self._on_redis and expected.on_redis is not None else expected.seconds
        self._report(**{step: seconds, "of": limit, "statuses": dict(found)})
        assert found.keys() <= set(expected.statuses), (step, found)
        assert seconds <= (limit if self._strict else PATIENCE), (step, seconds, limit)


class Place(NamedTuple):
    """A deployment on a store of one kind, and this process's view of that store."""

    kind: str
    server: Deployment
    store: Store
    record: Record
    redis: RedisServer | None = None
    disk: Path | None = None


def redis_options() -> list[str]:
    """The lines of the operators' redis.conf as options."""
    options = []
    for line in shown("redis.conf").splitlines():
        name, value = line.split()
        options += [f"--{name}", value.strip('"')]
    return options


@contextlib.contextmanager
def placed(kind: str, directory: Path, report: Report, *, strict: bool = True) -> Iterator[Place]:
    """On `sqlite`, `redis`, or `disk`: SQLite on a small file system of its own."""
    record = Record(report, kind, strict)
    with contextlib.ExitStack() as stack:
        redis = disk = None
        if kind == "redis":
            redis = stack.enter_context(RedisServer(*redis_options(), persistent=True))
            url = redis.url
        else:
            where = directory
            if kind == "disk":
                disk = where = stack.enter_context(small_disk(directory))
            url = f"sqlite:///{where / 'streams.db'}"
        store = stack.enter_context(contextlib.closing(open_store(url)))
        server = stack.enter_context(deployed(directory, url))
        yield Place(kind, server, store, record, redis, disk)


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 96 MiB: SQLite's log may take 64 of them."""
    disk = directory / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={96 * MEBIBYTE}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(place: Place) -> Path:
    """Take all the room that there is, and wait until the log has used up what it had; the file that takes it."""
    assert place.disk is not None
    ballast = place.disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (MEBIBYTE, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    wait_until(lambda: all(place.server.health()[0].status == 503 for _ in range(20)))
    return ballast


class Asking:
    """Asks for something short all the time, in a thread of its own."""

    def __init__(self, server: Deployment) -> None:
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            began = time.monotonic()
            try:
                self.statuses[self._server.ask("/short").status] += 1
            except OSError:
                self.statuses[CUT] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)


def begin(server: Deployment, kind: str, names: Collection[str], seconds: float) -> list[Client]:
    clients = [Client(server, name, seconds, kind) for name in names]
    for client in clients:
        assert client.begun.wait(PATIENCE)
        if client.fault is not None:
            raise client.fault
    return clients


def met_by(clients: Iterable[Client]) -> Counter[int]:
    """The statuses of all their requests."""
    return sum((client.statuses for client in clients), Counter())


def timed(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


# The text


def test_its_files_can_be_taken_from_the_text() -> None:
    for name in NAMES:
        assert len(shown(name).splitlines()) > 5
    compile(shown("app.py"), "app.py", "exec")
    assert dict(zip(*[iter(redis_options())] * 2))["--maxmemory-policy"] == "noeviction"


def test_the_master_imports_nothing_that_a_reload_should_load() -> None:
    """It would hand on to each new worker the modules that it had when it was started."""
    code = f"import sys\n{shown('gunicorn.conf.py')}\nprint('resumable_sync' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


# The drill

heavy = [pytest.mark.heavy, pytest.mark.timeout(600)]
both = pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("sqlite", 6, id="short"),
        pytest.param("sqlite", 50, id="sqlite", marks=heavy),
        pytest.param("redis", 50, id="redis", marks=[*heavy, pytest.mark.redis]),
    ],
)
def test_deploy(kind: str, count: int, tmp_path: Path, report: Report) -> None:
    seconds = 2.0 if count < 10 else 4.0
    with placed(kind, tmp_path, report, strict=count >= 10) as place:
        server, record = place.server, place.record
        with Asking(server) as asking:
            began = time.monotonic()
            clients = begin(server, "answers", [f"events-{number}" for number in range(count // 2)], seconds)
            clients += begin(server, "files", [f"raw-{number}" for number in range(count // 2)], seconds)
            last_source = time.monotonic() + seconds  # at the latest
            old = server.workers()
            server.edition("2")
            hung_up = time.monotonic()
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: server.ask("/edition").body == b"2")
            record.met("deploy: the new edition answers", time.monotonic() - hung_up, {200})
            for client in clients:
                client.check()
            assert last_source - began < PATIENCE
            complete = max(client.ended_at for client in clients)
            record.met("deploy: answers complete", complete - last_source, met_by(clients))
            wait_until(lambda: not old & server.workers())
            record.met("deploy: the old workers have gone", time.monotonic() - last_source)
        record.met("deploy: other requests", asking.slowest, asking.statuses)
        assert all(client.statuses.total() > 1 for client in clients)  # they were sent to the new workers
        assert place.store.status("events-0") == "done"
    text = server.log.read_text()
    assert "Traceback" not in text and "SIGKILL" not in text, text


@pytest.mark.heavy
@pytest.mark.timeout(600)
@both
def test_a_worker_is_killed(kind: str, tmp_path: Path, report: Report) -> None:
    with placed(kind, tmp_path, report) as place, Asking(place.server) as asking:
        server, record = place.server, place.record
        answers = begin(server, "answers", [f"answer-{number}" for number in range(10)], 40.0)
        answers += [Client(server, each.name, 40.0, "answers", begins=False) for each in answers for _ in range(2)]
        exports = begin(server, "exports", [f"export-{number}" for number in range(10)], 40.0)
        victim = server.producer("export-0")
        lost = [client for client in answers if server.producer(client.name) == victim]
        kept = [client for client in answers if server.producer(client.name) != victim]
        carried_on = [client for client in exports if server.producer(client.name) == victim]
        assert lost and kept and carried_on
        wait_until(lambda: all(len(client.data) > 200 for client in answers + exports))
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: victim not in server.workers() and len(server.workers_that_answer()) == 2)
        record.met("kill: two workers answer again", time.monotonic() - killed, {200})
        for client in lost:
            client.join()
        assert {client.ending for client in lost} == {"interrupted"}
        told = max(client.ended_at for client in lost) - killed
        record.met("kill: viewers are told interrupted", told, met_by(lost))
        wait_until(lambda: all(server.producer(client.name) != victim for client in carried_on))
        wait_until(lambda: all(client.times[-1] > killed + told for client in kept + carried_on))
        silence = max(client.longest_silence(killed) for client in kept)
        record.met("kill: viewers of the other worker's streams go on", silence, met_by(kept))
        silence = max(client.longest_silence(killed) for client in carried_on)
        record.met("kill: with a handover it goes on", silence, met_by(carried_on))
        names = {client.name for client in lost}
        wait_until(lambda: server.most("streams", status="interrupted") == len(names))
        began = time.monotonic()
        again = begin(server, "answers", sorted(names), 1.0)
        for client in again:
            client.check()
        record.met("kill: begun anew, complete", time.monotonic() - began, met_by(again))
        assert all(int(client.generation) > int(lost[0].generation) for client in again)
        for client in kept + carried_on:
            client.check()
        assert server.total("takeovers_total") >= len(carried_on)
    record.met("kill: other requests", asking.slowest, asking.statuses)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_the_disk_is_full(tmp_path: Path, report: Report) -> None:
    with placed("disk", tmp_path, report) as place, Asking(place.server) as asking:
        server, record = place.server, place.record
        (stored,) = begin(server, "answers", ["stored"], 1.0)
        stored.check()
        clients = begin(server, "answers", [f"running-{number}" for number in range(10)], 12.0)
        clients += begin(server, "files", [f"raw-{number}" for number in range(10)], 12.0)
        ballast = fill(place)
        full = time.monotonic()
        assert server.total("stalled") > 0
        _check_refusals(place, "disk")
        reading = Client(server, "stored", 1.0, "answers", begins=False)
        record.met("disk: a stored answer is read", timed(reading.check), reading.statuses)
        report(full_for=time.monotonic() - full)
        os.truncate(ballast, 0)
        room = time.monotonic()
        reply, _ = server.health()
        record.met("disk: room again, /health", reply.seconds, {reply.status})
        for client in clients:
            client.check()
        late = max(client.ended_at for client in clients) - (full + 12.0) - (room - full)
        record.met("disk: room in time, answers complete", late, met_by(clients))
        assert server.total("lost_total") == 0 and server.total("store_errors_total", operation="append") > 0

        clients = begin(server, "answers", [f"late-{number}" for number in range(10)], 60.0)
        ballast = fill(place)
        full = time.monotonic()
        victim = _replace_a_worker(place, "disk")
        here = sum(server.producer(client.name) != victim for client in clients)
        wait_until(lambda: all(client.statuses[503] or client.ending for client in clients), 2 * PATIENCE)
        refused = time.monotonic() - full
        record.met("disk: no room in time, viewers are refused", refused, met_by(clients))
        report(told_without_room=Counter(client.ending for client in clients))
        os.truncate(ballast, 0)
        room = time.monotonic()
        for client in clients:
            client.join()
            assert client.ending == "interrupted"
        told = max(client.ended_at for client in clients) - room
        record.met("disk: room at last, viewers are told interrupted", told, met_by(clients))
        # Of the living worker's; the counters of the other one went with it, but the store knows.
        wait_until(
            lambda: server.total("endings_total", status="interrupted") + server.total("lost_total") == here
        )
        wait_until(lambda: server.most("streams", status="interrupted") == len(clients))
        began = time.monotonic()
        again = begin(server, "answers", [client.name for client in clients], 1.0)
        for client in again:
            client.check()
        record.met("disk: begun anew, complete", time.monotonic() - began, met_by(again))
    record.met("disk: other requests", asking.slowest, asking.statuses)


def _check_refusals(place: Place, step: str) -> None:
    """Nothing can be begun, and /health says so."""
    reply = place.server.ask("/answers/new", "POST", "new 1.0")
    assert reply.status != 503 or int(reply.headers["retry-after"]) > 0
    place.record.met(f"{step}: a new stream", reply.seconds, {reply.status})
    reply, said = place.server.health()
    assert said["status"] == "failing" and said["step"] == "acquire", said
    place.record.met(f"{step}: /health", reply.seconds, {reply.status})


def _replace_a_worker(place: Place, step: str) -> int:
    """Kill one, whose process id this returns: another one takes its place, also now."""
    server = place.server
    victim = min(server.workers())
    os.kill(victim, signal.SIGKILL)
    seconds = wait_until(lambda: victim not in server.workers() and len(server.workers_that_answer()) == 2)
    place.record.met(f"{step}: a killed worker is replaced", seconds, {200})
    return victim


@pytest.mark.heavy
@pytest.mark.redis
@pytest.mark.timeout(600)
def test_redis_restarts(tmp_path: Path, report: Report) -> None:
    with placed("redis", tmp_path, report) as place, Asking(place.server) as asking:
        server, record = place.server, place.record
        assert place.redis is not None
        seconds = 20.0
        clients = begin(server, "answers", [f"running-{number}" for number in range(10)], seconds)
        clients += begin(server, "files", [f"raw-{number}" for number in range(10)], seconds)
        source_ends = time.monotonic() + seconds
        place.redis.stop()
        away = time.monotonic()
        _check_refusals(place, "redis")
        wait_until(lambda: time.monotonic() > away + 8.0)
        figures = server.figures()
        assert sum(each["stalled", ()] for each in figures) > 0
        assert not any(client.ending for client in clients)
        place.redis.start()
        back = time.monotonic()
        report(away_for=back - away)
        seconds = wait_until(lambda: server.health()[0].status == 200)
        record.met("redis: back, /health", seconds, {200})
        wait_until(lambda: all(client.times[-1] > back for client in clients))
        silence = max(min(each for each in client.times if each > back) for client in clients) - back
        record.met("redis: back, viewers go on", silence, met_by(clients))
        for client in clients:
            client.check()
        late = max(client.ended_at for client in clients) - source_ends - (back - away)
        record.met("redis: answers complete", late, met_by(clients))
        place.redis.stop()
        _replace_a_worker(place, "redis")
        place.redis.start()
        wait_until(lambda: server.health()[0].status == 200)
        (after,) = begin(server, "answers", ["after"], 1.0)
        after.check()
    record.met("redis: other requests", asking.slowest, asking.statuses)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@both
def test_the_metrics_are_scraped(kind: str, tmp_path: Path, report: Report) -> None:
    with placed(kind, tmp_path, report) as place:
        server, record = place.server, place.record
        assert len(server.figures()) == 2
        clients = begin(server, "answers", [f"answer-{number}" for number in range(20)], 1.0)
        for client in clients:
            client.check()
        seconds = wait_until(lambda: server.total("endings_total", status="done") == 20)
        assert server.total("bytes_total") == sum(len(client.expected) for client in clients)
        assert server.total("elections_total") == 20
        assert all(each["elections_total", ()] for each in server.figures())  # each has its share
        record.met("metrics: what was done", seconds)
        assert server.total("lost_total") == 0

        lost, *others = begin(server, "answers", ["lost", *(f"viewed-{number}" for number in range(9))], 60.0)
        seconds = wait_until(lambda: server.total("viewers") == 10)
        record.met("metrics: viewers", seconds)
        place.store.delete("lost")
        seconds = wait_until(lambda: server.total("lost_total") == 1)
        record.met("metrics: lost", seconds)
        lost.join()
        assert lost.ending == "lost"
        for client in others:
            place.store.cancel(client.name)
            client.join()
            assert client.ending == "cancelled"
        wait_until(lambda: server.total("endings_total", status="cancelled") == 9)
        wait_until(lambda: server.total("viewers") == 0)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["running", "silent"])
def test_the_viewers_are_many(name: str, tmp_path: Path, report: Report) -> None:
    with placed("sqlite", tmp_path, report) as place, contextlib.ExitStack() as connections:
        server, record = place.server, place.record
        assert server.ask(f"/answers/{name}").status == 404
        (first,) = begin(server, "answers", [name], 200.0)
        refused, followers, slowest = Counter[int](), 1, 0.0
        while followers < 96:  # each goes to whatever worker accepts it, also to one that has no place
            began = time.monotonic()
            connection = connections.enter_context(contextlib.closing(server.connect("GET", f"/answers/{name}")))
            response = connection.getresponse()
            slowest = max(slowest, time.monotonic() - began)
            if response.status == 200:
                followers += 1
            else:
                assert int(response.headers["Retry-After"]) == 5
                refused[response.status] += 1
        assert server.total("viewers") == 96 and server.most("viewers") == 48
        for _ in range(20):
            reply = server.ask(f"/answers/{name}")
            refused[reply.status] += 1
            slowest = max(slowest, reply.seconds)
            assert int(reply.headers["retry-after"]) == 5
        record.met("viewers: one more", slowest, refused)
        with Asking(server) as asking:
            wait_until(lambda: asking.statuses.total() > 100)
        record.met("viewers: other requests", asking.slowest, asking.statuses)
        connections.close()
        left = time.monotonic()
        wait_until(lambda: server.total("viewers") == 1)
        kind = "run" if name == "running" else "are silent"
        again = [Client(server, name, 200.0, "answers", begins=False) for _ in range(60)]
        for client in again:
            assert client.begun.wait(PATIENCE)
        statuses = Counter[int]({200: sum(client.statuses[200] for client in again)})
        record.met(f"viewers: places of streams that {kind}", time.monotonic() - left, statuses)
        assert not first.ending
        place.store.cancel(name)
        for client in [first, *again]:
            client.join()
            assert client.ending == "cancelled"
