"""The store contract, third part: streams that several write to, and notes (`SharedStore`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one since Python 3.11
from typing import Any, cast

import pytest

from ..contract import ENDINGS, Lease, Maintenance, Notes, Status, Store, StreamInfo, parse_cursor
from ..errors import (
    ConflictError,
    InvalidStreamIdError,
    LeaseLostError,
    LimitExceededError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)
from ..stores.base import MAX_TTL
from .kit import (
    CLOCK_TOLERANCE,
    PATIENCE,
    AdditionKit,
    FullStore,
    acquired,
    call,
    drain,
    guarantee,
    known,
    outcome,
    race,
    stale,
)
from .living import SHORT, SPARED, pass_grace, pass_ttl
from .producing import BY_NAME
from .waiting import PAUSE

MAX_NOTES = 2000
MAX_NAME = 300  # characters
MAX_VALUE = 1024  # bytes, as the next
MAX_ALL = 256 * 1024

HOSTILE = {
    " ": " ",
    "~!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}": "0:x:1",
    "n" * MAX_NAME: "v" * MAX_VALUE,
    "unicode": "日本 😀 é",
    "zero": "a\x00b",
    "line": "\r\n\t",
    "number": "007",
    "1": "1e3",
    "empty": "",
    "note:0": "1:token:value",
    "status": "done",
    "size": "-1",
}

BAD_NOTES: tuple[Any, ...] = (
    {"": "x"},
    {"n" * (MAX_NAME + 1): "x"},
    {"é": "x"},
    {"line\n": "x"},
    {"zero\x00": "x"},
    {"del\x7f": "x"},
    {b"bytes": "x"},
    {1: "x"},
    {None: "x"},
    {"a": 1},
    {"a": b"x"},
    {"a": True},
    {"a": "x" * (MAX_VALUE + 1)},
    {"a": "é" * (MAX_VALUE // 2 + 1)},
    {"a": "half a pair \ud800"},
)


def created(store: FullStore, stream_id: str, *chunks: bytes, **options: Any) -> StreamInfo:
    """What is known of a new shared stream."""
    info = store.create(stream_id, *chunks, **options)
    assert info is not None, f"{stream_id} was taken"
    return info


def contents(store: Store, stream_id: str) -> tuple[object, ...]:
    """All that a refused call must leave as it was."""
    info = known(store, stream_id)
    return drain(store, stream_id)[0], info.entries, info.status, info.error, dict(info.notes), info.generation


def refused(kind: type[Exception], function: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
    """The error of exactly this kind that is raised."""
    error = outcome(function, *args, **kwargs)
    assert type(error) is kind, f"{error!r} instead of {kind.__name__}"
    return error


class CreateContract(AdditionKit):
    """The beginning of a shared stream."""

    @guarantee("G12")
    def test_create_begins_a_stream_of_nobody(self) -> None:
        store = self.full(ttl=500)
        info = created(store, "s")
        assert (info.stream_id, info.status, info.size, info.entries) == ("s", Status.STREAMING, 0, 0)
        assert (info.shared, info.producer_alive, info.term, info.handover) == (True, False, 0, 0.0)
        assert (info.ttl, info.sliding, info.metadata, info.notes) == (500, True, {}, {})
        assert info.finished_at is None and info.error is None
        assert known(self.second(store), "s") == info
        assert not known_of_a_producer(store).shared

    @guarantee("G2", "G12")
    def test_all_that_it_begins_with_is_there_at_once(self) -> None:
        store = self.full()
        notes: dict[str, str | None] = {"a": "1", "none": None}
        metadata = {"título": "日本"}
        info = created(
            store, "s", b"one", b"", b"two", ttl=70, sliding=False, metadata=metadata, notes=notes, ending="done"
        )
        notes["a"], metadata["título"] = "changed", "later"
        assert (info.status, info.size, info.entries, info.notes) == (Status.DONE, 6, 2, {"a": "1"})
        assert (info.ttl, info.sliding, info.metadata) == (70, False, {"título": "日本"})
        assert info.finished_at is not None
        other = self.second(store)
        assert known(other, "s") == info
        batch = other.read("s")
        assert [entry.chunk for entry in batch.entries] == [b"one", b"two"]
        assert (batch.status, batch.cursor) == (Status.DONE, info.cursor)

    @guarantee("G4", "G12")
    def test_a_taken_id_is_left_alone(self) -> None:
        store = self.full()
        created(store, "shared", b"one", notes={"a": "1"})
        created(store, "ended", b"one", ending="error")
        store.append(acquired(store, "produced"), b"one")
        store.finalize(acquired(store, "done"), Status.DONE)
        ids = ("shared", "ended", "produced", "done")
        before = [contents(store, stream_id) for stream_id in ids]
        for stream_id in ids:
            assert store.create(stream_id, b"two", notes={"b": "2"}, ending="done") is None
            assert self.second_full(store).create(stream_id) is None
        assert [contents(store, stream_id) for stream_id in ids] == before

    @guarantee("G4", "G12")
    def test_nobody_is_elected_for_a_shared_stream(self) -> None:
        store = self.full()
        first = created(store, "s", b"one")
        assert store.acquire("s") is store.acquire("s", restart=ENDINGS) is None
        store.commit("s", ending="error")
        lease = store.acquire("s", restart={"error"})
        assert lease is not None and lease.generation > first.generation
        info = known(store, "s")
        assert (info.shared, info.size, info.term) == (False, 0, 1)
        refused(StreamLostError, store.commit, "s", b"two", generation=first.generation)
        refused(LeaseLostError, store.commit, "s", b"two")
        store.append(lease, b"three")
        assert store.read("s").data == b"three"

    @guarantee("G4", "G12")
    def test_one_of_many_creates_it(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        for round_number in range(15):
            stream_id = f"s{round_number}"
            infos = race(12, lambda number: stores[number % 2].create(stream_id, b"%d" % number))
            (number,) = [number for number, info in enumerate(infos) if info is not None]
            assert store.read(stream_id).data == b"%d" % number

    @guarantee("G4", "G12")
    def test_one_election_for_producers_and_shared_streams(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)

        def claim(stream_id: str, number: int) -> object:
            mine = stores[number // 2 % 2]
            return mine.create(stream_id) if number % 2 else mine.acquire(stream_id)

        for round_number in range(15):
            found = race(8, lambda number: claim(f"s{round_number}", number))
            (winner,) = [each for each in found if each is not None]
            assert known(store, f"s{round_number}").shared is isinstance(winner, StreamInfo)

    @guarantee("G4", "G6")
    def test_generations_grow_across_kinds(self) -> None:
        store = self.full()
        generations = []
        for _ in range(5):
            generations.append(created(store, "s").generation)
            assert store.delete("s")
            generations.append(acquired(store, "s").generation)
            assert store.delete("s")
        assert generations == sorted(set(generations))

    @guarantee("G10")
    def test_a_shared_stream_takes_room_like_others(self) -> None:
        store = self.full(max_streams=2)
        created(store, "a")
        acquired(store, "b")
        refused(LimitExceededError, store.create, "c")
        refused(LimitExceededError, store.acquire, "c")
        assert store.status("c") is Status.MISSING
        assert store.create("b") is None  # taken, which needs no room
        store.delete("a")
        store.delete("b")
        created(store, "a", ttl=SHORT)
        pass_ttl(store, SHORT + CLOCK_TOLERANCE)  # with a stream of its own
        created(store, "c")
        created(store, "d")

    @guarantee("G10", "G12")
    def test_what_is_too_much_begins_nothing(self) -> None:
        store = self.full(max_chunk_bytes=4, max_stream_bytes=8, max_entries=3)
        for chunks in ([b"12345"], [b"123", b"456", b"789"], [b"1", b"2", b"3", b"4"]):
            refused(LimitExceededError, store.create, "s", *chunks)
        refused(LimitExceededError, store.create, "s", metadata={"much": "x" * 1_000_000})
        many: dict[str, str] = {str(number): "" for number in range(MAX_NOTES + 1)}
        refused(LimitExceededError, store.create, "s", notes=many)
        assert store.status("s") is Status.MISSING
        created(store, "taken")
        refused(LimitExceededError, store.create, "taken", b"12345")  # what is too large is so for every id
        created(store, "s", b"1234", b"123", b"8")

    @guarantee("G10")
    def test_bad_values_begin_nothing(self) -> None:
        store = self.full()
        ttl: Any
        for ttl in (0, -1, float("nan"), float("inf"), 2 * MAX_TTL):
            refused(ValueError, store.create, "s", ttl=ttl)
        for metadata in ({"a": 1}, {2: "b"}):
            refused(ValueError, store.create, "s", metadata=metadata)
        for ending in ("streaming", "missing", "over", ""):
            refused(ValueError, store.create, "s", ending=ending)
        for chunk in ("text", 7, None):
            refused(TypeError, store.create, "s", b"good", chunk)
        for notes in BAD_NOTES:
            refused(ValueError, store.create, "s", notes=notes)
        for stream_id in ("", "a b", "x" * 257, None):
            refused(InvalidStreamIdError, store.create, stream_id)
        assert list(store.streams()) == []


def known_of_a_producer(store: Store) -> StreamInfo:
    """What is known of a stream that has a producer."""
    acquired(store, "produced")
    return known(store, "produced")


class CommitContract(AdditionKit):
    """One atomic step, or nothing."""

    @guarantee("G2", "G12")
    def test_commit_returns_the_cursor_after_its_own_chunks(self) -> None:
        store = self.full()
        other = self.second_full(store)
        info = created(store, "s", b"zero")
        assert store.commit("s", b"one") == f"{info.generation}-7"
        assert other.commit("s", b"two", b"", b"three") == f"{info.generation}-15"
        assert store.commit("s") == other.commit("s", b"") == f"{info.generation}-15"
        assert store.commit("s", notes={"a": "1"}, generation=info.generation) == f"{info.generation}-15"
        assert [entry.chunk for entry in other.read("s").entries] == [b"zero", b"one", b"two", b"three"]
        assert known(store, "s").entries == 4

    @guarantee("G2")
    def test_a_buffer_may_be_reused(self) -> None:
        store = self.full()
        buffer = bytearray(b"first")
        created(store, "s", cast(bytes, buffer))
        buffer[:] = b"later"
        store.commit("s", cast(bytes, memoryview(buffer)[1:3]))
        buffer[:] = b"-----"
        assert [entry.chunk for entry in store.read("s").entries] == [b"first", b"at"]

    @guarantee("G3", "G12")
    def test_equal_commits_are_commits_of_their_own(self) -> None:
        """Unlike an append, a commit knows no offset: that bytes are there says nothing of who put them there."""
        store = self.full()
        created(store, "s")
        for number in range(1, 4):
            cursor = parse_cursor(store.commit("s", b"same"))
            assert cursor is not None and cursor.offset == 4 * number
        assert store.read("s").data == b"same" * 3

    @guarantee("G5", "G12")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_a_commit_may_end_the_stream(self, ending: Status) -> None:
        store = self.full()
        created(store, "s", b"one")
        cursor = store.commit("s", b"two", notes={"a": "1"}, ending=ending.value, error="why")
        batch = self.second(store).read("s")
        assert (batch.data, batch.status, batch.error, batch.cursor) == (b"onetwo", ending, "why", cursor)
        info = known(store, "s")
        assert (info.status, info.error, info.notes) == (ending, "why", {"a": "1"})
        assert info.finished_at is not None and not info.producer_alive
        for again in BY_NAME:  # it has its ending, and whoever says it again is not the one who gave it
            assert refused(StreamFinalizedError, store.commit, "s", ending=again).status == ending.value
        assert refused(StreamFinalizedError, store.commit, "s", b"more").status == ending.value
        assert store.commit("s", b"", notes={"a": "2"}) == cursor
        assert contents(store, "s")[:4] == (b"onetwo", 2, ending, "why")
        assert known(store, "s").notes == {"a": "2"}

    @guarantee("G12")
    def test_notes_are_set_and_taken_away(self) -> None:
        store = self.full()
        other = self.second_full(store)
        created(store, "s", notes=HOSTILE)
        assert known(other, "s").notes == HOSTILE
        for name, value in HOSTILE.items():
            store.commit("s", expect={name: value}, notes={name: None})
            assert known(other, "s").notes.get(name) is None
            refused(ConflictError, other.commit, "s", expect={name: value})
            store.commit("s", expect={name: None}, notes={name: value})
        assert known(other, "s").notes == HOSTILE
        store.commit("s", notes=dict.fromkeys(HOSTILE))
        store.commit("s", notes={"never": None})
        assert known(other, "s").notes == {}

    @guarantee("G12")
    def test_notes_are_not_listed(self) -> None:
        store = self.full()
        created(store, "s", notes={"a": "1"})
        store.append(acquired(store, "t"), b"x", notes={"b": "2"})
        assert [(info.stream_id, info.shared, info.notes) for info in store.streams()] == [
            ("s", True, {}),
            ("t", False, {}),
        ]

    @guarantee("G12")
    def test_a_note_that_is_not_as_expected_refuses_everything(self) -> None:
        store = self.full()
        info = created(store, "s", b"abc", notes={"a": "1", "b": "2", "c": "3"})
        before = contents(store, "s")
        expect: Notes
        for expect in (
            {"a": "0"},
            {"a": None},
            {"d": "4"},
            {"d": ""},
            {"a": "1", "b": "2", "c": "4"},
            {"a": "1 "},
            {"A": "1"},
        ):
            error = refused(
                ConflictError,
                self.second_full(store).commit,
                "s",
                b"more",
                expect=expect,
                notes={"a": "5", "new": "6"},
                ending="done",
            )
            assert error.notes == {name: info.notes.get(name) for name in expect}
            assert (error.status, error.cursor) == ("streaming", info.cursor)
            assert contents(store, "s") == before
        store.commit("s", b"more", expect={"a": "1", "b": "2", "d": None}, notes={"a": "5"})
        assert known(store, "s").notes == {"a": "5", "b": "2", "c": "3"}

    @guarantee("G12")
    def test_a_conflict_tells_of_the_ending(self) -> None:
        store = self.full()
        created(store, "s", notes={"a": "1"})
        cursor = store.commit("s", b"abc", notes={"a": "2"}, ending="cancelled")
        error = refused(ConflictError, store.commit, "s", expect={"a": "1", "b": None}, notes={"a": "3"})
        assert (error.status, error.cursor, error.notes) == ("cancelled", cursor, {"a": "2", "b": None})

    @guarantee("G3", "G12")
    def test_a_fenced_commit_that_is_repeated_finds_its_own_note(self) -> None:
        """Also when it, or somebody after it, ended the stream: the note is looked at before the ending."""
        store = self.full()
        created(store, "s")
        first: dict[str, Any] = {"expect": {"w": None}, "notes": {"w": "1.mine"}}
        second: dict[str, Any] = {"expect": {"w": "1.mine"}, "notes": {"w": "2.mine"}, "ending": "done"}
        store.commit("s", b"one", **first)
        assert refused(ConflictError, store.commit, "s", b"one", **first).notes == {"w": "1.mine"}
        store.commit("s", b"two", **second)
        for _ in range(2):
            error = refused(ConflictError, store.commit, "s", b"two", **second)
            assert (error.notes, error.status) == ({"w": "2.mine"}, "done")
        assert store.read("s").data == b"onetwo"

    @guarantee("G12")
    def test_the_order_of_the_checks(self) -> None:
        """Each call has all the faults that come after the first of its list."""
        store = self.full(max_chunk_bytes=4)
        gone = created(store, "gone").generation
        store.delete("gone")
        created(store, "ended", notes={"a": "1"}, ending="done")
        created(store, "running", notes={"a": "1"})
        lease = acquired(store, "produced")
        store.append(lease, b"x", notes={"a": "1"})
        store.finalize(lease, Status.ERROR)
        wrong: dict[str, Any] = {"expect": {"a": "0"}, "notes": {"b": "2"}}
        before = [contents(store, stream_id) for stream_id in ("ended", "running", "produced")]
        for kind, stream_id, options in (
            (ValueError, "missing", {"notes": {"": "x"}, "expect": {"a": "0"}}),
            (ValueError, "produced", {"expect": {"a": "x" * 2000}}),
            (StreamNotFoundError, "missing", {**wrong, "generation": 1}),
            (StreamNotFoundError, "gone", {**wrong, "generation": gone}),
            (StreamLostError, "produced", {**wrong, "generation": lease.generation + 1}),
            (StreamLostError, "ended", {**wrong, "generation": 1}),
            (LeaseLostError, "produced", {**wrong, "generation": lease.generation}),
            (ConflictError, "ended", wrong),
            (ConflictError, "running", wrong),
            (StreamFinalizedError, "ended", {"expect": {"a": "1"}, "notes": {"b": "2"}}),
            (LimitExceededError, "running", {"expect": {"a": "1"}, "notes": {"b": "2"}}),
        ):
            refused(kind, self.second_full(store).commit, stream_id, b"too long", **cast(Any, options))
        assert [contents(store, stream_id) for stream_id in ("ended", "running", "produced")] == before

    @guarantee("G10", "G12")
    def test_bad_values_store_nothing(self) -> None:
        store = self.full()
        created(store, "s", b"abc", notes={"a": "1"})
        before = contents(store, "s")
        for chunk in ("text", 7, None, ["a"]):
            refused(TypeError, store.commit, "s", b"good", chunk, notes={"b": "2"})
        for bad in BAD_NOTES:
            refused(ValueError, store.commit, "s", b"x", notes={"b": "2", **bad})
            refused(ValueError, store.commit, "s", b"x", expect=bad, notes={"b": "2"})
        for ending in ("streaming", "missing", "over", ""):
            refused(ValueError, store.commit, "s", b"x", ending=ending)
        for generation in ("1", 1.5):
            refused(ValueError, store.commit, "s", b"x", generation=generation)
        for stream_id in ("", "a b", "x" * 257, None):
            refused(InvalidStreamIdError, store.commit, stream_id, b"x")
            refused(InvalidStreamIdError, store.touch, stream_id)
        assert contents(store, "s") == before

    @guarantee("G4", "G12")
    @pytest.mark.parametrize("case", ["running", "ended", "waits"])
    def test_a_stream_that_has_a_producer_takes_notes_and_nothing_else(self, case: str) -> None:
        store = self.full()
        other = self.second_full(store)
        lease = store.acquire("s", handover=0.0 if case == "running" else 1000.0)
        assert lease is not None
        store.append(lease, b"abc", notes={"by": "producer"})
        if case == "ended":
            store.finalize(lease, Status.DONE)
        elif case == "waits":
            store.release(lease)
        before = known(store, "s")
        for options in ({"ending": "done"}, {"ending": "done", "notes": {"x": "1"}}):
            refused(LeaseLostError, other.commit, "s", **cast(Any, options))
        refused(LeaseLostError, other.commit, "s", b"x", notes={"x": "1"})
        assert other.commit("s", expect={"by": "producer", "x": None}, notes={"x": "1"}) == lease.cursor
        assert other.commit("s", b"", notes={"by": "others"}, generation=lease.generation) == lease.cursor
        refused(ConflictError, other.commit, "s", expect={"x": None}, notes={"x": "2"})
        after = known(store, "s")
        assert after.notes == {"by": "others", "x": "1"}
        assert (after.status, after.size, after.term) == (before.status, before.size, before.term)
        if case == "running":
            store.append(lease, b"def")
            assert store.read("s").data == b"abcdef"

    @guarantee("G7", "G12")
    def test_notes_of_others_are_no_sign_of_life(self) -> None:
        store = self.full(grace=SHORT)
        acquired(store, "s")
        pass_grace(store)
        store.commit("s", notes={"a": "1"})
        assert store.touch("s")
        assert store.status("s") is Status.INTERRUPTED
        assert known(store, "s").notes == {"a": "1"}

    @guarantee("G4", "G12")
    def test_no_lease_is_one_of_a_shared_stream(self) -> None:
        store = self.full()
        info = created(store, "s", b"abc")
        for offset in (0, 3):
            made_up = Lease("s", info.generation, offset=offset)
            produced = acquired(store, f"other.{offset}")  # a lease of another stream, with a token
            borrowed = stale(produced, offset)
            borrowed.stream_id, borrowed.generation = "s", info.generation
            for lease in (made_up, borrowed):
                refused(LeaseLostError, store.append, stale(lease), b"abc")
                refused(LeaseLostError, store.append, stale(lease), b"x", notes={"a": "1"})
                refused(LeaseLostError, store.append, stale(lease))
                refused(LeaseLostError, store.finalize, stale(lease), "done")
                refused(LeaseLostError, store.release, stale(lease))
                assert isinstance(store.append_many([(stale(lease), [b"x"])])[0], LeaseLostError)
                assert isinstance(store.renew([stale(lease)])[0], LeaseLostError)
        assert store.take_over("s", info.generation) is None
        assert "s" not in set(store.orphans())
        store.commit("s", b"def", ending="done")
        refused(LeaseLostError, store.finalize, Lease("s", info.generation, offset=6), "done")
        assert store.read("s").data == b"abcdef"

    @guarantee("G6", "G12")
    def test_a_stream_that_is_gone_or_new_is_noticed(self) -> None:
        store = self.full()
        first = created(store, "s", notes={"a": "1"})
        store.delete("s")
        refused(StreamNotFoundError, store.commit, "s", b"x")
        refused(StreamNotFoundError, store.commit, "s", notes={"a": "2"}, generation=first.generation)
        assert store.touch("s") is False
        second = created(store, "s")
        assert second.notes == {}  # the notes went with the stream
        refused(StreamLostError, store.commit, "s", notes={"a": "2"}, generation=first.generation)
        assert store.commit("s", b"x", generation=second.generation) == f"{second.generation}-1"
        assert known(store, "s").notes == {}

    @guarantee("G6", "G12")
    def test_notes_go_with_a_stream_that_has_a_producer(self) -> None:
        store = self.full()
        lease = acquired(store, "s")
        store.append(lease, notes={"a": "1"})
        store.finalize(lease, Status.ERROR)
        assert store.acquire("s", restart={"error"}) is not None
        assert known(store, "s").notes == {}

    @guarantee("G10", "G12")
    def test_limits_are_those_of_what_would_result(self) -> None:
        store = self.full(max_chunk_bytes=4, max_stream_bytes=8, max_entries=3)
        created(store, "s", b"1234")
        before = contents(store, "s")
        for chunks in ([b"12345"], [b"123", b"45"], [b"1", b"2", b"3"]):
            refused(LimitExceededError, store.commit, "s", *chunks, notes={"a": "1"}, ending="done")
            assert contents(store, "s") == before
        store.commit("s", b"12", b"34")
        refused(LimitExceededError, store.commit, "s", b"x")
        store.commit("s", b"", notes={"full": "yes"}, ending="done")  # a full stream can still be ended
        assert known(store, "s").status is Status.DONE

    @guarantee("G10", "G12")
    def test_notes_are_counted(self) -> None:
        store = self.full()
        many = {f"n{number}": "" for number in range(MAX_NOTES)}
        created(store, "s", notes=many)
        before = contents(store, "s")
        refused(LimitExceededError, store.commit, "s", b"x", notes={"one more": ""}, ending="done")
        refused(LimitExceededError, store.commit, "s", notes={"one": "", "two": "", "n0": None})
        assert contents(store, "s") == before
        store.commit("s", b"x", notes={"one": "", "n0": None, "n1": "2"})
        assert len(known(store, "s").notes) == MAX_NOTES
        lease = acquired(store, "t")
        store.append(lease, b"abc", notes=many)
        refused(LimitExceededError, store.append, lease, b"def", notes={"one more": ""})
        refused(LimitExceededError, store.finalize, lease, "done", notes={"one more": ""})
        assert store.append_many([(lease, [b"def"])], [{"n0": None, "one": ""}]) == [lease.cursor]
        assert (store.read("t").data, store.status("t")) == (b"abcdef", Status.STREAMING)

    @guarantee("G10", "G12")
    def test_notes_are_weighed(self) -> None:
        store = self.full()
        # All names and values together take MAX_ALL bytes in UTF-8.
        full = {f"{number:04}": "é" * 510 for number in range(MAX_ALL // MAX_VALUE)}
        assert sum(len(name) + len(value.encode()) for name, value in full.items()) == MAX_ALL
        created(store, "s", notes=full)
        before = contents(store, "s")
        for notes in ({"a": ""}, {"0000": "é" * 510 + "x"}, {"0000": "é" * 509, "abc": ""}):
            refused(LimitExceededError, store.commit, "s", b"x", notes=notes, ending="done")
        assert contents(store, "s") == before
        store.commit("s", notes={"0000": "é" * 509, "ab": ""})
        store.commit("s", notes={"0001": None, "0002": None})
        store.commit("s", notes={"0001": full["0001"], "other": "x" * 1000})
        assert len(known(store, "s").notes) == len(full) + 1

    @guarantee("G1", "G12")
    @pytest.mark.parametrize("across", [False, True], ids=["same store", "second store"])
    def test_a_commit_wakes_readers(self, across: bool) -> None:
        store = self.full()
        watching = self.second(store) if across else store
        info = created(store, "s")
        cursor = info.cursor
        for number, (chunks, ending) in enumerate([([b"one"], None), ([b"two"], None), ([], "done")]):
            reader = call(watching.read, "s", cursor, timeout=PATIENCE)
            with pytest.raises(FutureTimeoutError):
                reader.result(PAUSE)
            store.commit("s", *chunks, notes={"n": str(number)}, ending=ending)
            batch = reader.result(PATIENCE)
            assert (batch.data, batch.status) == (b"".join(chunks), Status.DONE if ending else Status.STREAMING)
            cursor = batch.cursor

    @guarantee("G12")
    @pytest.mark.parametrize("across", [False, True], ids=["same store", "second store"])
    def test_bytes_and_ending_of_one_commit_are_read_together(self, across: bool) -> None:
        """Also by whoever waits for them: never the bytes of a stream that seems to go on."""
        store = self.full()
        watching = self.second(store) if across else store
        infos = [created(store, f"s{number}") for number in range(20)]
        readers = [call(watching.read, info.stream_id, info.cursor, timeout=PATIENCE) for info in infos]
        with pytest.raises(FutureTimeoutError):
            readers[0].result(PAUSE)
        for info, reader in zip(infos, readers):
            store.commit(info.stream_id, b"last", ending="done")
            batch = reader.result(PATIENCE)
            assert (batch.data, batch.status) == (b"last", Status.DONE)

    @guarantee("G9")
    def test_a_shared_stream_is_cancelled(self) -> None:
        store = self.full()
        info = created(store, "s", b"abc")
        reader = call(store.read, "s", info.cursor, timeout=PATIENCE)
        assert self.second(store).cancel("s") is True
        assert store.cancel("s") is False
        assert reader.result(PATIENCE).status is Status.CANCELLED
        assert refused(StreamFinalizedError, store.commit, "s", b"x").status == "cancelled"
        store.commit("s", notes={"a": "1"})
        assert contents(store, "s")[:3] == (b"abc", 1, Status.CANCELLED)

    @guarantee("G6")
    def test_a_shared_stream_is_deleted(self) -> None:
        store = self.full()
        info = created(store, "s", b"abc", notes={"a": "1"})
        reader = call(store.read, "s", info.cursor, timeout=PATIENCE)
        with pytest.raises(FutureTimeoutError):
            reader.result(PAUSE)
        assert self.second(store).delete("s") is True
        assert store.delete("s") is False
        assert isinstance(reader.exception(PATIENCE), (StreamLostError, StreamNotFoundError))
        assert store.info("s") is None and list(store.streams()) == []

    @guarantee("G1", "G6")
    def test_maintenance_knows_shared_streams(self) -> None:
        store = self.full()
        if not isinstance(store, Maintenance):
            pytest.skip("this store has no Maintenance")
        created(store, "s", b"a" * 100, b"b", notes={"a": "1"})
        for _ in range(20):
            store.commit("s", b"c" * 1000)
        assert store.check() == []
        assert store.clear() == 1
        assert list(store.streams()) == []

    @guarantee("G10")
    @pytest.mark.parametrize("method", ["create", "commit", "touch"])
    def test_a_closed_store_refuses(self, method: str) -> None:
        store = self.full()
        created(store, "s")
        store.close()
        refused(StoreUnavailableError, getattr(store, method), "s")

    @guarantee("G7", "G12")
    def test_a_store_that_closes_leaves_shared_streams_as_they_are(self) -> None:
        store = self.full(grace=SHORT)
        other = self.second_full(store)
        if other is store:
            return  # a store of one process: its streams go with it
        created(other, "s", b"abc", notes={"a": "1"})
        other.commit("s", b"def")
        other.close()
        pass_grace(store)
        store.commit("s", b"ghi", expect={"a": "1"})
        assert store.read("s").data == b"abcdefghi"
        assert store.status("s") is Status.STREAMING


class NotedAppendContract(AdditionKit):
    """Notes of a producer, in the same step as its bytes."""

    @guarantee("G2", "G12")
    def test_append_sets_notes(self) -> None:
        store = self.full()
        lease = acquired(store, "s")
        assert store.append(lease, b"abc", notes={"at": "1", "gone": "x"}) == f"{lease.generation}-3"
        assert known(self.second(store), "s").notes == {"at": "1", "gone": "x"}
        assert store.append(lease, notes={"at": "2", "gone": None}) == lease.cursor
        store.append(lease, b"def")
        store.append(lease, b"ghi", notes={})
        assert known(store, "s").notes == {"at": "2"}
        assert store.read("s").data == b"abcdefghi"

    @guarantee("G3", "G12")
    def test_a_repeated_append_leaves_notes_alone(self) -> None:
        store = self.full()
        lease = acquired(store, "s")
        unaware = stale(lease)
        store.append(lease, b"abc", notes={"at": "1"})
        store.commit("s", notes={"at": "somebody else's"})
        assert store.append(stale(unaware), b"abc", notes={"at": "1", "b": "2"}) == lease.cursor
        assert store.append_many([(stale(unaware), [b"abc"])], [{"at": "1"}]) == [lease.cursor]
        assert known(store, "s").notes == {"at": "somebody else's"}

    @guarantee("G4", "G12")
    def test_a_refused_append_sets_none(self) -> None:
        store = self.full(max_chunk_bytes=4)
        lease = acquired(store, "s")
        unaware = stale(lease)
        store.append(lease, b"abc", notes={"at": "1"})
        refused(LeaseLostError, store.append, unaware, b"xyz", notes={"at": "2"})
        refused(LimitExceededError, store.append, lease, b"12345", notes={"at": "2"})
        refused(StreamLostError, store.append, stale(lease, 9), b"x", notes={"at": "2"})
        for bad in BAD_NOTES:
            refused(ValueError, store.append, lease, b"x", notes=bad)
            refused(ValueError, store.append_many, [(lease, [b"x"])], [bad])
            refused(ValueError, store.finalize, lease, "done", notes=bad)
        store.finalize(lease, Status.DONE)
        refused(StreamFinalizedError, store.append, lease, b"x", notes={"at": "2"})
        assert contents(store, "s")[:3] == (b"abc", 1, Status.DONE)
        assert known(store, "s").notes == {"at": "1"}

    @guarantee("G2", "G12")
    def test_append_many_sets_the_notes_of_each(self) -> None:
        store = self.full()
        leases = [acquired(store, name) for name in "abcd"]
        store.finalize(leases[1], Status.DONE)
        notes: list[Mapping[str, str | None] | None] = [{"n": "a"}, {"n": "b"}, None, {"n": "d"}]
        results = store.append_many([(lease, [b"x"]) for lease in leases], notes)
        assert [type(result) for result in results] == [str, StreamFinalizedError, str, str]
        assert [known(store, name).notes for name in "abcd"] == [{"n": "a"}, {}, {}, {"n": "d"}]
        for wrong in ([{"n": "1"}], [{"n": "1"}] * 5):
            refused(ValueError, store.append_many, [(lease, [b"y"]) for lease in leases], wrong)
        assert store.append_many([(leases[0], [b"y"])], [None]) == [leases[0].cursor]
        assert [store.read(name).data for name in "abcd"] == [b"xy", b"", b"x", b"x"]

    @guarantee("G5", "G12")
    def test_finalize_sets_notes(self) -> None:
        store = self.full()
        lease = acquired(store, "s")
        store.append(lease, b"abc", notes={"a": "1", "b": "2"})
        store.finalize(lease, Status.ERROR, "why", notes={"a": None, "c": "3"})
        assert contents(self.second(store), "s")[:5] == (b"abc", 1, Status.ERROR, "why", {"b": "2", "c": "3"})
        store.finalize(lease, Status.ERROR, notes={"c": "4"})  # a repeated ending
        refused(StreamFinalizedError, store.finalize, lease, "done", notes={"c": "4"})
        assert known(store, "s").notes == {"b": "2", "c": "3"}

    @guarantee("G11", "G12")
    def test_notes_go_over_to_the_next_producer(self) -> None:
        store = self.full()
        first = store.acquire("s", handover=1000.0)
        assert first is not None
        store.append(first, b"abc", notes={"at": "1"})
        store.release(first)
        refused(LeaseLostError, store.append, stale(first), b"abc", notes={"at": "2"})
        second = store.take_over("s", first.generation)
        assert second is not None and known(store, "s").notes == {"at": "1"}
        refused(LeaseLostError, store.append, stale(first), notes={"at": "2"})
        refused(LeaseLostError, store.finalize, stale(first), "done", notes={"at": "2"})
        store.append(second, b"def", notes={"at": "3"})
        assert contents(store, "s")[:5] == (b"abcdef", 2, Status.STREAMING, None, {"at": "3"})


class SharedLifeContract(AdditionKit):
    """How long a shared stream lives."""

    @guarantee("G7")
    def test_a_shared_stream_is_never_interrupted(self) -> None:
        store = self.full(grace=SHORT)
        info = created(store, "s", b"abc")
        pass_grace(store)
        for _ in range(2):
            other = self.second_full(store)
            assert other.sweep() == 0
            assert other.acquire("s") is None
            batch = other.read("s", info.cursor, timeout=0.01)
            assert (batch.data, batch.status) == (b"", Status.STREAMING)
            assert [each.status for each in other.streams() if each.stream_id == "s"] == [Status.STREAMING]
        store.commit("s", b"def")
        assert store.read("s").data == b"abcdef"

    @guarantee("G8")
    @pytest.mark.parametrize("sign", ["touch", "chunk", "note", "nothing", "ending"])
    def test_a_sliding_life_is_renewed(self, sign: str) -> None:
        store = self.full(finished_ttl=SHORT / 2)
        signs: dict[str, Callable[[str], object]] = {
            "touch": store.touch,
            "chunk": lambda stream_id: store.commit(stream_id, b"x"),
            "note": lambda stream_id: store.commit(stream_id, notes={"a": "1"}),
            "nothing": store.commit,
            "ending": lambda stream_id: store.commit(stream_id, ending="done"),
        }
        acquired(store, "slice")
        for attempt in ("first", "second", "third"):
            created(store, attempt, ttl=SPARED)
            outcome(store.read, "slice", timeout=SPARED / 2)
            begin = time.monotonic()
            if outcome(signs[sign], attempt) in (False, None) or store.status(attempt) is Status.MISSING:
                continue  # this machine was too busy to give its sign in time
            signed = time.monotonic()
            while store.status(attempt) is not Status.MISSING:
                outcome(store.read, "slice", timeout=0.02)
                assert time.monotonic() - signed < SPARED + PATIENCE / 3
            assert time.monotonic() - begin >= SPARED - CLOCK_TOLERANCE
            return
        pytest.skip("this machine was too busy to give a sign of life in time")

    @guarantee("G8")
    def test_a_life_that_does_not_slide_is_renewed_by_nothing(self) -> None:
        store = self.full()
        created(store, "s", ttl=SHORT, sliding=False)
        created(store, "ended", ttl=SHORT, sliding=False, ending="done")
        acquired(store, "slice")
        outcome(store.read, "slice", timeout=SHORT / 2)
        clock = call(pass_ttl, store, SHORT / 2 + CLOCK_TOLERANCE)  # what is renewed now outlives it
        for stream_id in ("s", "ended"):
            outcome(store.touch, stream_id)
            outcome(store.commit, stream_id, notes={"a": "1"})
            outcome(store.commit, stream_id, b"x", ending="done")
        clock.result(PATIENCE)
        for stream_id in ("s", "ended"):
            assert store.status(stream_id) is Status.MISSING
            assert store.touch(stream_id) is False

    @guarantee("G8")
    def test_an_ending_does_not_shorten_its_life(self) -> None:
        store = self.full(ttl=1000, finished_ttl=SHORT)
        created(store, "at.once", ending="done")
        created(store, "later")
        store.commit("later", ending="error")
        created(store, "cancelled")
        store.cancel("cancelled")
        pass_ttl(store, SHORT + 2 * CLOCK_TOLERANCE)
        assert [info.status for info in store.streams()] == ["done", "cancelled", "error"]
        assert store.touch("cancelled") and store.touch("later")
        pass_ttl(store, SHORT + 2 * CLOCK_TOLERANCE)
        assert [info.status for info in store.streams()] == ["done", "cancelled", "error"]

    @guarantee("G8")
    def test_a_life_of_its_own(self) -> None:
        store = self.full(ttl=SHORT)
        assert created(store, "endless", ttl=MAX_TTL).ttl == MAX_TTL
        assert created(store, "default").ttl == SHORT
        acquired(store, "slice", ttl=1000)
        deadline = time.monotonic() + PATIENCE
        while store.status("default") is not Status.MISSING:
            outcome(store.read, "slice", timeout=0.02)
            assert time.monotonic() < deadline
        store.commit("endless", b"abc", ending="done")
        assert store.touch("endless")
        assert store.read("endless").data == b"abc"
        refused(StreamNotFoundError, store.commit, "default", b"x")

    @guarantee("G6", "G8")
    def test_expiry_is_told_and_swept(self) -> None:
        store = self.full()
        info = created(store, "s", b"abc", ttl=SHORT, notes={"a": "1"})
        with pytest.raises((StreamLostError, StreamNotFoundError)):
            store.read("s", info.cursor, timeout=PATIENCE / 3)
        assert self.second(store).sweep() <= 1
        assert store.info("s") is None
        again = created(store, "s")
        assert again.generation > info.generation and again.notes == {}

    @guarantee("G8")
    def test_touch_renews_no_more_than_the_life(self) -> None:
        """A stream that has a producer is touched, too; that says nothing of the producer."""
        store = self.full(grace=SHORT)
        lease = acquired(store, "s", ttl=1000)
        store.append(lease, b"abc")
        before = contents(store, "s")
        assert self.second_full(store).touch("s") is True
        assert contents(store, "s") == before
        assert self.second_full(store).touch("missing") is False
        pass_grace(store)
        assert store.touch("s") is True
        assert store.status("s") is Status.INTERRUPTED


class WritersContract(AdditionKit):
    """Many at once."""

    WRITERS = 8
    COMMITS = 12

    @guarantee("G2", "G12")
    def test_commits_of_many_lose_nothing_and_repeat_nothing(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        created(store, "s")

        def write(number: int) -> list[int]:
            ends = []
            for turn in range(self.COMMITS):
                chunk = b"%d.%d;" % (number, turn)
                cursor = parse_cursor(stores[number % 2].commit("s", chunk))
                assert cursor is not None
                ends.append(cursor.offset - len(chunk))
            return ends

        written = race(self.WRITERS, write)
        data, last = drain(store, "s")
        assert last.size == len(data)
        assert len(data.split(b";")) - 1 == self.WRITERS * self.COMMITS
        for number, begins in enumerate(written):
            assert begins == sorted(begins)
            for turn, begin in enumerate(begins):  # each cursor is the one after its own chunk
                assert data[begin:].startswith(b"%d.%d;" % (number, turn))

    @guarantee("G3", "G12")
    def test_fenced_writers_do_not_disturb_each_other(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        created(store, "s")

        def write(number: int) -> None:
            name, value = f"w{number}", None
            for turn in range(self.COMMITS):
                wanted = f"{turn}.{number}"
                commit = {"expect": {name: value}, "notes": {name: wanted}}
                stores[turn % 2].commit("s", b"%d.%d;" % (number, turn), **cast(Any, commit))
                # As after a lost reply: the same again finds that it was stored.
                again = refused(
                    ConflictError, stores[number % 2].commit, "s", b"%d.%d;" % (number, turn), **cast(Any, commit)
                )
                assert again.notes == {name: wanted}
                value = wanted

        race(self.WRITERS, write)
        chunks = drain(store, "s")[0].split(b";")[:-1]
        assert sorted(chunks) == sorted(
            b"%d.%d" % (number, turn) for number in range(self.WRITERS) for turn in range(self.COMMITS)
        )
        for number in range(self.WRITERS):
            mine = [chunk for chunk in chunks if chunk.startswith(b"%d." % number)]
            assert mine == [b"%d.%d" % (number, turn) for turn in range(self.COMMITS)]

    @guarantee("G12")
    def test_one_note_is_a_counter_of_many(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        created(store, "s", notes={"n": "0"})

        def write(number: int) -> None:
            mine, stored = stores[number % 2], 0
            count = 0
            while stored < self.COMMITS // 2:
                try:
                    mine.commit("s", b"%d;" % count, expect={"n": str(count)}, notes={"n": str(count + 1)})
                except ConflictError as conflict:
                    seen = conflict.notes["n"]
                    assert seen is not None and int(seen) > count  # somebody else was first
                    count = int(seen)
                else:
                    stored, count = stored + 1, count + 1

        race(self.WRITERS, write)
        total = self.WRITERS * (self.COMMITS // 2)
        assert drain(store, "s")[0] == b"".join(b"%d;" % number for number in range(total))
        assert known(store, "s").notes == {"n": str(total)}

    @guarantee("G1", "G12")
    def test_a_reader_sees_commits_in_their_order(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        created(store, "s")

        def follow(mine: Store) -> bytes:
            data, after = b"", ""
            while True:
                batch = mine.read("s", after, max_bytes=16, timeout=PATIENCE)
                assert batch.data or batch.status.ended
                data, after = data + batch.data, batch.cursor
                if batch.status.ended and batch.offset == batch.size:
                    return data

        readers = [call(follow, each) for each in stores]

        def write(number: int) -> None:
            for turn in range(self.COMMITS):
                stores[number % 2].commit("s", b"%d." % number, b"%d;" % turn)

        race(self.WRITERS, write)
        store.commit("s", b"end", ending="done")
        whole = drain(store, "s")[0]
        assert [reader.result(PATIENCE) for reader in readers] == [whole, whole]
        # The chunks of one commit are together.
        assert sorted(whole.split(b";")[:-1]) == sorted(
            b"%d.%d" % (number, turn) for number in range(self.WRITERS) for turn in range(self.COMMITS)
        )

    @guarantee("G5", "G12")
    def test_one_of_many_endings(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        for round_number in range(8):
            stream_id = f"s{round_number}"
            created(store, stream_id)
            results = race(
                8,
                lambda number: outcome(
                    stores[number % 2].commit, stream_id, b"%d" % number, ending=BY_NAME[number // 2]
                ),
            )
            (winner,) = [number for number, result in enumerate(results) if isinstance(result, str)]
            ending = BY_NAME[winner // 2]
            assert contents(store, stream_id)[:3] == (b"%d" % winner, 1, ending)
            for number, result in enumerate(results):
                if number != winner:
                    assert isinstance(result, StreamFinalizedError) and result.status == ending.value

    @guarantee("G2", "G5", "G12")
    def test_an_ending_under_writers_keeps_what_was_acknowledged(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        for round_number in range(5):
            stream_id = f"s{round_number}"
            info = created(store, stream_id)

            def write(number: int) -> list[bytes]:
                written: list[bytes] = []
                while True:
                    chunk = b"%d.%d" % (number, len(written))
                    try:
                        stores[number % 2].commit(stream_id, chunk + b";")
                    except StreamFinalizedError:
                        return written
                    written.append(chunk)

            writers = [call(write, number) for number in range(4)]
            assert store.read(stream_id, info.cursor, timeout=PATIENCE).data
            assert stores[1].cancel(stream_id)
            data, last = drain(store, stream_id)
            assert last.status is Status.CANCELLED
            expected = [chunk for writer in writers for chunk in writer.result(PATIENCE)]
            assert sorted(data.split(b";")[:-1]) == sorted(expected)

    @guarantee("G4", "G12")
    def test_notes_of_many_on_a_stream_that_has_a_producer(self) -> None:
        store = self.full()
        stores = store, self.second_full(store)
        lease = acquired(store, "s")

        def write(number: int) -> None:
            for turn in range(self.COMMITS):
                if number:
                    before = str(turn - 1) if turn else None
                    stores[number % 2].commit("s", expect={f"w{number}": before}, notes={f"w{number}": str(turn)})
                else:
                    store.append(lease, b"%d;" % turn, notes={"producer": str(turn)})

        race(self.WRITERS, write)
        last = str(self.COMMITS - 1)
        expected = {f"w{number}": last for number in range(1, self.WRITERS)}
        assert known(store, "s").notes == {**expected, "producer": last}
        assert store.read("s").data == b"".join(b"%d;" % turn for turn in range(self.COMMITS))


class SharedContract(CreateContract, CommitContract, NotedAppendContract, SharedLifeContract, WritersContract):
    """Everything that `resumable_sync.contract.SharedStore` promises, as pytest tests; each cites its guarantees.

    For a store that passes `StoreContract` and `TakeoverContract`; it has the same hooks, and is subclassed in the
    same way. It takes some ten seconds.
    """
