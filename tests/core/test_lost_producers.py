"""Producers that never get to run: their streams end all the same, instead of being renewed for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from resumable_sync import (
    MemoryStore,
    ProducerInterruptedError,
    ResumableStreamContext,
    Status,
    StoreUnavailableError,
)

TIMEOUT = 20.0


def never() -> Iterator[bytes]:
    raise AssertionError("this source must not run")


@pytest.fixture
def context() -> Iterator[ResumableStreamContext]:
    store = MemoryStore(grace=1.0)
    with ResumableStreamContext(store, heartbeat=0.1) as made:
        yield made
    store.close()


def test_an_executor_that_drops_a_producer_ends_its_stream() -> None:
    store, free = MemoryStore(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(free.wait, TIMEOUT)
        with ResumableStreamContext(store, executor=pool) as context:
            viewer = context.run("a", never)
            pool.shutdown(wait=False, cancel_futures=True)
            with pytest.raises(ProducerInterruptedError):
                next(viewer)
            free.set()
    store.close()


@pytest.mark.parametrize("refused", ["resumable-sync-committer", "resumable-sync-producer-a"])
def test_a_producer_without_a_thread_ends_its_stream(
    context: ResumableStreamContext, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def failing_start(thread: threading.Thread) -> None:
        if thread.name == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing_start)
    with pytest.raises(StoreUnavailableError):
        context.run("a", never)
    monkeypatch.undo()
    assert context.status("a") is Status.INTERRUPTED
    assert b"".join(context.run("b", lambda: [b"goes on"])) == b"goes on"


def test_a_hook_that_exits_ends_the_stream() -> None:
    """Nothing is half done between the election and a running producer."""

    def leave(stream_id: str, role: str) -> None:
        raise SystemExit(3)

    store = MemoryStore()
    with ResumableStreamContext(store, on_acquire=leave) as context:
        with pytest.raises(SystemExit):
            context.run("a", never)
        assert context.status("a") is Status.INTERRUPTED
    store.close()


def test_an_executor_that_refuses_a_producer_ends_its_stream() -> None:
    store, pool = MemoryStore(), ThreadPoolExecutor(1)
    pool.shutdown()
    with ResumableStreamContext(store, executor=pool) as context:
        with pytest.raises(RuntimeError):
            context.run("a", never)
        assert context.status("a") is Status.INTERRUPTED
        assert not context._running.get().producers
    store.close()
