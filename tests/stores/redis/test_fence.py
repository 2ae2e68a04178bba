"""The key that outlives a stream, for generations to grow: how long it stays, and what it is not needed for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync.contract import new_generation
from resumable_sync.errors import LeaseLostError, StreamLostError
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired

from .server import RedisServer

HOUR = 3_600_000  # ms
SLACK = 300_000


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with server.client(decode_responses=True) as client:
        yield client


def ahead(milliseconds: int) -> int:
    """A generation as a server gave it out whose clock was ahead of what it is now."""
    return new_generation(0) + milliseconds * 1_048_576 // 1000


def test_deleted_streams_leave_little_and_not_for_long(client: Any, prefix: str, store: RedisStore) -> None:
    for number in range(50):
        store.append(acquired(store, f"s{number}"), b"abc")
        assert store.delete(f"s{number}")
    left = {key: client.pttl(key) for key in client.scan_iter(f"{prefix}:{{s*", count=1000)}
    kinds = {key.rpartition(":")[2] for key in left}
    assert kinds <= {"fence", "log"}  # the log tells blocked readers, for seconds
    for key, milliseconds in left.items():
        assert 0 < milliseconds <= (HOUR if key.endswith("fence") else 10_000)


@pytest.mark.parametrize("ending", [None, "done"])
def test_expired_streams_leave_little_and_not_for_long(
    client: Any, prefix: str, store: RedisStore, ending: str | None
) -> None:
    lease = acquired(store, "s", ttl=60)
    if ending is not None:
        store.finalize(lease, ending)
    meta, fence = (client.pttl(f"{prefix}:{{s}}:{name}") for name in ("meta", "fence"))
    assert 0 < meta < 120_000
    assert HOUR - SLACK < fence - meta < HOUR + SLACK


def test_a_clock_that_was_set_back_keeps_the_fence_until_it_is_past_the_generation(
    client: Any, prefix: str, store: RedisStore
) -> None:
    fence = f"{prefix}:{{s}}:fence"
    client.set(fence, ahead(2 * HOUR))
    late = acquired(store, "s", ttl=60)
    store.append(late, b"abc")
    assert 3 * HOUR - SLACK < client.pttl(fence) < 3 * HOUR + SLACK
    assert store.delete("s")
    assert 3 * HOUR - SLACK < client.pttl(fence) < 3 * HOUR + SLACK
    with pytest.raises(StreamLostError):
        store.append(late, b"def")
    again = acquired(store, "s")
    assert again.generation > late.generation
    with pytest.raises(LeaseLostError):
        store.append(late, b"def")


def test_a_fence_from_a_far_future_does_not_stay_for_ever(client: Any, prefix: str, store: RedisStore) -> None:
    fence = f"{prefix}:{{s}}:fence"
    client.set(fence, ahead(1000 * HOUR))
    acquired(store, "s")
    assert store.delete("s")
    assert 24 * HOUR < client.pttl(fence) <= 25 * HOUR + SLACK


def test_without_a_fence_a_late_producer_is_still_another(client: Any, prefix: str, store: RedisStore) -> None:
    """Also where the clock was set back: a generation is given out twice only by the same microsecond."""
    for past in (0, 2 * HOUR):
        client.set(f"{prefix}:{{s}}:fence", ahead(past))
        late = acquired(store, "s")
        assert store.delete("s")
        client.delete(f"{prefix}:{{s}}:fence")
        again = acquired(store, "s")
        assert (again.generation < late.generation) is (past > 0)
        for call in (lambda: store.append(late, b"x"), lambda: store.finalize(late, "done")):
            with pytest.raises(LeaseLostError):
                call()
        store.append(again, b"new")
        assert store.read("s").data == b"new" and abs(time.time() - again.generation / 2**20) < 300
        assert store.delete("s")
