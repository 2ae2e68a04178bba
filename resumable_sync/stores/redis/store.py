"""The Redis store: what each method of the contract sends to Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...contract import DEFAULT_GRACE, DEFAULT_TTL, Batch, Lease, Position, Status, StreamInfo, new_token
from ...errors import ResumableStreamError, StoreUnavailableError
from ...interrupts import Event
from ...process import PerProcess
from ..base import BaseStore, Chunks, Selection, check_seconds, outcomes
from ..combining import Combiner
from ..notes import Commit, Creation
from ..tail import Ending, Fetched
from .checks import Checker
from .cluster import SlotMap
from .commands import Commands, Committing, fetch, finalize_error, parse_info, parse_takeover, renewal_error
from .connection import Link
from .index import Index
from .keys import Keys
from .settings import Target, from_client, from_url

_GROUP_SECONDS = 1.0  # for which a group commit repeats what fails for the moment
_TURN_SHARE = 1.25  # of the timeout: a commit waits for others, the first of which may meet a dead connection
_WRITE_CONNECTIONS = 2  # of a process, to each server
_READ_CONNECTIONS = 2
# A renewal and its repeat are through within a heartbeat, also where a connection died without a word.
_RENEWAL_SECONDS = (0.25, 1 / 6)  # that one may take: at least; of the grace time


class _Term(NamedTuple):
    """What this process produces: all that ends it, or lets go of it."""

    generation: int
    token: str
    released: str
    handover: float


class _Process:
    """What the store keeps for one process. `_guard` guards changes of `local`; a dict is read atomically."""

    def __init__(
        self,
        target: Target,
        commands: Commands,
        timeout: float,
        grace: float,
        wait_replicas: tuple[int, float] | None,
    ) -> None:
        slots = SlotMap(target, min(timeout, 2.0)) if target.is_cluster else None
        reached = Event()
        self.writes = Link(target, timeout, _WRITE_CONNECTIONS, slots, wait_replicas, reached)
        # Each its own: viewers never hold up a producer, and nobody holds up a heartbeat.
        self.reads = Link(target, timeout, _READ_CONNECTIONS, slots, reached=reached)
        least, share = _RENEWAL_SECONDS
        self.renewals = Link(target, min(timeout, max(least, grace * share)), 1, slots, reached=reached)
        self._commits: dict[str, Combiner[Commit, str]] = {}
        self.index = Index(self.reads, commands)
        self.checker = Checker(self.reads, commands, commands.keys.wake(), target.is_cluster)
        self.tails = self.checker.tails
        self.local: dict[str, _Term] = {}  # what is produced here
        self._guard = threading.Lock()

    def commits_to(self, node: str) -> Combiner[Commit, str]:
        """Those to one server: one that hangs does not hold up the others'."""
        commits = self._commits.get(node)
        return self._commits.setdefault(node, Combiner()) if commits is None else commits

    def produces(self, lease: Lease) -> None:
        """The holder of this lease is in this process."""
        known = self.local.get(lease.stream_id)
        if known is None or known.token != lease.token or known.generation != lease.generation:
            with self._guard:
                term = _Term(lease.generation, lease.token, lease.released, lease.handover)
                self.local[lease.stream_id] = term

    def leaves(self, lease: Lease) -> None:
        """The term of this lease is over. Another one may have begun here."""
        with self._guard:
            known = self.local.get(lease.stream_id)
            if known is not None and known.token == lease.token and known.generation == lease.generation:
                del self.local[lease.stream_id]

    def refused(self, lease: Lease) -> None:
        """This lease could not write: its viewers here must fetch. It has no stream until it writes again."""
        self.leaves(lease)
        self.forget(lease.stream_id)

    def lost(self, stream_id: str) -> None:
        """The stream was ended or deleted: its viewers here must fetch, its producer here is none."""
        with self._guard:
            self.local.pop(stream_id, None)
        self.forget(stream_id)

    def forget(self, stream_id: str) -> None:
        """The viewers of this stream here must fetch."""
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
    that an operation keeps trying before StoreUnavailableError (it may take a little over twice that when a
    server hangs; where no server has been there yet for this process, and none listens, it is told within half a
    second).
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
        self,
        stream_id: str,
        ttl: float,
        metadata: dict[str, str],
        restart: frozenset[Status],
        handover: float = 0.0,
    ) -> Lease | None:
        """Three round trips. If this raises StoreUnavailableError the stream may have begun; nobody produces it
        then, and it ends as `interrupted` after the grace time and the handover."""
        process = self._processes.get()
        look_after = self._grace if handover else None
        process.index.register(stream_id, self._limits.max_streams, look_after)
        token = new_token()
        call = self._commands.acquire(stream_id, token, ttl, json.dumps(metadata), restart, handover)
        generation = int(process.writes.ask(call))
        process.index.confirm(stream_id, generation > 0, look_after)
        if not generation:
            return None
        lease = Lease(stream_id, generation, ttl, token=token, handover=handover)
        process.produces(lease)
        return lease

    def _take_over(self, stream_id: str, generation: int, token: str) -> Lease | None:
        """One round trip. If this raises StoreUnavailableError the term may have begun; nobody produces the stream
        then, and it may be taken over after the grace time."""
        process = self._processes.get()
        reply = process.writes.ask(self._commands.take_over(stream_id, generation, token))
        lease = parse_takeover(stream_id, generation, token, reply)
        if lease is not None:
            process.produces(lease)
        return lease

    def _release(self, lease: Lease) -> None:
        """Two round trips, one without a handover."""
        process = self._processes.get()
        reply = process.writes.run([self._commands.release(lease)])[0]
        error = renewal_error(lease, reply)
        if error is not None:
            process.refused(lease)
            raise error
        process.leaves(lease)
        process.forget(lease.stream_id)
        if lease.handover:
            process.index.released(lease.stream_id, reply)

    def _orphans(self) -> Iterator[str]:
        """One round trip for each page of those that may wait, and two where some do not."""
        return self._processes.get().index.orphans()

    def _create(self, creation: Creation, token: str) -> StreamInfo | None:
        """Three round trips. If this raises StoreUnavailableError the stream may have begun."""
        self._limits.check_chunks(creation.chunks)
        size = sum(map(len, creation.chunks))
        self._limits.check_room(creation.stream_id, size, len(creation.chunks))
        call = self._commands.create(creation, token)
        process = self._processes.get()
        process.index.register(creation.stream_id, self._limits.max_streams)
        reply = process.writes.ask(call)
        process.index.confirm(creation.stream_id, bool(reply))
        info = parse_info(creation.stream_id, reply) if reply else None
        return info and replace(info, notes=creation.notes)

    def _commit(self, commit: Commit) -> str:
        """One round trip, which commits that meet on their way to one server share. It is repeated as other calls
        only if it is fenced, or certainly was not executed."""
        process = self._processes.get()
        commits = process.commits_to(process.writes.node_name(self._commands.keys.log(commit.stream_id)))
        patience = process.writes.reply_timeout * _TURN_SHARE
        return commits.call(self._commit_all, commit, commit.length, patience)

    def _commit_all(self, commits: Sequence[Commit], patience: float) -> list[str | ResumableStreamError]:
        """One round trip."""
        process = self._processes.get()
        made = list(map(self._commands.commit, commits))
        replies = process.writes.commit([each.call for each in made], [each.fenced for each in made], patience)

        def finish(each: tuple[Commit, Committing, tuple[Any, bool]]) -> str:
            commit, committing, reply = each
            stored = committing.result(*reply)
            tail = process.tails.find(commit.stream_id)
            if tail is not None:
                if commit.ending is not None:
                    tail.forget()  # rows of others may not have come yet: the viewers fetch
                elif stored.rows and tail.known() == Position(stored.generation, stored.size - commit.length):
                    tail.extend(stored.generation, stored.rows, process.tails.max_bytes)
            return str(Position(stored.generation, stored.size))

        return outcomes(finish, zip(commits, made, replies))

    def _touch_life(self, stream_id: str) -> bool:
        """One round trip, in the turn of the renewals: the heartbeat makes both."""
        return bool(self._processes.get().renewals.ask(self._commands.touch(stream_id)))

    def _append_many(
        self, batches: Sequence[tuple[Lease, Chunks]], notes: Sequence[dict[str, str | None]] = ()
    ) -> list[str | ResumableStreamError]:
        """One round trip, on a Cluster one to each node."""
        process = self._processes.get()
        if notes:
            appends = [self._commands.append(*batch, noted) for batch, noted in zip(batches, notes)]
        else:
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
                process.refused(lease)
                continue
            process.produces(lease)
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
            if isinstance(error, StoreUnavailableError):
                process.forget(lease.stream_id)  # its producer tries again
            elif error is not None:
                process.refused(lease)
        return errors

    def _finalize(
        self, lease: Lease, ending: Status, error: str | None, notes: dict[str, str | None] | None = None
    ) -> None:
        """One round trip."""
        process = self._processes.get()
        reply = process.writes.run([self._commands.finalize(lease, ending, error, notes)])[0]
        refused = finalize_error(lease, reply, ending)
        if refused is not None:
            process.refused(lease)
            raise refused
        process.leaves(lease)
        tail = process.tails.find(lease.stream_id)
        if tail is not None:
            tail.finish(Ending(Position(lease.generation, reply), ending, error, None))

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
        return self._processes.get().index.info(stream_id)

    def _select(self, selection: Selection) -> Iterator[StreamInfo]:
        index = self._processes.get().index
        for page in index.pages(selection.prefix):
            for info in index.infos(list(filter(selection.has_id, page))):
                if info is not None and selection.has_state(info.status, info.metadata):
                    yield info

    def _streams(self) -> Iterator[StreamInfo]:
        return self._select(Selection())

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
        """Streams that this store still produces in this process are released, or, without a handover, end as
        `interrupted`: nobody can append to them now."""
        process = self._processes.peek()
        if process is None:
            return
        leases = [
            Lease(stream_id, term.generation, token=term.token, handover=term.handover, released=term.released)
            for stream_id, term in list(process.local.items())
        ]
        calls = [
            (
                self._commands.release(lease)
                if lease.handover
                else self._commands.finalize(lease, Status.INTERRUPTED, "the store was closed")
            )
            for lease in leases
        ]
        process.checker.close()
        replies = process.reads.run(calls) if calls else []  # if Redis is away their leases run out
        for lease, reply in zip(leases, replies):
            if lease.handover and isinstance(reply, int):
                process.index.released(lease.stream_id, reply)
        for link in (process.writes, process.reads, process.renewals):
            link.close()

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        self._check_open()
        process = self._processes.get()
        batch, valid_for = fetch(process.reads, self._commands, stream_id, position, max_bytes)
        term = process.local.get(stream_id)
        return Fetched(batch, valid_for, local=term is not None and term.generation == batch.generation)
