"""The health check: over every store, when the store is away or hangs, and what is left of it."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext, SQLiteStore, Store
from resumable_sync.contract import HEALTH_PREFIX, Batch, Listing, Position
from resumable_sync.wsgi import health_response

from ..support import wait_until
from .support import call


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Failures are logged; here they are wanted."""
    logging.getLogger("resumable_sync").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("resumable_sync").setLevel(logging.NOTSET)


def left(store: Store) -> list[str]:
    assert isinstance(store, Listing)
    return [info.stream_id for info in store.streams(prefix=HEALTH_PREFIX, internal=True)]


def ask(context: ResumableStreamContext, **options: Any) -> tuple[int, dict[str, Any]]:
    reply = call(validator(health_response(context, **options)), "GET")
    found = json.loads(reply.read())
    reply.close()
    assert isinstance(found, dict)
    return reply.status, found


def test_all_is_well_and_nothing_is_left(store: Store) -> None:
    with ResumableStreamContext(store) as context:
        for _ in range(3):
            health = context.check_health()
            assert (health.ok, health.step, health.code, health.error) == (True, "", "", None)
            assert left(store) == []
        assert 0 < health.seconds < 60
        status, answer = ask(context)
        assert status == 200 and answer["status"] == "ok" and answer.keys() == {"status", "seconds"}
        assert context.stats().totals.elected == 0


def test_its_record_is_hidden_while_it_is_there(store: Store) -> None:
    store.acquire(f"{HEALTH_PREFIX}x")
    assert [*store.streams()] == [] and left(store) == [f"{HEALTH_PREFIX}x"]


def test_a_closed_context_and_a_closed_store(store: Store) -> None:
    context = ResumableStreamContext(store)
    store.close()
    health = context.check_health()
    assert (health.ok, health.step, health.code) == (False, "acquire", "unavailable")
    context.close()
    status, answer = ask(context)
    assert status == 503 and (answer["step"], answer["error"]) == ("context", "unavailable")
    assert "message" not in answer
    status, answer = ask(context, format_error=str)
    assert answer["message"] == "the context is closed or draining"


def test_a_format_error_that_raises_hides_no_failure() -> None:
    def fail(error: BaseException) -> str:
        raise ZeroDivisionError

    with MemoryStore() as store:
        context = ResumableStreamContext(store)
        context.close()
        status, answer = ask(context, format_error=fail)
    assert status == 503 and answer["step"] == "context" and "message" not in answer


def test_a_full_store_cannot_begin_a_stream() -> None:
    with MemoryStore(max_streams=1) as store, ResumableStreamContext(store) as context:
        context.produce("a", lambda: [b"x"])
        health = context.check_health()
        assert (health.ok, health.step, health.code) == (False, "acquire", "limit")
        context.delete("a")
        assert context.check_health().ok


def test_a_locked_file_is_told_in_time(tmp_path: Path) -> None:
    """SQLite waits for a lock, longer than whoever asks."""
    with SQLiteStore(tmp_path / "x.db") as store, ResumableStreamContext(store) as context:
        assert context.check_health().ok
        connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            health = context.check_health(0.2)
            assert time.monotonic() - began < 20  # far below what follows from a wait without a deadline
            assert not health.ok and health.code in ("timeout", "unavailable") and health.step == "acquire"
        finally:
            connection.close()
        wait_until(lambda: context.check_health().ok)
        wait_until(lambda: left(store) == [])


class Hanging(MemoryStore):
    """A store that hangs, or gives back other bytes, at the step `at`."""

    def __init__(self) -> None:
        super().__init__()
        self.at = ""
        self.go_on = threading.Event()
        self.calls = 0

    def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
        if self.at == "read":
            self.calls += 1
            self.go_on.wait(60)
        if self.at == "other bytes":
            return Batch(Position(1, 0), b"other", (5,), size=5, status=self.status(stream_id))
        if self.at == "fault":
            raise ZeroDivisionError
        return super()._read(stream_id, position, max_bytes, timeout)


def test_a_store_that_hangs_holds_one_thread_and_leaves_nothing() -> None:
    store = Hanging()
    context = ResumableStreamContext(store)
    store.at = "read"
    for _ in range(5):
        health = context.check_health(0.05)
        assert (health.ok, health.step, health.code) == (False, "read", "timeout")
    status, answer = ask(context, timeout=0.05)
    assert (status, answer["step"], answer["error"]) == (503, "read", "timeout")
    assert store.calls == 1
    assert [each.name for each in threading.enumerate()].count("resumable-sync-health") == 1
    store.at = ""
    store.go_on.set()
    wait_until(lambda: left(store) == [])
    assert context.check_health().ok
    context.close()
    store.close()


@pytest.mark.parametrize(("at", "code"), [("other bytes", "lost"), ("fault", "fault")])
def test_what_failed_is_said_and_nothing_is_left(at: str, code: str) -> None:
    with Hanging() as store, ResumableStreamContext(store) as context:
        store.at = at
        health = context.check_health()
        assert (health.ok, health.step, health.code) == (False, "read", code)
        store.at = ""
        assert left(store) == []


def test_those_who_ask_together_share_a_check(store: Store) -> None:
    with ResumableStreamContext(store) as context:
        results = []
        threads = [threading.Thread(target=lambda: results.append(context.check_health(60))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(results) == 16 and all(health.ok for health in results)
        assert left(store) == []


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_timeout(context: ResumableStreamContext, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        context.check_health(timeout)
    with pytest.raises(ValueError, match="timeout"):
        health_response(context, timeout=timeout)


def test_head_and_headers(context: ResumableStreamContext) -> None:
    response = health_response(context, headers={"X-Worker": "1"}, environ={})
    assert response.status_code == 200 and ("X-Worker", "1") in response.headers
    reply = call(validator(health_response(context)), "HEAD")
    assert (reply.status, reply.read()) == (200, b"")
    reply.close()
