"""Connections to one SQLite file: opening, transactions, and the translation of SQLite's errors."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import FrameType, TracebackType

import filelock

from ...errors import StoreUnavailableError
from ...process import PerProcess, pause_at_fork, runs_greenlets
from ..turns import Place, Turns
from .files import Files, FileSet
from .handles import Connection, check, is_current, opened, refuse_inherited, refuse_set

SCHEMA_VERSION = 1
APPLICATION_ID = 0x52535331  # "RSS1": tells our files from those of other programs

_INCREMENTAL = 2  # as PRAGMA auto_vacuum answers
_READERS = 8  # connections of a process that read at once; more would only wait for the interpreter's lock
_SLICE_SECONDS = 0.25  # of a wait for other processes' transactions
_GREENLET_SECONDS = 0.005  # between tries where a wait in SQLite would stop all greenlets
_EXACT_SECONDS = 0.01  # to which such a wait is
_SQLITE_BUSY, _SQLITE_FULL = 5, 13
_FORK_SECONDS = 2.0  # that a fork waits for the present transactions
# At which a commit checkpoints (upkeep does long before), and to which a log shrinks that a long reader let grow.
_LOG_BYTES = 64 * 1024 * 1024
# Of a new file. A commit writes every page that it touches, and an append touches two or three: a slow stream of
# 64-byte chunks writes 151 bytes to disk for each of its own with SQLite's 4096, 88 with 2048, 51 with 1024. With
# 512 most rows of `streams` no longer fit a page. It costs a hot source a sixth more CPU.
PAGE_BYTES = 1024


class _Pool:
    """Which threads of one process may be inside SQLite, and the idle connections.

    A connection in use belongs to one thread alone, so no lock is held during I/O; `lock` guards the fields
    below it. `writing` admits one writer at a time: SQLite would do so too, but its waiters poll with growing
    pauses, ours are woken. `reading` admits a few readers: without it a thousand viewers that wake at once
    would open a thousand connections. A fork takes all turns.

    An exception may be thrown in anywhere (see turns.py). So a connection is either idle, or in the place of the
    turn that it is used with, or on its way between these two in a local variable, where it is closed when that
    goes.
    """

    def __init__(self) -> None:
        self.writing = Turns(1)
        self.reading = Turns(_READERS)
        self.forking: dict[int, _Fork] = {}  # by thread
        self.lock = threading.RLock()  # reentrant, for a signal handler that forks
        self.idle_readers: list[Connection] = []
        self.idle_writers: list[Connection] = []
        self.closed = False  # then no connection is kept


class _Fork:
    """Holds all turns while a thread forks. For that thread."""

    def __init__(self) -> None:
        self._taken: list[tuple[Turns, Place]] = []

    def take(self, pool: _Pool, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for turns in [pool.writing] + [pool.reading] * _READERS:
            place = turns.take(self, max(0.0, deadline - time.monotonic()))
            if place is not None:
                self._taken.append((turns, place))

    def give_back(self) -> None:
        for turns, place in self._taken:
            turns.give_back(place)


class Connections:
    """Lends out connections to `path`. Thread-safe and fork-safe: a child opens its own.

    A connection is borrowed for one short transaction, so a thousand parked viewers share a handful. Blocks of
    `read` and `write` belong to the function that opens them: it must not yield in them, nor use an ExitStack.

    No open connection passes through a fork. SQLite remembers in memory which locks of a file its process holds: a
    child that inherits an open connection inherits that memory, and believes that it holds its parent's locks.
    So a fork waits for the present transactions, and finds all connections closed. Where it waited in vain, the
    child refuses the file (see handles.py).
    """

    def __init__(self, path: Path, run_directory: Path, timeout: float, max_file_bytes: int | None) -> None:
        self.path = path
        self.timeout = timeout
        self.files = Files(path)
        self._run_directory = run_directory
        self._max_file_bytes = max_file_bytes
        self._per_process = PerProcess(self._begin_process)

    def _begin_process(self) -> _Pool:
        refuse_inherited()  # also of forks that bypass Python
        pause_at_fork(self)
        return _Pool()

    def read(self) -> _Transaction:
        """A connection within a read transaction: all SELECTs see one snapshot. Do not nest."""
        pool = self.pool()
        return _Transaction(self, pool, pool.reading, pool.idle_readers)

    def write(self, patience: float | None = None) -> _Transaction:
        """A connection within a BEGIN IMMEDIATE transaction, committed at the end, rolled back on an error.
        `patience`: seconds to wait for other writers, where the store's timeout would be too long."""
        return _WriteTransaction(self, self.pool(), patience)

    def outside_transactions(self) -> _Transaction:
        """A new connection in autocommit mode, closed at the end of the block."""
        pool = self.pool()
        return _NoTransaction(self, pool, pool.reading, pool.idle_readers)

    def pool(self) -> _Pool:
        """This process's turns and idle connections. StoreUnavailableError if it must not use the file."""
        pool = self._per_process.get()
        check(self.files)
        return pool

    def before_fork(self) -> None:
        """Wait for the present transactions, at most some seconds, and close all idle connections. A transaction
        of this very thread, which a signal handler has broken into, is not waited for."""
        pool = self._per_process.get()
        fork = pool.forking[threading.get_ident()] = _Fork()  # seen by those that wait for other processes
        fork.take(pool, _FORK_SECONDS)
        self._close_idle(pool)

    def after_fork(self) -> None:
        """Let transactions begin again, in the parent."""
        fork = self._per_process.get().forking.pop(threading.get_ident(), None)
        if fork is not None:
            fork.give_back()

    def close_idle(self) -> None:
        """Close this process's idle connections."""
        self._close_idle(self._per_process.get())

    def close(self) -> None:
        """Close this process's idle connections; borrowed ones are closed when they are given back. Final."""
        pool = self._per_process.get()
        with pool.lock:
            pool.closed = True
        self._close_idle(pool)

    def _close_idle(self, pool: _Pool) -> None:
        for idle in pool.idle_readers, pool.idle_writers:
            while (connection := take_last(pool, idle)) is not None:
                connection.close()

    def connect(self) -> Connection:
        """A new connection, in autocommit mode; creates the file where there is none."""
        with Translated(self.path):
            self._leave_former_file()
            # Borrowed by one thread at a time, not always the same: see _Pool.
            connection = sqlite3.connect(
                self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False, factory=Connection
            )
            try:
                connection.source = self.files
                self._prepare(connection)
                self._know_files(connection)
                self._add(connection)
                self._limit(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _leave_former_file(self) -> None:
        """If X was removed or replaced, let go of what is still open of it, and of no log that is not its own.
        StoreUnavailableError if only its companions were: SQLite would have the new connection share their -shm.
        """
        while True:
            # Before the look at who has what open: a log that is open then was no other file's here.
            now = self.files.snapshot()
            others = [other for other in opened() if other.source is not None and other.source.db == self.files.db]
            former = [other.files for other in others if other.files is not None and not is_current(other)]
            remembered = self.files.former()
            for files in former if remembered is None else [*former, remembered]:
                self.files.check_companions(files, now)
            if not former or self.files.snapshot() == now:
                break
        if former:
            self.close_idle()
        if self.path.is_symlink():
            raise StoreUnavailableError(
                f"{self.path} has become a symbolic link: start this process again, to use what it leads to",
                transient=False,
            )

    def _prepare(self, connection: Connection) -> None:
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError:
            self._check_headers()  # the log of another set has not what the -shm says
            raise
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
        connection.page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]  # another one, of 0.1.0
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // connection.page_bytes:d}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES:d}")

    def _limit(self, connection: Connection) -> None:
        if self._max_file_bytes is not None:
            pages = max(1, self._max_file_bytes // connection.page_bytes)
            connection.execute(f"PRAGMA max_page_count = {pages:d}")

    def _add(self, connection: Connection) -> None:
        """Bring a file of the first edition up to this one, while others may have it open. One transaction: of
        several processes that come here at once one does it."""
        if connection.execute(_HAS_ADDITIONS).fetchone() is not None:
            return
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute(_HAS_ADDITIONS).fetchone() is None:
            for statement in _statements(_sql("additions.sql")):
                connection.execute(statement)
        connection.execute("COMMIT")
        if not is_current(connection):
            raise StoreUnavailableError(f"{self.path} was removed or replaced while it was opened")

    def _know_files(self, connection: Connection) -> None:
        """Remember which files the connection has open, once it has read. StoreUnavailableError if they are of
        different sets."""
        files = self.files.snapshot()
        if files.wal is None and files.shm is None:
            connection.files = files  # not in WAL mode: there is nothing to take away
            return
        self._check_headers(files)
        for other in opened():
            # SQLite shares one -shm between a process's connections, whatever the name leads to by now.
            if other is not connection and other.files is not None and other.files.db == files.db:
                if other.files != files and other.files.wal is not None and files.db is not None:
                    self._check_against(other.files, files)
        connection.files = files

    def _check_against(self, others: FileSet, files: FileSet) -> None:
        if self.files.snapshot() == files and files.db is not None:
            refuse_set(files.db, self.files, self.files.wal if others.wal != files.wal else self.files.shm)

    def _check_headers(self, files: FileSet | None = None) -> None:
        foreign = self.files.foreign()
        db = (files or self.files.snapshot()).db
        if foreign is not None and db is not None:
            refuse_set(db, self.files, foreign)

    def _check_application(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreUnavailableError(
                f"{self.path} is a SQLite database of another program: use another file", transient=False
            )

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make the schema in an empty file. Of several processes that come here at once, a lock file lets one."""
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] != 0:
            self._check_application(connection)  # before anything is put beside a file that is not ours
        self._run_directory.mkdir(exist_ok=True)
        lock = filelock.FileLock(self._run_directory / "create.lock", timeout=self.timeout)
        try:
            with lock:
                if connection.execute("PRAGMA user_version").fetchone()[0] != 0:
                    return
                if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                    self.files.remove_companions()
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES:d}")
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
                    connection.execute("VACUUM")  # an empty file, but made by somebody else: only this turns it on
                connection.execute("PRAGMA journal_mode = WAL")
                schema = _sql("schema.sql") + _sql("additions.sql")
                connection.executescript(
                    f"BEGIN IMMEDIATE; {schema} PRAGMA application_id = {APPLICATION_ID:d};"
                    f" PRAGMA user_version = {SCHEMA_VERSION:d}; COMMIT;"
                )  # one transaction; after an error the caller closes the connection, which rolls it back
        except filelock.Timeout as error:
            raise StoreUnavailableError(f"{self.path} is being created by another process; try again") from error


_HAS_ADDITIONS = "SELECT 1 FROM sqlite_master WHERE name = 'notes'"


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _statements(script: str) -> Iterator[str]:
    """Its statements, one after the other: `executescript` would end a transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _is_busy(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python 3.10 has no more than the text
        return "locked" in str(error)
    return bool(code & 0xFF == _SQLITE_BUSY)


def is_full(unavailable: StoreUnavailableError) -> bool:
    """Whether SQLite found no room on the disk, or below `max_file_bytes`."""
    cause = unavailable.__cause__
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return isinstance(cause, sqlite3.OperationalError) and "is full" in str(cause)
    return bool(code & 0xFF == _SQLITE_FULL)


class Translated:
    """Turns errors of SQLite and of the file system into StoreUnavailableError, here and nowhere else.

    A class, as is _Transaction: generators cost three times as much.
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


def take_last(pool: _Pool, idle: list[Connection]) -> Connection | None:
    """One of the idle connections."""
    with pool.lock:
        return idle.pop() if idle else None


class _Transaction:
    """A turn with a connection. The block's function holds the only reference to it: see turns.py.

    This one reads; the subclasses differ in what they do at the begin and at the end.
    """

    __slots__ = ("_connections", "_pool", "_turns", "_idle", "_place", "__weakref__")

    def __init__(self, connections: Connections, pool: _Pool, turns: Turns, idle: list[Connection]) -> None:
        self._connections = connections
        self._pool = pool
        self._turns = turns
        self._idle = idle
        self._place: Place | None = None

    def __enter__(self) -> Connection:
        self._take_turn(self._connections.timeout, sys._getframe(1))
        try:
            connection = self._borrow()
            connection.execute("BEGIN")
            return connection
        except BaseException as error:
            self._abandon()
            self._translate(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            self._translate(error)
            return
        try:
            self._end()
        except BaseException as raised:
            self._abandon()
            self._translate(raised)
            raise
        self._give_back()

    def _end(self) -> None:
        self._connection.execute("COMMIT")

    @property
    def _connection(self) -> Connection:
        assert self._place is not None
        connection = self._place.connection
        assert isinstance(connection, Connection)
        return connection

    def _take_turn(self, seconds: float, frame: FrameType) -> None:
        # What is taken and not yet stored here is lost, and so found by those who wait.
        place = self._place = self._turns.take(self, seconds, frame)
        if place is None:
            raise StoreUnavailableError(
                f"{self._connections.path}: no connection became free within {seconds:g} s"
            )

    def _borrow(self) -> Connection:
        place = self._place
        assert place is not None
        while (idle := take_last(self._pool, self._idle)) is not None:
            place.connection = idle
            if is_current(idle):
                return idle
            # X was removed or replaced: the connection would go on with a file that is its process's alone.
            place.connection = None
            idle.close()
        place.connection = connection = self._connections.connect()
        return connection

    def _give_back(self) -> None:
        place, pool = self._place, self._pool
        assert place is not None
        connection, place.connection = place.connection, None
        assert isinstance(connection, Connection)
        with pool.lock:
            kept = not pool.closed
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()
        self._turns.give_back(place)

    def _abandon(self) -> None:
        """The connection is in whatever state it is: the next borrower gets a fresh one."""
        place = self._place
        if place is None:
            return
        try:
            if place.connection is not None:
                place.connection.close()  # rolls back; before it is let go, for it may be broken off here
                place.connection = None
        finally:
            if place.connection is None:
                self._turns.give_back(place)

    def _translate(self, error: BaseException) -> None:
        Translated(self._connections.path).__exit__(type(error), error, None)


class _WriteTransaction(_Transaction):
    __slots__ = ("_patience", "_borrowed_at")

    def __init__(self, connections: Connections, pool: _Pool, patience: float | None) -> None:
        super().__init__(connections, pool, pool.writing, pool.idle_writers)
        self._patience = patience
        self._borrowed_at = 0.0  # monotonic

    def __enter__(self) -> Connection:
        timeout, patience = self._connections.timeout, self._patience
        limit = timeout if patience is None else min(patience, timeout)
        deadline = time.monotonic() + limit
        frame = sys._getframe(1)
        while True:
            self._take_turn(limit, frame)
            try:
                self._borrowed_at = time.monotonic()
                connection = self._borrow()
                if self._begin(connection, deadline):
                    return connection
            except BaseException as error:
                self._abandon()
                self._translate(error)
                raise
            self._abandon()
            limit = max(0.0, deadline - time.monotonic())

    def _begin(self, connection: Connection, deadline: float) -> bool:
        """Wait for other processes, in slices. False if this process is about to fork: that goes first, since the
        wait may be longer than its patience."""
        greenlets = runs_greenlets()
        while True:
            wait = 0.0 if greenlets else min(_SLICE_SECONDS, max(0.0, deadline - time.monotonic()))
            if abs(wait - connection.busy_seconds) > _EXACT_SECONDS:
                connection.busy_seconds = wait
                connection.execute(f"PRAGMA busy_timeout = {round(wait * 1000):d}")
            try:
                connection.execute("BEGIN IMMEDIATE")
                return True
            except sqlite3.OperationalError as error:
                if time.monotonic() >= deadline or not _is_busy(error):
                    raise
            if greenlets:
                time.sleep(_GREENLET_SECONDS)  # gevent's: SQLite's own wait would stop all others
            self._turns.close_lost()
            if self._pool.forking:
                return False

    def _end(self) -> None:
        connection = self._connection
        # Before, if it has waited for another writer since it was borrowed. After: what went into a log that was
        # taken away is not acknowledged.
        if time.monotonic() - self._borrowed_at > _SLICE_SECONDS / 10:
            self._check_files(connection)
        try:
            connection.execute("COMMIT")
            self._check_files(connection)
        except Exception as error:
            self._doubt(error)
            raise

    def _doubt(self, error: Exception) -> None:
        """Raise it as what it means for the caller: what was to be stored may have been, or not."""
        try:
            self._translate(error)
        except StoreUnavailableError as unavailable:
            unavailable.fate_unknown = True
            raise
        if isinstance(error, StoreUnavailableError):
            error.fate_unknown = True

    def _check_files(self, connection: Connection) -> None:
        if not is_current(connection):
            raise StoreUnavailableError(f"{self._connections.path} was removed or replaced during a transaction")


class _NoTransaction(_Transaction):
    __slots__ = ()

    def __enter__(self) -> Connection:
        self._take_turn(self._connections.timeout, sys._getframe(1))
        try:
            assert self._place is not None
            self._place.connection = connection = self._connections.connect()
            return connection
        except BaseException as error:
            self._abandon()
            self._translate(error)
            raise

    def _end(self) -> None:
        pass

    def _give_back(self) -> None:
        self._abandon()
