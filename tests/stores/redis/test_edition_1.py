"""Workers of 0.1.0 and of this edition on one Redis: streams with a handover, shared streams, and old streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from resumable_sync.contract import Status
from resumable_sync.errors import LeaseLostError
from resumable_sync.testing.kit import acquired, drain, known

from ...support import PATIENCE, wait_until
from ..contract.test_edition_1 import EDITION_1, WHEEL
from .conftest import OpenStore
from .server import RedisServer

PROGRAM = """
import json, sys
import resumable_sync
from resumable_sync.stores.redis import RedisStore
assert resumable_sync.__version__ == "0.1.0", resumable_sync.__file__
store = RedisStore.from_url(sys.argv[1], prefix=sys.argv[2], grace=float(sys.argv[3]))
leases = {}
for line in sys.stdin:
    name, *arguments = json.loads(line)
    if name == "acquire":
        lease = store.acquire(*arguments)
        if lease is not None:
            leases[lease.stream_id] = lease
        answer = lease and lease.generation
    elif name == "append":
        answer = store.append(leases[arguments[0]], arguments[1].encode())
    elif name == "read":
        batch = store.read(arguments[0], arguments[1], timeout=arguments[2])
        answer = [batch.data.decode(), batch.cursor, batch.status.value]
    elif name == "info":
        info = store.info(arguments[0])
        answer = info and [info.status.value, info.size]
    elif name == "streams":
        answer = [[info.stream_id, info.status.value] for info in store.streams()]
    else:
        answer = getattr(store, name)(*arguments)
    print(json.dumps(answer), flush=True)
store.close()
"""


class Old:
    """A store of edition 1 in a process of its own."""

    def __init__(self, url: str, prefix: str, grace: float = 3.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, prefix, str(grace)],
            env={**os.environ, "PYTHONPATH": str(WHEEL)},
            cwd=EDITION_1,  # away from this edition's package
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Old:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(PATIENCE)


@pytest.fixture
def old(server: RedisServer, prefix: str) -> Any:
    with Old(server.url, prefix) as process:
        yield process


def test_an_old_worker_leaves_a_stream_in_its_handover_alone(
    old: Old, server: RedisServer, prefix: str, open_store: OpenStore
) -> None:
    store = open_store(grace=0.05)
    lease = store.acquire("s", handover=60.0)
    assert lease is not None
    store.append(lease, b"abc", notes={"n": "1"})
    wait_until(lambda: not known(store, "s").producer_alive)
    assert old("info", "s") == ["streaming", 3] and old("streams") == [["s", "streaming"]]
    assert old("acquire", "s") is None and old("sweep") == 0
    assert old("read", "s", "", 0.0) == ["abc", lease.cursor, "streaming"]
    assert old("read", "s", lease.cursor, 0.3)[2] == "streaming"
    taken = store.take_over("s", lease.generation)
    assert taken is not None
    store.append(taken, b"def")
    assert old("read", "s", lease.cursor, PATIENCE) == ["def", taken.cursor, "streaming"]
    assert old("cancel", "s") and not old("cancel", "s")
    assert known(store, "s").status is Status.CANCELLED and known(store, "s").notes == {"n": "1"}
    assert list(store.orphans()) == []


def test_an_old_worker_ends_it_once_its_handover_is_over(old: Old, open_store: OpenStore) -> None:
    store = open_store(grace=0.05)
    lease = store.acquire("s", handover=0.2)
    assert lease is not None
    wait_until(lambda: old("info", "s") == ["interrupted", 0])
    assert store.take_over("s", lease.generation) is None and list(store.orphans()) == []
    released = store.acquire("t", handover=0.2)
    assert released is not None
    store.release(released)
    assert old("info", "t") == ["streaming", 0]
    wait_until(lambda: old("info", "t") == ["interrupted", 0])


def test_an_old_worker_begins_an_id_anew(old: Old, open_store: OpenStore) -> None:
    """G4: the lease of this edition, and what it left in the index of orphans, are over."""
    store = open_store(grace=0.05)
    lease = store.acquire("s", handover=60.0)
    assert lease is not None and old("delete", "s")
    assert old("acquire", "s") > lease.generation
    with pytest.raises(LeaseLostError):
        store.append(lease, b"x")
    assert old("append", "s", "abc").endswith("-3")
    info = known(store, "s")
    assert info.producer_alive and info.handover == 0 and info.term == 1 and not info.notes
    assert list(store.orphans()) == []


def test_a_stream_of_an_old_worker_is_never_taken_over(old: Old, open_store: OpenStore) -> None:
    store = open_store()
    generation = old("acquire", "s")
    old("append", "s", "abc")
    assert store.take_over("s", generation) is None
    store.commit("s", notes={"n": "of a new worker"})
    with pytest.raises(LeaseLostError):
        store.commit("s", b"x")
    assert old("append", "s", "def").endswith("-6") and store.touch("s")
    assert known(store, "s").notes == {"n": "of a new worker"} and old("info", "s") == ["streaming", 6]
    assert store.cancel("s")
    assert old("info", "s") == ["cancelled", 6]


def test_an_old_worker_reads_a_shared_stream_and_never_ends_it_unasked(
    old: Old, server: RedisServer, prefix: str, open_store: OpenStore
) -> None:
    store = open_store(grace=0.05)
    info = store.create("s", b"abc", ttl=100.0, notes={"n": "1"})
    assert info is not None
    with Old(server.url, prefix, grace=0.05) as hasty:
        for each in (old, hasty):
            assert each("info", "s") == ["streaming", 3] and each("sweep") == 0
            assert each("acquire", "s") is None
            assert each("read", "s", "", 0.0) == ["abc", f"{info.generation}-3", "streaming"]
    store.commit("s", b"def", expect={"n": "1"}, notes={"n": "2 x"})
    assert old("read", "s", f"{info.generation}-3", PATIENCE)[0] == "def"
    store.commit("s", b"ghi", ending="done")
    assert old("read", "s", f"{info.generation}-6", PATIENCE)[0] == "ghi"
    assert old("read", "s", f"{info.generation}-9", PATIENCE)[2] == "done"
    assert store.create("t", b"abc") is not None and old("cancel", "t")
    assert known(store, "t").status is Status.CANCELLED
    assert old("delete", "t") and store.create("t", b"again") is not None
    assert drain(store, "t")[0] == b"again"


def test_an_old_worker_that_closes_ends_only_what_is_its_own(
    server: RedisServer, prefix: str, open_store: OpenStore
) -> None:
    store = open_store(grace=3.0)
    with Old(server.url, prefix) as process:
        assert process("acquire", "mine")
        lease = acquired(store, "s")
        assert store.create("shared") is not None
        assert len(process("streams")) == 3
    assert store.status("mine") is Status.INTERRUPTED
    assert store.append(lease, b"x") and store.commit("shared", b"x")
