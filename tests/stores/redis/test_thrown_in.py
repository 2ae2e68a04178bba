"""Exceptions that signal handlers throw in cost no connection: calls can be repeated, others go on."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable

import pytest

from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired, drain

from ...support import PATIENCE
from ...thrown import Thrown, broken_off, in_thread
from .conftest import OpenStore


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what was opened when the exception came
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("call", ["append", "commit", "read", "info"])
def test_an_exception_thrown_in_anywhere(
    call: str, open_store: OpenStore, alarms: Callable[[float], object]
) -> None:
    store: RedisStore = open_store(timeout=2.0, grace=60.0)
    lease, others = acquired(store, "s"), acquired(store, "others")
    assert store.create("shared")
    store.append(lease, b"first ")
    want = b"first "
    calls: dict[str, Callable[[int], object]] = {
        "append": lambda number: store.append(lease, b"%d " % number),
        "commit": lambda number: store.commit("shared", notes={"last": str(number)}),
        "read": lambda number: store.read("s"),
        "info": lambda number: store.info("s"),
    }
    failed: list[BaseException] = []
    done = threading.Event()

    def go_on(step: Callable[[], object]) -> None:
        try:
            while not done.is_set():
                step()
                done.wait(0.001)
        except BaseException as error:
            failed.append(error)

    steps = (
        lambda: store.append(others, b"x"),
        lambda: store.commit("shared", b"x"),
        lambda: store.read("others", timeout=0.001),
    )
    besides = [in_thread(functools.partial(go_on, step)) for step in steps]
    rng, hits, number = random.Random(call), 0, 0
    until = time.monotonic() + 2.0
    while time.monotonic() < until or hits < 50:
        number += 1
        before = lease.offset
        for error in broken_off(
            functools.partial(calls[call], number), alarms, rng, lambda: lease.offset > before
        ):
            assert isinstance(error, Thrown), error
            hits += 1
        if call == "append":
            want += b"%d " % number
    alarms(0)
    done.set()
    for beside in besides:
        beside.join(PATIENCE)
        assert not beside.is_alive()
    assert failed == []
    process = store._processes.get()
    for link in process.writes, process.reads:
        assert all(node.open == len(node._idle) for node in link._nodes.values())
    for _ in range(5):
        calls[call](number + 1) if call != "append" else store.renew([lease])
    assert drain(store, "s")[0] == want
