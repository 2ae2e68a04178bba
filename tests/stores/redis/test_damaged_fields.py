"""What somebody else wrote into a field of a stream, or over a key of the index, concerns nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from resumable_sync import ResumableStreamError, StreamLostError
from resumable_sync.contract import Lease
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired

from .server import RedisServer

DAMAGE = ["x", "", "-1", "1e400", "nan", "9" * 25, "1.5", b"\xff\xfe"]
FIELDS = ["generation", "status", "size", "entries", "rows", "ttl", "lease", "expires", "kept", "fence", "created"]
FIELDS += ["updated", "metadata", "handover", "until", "error"]


def handed(store: RedisStore, stream_id: str) -> Lease:
    lease = store.acquire(stream_id, handover=60.0)
    assert lease is not None
    return lease


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("field", FIELDS)
def test_a_damaged_field_is_told_by_type_and_hides_nobody_else(
    field: str, damage: Any, store: RedisStore, other: RedisStore, prefix: str, server: RedisServer
) -> None:
    lease, healthy = handed(store, "bad"), acquired(store, "good")
    store.append(lease, b"abc")
    server.client().hset(f"{prefix}:{{bad}}:meta", field, damage)
    for asked in store, other:
        for call in asked.info, asked.status, asked.read, asked.cancel:
            try:
                call("bad")
            except ResumableStreamError:
                pass
        assert "good" in [info.stream_id for info in asked.streams()]
        asked.sweep()
        list(asked.orphans())
    assert store.append_many([(healthy, [b"x"]), (lease, [b"y"])])[0] == healthy.cursor
    assert store.renew([healthy, lease])[0] is None
    other.delete("bad")
    lease = acquired(other, "bad")
    other.append(lease, b"anew")
    assert store.read("bad").data == b"anew" and lease.generation < 2**53


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_append_that_reads_no_life_leaves_its_damage_to_be_told_by_who_reads_it(
    damage: Any, store: RedisStore, other: RedisStore, prefix: str, server: RedisServer
) -> None:
    lease = acquired(store, "s")
    server.client().hset(f"{prefix}:{{s}}:meta", "ttl", damage)
    store.append(lease, b"abc")
    with pytest.raises(StreamLostError):
        store.finalize(lease, "done")
    with pytest.raises(StreamLostError):
        other.read("s")
    lease.offset = 1
    with pytest.raises(StreamLostError):  # an append that is refused reads all
        store.append(lease, b"x")


@pytest.mark.parametrize("key", ["index", "fresh", "orphans"])
def test_a_key_of_the_index_that_is_of_another_type_is_in_nobodys_way(
    key: str, store: RedisStore, prefix: str, server: RedisServer
) -> None:
    lease = handed(store, "s")
    client: Any = server.client()
    for call in (
        lambda: store.append(handed(store, "next"), b"x"),
        lambda: store.sweep(),
        lambda: list(store.orphans()) if key == "orphans" else store.sweep(),
        lambda: store.delete("next"),
    ):
        client.delete(f"{prefix}:{{~}}:{key}")
        client.set(f"{prefix}:{{~}}:{key}", "of somebody else")
        call()
    store.append(lease, b"x")
