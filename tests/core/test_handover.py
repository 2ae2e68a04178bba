"""Streams that survive their producer: taking over, going on from the offset, releasing, recovering."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import (
    Lease,
    LeaseLostError,
    LimitExceededError,
    MemoryStore,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamContext,
    Status,
    StoreUnavailableError,
    StreamInfo,
    StreamLostError,
    StreamTakenError,
    UnsupportedError,
    current_producer,
)
from tests.stores.contract.file_store import FileStore
from tests.support import wait_until

TIMEOUT = 60.0
TEXT = [b"%03d " % number for number in range(100)]


class Stores:
    """A store whose producers are lost when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = MemoryStore(grace=100.0, clock=lambda: self.now)

    def orphan(self, *chunks: bytes, handover: float = 1000.0) -> Lease:
        """A stream `s` that has lost its producer after these chunks."""
        lease = self.store.acquire("s", handover=handover)
        assert lease is not None
        self.store.append(lease, *chunks)
        self.lose()
        return lease

    def lose(self) -> None:
        """Whoever produces has been silent for longer than its lease."""
        self.now += 101.0


@pytest.fixture
def stores() -> Stores:
    return Stores()


def rest() -> Iterator[bytes]:
    """A source that can continue."""
    yield from TEXT[current_producer().offset // 4 :]


def read(context: ResumableStreamContext) -> bytes:
    return b"".join(context.require_resume("s"))


def read_back(context: ResumableStreamContext) -> bytes:
    return b"".join(batch.data for batch in context.batches("s", live=False))


@pytest.mark.parametrize("door", ["run", "start", "produce", "writer"])
def test_every_door_goes_on_where_the_bytes_end(stores: Stores, door: str) -> None:
    stores.orphan(*TEXT[:40])
    with ResumableStreamContext(stores.store) as context:
        if door == "run":
            assert b"".join(context.run("s", rest, handover=1000)) == b"".join(TEXT)
        elif door == "start":
            assert context.start("s", rest, handover=1000)
        elif door == "produce":
            assert context.produce("s", rest, handover=1000) is Status.DONE
        else:
            with context.writer("s", handover=1000) as out:
                for chunk in TEXT[out.offset // 4 :]:
                    out.write(chunk)
        assert read(context) == b"".join(TEXT)
        info = context.info("s")
        assert info is not None and info.term == 2 and info.status is Status.DONE


def test_a_source_that_cannot_continue_is_only_followed(stores: Stores) -> None:
    stores.orphan(b"half")
    with ResumableStreamContext(stores.store) as context:
        assert not context.start("s", rest)
        assert context.produce("s", rest) is Status.STREAMING
        with pytest.raises(StreamTakenError):
            context.writer("s").__enter__()


def test_a_stream_that_somebody_produces_is_not_taken_over(stores: Stores) -> None:
    stores.store.acquire("s", handover=10)
    with ResumableStreamContext(stores.store) as context:
        assert not context.start("s", rest, handover=10)
        assert context.produce("s", rest, handover=10) is Status.STREAMING


def test_a_source_that_has_not_asked_for_its_offset_stores_nothing(stores: Stores) -> None:
    stores.orphan(b"half")
    with ResumableStreamContext(stores.store) as context:
        pieces = context.run("s", lambda: [b"from the start"], handover=1000)
        assert next(pieces) == b"half"
        with pytest.raises(ProducerFailedError, match="goes? on|go on"):
            next(pieces)
        info = context.info("s")
        assert info is not None and info.size == 4 and info.status is Status.ERROR


def test_a_writer_that_has_not_asked_for_its_offset_stores_nothing(stores: Stores) -> None:
    stores.orphan(b"half")
    with ResumableStreamContext(stores.store) as context:
        with pytest.raises(RuntimeError, match="offset"):
            with context.writer("s", handover=1000) as out:
                out.write(b"from the start")
        info = context.info("s")
        assert info is not None and info.size == 4 and info.status is Status.ERROR


def test_viewers_wait_for_the_next_term(stores: Stores) -> None:
    stores.orphan(*TEXT[:40])
    with ResumableStreamContext(stores.store) as context:
        pieces = context.require_resume("s")
        assert next(pieces) == b"".join(TEXT[:40])
        left: list[bytes] = []
        viewer = threading.Thread(target=lambda: left.extend(pieces))
        viewer.start()
        assert context.produce("s", rest, handover=1000) is Status.DONE
        viewer.join(TIMEOUT)
        assert b"".join(left) == b"".join(TEXT[40:])


def slow(begun: threading.Event) -> Callable[[], Iterator[bytes]]:
    """A source that waits after its 40th chunk until it is told to stop."""

    def make_stream() -> Iterator[bytes]:
        producer = current_producer()
        yield from TEXT[producer.offset // 4 : 40]
        begun.set()
        producer.cancelled.wait(TIMEOUT)
        yield b"not stored"

    return make_stream


def test_close_releases_what_can_be_continued() -> None:
    errors: list[tuple[str, BaseException]] = []
    endings: list[object] = []
    begun = threading.Event()
    with MemoryStore() as store:
        context = ResumableStreamContext(
            store,
            on_error=lambda stream_id, error: errors.append((stream_id, error)),
            on_finalize=lambda *ending: endings.append(ending),
        )
        assert context.start("s", slow(begun), handover=1000)
        assert begun.wait(TIMEOUT)
        assert not context.close()
        info = store.info("s")
        assert (
            info is not None and info.status is Status.STREAMING and not info.producer_alive and info.size == 160
        )
        assert [stream_id for stream_id, _ in errors] == ["s"] and not endings
        assert isinstance(errors[0][1], ProducerInterruptedError)
        with ResumableStreamContext(store) as second:
            assert second.produce("s", rest, handover=1000) is Status.DONE
            assert read(second) == b"".join(TEXT)


def test_what_cannot_be_continued_is_interrupted_by_a_close() -> None:
    begun = threading.Event()
    with MemoryStore() as store:
        context = ResumableStreamContext(store)
        context.start("s", slow(begun))
        assert begun.wait(TIMEOUT)
        context.close()
        assert store.status("s") is Status.INTERRUPTED


def test_produce_says_that_its_stream_was_released() -> None:
    begun = threading.Event()
    with MemoryStore() as store:
        context = ResumableStreamContext(store)
        raised: list[BaseException] = []

        def produce() -> None:
            try:
                context.produce("s", slow(begun), handover=1000)
            except ProducerInterruptedError as error:
                raised.append(error)

        thread = threading.Thread(target=produce)
        thread.start()
        assert begun.wait(TIMEOUT)
        context.close()
        thread.join(TIMEOUT)
        assert len(raised) == 1 and store.status("s") is Status.STREAMING


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_writer_that_is_broken_off_releases(raised: type[BaseException]) -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        with pytest.raises(raised):
            with context.writer("s", handover=1000) as out:
                out.write(b"half")
                raise raised
        info = store.info("s")
        assert info is not None and info.status is Status.STREAMING and info.size == 4
        with context.writer("s", handover=1000) as out:
            assert out.offset == 4
            out.write(b" and half")
        assert read(context) == b"half and half"


def test_a_producer_that_was_superseded_is_told_and_adds_nothing(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = []
    begun = threading.Event()
    first = ResumableStreamContext(stores.store, heartbeat=0.05, on_error=lambda _, error: errors.append(error))
    second = ResumableStreamContext(stores.store)
    with first, second:
        renew = stores.store.renew
        stores.store.renew = lambda leases: [None] * len(leases)  # type: ignore[method-assign]
        first.start("s", slow(begun), handover=1000)
        assert begun.wait(TIMEOUT)
        wait_until(lambda: len(read_back(first)) == 160, TIMEOUT, "the first part is stored")
        stores.lose()
        assert second.produce("s", rest, handover=1000) is Status.DONE
        stores.store.renew = renew  # type: ignore[method-assign]
        for production in list(first._running.get().producers):
            assert production.ended.wait(TIMEOUT)
        assert read(second) == b"".join(TEXT)
        assert errors and isinstance(errors[0], LeaseLostError)
    assert not caplog.records, "that is as it is meant to be"


def test_notes_are_stored_with_the_chunk_that_follows(stores: Stores) -> None:
    def make_stream() -> Iterator[bytes]:
        producer = current_producer()
        page = int(producer.notes().get("page", "0"))
        for number in range(page, 5):
            producer.set_notes({"page": str(number + 1)})
            yield b"x" * (number + 1)  # pages of any length: the offset does not tell which comes next

    lease = stores.store.acquire("s", handover=1000)
    assert lease is not None
    stores.store.append(lease, b"x", notes={"page": "1"})
    stores.store.append(lease, b"xx", notes={"page": "2"})
    stores.lose()
    with ResumableStreamContext(stores.store) as context:

        def continued() -> Iterator[bytes]:
            assert current_producer().offset == 3
            return make_stream()

        assert context.produce("s", continued, handover=1000) is Status.DONE
        info = context.info("s")
        assert info is not None and info.size == 15 and info.notes == {"page": "5"}


def test_malformed_notes_are_refused_where_they_are_set(stores: Stores) -> None:
    with ResumableStreamContext(stores.store) as context, pytest.raises(ValueError, match="name of a note"):
        with context.writer("s") as out:
            out.set_notes({"": "x"})


def test_a_store_without_takeover_says_so(tmp_path: object) -> None:
    with FileStore(Path(str(tmp_path))) as store, ResumableStreamContext(store) as context:
        with pytest.raises(UnsupportedError, match="takeover"):
            context.start("s", rest, handover=10)
        with pytest.raises(UnsupportedError, match="shared"):
            context.shared_writer("s", "me")
        with context.writer("s") as out, pytest.raises(UnsupportedError, match="notes|shared"):
            out.set_notes({"a": "b"})
            out.write(b"x")


@pytest.mark.parametrize("handover", [-1, float("nan"), float("inf"), 1e11])
def test_bad_handover(stores: Stores, handover: float) -> None:
    with ResumableStreamContext(stores.store) as context, pytest.raises(ValueError, match="handover"):
        context.start("s", rest, handover=handover)


def test_recover_goes_on_with_orphans(stores: Stores) -> None:
    lease = stores.orphan(*TEXT[:40])
    asked: list[StreamInfo] = []

    def recover(info: StreamInfo) -> Callable[[], Iterator[bytes]] | None:
        asked.append(info)
        return rest

    with ResumableStreamContext(stores.store, recover=recover) as context:
        assert not asked, "the constructor begins nothing"
        assert read(context) == b"".join(TEXT)
    assert [(info.stream_id, info.generation, info.term) for info in asked] == [("s", lease.generation, 1)]


def test_recover_is_asked_once_for_a_term(stores: Stores) -> None:
    stores.orphan(b"half")
    asked: list[StreamInfo] = []
    again = threading.Event()
    orphans = stores.store.orphans

    def count_questions() -> Iterator[str]:
        if asked:
            again.set()
        return orphans()

    stores.store.orphans = count_questions  # type: ignore[method-assign]
    with ResumableStreamContext(stores.store, recover=lambda info: asked.append(info)) as context:
        context.status("s")
        assert again.wait(TIMEOUT)
        again.clear()
        assert again.wait(TIMEOUT)
    assert len(asked) == 1


@pytest.mark.parametrize("refusal", [None, StoreUnavailableError("away")], ids=["taken", "away"])
def test_what_could_not_be_taken_over_at_once_is_tried_again(
    stores: Stores, refusal: StoreUnavailableError | None
) -> None:
    """The lost producer may have come back, and be lost again in the same term; `recover` is asked once."""
    stores.orphan(*TEXT[:40])
    asked: list[StreamInfo] = []
    tried: list[str] = []
    take_over = stores.store.take_over

    def refuse_first(stream_id: str, generation: int) -> Lease | None:
        tried.append(stream_id)
        if len(tried) > 2:
            return take_over(stream_id, generation)
        if refusal is not None:
            raise refusal
        return None

    def recover(info: StreamInfo) -> Callable[[], Iterator[bytes]]:
        asked.append(info)
        return rest

    stores.store.take_over = refuse_first  # type: ignore[method-assign]
    with ResumableStreamContext(stores.store, recover=recover) as context:
        assert read(context) == b"".join(TEXT)
    assert len(tried) == 3 and len(asked) == 1


def test_a_server_that_is_away_keeps_nothing_else_from_recovery() -> None:
    """Streams of others are taken over, and of those that wait one call is made in each round."""
    calls: list[str] = []

    class TwoServers(MemoryStore):
        def route(self, stream_id: str) -> str:
            return stream_id.partition("-")[0]

        def info(self, stream_id: str) -> StreamInfo | None:
            if self.route(stream_id) == "away":
                calls.append(stream_id)
                raise StoreUnavailableError("away")
            return super().info(stream_id)

        def orphans(self) -> Iterator[str]:
            calls.append("round")
            return iter(["away-1", "away-2", "s"])

    with TwoServers() as store:
        lease = store.acquire("s", handover=1000)
        assert lease is not None
        store.release(lease)
        with ResumableStreamContext(store, recover=lambda info: rest) as context:
            assert read(context) == b"".join(TEXT)
    assert calls.count("away-1") >= 1 and "away-2" not in calls


def test_what_recover_raises_is_logged(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    stores.orphan(b"half")
    called = threading.Event()

    def recover(info: StreamInfo) -> None:
        called.set()
        raise ValueError("no such job")

    with ResumableStreamContext(stores.store, recover=recover) as context:
        context.status("s")
        assert called.wait(TIMEOUT)
    while "could not be recovered" not in caplog.text:
        threading.Event().wait(0.001)
    assert "no such job" in caplog.text


def test_a_full_context_asks_nobody(stores: Stores) -> None:
    asked: list[StreamInfo] = []
    checked = threading.Event()
    with ResumableStreamContext(stores.store, recover=lambda info: asked.append(info), max_producers=1) as context:
        with context.writer("other"):
            stores.orphan(b"half")
            may = context._may_continue

            def count() -> bool:
                checked.set()
                return may()

            context._may_continue = count  # type: ignore[method-assign]
            assert checked.wait(TIMEOUT)
            assert not asked


def test_a_full_context_refuses_what_it_would_take_over(stores: Stores) -> None:
    with ResumableStreamContext(stores.store, max_producers=1) as context:
        lease = stores.store.acquire("s", handover=1000)
        assert lease is not None
        stores.store.release(lease)
        with context.writer("other"):
            for door in (context.run, context.start, context.produce):
                with pytest.raises(LimitExceededError, match="max_producers"):
                    door("s", rest, handover=1000)
            with pytest.raises(LimitExceededError, match="max_producers"):
                context.writer("s", handover=1000).__enter__()
            assert not context.start("s", rest), "what cannot continue is only followed"
        info = context.info("s")
        assert info is not None and info.term == 1


@pytest.mark.parametrize(
    "damage", [StoreUnavailableError("damaged", transient=False), StreamLostError("damaged")], ids=["file", "lost"]
)
def test_a_damaged_orphan_keeps_no_other_from_recovery(stores: Stores, damage: Exception) -> None:
    info = stores.store.info

    def fail_for_damaged(stream_id: str) -> StreamInfo | None:
        if stream_id == "damaged":
            raise damage
        return info(stream_id)

    lease = stores.store.acquire("damaged", handover=1000)
    assert lease is not None
    stores.store.release(lease)
    stores.orphan(*TEXT[:40])
    assert list(stores.store.orphans()) == ["damaged", "s"]
    stores.store.info = fail_for_damaged  # type: ignore[method-assign]
    with ResumableStreamContext(stores.store, recover=lambda info: rest) as context:
        assert read(context) == b"".join(TEXT)


@pytest.mark.parametrize("executor", [True, False], ids=["executor", "thread"])
def test_a_process_that_cannot_produce_spends_one_term(
    stores: Stores, executor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would soon have taken so many terms that store nothing that the stream ends."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    lease = stores.orphan(*TEXT[:40])
    rounds: list[int] = []
    orphans = stores.store.orphans

    def count() -> Iterator[str]:
        rounds.append(1)
        return orphans()

    def refuse(*_: object) -> None:
        raise StoreUnavailableError("no thread")

    def launch(context: ResumableStreamContext, pump: object) -> None:
        refuse()

    stores.store.orphans = count  # type: ignore[method-assign]
    if not executor:
        monkeypatch.setattr(ResumableStreamContext, "_launch", launch)
    with ResumableStreamContext(
        stores.store, executor=pool if executor else None, recover=lambda info: rest
    ) as context:
        context.status("s")
        wait_until(lambda: len(rounds) >= 4, TIMEOUT, "recovery has looked again and again")
    info = stores.store.info("s")
    assert info is not None and info.status is Status.STREAMING and info.term == 2
    assert stores.store.take_over("s", lease.generation) is not None


def test_recovery_that_could_not_begin_is_tried_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailableError("no thread")

    stores.orphan(*TEXT[:40])
    with ResumableStreamContext(stores.store, recover=lambda info: rest) as context:
        with monkeypatch.context() as patch:
            patch.setattr("resumable_sync.recovery.start_thread", refuse)
            with pytest.raises(StoreUnavailableError, match="no thread"):
                context.status("s")
        assert read(context) == b"".join(TEXT)


class SharedMemory(MemoryStore):
    """As one that other processes have, too."""

    @property
    def shared(self) -> bool:
        return True


def test_a_drain_does_not_wait_for_a_source_whose_stream_was_released() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def make_stream() -> Iterator[bytes]:
        yield from TEXT[current_producer().offset // 4 : 40]
        begun.set()
        goes_on.wait(TIMEOUT)

    closed: list[bool] = []
    with SharedMemory() as store:
        context = ResumableStreamContext(store)
        context.start("s", make_stream, handover=1000)
        assert begun.wait(TIMEOUT)
        drain = threading.Thread(target=lambda: closed.append(context.close(1000, drain=True)))
        drain.start()
        drain.join(TIMEOUT)
        goes_on.set()
        assert closed == [False]
        assert list(store.orphans()) == ["s"]


def test_what_is_elected_as_a_drain_begins_is_released() -> None:
    electing, goes_on = threading.Event(), threading.Event()

    class Slow(SharedMemory):
        def acquire(self, *arguments: Any, **options: Any) -> Lease | None:
            electing.set()
            assert goes_on.wait(TIMEOUT)
            return super().acquire(*arguments, **options)

    closed: list[bool] = []
    with Slow() as store:
        context = ResumableStreamContext(store)
        elect = threading.Thread(target=lambda: context.start("s", slow(threading.Event()), handover=1000))
        elect.start()
        assert electing.wait(TIMEOUT)
        drain = threading.Thread(target=lambda: closed.append(context.close(1000, drain=True)))
        drain.start()
        wait_until(lambda: context.closed, TIMEOUT, "it drains")
        goes_on.set()
        for thread in (elect, drain):
            thread.join(TIMEOUT)
        assert closed == [False]
        assert list(store.orphans()) == ["s"]


def test_recover_wants_a_store_with_takeover(tmp_path: object) -> None:
    class Plain:
        grace = 1.0

    with pytest.raises(UnsupportedError, match="takeover"):
        ResumableStreamContext(Plain(), recover=lambda info: None)  # type: ignore[arg-type]
