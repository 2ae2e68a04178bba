"""The tables of the SQLite store: what their rows hold, and the steps of the transactions on them.

A row of `streams` is checked where it is read. Each row of `pages` has a checksum, since SQLite itself verifies no
content. Nothing here begins or ends a transaction.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...contract import Lease, Status, StreamInfo, new_generation
from ...errors import ResumableStreamError, StoreUnavailableError, StreamLostError
from ..base import Limits, append_error, conflict, ownership_error
from ..pages import Page, pack, unpack
from . import clock

logger = logging.getLogger("resumable_sync")

COLUMNS = (
    "generation, status, size, entries, error, metadata, ttl, owner, boot_id, lease_until, expires_boot,"
    " expires_at, created_at, updated_at, finished_at"
)

_IDS_OF_A_QUERY = 500


class Row(NamedTuple):
    """The columns of a stream's row after its id; see schema.sql."""

    generation: int
    status: Status
    size: int
    entries: int
    error: str | None
    metadata: str
    ttl: float
    owner: str
    boot_id: str
    lease_until: float
    expires_boot: float
    expires_at: float
    created_at: float
    updated_at: float
    finished_at: float | None

    @property
    def life(self) -> float:
        """Seconds until the stream's ttl runs out, by the boot clock; by the wall clock after a reboot."""
        if self.boot_id == clock.boot_id():
            return self.expires_boot - clock.now()
        return self.expires_at - time.time()

    @property
    def expired(self) -> bool:
        """Whether the stream's ttl has run out."""
        return self.life <= 0

    def info(self, stream_id: str) -> StreamInfo:
        """The row as the public snapshot."""
        try:
            metadata = json.loads(self.metadata)
        except (ValueError, TypeError) as error:
            raise _damaged(error) from error
        return StreamInfo(
            stream_id=stream_id,
            status=self.status,
            generation=self.generation,
            size=self.size,
            entries=self.entries,
            created_at=self.created_at,
            updated_at=self.updated_at,
            finished_at=self.finished_at,
            error=self.error,
            metadata=metadata,
            producer_alive=self.status is Status.STREAMING,
        )


def _as_row(columns: Sequence[Any]) -> Row:
    """A row from the columns of COLUMNS."""
    generation, status, *rest = columns
    try:
        return Row(generation, Status(status), *rest)
    except (ValueError, TypeError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"a stream's row is damaged: {error}", transient=False)


def select_page(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[str, Row]]:
    """The next `limit` streams after id `after`."""
    found = connection.execute(
        f"SELECT stream_id, {COLUMNS} FROM streams WHERE stream_id > ? ORDER BY stream_id LIMIT ?", (after, limit)
    )
    return list(_readable(found))


def select_many(connection: sqlite3.Connection, stream_ids: Collection[str]) -> list[tuple[str, Row]]:
    """Those of these streams that are there, also the expired."""
    ids = list(stream_ids)
    rows: list[tuple[str, Row]] = []
    for begin in range(0, len(ids), _IDS_OF_A_QUERY):
        some = ids[begin : begin + _IDS_OF_A_QUERY]
        marks = ",".join("?" * len(some))
        found = connection.execute(f"SELECT stream_id, {COLUMNS} FROM streams WHERE stream_id IN ({marks})", some)
        rows += _readable(found)
    return rows


def _readable(found: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Row]]:
    """The rows that can be read: a damaged one fails the callers that ask for its stream, and no others."""
    for stream_id, *columns in found:
        try:
            yield stream_id, _as_row(columns)
        except StoreUnavailableError as damaged:
            logger.warning("stream %s is passed over: %s", stream_id, damaged)


def check_rows(connection: sqlite3.Connection) -> Iterator[str]:
    """The rows that cannot be read, in words."""
    for stream_id, *columns in connection.execute(f"SELECT stream_id, {COLUMNS} FROM streams"):
        try:
            _as_row(columns).info(stream_id)
        except StoreUnavailableError as damaged:
            yield f"stream {stream_id}: {damaged}"


def select(connection: sqlite3.Connection, stream_id: str) -> Row | None:
    """The stream's row, also if it has expired."""
    columns = connection.execute(f"SELECT {COLUMNS} FROM streams WHERE stream_id = ?", (stream_id,)).fetchone()
    return None if columns is None else _as_row(columns)


