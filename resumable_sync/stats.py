"""What a context counts: figures of this moment, and totals since it was first used in this process.

What is counted for every append lies in Figures: plain numbers that change under a committer's lock, which is held
at that moment anyway. A context has one for each route of its store, because routes have committers of their own;
of one route and store a process has one committer at a time. What happens rarely is counted under a lock of its
own, see Tally. Reading takes no committer's lock: each number is exact, and two of them may be of moments some
microseconds apart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Histogram", "Stats", "Totals"]

_POWERS = 64  # above every number of bytes and microseconds


class Figures:
    """What was appended by way of one committer, whose lock guards all but `failed_renewals` (the lock of its
    heartbeat)."""

    __slots__ = ("chunks", "bytes", "seconds", "sizes", "delays", "failed_appends", "failed_renewals")

    def __init__(self) -> None:
        self.chunks = 0
        self.bytes = 0
        self.seconds = 0.0  # that appends took, in all
        self.sizes = [0] * _POWERS  # appends by the bit length of their bytes
        self.delays = [0] * _POWERS  # by that of their microseconds
        self.failed_appends = 0  # for want of the store
        self.failed_renewals = 0

    def stored(self, chunks: int, size: int, seconds: float) -> None:
        """One append was stored."""
        self.chunks += chunks
        self.bytes += size
        self.sizes[size.bit_length()] += 1
        self.seconds += seconds
        self.delays[int(seconds * 1e6).bit_length()] += 1


@dataclass(frozen=True)
class Histogram:
    """How often a figure was how large. Immutable."""

    powers: Sequence[int]
    """`powers[n]`: how often it was below 2**n units, and not below 2**(n - 1)."""
    unit: float
    """What the figure is counted in, such as 1e-06 for microseconds where `total` is in seconds."""
    total: float
    """The sum of all."""

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.powers)

    def below(self, power: int) -> int:
        """How many were below 2**power units."""
        return sum(self.powers[: power + 1])


@dataclass(frozen=True)
class Totals:
    """What happened in this process since its context was first used. Each figure only grows. Immutable."""

    elected: int = 0
    """Streams that this process began to produce."""
    taken_over: int = 0
    """Streams with which it went on after another producer."""
    endings: Mapping[str, int] = field(default_factory=dict)
    """Streams produced here that ended, by their status."""
    released: int = 0
    """Streams with a handover that it let go of, for another producer to go on."""
    lost: int = 0
    """Streams produced here whose ending could not be stored: deleted, replaced, or the store stayed away."""
    superseded: int = 0
    """Streams with a handover that another producer had taken over before this one learned of it."""
    appends: int = 0
    """Appends that were stored, each of one stream."""
    chunks: int = 0
    bytes: int = 0
    append_seconds: Histogram = Histogram((), 1e-6, 0.0)
    """From the beginning of a group commit to its acknowledgement, for each append in it."""
    append_bytes: Histogram = Histogram((), 1, 0)
    """How many bytes each append stored."""
    store_errors: Mapping[str, int] = field(default_factory=dict)
    """How often the store was unavailable to what the library does by itself: `append`, `renew`, `read`, `end`.
    What a call raises to its caller is not counted."""


@dataclass(frozen=True)
class Stats:
    """What a context has under way in this process. Made by `ResumableStreamContext.stats`. Immutable."""

    producers: int = 0
    """Streams that are produced here."""
    starting: int = 0
    """Elections under way, each of which may become a producer."""
    handover: int = 0
    """Of the producers, those whose streams another one may go on with."""
    stalled: int = 0
    """Of the producers, those whose appends are being repeated because the store is away."""
    blocked: int = 0
    """Of the producers, those whose source waits because too much of it is not stored yet. (A slow source may
    store its chunk itself, and waits for the store then, which is not counted.)"""
    pending_chunks: int = 0
    pending_bytes: int = 0
    """What producers have made and the store has not acknowledged."""
    viewers: int = 0
    """Followers that have begun and not ended."""
    reading: int = 0
    """Of the viewers, those inside a read of the store: where they wait once they have caught up."""
    awaiting: int = 0
    """Calls that wait for a stream to begin (`wait=`)."""
    orphans: int = 0
    """Streams that had lost their producers when `recover` was last asked: a figure of the store, not of this
    process. 0 without `recover`."""
    draining: bool = False
    closed: bool = False
    totals: Totals = Totals()


class Tally:
    """What one context counts in one process. Thread-safe: `_lock` guards all fields, and what `_shared` holds;
    the other Figures are guarded as they say."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[str, Figures] = {}  # by route
        self._shared = Figures()  # of shared writers, which have no committer
        self._events: Counter[str] = Counter()

    def figures(self, route: str) -> Figures:
        """Those of the committer of this route."""
        with self._lock:
            return self._figures.setdefault(route, Figures())

    def count(self, event: str) -> None:
        """Something happened, rarely: an ending, say."""
        with self._lock:
            self._events[event] += 1

    def shared_commit(self, chunks: int, size: int, seconds: float) -> None:
        """A shared writer has stored something."""
        with self._lock:
            self._shared.stored(chunks, size, seconds)

    def totals(self) -> Totals:
        """A copy of what was counted. Takes no lock that is held during an append."""
        with self._lock:
            events = dict(self._events)
            every = [*self._figures.values(), self._shared]
            sizes, delays = ([sum(column) for column in zip(*rows)] for rows in _columns(every))
        failures = {
            "append": sum(each.failed_appends for each in every),
            "renew": sum(each.failed_renewals for each in every),
        }
        return Totals(
            elected=events.get("elected", 0),
            taken_over=events.get("taken-over", 0),
            endings=_by_key(events, "ended."),
            released=events.get("released", 0),
            lost=events.get("lost", 0),
            superseded=events.get("superseded", 0),
            appends=sum(sizes),
            chunks=sum(each.chunks for each in every),
            bytes=sum(each.bytes for each in every),
            append_seconds=Histogram(tuple(delays), 1e-6, sum(each.seconds for each in every)),
            append_bytes=Histogram(tuple(sizes), 1, sum(each.bytes for each in every)),
            store_errors={**failures, **_by_key(events, "store-error.")},
        )


def _columns(figures: Sequence[Figures]) -> tuple[list[list[int]], list[list[int]]]:
    # A copy of a list is one step, whoever counts meanwhile.
    return [each.sizes.copy() for each in figures], [each.delays.copy() for each in figures]


def _by_key(events: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {event[len(prefix) :]: number for event, number in events.items() if event.startswith(prefix)}
