"""Takeover, shared streams and notes: what is SQLite's own in them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from resumable_sync import LimitExceededError, SQLiteStore, Status, StoreUnavailableError
from resumable_sync.contract import Lease
from resumable_sync.errors import ConflictError, LeaseLostError
from resumable_sync.stores.sqlite import clock, tables
from resumable_sync.stores.sqlite.liveness import Liveness, ProcessLock
from resumable_sync.stores.sqlite.tables import Row
from resumable_sync.stores.sqlite.upkeep import _OWNERS
from resumable_sync.testing.kit import PATIENCE, call, race

from .conftest import GRACE, alter

HANDOVER = 100.0


def waiting(store: SQLiteStore, stream_id: str, handover: float = HANDOVER) -> Lease:
    """A stream in its handover, that holds a byte."""
    lease = store.acquire(stream_id, handover=handover)
    assert lease is not None
    store.append(lease, b"x")
    store.release(lease)
    return lease


def row(token: str, **changes: object) -> Row:
    """A running stream with a handover, whose lease was renewed just now."""
    wall, now = time.time(), clock.now()
    made = Row(
        *(1, Status.STREAMING, 0, 0, None, "{}", 600.0, "", clock.domain()),
        *(now + GRACE + HANDOVER, now + 600, wall + 600, wall, wall, None),
        *("fence", token, HANDOVER),
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def verdict(liveness: Liveness, row: Row) -> tuple[bool, bool]:
    """Whether nobody produces it, and whether it is to be ended."""
    liveness._proofs.clear()
    return liveness.is_orphan(row), liveness.is_over(row)


def test_the_lease_ends_before_the_handover_does(liveness: Liveness, lock: ProcessLock) -> None:
    now = clock.now()
    assert verdict(liveness, row(lock.token)) == (False, False)
    assert verdict(liveness, row(lock.token, lease_until=now + HANDOVER - 1)) == (True, False)
    assert verdict(liveness, row(lock.token, lease_until=now - 1)) == (True, True)
    assert verdict(liveness, row("")) == (True, False), "it was released"
    assert verdict(liveness, row("", lease_until=now - 1)) == (True, True)
    lock.release(leave_proof=True)
    assert verdict(liveness, row(lock.token)) == (True, False), "killed: orphaned at once, and over later"
    assert verdict(liveness, row(lock.token, status=Status.DONE)) == (False, False)


def test_elsewhere_the_lock_file_and_the_wall_clock_decide(liveness: Liveness, lock: ProcessLock) -> None:
    """As after a reboot, or in another container."""
    silent, over = time.time() - GRACE - 1, time.time() - GRACE - HANDOVER - 1
    there = row(lock.token, boot_id="another", lease_until=0.0, expires_boot=0.0)
    assert verdict(liveness, there._replace(updated_at=over)) == (False, False), "its lock is held"
    lock.release(leave_proof=True)
    assert verdict(liveness, there) == (True, False)
    assert verdict(liveness, there._replace(updated_at=over)) == (True, True)
    lock.path.unlink()
    assert verdict(liveness, there) == (False, False)
    assert verdict(liveness, there._replace(updated_at=silent)) == (True, False)
    assert verdict(liveness, there._replace(updated_at=over)) == (True, True)
    assert verdict(liveness, there._replace(producer="")) == (True, False)


def test_a_shared_stream_is_nobodys_orphan(liveness: Liveness) -> None:
    shared = row("", term=0, handover=0.0, lease_until=0.0)
    assert verdict(liveness, shared) == verdict(liveness, shared._replace(boot_id="another")) == (False, False)
    there = shared._replace(boot_id="another", expires_at=time.time() - 1)
    assert there.expired, "it has no producer that might renew it"


def test_a_stream_of_another_clock_domain_is_taken_over_and_then_of_this_one(
    path: Path, store: SQLiteStore
) -> None:
    lease = waiting(store, "s")
    alter(path, "UPDATE streams SET boot_id = 'another', lease_until = 5, expires_boot = 5")
    taken = store.take_over("s", lease.generation)
    assert taken is not None and taken.offset == 1 and taken.term == 2
    store.append(taken, b"y")
    assert store.read("s").data == b"xy"
    assert store.take_over("s", lease.generation) is None


def test_touch_renews_by_the_clock_of_the_producer(path: Path, store: SQLiteStore) -> None:
    assert store.acquire("s", ttl=100.0) is not None
    alter(path, "UPDATE streams SET boot_id = 'another', expires_boot = 50, expires_at = expires_at - 60")
    assert store.touch("s")
    with store._connections.read() as connection:
        found = tables.select(connection, "s")
    assert found is not None and found.boot_id == "another"
    assert found.expires_boot == pytest.approx(110, abs=5)
    assert found.expires_at == pytest.approx(time.time() + 100, abs=5)


def test_what_the_first_edition_began_is_never_taken_over(path: Path, store: SQLiteStore) -> None:
    """Its row has no fence and no handover."""
    lease = store.acquire("s")
    assert lease is not None
    alter(path, "UPDATE streams SET fence = '', owner = 'gone', lease_until = 0")
    assert store.take_over("s", lease.generation) is None
    assert list(store.orphans()) == []
    assert store.status("s") is Status.INTERRUPTED


def test_orphans_are_found_by_an_index(store: SQLiteStore) -> None:
    """Also where there are a lot of others, and by pages."""
    lease = waiting(store, "waits")
    for number in range(250):
        assert store.acquire(f"{number}", handover=HANDOVER) is not None
    assert list(store.orphans()) == ["waits"]
    with store._connections.read() as connection:
        for sql in f"SELECT stream_id FROM {tables.CONTINUABLE}", _OWNERS:
            plans = [plan for *_, plan in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert any("continuable" in plan for plan in plans), plans
        for sql, values in ((tables._EXTEND, (1,) * 8), (tables._EXTEND_AS_EXPECTED, (1,) * 15)):
            ((*_, plan),) = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            assert "PRIMARY KEY" in plan
            steps = [step for _, step, *_ in connection.execute(f"EXPLAIN {sql}", values)]
            assert steps.count("IdxInsert") == 1, "an append writes the row, and no index"
    assert store.take_over("waits", lease.generation) is not None
    assert list(store.orphans()) == []


def test_closing_releases_what_has_a_handover_and_ends_the_rest(path: Path, store: SQLiteStore) -> None:
    other = SQLiteStore(path)
    kept, ends = other.acquire("kept", handover=HANDOVER), other.acquire("ends")
    shared = other.create("shared")
    assert kept is not None and ends is not None and shared is not None
    other.append(kept, b"kept")
    other.close()
    info = store.info("kept")
    assert info is not None and info.status is Status.STREAMING and not info.producer_alive
    assert store.status("ends") is Status.INTERRUPTED and store.status("shared") is Status.STREAMING
    assert list(store.orphans()) == ["kept"]
    with pytest.raises(LeaseLostError):
        store.append(kept, b"late")
    taken = store.take_over("kept", kept.generation)
    assert taken is not None and taken.offset == 4


def test_a_store_that_cannot_write_leaves_a_proof(path: Path, store: SQLiteStore) -> None:
    """Then its streams are orphans as those of a killed process."""
    other = SQLiteStore(path, timeout=0.1)
    lease = other.acquire("s", handover=HANDOVER)
    assert lease is not None
    with store._connections.write():
        other.close()
    assert list(store.orphans()) == ["s"]
    assert store.take_over("s", lease.generation) is not None


def test_notes_go_with_their_row_whoever_deletes_it(path: Path, store: SQLiteStore) -> None:
    for stream_id in "s", "t":
        store.create(stream_id, notes={"a": "1"})
    alter(path, "DELETE FROM streams WHERE stream_id = 's'")  # as the first edition does
    with store._connections.read() as connection:
        assert connection.execute("SELECT DISTINCT stream_id FROM notes").fetchall() == [("t",)]
    lease = store.acquire("s")
    info = store.info("s")
    assert lease is not None and info is not None and info.notes == {}
    store.clear()
    with store._connections.read() as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)


def test_damaged_notes_and_terms_fail_their_stream_alone(path: Path, store: SQLiteStore) -> None:
    for stream_id in "note", "term", "well":
        store.create(stream_id, b"x", notes={"a": "1"})
    alter(
        path,
        "UPDATE notes SET value = x'00' WHERE stream_id = 'note'",
        "UPDATE streams SET term = 'x' WHERE stream_id = 'term'",
        "INSERT INTO notes VALUES ('stray', 'a', '1')",
    )
    problems = store.check()
    assert (
        len(problems) == 3 and [word for word in ("note", "term", "stray") if word not in " ".join(problems)] == []
    )
    for stream_id in "note", "term":
        with pytest.raises(StoreUnavailableError):
            store.commit(stream_id, expect={"a": "1"}, notes={"a": "2"})
        assert store.delete(stream_id)
    assert store.commit("well", b"y", expect={"a": "1"}).endswith("-2")
    assert store.clear() == 1 and store.check() == []


def test_a_refused_part_of_a_group_leaves_the_others_alone(store: SQLiteStore) -> None:
    first, second = store.acquire("first"), store.acquire("second")
    assert first is not None and second is not None
    many = {f"note {number}": "" for number in range(2001)}
    results = store.append_many([(first, [b"a"]), (second, [b"b"])], [many, {"n": "1"}])
    assert isinstance(results[0], LimitExceededError) and results[0].limit == "max_notes"
    assert results[1] == second.cursor
    info = store.info("first")
    assert info is not None and (info.size, info.notes) == (0, {})
    info = store.info("second")
    assert info is not None and (info.size, info.notes) == (1, {"n": "1"})
    with pytest.raises(LimitExceededError):
        store.finalize(first, "done", notes=many)
    assert store.status("first") is Status.STREAMING


def test_a_commit_that_failed_at_its_end_may_have_been_stored(store: SQLiteStore, path: Path) -> None:
    """SQLite repeats none; only the end of the transaction leaves its fate open."""
    store.create("s")

    def refuse_the_commit(connection: object) -> None:
        raise StoreUnavailableError("the file was replaced")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "resumable_sync.stores.sqlite.connection._WriteTransaction._check_files",
            lambda transaction, connection: refuse_the_commit(connection),
        )
        with pytest.raises(StoreUnavailableError) as caught:
            store.commit("s", b"x", expect={"n": None}, notes={"n": "mine"})
    assert caught.value.fate_unknown
    with pytest.raises(ConflictError) as conflict:
        store.commit("s", b"x", expect={"n": None}, notes={"n": "mine"})
    assert conflict.value.notes == {"n": "mine"}, "it was"
    assert store.read("s").data == b"x"

    impatient = SQLiteStore(path, timeout=0.05)
    with store._connections.write():
        with pytest.raises(StoreUnavailableError) as caught:
            impatient.commit("s", b"y")
    assert not caught.value.fate_unknown, "it never began"
    impatient.close()


def test_a_commit_reaches_the_viewers_of_other_processes(path: Path, store: SQLiteStore) -> None:
    other = SQLiteStore(path)
    created = store.create("s", b"a")
    assert created is not None
    cursor = created.cursor
    for chunk, writer, reader in ((b"b", store, other), (b"c", other, store), (b"d", store, store)):
        found = call(reader.read, "s", cursor, timeout=PATIENCE)
        cursor = writer.commit("s", chunk)
        assert found.result(PATIENCE).data == chunk
    found = call(other.read, "s", cursor, timeout=PATIENCE)
    assert store.commit("s", ending="done") == cursor
    assert found.result(PATIENCE).status is Status.DONE
    other.close()


def test_commits_of_many_threads_are_all_there_once(store: SQLiteStore) -> None:
    store.create("s")

    def write(number: int) -> None:
        for count in range(20):
            before = None if count == 0 else f"{count - 1}"
            store.commit(
                "s", b"%d.%d;" % (number, count), expect={f"w{number}": before}, notes={f"w{number}": f"{count}"}
            )

    race(4, write)
    records = store.read("s", max_bytes=1 << 20).data.decode().split(";")[:-1]
    for number in range(4):
        mine = [record for record in records if record.startswith(f"{number}.")]
        assert mine == [f"{number}.{count}" for count in range(20)]


def test_listing_by_prefix_and_status_asks_for_no_more(store: SQLiteStore) -> None:
    for stream_id in "a", "b-1", "b-2", "b-3", "c":
        lease = store.acquire(stream_id)
        assert lease is not None
        if stream_id in ("b-1", "c"):
            store.finalize(lease, "error")
    assert [info.stream_id for info in store.streams(prefix="b-")] == ["b-1", "b-2", "b-3"]
    assert [info.stream_id for info in store.streams(status="error")] == ["b-1", "c"]
    assert [info.stream_id for info in store.streams(prefix="b", status=["error", "streaming"])] == [
        *("b-1", "b-2", "b-3")
    ]
    assert list(store.streams(prefix="\ud800")) == list(store.streams(prefix="\xe4")) == []
    with store._connections.read() as connection:
        seen: list[str] = []
        connection.set_trace_callback(seen.append)
        tables.select_page(connection, "", 10, prefix="b-", status=Status.ERROR)
        tables.select_page(connection, "b-1", 10, prefix="b-")
        connection.set_trace_callback(None)
        plans = [connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()[0][-1] for sql in seen]
    assert "by_status (status=? AND stream_id>? AND stream_id<?)" in plans[0]
    assert "PRIMARY KEY (stream_id>? AND stream_id<?)" in plans[1]
    assert ">= 'b-'" in seen[0] and "> 'b-1'" in seen[1]


def test_streams_that_have_just_died_are_listed_as_they_end(path: Path, store: SQLiteStore) -> None:
    for stream_id in "s", "t":
        assert store.acquire(stream_id) is not None
    alter(path, "UPDATE streams SET lease_until = 0 WHERE stream_id = 's'")
    assert [info.stream_id for info in store.streams(status="interrupted")] == ["s"]
    assert [info.stream_id for info in store.streams(status="streaming")] == ["t"]


def test_a_terms_append_is_refused_after_a_release_or_takeover(store: SQLiteStore) -> None:
    """G4, G11: in the one statement of an append, and on the slow path of notes."""
    old = waiting(store, "s")
    new = store.take_over("s", old.generation)
    assert new is not None
    for notes in None, {"n": "1"}:
        refused = store.append_many([(old, [b"late"]), (new, [b"y"])], [notes, notes] if notes else [])
        assert isinstance(refused[0], LeaseLostError) and refused[1] == new.cursor
    (error,) = store.renew([old])
    assert isinstance(error, LeaseLostError)
    with pytest.raises(LeaseLostError):
        store.finalize(old, "done")
    with pytest.raises(LeaseLostError):
        store.release(old)
    assert store.read("s").data == b"xyy"