def select_living(connection: sqlite3.Connection, stream_id: str) -> Row | None:
    """The stream's row unless it has expired."""
    row = select(connection, stream_id)
    return None if row is None or row.expired else row


def _insert(connection: sqlite3.Connection, lease: Lease, metadata: str, owner: str, grace: float) -> None:
    """Begin the generation of `lease`."""
    now, wall = clock.now(), time.time()
    connection.execute(
        f"INSERT INTO streams (stream_id, {COLUMNS}) VALUES (?,?,?,0,0,NULL,?,?,?,?,?,?,?,?,?,NULL)",
        (
            lease.stream_id,
            lease.generation,
            Status.STREAMING.value,
            metadata,
            lease.ttl,
            owner,
            clock.boot_id(),
            now + grace,
            now + lease.ttl,
            wall + lease.ttl,
            wall,
            wall,
        ),
    )


def _extend(connection: sqlite3.Connection, lease: Lease, length: int, entries: int, grace: float) -> None:
    """Record an append, or with zeros a sign of life: size, lease and ttl. The caller has checked the row."""
    now, wall = clock.now(), time.time()
    connection.execute(
        "UPDATE streams SET size = size + ?, entries = entries + ?, lease_until = ?, expires_boot = ?,"
        " expires_at = ?, updated_at = ? WHERE stream_id = ?",
        (length, entries, now + grace, now + lease.ttl, wall + lease.ttl, wall, lease.stream_id),
    )


def _advance(
    connection: sqlite3.Connection, lease: Lease, length: int, entries: int, grace: float, limits: Limits
) -> bool:
    """Record an append if the row is as the lease expects, in one statement. If not, do nothing; False."""
    now, wall = clock.now(), time.time()
    found = connection.execute(
        "UPDATE streams SET size = size + ?, entries = entries + ?, lease_until = ?, expires_boot = ?,"
        " expires_at = ?, updated_at = ? WHERE stream_id = ? AND generation = ? AND status = 'streaming'"
        " AND size = ? AND boot_id = ? AND expires_boot > ? AND size <= ? AND entries <= ?",
        (
            length,
            entries,
            now + grace,
            now + lease.ttl,
            wall + lease.ttl,
            wall,
            lease.stream_id,
            lease.generation,
            lease.offset,
            clock.boot_id(),
            now,
            limits.max_stream_bytes - length,
            limits.max_entries - entries,
        ),
    )
    return found.rowcount == 1


def end(
    connection: sqlite3.Connection,
    stream_id: str,
    row: Row,
    status: Status,
    error: str | None,
    finished_ttl: float | None,
) -> None:
    """Write the ending; the stream lives `finished_ttl`, or its ttl, from now."""
    wall = time.time()
    life = finished_ttl or row.ttl
    connection.execute(
        "UPDATE streams SET status = ?, error = ?, finished_at = ?, updated_at = ?, boot_id = ?,"
        " expires_boot = ?, expires_at = ? WHERE stream_id = ? AND generation = ? AND status = 'streaming'",
        (
            status.value,
            error,
            wall,
            wall,
            clock.boot_id(),
            clock.now() + life,
            wall + life,
            stream_id,
            row.generation,
        ),
    )


def remove(connection: sqlite3.Connection, stream_id: str) -> bool:
    """Take the stream away at once, whatever its row holds; its pages, which may be many, are left to the sweep.
    False if it was not there."""
    connection.execute("INSERT INTO trash SELECT generation FROM streams WHERE stream_id = ?", (stream_id,))
    removed = connection.execute("DELETE FROM streams WHERE stream_id = ?", (stream_id,)).rowcount
    connection.execute("UPDATE meta SET stream_count = stream_count - ?", (removed,))
    return removed > 0


def _insert_pages(
    connection: sqlite3.Connection, generation: int, chunks: Sequence[bytes], offset: int
) -> list[Page]:
    """Store chunks at `offset`; returns them as pages."""
    rows = pack(chunks, offset)
    for end, payload, lengths in rows:
        connection.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?, ?)",
            (generation, end, payload, lengths, _checksum(end, payload, lengths)),
        )
    return rows


