"""Hypothesis drives stores and the model through the same steps, legal and illegal, and compares all outcomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from ..contract import ENDINGS, Batch, Lease, Notes, Position, Status, Store, StreamInfo, parse_cursor
from ..errors import ConflictError, ResumableStreamError, StreamFinalizedError, UnsupportedError
from .kit import StoreKit, pages
from .model import ModelStore

LIMITS: dict[str, Any] = {
    "max_chunk_bytes": 16,
    "max_stream_bytes": 24,
    "max_entries": 7,
    "max_streams": 3,
    "grace": 60.0,
}

stream_ids = st.sampled_from(["a", "b", "B", "a.1"])  # one more than max_streams
# Few different bytes, so that chunks of different steps are often equal.
chunk_lists = st.lists(st.text("xy", max_size=4).map(str.encode), max_size=4)
oversized = chunk_lists.map(lambda chunks: [*chunks, b"z" * 17])
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
metadata = st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)
endings = st.sampled_from(sorted(ENDINGS))
restarts = st.just(()) | st.sets(endings)
instances = st.integers(0, 1)
handovers = st.sampled_from([0.0, 300.0, 300.0])
lives = st.sampled_from([0, 0, 0, 1, 2])
names = st.sampled_from(["n", "m", "count"])
note_values = st.none() | st.sampled_from(["0", "1", "", "é:1:x"])
# Two of the large ones are more than a stream may have.
large_notes = st.sampled_from("xy").map(lambda name: {f"{name}{number}": "v" * 1024 for number in range(128)})
some_notes = (
    st.none() | st.dictionaries(names, note_values, max_size=2) | st.dictionaries(names, note_values) | large_notes
)
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

    def began(self, new: Lease | StreamInfo) -> None:
        """Take down a new generation, which must be above all earlier ones of its id."""
        earlier = [generation for generation, name in self.lives.items() if name[:-3] == new.stream_id]
        assert all(generation < new.generation for generation in earlier), self.name
        self.lives[new.generation] = f"{new.stream_id}{len(earlier):3}"

    def generation(self, stream_id: str, life: int) -> int:
        """That of the last life of a stream, or the `life`-th before it; one that never was if too few."""
        known = [generation for generation, name in self.lives.items() if name[:-3] == stream_id]
        return sorted(known)[-1 - life] if life < len(known) else 1

    def cursor(self, stream_id: str, life: int, offset: int) -> str:
        """A cursor of the last life of a stream, or the `life`-th before it; of one that never was if too few."""
        return str(Position(self.generation(stream_id, life), offset))

    def plain(self, value: object) -> object:
        """An outcome without what stores may differ in: generations, times and words of errors."""
        if isinstance(value, StreamFinalizedError):
            return type(value).__name__, value.status
        if isinstance(value, ConflictError):
            return type(value).__name__, value.status, self._plain_cursor(value.cursor), dict(value.notes)
        if isinstance(value, Exception):
            return type(value).__name__
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if isinstance(value, Lease):
            terms = value.term, value.ttl, value.handover
            return value.stream_id, self._plain_cursor(value.cursor), value.offset, terms
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
                (value.shared, value.term, value.handover, value.ttl, value.sliding),
                dict(value.notes),
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
    order; reads from any byte, of any life; all endings, cancel, delete and new lives; limits. In stores that
    have the additions also takeovers and releases, with the leases of all terms; shared streams, commits that
    expect something, and notes. Use it as

        class MyMachine(StoreMachine):
            def make_store(self, **options):
                return MyStore(**options)

        TestMyMachine = MyMachine.TestCase

    Override `second_store` where instances share data: steps then go through either, and `pass_time` where the
    store has a clock that can be set. By itself the store must neither expire streams nor declare producers dead
    within seconds.
    """

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        model = ModelStore(**LIMITS)
        self.sides = [Side("model", (model, model))]
        for name, store, second in self.open_sides():
            self.sides.append(Side(name, (store, second)))
        self.model = model
        self._attempts = 10  # so that no other note has such a value
        self.with_takeover = self._all_have(lambda store: store.orphans())
        self.with_sharing = self._all_have(lambda store: store.touch("a"))

    def _all_have(self, use: Callable[[Any], object]) -> bool:
        """Whether all stores have an addition, so that its rules are worth while."""
        for side in self.sides:
            try:
                use(side.instances[0])
            except (UnsupportedError, AttributeError):
                return False
        return True

    def pass_time(self, seconds: float) -> bool:
        """Let so much time pass for all stores; False where that cannot be done. To be overridden."""
        return False

    def open_sides(self) -> list[tuple[str, Store, Store]]:
        """The stores to compare with the model: a name and two instances of each."""
        store = self.make_store(**LIMITS)
        return [("store", store, self.second_store(store))]

    def teardown(self) -> None:
        """Close all stores."""
        for side in self.sides:
            for store in reversed(side.instances):
                store.close()

    def step(self, instance: int, act: Callable[[Side, Any], object]) -> Any:
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

    @rule(
        target=leases,
        stream_id=stream_ids,
        details=metadata,
        restart=restarts,
        handover=handovers,
        instance=instances,
    )
    def acquire(
        self,
        stream_id: str,
        details: Mapping[str, str] | None,
        restart: Collection[Status],
        handover: float,
        instance: int,
    ) -> Any:
        """Become a producer, also in place of a stream that has ended; or find it taken or the store full."""
        options = {"handover": handover} if self.with_takeover else {}

        def act(side: Side, store: Any) -> Lease | None:
            lease: Lease | None = store.acquire(stream_id, metadata=details, restart=restart, **options)
            if lease is not None:
                side.began(lease)
                side.leases.append(lease)
            return lease

        result = self.step(instance, act)
        return len(self.sides[0].leases) - 1 if isinstance(result, tuple) else multiple()

    @rule(target=leases, stream_id=stream_ids, life=lives, instance=instances)
    def take_over(self, stream_id: str, life: int, instance: int) -> Any:
        """Go on with a stream, if nobody produces it."""
        return self._take_over(stream_id, life, instance)

    def _take_over(self, stream_id: str, life: int, instance: int) -> Any:
        if not self.with_takeover:
            return multiple()

        def act(side: Side, store: Any) -> Lease | None:
            lease: Lease | None = store.take_over(stream_id, side.generation(stream_id, life))
            if lease is not None:
                side.leases.append(lease)
            return lease

        result = self.step(instance, act)
        return len(self.sides[0].leases) - 1 if isinstance(result, tuple) else multiple()

    @rule(lease=leases, instance=instances, times=st.integers(1, 2))
    def release(self, lease: int, instance: int, times: int) -> None:
        """Let go, with whatever lease, again perhaps."""
        if self.with_takeover:
            for turn in range(instance, instance + times):
                self.step(turn % 2, lambda side, store: store.release(side.leases[lease]))

    @rule(target=leases, stream_id=stream_ids, instance=instances)
    def hand_on(self, stream_id: str, instance: int) -> Any:
        """The last producer lets go, and another one goes on."""
        lease = self._last_lease(stream_id)
        if lease is None or not self.with_takeover:
            return multiple()
        self.step(instance, lambda side, store: store.release(side.leases[lease]))
        return self._take_over(stream_id, 0, 1 - instance)

    @rule(seconds=st.sampled_from([1.0, 100.0, 500.0]), instance=instances)
    def let_time_pass(self, seconds: float, instance: int) -> None:
        """Leases may come to their end, and handovers."""
        if self.pass_time(seconds):
            self.model.now += seconds
            self.step(instance, lambda side, store: list(store.streams()))

    @rule(
        stream_id=stream_ids,
        chunks=chunk_lists,
        details=metadata,
        notes=some_notes,
        ending=st.none() | st.none() | endings,
        instance=instances,
    )
    def create(
        self,
        stream_id: str,
        chunks: list[bytes],
        details: Mapping[str, str] | None,
        notes: Notes | None,
        ending: Status | None,
        instance: int,
    ) -> None:
        """Begin a stream of nobody, unless the id is taken or the store is full."""
        if not self.with_sharing:
            return

        def act(side: Side, store: Any) -> StreamInfo | None:
            info: StreamInfo | None = store.create(
                stream_id, *chunks, metadata=details, notes=notes, ending=ending
            )
            if info is not None:
                side.began(info)
            return info

        self.step(instance, act)

    @rule(
        stream_id=stream_ids,
        chunks=chunk_lists | st.just([]) | oversized,
        expected=st.sampled_from(["nothing", "present", "present", "a guess"]),
        noted=st.lists(names, unique=True, max_size=2),
        guess=note_values,
        notes=some_notes,
        ending=st.none() | st.none() | st.none() | endings,
        life=st.none() | lives,
        instance=instances,
    )
    def commit(
        self,
        stream_id: str,
        chunks: list[bytes],
        expected: str,
        noted: list[str],
        guess: str | None,
        notes: Notes | None,
        ending: Status | None,
        life: int | None,
        instance: int,
    ) -> None:
        """Commit to whatever stream, expecting the notes that it has, or others."""
        if not self.with_sharing:
            return
        info = self.model.info(stream_id)
        expect: dict[str, str | None] | None = None
        if expected == "present" and info is not None:
            expect = {name: info.notes.get(name) for name in noted}
        elif expected == "a guess":
            expect = dict.fromkeys(noted, guess)

        def act(side: Side, store: Any) -> object:
            generation = None if life is None else side.generation(stream_id, life)
            return store.commit(
                stream_id, *chunks, expect=expect, notes=notes, ending=ending, error="why", generation=generation
            )

        self.step(instance, act)

    @rule(stream_id=stream_ids, chunks=chunk_lists, writer=names, instance=instances)
    def commit_fenced_twice(self, stream_id: str, chunks: list[bytes], writer: str, instance: int) -> None:
        """A fenced commit, and the same again as after a lost reply, which finds its own note."""
        info = self.model.info(stream_id)
        if not self.with_sharing or info is None:
            return
        before = info.notes.get(writer)
        self._attempts += 1
        commit: dict[str, Any] = {"expect": {writer: before}, "notes": {writer: f"{self._attempts}"}}
        for turn in (instance, 1 - instance):
            self.step(turn, lambda side, store: store.commit(stream_id, *chunks, **commit))

    @rule(stream_id=stream_ids, instance=instances)
    def touch(self, stream_id: str, instance: int) -> None:
        """Renew a life."""
        if self.with_sharing:
            self.step(instance, lambda side, store: store.touch(stream_id))

    @rule(stream_id=stream_ids, chunks=chunk_lists, notes=some_notes, lost=st.booleans(), instance=instances)
    def append_with_notes(
        self, stream_id: str, chunks: list[bytes], notes: Notes | None, lost: bool, instance: int
    ) -> None:
        """Append as the last producer of a stream, with notes; again if the reply is lost."""
        lease = self._last_lease(stream_id)
        if lease is None or not self.with_sharing:
            return
        if lost and any(chunks):
            self.step(
                1 - instance, lambda side, store: store.append(replace(side.leases[lease]), *chunks, notes=notes)
            )
        self.step(instance, lambda side, store: store.append(side.leases[lease], *chunks, notes=notes))

    @rule(
        batches=st.lists(st.tuples(leases, chunk_lists, some_notes), max_size=3, unique_by=lambda batch: batch[0]),
        instance=instances,
    )
    def append_many_with_notes(self, batches: list[tuple[int, list[bytes], Notes | None]], instance: int) -> None:
        """A group commit, with notes."""
        if self.with_sharing:
            notes = [each for _, _, each in batches]
            self.step(
                instance,
                lambda side, store: store.append_many([(side.leases[n], new) for n, new, _ in batches], notes),
            )

    @rule(lease=leases, ending=endings, notes=some_notes, instance=instances)
    def finalize_with_notes(self, lease: int, ending: Status, notes: Notes | None, instance: int) -> None:
        """End a stream, again perhaps, or with a lease that may not, and set notes."""
        if self.with_sharing:
            self.step(instance, lambda side, store: store.finalize(side.leases[lease], ending, notes=notes))

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
            (lease.generation, lease.term, lease.offset, number)
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
        acts: list[Callable[[Side, Any], object]] = [
            lambda side, store: store.acquire(stream_id),
            lambda side, store: store.read(stream_id),
            lambda side, store: store.info(stream_id),
            lambda side, store: store.cancel(stream_id),
            lambda side, store: store.delete(stream_id),
        ]
        if self.with_takeover:
            acts.append(lambda side, store: store.take_over(stream_id, 1))
        if self.with_sharing:
            acts += [
                lambda side, store: store.create(stream_id),
                lambda side, store: store.commit(stream_id),
                lambda side, store: store.touch(stream_id),
            ]
        for act in acts:
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
            self.step(0, lambda side, store: store.info(stream_id))
            self.step(0, lambda side, store: store.read(stream_id))
            self.step(1, lambda side, store: pages(store, stream_id, max_bytes=5))
        for side in self.sides:
            assert [lease.offset for lease in side.leases] == [lease.offset for lease in self.sides[0].leases]
