"""The context: election, following, hooks, stopping, closing; over every store."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import (
    InvalidCursorError,
    InvalidStreamIdError,
    Lease,
    MemoryStore,
    Producer,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamContext,
    ResumableStreamError,
    Status,
    Store,
    StoreUnavailableError,
    StreamCancelledError,
    StreamLostError,
    StreamNotFoundError,
    current_producer,
)
from resumable_sync.stores.sqlite import SQLiteStore

TIMEOUT = 20.0  # for what must happen; far above what it takes


@pytest.fixture
def context(store: Store) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store, heartbeat=0.1) as made:
        yield made


class Gate:
    """A source that yields what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.started = threading.Event()
        self._chunks: list[bytes | None] = []
        self._ready = threading.Semaphore(0)

    def give(self, *chunks: bytes | None) -> None:
        """Let the source yield these; None ends it."""
        self._chunks += chunks
        for _ in chunks:
            self._ready.release()

    def flood(self) -> None:
        """Yield until the source is closed: a chunk or two may be taken before the producer is told."""
        while not self.closed.wait(0.001):
            self.give(b"too late")

    def __call__(self) -> Iterator[bytes]:
        self.started.set()
        try:
            while True:
                assert self._ready.acquire(timeout=TIMEOUT)
                chunk = self._chunks.pop(0)
                if chunk is None:
                    return
                yield chunk
        finally:
            self.closed.set()


def join(pieces: Iterator[bytes]) -> bytes:
    return b"".join(pieces)


def never() -> Iterator[bytes]:
    raise AssertionError("the loser of an election must not run its source")


def test_run_produces_and_follows(context: ResumableStreamContext) -> None:
    assert join(context.run("a", lambda: ["one ", b"two ", "", "dr\u00e9i"])) == "one two dr\u00e9i".encode()
    info = context.info("a")
    assert info is not None and (info.status, info.entries, info.size) == (Status.DONE, 3, 13)


def test_a_second_run_follows_the_first(context: ResumableStreamContext) -> None:
    gate = Gate()
    first = context.run("a", gate)
    second = context.run("a", never)
    gate.give(b"x", b"y", None)
    assert join(first) == join(second) == b"xy"
    assert join(context.run("a", never)) == b"xy"


def test_sixteen_threads_elect_one_producer(context: ResumableStreamContext) -> None:
    runs = []
    barrier = threading.Barrier(16)

    def source() -> list[bytes]:
        runs.append(threading.get_ident())
        return [b"payload"]

    def viewer(_: int) -> bytes:
        barrier.wait(TIMEOUT)
        return join(context.run("a", source))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(viewer, range(16))) == [b"payload"] * 16
    assert len(runs) == 1


def test_resume_at_every_byte(context: ResumableStreamContext) -> None:
    whole = join(context.run("a", lambda: [b"abc", b"d", b"efgh"]))
    generation = context.store.info("a").generation  # type: ignore[union-attr]
    for offset in range(len(whole) + 1):
        assert join(context.require_resume("a", f"{generation}-{offset}")) == whole[offset:]


def test_resume_checks_before_it_yields(context: ResumableStreamContext) -> None:
    assert context.resume("nobody") is None
    with pytest.raises(StreamNotFoundError):
        context.require_resume("nobody")
    with pytest.raises(InvalidStreamIdError):
        context.resume("no good")
    join(context.run("a", lambda: [b"abc"]))
    info = context.info("a")
    assert info is not None
    for cursor in ("x", "-1", f"{info.generation}--1", f"{info.generation}-4", "9" * 40 + "-0", "1-1-1"):
        with pytest.raises(InvalidCursorError):
            context.resume("a", cursor)
    with pytest.raises(StreamLostError):
        context.resume("a", f"{info.generation - 1}-0")


def test_a_stream_without_bytes_can_be_resumed_and_waits(context: ResumableStreamContext) -> None:
    gate = Gate()
    context.run("a", gate)
    viewer = context.require_resume("a")
    gate.give(b"late", None)
    assert join(viewer) == b"late"


def test_entries_carry_cursors_to_go_on_from(context: ResumableStreamContext) -> None:
    join(context.run("a", lambda: [b"abc", b"d", b"efgh"]))
    entries = list(context.entries("a"))
    assert [entry.chunk for entry in entries] == [b"abc", b"d", b"efgh"]
    assert join(context.require_resume("a", entries[1].cursor)) == b"efgh"


def test_batches_tell_where_replay_ends(context: ResumableStreamContext) -> None:
    gate = Gate()
    follower = context.run("a", gate)
    gate.give(b"old")
    assert next(follower) == b"old"
    batches = context.batches("a")
    replayed = next(batches)
    assert (replayed.data, replayed.offset == replayed.size) == (b"old", True)
    gate.give(b"new", None)
    assert next(batches).data == b"new"
    assert list(batches) == []


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan"), float("-inf")])
def test_a_heartbeat_is_above_0(context: ResumableStreamContext, heartbeat: float) -> None:
    assert b"".join(context.run("a", lambda: [b"x"])) == b"x"
    with pytest.raises(ValueError, match="heartbeat must be a positive number"):
        context.batches("a", heartbeat=heartbeat)


