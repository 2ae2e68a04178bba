"""What a context counts: figures of this moment, and totals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import pytest

from resumable_sync import (
    MemoryStore,
    ResumableStreamContext,
    Status,
    Store,
    StoreUnavailableError,
    StreamCancelledError,
    StreamInfo,
    current_producer,
)
from resumable_sync.contract import Lease
from resumable_sync.errors import ResumableStreamError
from resumable_sync.stats import Figures, Histogram, Tally

from ..backends import Backend
from ..support import wait_until


class Feed:
    """A source that the test feeds; None ends it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()

    def put(self, chunk: bytes | None) -> None:
        self._queue.put(chunk)

    def __call__(self) -> Iterator[bytes]:
        current_producer().on_cancel(lambda: self._queue.put(None))
        while (chunk := self._queue.get()) is not None:
            yield chunk


class Gate(MemoryStore):
    """A store whose appends hang while the gate is shut, or find it away."""

    def __init__(self) -> None:
        super().__init__(grace=60)
        self.open = threading.Event()
        self.open.set()
        self.away = False
        self.inside = threading.Event()

    def _append_many(
        self,
        batches: Sequence[tuple[Lease, list[bytes]]],
        notes: Sequence[dict[str, str | None]] = (),
    ) -> list[str | ResumableStreamError]:
        self.inside.set()
        self.open.wait(60)
        if self.away:
            raise StoreUnavailableError("away")
        return super()._append_many(batches, notes)


def in_thread(target: object) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_what_was_stored_is_counted(store: Store) -> None:
    chunks = [bytes([n]) * n for n in range(1, 101)]
    with ResumableStreamContext(store) as context:
        assert context.stats().totals.bytes == 0
        assert context.produce("a", lambda: chunks) is Status.DONE
        totals = context.stats().totals
        assert (totals.chunks, totals.bytes) == (100, sum(map(len, chunks)))
        assert 1 <= totals.appends <= 100
        for histogram, total in ((totals.append_bytes, totals.bytes), (totals.append_seconds, None)):
            assert histogram.count == totals.appends
            assert total is None or histogram.total == total
        assert totals.append_seconds.total > 0
        assert (totals.elected, totals.taken_over, totals.endings) == (1, 0, {"done": 1})
        assert not any(totals.store_errors.values())


def test_who_is_here(store: Store) -> None:
    feed = Feed()
    with ResumableStreamContext(store) as context:
        context.start("a", feed)
        viewers = [in_thread(lambda: list(context.require_resume("a"))) for _ in range(3)]
        waiting = in_thread(lambda: context.resume("later", wait=60))
        wait_until(lambda: context.stats().reading == 3 and context.stats().awaiting == 1)
        stats = context.stats()
        assert (stats.producers, stats.viewers, stats.closed, stats.draining) == (1, 3, False, False)
        assert (stats.pending_bytes, stats.blocked, stats.stalled, stats.handover) == (0, 0, 0, 0)
        feed.put(None)
        for viewer in viewers:
            viewer.join(60)
        wait_until(lambda: context.stats().producers == 0)
        assert context.stats().viewers == 0
        context.produce("later", lambda: [b"x"])
        waiting.join(60)
        assert context.stats().awaiting == 0
    stats = context.stats()
    assert stats.closed and stats.totals.endings == {"done": 2}


def test_endings_and_losses(store: Store) -> None:
    with ResumableStreamContext(store, on_error=lambda *_: None) as context:
        for stream_id in ("cancelled", "deleted", "interrupted"):
            context.start(stream_id, Feed())
        context.cancel("cancelled")
        context.delete("deleted")

        def fail() -> Iterator[bytes]:
            yield b"x"
            raise ValueError

        context.start("error", fail)
        wait_until(lambda: context.stats().producers == 1)
        with pytest.raises(StreamCancelledError):
            list(context.require_resume("cancelled"))
    totals = context.stats().totals
    assert totals.endings == {"cancelled": 1, "error": 1, "interrupted": 1}
    assert (totals.elected, totals.lost, totals.released, totals.superseded) == (4, 1, 0, 0)


def test_takeovers(backend: Backend, store: Store) -> None:
    feed = Feed()
    first = ResumableStreamContext(store)
    first.start("a", feed, handover=60)
    feed.put(b"one")
    wait_until(lambda: first.stats().totals.bytes == 3)
    assert first.stats().handover == 1
    first.close()
    assert (first.stats().totals.released, first.stats().totals.endings) == (1, {})

    answers: list[StreamInfo] = []
    second = ResumableStreamContext(store, recover=lambda info: answers.append(info))
    second.status("a")
    wait_until(lambda: second.stats().orphans == 1)
    assert answers

    def go_on() -> Iterator[bytes]:
        assert current_producer().offset == 3
        yield b"two"

    assert second.produce("a", go_on, handover=60) is Status.DONE
    totals = second.stats().totals
    assert (totals.elected, totals.taken_over, totals.bytes) == (0, 1, 3)
    wait_until(lambda: second.stats().orphans == 0)
    second.close()


def test_shared_writers_count(store: Store) -> None:
    with ResumableStreamContext(store) as context, context.shared_writer("s", "w", create=True) as out:
        out.write("abc", "de")
        out.write("f")
        totals = context.stats().totals
        assert (totals.appends, totals.chunks, totals.bytes) == (2, 3, 6)


def test_a_store_that_hangs_does_not_hold_up_the_figures() -> None:
    store, feed = Gate(), Feed()
    context = ResumableStreamContext(store, max_pending_bytes=10)
    store.open.clear()
    context.start("first", lambda: [b"1"])  # hangs in an append that it makes itself
    wait_until(store.inside.is_set)
    context.start("a", feed)
    for _ in range(5):
        feed.put(b"12345678")
    wait_until(lambda: context.stats().blocked == 1)
    stats = context.stats()
    assert (stats.producers, stats.pending_chunks, stats.pending_bytes, stats.totals.appends) == (2, 2, 9, 0)
    store.away = True
    store.open.set()
    wait_until(lambda: context.stats().stalled == 2)
    wait_until(lambda: context.stats().totals.store_errors["append"] >= 3)
    store.away = False
    wait_until(lambda: context.stats().totals.bytes == 41)
    assert (context.stats().stalled, context.stats().blocked, context.stats().pending_bytes) == (0, 0, 0)
    context.close()
    store.close()


def test_a_histogram_says_how_many_were_below() -> None:
    tally = Tally()
    figures = tally.figures("")
    assert tally.figures("") is figures and tally.figures("other") is not figures
    for size, seconds in ((0, 0.0), (1, 1e-6), (255, 0.000255), (256, 0.000256), (10**6, 3.0)):
        figures.stored(1, size, seconds)
    tally.shared_commit(2, 7, 0.5)
    totals = tally.totals()
    assert isinstance(figures, Figures) and isinstance(totals.append_bytes, Histogram)
    assert [totals.append_bytes.below(power) for power in (0, 1, 3, 8, 9, 20)] == [1, 2, 3, 4, 5, 6]
    assert (totals.append_bytes.count, totals.chunks, totals.append_bytes.total) == (6, 7, 1_000_519)
    assert totals.append_seconds.below(22) == 6 and totals.append_seconds.below(21) == 5
    assert json.dumps([*totals.append_seconds.powers])
