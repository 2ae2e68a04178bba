"""Many processes at once: elections, and writers (G1, G4)."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process
from .conftest import Report
from .follower import Follower
from .rounds import rounds
from .source import text

PROGRAMS = "tests.stores.faults.programs"
CLAIMANTS = 16
WRITERS = 8


@rounds(30, 1000)
def test_claimants(rounds: int, path: Path, report: Report) -> None:
    """Of 16 processes that race for an id one wins: a new id, a deleted one, an expired one."""
    store = SQLiteStore(path, max_streams=1_000_000)
    worst = 0.0
    with contextlib.ExitStack() as stack:
        claimants = [stack.enter_context(Process(PROGRAMS, "race", path)) for _ in range(CLAIMANTS)]
        for claimant in claimants:
            claimant.until("ready")
        for number in range(rounds):
            stream_id = f"race-{number // 3}"
            if number % 3 == 1:
                assert store.delete(stream_id)
            elif number % 3 == 2:
                assert store.delete(stream_id)
                short = store.acquire(stream_id, ttl=0.001)
                assert short is not None
            at = time.monotonic() + 0.02
            for claimant in claimants:
                claimant.say(f"{stream_id} {at}")
            results = [claimant.line() for claimant in claimants]
            worst = max(worst, time.monotonic() - at)
            assert sorted(results) == ["lost"] * (CLAIMANTS - 1) + ["won"], (number, results)
    store.close()
    report(rounds=rounds, worst_until_all_answered=worst)


def test_claimants_create_the_file(path: Path) -> None:
    """16 processes that find no file make one, and one of them is elected."""
    with contextlib.ExitStack() as stack:
        claimants = [stack.enter_context(Process(PROGRAMS, "race", path)) for _ in range(CLAIMANTS)]
        at = time.monotonic() + 1
        for claimant in claimants:
            claimant.say(f"first {at}")
        results = []
        for claimant in claimants:
            claimant.until("ready")
            results.append(claimant.line())
        assert sorted(results) == ["lost"] * (CLAIMANTS - 1) + ["won"]


@rounds(100, 2000)
def test_writer_processes(rounds: int, path: Path, report: Report) -> None:
    """8 writing processes (`rounds` transactions each) have no error; readers here and elsewhere get it all."""
    store = SQLiteStore(path)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(Process(PROGRAMS, "write", path, f"w{i}", rounds, i)) for i in range(WRITERS)
        ]
        for writer in writers:
            writer.until("acquired")
        here = [Follower(store, f"w{i}") for i in range(WRITERS)]
        elsewhere = [stack.enter_context(Process(PROGRAMS, "follow", path, f"w{i}")) for i in range(WRITERS // 2)]
        for reader in elsewhere:
            reader.until("following")
        began = time.monotonic()
        for writer in writers:
            writer.say("go")
        sizes = []
        worst = 0.0
        for writer in writers:
            size, errors, slowest = writer.until("wrote", timeout=600).split()
            assert errors == "0"
            sizes.append(int(size))
            worst = max(worst, float(slowest))
        took = time.monotonic() - began
        for follower, total in zip(here, sizes):
            follower.join()
            assert follower.error is None and len(follower.data) == total
        for reader, total in zip(elsewhere, sizes):
            _, got, ending = reader.until("ended").split()
            assert (int(got), ending) == (total, "done")
    for follower in here:
        assert bytes(follower.data) == text(0, len(follower.data))
    assert store.check() == []
    store.close()
    report(transactions=WRITERS * rounds, seconds=took, slowest_append=worst)
