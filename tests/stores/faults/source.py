"""A byte sequence that tells where in it a byte belongs, and whose it is."""

from __future__ import annotations

import random
from collections.abc import Iterator

_RECORD = 13


def text(start: int, stop: int, who: str = "a") -> bytes:
    """Bytes `start` to `stop` of the endless sequence of `who` (one letter)."""
    first, last = start // _RECORD, -(-stop // _RECORD)
    joined = b"".join(b"%s%011d\n" % (who.encode(), number) for number in range(first, last))
    return joined[start - first * _RECORD : stop - first * _RECORD]


def chunks(seed: int, who: str = "a", largest: int = 900) -> Iterator[bytes]:
    """The sequence of `who`, cut at random."""
    rng = random.Random(seed)
    offset = 0
    while True:
        length = rng.randint(1, rng.choice((3, 40, largest)))
        yield text(offset, offset + length, who)
        offset += length
