"""Connections to one SQLite file: opening, transactions, and the translation of SQLite's errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import TracebackType

import filelock

from ...errors import StoreUnavailableError
from ...process import PerProcess, pause_at_fork

SCHEMA_VERSION = 1
APPLICATION_ID = 0x52535331  # "RSS1": tells our files from those of other programs

_INCREMENTAL = 2  # as PRAGMA auto_vacuum answers
_READERS = 8  # connections of a process that read at once; more would only wait for the interpreter's lock
_FORK_SECONDS = 2.0  # that a fork waits for the present transactions
_AUTOCHECKPOINT_PAGES = 16_384  # a safety net of 64 MiB; the upkeep checkpoints long before


class Connection(sqlite3.Connection):
    """A connection that remembers the `data_version` that it was asked for last; see watch.py."""

    seen_version = -1


class _Turns:
    """Who of one process may be inside SQLite, and the connections that wait for them.

    A connection in use belongs to one thread alone, so no lock is held during I/O; `lock` guards the fields
    below it. `writing` admits one writer at a time: SQLite would do so too, but its waiters poll with growing
    pauses, ours are woken. `reading` admits a few readers: without it a thousand viewers that wake at once
    would open a thousand connections. A fork takes all turns.
    """

    def __init__(self) -> None:
        self.writing = threading.Semaphore(1)
        self.reading = threading.Semaphore(_READERS)
        self.taken_by_fork: list[threading.Semaphore] = []  # used by the forking thread alone
        self.lock = threading.Lock()
        self.idle_readers: list[Connection] = []
        self.writer: Connection | None = None
        self.identity: tuple[int, int] | None = None
        self.closed = False  # then no connection is kept

    def keeps(self, identity: tuple[int, int] | None) -> bool:
        """Whether a connection to the file of `identity` is for the next borrower. The caller holds the lock."""
        return not self.closed and self.identity == identity


class Connections:
    """Lends out connections to `path`. Thread-safe and fork-safe: a child opens its own.

    A connection is borrowed for one short transaction, so a thousand parked viewers share a handful.

    No open connection passes through a fork. SQLite keeps a record of a file's locks for each process, in memory:
    a child that inherits an open connection inherits that record, and takes for its own the locks that only the
    parent holds.
    So a fork waits for the present transactions, and finds all connections closed.
    """

    def __init__(self, path: Path, run_directory: Path, timeout: float, max_file_bytes: int | None) -> None:
        self.path = path
        self._run_directory = run_directory
        self._timeout = timeout
        self._max_file_bytes = max_file_bytes
        self._per_process = PerProcess(self._begin_process)

    def _begin_process(self) -> _Turns:
        pause_at_fork(self)
        return _Turns()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection within a read transaction: all that is selected is of one snapshot. Not to be nested."""
        turns = self._current()
        with self._turn(turns.reading), _Translated(self.path):
            with turns.lock:
                connection = turns.idle_readers.pop() if turns.idle_readers else None
                identity = turns.identity
            if connection is None:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()  # in whatever state it is, the next borrower gets a fresh one
                raise
            with turns.lock:
                if turns.keeps(identity):
                    turns.idle_readers.append(connection)
                    return
            connection.close()

    @contextlib.contextmanager
    def write(self, patience: float | None = None) -> Iterator[Connection]:
        """A connection within a BEGIN IMMEDIATE transaction; committed at the end, rolled back on an error.
        `patience`: seconds to wait for other writers, where the store's timeout would be too long."""
        turns = self._current()
        limit = self._timeout if patience is None else min(patience, self._timeout)
        deadline = time.monotonic() + limit
        with self._turn(turns.writing, limit), _Translated(self.path):
            with turns.lock:
                connection, turns.writer = turns.writer, None
                identity = turns.identity
            if connection is None:
                connection = self._connect()
            try:
                if patience is None:
                    connection.execute("BEGIN IMMEDIATE")
                else:
                    _wait_at_most(connection, deadline - time.monotonic())
                    connection.execute("BEGIN IMMEDIATE")
                    _wait_at_most(connection, self._timeout)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk leaves the transaction open, other errors end it.
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                connection.close()
                raise
            with turns.lock:
                if turns.keeps(identity):
                    turns.writer = connection
                    return
            connection.close()

    @contextlib.contextmanager
    def outside_transactions(self) -> Iterator[Connection]:
        """A new connection in autocommit mode, closed at the end of the block."""
        with self._turn(self._current().reading), _Translated(self.path):
            with contextlib.closing(self._connect()) as connection:
                yield connection

    def _turn(self, semaphore: threading.Semaphore, limit: float | None = None) -> _Turn:
        return _Turn(semaphore, self._timeout if limit is None else limit, self.path)

    def before_fork(self) -> None:
        """Wait for the present transactions, at most some seconds, and close all idle connections."""
        turns = self._per_process.get()
        deadline = time.monotonic() + _FORK_SECONDS
        for semaphore in [turns.writing] + [turns.reading] * _READERS:
            if semaphore.acquire(timeout=max(0.0, deadline - time.monotonic())):
                turns.taken_by_fork.append(semaphore)
        self._discard(turns, turns.identity)

    def after_fork(self) -> None:
        """Let transactions begin again, in the parent."""
        turns = self._per_process.get()
        taken, turns.taken_by_fork = turns.taken_by_fork, []
        for semaphore in taken:
            semaphore.release()

    def _connect(self) -> Connection:
        """A new connection, in autocommit mode; creates the file where there is none."""
        with _Translated(self.path):
            # Borrowed by one thread at a time, not always the same: see _Turns.
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, factory=Connection
            )
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    self._create(connection)
                elif version > SCHEMA_VERSION:
                    raise StoreUnavailableError(
                        f"{self.path} has schema version {version}, newer than {SCHEMA_VERSION}: "
                        "upgrade resumable_sync, or use another file",
                        transient=False,
                    )
                self._check_application(connection)
                self._run_directory.mkdir(exist_ok=True)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA wal_autocheckpoint = {_AUTOCHECKPOINT_PAGES:d}")
                if self._max_file_bytes is not None:
                    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
                    connection.execute(f"PRAGMA max_page_count = {max(1, self._max_file_bytes // page_size):d}")
            except BaseException:
                connection.close()
                raise
            return connection

    def identity(self) -> tuple[int, int] | None:
        """Which file `path` names now; None if there is none."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close_idle(self) -> None:
        """Close this process's idle connections."""
        self._discard(self._per_process.get(), None)

    def close(self) -> None:
        """Close this process's idle connections; borrowed ones are closed when they come back. Final."""
        turns = self._per_process.get()
        with turns.lock:
            turns.closed = True
        self.close_idle()

    def _current(self) -> _Turns:
        """This process's turns, without connections if the file was removed or replaced since they were opened.

        A connection to a removed file would go on as if nothing had happened, for its process alone.
        """
        turns = self._per_process.get()
        identity = self.identity()
        if identity != turns.identity or identity is None:
            self._discard(turns, identity)
        return turns

    def _discard(self, turns: _Turns, identity: tuple[int, int] | None) -> None:
        with turns.lock:
            connections = turns.idle_readers
            turns.idle_readers = []
            if turns.writer is not None:
                connections.append(turns.writer)
                turns.writer = None
            turns.identity = identity
        for connection in connections:
            connection.close()

    def _check_application(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreUnavailableError(
                f"{self.path} is a SQLite database of another program: use another file", transient=False
            )

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make the schema in an empty file. Several processes may come here at once: a lock file lets one."""
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] != 0:
            self._check_application(connection)  # before anything is put beside a file that is not ours
        self._run_directory.mkdir(exist_ok=True)
        lock = filelock.FileLock(self._run_directory / "create.lock", timeout=self._timeout)
        try:
            with lock:
                if connection.execute("PRAGMA user_version").fetchone()[0] != 0:
                    return
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
                    connection.execute("VACUUM")  # an empty file, but made by somebody else: only this turns it on
                connection.execute("PRAGMA journal_mode = WAL")
                schema = resources.files(__package__).joinpath("schema.sql").read_text("utf-8")
                connection.execute("BEGIN IMMEDIATE")
                statement = ""
                for line in schema.splitlines():
                    statement += line + "\n"
                    if sqlite3.complete_statement(statement):
                        connection.execute(statement)
                        statement = ""
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
                connection.execute("COMMIT")
        except filelock.Timeout as error:
            raise StoreUnavailableError(f"{self.path} is being created by another process") from error


def _wait_at_most(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {max(0, round(seconds * 1000)):d}")


class _Translated:
    """Turns errors of SQLite and of the file system into StoreUnavailableError, here and nowhere else.

    A class, as is _Turn: every transaction passes both, and generators cost three times as much.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, (sqlite3.OperationalError, OSError)):
            # Locked, full, unreadable, no such directory: may pass, so trying again is sensible.
            raise StoreUnavailableError(f"{self._path}: {error}") from error
        if isinstance(error, sqlite3.DatabaseError):
            # Not a database, malformed: will not pass.
            raise StoreUnavailableError(
                f"{self._path} is damaged or no SQLite file: {error}", transient=False
            ) from error


class _Turn:
    """Holds one of the semaphore's turns."""

    __slots__ = ("_semaphore", "_timeout", "_path")

    def __init__(self, semaphore: threading.Semaphore, timeout: float, path: Path) -> None:
        self._semaphore = semaphore
        self._timeout = timeout
        self._path = path

    def __enter__(self) -> None:
        if not self._semaphore.acquire(timeout=self._timeout):
            raise StoreUnavailableError(f"{self._path}: no connection became free within {self._timeout:g} s")

    def __exit__(self, *raised: object) -> None:
        self._semaphore.release()
