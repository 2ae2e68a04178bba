"""A job that kills its process must not go from worker to worker (G7)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from resumable_sync import ProducerInterruptedError, Status, open_store

from ...support import Process, wait_until
from .follower import Follower

PROGRAMS = "tests.stores.faults.takeover_programs"
GRACE = 1.0
WORKERS = 5


@pytest.mark.parametrize("stored", [0, 2], ids=["at once", "after two chunks"])
def test_a_job_that_kills_its_process(stored: int, url: str, tmp_path: Path) -> None:
    """Three terms in a row that store nothing, each in another process; then it is `interrupted`."""
    log = tmp_path / "log"
    log.touch()
    terms = 3 + bool(stored)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Process(PROGRAMS, "crash", url, "loop", GRACE, log, stored))
            for _ in range(WORKERS)
        ]
        for worker in workers:
            worker.until("ready")
        store = stack.enter_context(open_store(url, grace=GRACE))
        workers[0].say("begin")
        wait_until(lambda: store.status("loop") is not Status.MISSING)
        follower = Follower(store, "loop")
        follower.join()
        assert isinstance(follower.error, ProducerInterruptedError) and follower.data == b"x" * stored
        info = store.info("loop")
        assert info is not None and (info.status, info.term) == (Status.INTERRUPTED, terms)
        died = [worker for worker in workers if worker.popen.poll() is not None]
        assert sorted(map(int, log.read_text().split())) == sorted(worker.pid for worker in died)
        # One that had to wait for its turn beyond the grace was superseded meanwhile, and dies all the same.
        assert len(died) >= terms
        for worker in workers:
            if worker not in died:
                worker.say_no_more()
                assert worker.wait() == 0, worker.stderr()
        assert len(log.read_text().split()) == len(died)
