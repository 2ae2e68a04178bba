"""What decides on commits, terms and choices of streams, without a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resumable_sync.contract import Lease, Notes, Status, StreamInfo
from resumable_sync.errors import (
    ConflictError,
    LeaseLostError,
    LimitExceededError,
    ResumableStreamError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
    UnsupportedError,
)
from resumable_sync.stores import base, notes
from resumable_sync.stores.base import MAX_EMPTY_TERMS, Selection, Term
from resumable_sync.stores.notes import Commit, check_notes, check_room_for_notes, commit_error, with_notes
from resumable_sync.testing.kit import acquired, outcome

from .file_store import FileStore


@dataclass
class State:
    generation: int = 7
    status: Status = Status.STREAMING
    size: int = 3
    shared: bool = True


def commit(
    *chunks: bytes,
    expect: Notes | None = None,
    to: Notes | None = None,
    ending: Status | None = None,
    generation: int | None = None,
) -> Commit:
    return Commit("s", list(chunks), dict(expect or {}), dict(to or {}), ending, None, generation)


def why(wanted: Commit, state: State | None, **present: str) -> ResumableStreamError | None:
    def some(names: Sequence[str]) -> Mapping[str, str]:
        return {name: present[name] for name in names if name in present}

    return commit_error(wanted, state, some)


def test_check_notes_copies() -> None:
    given: dict[str, str | None] = {"a": "1", "b": None}
    copy = check_notes(given)
    given["a"] = "2"
    assert copy == {"a": "1", "b": None}
    assert check_notes(None) == {}


@pytest.mark.parametrize(
    "bad", [{"": ""}, {"n" * 301: ""}, {"é": ""}, {1: ""}, {"a": 1}, {"a": "x" * 1025}, {"a": "\ud800"}]
)
def test_check_notes_says_what_is_malformed(bad: Any) -> None:
    with pytest.raises(ValueError, match="^expect: "):
        check_notes(bad, "expect")


def test_room_for_notes() -> None:
    check_room_for_notes("s", notes.MAX_NOTES, notes.MAX_NOTES_BYTES)
    for count, size, limit in (
        (notes.MAX_NOTES + 1, 0, "max_notes"),
        (1, notes.MAX_NOTES_BYTES + 1, "max_notes_bytes"),
    ):
        with pytest.raises(LimitExceededError) as refused:
            check_room_for_notes("s", count, size)
        assert refused.value.limit == limit


def test_with_notes_sets_and_takes_away() -> None:
    present = {"a": "1", "b": "2"}
    assert with_notes("s", present, {"a": None, "c": "3", "d": None}) == {"b": "2", "c": "3"}
    assert with_notes("s", present, {}) == present == {"a": "1", "b": "2"}


def test_what_refuses_a_commit() -> None:
    assert why(commit(b"x", ending=Status.DONE), State()) is None
    assert isinstance(why(commit(), None), StreamNotFoundError)
    assert isinstance(why(commit(generation=6), State(shared=False)), StreamLostError)
    assert why(commit(generation=7), State()) is None
    for writing in (commit(b"x"), commit(ending=Status.DONE)):
        assert isinstance(why(writing, State(shared=False)), LeaseLostError)
        ended = why(writing, State(status=Status.ERROR))
        assert isinstance(ended, StreamFinalizedError) and ended.status == "error"
    for harmless in (State(shared=False), State(status=Status.ERROR)):
        assert why(commit(to={"a": "1"}), harmless) is None


def test_a_conflict_has_all_that_was_asked_for() -> None:
    wanted = commit(b"x", expect={"a": "1", "b": None, "c": "3"})
    conflict = why(wanted, State(status=Status.DONE), a="1", b="2", d="4")
    assert isinstance(conflict, ConflictError)
    assert (conflict.status, conflict.cursor) == ("done", "7-3")
    assert conflict.notes == {"a": "1", "b": "2", "c": None}
    assert "b, c" in str(conflict) and "a" not in str(conflict).partition(": ")[2]
    assert why(wanted, State(), a="1", c="3") is None


def test_which_commit_is_fenced() -> None:
    for expect, to, fencing in (
        ({}, {"a": "1"}, {}),
        ({"a": "0"}, {}, {}),
        ({"a": "1"}, {"a": "1"}, {}),
        ({"a": "1"}, {"a": None}, {}),
        ({"a": "1"}, {"b": "2"}, {}),
        ({"a": None}, {"a": "1"}, {"a": "1"}),
        ({"a": "0", "b": "1"}, {"a": "1", "b": "1", "c": "2"}, {"a": "1"}),
    ):  # type: Notes, Notes, dict[str, str]
        assert commit(expect=expect, to=to).fencing == fencing


def test_terms_that_store_nothing_are_counted() -> None:
    term: Term | None = Term()
    for number in range(1, MAX_EMPTY_TERMS + 1):
        assert term is not None and (term.number, term.empty) == (number, number - 1)
        term = term.next(0)
    assert term is None
    assert Term(3, 0, 2).next(1) == Term(4, 1, 0)
    assert Term(3, 5, 2).next(5) is None
    assert Term(3, -1, 2).next(5) == Term(4, 5, 0)  # it stored a note


def test_a_selection() -> None:
    info = StreamInfo("a.1", Status.DONE, 1, 0, 0, 0.0, 0.0, metadata={"user": "1", "kind": "x"})
    for selection in (
        Selection(),
        Selection("a."),
        Selection("", frozenset({Status.DONE, Status.ERROR}), {"user": "1"}, internal=False),
    ):
        assert selection.has(info)
    for selection in (
        Selection("b"),
        Selection("a.1x"),
        Selection(statuses=frozenset({Status.ERROR})),
        Selection(metadata={"user": "2"}),
        Selection(metadata={"user": "1", "other": ""}),
    ):
        assert not selection.has(info)
    assert Selection().has_id("chat.x") and not Selection(internal=False).has_id("chat.x")


def test_a_store_without_the_additions_refuses_them(tmp_path: Path) -> None:
    store: base.BaseStore = FileStore(tmp_path)
    lease = acquired(store, "s")
    noted: dict[str, str | None] = {"a": "1"}
    for refused in (
        outcome(store.acquire, "t", handover=1.0),
        outcome(store.take_over, "s", lease.generation),
        outcome(store.release, lease),
        outcome(store.orphans),
        outcome(store.create, "t"),
        outcome(store.commit, "s", notes=noted),
        outcome(store.touch, "s"),
        outcome(store.append, lease, b"x", notes=noted),
        outcome(store.append_many, [(lease, [b"x"])], [noted]),
        outcome(store.finalize, lease, "done", notes=noted),
    ):
        assert isinstance(refused, UnsupportedError) and "FileStore" in str(refused)
    assert [info.stream_id for info in store.streams()] == ["s"]
    store.append(lease, b"abc", notes={})
    store.append_many([(lease, [b"def"])], [None])
    store.finalize(lease, Status.DONE, notes=None)
    assert store.read("s").data == b"abcdef"


def test_a_store_with_the_methods_of_edition_1_works_on(tmp_path: Path) -> None:
    """Somebody's store whose methods do not know the new parameters."""

    class Older(FileStore):
        def _acquire(
            self, stream_id: str, ttl: float, metadata: dict[str, str], restart: frozenset[Status]
        ) -> Lease | None:
            return super()._acquire(stream_id, ttl, metadata, restart)

        def _append_many(self, batches: Sequence[tuple[Lease, base.Chunks]]) -> list[str | ResumableStreamError]:
            return super()._append_many(batches)

        def _finalize(self, lease: Lease, ending: Status, error: str | None) -> None:
            super()._finalize(lease, ending, error)

    with Older(tmp_path) as store:
        lease = store.acquire("s", handover=0.0)
        assert lease is not None
        store.append(lease, b"abc")
        store.append_many([(lease, [b"def"])])
        store.finalize(lease, Status.DONE)
        assert store.read("s").data == b"abcdef"
        assert isinstance(outcome(store.append, lease, b"x", notes={"a": "1"}), UnsupportedError)
