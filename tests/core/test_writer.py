"""Streams that are pushed: a writer as a context manager and as a file, and how its stream ends."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import logging
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable_sync import (
    LeaseLostError,
    LimitExceededError,
    MemoryStore,
    ProducerInterruptedError,
    ResumableStreamContext,
    ResumableStreamError,
    Status,
    Store,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamTakenError,
    Writer,
)
from resumable_sync.testing.kit import drain

from ..backends import Backend
from ..support import PATIENCE, wait_until

TIMEOUT = 30.0


@pytest.fixture
def context(store: Store) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store, heartbeat=0.1) as made:
        yield made


class Fault(Exception):
    """Of the application."""


def stored(context: ResumableStreamContext, stream_id: str = "s") -> tuple[bytes, Status]:
    return drain(context.store, stream_id)[0], context.status(stream_id)


def test_what_is_written_is_the_stream(context: ResumableStreamContext) -> None:
    with context.writer("s", metadata={"by": "hand"}) as out:
        assert out.stream_id == "s" and not out.closed and out.writable()
        assert out.write(b"bytes, ") == 7
        assert out.write("t\u00e4xt") == 4
        assert out.write(b"") == 0
        out.flush()
        assert out.offset == 12 and stored(context) == ("bytes, t\u00e4xt".encode(), Status.STREAMING)
        viewer = context.require_resume("s")
        assert next(viewer) == "bytes, t\u00e4xt".encode()
    assert out.closed and out.ended.is_set() and list(viewer) == []
    info = context.info("s")
    assert info is not None and info.status is Status.DONE and info.metadata == {"by": "hand"}
    with pytest.raises(StreamFinalizedError):
        out.write(b"late")
    out.close()


def test_a_large_write_is_split(context: ResumableStreamContext) -> None:
    size = context.store.max_chunk_bytes
    with context.writer("s") as out:
        out.write(b"x" * (2 * size + 1))
    info = context.info("s")
    assert info is not None and info.size == 2 * size + 1 and info.entries == 3


def test_a_stream_that_is_taken(context: ResumableStreamContext) -> None:
    context.produce("s", lambda: [b"x"])
    with pytest.raises(StreamTakenError) as raised:
        with context.writer("s"):
            raise AssertionError("not elected")
    assert raised.value.code == "taken" and raised.value.http_status == 409
    with context.writer("s", restart={"done"}) as out:
        out.write(b"anew")
    assert stored(context) == (b"anew", Status.DONE)


def test_an_exception_ends_the_stream_as_an_error(context: ResumableStreamContext) -> None:
    errors: list[BaseException] = []
    with ResumableStreamContext(context.store, on_error=lambda _, error: errors.append(error)) as watching:
        with pytest.raises(Fault):
            with watching.writer("s") as out:
                out.write(b"so far")
                raise Fault("why")
    info = context.info("s")
    assert info is not None and info.error == "Fault: why" and stored(context) == (b"so far", Status.ERROR)
    assert [type(error) for error in errors] == [Fault]


@pytest.mark.parametrize("late", [b"", b"late"])
def test_a_producer_that_finds_itself_superseded_at_its_ending_tells_it_once(
    context: ResumableStreamContext, late: bytes
) -> None:
    errors: list[BaseException] = []
    with ResumableStreamContext(context.store, on_error=lambda _, error: errors.append(error)) as watching:
        with contextlib.suppress(LeaseLostError, StreamLostError):
            with watching.writer("s") as out:
                out.write(b"stored")
                out.flush()
                context.store.delete("s")
                context.produce("s", lambda: [b"other"])
                if late:
                    out.write(late)
    assert [type(error) for error in errors] in ([LeaseLostError], [StreamLostError])
    assert stored(context) == (b"other", Status.DONE)


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_process_that_is_told_to_end_interrupts_its_stream(
    context: ResumableStreamContext, leaving: type[BaseException]
) -> None:
    with pytest.raises(leaving):
        with context.writer("s") as out:
            out.write(b"so far")
            raise leaving
    assert stored(context) == (b"so far", Status.INTERRUPTED)


@pytest.mark.parametrize("error, text", [("why", "why"), (Fault("why"), "Fault: why")])
def test_a_stream_can_be_failed(context: ResumableStreamContext, error: Any, text: str) -> None:
    with context.writer("s") as out:
        out.write(b"so far")
        out.fail(error)
        with pytest.raises(StreamFinalizedError) as raised:
            out.write(b"late")
        assert raised.value.status == "error"
        out.fail("again")
    info = context.info("s")
    assert info is not None and info.error == text and stored(context) == (b"so far", Status.ERROR)


def test_a_writer_that_is_cancelled_elsewhere_learns_of_it(backend: Backend, store: Store) -> None:
    elsewhere = backend.second(store)
    told = threading.Event()
    with ResumableStreamContext(store, heartbeat=0.1) as context:
        with pytest.raises(StreamFinalizedError) as raised:
            with context.writer("s") as out:
                out.on_cancel(told.set)
                out.write(b"so far")
                out.flush()
                assert elsewhere.cancel("s")
                assert told.wait(TIMEOUT) and out.cancelled.is_set()  # though it writes nothing
                out.write(b"late")
        assert raised.value.status == "cancelled" and stored(context) == (b"so far", Status.CANCELLED)
        with pytest.raises(StreamFinalizedError):
            with context.writer("t") as out:
                out.write(b"x")
                out.flush()
                elsewhere.cancel("t")
        assert context.status("t") is Status.CANCELLED  # not done, though the block has ended well
        with pytest.raises(StreamLostError):
            with context.writer("u") as out:
                out.write(b"x")
                out.flush()
                elsewhere.delete("u")
    if elsewhere is not store:
        elsewhere.close()


@pytest.mark.parametrize("method", ["write", "flush"])
def test_an_error_that_is_told_again_and_again_keeps_nothing_of_the_calls_before(method: str) -> None:
    """Such as to a logging handler, which swallows it."""
    with ResumableStreamContext(MemoryStore()) as context, contextlib.suppress(StreamFinalizedError):
        with context.writer("s") as out:
            out.write(b"x")
            out.flush()
            assert context.cancel("s")
            depths: list[int] = []
            while len(depths) < 5:
                try:
                    out.write(b"y") if method == "write" or not depths else out.flush()
                except StreamFinalizedError as finalized:
                    depths.append(len(list(traceback.walk_tb(finalized.__traceback__))))
            assert len(set(depths[1:])) == 1


def test_closing_the_context_interrupts_a_writer(store: Store) -> None:
    context = ResumableStreamContext(store)
    with pytest.raises(ProducerInterruptedError):
        with context.writer("s") as out:
            out.write(b"so far")
            assert not context.close()
            out.write(b"late")
    assert stored(context) == (b"so far", Status.INTERRUPTED)
    other = ResumableStreamContext(store)
    with pytest.raises(ProducerInterruptedError):  # also where it writes nothing more
        with other.writer("t") as out:
            out.write(b"x")
            other.close()


def test_a_write_that_comes_before_the_ending_of_a_closing_context_makes_no_error(
    context: ResumableStreamContext,
) -> None:
    """The context refuses chunks first, and ends the stream later: whoever leaves in between says how it ends."""
    with pytest.raises(ProducerInterruptedError):
        with context.writer("w") as out:
            out.write(b"so far")
            out._production.stop()
            out.write(b", and the rest")
    info = context.info("w")
    assert info is not None and (info.status, info.size) == (Status.INTERRUPTED, 6)


def test_what_does_not_fit_is_an_error() -> None:
    store = MemoryStore(max_stream_bytes=10)
    with ResumableStreamContext(store) as context:
        with pytest.raises(LimitExceededError) as raised:
            with context.writer("s") as out:
                out.write(b"x" * 8)
                out.write(b"y" * 8)
                out.flush()
        assert raised.value.limit == "max_stream_bytes" and stored(context) == (b"x" * 8, Status.ERROR)
    store.close()


def test_a_writer_that_hangs_between_writes_ends_as_an_error(context: ResumableStreamContext) -> None:
    with pytest.raises(TimeoutError, match="0.2 s"):
        with context.writer("s", idle_timeout=0.2) as out:
            out.write(b"so far")
            assert out.cancelled.wait(TIMEOUT) and out.ended.wait(TIMEOUT)
    assert stored(context) == (b"so far", Status.ERROR)


def test_a_writer_that_is_dropped_lets_go() -> None:
    """Renewals never outlive their owner: the lease runs out."""
    store = MemoryStore(grace=1.0)
    with ResumableStreamContext(store, max_producers=1) as context:
        out = context.writer("s").__enter__()
        out.write(b"so far")
        out.flush()
        until = time.monotonic() + 2 * store.grace
        while time.monotonic() < until:
            assert store.status("s") is Status.STREAMING
            time.sleep(0.02)
        del out
        gc.collect()
        wait_until(lambda: store.status("s") is Status.INTERRUPTED)
        wait_until(lambda: not context._running.get().producers)  # its place is free again
        with context.writer("t") as out:
            out.write(b"x")
    store.close()


def test_misuse_is_told() -> None:
    with ResumableStreamContext(MemoryStore()) as context:
        out = context.writer("s")
        with pytest.raises(ValueError, match="enter"):
            out.write(b"x")
        assert context.status("s") is Status.MISSING
        with out:
            with pytest.raises(TypeError, match="bytes or str"):
                out.write(7)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="once"):
                out.__enter__()
        with pytest.raises(ValueError, match="once"):
            out.__enter__()


def test_it_is_enough_of_a_file(context: ResumableStreamContext) -> None:
    with context.writer("csv") as out:
        csv.writer(out).writerows([["a", "b"], ["\u00e4", 2]])
    assert stored(context, "csv")[0].decode() == "a,b\r\n\u00e4,2\r\n"
    with context.writer("print") as out:
        print("a", 1, file=out, flush=True)
    assert stored(context, "print")[0] == b"a 1\n"
    with context.writer("copy") as out:
        shutil.copyfileobj(io.BytesIO(b"x" * 100_000), out)
    assert stored(context, "copy")[0] == b"x" * 100_000
    logger = logging.getLogger("tests.writer")
    logger.propagate = False
    with context.writer("log") as out:
        handler = logging.StreamHandler(out)
        logger.addHandler(handler)
        logger.warning("one")
        logger.error("two")
        logger.removeHandler(handler)
    assert stored(context, "log")[0] == b"one\ntwo\n"


def test_many_threads_write_whole_chunks(context: ResumableStreamContext) -> None:
    with context.writer("s") as out:

        def write(number: int) -> None:
            for count in range(100):
                out.write(b"<%d:%d>" % (number, count))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    data = stored(context)[0].decode()
    pieces = data[1:-1].split("><")
    assert len(pieces) == 600
    for number in range(6):  # each thread's own are in order
        assert [piece for piece in pieces if piece.startswith(f"{number}:")] == [
            f"{number}:{n}" for n in range(100)
        ]


Step = st.one_of(
    st.tuples(st.just("write"), st.binary(min_size=1, max_size=20)),
    st.tuples(
        st.sampled_from(["flush", "cancel", "close", "drain", "raise", "fail", "leave", "delete"]), st.none()
    ),
)


@settings(deadline=None)
@given(steps=st.lists(Step, max_size=12), threaded=st.booleans())
def test_whatever_happens_there_is_one_ending_after_all_that_was_acknowledged(
    steps: list[tuple[str, Any]], threaded: bool
) -> None:
    """G2, G5: random interleavings of writes, flushes, cancels, closes, drains and exceptions."""
    endings: list[Status] = []
    store = MemoryStore()
    context = ResumableStreamContext(store, on_finalize=lambda _, status, error: endings.append(status))
    written, acknowledged = b"", 0
    others: list[threading.Thread] = []

    def meddle(action: Any) -> None:
        if threaded:
            others.append(threading.Thread(target=action))
            others[-1].start()
        else:
            action()

    def work(out: Writer) -> None:
        nonlocal written, acknowledged
        for step, data in steps:
            if step == "write":
                out.write(data)
                written += data
            elif step == "flush":
                out.flush()
                acknowledged = len(written)
            elif step == "cancel":
                meddle(lambda: context.cancel("s"))
            elif step == "delete":
                meddle(lambda: context.delete("s"))
            elif step == "close":
                meddle(lambda: context.close(1.0))
            elif step == "drain":
                meddle(lambda: context.close(0.05, drain=True))
            elif step == "fail":
                out.fail("why")
            elif step == "raise":
                raise Fault
            else:
                return

    try:
        with context.writer("s") as out:
            work(out)
    except (ResumableStreamError, Fault):
        pass
    for thread in others:
        thread.join(PATIENCE)
    deleted = store.status("s") is Status.MISSING
    assert deleted or store.status("s").ended
    if not deleted:
        data, batch = drain(store, "s")
        assert written.startswith(data) and len(data) >= acknowledged
        assert (data == written) or batch.status is not Status.DONE
        assert len(endings) <= 1 and all(ending is batch.status for ending in endings)
    assert not context._running.get().producers
    context.close()
    store.close()


def test_a_store_that_is_away_for_the_grace_time_is_told() -> None:
    class Away(MemoryStore):
        away = False

        def append_many(self, batches: Any, *rest: Any) -> Any:
            if self.away:
                return [StoreUnavailableError("away")] * len(batches)
            return super().append_many(batches, *rest)

    store = Away(grace=1.0)
    with ResumableStreamContext(store) as context:
        with pytest.raises(StoreUnavailableError):
            with context.writer("s") as out:
                out.write(b"stored")
                out.flush()
                store.away = True
                out.write(b"not stored")
                out.flush()
        assert stored(context)[0] == b"stored" and context.status("s").ended
    store.close()
