"""A batch says the same in each of its shapes, whatever parts its store had it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import Batch, SQLiteStore, Status
from resumable_sync.contract import Position
from resumable_sync.stores import pages


def batch(*parts: bytes, start: int = 10) -> Batch:
    size = start + sum(map(len, parts))
    return Batch(Position(3, start), parts, [len(part) for part in parts], size=size, status=Status.STREAMING)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1), st.data())
def test_all_shapes_say_the_same(chunks: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(chunks)
    offset = data.draw(st.integers(0, len(whole) - 1), "offset")
    max_bytes = data.draw(st.integers(1, len(whole) + 10), "max_bytes")
    many = data.draw(st.integers(1, len(chunks)), "chunks of a page")
    stored: list[pages.Page] = []
    for first in range(0, len(chunks), many):
        stored += pages.pack(chunks[first : first + many], stored[-1][0] if stored else 0)
    found = [page for page in stored if page[0] > offset]
    parts, lengths = pages.unpack(found, offset, max_bytes)
    assert all(parts)
    shape = data.draw(st.permutations(["data", "pieces", "entries", "offset"]), "order of asking")
    made = Batch(Position(3, offset), parts, lengths, size=len(whole), status=Status.STREAMING)
    end = offset + sum(map(len, parts))
    for name in shape:
        if name == "data":
            assert made.data == whole[offset:end]
        elif name == "pieces":
            assert b"".join(made.pieces) == whole[offset:end]
        elif name == "entries":
            assert b"".join(entry.chunk for entry in made.entries) == whole[offset:end]
            assert made.entries[-1].cursor == made.cursor
        else:
            assert (made.offset, made.cursor, made.start) == (end, f"3-{end}", f"3-{offset}")
    # It ends at the end of a chunk: the first one that brings max_bytes, or the last.
    ends = [sum(map(len, chunks[: count + 1])) for count in range(len(chunks))]
    assert end == next((each for each in ends if each >= offset + max_bytes), len(whole))


@pytest.mark.parametrize("parts", [(), (b"",), (b"", b"")])
def test_an_empty_batch_has_no_pieces(parts: tuple[bytes, ...]) -> None:
    empty = Batch(Position(3, 10), parts, (), size=10, status=Status.DONE)
    assert (empty.data, list(empty.pieces), empty.entries, empty.offset) == (b"", [], [], 10)


def test_large_parts_are_handed_out_as_they_are() -> None:
    parts = bytes(65536), b"x" * 65536
    assert [id(piece) for piece in batch(*parts).pieces] == list(map(id, parts))


def test_small_parts_are_joined_once() -> None:
    made = batch(*[b"x"] * 1000)
    assert len(made.pieces) == 1 and made.pieces[0] is made.pieces[0] is made.data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_data_of_any_kind_of_buffer_are_bytes(kind: Callable[[bytes], bytes]) -> None:
    """Of a store of one's own, as they were taken before there were parts."""
    made = Batch(Position(3, 10), kind(b"abc"), (3,), size=13, status=Status.DONE)
    assert (made.data, made.pieces, made.offset) == (b"abc", (b"abc",), 13)
    assert type(made.data) is bytes and type(made.entries[0].chunk) is bytes


def test_no_piece_is_empty() -> None:
    large = bytes(65536)
    assert list(batch(b"", large, b"", large, b"").pieces) == [large, large]


def test_a_viewer_that_waits_is_given_the_parts_as_they_are(tmp_path: Path) -> None:
    """As one that does not."""
    with SQLiteStore(tmp_path / "streams.db") as store:
        assert store.create("s", *[bytes(65536)] * 4, ending="done")
        for timeout in (0.0, 1.0):
            assert [len(piece) for piece in store.read("s", timeout=timeout).pieces] == [65536] * 4
