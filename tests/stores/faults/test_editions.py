"""Workers of edition 1 and of this one on one store, killed and frozen: a rolling deploy (G1, G5, G7, G11)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import Status, open_store

from ...figures import Report
from ...support import PATIENCE, ROOT, read_records, wait_until
from ..redis.server import shared_server
from .edition_worker import text
from .frozen import holds_the_file

WHEEL = ROOT / "tests" / "data" / "edition_1" / "resumable_sync-0.1.0-py3-none-any.whl"
WORKER = Path(__file__).with_name("edition_worker.py")
GRACE = 2.0
EDITIONS = ["old", "old", "new", "new"]
"""Of the workers, in the order in which they begin."""


class Worker:
    """A process of one edition."""

    def __init__(self, edition: str, url: str, prefix: str, log: Path, seed: int) -> None:
        self.edition = edition
        self._errors = log.with_name(f"errors-{log.name}").open("w+")
        self.popen = subprocess.Popen(
            [sys.executable, WORKER, edition, url, prefix, str(GRACE), log, str(seed)],
            env={**os.environ, "PYTHONPATH": str(WHEEL if edition == "old" else ROOT)},
            cwd=log.parent,  # away from this edition's package
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def hears(self, word: str) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == f"{word}\n", self.errors()

    def says(self, text: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(text)
        self.popen.stdin.flush()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(PATIENCE)
        assert self.popen.stdout is not None and self.popen.stdin is not None
        self.popen.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        self._errors.close()


class Workers:
    """Those that run. `hurt` has the process ids of all that may have lost their streams."""

    def __init__(self, url: str, prefix: str, directory: Path) -> None:
        self._url, self._prefix, self._directory = url, prefix, directory
        self._random = random.Random(5)
        self._running: list[Worker] = []
        self._started = 0
        self.hurt: set[int] = set()
        self.counts: Counter[str] = Counter()

    def start(self, edition: str) -> None:
        self._started += 1
        log = self._directory / f"log-{self._started}"
        worker = Worker(edition, self._url, self._prefix, log, self._started)
        self._running.append(worker)
        worker.hears("ready")

    def events(self) -> list[dict[str, Any]]:
        return read_records(self._directory, "log-*")

    def disturb(self) -> None:
        victim = self._random.choice(self._running)
        pid = victim.popen.pid
        self.hurt.add(pid)
        if self._random.random() < 0.6:
            victim.popen.kill()
            self._running.remove(victim)
            victim.__exit__()
            self.counts[f"killed_{victim.edition}"] += 1
            self.start(victim.edition)
        else:
            victim.popen.send_signal(signal.SIGSTOP)
            file = Path(self._url.removeprefix("sqlite:///"))
            if self._url.startswith("sqlite:") and holds_the_file(file):
                # Within a transaction: nobody can renew meanwhile.
                self.hurt |= {worker.popen.pid for worker in self._running}
            threading.Event().wait(self._random.choice((0.2, 0.2, GRACE + 0.5)))
            victim.popen.send_signal(signal.SIGCONT)
            self.counts[f"frozen_{victim.edition}"] += 1

    def rest(self) -> None:
        """They begin nothing more, and viewers leave."""
        for worker in self._running:
            worker.says("\n")

    def hear_over(self) -> None:
        for worker in self._running:
            worker.hears("over")

    def end(self) -> None:
        for worker in self._running:
            assert worker.popen.stdin is not None
            worker.popen.stdin.close()
            assert worker.popen.wait(PATIENCE) == 0, worker.errors()
            assert "Traceback" not in worker.errors(), worker.errors()

    def __enter__(self) -> Workers:
        for edition in EDITIONS:
            self.start(edition)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._running:
            worker.__exit__()


def _running(store: Any, workers: Workers) -> bool:
    """Whether a stream runs that comes to an end. Shared ones whose writers were lost are cancelled, and count."""
    running = [info for info in store.streams() if info.status is Status.STREAMING]
    for info in running:
        if info.shared and int(info.stream_id.split("-")[2]) in workers.hurt:
            store.cancel(info.stream_id)
    return bool(running)


HEAVY = [pytest.mark.heavy, pytest.mark.timeout(600)]


@pytest.mark.parametrize("seconds", [pytest.param(3.0, id="brief"), pytest.param(60.0, id="heavy", marks=HEAVY)])
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_both_editions_at_work(kind: str, seconds: float, tmp_path: Path, report: Report) -> None:
    """No wrong byte, no living stream that is ended, and nobody refused but by a cancel or after a loss."""
    prefix = f"editions-{tmp_path.name}" if kind == "redis" else ""
    url = shared_server().url if kind == "redis" else f"sqlite:///{tmp_path}/both.db"
    options: dict[str, Any] = {"prefix": prefix} if prefix else {}
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(Workers(url, prefix, tmp_path))
        store: Any = stack.enter_context(open_store(url, grace=GRACE, **options))
        began = time.monotonic()

        def takeovers() -> int:
            return sum(info.term > 1 for info in store.streams())

        while time.monotonic() - began < seconds or not takeovers():
            assert time.monotonic() - began < seconds + PATIENCE, "nothing was taken over"
            threading.Event().wait(0.3)
            workers.disturb()
        workers.rest()
        wait_until(lambda: not _running(store, workers), what="all ended")
        workers.hear_over()
        workers.end()
        infos = {info.stream_id: info for info in store.streams()}
        stored = {name: store.read(name, max_bytes=1 << 20).data for name in infos}
        assert store.check() == []
        store.clear()
    events = workers.events()
    workers.hurt |= {event["pid"] for event in events if event["kind"] == "late"}
    assert not [event for event in events if event["kind"] == "fault"]
    cancels = {event["id"] for event in events if event["kind"] == "cancel"}
    begun = {event["id"]: event for event in events if event["kind"] == "begun"}
    statuses: Counter[str] = Counter()
    for name, info in infos.items():
        event = begun[name]
        assert stored[name] == text(name, 0, info.size)
        statuses[f"{event['edition']}_{event['how']}_{info.status}"] += 1
        if info.status is Status.DONE:
            assert info.size == event["size"], info
        elif info.status is Status.CANCELLED:
            assert name in cancels or info.shared
        elif info.status is Status.INTERRUPTED:
            # Of edition 1, or without a handover, and its producer was lost; or it was lost before it stored
            # anything, three times.
            lost = event["how"] == "plain" and event["pid"] in workers.hurt
            assert lost or (info.size == 0 and info.term >= 3), (info, event)
        else:
            raise AssertionError(info)
    for event in events:
        if event["kind"] == "ended":
            info = infos[event["id"]]
            assert (event["how"], event["size"]) == (info.status, info.size), (event, info)
        elif event["kind"] == "error":
            assert event["id"] in cancels or event["pid"] in workers.hurt, event
    report(seconds=seconds, takeovers=sum(info.term > 1 for info in infos.values()), **workers.counts, **statuses)
