"""Streams in a SQLite file, shared by all processes of one machine: the embedded default."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...contract import DEFAULT_GRACE, DEFAULT_TTL, Batch, Lease, Position, Status, StreamInfo
from ...errors import (
    LimitExceededError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamLostError,
    StreamNotFoundError,
)
from ...process import PerProcess, at_exit
from ..base import BaseStore, Chunks, Selection, check_seconds, finalize_error, ownership_error, start_position
from ..combining import Combiner
from ..notes import Commit, Creation
from ..pages import Page
from ..tail import Fetched
from . import tables, upkeep
from .connection import Connections, Translated
from .liveness import Liveness, ProcessLock
from .tables import Row, Steps
from .upkeep import Upkeep
from .watch import Watcher

_PATIENCE = 1.0  # with other writers, where the store's timeout would be too long: in a close or a read
_PAGE_OF_STREAMS = 200  # of one query of streams()


Begun = TypeVar("Begun")


class _Committed(NamedTuple):
    """A commit that has gone into a transaction, or was refused there."""

    outcome: str | ResumableStreamError
    row: Row | None
    """As it is now."""
    pages: list[Page]
    ended: bool


class _Process:
    """What the store holds in one process. Each part knows only those made before it."""

    def __init__(self, connections: Connections, run_directory: Path, steps: Steps, shortest_ttl: float) -> None:
        connections.pool()  # refuses here what this process must not use, before anything is put beside it
        with Translated(run_directory), contextlib.ExitStack() as undo:
            self.lock = ProcessLock(run_directory)
            undo.callback(self.lock.release)
            self.liveness = Liveness(connections, run_directory, self.lock.token, steps)
            self.watcher = Watcher(connections, run_directory, self.lock.token, self.liveness.end_dead)
            undo.pop_all()
        self.upkeep = Upkeep(connections, run_directory, self.liveness, self.watcher.publish, shortest_ttl)
        self.commits: Combiner[Commit, str] = Combiner()

    def end_over(self, rows: Iterable[tuple[str, Row]], patience: float | None = None) -> dict[str, Row | None]:
        """See `Liveness.end_over`; the viewers of those that were ended learn of it."""
        ended = self.liveness.end_over(rows, patience)
        if ended:
            self.watcher.publish(ended)
        return ended

    def info(self, stream_id: str, row: Row, notes: dict[str, str] | None = None) -> StreamInfo:
        """The row as the public snapshot."""
        alive = not row.handover or not self.liveness.is_orphan(row)  # without a handover it would have ended
        return row.info(stream_id, producer_alive=alive, notes=notes)

    def publish_ending(self, stream_id: str, row: Row) -> None:
        """Tell the viewers that this stream has ended as `row`. After the commit."""
        end = Position(row.generation, row.size)
        self.watcher.publish_ending(stream_id, end, row.status, row.error, row.life)


class SQLiteStore(BaseStore):
    """A store in a SQLite file (WAL), for any number of threads and processes on one machine.

    Thread-safe and fork-safe; a child opens connections of its own. What an append has returned for survives
    the kill of any process; at a power loss the last commits may go (synchronous=NORMAL). The file must be on a
    local disk, with one hard link; containers mount its directory, not the file alone. A child that is forked
    while a transaction outlasts the fork's patience (2 s), or from a signal handler within one, refuses the file,
    and so does a process whose `-wal` or `-shm` was removed or replaced: all calls raise StoreUnavailableError,
    not transient. Beside the file lies `<path>-run/`, with a lock file for each process, by which a killed
    producer is noticed within a second (a frozen one by its lease), and with sockets for wake-ups. A process that
    is stopped in the middle of a write transaction keeps all others from writing until it goes on or is killed:
    their calls raise StoreUnavailableError meanwhile, and what is stored can be read (but for the few microseconds
    in which it enters or leaves SQLite's locks: stopped there, it keeps others from reading, too).

    `ttl`, `finished_ttl`, `grace`: seconds, as in MemoryStore. `timeout`: seconds that a write waits for other
    processes before StoreUnavailableError; under gevent other greenlets go on meanwhile. `max_file_bytes`: a bound
    of the file; beyond it appends fail as on a full disk. Raises StoreUnavailableError if the file cannot be
    opened, is damaged, belongs to another program, or was made by a newer version.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ttl: float = DEFAULT_TTL,
        finished_ttl: float | None = None,
        grace: float = DEFAULT_GRACE,
        max_chunk_bytes: int = 1024 * 1024,
        max_stream_bytes: int = 4 * 1024 * 1024 * 1024,
        max_entries: int = 100_000_000,
        max_streams: int = 100_000,
        max_file_bytes: int | None = None,
        timeout: float = 10.0,
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
        self._steps = steps = Steps(self._limits, self._grace, self._finished_ttl)
        # Of several names by symlinks one counts: SQLite and the run directory go by the file itself.
        self.path = Path(os.path.realpath(path))
        self._run_directory = directory = self.path.with_name(self.path.name + "-run")
        wait = check_seconds(timeout, "timeout")
        self._connections = connections = Connections(self.path, directory, wait, max_file_bytes)
        connections.files.check_alone()
        with connections.read():
            pass  # trouble with the file shows here, not at the first request
        connections.close_idle()  # a server that forks by itself, as uWSGI does, inherits none
        shortest_ttl = min(self._ttl, self._finished_ttl or self._ttl)
        self._processes = PerProcess(lambda: _Process(connections, directory, steps, shortest_ttl))
        self._processes.get()
        at_exit(self, SQLiteStore.close)  # so that no lock files and sockets are left about

    def _acquire(
        self,
        stream_id: str,
        ttl: float,
        metadata: dict[str, str],
        restart: frozenset[Status],
        handover: float = 0.0,
    ) -> Lease | None:
        """A write transaction."""
        process = self._processes.get()
        process.lock.restore()
        details, owner = json.dumps(metadata), process.lock.token

        def begin(connection: sqlite3.Connection, expired: Row | None) -> Lease:
            return self._steps.begin(connection, stream_id, expired, ttl, details, owner, handover)

        return self._begin(process, stream_id, ttl, restart, begin)

    def _begin(
        self,
        process: _Process,
        stream_id: str,
        ttl: float,
        restart: frozenset[Status],
        begin: Callable[[sqlite3.Connection, Row | None], Begun],
    ) -> Begun | None:
        """What `begin(connection, expired)` returns, unless the id is taken."""
        process.upkeep.make_room()
        try:
            begun = self._elect(process, stream_id, restart, begin)
        except LimitExceededError as exceeded:
            if exceeded.limit != "max_streams":
                raise
            process.upkeep.sweep()  # expired streams take no room
            begun = self._elect(process, stream_id, restart, begin)
        except StoreUnavailableError as unavailable:
            process.upkeep.refused(unavailable)
            raise
        process.upkeep.expect(ttl)
        return begun

    def _elect(
        self,
        process: _Process,
        stream_id: str,
        restart: frozenset[Status],
        begin: Callable[[sqlite3.Connection, Row | None], Begun],
    ) -> Begun | None:
        begun = ended = None
        replaced = False
        with self._connections.write() as connection:
            row = tables.select(connection, stream_id)
            over = row is not None and process.liveness.is_over(row)
            if row is not None and not row.expired:
                replaced = (Status.INTERRUPTED if over else row.status) in restart
            if row is None or row.expired or (row.overdue and over) or replaced:
                begun = begin(connection, row)
            elif over:
                ended = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        if ended is not None:
            process.publish_ending(stream_id, ended)
        if replaced:
            process.watcher.publish([stream_id])
            process.upkeep.sweep_soon()  # the pages of the life that made way
        return begun

    def _take_over(self, stream_id: str, generation: int, token: str) -> Lease | None:
        """A write transaction."""
        process, lease, ended = self._processes.get(), None, None
        process.lock.restore()
        with self._connections.write() as connection:
            row = tables.select_living(connection, stream_id)
            if row is None or row.generation != generation or not row.handover:
                return None
            if process.liveness.is_orphan(row):
                if not process.liveness.is_over(row):
                    lease = self._steps.take_over(connection, stream_id, row, token, process.lock.token)
                if lease is None:
                    ended = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        if ended is not None:
            process.publish_ending(stream_id, ended)
        if lease is not None:
            process.upkeep.expect(lease.ttl)
        return lease

    def _release(self, lease: Lease) -> None:
        """A write transaction."""
        process = self._processes.get()
        with self._connections.write() as connection:
            row = tables.select_living(connection, lease.stream_id)
            if row is not None and row.generation == lease.generation and row.fence == lease.released:
                return
            refused = ownership_error(lease, row)
            if refused is None and row is not None:
                row = self._steps.release(connection, lease.stream_id, row, lease.released)
        if refused is not None:
            raise refused
        if row is not None and row.status.ended:
            process.publish_ending(lease.stream_id, row)

    def _orphans(self) -> Iterator[str]:
        """By an index of the running streams that have a handover."""
        process = self._processes.get()
        with self._connections.read() as connection:
            ids = tables.select_continuable(connection)
        for begin in range(0, len(ids), _PAGE_OF_STREAMS):
            with self._connections.read() as connection:
                rows = tables.select_many(connection, ids[begin : begin + _PAGE_OF_STREAMS])
            ended = process.end_over(rows)
            for stream_id, row in rows:
                if stream_id not in ended and process.liveness.is_orphan(row):
                    yield stream_id

    def _create(self, creation: Creation, token: str) -> StreamInfo | None:
        """A write transaction."""
        self._steps.check(creation)
        process = self._processes.get()

        def begin(connection: sqlite3.Connection, expired: Row | None) -> Row:
            return self._steps.create(connection, creation, expired, token)

        row = self._begin(process, creation.stream_id, creation.ttl, frozenset(), begin)
        if row is None:
            return None
        process.upkeep.wrote(row.size, 1)
        return row.info(creation.stream_id, notes=creation.notes)

    def _commit(self, commit: Commit) -> str:
        """A write transaction, which commits that meet share. Never repeated: one that fails before its end was
        certainly not stored."""
        commits = self._processes.get().commits
        return commits.call(self._commit_all, commit, commit.length, self._connections.timeout)

    def _commit_all(self, commits: Sequence[Commit], patience: float) -> list[str | ResumableStreamError]:
        """One write transaction."""
        process = self._processes.get()
        made: list[_Committed] = []
        process.upkeep.make_room()
        try:
            with self._connections.write(patience) as connection:
                for commit in commits:
                    try:
                        made.append(self._carry_out(process, connection, commit))
                    except ResumableStreamError as damaged:  # this stream alone
                        made.append(_Committed(damaged, None, [], False))
        except StoreUnavailableError as unavailable:
            process.upkeep.refused(unavailable)
            raise
        # Committed: only now may the readers know.
        pages: dict[str, tuple[int, list[Page]]] = {}
        ended: dict[str, Row] = {}
        for commit, each in zip(commits, made):
            if each.row is not None and each.pages:
                pages.setdefault(commit.stream_id, (each.row.generation, []))[1].extend(each.pages)
            if each.row is not None and each.ended:
                ended[commit.stream_id] = each.row
        lengths = [commit.length for commit, each in zip(commits, made) if each.pages]
        for stream_id, row in ended.items():
            if stream_id in pages:
                pages[stream_id] = row.generation, []  # the store alone gives pages and ending in one snapshot
            else:
                process.publish_ending(stream_id, row)
        process.watcher.publish_pages(pages)
        process.upkeep.wrote(sum(lengths), len(lengths))
        return [each.outcome for each in made]

    def _carry_out(self, process: _Process, connection: sqlite3.Connection, commit: Commit) -> _Committed:
        """One commit of a transaction."""
        stream_id = commit.stream_id
        ended = False
        row = tables.select_living(connection, stream_id)
        if row is not None and process.liveness.is_over(row):
            row, ended = self._steps.end(connection, stream_id, row, Status.INTERRUPTED), True
        refused = self._steps.commit_error(connection, commit, None if row is None or row.expired else row)
        if refused is not None:
            return _Committed(refused, row, [], ended)
        if row is None:
            return _Committed(StreamLostError(f"stream {stream_id} is gone"), None, [], ended)
        row, written = self._steps.commit(connection, commit, row)
        return _Committed(f"{row.generation}-{row.size}", row, written, ended or commit.ending is not None)

    def _touch_life(self, stream_id: str) -> bool:
        """A write transaction."""
        process, ended = self._processes.get(), None
        with self._connections.write() as connection:
            row = tables.select_living(connection, stream_id)
            if row is not None and process.liveness.is_over(row):
                row = ended = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
            found = row is not None and not row.expired
            if found and row is not None:
                self._steps.touch(connection, stream_id, row)
        if ended is not None:
            process.publish_ending(stream_id, ended)
        return found

    def _append_many(
        self, batches: Sequence[tuple[Lease, Chunks]], notes: Sequence[dict[str, str | None]] = ()
    ) -> list[str | ResumableStreamError]:
        """One write transaction."""
        results: list[str | ResumableStreamError] = []
        written: dict[str, tuple[int, list[Page]]] = {}
        lengths = [sum(map(len, chunks)) for _, chunks in batches]
        process = self._processes.get()
        process.lock.restore()
        process.upkeep.make_room()
        try:
            with self._connections.write() as connection:
                for index, ((lease, chunks), length) in enumerate(zip(batches, lengths)):
                    found = self._steps.append(connection, lease, chunks, length, notes[index] if notes else None)
                    if isinstance(found, list):
                        results.append(f"{lease.generation}-{lease.offset + length}")
                        written[lease.stream_id] = lease.generation, found
                    else:
                        results.append(found)
                        written[lease.stream_id] = 0, []
        except StoreUnavailableError as unavailable:
            process.upkeep.refused(unavailable)
            raise
        # Committed: only now may the leases and the readers know.
        for (lease, _), length, result in zip(batches, lengths, results):
            if isinstance(result, str):
                lease.offset += length
        process.watcher.publish_pages(written)
        process.upkeep.wrote(sum(lengths), len(batches))
        return results

    def _renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """One write transaction."""
        self._processes.get().lock.restore()
        with self._connections.write() as connection:
            return [self._steps.renew(connection, lease) for lease in leases]

    def _finalize(
        self, lease: Lease, ending: Status, error: str | None, notes: dict[str, str | None] | None = None
    ) -> None:
        """A write transaction."""
        process, ended = self._processes.get(), None
        with self._connections.write() as connection:
            row = tables.select_living(connection, lease.stream_id)
            refused = finalize_error(lease, row, ending)
            if refused is None and row is not None and row.status is Status.STREAMING:
                if notes:
                    tables.check_room_for_notes(connection, lease.stream_id, notes)
                    tables.set_notes(connection, lease.stream_id, notes)
                ended = self._steps.end(connection, lease.stream_id, row, ending, error)
        if refused is not None:
            raise refused
        if ended is not None:
            process.publish_ending(lease.stream_id, ended)

    def _cancel(self, stream_id: str) -> bool:
        """A write transaction."""
        process = self._processes.get()
        with self._connections.write() as connection:
            row = tables.select_living(connection, stream_id)
            if row is None or row.status is not Status.STREAMING:
                return False
            running = not process.liveness.is_over(row)
            status = Status.CANCELLED if running else Status.INTERRUPTED
            ended = self._steps.end(connection, stream_id, row, status)
        process.publish_ending(stream_id, ended)
        return running

    def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
        if not timeout:
            return self._fetch(stream_id, position, max_bytes).batch
        deadline = time.monotonic() + timeout
        tails = self._processes.get().watcher.tails
        return tails.read(stream_id, position, max_bytes, deadline, self._fetch)

    def _wake(self) -> None:
        self._processes.get().watcher.tails.wake_all()

    def _info(self, stream_id: str) -> StreamInfo | None:
        process = self._processes.get()
        notes: dict[str, str] = {}
        with self._connections.read() as connection:
            row = tables.select_living(connection, stream_id)
            if row is not None:
                notes = tables.select_notes(connection, stream_id)
        if row is not None and process.liveness.is_over(row):
            row = process.end_over([(stream_id, row)])[stream_id]
        return None if row is None or row.expired else process.info(stream_id, row, notes)

    def _streams(self) -> Iterator[StreamInfo]:
        return self._select(Selection())

    def _select(self, selection: Selection) -> Iterator[StreamInfo]:
        """In pages, by the ids' prefix and by status. What cannot be read is logged and passed over."""
        process = self._processes.get()
        if not selection.prefix.isascii():
            return  # no id is such, and not every text can be asked for
        statuses: set[Status | None] = {*selection.statuses} or {None}
        if Status.INTERRUPTED in statuses:
            statuses.add(Status.STREAMING)  # some may be about to end so
        last = ""
        # Each page is of one moment: what changes its status between two may be in both, or in neither.
        found = (self._select_rows(process, selection.prefix, status) for status in statuses)
        for stream_id, row in merge(*found, key=lambda each: each[0]):
            if stream_id == last or row.expired or not selection.has_id(stream_id):
                continue
            last = stream_id
            try:
                info = process.info(stream_id, row)
            except StoreUnavailableError as damaged:
                tables.pass_over(stream_id, damaged)
                continue
            if selection.has(info):
                yield info

    def _select_rows(self, process: _Process, prefix: str, status: Status | None) -> Iterator[tuple[str, Row]]:
        """The streams at `status` (None: all), after those that are over were ended."""
        after: str | None = ""
        while after is not None:
            with self._connections.read() as connection:
                rows, after = tables.select_page(connection, after, _PAGE_OF_STREAMS, prefix=prefix, status=status)
            ended = process.end_over(rows)
            for stream_id, found in rows:
                row = ended.get(stream_id, found)
                if row is not None:
                    yield stream_id, row

    def _delete(self, stream_id: str) -> bool:
        """The pages go in the background."""
        process = self._processes.get()
        with self._connections.write() as connection:
            try:
                found = tables.select_living(connection, stream_id) is not None
            except StoreUnavailableError:
                found = True  # a row that cannot be read goes like any other
            tables.remove(connection, stream_id)
        process.upkeep.sweep_soon()
        process.watcher.publish([stream_id])
        return found

    def _sweep(self) -> int:
        """In small transactions."""
        return self._processes.get().upkeep.sweep()

    def check(self) -> list[str]:
        """Verify the file and that each stream's bytes are there; see `Maintenance.check`."""
        self._check_open()
        self._processes.get()
        return upkeep.check(self._connections)

    def clear(self) -> int:
        """Delete all streams, in one step; see `Maintenance.clear`."""
        self._check_open()
        process = self._processes.get()
        with self._connections.write() as connection:
            ids = tables.remove_all(connection)
        process.upkeep.sweep_soon()
        process.watcher.publish(ids)
        return len(ids)

    def _close(self) -> None:
        """Streams that this store's leases still produce are released, or end as `interrupted` where they have no
        handover: nobody can append to them now."""
        process = self._processes.peek()
        if process is None:
            return
        process.watcher.tails.stop_reads()  # first: the ending may have to wait for other writers
        try:
            process.watcher.publish(process.liveness.let_go(_PATIENCE))
            left = False
        except StoreUnavailableError:
            left = True  # the next that comes across them ends them, as those of a killed process
        process.upkeep.stop()
        process.watcher.close()
        process.lock.release(leave_proof=left)
        self._connections.close()

    def drop(self) -> None:
        """Close the store and delete its file with all streams. For when no other process uses it."""
        self.close()
        with Translated(self.path):
            upkeep.remove_files(self.path, self._run_directory)

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        """What follows `position`, without waiting. Ends a stream of which nothing is left to read but a dead
        producer."""
        self._check_open()
        process = self._processes.get()
        parts: Sequence[bytes] = ()
        lengths: Sequence[int] = ()
        with self._connections.read() as connection:
            row = tables.select_living(connection, stream_id)
            if row is not None:
                generation, offset = position or (row.generation, 0)
                if generation == row.generation and offset < row.size:
                    parts, lengths = tables.read(connection, generation, offset, max_bytes)
        if row is None:
            raise StreamNotFoundError(f"there is no stream {stream_id}")
        start = start_position(stream_id, row, position)
        if not parts and process.liveness.is_over(row):
            process.end_over([(stream_id, row)], _PATIENCE)
            return self._fetch(stream_id, position, max_bytes)
        batch = Batch(start, parts, lengths, size=row.size, status=row.status, error=row.error)
        return Fetched(batch, row.life)
