"""Hypothesis drives stores and the model through the same steps, legal and illegal, and compares all outcomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from ..contract import ENDINGS, Batch, Lease, Position, Status, Store, StreamInfo, parse_cursor
from ..errors import ResumableStreamError, StreamFinalizedError
from .kit import StoreKit, pages
from .model import ModelStore

LIMITS = {"max_chunk_bytes": 16, "max_stream_bytes": 24, "max_entries": 7, "max_streams": 3}

stream_ids = st.sampled_from(["a", "b", "B", "a.1"])  # one more than max_streams
# Few different bytes, so that chunks of different steps are often equal.
chunk_lists = st.lists(st.text("xy", max_size=4).map(str.encode), max_size=4)
oversized = chunk_lists.map(lambda chunks: [*chunks, b"z" * 17])
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
metadata = st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)
endings = st.sampled_from(sorted(ENDINGS))
restarts = st.just(()) | st.sets(endings)
instances = st.integers(0, 1)
AHEAD = st.sampled_from([0, 0, 0, -1, 1])

Meddle = Callable[[list[bytes]], list[bytes]]
"""What a second writer makes of the chunks of the first."""

MEDDLING: st.SearchStrategy[Meddle] = st.sampled_from(
    [
        lambda chunks: chunks,
        lambda chunks: [b"".join(chunks)[:16]],
        lambda chunks: [chunk.translate(bytes.maketrans(b"xy", b"yx")) for chunk in chunks],
        lambda chunks: [*chunks, b"x"],
    ]
)


@dataclass
class Side:
    """One of the stores that are compared: two instances on the same data, and its own view of each lease."""

    name: str
    instances: tuple[Store, Store]
    leases: list[Lease] = field(default_factory=list)
    lives: dict[int, str] = field(default_factory=dict)
    """Each generation's name, the same for all stores: the stream id, and which of its lives it is."""

    def began(self, lease: Lease) -> None:
        """Take down a new generation, which must be above all earlier ones of its id."""
        earlier = [generation for generation, name in self.lives.items() if name[:-3] == lease.stream_id]
        assert all(generation < lease.generation for generation in earlier), self.name
        self.lives[lease.generation] = f"{lease.stream_id}{len(earlier):3}"

    def cursor(self, stream_id: str, life: int, offset: int) -> str:
        """A cursor of the last life of a stream, or the `life`-th before it; of one that never was if too few."""
        known = [generation for generation, name in self.lives.items() if name[:-3] == stream_id]
        return str(Position(sorted(known)[-1 - life] if life < len(known) else 1, offset))

    def plain(self, value: object) -> object:
        """An outcome without what stores may differ in: generations, times and words of errors."""
        if isinstance(value, StreamFinalizedError):
            return type(value).__name__, value.status
        if isinstance(value, Exception):
            return type(value).__name__
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if isinstance(value, Lease):
            return value.stream_id, self._plain_cursor(value.cursor), value.offset
        if isinstance(value, StreamInfo):
            cursor, metadata = self._plain_cursor(value.cursor), dict(value.metadata)
            ended = value.finished_at is not None
            return (
                value.stream_id,
                value.status,
                cursor,
                value.entries,
                value.error,
                metadata,
                value.producer_alive,
                ended,
            )
        if isinstance(value, Batch):
            entries = [(self._plain_cursor(entry.cursor), entry.chunk) for entry in value.entries]
            ends = self._plain_cursor(value.start), self._plain_cursor(value.cursor)
            return value.data, entries, ends, value.size, value.status, value.error
        if isinstance(value, str) and not isinstance(value, Status):
            return self._plain_cursor(value)
        return value

    def _plain_cursor(self, cursor: str) -> object:
        position = parse_cursor(cursor)
        assert position is not None
        return self.lives[position.generation], position.offset


