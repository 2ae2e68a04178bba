"""Idempotent producers: which append of a producer is the next one, which a repeated one, and which neither.

A producer has an id, an epoch, and numbers its appends within the epoch from 0. How far it is stands in a note of
the stream, which is compared and set in the same step as its bytes: so every process decides alike, also after a
kill, and no append is stored twice.
"""

from __future__ import annotations

import enum
import hashlib
import re
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from ..contract import new_token

PREFIX = "durable.producer."
"""Of the names of the notes."""
IDLE_SECONDS = 7 * 24 * 3600
"""A producer that has appended nothing for so long makes way for another one."""

_LARGEST = 2**53 - 1
_NUMBER = re.compile(r"[0-9]{1,16}")
_VALUE = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)\.[^.]+")
_LONGEST_NAME = 200


class Claim(NamedTuple):
    """What a request says of its producer."""

    producer_id: str
    epoch: int
    seq: int

    @property
    def note(self) -> str:
        """The name of the producer's note."""
        name = quote(self.producer_id, safe="")
        if len(name) > _LONGEST_NAME:
            name = "#" + hashlib.sha256(self.producer_id.encode("utf-8")).hexdigest()
        return PREFIX + name

    @property
    def signature(self) -> str:
        """What tells this very append from all others of the stream."""
        return f"{self.epoch}.{self.seq} {self.note}"


class Progress(NamedTuple):
    """How far a producer is."""

    epoch: int
    seq: int
    seconds: int
    """When it last appended, in Unix seconds."""


class Verdict(enum.Enum):
    """What becomes of an append."""

    NEXT = "next"
    REPEATED = "repeated"
    STALE = "stale"
    """The producer has a higher epoch: somebody else goes by its id."""
    GAP = "gap"
    """Appends before this one are missing."""
    LATE_START = "late start"
    """A new epoch that does not begin with 0."""


def parse_claim(producer_id: str | None, epoch: str | None, seq: str | None) -> Claim | None:
    """The claim of a request's headers; None without any. ValueError unless all are there and well-formed."""
    if producer_id is None and epoch is None and seq is None:
        return None
    if not producer_id or epoch is None or seq is None:
        raise ValueError("Producer-Id, Producer-Epoch and Producer-Seq go together")
    return Claim(producer_id, _number(epoch), _number(seq))


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > _LARGEST:
        raise ValueError("Producer-Epoch and Producer-Seq are numbers up to 2**53 - 1")
    return int(text)


def decide(claim: Claim, progress: Progress | None) -> Verdict:
    """What becomes of an append. Pure."""
    if progress is None:
        return Verdict.NEXT if claim.seq == 0 else Verdict.GAP
    if claim.epoch < progress.epoch:
        return Verdict.STALE
    if claim.epoch > progress.epoch:
        return Verdict.NEXT if claim.seq == 0 else Verdict.LATE_START
    if claim.seq <= progress.seq:
        return Verdict.REPEATED
    return Verdict.NEXT if claim.seq == progress.seq + 1 else Verdict.GAP


def progress_of(value: str | None) -> Progress | None:
    """What a note says; None where there is none."""
    match = None if value is None else _VALUE.fullmatch(value)
    return None if match is None else Progress(int(match[1]), int(match[2]), int(match[3]))


def new_value(claim: Claim) -> str:
    """What the note says once the append is stored. No other attempt's is the same."""
    return f"{claim.epoch}.{claim.seq}.{int(time.time())}.{new_token()}"


def producers(notes: Mapping[str, str]) -> dict[str, str]:
    """The notes of producers."""
    return {name: value for name, value in notes.items() if name.startswith(PREFIX)}


def idle(notes: Mapping[str, str]) -> dict[str, str]:
    """Those of producers that are idle for IDLE_SECONDS. By the clocks of the machines: a day more or less does
    not matter."""
    latest = time.time() - IDLE_SECONDS
    found = {}
    for name, value in producers(notes).items():
        progress = progress_of(value)
        if progress is None or progress.seconds < latest:
            found[name] = value
    return found
