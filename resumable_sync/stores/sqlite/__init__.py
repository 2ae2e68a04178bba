"""Streams in a SQLite file, shared by all processes of one machine; see `SQLiteStore`.

**Containers** share a file by its directory: a file that is mounted alone or has hard links, and one whose `-wal`
or `-shm` was taken away, is refused, since it would lose data. Boot ids and clocks may differ.

**Unix users** of one group share a file in a directory of theirs (`chmod 2770`: with the setgid bit) if all run
with `umask 002` or `007` and one of them makes the file by `touch` first: SQLite alone makes it writable for its
owner only.

**Backup**: `sqlite3 streams.db ".backup copy.db"`, or VACUUM INTO, also while it is used; a copy of the file alone
lacks what is in the log.
"""

from .store import SQLiteStore

__all__ = ["SQLiteStore"]
