"""Offset tokens: `<lineage>_<byte offset>`, both of 16 digits, so that tokens sort as texts.

The lineage is the generation of the stream that first held the byte before the offset. A fork keeps the tokens of
its source up to the point of the fork, and has a lineage of its own after it: so a token never means other bytes
than it did, whatever was deleted and made anew.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .answers import Refusal

_TOKEN = re.compile(r"([0-9]{16})_([0-9]{16})")
_LARGEST = 2**53 - 1  # what generations and offsets stay below
START_TOKEN = f"{0:016d}_{0:016d}"
"""Means the start of every stream."""


class Token(NamedTuple):
    """A parsed offset token."""

    lineage: int
    offset: int

    def __str__(self) -> str:
        return f"{self.lineage:016d}_{self.offset:016d}"


def parse_token(text: str) -> Token | None:
    """The token; None for what means the start. Refusal 400 for what is none."""
    if text in ("-1", START_TOKEN):
        return None
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise Refusal(400, "invalid offset")
    token = Token(int(match[1]), int(match[2]))
    if max(token) > _LARGEST:
        raise Refusal(400, "invalid offset")
    return token


class Lineage(NamedTuple):
    """Which tokens a stream has. Immutable."""

    generation: int
    inherited: tuple[tuple[int, int], ...] = ()
    """For a fork, from its eldest source on: a lineage, and the byte offset up to which it counts."""

    def token(self, offset: int) -> str:
        """The token of a byte offset."""
        for lineage, end in self.inherited:
            if offset <= end:
                return str(Token(lineage, offset))
        return str(Token(self.generation, offset))

    def offset(self, token: Token | None) -> int | None:
        """The byte offset of a token (None: the start); None where it is of another lineage."""
        if token is None:
            return 0
        return token.offset if self.token(token.offset) == str(token) else None

    def until(self, offset: int) -> tuple[tuple[int, int], ...]:
        """What a fork at `offset` inherits."""
        kept = []
        for lineage, end in (*self.inherited, (self.generation, offset)):
            kept.append((lineage, min(end, offset)))
            if end >= offset:
                break
        return tuple(kept)
