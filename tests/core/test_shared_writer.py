"""Several writers of one shared stream: each chunk once, whatever happens to the replies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync import (
    ConflictError,
    MemoryStore,
    ResumableStreamContext,
    Status,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
    StreamTakenError,
)


class Lossy(MemoryStore):
    """Loses the next `lost` replies of commits: what they asked for is stored, or is not."""

    lost: list[str]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lost = []

    def commit(self, *arguments: Any, **options: Any) -> str:
        fate = self.lost.pop(0) if self.lost else ""
        if fate == "before":
            raise StoreUnavailableError("lost", fate_unknown=True)
        cursor = super().commit(*arguments, **options)
        if fate:
            raise StoreUnavailableError("lost", fate_unknown=True, transient=fate != "final")
        return cursor


@pytest.fixture
def store() -> Iterator[Lossy]:
    with Lossy(grace=0.5) as made:
        yield made


@pytest.fixture
def context(store: Lossy) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as made:
        yield made


def read(store: MemoryStore) -> bytes:
    return store.read("s").data


def test_several_writers_and_a_viewer(context: ResumableStreamContext) -> None:
    out = context.shared_writer("s", "first", create=True, metadata={"room": "7"})
    pieces = context.require_resume("s")

    def write(name: str) -> None:
        with context.shared_writer("s", name) as other:
            for number in range(200):
                assert other.write(f"{name}{number} ") == number + 1

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.end()
    words = b"".join(pieces).split()
    for name in "abcd":
        assert [word for word in words if word.startswith(name.encode())] == [
            b"%s%d" % (name.encode(), n) for n in range(200)
        ]
    info = context.info("s")
    assert info is not None and info.metadata == {"room": "7"} and info.status is Status.DONE


@pytest.mark.parametrize("lost", [["after"], ["before"], ["after", "after"], ["before", "after", "after"]])
def test_a_lost_reply_stores_once(store: Lossy, context: ResumableStreamContext, lost: list[str]) -> None:
    out = context.shared_writer("s", "me", create=True)
    out.write(b"one ")
    store.lost = list(lost)
    assert out.write(b"two ", b"three ") == 3
    assert read(store) == b"one two three "


def test_the_same_write_after_an_error_is_stored_once(store: Lossy, context: ResumableStreamContext) -> None:
    out = context.shared_writer("s", "me", create=True)
    store.lost = ["final"]
    with pytest.raises(StoreUnavailableError):
        out.write(b"one ")
    assert out.write(b"one ") == 1
    assert out.write(b"one ") == 2, "and then it is another one"
    assert read(store) == b"one one "


@pytest.mark.parametrize("fate, text", [("final", b"one two "), ("before", b"two ")])
def test_another_write_after_an_error_comes_after_what_was_stored(
    store: Lossy, context: ResumableStreamContext, fate: str, text: bytes
) -> None:
    out = context.shared_writer("s", "me", create=True)
    store.lost = [fate] * (1 if fate == "final" else 1000)
    with pytest.raises(StoreUnavailableError):
        out.write(b"one ")
    store.lost = []
    assert out.write(b"two ") == len(text) // 4
    assert read(store) == text


@pytest.mark.parametrize("stored", [0, 1, 2])
def test_of_several_writes_that_failed_the_stored_one_is_found(
    store: Lossy, context: ResumableStreamContext, stored: int
) -> None:
    out = context.shared_writer("s", "me", create=True)
    for number, text in enumerate(("one ", "two ", "three ")):
        store.lost = ["final"] if number == stored else ["before"] * 1000
        with pytest.raises(StoreUnavailableError):
            out.write(text)
    store.lost = []
    assert out.write("three ") == (1 if stored == 2 else 2)
    assert out.write("four ") == (2 if stored == 2 else 3)
    assert read(store) == [b"one three four ", b"two three four ", b"three four "][stored]


def test_an_ending_whose_reply_is_lost(store: Lossy, context: ResumableStreamContext) -> None:
    out = context.shared_writer("s", "me", create=True)
    store.lost = ["after"]
    out.end("error", "no more")
    info = store.info("s")
    assert info is not None and info.status is Status.ERROR and info.error == "no more"
    with pytest.raises(StreamFinalizedError):
        out.write(b"late")


def test_a_restarted_worker_goes_on_from_its_count(context: ResumableStreamContext) -> None:
    items = [b"%d " % number for number in range(10)]
    for stop in (4, 10):
        out = context.shared_writer("s", "worker 1".replace(" ", "-"), create=True)
        for item in items[out.count : stop]:
            out.write(item)
    assert read(context.store) == b"".join(items)  # type: ignore[arg-type]


def test_of_two_with_one_name_the_later_one_counts(context: ResumableStreamContext) -> None:
    first = context.shared_writer("s", "me", create=True)
    first.write(b"one ")
    second = context.shared_writer("s", "me")
    assert second.count == 1
    with pytest.raises(ConflictError):
        first.write(b"lost ")
    assert second.write(b"two ") == 2
    assert read(context.store) == b"one two "  # type: ignore[arg-type]


def test_what_cannot_be_written_to(context: ResumableStreamContext) -> None:
    with pytest.raises(StreamNotFoundError, match="create=True"):
        context.shared_writer("s", "me")
    with context.writer("s"), pytest.raises(StreamTakenError, match="producer"):
        context.shared_writer("s", "me", create=True)
    for name in ("", "with space", "ü", "x" * 201):
        with pytest.raises(ValueError, match="name"):
            context.shared_writer("t", name, create=True)


def test_a_stream_that_was_replaced_is_not_written_to(context: ResumableStreamContext) -> None:
    out = context.shared_writer("s", "me", create=True)
    context.delete("s")
    with pytest.raises(StreamNotFoundError):
        out.write(b"x")
    context.shared_writer("s", "me", create=True)
    with pytest.raises(StreamLostError):
        out.write(b"x")


def test_a_closed_context_writes_nothing(context: ResumableStreamContext) -> None:
    context.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        context.shared_writer("s", "me", create=True)
