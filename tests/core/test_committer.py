"""The committer with its thread and a store. Its decisions one by one: test_schedule.py."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from resumable_sync import (
    Lease,
    MemoryStore,
    ProducerFailedError,
    ResumableStreamContext,
    ResumableStreamError,
    StreamCancelledError,
    StreamFinalizedError,
    StreamLostError,
)
from resumable_sync.committer import _registries, committer_for

from ..support import PATIENCE, wait_until

TIMEOUT = 20.0


class Thrown(BaseException):
    """Thrown into the running thread, as gevent's Timeout is into the greenlet of a source."""


class BrokenOff(MemoryStore):
    """One append that a source's own thread makes is broken off, before or after it has stored the bytes."""

    def __init__(self, *, stored: bool) -> None:
        super().__init__()
        self.stored = stored
        self.thrown = False

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        if self.thrown or not threading.current_thread().name.startswith("resumable-sync-producer"):
            return super().append_many(batches, *rest)
        self.thrown = True
        if self.stored:
            super().append_many(batches, *rest)
        raise Thrown


@pytest.mark.parametrize("stored", [False, True])
def test_an_append_that_is_broken_off_is_stored_once(stored: bool) -> None:
    """G3, G5: the ending comes after all that was made."""
    store, pause = BrokenOff(stored=stored), threading.Event()
    made: list[bytes] = []

    def source() -> Iterator[bytes]:
        for number in range(1000):  # the committer may be busy with the lease: then it stores the chunk itself
            made.append(b"%d " % number)
            yield made[-1]
            pause.wait(0.005)

    data = b""
    with ResumableStreamContext(store) as context:
        with pytest.raises(ProducerFailedError, match="Thrown"):
            for piece in context.run("s", source):
                data += piece
        assert b"".join(context.run("t", lambda: [b"others go on"])) == b"others go on"
    assert data == b"".join(made)
    store.close()


def test_a_refused_chunk_closes_its_source_at_once() -> None:
    """G4: the source is not asked for another chunk, for which it might wait long."""
    store, cancelled, closed = MemoryStore(), threading.Event(), threading.Event()

    def source() -> Iterator[bytes]:
        try:
            yield b"stored"
            assert cancelled.wait(TIMEOUT)
            time.sleep(0.01)  # a slow source, whose chunks are stored by its own thread
            yield b"refused"
            raise AssertionError("asked for more")
        finally:
            closed.set()

    errors: list[BaseException] = []
    with ResumableStreamContext(store, on_error=lambda _, error: errors.append(error)) as context:
        viewer = context.run("s", source)
        assert next(viewer) == b"stored"
        store.cancel("s")
        cancelled.set()
        with pytest.raises(StreamCancelledError):
            next(viewer)
        assert closed.wait(TIMEOUT)
    assert errors == []
    store.close()


class Remote(MemoryStore):
    """A store some time away: every call takes it."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.appends = 0

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        time.sleep(self.seconds)
        self.appends += 1
        return super().append_many(batches, *rest)

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        time.sleep(self.seconds)
        return super().renew(leases)


def test_a_fast_source_is_group_committed_however_far_the_store_is() -> None:
    """How long an append takes says nothing about the source."""
    store = Remote(0.003)
    with ResumableStreamContext(store) as context:
        assert b"".join(context.run("s", lambda: [b"x"] * 1000)) == b"x" * 1000
    assert store.appends < 100
    store.close()


def test_a_source_that_is_faster_than_a_store_that_is_far_is_group_committed() -> None:
    """A source is slow in comparison with the store: its own pace, not the store's, is what its stream gets."""
    store, pause = Remote(0.1), 0.005

    def source() -> Iterator[bytes]:
        for _ in range(60):
            time.sleep(pause)
            yield b"x"

    with ResumableStreamContext(store) as context:
        assert b"".join(context.run("s", source)) == b"x" * 60
    assert store.appends < 30
    store.close()


