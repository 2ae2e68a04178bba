"""Streams in a SQLite file, shared by all processes of one machine: the embedded default."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

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
from ...errors import LimitExceededError, ResumableStreamError, StoreUnavailableError, StreamNotFoundError
from ...process import PerProcess, at_exit
from .. import base as rules
from ..pages import Page
from ..tail import Fetched
from . import pages as sqlite_pages
from . import rows as sqlite_rows
from . import upkeep as sqlite_upkeep
from .connection import Connections
from .house import House
from .liveness import Liveness
from .process_lock import ProcessLock
from .rows import Row, select_living
from .steps import Steps
from .watch import Watcher

_PATIENCE = 1.0  # with other writers, where the store's timeout would be too long: in a close or a read
_PAGE_OF_STREAMS = 200  # of one query of streams()


class _Process:
    """What the store keeps for one process."""

    def __init__(self, store: SQLiteStore) -> None:
        self.lock = ProcessLock(store._run_directory)
        self.watcher = Watcher(store._connections, store._run_directory, self.lock.token, store._liveness.end_dead)
        self.house = House(store._connections, store._run_directory, store._end_dead, store._shortest_ttl)


class SQLiteStore:
    """A store in a SQLite file (WAL), for any number of threads and processes on one machine.

    Thread-safe and fork-safe; a child opens connections of its own. What an append has returned for survives
    the kill of any process; at a power loss the last commits may go (synchronous=NORMAL). The file must be on a
    local disk. Beside it lies `<path>-run/`, with a lock file for each process, by which a killed producer is
    noticed within a second (a frozen one by its lease), and with sockets for wake-ups. A process that is stopped
    in the middle of a write transaction keeps all others from writing until it goes on or is killed:
    their calls raise StoreUnavailableError meanwhile, and what is stored can be read.

    `ttl`, `finished_ttl`, `grace`: seconds, as in MemoryStore. `timeout`: seconds that a write waits for other
    processes before StoreUnavailableError; under gevent that wait stops the whole process, so give a fraction of
    a second there (producers try again by themselves). `max_file_bytes`: a bound of the file; behind it appends
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
        self._ttl = rules.check_ttl(ttl)
        self._finished_ttl = None if finished_ttl is None else rules.check_ttl(finished_ttl, "finished_ttl")
        self._grace = rules.check_ttl(grace, "grace")
        self._limits = rules.Limits(max_chunk_bytes, max_stream_bytes, max_entries, max_streams)
        self._steps = Steps(self._limits, self._grace)
        self._shortest_ttl = min(self._ttl, self._finished_ttl or self._ttl)
        self._closed = False
        self.path = Path(path).absolute()
        self._run_directory = self.path.with_name(self.path.name + "-run")
        self._connections = Connections(
            self.path, self._run_directory, rules.check_ttl(timeout, "timeout"), max_file_bytes
        )
        with self._connections.read():
            pass  # trouble with the file shows here, not at the first request
        self._connections.close_idle()  # a server that forks by itself, as uWSGI does, inherits none
        self._liveness = Liveness(
            self._connections, self._run_directory, lambda: self._processes.get().lock.token, self._finished_ttl
        )
        self._processes = PerProcess(lambda: _Process(self))
        self._processes.get()
        at_exit(self, SQLiteStore.close)  # so that no lock files and sockets are left about

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
        """Elect one producer; see `Store.acquire`. A write transaction."""
        validate_stream_id(stream_id)
        life = self._ttl if ttl is None else rules.check_ttl(ttl)
        details = json.dumps(rules.check_metadata(metadata))
        process = self._process()
        self._end_dead([stream_id])

        def begin() -> Lease | None:
            with self._connections.write() as connection:
                return self._steps.begin(connection, stream_id, life, details, process.lock.token)

        try:
            lease = begin()
        except LimitExceededError:
            self.sweep()  # expired streams take no room
            lease = begin()
        process.house.expect(life)
        return lease

    def append(self, lease: Lease, *chunks: bytes) -> str:
        """Store all chunks in one atomic step; see `Store.append`. A write transaction."""
        result = self.append_many([(lease, chunks)])[0]
        if isinstance(result, ResumableStreamError):
            raise result
        return result

    def append_many(self, batches: Sequence[tuple[Lease, Sequence[bytes]]]) -> list[str | ResumableStreamError]:
        """`append` for many streams in one write transaction; see `Store.append_many`."""
        results: list[str | ResumableStreamError] = []
        written: dict[str, tuple[int, list[Page]]] = {}
        total = 0
        frozen = [rules.freeze_chunks(chunks) for _, chunks in batches]
        try:
            process = self._process()
            with self._connections.write() as connection:
                for (lease, _), chunks in zip(batches, frozen):
                    length = sum(map(len, chunks))
                    found = self._steps.append(connection, lease, chunks, length)
                    total += length
                    if isinstance(found, list):
                        results.append(f"{lease.generation}-{lease.offset + length}")
                        written[lease.stream_id] = lease.generation, found
                    else:
                        results.append(found)
                        written[lease.stream_id] = 0, []
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(batches)
        # Committed: only now may the leases and the readers know.
        for (lease, _), chunks, result in zip(batches, frozen, results):
            if isinstance(result, str):
                lease.offset += sum(map(len, chunks))
        process.watcher.publish_pages(written)
        process.house.wrote(total)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Say that these producers live; see `Store.renew`. One write transaction."""
        results: list[ResumableStreamError | None] = []
        try:
            self._process()
            with self._connections.write() as connection:
                results += [self._steps.renew(connection, lease) for lease in leases]
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(leases)
        return results

    def finalize(self, lease: Lease, status: Status | str, error: str | None = None) -> None:
        """End the stream; see `Store.finalize`. A write transaction."""
        ending = rules.as_ending(status)
        process = self._process()
        with self._connections.write() as connection:
            row = select_living(connection, lease.stream_id)
            refused = rules.finalize_error(lease, row, ending)
            running = refused is None and row is not None and row.status is Status.STREAMING
            message = rules.check_error_text(error)
            if row is not None and running:
                self._end(connection, lease.stream_id, row, ending, message)
        if refused is not None:
            raise refused
        if row is not None and running:
            self._publish_ending(process, lease.stream_id, row, ending, message)

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`; see `Store.cancel`. A write transaction."""
        validate_stream_id(stream_id)
        process = self._process()
        self._end_dead([stream_id])
        with self._connections.write() as connection:
            row = select_living(connection, stream_id)
            running = row is not None and row.status is Status.STREAMING
            if row is not None and running:
                self._end(connection, stream_id, row, Status.CANCELLED)
        if row is not None and running:
            self._publish_ending(process, stream_id, row, Status.CANCELLED)
        return running

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """Return what follows `after`, waiting at most `timeout` seconds; see `Store.read`."""
        position = parse_cursor(after)
        deadline = time.monotonic() + validate_wait(timeout)
        validate_stream_id(stream_id)
        tails = self._process().watcher.tails
        if not timeout:
            return self._fetch(stream_id, position, max_bytes).batch
        return tails.read(stream_id, position, max_bytes, deadline, self._fetch)

    def wake(self) -> None:
        """Make blocked reads return early; see `Store.wake`."""
        self._process().watcher.tails.wake_all()

    def status(self, stream_id: str) -> Status:
        """Where the stream stands."""
        info = self.info(stream_id)
        return Status.MISSING if info is None else info.status

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of one stream, None where there is none."""
        validate_stream_id(stream_id)
        self._process()
        self._end_dead([stream_id])
        with self._connections.read() as connection:
            row = select_living(connection, stream_id)
        return None if row is None else row.info(stream_id)

    def streams(self) -> Iterator[StreamInfo]:
        """Every stream, in order of its id, in pages: not one snapshot of all."""
        self._process()
        return self._streams()

    def _streams(self) -> Iterator[StreamInfo]:
        last = ""
        while True:
            with self._connections.read() as connection:
                rows = sqlite_rows.select_page(connection, last, _PAGE_OF_STREAMS)
            if not rows:
                return
            last = rows[-1][0]
            ended = self._end_dead([stream_id for stream_id, row in rows if row.status is Status.STREAMING])
            for stream_id, row in rows:
                info = self.info(stream_id) if stream_id in ended else row.info(stream_id)
                if info is not None and not row.expired:
                    yield info

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; see `Store.delete`. Its pages go in the background."""
        validate_stream_id(stream_id)
        process = self._process()
        with self._connections.write() as connection:
            try:
                found = select_living(connection, stream_id) is not None
            except StoreUnavailableError:
                found = True  # a row that cannot be read goes like any other
            sqlite_rows.remove(connection, stream_id)
        process.house.sweep_soon()
        process.watcher.publish([stream_id])
        return found

    def sweep(self) -> int:
        """Remove expired streams and end those whose producers died, in small transactions; see `Store.sweep`."""
        return self._process().house.sweep()

    def check(self) -> list[str]:
        """Verify the file and that each stream's bytes are there; returns what is wrong, in words. Reads all."""
        self._process()
        return sqlite_upkeep.check(self._connections)

    def clear(self) -> int:
        """Delete all streams, in one step; readers and producers get StreamLostError. Returns how many."""
        process = self._process()
        with self._connections.write() as connection:
            ids = [stream_id for (stream_id,) in connection.execute("SELECT stream_id FROM streams")]
            connection.execute("INSERT INTO trash SELECT generation FROM streams")
            connection.execute("DELETE FROM streams")
            connection.execute("UPDATE meta SET stream_count = 0")
        process.house.sweep_soon()
        process.watcher.publish(ids)
        return len(ids)

    def close(self) -> None:
        """Wake blocked reads, which raise StoreUnavailableError, and free what this process holds. Idempotent.

        Streams that this store's leases still produce end as `interrupted`: nobody can append to them now.
        """
        process = self._processes.peek()
        closed, self._closed = self._closed, True
        if closed or process is None:
            return
        process.watcher.tails.stop_reads()  # first: the ending may have to wait for other writers
        try:
            process.watcher.publish(self._liveness.end_owned(process.lock.token, _PATIENCE))
            left = False
        except StoreUnavailableError:
            left = True  # whoever looks at them next ends them, as those of a killed process
        process.house.stop()
        process.watcher.close()
        process.lock.release(leave_proof=left)
        self._connections.close()

    def drop(self) -> None:
        """Close the store and delete its file with all streams. For when no other process uses it."""
        self.close()
        sqlite_upkeep.remove_files(self.path, self._run_directory)

    def _process(self) -> _Process:
        if self._closed:
            raise StoreUnavailableError("the store is closed", transient=False)
        return self._processes.get()

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        """What follows `position`, without waiting. Ends a stream of which nothing is left to read but a dead
        producer."""
        if self._closed:
            raise StoreUnavailableError("the store is closed", transient=False)
        data, lengths = b"", ()  # type: bytes, Sequence[int]
        with self._connections.read() as connection:
            row = select_living(connection, stream_id)
            if row is not None:
                generation, offset = position or (row.generation, 0)
                if generation == row.generation and offset < row.size:
                    data, lengths = sqlite_pages.read(connection, generation, offset, max_bytes)
        if row is None:
            raise StreamNotFoundError(f"there is no stream {stream_id}")
        start = rules.start_position(stream_id, row, position)
        if not data and self._liveness.is_orphan(row) and self._end_dead([stream_id], _PATIENCE):
            return self._fetch(stream_id, position, max_bytes)
        batch = Batch(start, data, lengths, size=row.size, status=row.status, error=row.error)
        return Fetched(batch, row.life)

    def _end(
        self, connection: sqlite3.Connection, stream_id: str, row: Row, status: Status, error: str | None = None
    ) -> None:
        sqlite_rows.end(connection, stream_id, row, status, error, self._finished_ttl)

    def _publish_ending(
        self, process: _Process, stream_id: str, row: Row, status: Status, error: str | None = None
    ) -> None:
        end = Position(row.generation, row.size)
        process.watcher.publish_ending(stream_id, end, status, error, self._finished_ttl or row.ttl)

    def _end_dead(self, stream_ids: Collection[str], patience: float | None = None) -> list[str]:
        """End those of these streams whose producers died as `interrupted`; returns which."""
        dead = self._liveness.end_dead(stream_ids, patience)
        if dead:
            self._processes.get().watcher.publish(dead)
        return dead
