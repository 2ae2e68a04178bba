"""What a write transaction of the SQLite store does to one stream. An error that concerns this stream alone is
answered, not raised: the transaction serves others too."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ...contract import Lease, new_generation
from ...errors import ResumableStreamError, StreamLostError
from .. import base as rules
from ..pages import Page
from . import pages as sqlite_pages
from . import rows as sqlite_rows
from .rows import select, select_living


@dataclass(frozen=True)
class Steps:
    """The steps of a store with these limits and this grace time. All are called within a transaction."""

    limits: rules.Limits
    grace: float

    def begin(
        self, connection: sqlite3.Connection, stream_id: str, ttl: float, metadata: str, owner: str
    ) -> Lease | None:
        """Begin a new generation unless the id is taken. Raises LimitExceededError."""
        row = select(connection, stream_id)
        if row is not None and not row.expired:
            return None
        if row is not None:
            sqlite_rows.remove(connection, stream_id)
        last, count = connection.execute("SELECT last_generation, stream_count FROM meta").fetchone()
        self.limits.check_streams(count)
        lease = Lease(stream_id, new_generation(last), ttl)
        counters = lease.generation, count + 1
        connection.execute("UPDATE meta SET last_generation = ?, stream_count = ?", counters)
        sqlite_rows.insert(connection, lease, metadata, owner, self.grace)
        return lease

    def append(
        self, connection: sqlite3.Connection, lease: Lease, chunks: list[bytes], length: int
    ) -> list[Page] | ResumableStreamError:
        """Append all chunks, `length` bytes, as pages; or nothing, and say why. No pages are new where a repeated
        append was stored before. The lease advances with the commit."""
        try:
            self.limits.check_chunks(chunks)
            if sqlite_rows.advance(connection, lease, length, len(chunks), self.grace, self.limits):
                return sqlite_pages.insert(connection, lease.generation, chunks, lease.offset)
            # Something is not as the lease expects: a look tells what.
            row = select_living(connection, lease.stream_id)
            refused = rules.append_error(lease, row, length)
            if refused is not None or row is None:
                return refused or StreamLostError(f"stream {lease.stream_id} is gone")
            if row.size != lease.offset:  # a repeated append, or the lease was used twice
                stored, _ = sqlite_pages.read(connection, lease.generation, lease.offset, length)
                if stored != b"".join(chunks):
                    return rules.conflict(lease)
                length, chunks = 0, []  # a sign of life all the same
            self.limits.check_room(lease.stream_id, row.size + length, row.entries + len(chunks))
        except ResumableStreamError as error:
            return error
        sqlite_rows.extend(connection, lease, length, len(chunks), self.grace)
        return sqlite_pages.insert(connection, lease.generation, chunks, lease.offset)

    def renew(self, connection: sqlite3.Connection, lease: Lease) -> ResumableStreamError | None:
        """Renew the lease, or say why not."""
        try:
            error = rules.ownership_error(lease, select_living(connection, lease.stream_id))
        except ResumableStreamError as damaged:
            return damaged
        if error is None:
            sqlite_rows.extend(connection, lease, 0, 0, self.grace)
        return error
