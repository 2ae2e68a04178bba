"""Commits that meet on their way to a server share a trip; a lost reply means for each what it means alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from types import FrameType

import pytest

from resumable_sync.errors import ConflictError, StoreUnavailableError, StreamLostError, StreamNotFoundError
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import call, drain

from ...support import PATIENCE, wait_until
from .conftest import OpenStore
from .proxy import CuttingProxy
from .server import RedisServer
from .test_sentinel import confirms

MARK = b"piece:"  # of what is watched; no script has it


class Way:
    """The way to the server. It stops the first trip, so that commits come to wait, and counts them."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.go_on = threading.Event()
        self.trips: list[bytes] = []
        self.cut_replies = 0
        self.whole_replies = 0  # of the trip that is cut
        self.closed = False  # to let nothing stop

    def __call__(self, kind: str, piece: bytes) -> str | bytes:
        if self.closed or not (MARK in piece or kind == "reply"):
            return "pass"
        if kind == "request":
            self.trips.append(piece)
            if len(self.trips) == 1:
                self.stopped.set()
                assert self.go_on.wait(PATIENCE)
        elif self.cut_replies and len(self.trips) == 2:
            self.cut_replies -= 1
            return b"*3".join(piece.split(b"*3")[: self.whole_replies + 1])
        return "pass"


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
def far(server: RedisServer, open_store: OpenStore, way: Way) -> Iterator[RedisStore]:
    proxy = CuttingProxy(server.port, way)
    far = open_store(f"redis://127.0.0.1:{proxy.port}/0", grace=30.0)
    assert far.create("s") and far.create("t")
    far.commit("t", b"known")  # the server has the script, and the store a connection
    yield far
    way.closed = True
    way.go_on.set()
    far.close()
    proxy.close()


def together(far: RedisStore, way: Way, *commits: Callable[[], str]) -> list[Future[str]]:
    """The first is on its way while the others come to wait for it."""
    first = call(commits[0])
    assert way.stopped.wait(PATIENCE)
    calls = [first]
    queue = far._processes.get().commits_to("")._queue
    for commit in commits[1:]:
        calls.append(call(commit))
        wait_until(lambda: len(queue) == len(calls) - 1)
    way.go_on.set()
    return calls


def test_they_share_a_trip(far: RedisStore, way: Way) -> None:
    calls = together(
        far, way, *[lambda number=number: far.commit("s", b"piece:%d " % number) for number in range(9)]
    )
    cursors = [each.result(PATIENCE) for each in calls]
    assert len(way.trips) == 2 and way.trips[1].count(MARK) == 8
    assert len(set(cursors)) == 9 and sorted(cursors, key=lambda cursor: int(cursor.split("-")[1])) == cursors
    assert drain(far, "s")[0] == b"".join(b"piece:%d " % number for number in range(9))


def test_each_has_an_outcome_of_its_own(far: RedisStore, way: Way) -> None:
    _, wins, loses, missing, last, late = together(
        far,
        way,
        lambda: far.commit("t", MARK),
        lambda: far.commit("s", b"piece:1", expect={"n": None}, notes={"n": "1"}),
        lambda: far.commit("s", b"piece:2", expect={"n": None}, notes={"n": "2"}),
        lambda: far.commit("nowhere", b"piece:3"),
        lambda: far.commit("s", b"piece:4", ending="done"),
        lambda: far.commit("s", b"piece:5"),
    )
    assert wins.result(PATIENCE) and last.result(PATIENCE)
    with pytest.raises(ConflictError):
        loses.result(PATIENCE)
    with pytest.raises(StreamNotFoundError):
        missing.result(PATIENCE)
    assert "has ended" in str(late.exception(PATIENCE))
    assert drain(far, "s")[0] == b"piece:1piece:4"


