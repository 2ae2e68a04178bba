"""G3, G11, G12: replies of takeovers, releases and commits are lost, while somebody else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from resumable_sync.contract import Status
from resumable_sync.errors import (
    ConflictError,
    LeaseLostError,
    LimitExceededError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamNotFoundError,
)
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import call, drain, known

from ...support import PATIENCE, wait_until
from .conftest import OpenStore
from .proxy import CuttingProxy
from .server import RedisServer, claim_port


class Loss:
    """Loses the next piece of a kind that holds `within`, and does something before its sender learns of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _next
        self._next: tuple[str, bytes, Callable[[], object]] | None = None

    def lose(self, kind: str, meanwhile: Callable[[], object] = lambda: None, *, within: bytes = b"") -> None:
        with self._lock:
            assert self._next is None
            self._next = (kind, within, meanwhile)

    @property
    def over(self) -> bool:
        with self._lock:
            return self._next is None

    def __call__(self, kind: str, piece: bytes) -> str:
        with self._lock:
            if self._next is None or self._next[0] != kind or self._next[1] not in piece:
                return "pass"
            meanwhile = self._next[2]
            self._next = None
        meanwhile()
        return "cut"


def _arguments(*choices: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return choices


@pytest.fixture
def loss() -> Loss:
    return Loss()


@pytest.fixture
def far(server: RedisServer, open_store: OpenStore, store: RedisStore, loss: Loss) -> Iterator[RedisStore]:
    """A store whose replies may be lost, but for those of the index. The server knows its scripts, and it has a
    connection that is not the first."""
    proxy = CuttingProxy(server.port, loss)
    far = open_store(f"redis://127.0.0.1:{proxy.port}/0", grace=30.0)
    far._processes.get().index = store._processes.get().index
    lease = far.acquire("known", handover=60.0)
    assert lease is not None and far.take_over("known", lease.generation) is None
    far.append(lease, b"x", notes={"a": "b"})
    assert far.renew([lease]) == [None]
    far.release(lease)
    assert far.create("known.shared") is not None and far.touch("known.shared")
    lease = far.acquire("known.ended")
    assert lease is not None
    far.finalize(lease, "done")
    far.commit("known.shared", notes={"a": "b"})
    yield far
    assert loss.over
    far.close()
    proxy.close()


def orphan(store: RedisStore, stream_id: str, *chunks: bytes) -> int:
    """A stream that waits to be taken over; its generation."""
    lease = store.acquire(stream_id, handover=60.0)
    assert lease is not None
    if chunks:
        store.append(lease, *chunks)
    store.release(lease)
    return lease.generation


def test_a_takeover_is_answered_as_the_first_time(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    generation = orphan(store, "s", b"abc")
    loss.lose("reply")
    lease = far.take_over("s", generation)
    assert lease is not None and (lease.offset, lease.term, lease.handover) == (3, 2, 60.0)
    assert lease.ttl == known(store, "s").ttl and known(store, "s").term == 2
    far.append(lease, b"def")
    assert store.read("s").data == b"abcdef"
    assert store.take_over("s", generation) is None


def test_a_takeover_that_ended_before_its_reply_came(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    generation = orphan(store, "s", b"abc")
    loss.lose("reply", lambda: store.cancel("s"))
    lease = far.take_over("s", generation)
    assert lease is not None and lease.offset == 3
    with pytest.raises(StreamFinalizedError):
        far.append(lease, b"def")


def test_a_takeover_whose_request_was_lost_is_somebody_elses(
    far: RedisStore, store: RedisStore, loss: Loss
) -> None:
    generation = orphan(store, "s", b"abc")
    loss.lose("request", lambda: store.take_over("s", generation))
    assert far.take_over("s", generation) is None
    assert known(store, "s").term == 2


def test_a_release_is_answered_as_the_first_time(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    lease = far.acquire("s", handover=60.0)
    assert lease is not None
    far.append(lease, b"abc")
    loss.lose("reply")
    far.release(lease)
    assert list(store.orphans()).count("s") == 1
    ended = far.acquire("t")
    assert ended is not None
    loss.lose("reply")
    far.release(ended)
    assert store.status("t") is Status.INTERRUPTED


def test_an_election_is_answered_as_the_first_time(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    loss.lose("reply")
    lease = far.acquire("s", handover=60.0)
    assert lease is not None
    assert far.append(lease, b"x") and store.acquire("s", handover=60.0) is None


def test_a_creation_is_answered_as_the_first_time(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    loss.lose("reply", lambda: store.commit("s", b" second"))
    info = far.create("s", b"first", notes={"n": "1"})
    assert info is not None and info.shared and info.notes == {"n": "1"}
    assert store.read("s").data == b"first second"
    assert far.create("s", b"other") is None


@pytest.mark.parametrize("ending", [None, "done"])
@pytest.mark.parametrize("by", ["nobody", "another writer", "its ending", "a cancel"])
def test_a_fenced_commit_is_stored_once(
    far: RedisStore, store: RedisStore, loss: Loss, by: str, ending: str | None
) -> None:
    """Its cursor is the one after its own chunks, also where somebody has gone on, or ended the stream."""
    made = store.create("s", b"0", notes={"w": "0 x"})
    assert made is not None

    def meanwhile() -> None:
        if by == "another writer" and ending is None:
            store.commit("s", b"another's")
        elif by == "its ending" and ending is None:
            store.commit("s", b"last", ending="error", error="e")
        elif by == "a cancel":
            store.cancel("s")

    loss.lose("reply", meanwhile)
    cursor = far.commit("s", b"12", b"3", expect={"w": "0 x"}, notes={"w": "3 y", "other": "o"}, ending=ending)
    assert cursor == f"{made.generation}-4"
    data, last = drain(store, "s")
    assert data.startswith(b"0123") and data.count(b"123") == 1
    assert known(store, "s").notes == {"w": "3 y", "other": "o"}
    if ending is not None:
        assert last.status is Status.DONE


def test_an_equal_value_of_another_writer_is_not_taken_for_ours(
    far: RedisStore, store: RedisStore, loss: Loss
) -> None:
    assert store.create("s", notes={"n": "1"})
    loss.lose("request", lambda: store.commit("s", b"theirs", expect={"n": "1"}, notes={"n": "2"}))
    with pytest.raises(StoreUnavailableError) as caught:
        far.commit("s", b"ours", expect={"n": "1"}, notes={"n": "2"})
    assert caught.value.fate_unknown and isinstance(caught.value.__cause__, ConflictError)
    assert store.read("s").data == b"theirs"
    with pytest.raises(ConflictError) as conflict:
        far.commit("s", b"ours", expect={"n": "1"}, notes={"n": "2"})
    assert conflict.value.notes == {"n": "2"}


def test_a_commit_that_another_has_written_over_is_of_unknown_fate(
    far: RedisStore, store: RedisStore, loss: Loss
) -> None:
    assert store.create("s")
    loss.lose("reply", lambda: store.commit("s", notes={"n": "mine"}))
    with pytest.raises(StoreUnavailableError) as caught:
        far.commit("s", b"stored", expect={"n": None}, notes={"n": "1 x"})
    assert caught.value.fate_unknown
    assert store.read("s").data == b"stored"


@pytest.mark.parametrize("kind", ["request", "reply"])
@pytest.mark.parametrize(
    "arguments", [{}, {"expect": {"n": None}}, {"notes": {"n": "x"}}, {"expect": {"m": "x"}, "notes": {"m": "x"}}]
)
def test_a_commit_that_is_not_fenced_is_not_repeated(
    far: RedisStore, store: RedisStore, loss: Loss, arguments: dict[str, Any], kind: str
) -> None:
    assert store.create("s", notes={"m": "x"})
    loss.lose(kind)
    with pytest.raises(StoreUnavailableError) as caught:
        far.commit("s", b"+", **arguments)
    assert caught.value.transient and caught.value.fate_unknown
    wait_until(lambda: known(store, "s").size == (kind == "reply"))


def test_what_was_never_sent_was_certainly_not_stored(open_store: OpenStore) -> None:
    port, claim = claim_port()
    with claim:
        store = open_store(f"redis://127.0.0.1:{port}/0", timeout=0.2)
        for arguments in _arguments({}, {"expect": {"n": None}, "notes": {"n": "1 x"}}):
            with pytest.raises(StoreUnavailableError) as caught:
                store.commit("s", b"x", **arguments)
            assert caught.value.transient and not caught.value.fate_unknown


def test_an_idle_connection_that_was_broken_does_no_harm(server: RedisServer, open_store: OpenStore) -> None:
    """It is noticed before anything is sent on it: also what is not fenced goes on."""
    store = open_store()
    assert store.create("s")
    with server.client() as client:
        for number in range(20):
            client.client_kill_filter(_type="normal", skipme=True)
            store.commit("s", b"%02d" % number)
    assert store.read("s").data == b"".join(b"%02d" % number for number in range(20))


def test_a_server_that_cannot_write_now_has_stored_nothing(open_store: OpenStore) -> None:
    """READONLY: also what is not fenced is repeated; what fails to the end was certainly not stored."""
    with RedisServer() as server:
        store, hasty = open_store(server.url, timeout=PATIENCE), open_store(server.url, timeout=0.2)
        assert store.create("s")
        store.commit("s", b"a")
        port, claim = claim_port()
        with claim:
            server.command("REPLICAOF", "127.0.0.1", port)
            with pytest.raises(redis.ReadOnlyError):
                server.command("SET", "x", "1")
            with pytest.raises(StoreUnavailableError) as caught:
                hasty.commit("s", b"never")
            assert caught.value.transient and not caught.value.fate_unknown
            pending = call(store.commit, "s", b"b")
            server.command("REPLICAOF", "NO", "ONE")
            pending.result(PATIENCE)
        server.command("SCRIPT", "FLUSH")
        store.commit("s", b"c")  # NOSCRIPT
        assert store.read("s").data == b"abc"


def test_a_full_server_has_stored_nothing(open_store: OpenStore) -> None:
    """Endings pass, commits are refused."""
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        store = open_store(server.url, timeout=0.2)
        assert store.create("s", b"a", notes={"n": "1"}) and store.create("t")
        store.commit("s", notes={"n": "2"})
        server.command("CONFIG", "SET", "maxmemory", 1)
        for arguments in _arguments({}, {"notes": {"n": "3"}}):
            with pytest.raises(StoreUnavailableError) as caught:
                store.commit("s", b"b", **arguments)
            assert not caught.value.fate_unknown
        with pytest.raises(StoreUnavailableError) as caught:
            store.commit("s", notes={"n": "3"})
        assert not caught.value.fate_unknown
        store.commit("s", ending="done")
        server.command("CONFIG", "SET", "maxmemory", 0)
        info = known(store, "s")
        assert (info.status, info.size, info.notes) == (Status.DONE, 1, {"n": "2"})


def test_a_repeated_append_leaves_the_notes_alone(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    lease = far.acquire("s")
    assert lease is not None
    loss.lose("reply", lambda: store.commit("s", notes={"n": "another's"}))
    far.append(lease, b"abc", notes={"n": "1", "m": "2"})
    assert lease.offset == 3 and known(store, "s").notes == {"n": "another's", "m": "2"}
    loss.lose("reply", lambda: store.commit("s", notes={"n": "after"}))
    far.finalize(lease, "done", notes={"n": "end"})
    assert known(store, "s").notes == {"n": "after", "m": "2"}


@pytest.mark.parametrize("what", ["append", "finalize", "renew", "release"])
def test_a_repeat_is_refused_once_the_stream_was_taken_over(
    far: RedisStore, store: RedisStore, prefix: str, server: RedisServer, loss: Loss, what: str
) -> None:
    """The fence is compared before equal bytes, and before the same ending."""
    lease = far.acquire("s", handover=60.0)
    assert lease is not None
    assert far.renew([lease]) == [None]

    def take_over() -> None:
        server.command("HSET", f"{prefix}:{{s}}:meta", "until", 0)  # as if the lease had run out
        taken = store.take_over("s", lease.generation)
        assert taken is not None
        store.append(taken, b"same")
        if what == "finalize":
            store.finalize(taken, "done")

    loss.lose("request", take_over)
    if what == "renew":
        assert isinstance(far.renew([lease])[0], LeaseLostError)
    else:
        with pytest.raises(LeaseLostError):
            if what == "append":
                far.append(lease, b"same")
            elif what == "finalize":
                far.finalize(lease, "done")
            else:
                far.release(lease)
    assert lease.offset == 0 and store.read("s").data == b"same"


def test_missing_streams_are_missing_after_a_lost_reply(far: RedisStore, store: RedisStore, loss: Loss) -> None:
    assert store.create("s")
    loss.lose("reply", lambda: store.delete("s"))
    with pytest.raises(StreamNotFoundError):
        far.commit("s", b"x", expect={"n": None}, notes={"n": "1 x"})
    loss.lose("reply")
    with pytest.raises(StreamNotFoundError):
        far.commit("s", b"x", expect={"n": None}, notes={"n": "1 x"})


def test_limits_after_a_lost_request(loss: Loss, server: RedisServer, open_store: OpenStore) -> None:
    proxy = CuttingProxy(server.port, loss)
    small = open_store(f"redis://127.0.0.1:{proxy.port}/0", max_stream_bytes=4)
    assert small.create("s", b"abc") and small.commit("s", notes={"x": "y"})
    loss.lose("request")
    with pytest.raises(LimitExceededError):
        small.commit("s", b"de", expect={"n": None}, notes={"n": "1 x"})
    assert known(small, "s").notes == {"x": "y"}
    small.close()
    proxy.close()


def test_a_process_does_not_show_what_the_server_has_not_stored(
    far: RedisStore, store: RedisStore, loss: Loss
) -> None:
    """A viewer in the committing process sees a commit once the server has said so, and in the server's order."""
    assert far.create("s")
    reader = call(far.read, "s", timeout=PATIENCE)
    wait_until(lambda: getattr(far._processes.get().tails.find("s"), "followed", False))
    loss.lose("request", lambda: store.commit("s", b"theirs "), within=b"ours")  # the reader sends requests, too
    far.commit("s", b"ours", expect={"n": None}, notes={"n": "1 x"})
    found = reader.result(PATIENCE)
    assert b"theirs ours".startswith(found.data) and found.data
    data, _ = drain(far, "s")
    assert data == b"theirs ours"