def test_direct_appends_leave_turns_to_the_heartbeat() -> None:
    """G7: slow sources that append all the time do not make others' leases run out."""
    store, until = Remote(0.004, grace=2.0), time.monotonic() + 3.0
    free = threading.Event()

    def slow() -> Iterator[bytes]:
        while time.monotonic() < until:
            time.sleep(0.0015)
            yield b"x"

    def silent() -> Iterator[bytes]:
        yield b"x"
        free.wait(TIMEOUT)

    with ResumableStreamContext(store, heartbeat=0.3) as context:
        context.run("silent", silent)
        viewers = [context.run(f"slow{number}", slow) for number in range(4)]
        for viewer in viewers:
            for _ in viewer:
                pass
        assert context.status("silent") == "streaming"
        free.set()
        assert b"".join(context.require_resume("silent")) == b"x"
    store.close()


class FailingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log is away")


class FaultyInTheThread(MemoryStore):
    """Raises what no store should in the first `faults` appends of the committer's thread."""

    def __init__(self, faults: int, **options: Any) -> None:
        super().__init__(**options)
        self.faults = faults

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        if self.faults and threading.current_thread().name == "resumable-sync-committer":
            self.faults -= 1
            raise RuntimeError("a fault in the store")
        return super().append_many(batches, *rest)


@pytest.fixture
def failing_log() -> Iterator[None]:
    library, handler = logging.getLogger("resumable_sync"), FailingHandler()
    library.addHandler(handler)
    library.propagate = False
    yield
    library.removeHandler(handler)
    library.propagate = True


@pytest.mark.usefixtures("failing_log")
def test_the_thread_goes_on_after_an_unexpected_error_and_repeats_what_it_held() -> None:
    store = FaultyInTheThread(2)
    with ResumableStreamContext(store) as context:
        assert b"".join(context.run("s", lambda: [b"x"] * 5000)) == b"x" * 5000
    assert store.faults == 0
    store.close()


@pytest.mark.usefixtures("failing_log")
def test_what_the_thread_cannot_store_is_given_up_and_others_go_on() -> None:
    store = FaultyInTheThread(1_000_000, grace=1.0)
    with ResumableStreamContext(store) as context:
        with pytest.raises(ProducerFailedError):
            b"".join(context.run("s", lambda: [b"x"] * 5000))
        store.faults = 0
        assert b"".join(context.run("t", lambda: [b"x"] * 5000)) == b"x" * 5000
    store.close()


@dataclass
class Unhashable(MemoryStore):
    """Equal to every other of its kind."""

    label: str = "mine"

    def __post_init__(self) -> None:
        super().__init__()


class Slotted:
    """A store that cannot be weakly referenced."""

    __slots__ = ("store",)

    def __init__(self) -> None:
        self.store = MemoryStore()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.mark.parametrize("make", [Unhashable, Slotted])
def test_stores_are_told_apart_by_identity(make: Callable[[], Any]) -> None:
    stores = [make(), make()]
    for store in stores:
        with ResumableStreamContext(store) as context:
            assert b"".join(context.run("s", lambda: [b"whole"])) == b"whole"
    assert len({id(committer_for(store, "s")) for store in stores}) == 2
    assert committer_for(stores[0], "s") is committer_for(stores[0], "t")
    for store in stores:
        store.close()


def test_each_context_has_its_own_bound() -> None:
    """G10: how far a source may run ahead of the store."""

    class Standing(MemoryStore):
        standing, go_on = threading.Event(), threading.Event()

        def append_many(self, batches: Any, *rest: Any) -> Any:
            self.standing.set()
            assert self.go_on.wait(PATIENCE)
            return super().append_many(batches, *rest)

    store, made = Standing(), [0]

    def source() -> Iterator[bytes]:
        for _ in range(100):
            made[0] += 100
            yield b"x" * 100

    with ResumableStreamContext(store) as wide, ResumableStreamContext(store, max_pending_bytes=500) as narrow:
        wide.run("first", lambda: [b"x"])
        assert store.standing.wait(TIMEOUT)  # so that the second stream's thread does not append itself
        viewer = narrow.run("s", source)
        wait_until(lambda: made[0] >= 600)
        time.sleep(0.1)
        assert made[0] <= 700  # what is in the append, what is pending, and one that waits for room
        store.go_on.set()
        assert len(b"".join(viewer)) == 100 * 100
    store.close()


def test_a_context_that_only_cancels_makes_no_committer() -> None:
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        assert not context.cancel("s") and not context.delete("s")
        assert not _registries.get().of(store)
    store.close()


