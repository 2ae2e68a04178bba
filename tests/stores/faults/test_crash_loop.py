"""A job that kills its process must not go from worker to worker (G7)."""

from __future__ import annotations

import contextlib
import signal
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
        # Those die that were given a lease, also one that was superseded while it waited for its turn. A process
        # can be waited for only after its lock is free, by which its stream was seen to be interrupted.
        for worker in workers:
            worker.say_no_more()
        codes = {worker.pid: worker.wait() for worker in workers}
        died = sorted(pid for pid, code in codes.items() if code != 0)
        assert {codes[pid] for pid in died} == {-signal.SIGKILL}, [worker.stderr() for worker in workers]
        assert sorted(map(int, log.read_text().split())) == died and len(died) >= terms
        info = store.info("loop")
        assert info is not None and (info.status, info.term) == (Status.INTERRUPTED, terms)
