"""Open connections of this process, and the files that it must not use any more.

SQLite keeps in memory, for each process and file, what it has locked and which log it uses. Two things make that
memory wrong for as long as the process lives: a fork while a connection is open, and another -wal or -shm under
the old name. The process then refuses the file, whichever store asks, and lets go of no connection to it: at the
last one SQLite would move its log into the file, over what others have stored since, and remove theirs.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import weakref
from typing import Any, NoReturn

from ...errors import StoreUnavailableError
from ...process import process_identity
from .files import Files, FileSet, Identity, forget_lock, identity

# Single operations on these are atomic; entries are only added, or go with their connection.
_refused: dict[Identity, str] = {}
_opened: dict[int, weakref.ref[Connection]] = {}
_kept: list[Connection] = []
_held: list[int] = []  # descriptors of refused files; never closed, which would drop SQLite's locks on the file


class Connection(sqlite3.Connection):
    """A connection that knows which files it uses, and closes only if that harms nobody."""

    seen_version = -1
    """The `data_version` that it was asked for last; see watch.py."""

    busy_seconds = -1.0
    """Its busy timeout, where a writer has set one."""

    page_bytes = 0
    """Of a page of the file; set before it is lent out."""

    source: Files | None = None
    """The files as they are named now; set before it reads."""

    files: FileSet | None = None
    """Those that it has open; set once it has read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        key = id(self)
        self.process = process_identity()
        self.is_kept = False
        _opened[key] = weakref.ref(self, lambda _: _opened.pop(key, None))
        super().__init__(*args, **options)

    def close(self) -> None:
        """Close it, or keep it open for good where closing would do harm. Idempotent."""
        if not self.is_open or self.is_kept:
            return
        if self.process != process_identity():
            _keep(self)
            return
        with contextlib.suppress(sqlite3.Error):
            self.rollback()  # also where it stays open: others may wait for its lock
        if self.source is not None and self.files is not None:
            try:
                if not is_current(self):
                    # Closing does no harm: SQLite leaves the -wal alone where X was removed or replaced.
                    self.source.leave(self.files)
            except StoreUnavailableError:
                _keep(self)
                return
        super().close()

    @property
    def is_open(self) -> bool:
        """What SQLite itself says: a note of our own might be missing after an exception that was thrown in."""
        try:
            return self.total_changes >= 0
        except sqlite3.ProgrammingError:
            return False

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter is being torn down; the process, and so its locks, ends
            _keep(self)


def is_current(connection: Connection) -> bool:
    """Whether the connection's files are those that others would open now. False if X itself is another, or not in
    WAL mode. StoreUnavailableError if only its companions are others: then the process refuses the file from now
    on.
    """
    source, files = connection.source, connection.files
    assert source is not None and files is not None
    if files.db in _refused:
        _refuse_now(files.db)
    now = source.now()
    if now == files:
        return True
    if now.db == files.db:
        now = source.snapshot()  # all three may be on their way out
    if now == files:
        return True
    if now.db != files.db or files.wal is None or files.db is None:
        return False
    what = source.wal if now.wal != files.wal else source.shm
    refuse_set(files.db, source, what)


def refuse_set(db: Identity, source: Files, what: str) -> NoReturn:
    """This process uses the file no more, since `what` beside it belongs to another set. StoreUnavailableError."""
    reason = (
        f"{what} was removed or replaced while {source.path} was in use: what was written since the last"
        " checkpoint may be lost; stop all processes that use the file, then start them again"
    )
    refuse(db, reason, source)
    raise StoreUnavailableError(reason, transient=False)


def refuse(db: Identity, reason: str, source: Files | None) -> None:
    """This process uses the file no more, nor do children that it forks. It stays open for good: otherwise a new
    file might be given its inode, and be refused for it."""
    held = db in _refused
    _refused.setdefault(db, reason)
    for connection in opened():
        if db == (connection.files.db if connection.files is not None else _named(connection)):
            _keep(connection)
            held = held or connection.files is not None
    if not held and not (source is not None and _hold(db, source)):
        _refused.pop(db, None)  # it is open nowhere, and no name leads to it any more


def _hold(db: Identity, source: Files) -> bool:
    """Open the file once more, if its name still leads to it."""
    try:
        descriptor = os.open(source.db, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    _held.append(descriptor)
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == db


def check(files: Files) -> None:
    """StoreUnavailableError if this process must not use the file of that name. Next to free where there is no
    such file."""
    if _refused:
        db = identity(files.db)
        if db in _refused:
            _refuse_now(db)


def _refuse_now(db: Identity | None) -> NoReturn:
    assert db is not None
    raise StoreUnavailableError(_refused[db], transient=False)


def opened() -> list[Connection]:
    """The open connections of this process, and those that it has inherited."""
    found = (reference() for reference in list(_opened.values()))
    return [connection for connection in found if connection is not None and connection.is_open]


def refuse_inherited() -> None:
    """In a forked child: refuse the files that had connections open at the fork."""
    process = process_identity()
    for connection in opened():
        if connection.process == process:
            continue
        db = connection.files.db if connection.files is not None else _named(connection)
        if db is not None and db not in _refused:
            path = "the file" if connection.source is None else str(connection.source.path)
            refuse(
                db,
                f"{path}: this process was forked while a call of its parent used the file, and SQLite takes the"
                " parent's locks for its own; start it by spawn (subprocess, multiprocessing's spawn), or fork"
                " when no call of the store is under way",
                connection.source,
            )
        _keep(connection)
        # The thread that forked may go on with it in the child, if it forked in a signal handler.
        connection.__dict__["execute"] = _Inherited(db)


class _Inherited:
    """In place of a connection's `execute`."""

    def __init__(self, db: Identity | None) -> None:
        self._reason = _refused.get(db, "an inherited connection") if db is not None else "an inherited connection"

    def __call__(self, *args: object) -> NoReturn:
        raise StoreUnavailableError(self._reason, transient=False)


def _named(connection: Connection) -> Identity | None:
    return None if connection.source is None else identity(connection.source.db)


def _keep(connection: Connection) -> None:
    """Never close it, not even when the interpreter exits, where all objects go that are still referred to.

    One reference too many does that, and nothing in Python itself does: whatever holds an object goes too. The
    kernel takes back the descriptors and locks of the process, without SQLite's last words.
    """
    if connection.is_kept:
        return
    connection.is_kept = True
    _kept.append(connection)
    try:
        import ctypes
    except ImportError:  # an interpreter built without it: as good as it gets
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _after_fork_in_child() -> None:
    forget_lock()
    refuse_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