def test_heartbeats_come_while_nothing_else_does(context: ResumableStreamContext) -> None:
    gate = Gate()
    context.run("a", gate)
    batches = context.batches("a", heartbeat=0.01)
    assert [next(batches).data for _ in range(3)] == [b"", b"", b""]
    gate.give(b"x", None)
    assert [batch.data for batch in batches if batch.data] == [b"x"]


def test_a_source_that_raises_ends_the_stream_as_error(store: Store) -> None:
    raised: list[BaseException] = []
    ended: list[tuple[str, str, str | None]] = []

    def source() -> Iterator[bytes]:
        yield b"before"
        raise ValueError("boom")

    with ResumableStreamContext(
        store,
        on_error=lambda stream_id, error: raised.append(error),
        on_finalize=lambda *arguments: ended.append(arguments),
    ) as context:
        viewer = context.run("a", source)
        assert next(viewer) == b"before"
        with pytest.raises(ProducerFailedError, match="ValueError: boom") as caught:
            next(viewer)
        assert not isinstance(caught.value, ProducerInterruptedError)
    assert [repr(error) for error in raised] == ["ValueError('boom')"]
    assert ended == [("a", "error", "ValueError: boom")]


@pytest.mark.parametrize("bad", [[1], [None, 3.5], 7, None])
def test_a_source_of_something_else_ends_as_error(context: ResumableStreamContext, bad: object) -> None:
    with pytest.raises(ProducerFailedError, match="TypeError"):
        join(context.run("a", lambda: bad))  # type: ignore[arg-type,return-value]


def test_cancel_closes_the_source_and_ends_every_viewer(context: ResumableStreamContext) -> None:
    gate = Gate()
    viewer = context.run("a", gate)
    gate.give(b"x")
    assert next(viewer) == b"x"
    assert context.cancel("a") and not context.cancel("a")
    with pytest.raises(StreamCancelledError):
        next(viewer)
    gate.flood()
    assert context.status("a") == "cancelled" and not context.cancel("nobody")
    assert context.store.read("a").data == b"x"


def test_a_silent_source_learns_of_a_cancel(context: ResumableStreamContext) -> None:
    told: list[str] = []
    ready, done = threading.Event(), threading.Event()

    def source() -> Iterator[bytes]:
        producer = current_producer()
        producer.on_cancel(lambda: told.append("early"))
        ready.set()
        assert producer.cancelled.wait(TIMEOUT)
        producer.on_cancel(lambda: told.append("late"))
        done.set()
        yield b"never stored"

    context.run("a", source)
    assert ready.wait(TIMEOUT)
    context.store.cancel("a")  # as another process would: only the heartbeat tells
    assert done.wait(TIMEOUT)
    with pytest.raises(StreamCancelledError):
        join(context.require_resume("a"))
    assert wait_for(lambda: sorted(told) == ["early", "late"])


def test_delete_reaches_viewer_and_producer(context: ResumableStreamContext) -> None:
    gate = Gate()
    viewer = context.run("a", gate)
    gate.give(b"x")
    assert next(viewer) == b"x"
    assert context.delete("a") and not context.delete("a")
    with pytest.raises(StreamLostError):
        next(viewer)
    gate.flood()
    assert join(context.run("a", lambda: [b"another life"])) == b"another life"


def test_a_viewer_that_leaves_stops_nothing(context: ResumableStreamContext) -> None:
    gate = Gate()
    viewer = context.run("a", gate)
    gate.give(b"x")
    next(viewer)
    viewer.close()  # type: ignore[attr-defined]
    del viewer
    gate.give(b"y", None)
    assert join(context.require_resume("a")) == b"xy"


def test_hooks_are_called_in_order_and_may_raise(store: Store) -> None:
    calls: list[tuple[object, ...]] = []

    def hook(*arguments: object) -> None:
        calls.append(arguments)
        raise RuntimeError("a hook's trouble is its own")

    with ResumableStreamContext(store, on_acquire=hook, on_append=hook, on_finalize=hook) as context:
        assert join(context.run("a", lambda: [b"abc", "", b"de"])) == b"abcde"
        assert wait_for(lambda: len(calls) == 4)
        context.run("a", never)
    assert calls == [("a", "producer"), ("a", 3), ("a", 2), ("a", "done", None), ("a", "consumer")]


def test_contextvars_are_carried_over(context: ResumableStreamContext) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("caller")
    assert join(context.run("a", lambda: iter([who.get()]))) == b"caller"


def test_current_producer_tells_where_it_is(context: ResumableStreamContext) -> None:
    seen: list[Producer] = []

    def source() -> Iterator[bytes]:
        seen.append(current_producer())
        yield b"abc"

    assert join(context.run("a", source)) == b"abc"
    assert seen[0].stream_id == "a" and seen[0].offset == 3 and not seen[0].cancelled.is_set()
    with pytest.raises(LookupError):
        current_producer()


