"""How chunks are packed into the rows that a store keeps, and cut out of them again. Pure functions."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence

from ..errors import StreamLostError

PAGE_BYTES = 64 * 1024
"""Payload of a row at most, but for a single larger chunk. Bounds what a read loads beyond what it asked for."""

_PAGE_CHUNKS = 4096
_IS_LITTLE_ENDIAN = sys.byteorder == "little"

Page = tuple[int, bytes, "bytes | None"]
"""(end, payload, lengths): the offset after the payload, and the lengths of its chunks as little-endian
uint32; None for a single chunk."""


def pack(chunks: Sequence[bytes], offset: int) -> list[Page]:
    """Pack chunks that begin at `offset` into as few pages as their sizes allow."""
    pages: list[Page] = []
    held: list[bytes] = []
    held_bytes = 0
    for chunk in chunks:
        if held and (held_bytes + len(chunk) > PAGE_BYTES or len(held) == _PAGE_CHUNKS):
            offset += held_bytes
            pages.append(_page(held, offset))
            held, held_bytes = [], 0
        held.append(chunk)
        held_bytes += len(chunk)
    if held:
        pages.append(_page(held, offset + held_bytes))
    return pages


def _page(chunks: list[bytes], end: int) -> Page:
    if len(chunks) == 1:
        return end, chunks[0], None
    return end, b"".join(chunks), _as_little_endian(array("I", map(len, chunks))).tobytes()


def unpack(pages: Iterable[Page], offset: int, max_bytes: int) -> tuple[bytes, Sequence[int]]:
    """The bytes from `offset` on, and the lengths of the chunks they make up, the first one cut.

    Takes pages in order until `max_bytes` are reached; of the last page only the chunks up to there.
    StreamLostError if a page is missing.
    """
    payloads: list[bytes] = []
    lengths = array("I")
    total = skip = previous = 0
    for end, payload, packed in pages:
        begin = end - len(payload)
        if not payloads:
            skip = offset - begin
        if skip < 0 or (payloads and begin != previous):
            raise StreamLostError(f"the bytes before offset {begin} are missing from the store")
        previous = end
        payloads.append(payload)
        total += len(payload)
        if packed is None:
            lengths.append(len(payload))
        elif _IS_LITTLE_ENDIAN:
            lengths.frombytes(packed)
        else:
            lengths += _as_little_endian(array("I", packed))
        if total - skip >= max_bytes:
            break
    if not payloads:
        raise StreamLostError(f"the bytes after offset {offset} are missing from the store")
    data = payloads[0] if len(payloads) == 1 else b"".join(payloads)
    dropped = first = 0
    while dropped + lengths[first] <= skip:
        dropped += lengths[first]
        first += 1
    stop = len(lengths)
    while total - lengths[stop - 1] - skip >= max_bytes:
        stop -= 1
        total -= lengths[stop]
    if first or stop < len(lengths):
        lengths = lengths[first:stop]
    lengths[0] -= skip - dropped
    return data[skip:total] if skip or total < len(data) else data, lengths


def _as_little_endian(numbers: array[int]) -> array[int]:
    if not _IS_LITTLE_ENDIAN:
        numbers.byteswap()
    return numbers
