"""Resuming at any byte, and cursors and ids of any shape (G1, G10)."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resumable_sync import InvalidCursorError, InvalidStreamIdError, ResumableStreamContext, Store, StreamLostError
from resumable_sync.contract import parse_cursor, validate_stream_id

from ...backends import Backend
from .conftest import Report
from .rounds import rounds
from .source import chunks, text

SIZE = 300_000


def _fill(store: Store, stream_id: str, pause: threading.Event | None = None) -> str:
    """Make a stream of SIZE bytes; returns its end. With `pause` (never set) it takes a second or so."""
    lease = store.acquire(stream_id)
    assert lease is not None
    rest = SIZE
    for chunk in chunks(1, largest=5000):
        store.append(lease, chunk[:rest])
        rest -= len(chunk[:rest])
        if not rest:
            break
        if pause is not None:
            pause.wait(0.002)
    store.finalize(lease, "done")
    return lease.cursor


@pytest.mark.parametrize("live", [False, True], ids=["ended", "live"])
@rounds(500, 5000)
def test_cut_anywhere(backend: Backend, live: bool, rounds: int, report: Report) -> None:
    """A reader is cut at random bytes, and each time resumes there: together the exact bytes."""
    store = backend.make()
    context = ResumableStreamContext(store, read_bytes=4096)
    rng = random.Random(7)
    cuts = sorted(rng.sample(range(SIZE), rounds))
    writer: threading.Thread | None = None
    if live:
        writer = threading.Thread(target=_fill, args=(store, "cut", threading.Event()))
        writer.start()
        while context.resume("cut") is None:
            threading.Event().wait(0.001)
    else:
        _fill(store, "cut")
    generation = store.read("cut", max_bytes=1).generation
    got = bytearray()
    for cut in [*cuts, SIZE]:
        for piece in context.require_resume("cut", f"{generation}-{len(got)}"):
            got += piece[: cut - len(got)]  # the connection breaks within a piece
            if len(got) == cut:
                break
    assert bytes(got) == text(0, SIZE)
    assert list(context.require_resume("cut", f"{generation}-{SIZE}")) == []
    if writer is not None:
        writer.join()
    store.close()
    report(cuts=rounds)


numbers = st.one_of(
    st.integers(min_value=-(10**20), max_value=10**20), st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64])
)
cursors = st.one_of(
    st.text(max_size=40),
    st.text("0123456789-+ _.e\x00\n", max_size=40),
    st.builds("{}-{}".format, numbers, numbers),
    st.builds("{}{}-{}{}".format, st.sampled_from(("", " ", "0", "+")), numbers, numbers, st.sampled_from("\n ")),
)


@rounds(150, 100_000)
def test_any_cursor(backend: Backend, rounds: int) -> None:
    """Whatever the cursor, the answer is the exact rest of the stream or a typed error."""
    store = backend.make()
    lease = store.acquire("target")
    assert lease is not None
    store.append(lease, text(0, 100))

    @settings(max_examples=rounds, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(cursors, st.builds("{}-{}".format, st.just(lease.generation), numbers)))
    def check(cursor: str) -> None:
        try:
            position = parse_cursor(cursor)
        except InvalidCursorError:
            with pytest.raises(InvalidCursorError):
                store.read("target", cursor)
            return
        try:
            batch = store.read("target", cursor)
        except StreamLostError:
            assert position is not None and position.generation != lease.generation
        except InvalidCursorError:
            assert position is not None and position.offset > 100
        else:
            assert position is None or str(position) == cursor
            offset = 0 if position is None else position.offset
            assert batch.data == text(offset, 100) and batch.cursor == lease.cursor

    check()
    store.close()


@rounds(150, 100_000)
def test_any_stream_id(backend: Backend, rounds: int) -> None:
    """Whatever the id, it names a stream of its own or is refused; nothing else happens."""
    store = backend.make()
    alphabet = "ABCxyz019_.:-"

    @settings(max_examples=rounds, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.one_of(
            st.text(max_size=300),
            st.text(alphabet, max_size=300),
            st.text(alphabet + "/\\ '\"%*\x00\n", max_size=12),
            st.sampled_from(["a" * 256, "a" * 257, "", ".", "..", "é", "a\n", "-", "id;--"]),
        )
    )
    def check(stream_id: str) -> None:
        good = 1 <= len(stream_id) <= 256 and set(stream_id) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-"
        )
        if not good:
            for call in (validate_stream_id, store.acquire, store.read, store.status, store.cancel, store.delete):
                with pytest.raises(InvalidStreamIdError):
                    call(stream_id)
            return
        lease = store.acquire(stream_id)
        assert lease is not None
        try:
            store.append(lease, stream_id.encode())
            assert store.read(stream_id).data == stream_id.encode()
        finally:
            assert store.delete(stream_id)

    check()
    assert list(store.streams()) == []
    store.close()
