"""Which stream is the newest of a chat: many processes' worth of threads, slow ones, and records that expire."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resumable_sync import MemoryStore, ResumableStreamContext, current_producer
from resumable_sync.assistant.newest import RECORD_PREFIX, ActiveStreams
from resumable_sync.contract import Status, Store
from resumable_sync.errors import StoreUnavailableError

from ...backends import Backend
from ...wsgi.support import wait_until


def test_the_last_one_counts(backend: Backend, store: Store) -> None:
    second = backend.second(store)
    here, there = ActiveStreams(store), ActiveStreams(second)
    assert here.newest("c") is None
    for number in range(7):
        (here if number % 2 else there).begin("c", f"s{number}").end()
        assert here.newest("c") == there.newest("c") == f"s{number}"
    assert len(list(store.streams())) == 2  # however many messages the chat has
    for chat_id in ("C", "c/d", "\ud800", "ü" * 5000, "../x"):
        assert here.newest(chat_id) is None
        here.begin(chat_id, "other").end()
        assert there.newest(chat_id) == "other"
    assert here.newest("c") == "s6"
    assert ActiveStreams(store, "elsewhere").newest("c") is None
    second.close()


def test_an_older_stream_that_ends_later_hides_nothing(store: Store) -> None:
    active = ActiveStreams(store)
    claims = [active.begin("c", f"s{number}") for number in range(4)]
    for claim in claims:
        claim.end()
        assert active.newest("c") == "s3"


def test_many_at_once(backend: Backend, store: Store) -> None:
    """Each of several processes begins streams; a reader never sees none, and the last one standing is one of
    the last of each."""
    stores = [backend.second(store) for _ in range(4)]
    ActiveStreams(store).begin("c", "first").end()
    start = threading.Barrier(5)
    failures: list[BaseException] = []
    done = threading.Event()
    absent = []

    def begin(index: int) -> None:
        try:
            active = ActiveStreams(stores[index])
            start.wait(20)
            for number in range(8):
                active.begin("c", f"s{index}-{number}").end()
        except BaseException as error:
            failures.append(error)

    def look() -> None:
        active = ActiveStreams(store)
        start.wait(20)
        while not done.is_set():
            absent.append(active.newest("c"))

    threads = [threading.Thread(target=begin, args=(index,)) for index in range(4)]
    looking = threading.Thread(target=look)
    for thread in (*threads, looking):
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    looking.join(20)
    assert failures == []
    assert ActiveStreams(store).newest("c") in {f"s{index}-7" for index in range(4)}
    ActiveStreams(store).begin("c", "last").end()
    assert ActiveStreams(store).newest("c") == "last"
    for other in stores:
        if other is not store:
            other.close()


class Paused:
    """A store in front of which one caller is held up: before its next calls so many others begin streams."""

    def __init__(self, store: Store, schedule: list[int]) -> None:
        self._store = store
        self._turns = schedule
        self.grace = store.grace
        self.later: list[str] = []
        """Streams that others have begun since this caller last took a place."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("info", "delete", "acquire", "finalize"):
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            for number in range(self._turns.pop() if self._turns else 0):
                stream_id = f"meanwhile-{len(self._turns)}-{number}"
                ActiveStreams(self._store).begin("c", stream_id).end()
                self.later.append(stream_id)
            result = method(*arguments, **options)
            if name == "acquire" and result is not None:
                self.later.clear()
            return result

        return call


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3))
@example([0, 0, 0, 2], 2)  # others pass while it is about to delete
def test_a_slow_one_that_others_pass(schedule: list[int], before: int) -> None:
    """Between any two of its calls any number of others begin. When it returns, only such as began after it had
    taken its place can be newer."""
    store = MemoryStore()
    for number in range(before):
        ActiveStreams(store).begin("c", f"before-{number}").end()
    paused: Any = Paused(store, schedule[::-1])
    ActiveStreams(paused).begin("c", "slow")
    assert ActiveStreams(store).newest("c") in {"slow", *paused.later}
    records = [int(info.metadata["number"]) for info in store.streams()]
    assert len(records) <= 2 and len(set(records)) == len(records)
    ActiveStreams(store).begin("c", "later").end()
    assert ActiveStreams(store).newest("c") == "later"
    store.close()


def test_too_many_at_once() -> None:
    store = MemoryStore()

    class Hopeless(Paused):
        def __getattr__(self, name: str) -> Any:
            return (lambda *_, **__: None) if name == "acquire" else super().__getattr__(name)

    with pytest.raises(StoreUnavailableError):
        hopeless: Any = Hopeless(store, [])
        ActiveStreams(hopeless).begin("c", "s")
    store.close()


def test_a_record_lives_as_long_as_its_stream(backend: Backend) -> None:
    """Ended streams expire soon here, records included; that of a running stream does not, though it is silent."""
    store = backend.make(ttl=0.6, finished_ttl=0.3)
    with ResumableStreamContext(store, heartbeat=0.1) as context:
        active = ActiveStreams(store)
        claim = active.begin("c", "s", 0.6)
        finish, begun = threading.Event(), threading.Event()

        def source() -> Any:
            yield b"x"
            begun.set()
            current_producer().on_cancel(finish.set)
            finish.wait(30)

        def claimed() -> Any:
            claim.keep()
            current_producer()._on_end(claim.end)
            return source()

        context.run("s", claimed)
        assert begun.wait(20)
        created = threading.Event()
        assert not created.wait(1.2)  # twice the life of anything that nobody keeps alive
        assert active.newest("c") == "s" and context.status("s") == "streaming"
        finish.set()
        wait_until(lambda: active.newest("c") is None, 20)
    store.close()


def test_a_source_that_cannot_be_made_ends_its_claim(store: Store) -> None:
    def fails() -> Any:
        claim.keep()
        current_producer()._on_end(claim.end)
        raise ValueError("no source")

    with ResumableStreamContext(store) as context:
        claim = ActiveStreams(store).begin("c", "s")
        context.run("s", fails)
        wait_until(lambda: {info.status for info in store.streams()} == {"done", "error"}, 20)
        (record,) = (info for info in store.streams() if info.stream_id.startswith(RECORD_PREFIX))
        assert record.status == "done"


def test_how_a_message_ended_that_its_stream_does_not_tell(backend: Backend, store: Store) -> None:
    second = backend.second(store)
    here, there = ActiveStreams(store), ActiveStreams(second)
    claim = here.begin("c", "s", awaited=True)
    claim.keep()
    record = there.record("c")
    assert record is not None and there.noted(record) is None
    assert (record.stream_id, record.status, record.awaited) == ("s", "streaming", True)
    claim.note("error")
    claim.note("cancelled")  # the first counts
    record = there.record("c")
    assert record is not None and there.noted(record) == "error"
    claim.end(Status.INTERRUPTED)
    record = there.record("c")
    assert record is not None and record.status == "interrupted" and there.noted(record) == "error"
    second.close()
