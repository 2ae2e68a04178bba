"""Streams in a SQLite file, shared by all processes of one machine: the embedded default."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...contract import DEFAULT_GRACE, DEFAULT_TTL, Batch, Lease, Position, Status, StreamInfo
from ...errors import LimitExceededError, ResumableStreamError, StoreUnavailableError, StreamNotFoundError
from ...process import PerProcess, at_exit
from ..base import BaseStore, Chunks, check_seconds, finalize_error, start_position
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


class _Process:
    """What the store holds in one process. Each part knows only those made before it."""

    def __init__(self, connections: Connections, run_directory: Path, steps: Steps, shortest_ttl: float) -> None:
        connections.pool()  # refuses here what this process must not use, before anything is put beside it
        with Translated(run_directory):
            self.lock = ProcessLock(run_directory)
        self.liveness = Liveness(connections, run_directory, self.lock.token, steps)
        self.watcher = Watcher(connections, run_directory, self.lock.token, self.liveness.end_dead)
        self.upkeep = Upkeep(connections, run_directory, self.liveness, self.watcher.publish, shortest_ttl)

    def end_orphans(self, rows: Iterable[tuple[str, Row]], patience: float | None = None) -> dict[str, Row | None]:
        """See `Liveness.end_orphans`; the viewers of those that were ended learn of it."""
        ended = self.liveness.end_orphans(rows, patience)
        if ended:
            self.watcher.publish(ended)
        return ended

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
    their calls raise StoreUnavailableError meanwhile, and what is stored can be read.

    `ttl`, `finished_ttl`, `grace`: seconds, as in MemoryStore. `timeout`: seconds that a write waits for other
    processes before StoreUnavailableError; under gevent that wait stops the whole process, so give a fraction of
    a second there (producers try again by themselves). `max_file_bytes`: a bound of the file; beyond it appends
    fail as on a full disk. Raises StoreUnavailableError if the file cannot be opened, is damaged, belongs to
    another program, or was made by a newer version.
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
        self, stream_id: str, ttl: float, metadata: dict[str, str], restart: frozenset[Status]
    ) -> Lease | None:
        """A write transaction."""
        process = self._processes.get()
        try:
            lease = self._elect(process, stream_id, ttl, metadata, restart)
        except LimitExceededError:
            process.upkeep.sweep()  # expired streams take no room
            lease = self._elect(process, stream_id, ttl, metadata, restart)
        process.upkeep.expect(ttl)
        return lease

    def _elect(
        self, process: _Process, stream_id: str, ttl: float, metadata: dict[str, str], restart: frozenset[Status]
    ) -> Lease | None:
        process.lock.restore()
        lease = ended = None
        replaced = False
        with self._connections.write() as connection:
            row = tables.select(connection, stream_id)
            orphan = row is not None and process.liveness.is_orphan(row)
            if row is not None and not row.expired:
                replaced = (Status.INTERRUPTED if orphan else row.status) in restart
            if row is None or row.expired or (row.overdue and orphan) or replaced:
                lease = self._steps.begin(
                    connection, stream_id, row, ttl, json.dumps(metadata), process.lock.token
                )
            elif orphan:
                ended = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        if ended is not None:
            process.publish_ending(stream_id, ended)
        if replaced:
            process.watcher.publish([stream_id])
            process.upkeep.sweep_soon()  # the pages of the life that made way
        return lease

    def _append_many(self, batches: Sequence[tuple[Lease, Chunks]]) -> list[str | ResumableStreamError]:
        """One write transaction."""
        results: list[str | ResumableStreamError] = []
        written: dict[str, tuple[int, list[Page]]] = {}
        lengths = [sum(map(len, chunks)) for _, chunks in batches]
        process = self._processes.get()
        process.lock.restore()
        with self._connections.write() as connection:
            for (lease, chunks), length in zip(batches, lengths):
                found = self._steps.append(connection, lease, chunks, length)
                if isinstance(found, list):
                    results.append(f"{lease.generation}-{lease.offset + length}")
                    written[lease.stream_id] = lease.generation, found
                else:
                    results.append(found)
                    written[lease.stream_id] = 0, []
        # Committed: only now may the leases and the readers know.
        for (lease, _), length, result in zip(batches, lengths, results):
            if isinstance(result, str):
                lease.offset += length
        process.watcher.publish_pages(written)
        process.upkeep.wrote(sum(lengths))
        return results

    def _renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """One write transaction."""
        self._processes.get().lock.restore()
        with self._connections.write() as connection:
            return [self._steps.renew(connection, lease) for lease in leases]

    def _finalize(self, lease: Lease, ending: Status, error: str | None) -> None:
        """A write transaction."""
        process, ended = self._processes.get(), None
        with self._connections.write() as connection:
            row = tables.select_living(connection, lease.stream_id)
            refused = finalize_error(lease, row, ending)
            if refused is None and row is not None and row.status is Status.STREAMING:
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
            running = not process.liveness.is_orphan(row)
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
        with self._connections.read() as connection:
            row = tables.select_living(connection, stream_id)
        if row is not None and process.liveness.is_orphan(row):
            row = process.end_orphans([(stream_id, row)])[stream_id]
        return None if row is None or row.expired else row.info(stream_id)

    def _streams(self) -> Iterator[StreamInfo]:
        """In pages. What cannot be read is logged and passed over."""
        process = self._processes.get()
        after: str | None = ""
        while after is not None:
            with self._connections.read() as connection:
                rows, after = tables.select_page(connection, after, _PAGE_OF_STREAMS)
            ended = process.end_orphans(rows)
            for stream_id, found in rows:
                row = ended.get(stream_id, found)
                if row is None or row.expired:
                    continue
                try:
                    info = row.info(stream_id)
                except StoreUnavailableError as damaged:
                    tables.pass_over(damaged)
                    continue
                yield info

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
        """Streams that this store's leases still produce end as `interrupted`: nobody can append to them now."""
        process = self._processes.peek()
        if process is None:
            return
        process.watcher.tails.stop_reads()  # first: the ending may have to wait for other writers
        try:
            process.watcher.publish(process.liveness.end_owned(_PATIENCE))
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
        data: bytes = b""
        lengths: Sequence[int] = ()
        with self._connections.read() as connection:
            row = tables.select_living(connection, stream_id)
            if row is not None:
                generation, offset = position or (row.generation, 0)
                if generation == row.generation and offset < row.size:
                    data, lengths = tables.read(connection, generation, offset, max_bytes)
        if row is None:
            raise StreamNotFoundError(f"there is no stream {stream_id}")
        start = start_position(stream_id, row, position)
        if not data and process.liveness.is_orphan(row):
            process.end_orphans([(stream_id, row)], _PATIENCE)
            return self._fetch(stream_id, position, max_bytes)
        batch = Batch(start, data, lengths, size=row.size, status=row.status, error=row.error)
        return Fetched(batch, row.life)
