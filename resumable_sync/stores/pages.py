"""How chunks are packed into the rows that a store keeps, and cut out of them again. Pure functions."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

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
    if len(chunks) == 1:
        return [(offset + len(chunks[0]), chunks[0], None)]
    lengths = list(map(len, chunks))
    ends = list(accumulate(lengths))
    pages: list[Page] = []
    first = begin = 0
    while first < len(chunks):
        if lengths[first] > PAGE_BYTES:
            stop = first + 1
        else:
            stop = bisect_right(ends, begin + PAGE_BYTES, first + 1, min(first + _PAGE_CHUNKS, len(chunks)))
        payload = chunks[first] if stop == first + 1 else b"".join(chunks[first:stop])
        begin = ends[stop - 1]
        packed = _as_little_endian(array("I", lengths[first:stop])).tobytes() if stop > first + 1 else None
        pages.append((offset + begin, payload, packed))
        first = stop
    return pages


def unpack(pages: Iterable[Page], offset: int, max_bytes: int) -> tuple[list[bytes], Sequence[int]]:
    """The bytes from `offset` on, in parts, and the lengths of the chunks they make up, the first one cut.

    Takes pages in order until `max_bytes` are reached; of the last page only the chunks up to there.
    StreamLostError if a page is missing.
    """
    payloads: list[bytes] = []
    lengths = array("I")
    total, skip, reached, wanted = 0, 0, -1, 0
    for end, payload, packed in pages:
        size = len(payload)
        if end - size != reached:
            skip = offset - (end - size)
            if payloads or skip < 0:
                raise StreamLostError(f"the bytes before offset {end - size} are missing from the store")
            wanted = skip + max_bytes
        reached = end
        payloads.append(payload)
        total += size
        if packed is None:
            lengths.append(size)
        elif _IS_LITTLE_ENDIAN:
            lengths.frombytes(packed)
        else:
            lengths += _as_little_endian(array("I", packed))
        if total >= wanted:
            break
    if not payloads:
        raise StreamLostError(f"the bytes after offset {offset} are missing from the store")
    dropped = first = 0
    while dropped + lengths[first] <= skip:
        dropped += lengths[first]
        first += 1
    stop, excess = len(lengths), 0
    while total - excess - lengths[stop - 1] - skip >= max_bytes:
        stop -= 1
        excess += lengths[stop]
    if excess:  # of the last one alone: what comes before it is less than max_bytes
        payloads[-1] = payloads[-1][:-excess]
    if skip:
        payloads[0] = payloads[0][skip:]
    if first or stop < len(lengths):
        lengths = lengths[first:stop]
    lengths[0] -= skip - dropped
    return payloads, lengths


def _as_little_endian(numbers: array[int]) -> array[int]:
    if not _IS_LITTLE_ENDIAN:
        numbers.byteswap()
    return numbers
