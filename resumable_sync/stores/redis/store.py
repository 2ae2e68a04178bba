"""RedisStore: a store in Redis, Sentinel or Cluster. See the package for its keys and commands."""

from __future__ import annotations

import json
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
from .commands import Commands, fetch, finalize_error, renewal_error
from .connection import Link
from .feed import Feed, Feeds
from .index import Index, verify
from .keys import Keys
from .settings import Target, from_client, from_url
from .watch import Watch

_GROUP_SECONDS = 1.0  # for which a group commit repeats what fails for the moment
_WRITE_CONNECTIONS = 2  # of a process, to each server
_READ_CONNECTIONS = 2


class _Process:
    """What the store keeps for one process."""

    def __init__(
        self, target: Target, commands: Commands, timeout: float, wait_replicas: tuple[int, float] | None
    ) -> None:
        self.writes = Link(target, timeout, _WRITE_CONNECTIONS, wait_replicas)
        self.reads = Link(target, timeout, _READ_CONNECTIONS)  # its own: viewers never hold up a producer
        self.index = Index(self.reads, commands)
        self.feeds = Feeds()
        keys = commands.keys
        self.watch = Watch(self.reads, self.feeds, keys.log, commands.check, keys.wake(), target.is_cluster)
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
        self._commands = Commands(Keys(prefix), self._limits, self._grace, life)
        self._closed = False
        self._processes = PerProcess(lambda: _Process(target, self._commands, seconds, wait_replicas))

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
        generation = int(process.writes.ask(self._commands.acquire(stream_id, life, details)))
        process.index.confirm(stream_id, won=generation > 0)
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
        appends = [self._commands.append(lease, chunks) for lease, chunks in batches]
        try:
            process = self._process()
        except StoreUnavailableError as unavailable:
            return [append.error or unavailable for append in appends]
        calls = [append.call for append in appends if append.call is not None]
        # Streams on a node that is away must not hold up the others for long; a committer repeats what failed.
        replies = iter(process.writes.run(calls, None if len(calls) == 1 else _GROUP_SECONDS))
        limit = process.feeds.limit
        results: list[str | ResumableStreamError] = []
        for append in appends:
            lease = append.lease
            error = append.error or append.acknowledge(next(replies))
            results.append(error or lease.cursor)
            if error is not None:
                self._lost(process, lease.stream_id)
                continue
            process.local[lease.stream_id] = lease.generation
            feed = process.feeds.find(lease.stream_id)
            if feed is not None and append.rows:
                feed.extend(lease.generation, append.rows, limit, local=True)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Say that these producers live; see `Store.renew`. One round trip, on a Cluster one to each node."""
        try:
            process = self._process()
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(leases)
        replies = process.reads.run([self._commands.renew(lease) for lease in leases])
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
        reply = process.writes.run([self._commands.finalize(lease, ending, message)])[0]
        refused = finalize_error(lease, reply, ending)
        if refused is not None:
            self._lost(process, lease.stream_id)
            raise refused
        process.local.pop(lease.stream_id, None)
        feed = process.feeds.find(lease.stream_id)
        if feed is not None:
            feed.finish(lease.generation, reply, ending, message)

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`; see `Store.cancel`. One round trip."""
        validate_stream_id(stream_id)
        process = self._process()
        cancelled = bool(process.writes.ask(self._commands.cancel(stream_id)))
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
            return self._fetch(stream_id, position, max_bytes)[0]
        feeds = self._process().feeds
        return feeds.read(stream_id, position, max_bytes, deadline, self._fetch, self._caught_up)

    def wake(self) -> None:
        """Make blocked reads return early; see `Store.wake`."""
        self._process().feeds.wake_all()

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
        deleted = bool(process.writes.ask(self._commands.delete(stream_id)))
        self._lost(process, stream_id)
        process.index.remove([stream_id])
        return deleted

    def sweep(self) -> int:
        """Remove expired and damaged streams, end those whose producers died; see `Store.sweep`.

        Redis removes expired streams by itself; this also removes their ids from the index. `acquire` does it when
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
            self._commands.finalize(Lease(stream_id, generation), Status.INTERRUPTED, "the store was closed")
            for stream_id, generation in list(process.local.items())
        ]
        process.watch.close()
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

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> tuple[Batch, float]:
        return fetch(self._process().reads, self._commands, stream_id, position, max_bytes)

    def _caught_up(self, feed: Feed, batch: Batch, due: float, changes: int) -> None:
        """A viewer has found the end of what is stored: its feed is to follow from there."""
        process = self._process()
        feed.caught_up(batch, due, local=process.local.get(feed.stream_id) == batch.generation)
        process.watch.follow(feed)

    def _lost(self, process: _Process, stream_id: str) -> None:
        """The stream was ended, deleted or taken over: its viewers here are to look, its producer here is none."""
        process.local.pop(stream_id, None)
        feed = process.feeds.find(stream_id)
        if feed is not None:
            feed.distrust()
