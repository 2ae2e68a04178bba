"""Streams in a SQLite file, shared by all processes of one machine: the embedded default."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        last = None if finished_ttl is None else rules.check_ttl(finished_ttl, "finished_ttl")
        limits = rules.Limits(max_chunk_bytes, max_stream_bytes, max_entries, max_streams)
        self._steps = steps = Steps(limits, rules.check_ttl(grace, "grace"), last)
        self._closed = False
        self.path = Path(path).absolute()
        self._run_directory = directory = self.path.with_name(self.path.name + "-run")
        wait = rules.check_ttl(timeout, "timeout")
        self._connections = connections = Connections(self.path, directory, wait, max_file_bytes)
        with connections.read():
            pass  # trouble with the file shows here, not at the first request
        connections.close_idle()  # a server that forks by itself, as uWSGI does, inherits none
        shortest_ttl = min(self._ttl, last or self._ttl)
        self._processes = PerProcess(lambda: _Process(connections, directory, steps, shortest_ttl))
        self._processes.get()
        at_exit(self, SQLiteStore.close)  # so that no lock files and sockets are left about

    @property
    def grace(self) -> float:
        """Seconds without append or renew after which a producer counts as dead."""
        return self._steps.grace

    @property
    def max_chunk_bytes(self) -> int:
        """The largest chunk `append` takes."""
        return self._steps.limits.max_chunk_bytes

    def acquire(
        self, stream_id: str, *, ttl: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> Lease | None:
        """Elect one producer; see `Store.acquire`. A write transaction."""
        validate_stream_id(stream_id)
        life = self._ttl if ttl is None else rules.check_ttl(ttl)
        details = json.dumps(rules.check_metadata(metadata))
        process = self._process()
        try:
            lease = self._elect(process, stream_id, life, details)
        except LimitExceededError:
            process.upkeep.sweep()  # expired streams take no room
            lease = self._elect(process, stream_id, life, details)
        process.upkeep.expect(life)
        return lease

    def _elect(self, process: _Process, stream_id: str, ttl: float, metadata: str) -> Lease | None:
        process.lock.restore()
        lease = ended = None
        with self._connections.write() as connection:
            row = tables.select(connection, stream_id)
            if row is None or row.expired:
                lease = self._steps.begin(connection, stream_id, row, ttl, metadata, process.lock.token)
            elif process.liveness.is_orphan(row):
                ended = self._steps.end(connection, stream_id, row, Status.INTERRUPTED)
        if ended is not None:
            process.publish_ending(stream_id, ended)
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
            process.lock.restore()
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
        process.upkeep.wrote(total)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Say that these producers live; see `Store.renew`. One write transaction."""
        results: list[ResumableStreamError | None] = []
        try:
            self._process().lock.restore()
            with self._connections.write() as connection:
                results += [self._steps.renew(connection, lease) for lease in leases]
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(leases)
        return results

    def finalize(self, lease: Lease, status: Status | str, error: str | None = None) -> None:
        """End the stream; see `Store.finalize`. A write transaction."""
        ending, message = rules.as_ending(status), rules.check_error_text(error)
        process, ended = self._process(), None
        with self._connections.write() as connection:
            row = tables.select_living(connection, lease.stream_id)
            refused = rules.finalize_error(lease, row, ending)
            if refused is None and row is not None and row.status is Status.STREAMING:
                ended = self._steps.end(connection, lease.stream_id, row, ending, message)
        if refused is not None:
            raise refused
        if ended is not None:
            process.publish_ending(lease.stream_id, ended)

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`; see `Store.cancel`. A write transaction."""
        validate_stream_id(stream_id)
        process = self._process()
        with self._connections.write() as connection:
            row = tables.select_living(connection, stream_id)
            if row is None or row.status is not Status.STREAMING:
                return False
            running = not process.liveness.is_orphan(row)
            status = Status.CANCELLED if running else Status.INTERRUPTED
            ended = self._steps.end(connection, stream_id, row, status)
        process.publish_ending(stream_id, ended)
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
        process = self._process()
        with self._connections.read() as connection:
            row = tables.select_living(connection, stream_id)
        if row is not None and process.liveness.is_orphan(row):
            row = process.end_orphans([(stream_id, row)])[stream_id]
        return None if row is None or row.expired else row.info(stream_id)

    def streams(self) -> Iterator[StreamInfo]:
        """Every stream that can be read, in order of its id, in pages: not one snapshot of all."""
        return self._streams(self._process())

    def _streams(self, process: _Process) -> Iterator[StreamInfo]:
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

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; see `Store.delete`. Its pages go in the background."""
        validate_stream_id(stream_id)
        process = self._process()
        with self._connections.write() as connection:
            try:
                found = tables.select_living(connection, stream_id) is not None
            except StoreUnavailableError:
                found = True  # a row that cannot be read goes like any other
            tables.remove(connection, stream_id)
        process.upkeep.sweep_soon()
        process.watcher.publish([stream_id])
        return found

    def sweep(self) -> int:
        """Remove expired streams and end those whose producers died, in small transactions; see `Store.sweep`."""
        return self._process().upkeep.sweep()

    def check(self) -> list[str]:
        """Verify the file and that each stream's bytes are there; returns what is wrong, in words. Reads all."""
        self._process()
        return upkeep.check(self._connections)

    def clear(self) -> int:
        """Delete all streams, in one step; readers and producers get StreamLostError. Returns how many."""
        process = self._process()
        with self._connections.write() as connection:
            ids = tables.remove_all(connection)
        process.upkeep.sweep_soon()
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
            process.watcher.publish(process.liveness.end_owned(_PATIENCE))
            left = False
        except StoreUnavailableError:
            left = True  # whoever looks at them next ends them, as those of a killed process
        process.upkeep.stop()
        process.watcher.close()
        process.lock.release(leave_proof=left)
        self._connections.close()

    def drop(self) -> None:
        """Close the store and delete its file with all streams. For when no other process uses it."""
        self.close()
        with Translated(self.path):
            upkeep.remove_files(self.path, self._run_directory)

    def _process(self) -> _Process:
        if self._closed:
            raise StoreUnavailableError("the store is closed", transient=False)
        return self._processes.get()

    def _fetch(self, stream_id: str, position: Position | None, max_bytes: int) -> Fetched:
        """What follows `position`, without waiting. Ends a stream of which nothing is left to read but a dead
        producer."""
        process = self._process()
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
        start = rules.start_position(stream_id, row, position)
        if not data and process.liveness.is_orphan(row):
            process.end_orphans([(stream_id, row)], _PATIENCE)
            return self._fetch(stream_id, position, max_bytes)
        batch = Batch(start, data, lengths, size=row.size, status=row.status, error=row.error)
        return Fetched(batch, row.life)
