"""The files that make up one SQLite database, and whether they still belong together.

The content of a database in WAL mode lies in three files: X, X-wal and X-shm. A process that has them open goes on
with those even if somebody removes or replaces one, while others open what the names lead to: two sets, of which
each overwrites what the other has acknowledged. SQLite does not notice. Here is what we notice it by.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from ...errors import StoreUnavailableError

Identity = tuple[int, int]
"""st_dev and st_ino"""

_COARSE_CLOCK_SECONDS = 0.05  # a directory's times may stand still this long while its entries change
_HEADER = struct.Struct("=IIIBBHIIIIIIII")  # WalIndexHdr, see https://www.sqlite.org/walformat.html
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_LOOKS = 5  # at headers that contradict each other, before that counts
_LOOKS_AT_MOST = 200
_PAUSE_SECONDS = 0.001


class FileSet(NamedTuple):
    """Which files the three names lead to; None: to none."""

    db: Identity | None
    wal: Identity | None
    shm: Identity | None


class _Log:
    """A -wal, open until this object goes. SQLite has no locks on it that closing it could drop."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY)
        found = os.fstat(self._file)
        self.identity: Identity = found.st_dev, found.st_ino

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


class Files:
    """The files of the database at `path`. Thread-safe: `_seen` and `_former` are replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db, self.wal, self.shm = str(path), f"{path}-wal", f"{path}-shm"
        # What a connection had open when it found another X in its place, and the log of it.
        self._former: tuple[FileSet, _Log] | None = None
        self._directory = str(path.parent)
        # The directory as it was seen last; since when (monotonic); what was in it, if that is as good as a
        # snapshot.
        self._seen: tuple[tuple[int, int, int], float, FileSet | None] = ((0, 0, 0), 0.0, None)

    def now(self) -> FileSet:
        """Which files there are. One call of stat where the directory has not changed for some time."""
        try:
            found = os.stat(self._directory)
        except OSError:
            return self.snapshot()
        directory = found.st_dev, found.st_ino, found.st_ctime_ns
        seen, since, files = self._seen
        if directory == seen and files is not None:
            return files
        files = self.snapshot()
        now = time.monotonic()
        if directory != seen:
            self._seen = directory, now, None
        elif now - since > _COARSE_CLOCK_SECONDS:
            # Whatever changes from now on gives the directory another ctime.
            self._seen = directory, since, files
        return files

    def snapshot(self) -> FileSet:
        """As `now`, whatever was known before."""
        # X comes last: who removes all three begins with it, and then it is X that counts as gone.
        wal, shm = identity(self.wal), identity(self.shm)
        return FileSet(identity(self.db), wal, shm)

    def leave(self, files: FileSet) -> None:
        """A connection that has these files open, and found another X in its place, is about to close: remember
        them if the name of the log still leads to theirs.

        The log stays open as long as it is remembered: once nobody has it, another file may get its st_ino.
        """
        with contextlib.suppress(OSError):
            log = _Log(self.wal)
            if log.identity == files.wal:
                self._former = files, log

    def former(self) -> FileSet | None:
        """What `leave` has remembered, while the name of the log leads there."""
        remembered = self._former
        if remembered is not None and identity(self.wal) != remembered[0].wal:
            remembered = self._former = None
        return None if remembered is None else remembered[0]

    def check_alone(self) -> None:
        """StoreUnavailableError if the file has other names, so that others would keep its log elsewhere."""
        with contextlib.suppress(OSError):
            if os.stat(self.db).st_nlink > 1:
                raise StoreUnavailableError(
                    f"{self.path} has several hard links: SQLite would keep a log of its own for each name,"
                    " and lose data; keep one of them",
                    transient=False,
                )
        if self.db in _mount_points():
            raise StoreUnavailableError(
                f"{self.path} is mounted as a single file, so that what SQLite keeps beside it is not shared;"
                " mount its directory instead",
                transient=False,
            )

    def check_companions(self, former: FileSet, now: FileSet) -> None:
        """StoreUnavailableError if X was replaced, but not its log: SQLite would replay that over the new file."""
        if now.db is None or now.db == former.db or now.wal is None or now.wal != former.wal:
            return
        with contextlib.suppress(OSError):
            if os.stat(self.db).st_size == 0:
                return  # to be made: `remove_companions`
        raise StoreUnavailableError(
            f"{self.path} was replaced, but {self.wal} of the former file is still there: stop all processes that"
            " use it, and remove it with the -shm file",
            transient=False,
        )

    def remove_companions(self) -> None:
        """Remove the -wal and -shm of a former X that was removed alone. For when the present X is empty."""
        for path in self.wal, self.shm:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def foreign(self) -> str | None:
        """The name of a file that belongs to another set, by what the headers in -shm and -wal say; None: all is
        well, as far as can be told.

        OSError if it cannot be told.

        To be asked with a connection open that has read: then nobody takes the files away in the ordinary course.
        Whoever writes does so to the log before the -shm says it, and whoever begins the log anew does so in the
        -shm first. So a log shorter than the -shm says, or with other salts, is not the one that it is about,
        provided that the -shm was the same before and after the look.
        """
        contradictions = 0
        for _ in range(_LOOKS_AT_MOST):
            before = self._index_header()
            if before is None or (len(before) == _HEADER.size and self._log_agrees(before)):
                return None
            # Two copies that differ prove nothing, however long: who writes them may be stopped in between.
            if len(before) == _HEADER.size and self._index_header() == before:
                contradictions += 1
                if contradictions == _LOOKS:
                    return self.wal
            time.sleep(_PAUSE_SECONDS)
        return None

    def _index_header(self) -> bytes | None:
        """The header of -shm where it says that there is something in the log; both copies of it where they
        differ."""
        file = _index_descriptor(self.shm)
        if file is None:
            return None
        try:
            both = os.pread(file, 2 * _HEADER.size, 0)
        except OSError:
            return None
        header = both[: _HEADER.size]
        if len(both) < 2 * _HEADER.size:
            return None
        if header != both[_HEADER.size :]:
            return both  # being written
        fields = _HEADER.unpack(header)
        is_initialised, frames = fields[3], fields[6]
        return header if is_initialised and frames else None

    def _log_agrees(self, header: bytes) -> bool:
        fields = _HEADER.unpack(header)
        page_size, frames = (fields[5] & 0xFE00) + ((fields[5] & 1) << 16), fields[6]
        try:
            with open(self.wal, "rb", buffering=0) as log:  # SQLite holds no locks on this one
                size = os.fstat(log.fileno()).st_size
                start = log.read(_LOG_HEADER_BYTES)
        except FileNotFoundError:
            return False  # other errors, such as of a process without a free descriptor, say nothing of the file
        long_enough = size >= _LOG_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_size)
        return long_enough and start[16:24] == header[32:40]


def identity(path: str) -> Identity | None:
    """Which file `path` names; None if there is none. A symbolic link is one by itself: stores resolve their path,
    and beside one that came later SQLite looks for the log where the link leads."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_index_files: dict[str, tuple[Identity, int]] = {}  # path of -shm -> which file it named, and a descriptor of it