class Told:
    """An outbox of a lease, and whether it was stopped."""

    def __init__(self, store: MemoryStore, stream_id: str) -> None:
        lease = store.acquire(stream_id)
        assert lease is not None
        self.stopped = threading.Event()
        self.committer = committer_for(store, stream_id)
        self.outbox = self.committer.open(lease, TIMEOUT, self.stopped.set)


def test_an_end_is_told_without_asking_the_store() -> None:
    class Counting(MemoryStore):
        renewed = 0

        def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
            self.renewed += 1
            return super().renew(leases)

    store = Counting()
    told, other = Told(store, "s"), Told(store, "t")
    with ResumableStreamContext(store) as context:
        assert context.cancel("s")
        assert told.stopped.is_set() and not other.stopped.is_set()
        with pytest.raises(StreamFinalizedError) as raised:
            told.committer.put(told.outbox, b"late")
        assert raised.value.status == "cancelled"
        assert context.delete("t") and other.stopped.is_set()
        with pytest.raises(StreamLostError):
            other.committer.flush(other.outbox)
    assert store.renewed == 0
    for each in (told, other):
        each.committer.close(each.outbox)
    store.close()


def test_a_life_that_began_while_another_was_cancelled_is_not_stopped() -> None:
    """The cancel was of the earlier life; who tells of it must not mistake the later one for it."""
    later: list[Told] = []

    class Late(MemoryStore):
        def cancel(self, stream_id: str) -> bool:
            cancelled = super().cancel(stream_id)
            self.delete(stream_id)
            later.append(Told(self, stream_id))
            return cancelled

    store = Late()
    earlier = Told(store, "s")
    with ResumableStreamContext(store) as context:
        assert context.cancel("s")
    assert earlier.stopped.is_set()
    (new,) = later
    new.committer.put(new.outbox, b"lives")
    new.committer.flush(new.outbox)
    assert not new.stopped.is_set() and store.read("s").data == b"lives"
    for each in (earlier, new):
        each.committer.close(each.outbox)
    store.close()


def test_a_cancel_that_comes_too_late_lets_the_store_tell() -> None:
    """False: the stream has ended otherwise, or is gone. The producer learns how at once, not by its heartbeat."""
    store = MemoryStore()
    told = Told(store, "s")
    store.cancel("s")
    with ResumableStreamContext(store) as context:
        assert not context.cancel("s")
        assert told.stopped.wait(TIMEOUT / 2)
    told.committer.close(told.outbox)
    store.close()


def test_the_ending_waits_for_an_append_that_is_under_way() -> None:
    """G5: one thread at a time uses a lease, also after a cancel."""
    appending, go_on = threading.Event(), threading.Event()

    class Standing(MemoryStore):
        def append_many(self, batches: Any, *rest: Any) -> Any:
            results = super().append_many(batches, *rest)
            appending.set()
            assert go_on.wait(TIMEOUT)
            return results

    store = Standing()
    told, flushed = Told(store, "s"), threading.Event()
    told.outbox.put_ended_at = time.monotonic() + TIMEOUT  # not a slow source: the thread stores it
    told.committer.put(told.outbox, b"stored")
    assert appending.wait(TIMEOUT)

    def flush() -> None:
        with pytest.raises(StreamFinalizedError):
            told.committer.flush(told.outbox)
        flushed.set()

    with ResumableStreamContext(store) as context:
        assert context.cancel("s") and told.stopped.is_set()
    thread = threading.Thread(target=flush)
    thread.start()
    assert not flushed.wait(0.2)
    go_on.set()
    assert flushed.wait(TIMEOUT) and list(told.outbox.acknowledged) == [6]
    thread.join(TIMEOUT)
    told.committer.close(told.outbox)
    store.close()


def test_the_thread_ends_without_streams_and_takes_the_committer_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable_sync.committer._IDLE_SECONDS", 0.05)
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        assert b"".join(context.run("s", lambda: [b"x"])) == b"x"
    wait_until(lambda: not gc.collect() and not _registries.get().of(store))
    with ResumableStreamContext(store) as context:
        assert b"".join(context.run("t", lambda: [b"y"])) == b"y"
    store.close()