def test_a_lost_reply_is_for_each_what_it_is_alone(far: RedisStore, way: Way) -> None:
    """A fenced commit is repeated and stored once; of another one nobody knows, and it is not repeated."""
    way.cut_replies = 1
    _, fenced, plain, other = together(
        far,
        way,
        lambda: far.commit("t", MARK),
        lambda: far.commit("s", b"piece:1 ", expect={"n": None}, notes={"n": "1"}),
        lambda: far.commit("s", b"piece:2 "),
        lambda: far.commit("s", b"piece:3 ", expect={"m": None}, notes={"m": "1"}),
    )
    assert fenced.result(PATIENCE) and other.result(PATIENCE)
    with pytest.raises(StoreUnavailableError) as told:
        plain.result(PATIENCE)
    assert told.value.fate_unknown
    assert way.cut_replies == 0
    assert drain(far, "s")[0] == b"piece:1 piece:2 piece:3 "


def test_a_reply_that_came_before_the_cut_stands(far: RedisStore, way: Way) -> None:
    way.cut_replies, way.whole_replies = 1, 2
    _, first, fenced, last = together(
        far,
        way,
        lambda: far.commit("t", MARK),
        lambda: far.commit("s", b"piece:1 "),
        lambda: far.commit("s", b"piece:2 ", expect={"n": None}, notes={"n": "1"}),
        lambda: far.commit("s", b"piece:3 "),
    )
    assert first.result(PATIENCE) and fenced.result(PATIENCE)
    with pytest.raises(StoreUnavailableError) as told:
        last.result(PATIENCE)
    assert told.value.fate_unknown
    assert way.cut_replies == 0 and len(way.trips) == 2
    assert drain(far, "s")[0] == b"piece:1 piece:2 piece:3 "


def test_a_damaged_stream_fails_its_own_commit_alone(
    server: RedisServer, prefix: str, far: RedisStore, way: Way
) -> None:
    assert far.create("damaged", ending="done")
    server.command("HSET", f"{prefix}:{{damaged}}:meta", "status", "nonsense")
    _, before, damaged, after = together(
        far,
        way,
        lambda: far.commit("t", MARK),
        lambda: far.commit("s", b"piece:1 "),
        lambda: far.commit("damaged", b"piece:2 "),
        lambda: far.commit("s", b"piece:3 "),
    )
    assert before.result(PATIENCE) and after.result(PATIENCE)
    with pytest.raises(StreamLostError, match="damaged"):
        damaged.result(PATIENCE)
    assert drain(far, "s")[0] == b"piece:1 piece:3 "


def test_a_signal_handler_commits_while_its_thread_is_on_its_way(far: RedisStore, way: Way) -> None:
    def commit(number: int, frame: FrameType | None) -> None:
        inner.append(far.commit("s", b"inner"))
        way.go_on.set()

    def interrupt() -> None:
        assert way.stopped.wait(PATIENCE)
        signal.pthread_kill(main, signal.SIGUSR1)

    inner: list[str] = []
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, commit)
    try:
        interrupted = call(interrupt)
        assert far.commit("t", MARK)
        interrupted.result(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(inner) == 1 and drain(far, "s")[0] == b"inner"


def test_who_waits_for_others_replicas_has_the_patience_for_it() -> None:
    """The trip before takes longer than `timeout`, in which a server is to answer, but not longer than its
    replicas may take beside."""
    delay = ("--repl-diskless-sync-delay", "0")
    with (
        RedisServer(*delay) as primary,
        RedisServer(*delay, "--replicaof", "127.0.0.1", str(primary.port)) as replica,
    ):
        wait_until(lambda: confirms(primary), what="the replica answers")
        with RedisStore.from_url(primary.url, timeout=0.5, wait_replicas=(1, PATIENCE)) as store:
            assert store.create("s") and store.commit("s", b"0")  # the server has the script
            rows = primary.command("XLEN", "resumable:{s}:log")
            replica.signal(signal.SIGSTOP)
            calls = [call(store.commit, "s", b"1")]
            wait_until(lambda: primary.command("XLEN", "resumable:{s}:log") > rows)
            calls += [call(store.commit, "s", b"x") for _ in range(3)]
            assert wait([calls[1]], 0.8).not_done  # longer than the timeout
            replica.signal(signal.SIGCONT)
            for each in calls:
                assert each.result(PATIENCE)
            assert drain(store, "s")[0] == b"01xxx"