_index_lock = threading.RLock()


def _index_descriptor(path: str) -> int | None:
    """A descriptor of the present file of that name.

    It stays open as long as the name leads to the file: POSIX drops all locks of a process on a file when it
    closes any descriptor of it, and SQLite's locks are of that kind.
    """
    if sys.platform == "win32":
        return None
    found = _index_files.get(path)
    named = identity(path)
    if found is not None and found[0] == named:
        return found[1]
    with _index_lock:  # no wait in it; a fork in between leaves it locked in a child, see `forget_lock`
        found = _index_files.get(path)
        if found is not None and found[0] == named:
            return found[1]
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        opened = os.fstat(file)
        _index_files[path] = (opened.st_dev, opened.st_ino), file
        if found is not None and found[0] != (opened.st_dev, opened.st_ino):
            os.close(found[1])  # nothing that is opened from now on can be that file
    return file


def forget_lock() -> None:
    """In a forked child: the lock may be held by a thread that is not there."""
    global _index_lock
    _index_lock = threading.RLock()


def _mount_points() -> set[str]:
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return set()
    points = (line.split()[4] for line in lines if len(line.split()) > 4)
    return {os.fsdecode(_unescaped(point)) for point in points}


def _unescaped(point: bytes) -> bytes:
    """Spaces and the like are written as backslash and three octal digits."""
    first, *others = point.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in others)
