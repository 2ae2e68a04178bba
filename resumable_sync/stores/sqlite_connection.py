"""Connections to one SQLite file: opening, transactions, and the translation of SQLite's errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import filelock

from ..errors import StoreUnavailableError
from ..fork import PerProcess, pause_at_fork

SCHEMA_VERSION = 1
APPLICATION_ID = 0x52535331  # "RSS1": tells our files from those of other programs

_MAX_IDLE_READERS = 8
_AUTOCHECKPOINT_PAGES = 16_384  # a safety net of 64 MiB; the janitor checkpoints long before
_FORK_SECONDS = 2.0  # that a fork waits for the present transactions


class _Handles:
    """The connections of one process. `lock` guards all fields but `turn`.

    A connection in use belongs to one thread alone, so no lock is held during I/O. `turn` admits one writer at
    a time: SQLite would do so too, but its waiters poll with growing pauses, ours are woken.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.turn = threading.Semaphore(1)
        self.idle_readers: list[sqlite3.Connection] = []
        self.writer: sqlite3.Connection | None = None
        self.identity: tuple[int, int] | None = None
        self.closed = False  # then no connection is kept
        self.busy = 0  # threads that may be inside SQLite
        self.forks = 0  # under way; meanwhile nobody goes inside
        self.calm = threading.Condition(self.lock)  # signalled when busy or forks falls to 0
        self.at_fork: list[Callable[[], object]] = []  # closes connections of their users' own

    def enter(self) -> None:
        """Go inside SQLite, once no fork is under way. The caller holds the lock."""
        while self.forks:
            self.calm.wait()
        self.busy += 1

    def keeps(self, identity: tuple[int, int] | None) -> bool:
        """Whether a connection to the file of `identity` is for the next borrower. The caller holds the lock."""
        return not self.closed and self.identity == identity

    def leave(self) -> None:
        """Come out again. The caller holds the lock."""
        self.busy -= 1
        if not self.busy and self.forks:
            self.calm.notify_all()


class Connections:
    """Lends out connections to `path`. Thread-safe and fork-safe: a child opens its own.

    A connection is borrowed for one short transaction, so a thousand parked viewers share a handful.

    No open connection passes through a fork. SQLite books the locks of a file per process, in memory: a child that
    inherits an open connection inherits the books, and takes locks for its own that only the parent holds.
    So a fork waits for the present transactions, and finds all connections closed.
    """

    def __init__(self, path: Path, run_directory: Path, timeout: float, max_file_bytes: int | None) -> None:
        self.path = path
        self._run_directory = run_directory
        self._timeout = timeout
        self._max_file_bytes = max_file_bytes
        self._handles = PerProcess(_Handles)
        pause_at_fork(self)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection within a read transaction: all that is selected is of one snapshot."""
        handles = self._current()
        with handles.lock:
            handles.enter()
            connection = handles.idle_readers.pop() if handles.idle_readers else None
            identity = handles.identity
        try:
            with _translated(self.path):
                if connection is None:
                    connection = self.connect()
                try:
                    connection.execute("BEGIN")
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    connection.close()  # in whatever state it is, the next borrower gets a fresh one
                    raise
                with handles.lock:
                    if len(handles.idle_readers) < _MAX_IDLE_READERS and handles.keeps(identity):
                        handles.idle_readers.append(connection)
                        return
                connection.close()
        finally:
            with handles.lock:
                handles.leave()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection within a BEGIN IMMEDIATE transaction; committed at the end, rolled back on an error."""
        handles = self._current()
        if not handles.turn.acquire(timeout=self._timeout):
            raise StoreUnavailableError(f"{self.path}: no turn to write within {self._timeout:g} s")
        try:
            with handles.lock:
                handles.enter()
                connection, handles.writer = handles.writer, None
                identity = handles.identity
            with _translated(self.path), self._leaving(handles):
                if connection is None:
                    connection = self.connect()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    # A full disk leaves the transaction open, other errors end it.
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    connection.close()
                    raise
                with handles.lock:
                    if handles.keeps(identity):
                        handles.writer = connection
                        return
                connection.close()
        finally:
            handles.turn.release()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """For a connection of the caller's own: use it within this block alone, and see `close_at_fork`."""
        handles = self._handles.get()
        with handles.lock:
            handles.enter()
        with self._leaving(handles):
            yield

    @contextlib.contextmanager
    def _leaving(self, handles: _Handles) -> Iterator[None]:
        try:
            yield
        finally:
            with handles.lock:
                handles.leave()

    def close_at_fork(self, close: Callable[[], object]) -> None:
        """Have `close()` called before each fork of this process, while nobody is `inside`."""
        handles = self._handles.get()
        with handles.lock:
            handles.at_fork.append(close)

    def before_fork(self) -> None:
        """Wait for the present transactions, at most some seconds, and close all idle connections."""
        handles = self._handles.get()
        deadline = time.monotonic() + _FORK_SECONDS
        with handles.lock:
            handles.forks += 1
            while handles.busy and (left := deadline - time.monotonic()) > 0:
                handles.calm.wait(left)
            close_others = list(handles.at_fork)
            identity = handles.identity
        self._discard(handles, identity)
        for close in close_others:
            close()

    def after_fork(self) -> None:
        """Let transactions begin again."""
        handles = self._handles.get()
        with handles.lock:
            handles.forks -= 1
            handles.calm.notify_all()

    def connect(self) -> sqlite3.Connection:
        """A new connection of the caller's own, in autocommit mode; creates the file where there is none."""
        with _translated(self.path):
            # Borrowed by one thread at a time, not always the same: see _Handles.
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
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

    def run(self, connection: sqlite3.Connection, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """The rows of one statement on a connection of the caller's own."""
        with _translated(self.path):
            return connection.execute(sql, parameters).fetchall()

    def identity(self) -> tuple[int, int] | None:
        """Which file `path` names now; None if there is none."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close_idle(self) -> None:
        """Close this process's idle connections."""
        handles = self._handles.peek()
        if handles is not None:
            with self.inside():
                self._discard(handles, None)

    def close(self) -> None:
        """Close this process's idle connections; borrowed ones are closed when they come back. Final."""
        handles = self._handles.get()
        with handles.lock:
            handles.closed = True
        self.close_idle()

    def _current(self) -> _Handles:
        """This process's handles, emptied if the file was removed or replaced since they were opened.

        A connection to a removed file would go on as if nothing had happened, for its process alone.
        """
        handles = self._handles.get()
        identity = self.identity()
        if identity != handles.identity or identity is None:
            with self.inside():
                self._discard(handles, identity)
        return handles

    def _discard(self, handles: _Handles, identity: tuple[int, int] | None) -> None:
        with handles.lock:
            connections = handles.idle_readers
            handles.idle_readers = []
            if handles.writer is not None:
                connections.append(handles.writer)
                handles.writer = None
            handles.identity = identity
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


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into StoreUnavailableError, here and nowhere else."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        # Locked, full, unreadable, no such directory: may pass, so trying again is sensible.
        raise StoreUnavailableError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        # Not a database, malformed: will not pass.
        raise StoreUnavailableError(f"{path} is damaged or no SQLite file: {error}", transient=False) from error
