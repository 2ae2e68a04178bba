"""Streams in Redis (6.2 or later, Valkey), for applications on many machines; also with Sentinel or Cluster.

**Keys** of stream ID, with the default prefix; one hash tag, so all live in one slot of a Cluster:

- `resumable:{ID}:meta`, hash: state, lease, size, times; 330 bytes and the metadata.
- `resumable:{ID}:log`, stream: `<generation>-<end offset>` with `p`, the bytes of one append (chunks joined, up
  to 64 KiB), and `l`, the chunks' lengths as little-endian uint32, left out for a single chunk. The first entry
  is `<generation>-0`; the last, once the stream has ended, `<generation>-18446744073709551615` with the ending.
  A chunk of 64 bytes takes 88 bytes appended alone, 83 in a group commit.
- `resumable:{ID}:fence`, string: the highest generation given out; stays a day longer than the stream; 72 bytes.
- `resumable:{~}:index` and `:fresh`, sorted sets: the ids of all streams, and of those lately acquired.
- `resumable:wake:…`: one short-lived key for each process that reads.

All keys of a stream expire together, a little (an eighth of the ttl) after the stream's own life, so that not
every append must renew them. Any `allkeys-*` or `volatile-*` eviction policy may take them: then readers and
producer get StreamLostError. Use `noeviction`: appends fail while memory is full, endings and reads do not.

**Commands** that a restricted user needs, on the keys `~resumable:*`: `+eval +evalsha +hmget +hget +hset +hdel
+hgetall +xlen +xadd +xrange +xread +get +set +exists +unlink +pexpire +pexpireat +time +zadd +zscore +zcard
+zremrangebyscore +zrem +zrangebylex`; with `wait_replicas` also `+wait`, on a Cluster `+cluster|slots +asking`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...contract import (
    DEFAULT_GRACE,
    DEFAULT_READ_BYTES,
    DEFAULT_TTL,
    Batch,
    Lease,
    Position,
    Status,
    StreamInfo,
    parse_cursor,
    validate_stream_id,
    validate_wait,
)
from ...errors import ResumableStreamError, StoreUnavailableError
from ...process import PerProcess
from .. import base as rules
from ..tail import Fetched
from .calls import Calls, finalize_error, renewal_error
from .connection import Link
from .index import Index, Keys, milliseconds, verify
from .look import look
from .settings import Target, from_client, from_url
from .state import one
from .watch import Watcher

_GROUP_SECONDS = 1.0  # for which a group commit repeats what fails for the moment
_WRITE_CONNECTIONS = 2  # of a process, to each server
_READ_CONNECTIONS = 2


class _Process:
    """What the store keeps for one process."""

    def __init__(
        self, target: Target, keys: Keys, timeout: float, wait_replicas: tuple[int, float] | None
    ) -> None:
        self.writes = Link(target, timeout, _WRITE_CONNECTIONS, wait_replicas)
        self.reads = Link(target, timeout, _READ_CONNECTIONS)  # its own: viewers never hold up a producer
        self.index = Index(self.reads, keys)
        control = f"{keys.prefix}:wake:{secrets.token_hex(8)}"
        self.watcher = Watcher(self.reads, keys, control, target.is_cluster)
        self.tails = self.watcher.tails
        self.local: dict[str, int] = {}  # generations that are produced here; single steps, so without a lock


class RedisStore:
    """A store in Redis, shared by any number of processes and machines. Thread-safe and fork-safe.

    `client`: a `redis.Redis` (also from `Sentinel.master_for`) or `redis.RedisCluster`; only its connection
    settings are used, whatever else it was told, for connections of the store's own: per process at most 4 (mostly
    2), and one on which all viewers wait (on a Cluster: 4 for each node, and one for each watched stream). An
    append is one round trip.
    What an append has returned for was executed by the primary; it survives what Redis's persistence and
    replication survive. `wait_replicas=(n, seconds)`: acknowledge only what n replicas have confirmed.

    `ttl`, `finished_ttl`, `grace`: seconds, as in MemoryStore; by the server's clock alone. `timeout`: seconds
    that an operation keeps trying before StoreUnavailableError (it may take twice that when a server hangs).
    `max_streams` bounds the index; other limits as in MemoryStore. The constructor does not connect.
    ValueError for settings that cannot work.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "resumable",
        ttl: float = DEFAULT_TTL,
        finished_ttl: float | None = None,
        grace: float = DEFAULT_GRACE,
        max_chunk_bytes: int = 1024 * 1024,
        max_stream_bytes: int = 256 * 1024 * 1024,
        max_entries: int = 10_000_000,
        max_streams: int = 100_000,
        timeout: float = 5.0,
        wait_replicas: tuple[int, float] | None = None,
    ) -> None:
        self._ttl = rules.check_ttl(ttl)
        life = None if finished_ttl is None else rules.check_ttl(finished_ttl, "finished_ttl")
        self._grace = rules.check_ttl(grace, "grace")
        self._limits = rules.Limits(max_chunk_bytes, max_stream_bytes, max_entries, max_streams)
        if not prefix or not prefix.isprintable() or "{" in prefix or "}" in prefix:
            raise ValueError(f"prefix must be printable and without braces, not {prefix!r}")
        if wait_replicas is not None and not (wait_replicas[0] >= 1 and wait_replicas[1] > 0):
            raise ValueError(f"wait_replicas must be (replicas >= 1, seconds > 0), not {wait_replicas!r}")
        target = client if isinstance(client, Target) else from_client(client)
        seconds = rules.check_ttl(timeout, "timeout")
        keys = Keys(prefix, "" if life is None else milliseconds(life))
        self._calls = Calls(keys, self._limits, milliseconds(self._grace))
        self._closed = False
        self._processes = PerProcess(lambda: _Process(target, keys, seconds, wait_replicas))

    @classmethod
    def from_url(cls, url: str, **options: Any) -> RedisStore:
        """A store at redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; see `open_store`."""
        return cls(from_url(url), **options)

    @property
    def grace(self) -> float:
        """Seconds without append or renew after which a producer counts as dead."""
        return self._grace

    @property
    def max_chunk_bytes(self) -> int:
        """The largest chunk `append` takes."""
        return self._limits.max_chunk_bytes

    def acquire(
        self, stream_id: str, *, ttl: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> Lease | None:
        """Elect one producer; see `Store.acquire`. Three round trips.

        If this raises StoreUnavailableError the stream may have begun; nobody produces it then, and it ends as
        `interrupted` after the grace time.
        """
        validate_stream_id(stream_id)
        life = self._ttl if ttl is None else rules.check_ttl(ttl)
        details = json.dumps(rules.check_metadata(metadata))
        process = self._process()
        process.index.register(stream_id, self._limits.max_streams)
        generation = int(one(process.writes, self._calls.acquire(stream_id, life, details)))
        process.index.settle(stream_id, won=generation > 0)
        if not generation:
            return None
        process.local[stream_id] = generation
        return Lease(stream_id, generation, life)

    def append(self, lease: Lease, *chunks: bytes) -> str:
        """Store all chunks in one atomic step; see `Store.append`. One round trip."""
        result = self.append_many([(lease, chunks)])[0]
        if isinstance(result, ResumableStreamError):
            raise result
        return result

    def append_many(self, batches: Sequence[tuple[Lease, Sequence[bytes]]]) -> list[str | ResumableStreamError]:
        """`append` for many streams; see `Store.append_many`. One round trip, on a Cluster one to each node."""
        appends = [self._calls.append(lease, chunks) for lease, chunks in batches]
        try:
            process = self._process()
        except StoreUnavailableError as unavailable:
            return [append.error or unavailable for append in appends]
        calls = [append.call for append in appends if append.call is not None]
        # Streams on a node that is away must not hold up the others for long; who writes many repeats by himself.
        replies = iter(process.writes.run(calls, None if len(calls) == 1 else _GROUP_SECONDS))
        max_bytes = process.tails.max_bytes
        results: list[str | ResumableStreamError] = []
        for append in appends:
            lease = append.lease
            error = append.error or append.settle(next(replies))
            results.append(error or lease.cursor)
            if error is not None:
                self._lost(process, lease.stream_id)
                continue
            process.local[lease.stream_id] = lease.generation
            tail = process.tails.find(lease.stream_id)
            if tail is not None and append.rows:
                tail.extend(lease.generation, append.rows, max_bytes, local=True)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Say that these producers live; see `Store.renew`. One round trip, on a Cluster one to each node."""
        try:
            process = self._process()
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(leases)
        replies = process.reads.run([self._calls.renew(lease) for lease in leases])
        errors = list(map(renewal_error, leases, replies))
        for lease, error in zip(leases, errors):
            if error is not None:
                self._lost(process, lease.stream_id)
        return errors

    def finalize(self, lease: Lease, status: Status | str, error: str | None = None) -> None:
        """End the stream; see `Store.finalize`. One round trip."""
        ending = rules.as_ending(status)
        message = rules.check_error_text(error)
        process = self._process()
        reply = process.writes.run([self._calls.finalize(lease, ending, message)])[0]
        refused = finalize_error(lease, reply, ending)
        if refused is not None:
            self._lost(process, lease.stream_id)
            raise refused
        process.local.pop(lease.stream_id, None)
        tail = process.tails.find(lease.stream_id)
        if tail is not None:
            tail.finish(Position(lease.generation, reply), ending, message, 0.0)

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`; see `Store.cancel`. One round trip."""
        validate_stream_id(stream_id)
        process = self._process()
        cancelled = bool(one(process.writes, self._calls.cancel(stream_id)))
        self._lost(process, stream_id)
        return cancelled

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """Return what follows `after`, waiting at most `timeout` seconds; see `Store.read`.

        One round trip if `timeout` is 0. Otherwise none for a viewer near the end of a stream that this process
        follows already: it is served what the shared reader or the producer here has just brought, and may learn
        CHECK_SECONDS late that the stream was deleted or lost.
        """
        position = parse_cursor(after)
        deadline = time.monotonic() + validate_wait(timeout)
        validate_stream_id(stream_id)
        if not timeout:
            return self._fetch(stream_id, position, max_bytes).batch
        return self._process().tails.read(stream_id, position, max_bytes, deadline, self._fetch)

    def wake(self) -> None:
        """Make blocked reads return early; see `Store.wake`."""
        self._process().tails.wake_all()

    def status(self, stream_id: str) -> Status:
        """Where the stream stands. One round trip."""
        info = self.info(stream_id)
        return Status.MISSING if info is None else info.status

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of one stream, None where there is none. One round trip."""
        return self._process().index.infos([validate_stream_id(stream_id)])[0]

    def streams(self) -> Iterator[StreamInfo]:
        """Every stream, in order of its id, in pages: not one snapshot of all."""
        index = self._process().index
        return (info for page in index.pages() for info in index.infos(page) if info)

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; see `Store.delete`. Three round trips."""
        validate_stream_id(stream_id)
        process = self._process()
        deleted = bool(one(process.writes, self._calls.delete(stream_id)))
        self._lost(process, stream_id)
        process.index.discard([stream_id])
        return deleted

    def sweep(self) -> int:
        """Remove expired and damaged streams, end those whose producers died; see `Store.sweep`.

        Redis removes expired streams by itself; this also strikes them off the index. `acquire` does it when
        there are `max_streams` in the index.
        """
        return self._process().index.sweep()

    def check(self) -> list[str]:
        """Verify that each stream's bytes are there; returns what is wrong, in words. Reads all."""
        problems = (verify(self.read, stream_id) for ids in self._process().index.pages() for stream_id in ids)
        return [problem for problem in problems if problem is not None]

    def close(self) -> None:
        """Wake blocked reads, which raise StoreUnavailableError, and close the store's connections. Idempotent.

        Streams that this store still produces in this process end as `interrupted`: nobody can append to them now.
        """
        process = self._processes.peek()
        if self._closed or process is None:
            self._closed = True
            return
        self._closed = True
        calls = [
            self._calls.finalize(Lease(stream_id, generation), Status.INTERRUPTED, "the store was closed")
            for stream_id, generation in list(process.local.items())
        ]
        process.watcher.close()
        if calls:
            process.reads.run(calls)  # if Redis is away their leases run out
        process.writes.close()
        process.reads.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed", transient=False)

    def _process(self) -> _Process:
        self._check_open()
        return self._processes.get()

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        process = self._process()
        batch, due = look(process.reads, self._calls.keys, stream_id, position, max_bytes)
        return Fetched(batch, due, local=process.local.get(stream_id) == batch.generation)

    def _lost(self, process: _Process, stream_id: str) -> None:
        """The stream was ended, deleted or taken over: its viewers here must fetch, its producer is none."""
        process.local.pop(stream_id, None)
        tail = process.tails.find(stream_id)
        if tail is not None:
            tail.forget()