class StoreMachine(StoreKit, RuleBasedStateMachine):
    """A state machine over one store: each step's outcome must be the model's.

    Several streams; leases that went stale, were copied before a reply was lost, or lie; appends in every
    order; reads from any byte, of any life; all endings, cancel, delete and new lives; limits. Use it as

        class MyMachine(StoreMachine):
            def make_store(self, **options):
                return MyStore(**options)

        TestMyMachine = MyMachine.TestCase

    Override `second_store` where instances share data: steps then go through either. The store must neither
    expire streams nor declare producers dead within seconds.
    """

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        model = ModelStore(**LIMITS)
        self.sides = [Side("model", (model, model))]
        for name, store, second in self.open_sides():
            self.sides.append(Side(name, (store, second)))

    def open_sides(self) -> list[tuple[str, Store, Store]]:
        """The stores to compare with the model: a name and two instances of each."""
        store = self.make_store(**LIMITS)
        return [("store", store, self.second_store(store))]

    def teardown(self) -> None:
        """Close all stores."""
        for side in self.sides:
            for store in reversed(side.instances):
                store.close()

    def step(self, instance: int, act: Callable[[Side, Store], object]) -> Any:
        """Do the same to all stores and require the same outcome, which is returned."""
        outcomes = {}
        for side in self.sides:
            try:
                result = act(side, side.instances[instance])
            except (ResumableStreamError, ValueError) as error:
                result = error
            outcomes[side.name] = side.plain(result)
        expected = outcomes["model"]
        assert all(found == expected for found in outcomes.values()), outcomes
        return expected

    @rule(target=leases, stream_id=stream_ids, details=metadata, restart=restarts, instance=instances)
    def acquire(
        self, stream_id: str, details: Mapping[str, str] | None, restart: Collection[Status], instance: int
    ) -> Any:
        """Become a producer, also in place of a stream that has ended; or find it taken or the store full."""

        def act(side: Side, store: Store) -> Lease | None:
            lease = store.acquire(stream_id, metadata=details, restart=restart)
            if lease is not None:
                side.began(lease)
                side.leases.append(lease)
            return lease

        result = self.step(instance, act)
        return len(self.sides[0].leases) - 1 if isinstance(result, tuple) else multiple()

    @rule(target=leases, lease=leases, back=st.integers(0, 70))
    def copy_lease(self, lease: int, back: int) -> int:
        """The lease as it was some bytes ago, as it is, or as after an append that was rolled back."""
        for side in self.sides:
            known = side.leases[lease]
            side.leases.append(replace(known, offset=back % (known.offset + 2)))
        return len(self.sides[0].leases) - 1

    @rule(lease=leases, chunks=chunk_lists | oversized, instance=instances)
    def append(self, lease: int, chunks: list[bytes], instance: int) -> None:
        """Append with whatever lease."""
        self.step(instance, lambda side, store: store.append(side.leases[lease], *chunks))

    @rule(stream_id=stream_ids, chunks=chunk_lists, instance=instances)
    def append_rightly(self, stream_id: str, chunks: list[bytes], instance: int) -> None:
        """Append as the last producer of a stream, with all that it knows, so that streams grow."""
        lease = self._last_lease(stream_id)
        if lease is not None:
            self.step(instance, lambda side, store: store.append(side.leases[lease], *chunks))

    @rule(stream_id=stream_ids, chunks=chunk_lists, others=MEDDLING, ahead=AHEAD, instance=instances)
    def append_twice(self, stream_id: str, chunks: list[bytes], others: Meddle, ahead: int, instance: int) -> None:
        """Two writers on one lease; the second may write the same, and may think that the stream is longer."""
        lease = self._last_lease(stream_id)
        if lease is None:
            return
        second = {side.name: replace(side.leases[lease]) for side in self.sides}
        self.step(instance, lambda side, store: store.append(side.leases[lease], *chunks))
        for copied in second.values():
            copied.offset = max(0, copied.offset + ahead)
        self.step(1 - instance, lambda side, store: store.append(second[side.name], *others(chunks)))

    def _last_lease(self, stream_id: str) -> int | None:
        """The lease of the stream's last life that knows most."""
        mine = [
            (lease.generation, lease.offset, number)
            for number, lease in enumerate(self.sides[0].leases)
            if lease.stream_id == stream_id
        ]
        return max(mine)[-1] if mine else None

    @rule(lease=leases, chunks=chunk_lists, instance=instances, times=st.integers(1, 3))
    def append_with_lost_replies(self, lease: int, chunks: list[bytes], instance: int, times: int) -> None:
        """The same append several times, as if no reply had come but the last."""
        for turn in range(instance, instance + times):
            self.step(turn % 2, lambda side, store: store.append(replace(side.leases[lease]), *chunks))
        self.step(instance, lambda side, store: store.append(side.leases[lease], *chunks))

    @rule(batches=st.lists(st.tuples(leases, chunk_lists | oversized), max_size=4), instance=instances)
    def append_many(self, batches: list[tuple[int, list[bytes]]], instance: int) -> None:
        """A group commit; refused if it names the same lease twice."""
        self.step(instance, lambda side, store: store.append_many([(side.leases[n], new) for n, new in batches]))

    @rule(chosen=st.lists(leases, max_size=4, unique=True), instance=instances)
    def renew(self, chosen: list[int], instance: int) -> None:
        """A heartbeat."""
        self.step(instance, lambda side, store: store.renew([side.leases[lease] for lease in chosen]))

    @rule(lease=leases, ending=endings, error=texts, instance=instances)
    def finalize(self, lease: int, ending: Status, error: str | None, instance: int) -> None:
        """End a stream, again perhaps, or with a lease that may not."""
        self.step(instance, lambda side, store: store.finalize(side.leases[lease], ending, error))

    @rule(lease=leases, status=st.sampled_from(["streaming", "missing", "over"]), instance=instances)
    def finalize_wrongly(self, lease: int, status: str, instance: int) -> None:
        """End a stream with what is no ending."""
        result = self.step(instance, lambda side, store: store.finalize(side.leases[lease], status))
        assert result == "ValueError"

    @rule(stream_id=stream_ids, instance=instances)
    def cancel(self, stream_id: str, instance: int) -> None:
        """Stop a stream's producer."""
        self.step(instance, lambda side, store: store.cancel(stream_id))

    @rule(stream_id=stream_ids, instance=instances)
    def delete(self, stream_id: str, instance: int) -> None:
        """Remove a stream."""
        self.step(instance, lambda side, store: store.delete(stream_id))

    @rule(
        stream_id=stream_ids,
        life=st.sampled_from([0, 0, 0, 1, 2]),
        offset=st.integers(0, 66),
        max_bytes=st.integers(1, 20),
        timeout=st.sampled_from([0.0, 0.0, 0.001]),
        instance=instances,
    )
    def read(self, stream_id: str, life: int, offset: int, max_bytes: int, timeout: float, instance: int) -> None:
        """Resume at any byte of any life, or one after the last."""
        info = self.sides[0].instances[0].info(stream_id)
        place = offset if info is None else offset % (info.size + 2)
        self.step(
            instance,
            lambda side, store: store.read(
                stream_id, side.cursor(stream_id, life, place), max_bytes=max_bytes, timeout=timeout
            ),
        )

    @rule(cursor=st.text("0123-9 x", min_size=1, max_size=6), stream_id=stream_ids, instance=instances)
    def read_from_nonsense(self, cursor: str, stream_id: str, instance: int) -> None:
        """Read from a cursor that somebody made up."""
        self.step(instance, lambda side, store: store.read(stream_id, cursor))

    @rule(stream_id=st.sampled_from(["", "a b", "ö", "x" * 257]), instance=instances)
    def use_a_bad_id(self, stream_id: str, instance: int) -> None:
        """Ids that no stream has."""
        for act in (
            lambda side, store: store.acquire(stream_id),
            lambda side, store: store.read(stream_id),
            lambda side, store: store.info(stream_id),
            lambda side, store: store.cancel(stream_id),
            lambda side, store: store.delete(stream_id),
        ):  # type: Callable[[Side, Store], object]
            assert self.step(instance, act) == "InvalidStreamIdError"

    @rule(instance=instances)
    def sweep(self, instance: int) -> None:
        """Housekeeping finds nothing: no time passes."""
        self.step(instance, lambda side, store: store.sweep())

    @invariant()
    def everything_agrees(self) -> None:
        """All stores hold the same streams, bytes and endings, and have told their producers the same."""
        self.step(1, lambda side, store: list(store.streams()))
        for stream_id in ("a", "b", "B", "a.1"):
            self.step(0, lambda side, store: store.read(stream_id))
            self.step(1, lambda side, store: pages(store, stream_id, max_bytes=5))
        for side in self.sides:
            assert [lease.offset for lease in side.leases] == [lease.offset for lease in self.sides[0].leases]