def test_large_chunks_are_split_never_dropped(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    for store in (MemoryStore(max_chunk_bytes=1000), SQLiteStore(tmp_path / "s.db", max_chunk_bytes=1000)):
        with ResumableStreamContext(store, max_pending_bytes=1500) as context:
            assert join(context.run("a", lambda: [data, data[:7]])) == data + data[:7]
            assert max(len(entry.chunk) for entry in context.entries("a")) == 1000
        store.close()


def test_a_full_stream_ends_as_error(tmp_path: Path) -> None:
    for store in (MemoryStore(max_stream_bytes=10), SQLiteStore(tmp_path / "s.db", max_stream_bytes=10)):
        with ResumableStreamContext(store) as context:
            viewer = context.run("a", lambda: [b"123456", b"789012345"])
            with pytest.raises(ProducerFailedError, match="max_stream_bytes"):
                join(viewer)
        store.close()


def test_a_slow_store_holds_the_source_back() -> None:
    """G10: pending bytes are bounded, a source is not pulled further than there is room."""
    store = StandingStore()
    pulled: list[int] = []

    def source() -> Iterator[bytes]:
        for number in range(1000):
            pulled.append(number)
            yield b"x" * 100

    with ResumableStreamContext(store, max_pending_bytes=1000) as context:
        context.run("first", lambda: [b"stands in the store"])
        assert store.entered.wait(TIMEOUT)
        viewer = context.run("a", source)
        # Ten chunks fill what may be pending; the source has made one more and is not asked again.
        assert wait_for(lambda: len(pulled) == 11)
        assert not wait_for(lambda: len(pulled) > 11, seconds=0.2)
        store.leave.set()
        assert len(join(viewer)) == 100_000
    store.close()


class StandingStore(MemoryStore):
    """Stands still in its first append until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.leave = threading.Event(), threading.Event()

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        self.entered.set()
        assert self.leave.wait(TIMEOUT)
        return super().append_many(batches, *rest)


def test_close_ends_what_runs(store: Store) -> None:
    blocked = threading.Event()

    def blocking() -> Iterator[bytes]:
        yield b"made "
        blocked.wait(TIMEOUT)
        yield b"too late"

    context = ResumableStreamContext(store)
    viewer = context.run("a", blocking)
    assert next(viewer) == b"made "
    context.close(timeout=0.4)
    try:
        assert context.status("a") == "interrupted"
        with pytest.raises(StoreUnavailableError):
            next(viewer)
        with pytest.raises(StoreUnavailableError):
            context.run("b", never)
    finally:
        blocked.set()
    other = ResumableStreamContext(store)
    with pytest.raises(ProducerInterruptedError):
        join(other.require_resume("a"))
    assert store.read("a").data == b"made "
    context.close()


def test_close_wakes_a_viewer_that_waits(store: Store) -> None:
    gate = Gate()
    context, other = ResumableStreamContext(store), ResumableStreamContext(store)
    other.run("a", gate)
    viewer = context.require_resume("a")
    failed = threading.Event()

    def view() -> None:
        with pytest.raises(StoreUnavailableError):
            join(viewer)
        failed.set()

    thread = threading.Thread(target=view)
    thread.start()
    context.close()
    assert failed.wait(2.0)
    thread.join(TIMEOUT)
    gate.give(None)
    assert join(other.require_resume("a")) == b""
    other.close()


def test_an_executor_runs_the_producers(store: Store) -> None:
    names: list[str] = []

    def source() -> Iterator[bytes]:
        names.append(threading.current_thread().name)
        yield b"x"

    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        with ResumableStreamContext(store, executor=pool) as context:
            assert join(context.run("a", source)) + join(context.run("b", source)) == b"xx"
    assert all(name.startswith("mine") for name in names) and len(names) == 2


def test_a_producer_that_never_got_a_thread_is_interrupted(store: Store) -> None:
    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(free.wait, TIMEOUT)
        context = ResumableStreamContext(store, executor=pool)
        context.run("a", never)
        context.close(timeout=0.1)
        assert context.status("a") == "interrupted"
        free.set()


def test_the_source_is_closed_once_however_it_ends(context: ResumableStreamContext) -> None:
    class Source:
        def __init__(self, end: Callable[[], bytes]) -> None:
            self.end, self.closes = end, 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            yield self.end()

        def close(self) -> None:
            self.closes += 1

    def fail() -> bytes:
        raise OSError("upstream")

    good, bad = Source(lambda: b"y"), Source(fail)
    assert join(context.run("good", lambda: good)) == b"xy"
    with pytest.raises(ProducerFailedError):
        join(context.run("bad", lambda: bad))
    assert (good.closes, bad.closes) == (1, 1)


def wait_for(predicate: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
    """Whether `predicate` came true in time; looks again and again."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if predicate():
            return True
        pause.wait(0.01)
    return predicate()
