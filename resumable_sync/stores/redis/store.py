"""The Redis store: what each method of the contract sends to Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ...contract import DEFAULT_GRACE, DEFAULT_TTL, Batch, Lease, Position, Status, StreamInfo
from ...errors import ResumableStreamError
from ...process import PerProcess
from ..base import BaseStore, Chunks, check_seconds
from ..tail import Fetched
from .checks import Checker
from .cluster import SlotMap
from .commands import Commands, fetch, finalize_error, renewal_error
from .connection import Link
from .index import Index
from .keys import Keys
from .settings import Target, from_client, from_url

_GROUP_SECONDS = 1.0  # for which a group commit repeats what fails for the moment
_WRITE_CONNECTIONS = 2  # of a process, to each server
_READ_CONNECTIONS = 2
# A renewal and its repeat are through within a heartbeat, also where a connection died without a word.
_RENEWAL_SECONDS = (0.25, 1 / 6)  # that one may take: at least; of the grace time


class _Process:
    """What the store keeps for one process."""

    def __init__(
        self,
        target: Target,
        commands: Commands,
        timeout: float,
        grace: float,
        wait_replicas: tuple[int, float] | None,
    ) -> None:
        slots = SlotMap(target, min(timeout, 2.0)) if target.is_cluster else None
        self.writes = Link(target, timeout, _WRITE_CONNECTIONS, slots, wait_replicas)
        # Each its own: viewers never hold up a producer, and nobody holds up a heartbeat.
        self.reads = Link(target, timeout, _READ_CONNECTIONS, slots)
        least, share = _RENEWAL_SECONDS
        self.renewals = Link(target, min(timeout, max(least, grace * share)), 1, slots)
        self.index = Index(self.reads, commands)
        self.checker = Checker(self.reads, commands, commands.keys.wake(), target.is_cluster)
        self.tails = self.checker.tails
        self.local: dict[str, int] = {}  # generations that are produced here; single steps, so without a lock

    def lost(self, stream_id: str) -> None:
        """The stream was ended, deleted or taken over: its viewers here must fetch, its producer here is none."""
        self.local.pop(stream_id, None)
        tail = self.tails.find(stream_id)
        if tail is not None:
            tail.forget()


class RedisStore(BaseStore):
    """A store in Redis, shared by any number of processes and machines. Thread-safe and fork-safe.

    `client`: a `redis.Redis` (also from `Sentinel.master_for`) or `redis.RedisCluster`; only its connection
    settings are used, whatever else it was told, for connections of the store's own: per process at most 5 (mostly
    2), and one on which all viewers wait (on a Cluster: 5 for each node, and one for each watched stream). An
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
        super().__init__(
            ttl=ttl,
            finished_ttl=finished_ttl,
            grace=grace,
            max_chunk_bytes=max_chunk_bytes,
            max_stream_bytes=max_stream_bytes,
            max_entries=max_entries,
            max_streams=max_streams,
        )
        if not prefix or not prefix.isprintable() or "{" in prefix or "}" in prefix:
            raise ValueError(f"prefix must be printable and without braces, not {prefix!r}")
        if wait_replicas is not None and not (wait_replicas[0] >= 1 and wait_replicas[1] > 0):
            raise ValueError(f"wait_replicas must be (replicas >= 1, seconds > 0), not {wait_replicas!r}")
        target = client if isinstance(client, Target) else from_client(client)
        seconds = check_seconds(timeout, "timeout")
        commands = self._commands = Commands(Keys(prefix), self._limits, self._grace, self._finished_ttl)
        grace = self._grace
        self._processes = PerProcess(lambda: _Process(target, commands, seconds, grace, wait_replicas))

    @classmethod
    def from_url(cls, url: str, **options: Any) -> RedisStore:
        """A store at redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; see `open_store`."""
        return cls(from_url(url), **options)

    def route(self, stream_id: str) -> str:
        """The node of a Cluster that holds the stream; the same for all streams elsewhere, where Sentinel may name
        another server at any time."""
        return self._processes.get().writes.node_name(self._commands.keys.log(stream_id))

    def _acquire(
        self, stream_id: str, ttl: float, metadata: dict[str, str], restart: frozenset[Status]
    ) -> Lease | None:
        """Three round trips. If this raises StoreUnavailableError the stream may have begun; nobody produces it
        then, and it ends as `interrupted` after the grace time."""
        process = self._processes.get()
        process.index.register(stream_id, self._limits.max_streams)
        call = self._commands.acquire(stream_id, ttl, json.dumps(metadata), restart)
        generation = int(process.writes.ask(call))
        process.index.confirm(stream_id, won=generation > 0)
        if not generation:
            return None
        process.local[stream_id] = generation
        return Lease(stream_id, generation, ttl)

    def _append_many(self, batches: Sequence[tuple[Lease, Chunks]]) -> list[str | ResumableStreamError]:
        """One round trip, on a Cluster one to each node."""
        process = self._processes.get()
        appends = [self._commands.append(lease, chunks) for lease, chunks in batches]
        calls = [append.call for append in appends if append.call is not None]
        # Streams on a node that is away must not hold up the others for long: the caller repeats those that
        # failed.
        replies = iter(process.writes.run(calls, None if len(calls) == 1 else _GROUP_SECONDS))
        max_bytes = process.tails.max_bytes
        results: list[str | ResumableStreamError] = []
        for append in appends:
            lease = append.lease
            error = append.error or append.acknowledge(next(replies))
            results.append(error or lease.cursor)
            if error is not None:
                process.lost(lease.stream_id)
                continue
            process.local[lease.stream_id] = lease.generation
            tail = process.tails.find(lease.stream_id)
            if tail is not None and append.rows:
                tail.extend(lease.generation, append.rows, max_bytes, local=True)
        return results

    def _renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """One round trip, on a Cluster one to each node."""
        process = self._processes.get()
        replies = process.renewals.run([self._commands.renew(lease) for lease in leases])
        errors = list(map(renewal_error, leases, replies))
        for lease, error in zip(leases, errors):
            if error is not None:
                process.lost(lease.stream_id)
        return errors

    def _finalize(self, lease: Lease, ending: Status, error: str | None) -> None:
        """One round trip."""
        process = self._processes.get()
        reply = process.writes.run([self._commands.finalize(lease, ending, error)])[0]
        refused = finalize_error(lease, reply, ending)
        if refused is not None:
            process.lost(lease.stream_id)
            raise refused
        process.local.pop(lease.stream_id, None)
        tail = process.tails.find(lease.stream_id)
        if tail is not None:
            tail.finish(Position(lease.generation, reply), ending, error, None)

    def _cancel(self, stream_id: str) -> bool:
        """One round trip."""
        process = self._processes.get()
        cancelled = bool(process.writes.ask(self._commands.cancel(stream_id)))
        process.lost(stream_id)
        return cancelled

    def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
        """One round trip if `timeout` is 0. Otherwise none for a viewer near the end of a stream that this process
        follows already: it is served what the shared reader or the producer here has just brought, and may learn
        CHECK_SECONDS late that the stream was deleted or lost."""
        if not timeout:
            return self._fetch(stream_id, position, max_bytes).batch
        deadline = time.monotonic() + timeout
        return self._processes.get().tails.read(stream_id, position, max_bytes, deadline, self._fetch)

    def _wake(self) -> None:
        self._processes.get().tails.wake_all()

    def _info(self, stream_id: str) -> StreamInfo | None:
        """One round trip."""
        return self._processes.get().index.infos([stream_id])[0]

    def _streams(self) -> Iterator[StreamInfo]:
        index = self._processes.get().index
        return (info for page in index.pages() for info in index.infos(page) if info)

    def _delete(self, stream_id: str) -> bool:
        """Three round trips."""
        process = self._processes.get()
        deleted = bool(process.writes.ask(self._commands.delete(stream_id)))
        process.lost(stream_id)
        process.index.remove([stream_id])
        return deleted

    def _sweep(self) -> int:
        """Also removes damaged streams. Redis itself removes expired ones; this takes them out of the index.
        `acquire` does it when there are `max_streams` in the index."""
        return self._processes.get().index.sweep()

    def drop(self) -> None:
        """Delete all streams and the index, and close the store. Keys that fence off late producers stay for an
        hour."""
        self.clear()
        self._processes.get().index.drop()
        self.close()

    def _ids(self) -> Iterator[str]:
        return (stream_id for page in self._processes.get().index.pages() for stream_id in page)

    def _close(self) -> None:
        """Streams that this store still produces in this process end as `interrupted`: nobody can append to them
        now."""
        process = self._processes.peek()
        if process is None:
            return
        calls = [
            self._commands.finalize(Lease(stream_id, generation), Status.INTERRUPTED, "the store was closed")
            for stream_id, generation in list(process.local.items())
        ]
        process.checker.close()
        if calls:
            process.reads.run(calls)  # if Redis is away their leases run out
        for link in (process.writes, process.reads, process.renewals):
            link.close()

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        self._check_open()
        process = self._processes.get()
        batch, valid_for = fetch(process.reads, self._commands, stream_id, position, max_bytes)
        return Fetched(batch, valid_for, local=process.local.get(stream_id) == batch.generation)