def read_pages(
    connection: sqlite3.Connection, generation: int, offset: int, max_bytes: int
) -> tuple[bytes, Sequence[int]]:
    """What follows `offset`; see `unpack`. StreamLostError if a page is missing or damaged."""
    return unpack(select_pages(connection, generation, offset), offset, max_bytes)


def check_pages(connection: sqlite3.Connection, generation: int, size: int) -> Iterator[str]:
    """What is wrong with a generation that should be `size` bytes long, in words."""
    reached = 0
    try:
        for end, payload, _ in select_pages(connection, generation, 0):
            if end - len(payload) != reached:
                yield f"bytes {reached} to {end - len(payload)} are missing"
            reached = end
    except StreamLostError as damaged:
        yield str(damaged)
    else:
        if reached != size:
            yield f"{reached} of {size} bytes are stored"


def select_pages(connection: sqlite3.Connection, generation: int, offset: int) -> Iterator[Page]:
    """The pages that reach beyond `offset`."""
    sql = "SELECT end, payload, lengths, checksum FROM pages WHERE generation = ? AND end > ? ORDER BY end"
    for end, payload, lengths, checksum in connection.execute(sql, (generation, offset)):
        if _checksum(end, payload, lengths) != checksum:
            raise StreamLostError(f"the bytes before offset {end} are damaged in the file")
        yield end, payload, lengths


def _checksum(end: int, payload: bytes, lengths: bytes | None) -> int:
    return zlib.crc32(lengths or b"", zlib.crc32(payload, end & 0xFFFFFFFF))


@dataclass(frozen=True)
class Steps:
    """What a write transaction does to one stream. An error that concerns this stream alone is returned, not
    raised:
    the transaction serves others too."""

    limits: Limits
    grace: float

    def begin(
        self, connection: sqlite3.Connection, stream_id: str, ttl: float, metadata: str, owner: str
    ) -> Lease:
        """Begin a new generation. The caller has found the id free, or expired. Raises LimitExceededError."""
        remove(connection, stream_id)
        last, count = connection.execute("SELECT last_generation, stream_count FROM meta").fetchone()
        self.limits.check_streams(count)
        lease = Lease(stream_id, new_generation(last), ttl)
        counters = lease.generation, count + 1
        connection.execute("UPDATE meta SET last_generation = ?, stream_count = ?", counters)
        _insert(connection, lease, metadata, owner, self.grace)
        return lease

    def append(
        self, connection: sqlite3.Connection, lease: Lease, chunks: list[bytes], length: int
    ) -> list[Page] | ResumableStreamError:
        """Append all chunks, `length` bytes, as pages; or nothing, and say why. No pages are new where a repeated
        append was stored before. The lease advances with the commit."""
        try:
            self.limits.check_chunks(chunks)
            if _advance(connection, lease, length, len(chunks), self.grace, self.limits):
                return _insert_pages(connection, lease.generation, chunks, lease.offset)
            # Something is not as the lease expects: the row tells what.
            row = select_living(connection, lease.stream_id)
            refused = append_error(lease, row, length)
            if refused is not None or row is None:
                return refused or StreamLostError(f"stream {lease.stream_id} is gone")
            if row.size != lease.offset:  # a repeated append, or the lease was used twice
                stored, _ = read_pages(connection, lease.generation, lease.offset, length)
                if stored != b"".join(chunks):
                    return conflict(lease)
                length, chunks = 0, []  # a sign of life all the same
            self.limits.check_room(lease.stream_id, row.size + length, row.entries + len(chunks))
        except ResumableStreamError as error:
            return error
        _extend(connection, lease, length, len(chunks), self.grace)
        return _insert_pages(connection, lease.generation, chunks, lease.offset)

    def renew(self, connection: sqlite3.Connection, lease: Lease) -> ResumableStreamError | None:
        """Renew the lease, or say why not."""
        try:
            error = ownership_error(lease, select_living(connection, lease.stream_id))
        except ResumableStreamError as damaged:
            return damaged
        if error is None:
            _extend(connection, lease, 0, 0, self.grace)
        return error
