"""Fenced writers of a shared stream in several processes that are killed, over replies that are lost (G12)."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter

import pytest

from resumable_sync import ResumableStreamContext, Status, open_store

from ...figures import Report
from ...support import Process
from .follower import Follower
from .places import Place

PROGRAMS = "tests.stores.faults.takeover_programs"
GRACE = 20.0
"""Seconds for which a writer tries a commit again."""
WRITERS = [("a", "b"), ("c", "d"), ("e", "f")]
"""Of each process."""


class Worker:
    """A process with two writers. What each has said to have stored is not lost by a kill."""

    def __init__(self, url: str, names: tuple[str, ...]) -> None:
        self._url = url
        self._names = names
        self._process = self._start()
        self.begun: Counter[str] = Counter()

    def _start(self) -> Process:
        return Process(PROGRAMS, "share", self._url, "s", GRACE, *self._names)

    def ready(self) -> None:
        """Both writers have begun."""
        for _ in self._names:
            name, count = self._process.until("began").split()
            assert int(count) >= self.begun[name], "an earlier count was forgotten"
            self.begun[name] = int(count)

    def kill(self) -> None:
        self._process.kill()
        self._process.__exit__(None, None, None)
        self._process = self._start()

    def end(self) -> dict[str, int]:
        """What each writer has stored."""
        self._process.say_no_more()
        found = {}
        for _ in self._names:
            name, count = self._process.until("count").split()
            found[name] = int(count)
        assert self._process.wait() == 0, self._process.stderr()
        return found

    def close(self) -> None:
        self._process.__exit__(None, None, None)


@pytest.mark.parametrize("seconds, kills", [(1.0, 2), pytest.param(60.0, 30, marks=pytest.mark.heavy)])
@pytest.mark.timeout(600)
def test_fenced_writers(seconds: float, kills: int, place: Place, report: Report) -> None:
    """Each message once, in each writer's order, in what a viewer got from the start and in what is stored."""
    rng = random.Random(3)
    done = 0
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(place.url, grace=GRACE))
        workers = [stack.enter_context(contextlib.closing(Worker(place.lossy_url, names))) for names in WRITERS]
        for worker in workers:
            worker.ready()
        follower = Follower(store, "s")
        began = time.monotonic()
        while time.monotonic() - began < seconds or done < kills:
            threading.Event().wait(rng.uniform(0, 2 * seconds / kills))
            victim = rng.choice(workers)
            victim.kill()
            done += 1
            victim.ready()
        counts: dict[str, int] = {}
        for worker in workers:
            counts |= worker.end()
        with ResumableStreamContext(store) as context:
            context.shared_writer("s", "end").end()
        follower.join()
        assert follower.error is None
        data = b"".join(piece for piece in ResumableStreamContext(store).require_resume("s"))
        assert bytes(follower.data) == data
        lines = data.decode().splitlines()
        for name, count in counts.items():
            assert [line for line in lines if line.startswith(name)] == [f"{name}:{n}" for n in range(count)]
        assert len(lines) == sum(counts.values()) and len(counts) == 6
        info = store.info("s")
        assert info is not None and info.status is Status.DONE and info.entries == len(lines)
        store.delete("s")
    report(kills=done, messages=len(lines), cuts=sum(proxy.cuts for proxy in place.proxies))
