"""What is in the tables of the SQLite store (see schema.sql), and what a transaction does to one stream.

SQLite verifies no content, and a column may hold any type. So rows are checked where they are read: a damaged one
fails those who ask for its stream, nobody else. Pages carry a checksum.
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
from .. import base as rules
from .. import pages
from . import clock as bootclock

logger = logging.getLogger("resumable_sync")

_IDS_OF_A_QUERY = 500
_UNKNOWN_LIFE_SECONDS = 1.0  # after which to ask again how long a stream lives


class Row(NamedTuple):
    """A row of `streams`, without the stream's id."""

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
        """Seconds until the stream's ttl runs out, by the boot clock; by the wall clock in another clock domain,
        as after a reboot. There a running stream lives on until its producer is known to be dead: see
        `overdue`."""
        if self.boot_id == bootclock.domain():
            return self.expires_boot - bootclock.now()
        life = self.expires_at - time.time()
        return life if self.status.ended else max(life, _UNKNOWN_LIFE_SECONDS)

    @property
    def expired(self) -> bool:
        """Whether the stream's ttl has run out."""
        return self.life <= 0

    @property
    def overdue(self) -> bool:
        """Whether the ttl of a stream of another clock domain has run out by the wall clock: it is gone if its
        producer is dead, and otherwise about to be renewed."""
        return self.boot_id != bootclock.domain() and self.expires_at <= time.time()

    def info(self, stream_id: str) -> StreamInfo:
        """The row as the public snapshot."""
        try:
            metadata = rules.check_metadata(json.loads(self.metadata))
        except (ResumableStreamError, ValueError, TypeError) as error:
            raise _damaged(stream_id, f"metadata is {self.metadata[:100]!r}") from error
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


_COLUMNS = ", ".join(Row._fields)
_TYPES: tuple[type | tuple[type, ...], ...] = (
    *(int, str, int, int, (str, type(None)), str, float, str, str, float, float, float, float, float),
    (float, type(None)),
)
_STATUSES = {status.value: status for status in Status if status is not Status.MISSING}


def _as_row(stream_id: str, columns: Sequence[Any]) -> Row:
    for name, value, kind in zip(Row._fields, columns, _TYPES):
        if not isinstance(value, kind):
            raise _damaged(stream_id, f"{name} is {value!r}")
    generation, status, *rest = columns
    if status not in _STATUSES:
        raise _damaged(stream_id, f"status is {status!r}")
    return Row(generation, _STATUSES[status], *rest)


def _damaged(stream_id: str, what: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"stream {stream_id} is damaged: {what}; delete it", transient=False)


def select(connection: sqlite3.Connection, stream_id: str) -> Row | None:
    """The stream's row, also if it has expired."""
    columns = connection.execute(f"SELECT {_COLUMNS} FROM streams WHERE stream_id = ?", (stream_id,)).fetchone()
    return None if columns is None else _as_row(stream_id, columns)


def select_living(connection: sqlite3.Connection, stream_id: str) -> Row | None:
    """The stream's row unless it has expired."""
    row = select(connection, stream_id)
    return None if row is None or row.expired else row


def select_many(connection: sqlite3.Connection, stream_ids: Collection[str]) -> list[tuple[str, Row]]:
    """Those of these streams that are there and can be read, also the expired."""
    ids = list(stream_ids)
    rows: list[tuple[str, Row]] = []
    for begin in range(0, len(ids), _IDS_OF_A_QUERY):
        some = ids[begin : begin + _IDS_OF_A_QUERY]
        marks = ",".join("?" * len(some))
        found = connection.execute(f"SELECT stream_id, {_COLUMNS} FROM streams WHERE stream_id IN ({marks})", some)
        rows += _readable(found)
    return rows


def select_page(
    connection: sqlite3.Connection, after: str, limit: int
) -> tuple[list[tuple[str, Row]], str | None]:
    """The next `limit` streams after id `after` without those that cannot be read, and the id to go on after;
    None if there are no more."""
    found = connection.execute(
        f"SELECT stream_id, {_COLUMNS} FROM streams WHERE stream_id > ? ORDER BY stream_id LIMIT ?", (after, limit)
    ).fetchall()
    return list(_readable(found)), found[-1][0] if len(found) == limit else None


def _readable(found: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Row]]:
    for stream_id, *columns in found:
        try:
            yield stream_id, _as_row(stream_id, columns)
        except StoreUnavailableError as damaged:
            pass_over(damaged)


def pass_over(damaged: StoreUnavailableError) -> None:
    """Log that a listing leaves out a stream that cannot be read."""
    logger.warning("%s (it is passed over)", damaged)


def select_pages(connection: sqlite3.Connection, generation: int, offset: int) -> Iterator[pages.Page]:
    """The pages that reach beyond `offset`. StreamLostError if one is damaged."""
    sql = "SELECT end, payload, lengths, checksum FROM pages WHERE generation = ? AND end > ? ORDER BY end"
    for end, payload, lengths, checksum in connection.execute(sql, (generation, offset)):
        try:
            intact = _checksum(end, payload, lengths) == checksum
        except TypeError:
            intact = False
        if not intact:
            raise StreamLostError(f"the bytes before offset {end} are damaged in the file")
        yield end, payload, lengths


def read(
    connection: sqlite3.Connection, generation: int, offset: int, max_bytes: int
) -> tuple[bytes, Sequence[int]]:
    """What comes after `offset`; see `pages.unpack`. StreamLostError if a page is missing or damaged."""
    return pages.unpack(select_pages(connection, generation, offset), offset, max_bytes)


def check(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the streams, in words. Reads all."""
    for stream_id, *columns in connection.execute(f"SELECT stream_id, {_COLUMNS} FROM streams"):
        try:
            row = _as_row(stream_id, columns)
            row.info(stream_id)
        except StoreUnavailableError as damaged:
            yield str(damaged)
            continue
        for problem in _check_pages(connection, row):
            yield f"stream {stream_id}: {problem}"


def _check_pages(connection: sqlite3.Connection, row: Row) -> Iterator[str]:
    reached = 0
    try:
        for end, payload, _ in select_pages(connection, row.generation, 0):
            if end - len(payload) != reached:
                yield f"bytes {reached} to {end - len(payload)} are missing"
            reached = end
    except StreamLostError as damaged:
        yield str(damaged)
    else:
        if reached != row.size:
            yield f"{reached} of {row.size} bytes are stored"


def remove(connection: sqlite3.Connection, stream_id: str) -> bool:
    """Take the stream away at once, whatever its row holds; its pages, which may be many, are left to the sweep.
    False if it was not there."""
    connection.execute(f"{_TO_TRASH} AND stream_id = ?", (stream_id,))
    removed = connection.execute("DELETE FROM streams WHERE stream_id = ?", (stream_id,)).rowcount
    connection.execute("UPDATE meta SET stream_count = stream_count - ?", (removed,))
    return removed > 0


def remove_all(connection: sqlite3.Connection) -> list[str]:
    """`remove` for all streams; returns their ids."""
    ids = [stream_id for (stream_id,) in connection.execute("SELECT stream_id FROM streams")]
    connection.execute(_TO_TRASH)
    connection.execute("DELETE FROM streams")
    connection.execute("UPDATE meta SET stream_count = 0")
    return ids


_TO_TRASH = "INSERT OR IGNORE INTO trash SELECT generation FROM streams WHERE typeof(generation) = 'integer'"

_EXTEND = (
    "UPDATE streams SET size = size + ?, entries = entries + ?, boot_id = ?, lease_until = ?, expires_boot = ?,"
    " expires_at = ?, updated_at = ? WHERE stream_id = ?"
)
_EXTEND_AS_EXPECTED = (
    f"{_EXTEND} AND generation = ? AND status = 'streaming' AND size = ? AND boot_id = ? AND expires_boot > ?"
    " AND size <= ? AND entries <= ?"
)


@dataclass(frozen=True)
class Steps:
    """What write transactions of a store with these limits and times do to one stream. Times are in seconds.

    An error that concerns this stream alone is returned by `append` and `renew`, not raised: the transaction
    serves others too.
    """

    limits: rules.Limits
    grace: float
    finished_ttl: float | None

    def begin(
        self,
        connection: sqlite3.Connection,
        stream_id: str,
        expired: Row | None,
        ttl: float,
        metadata: str,
        owner: str,
    ) -> Lease:
        """Begin a new generation, in place of the `expired` one if there is one. Raises LimitExceededError."""
        if expired is not None:
            remove(connection, stream_id)
        last, count = connection.execute("SELECT last_generation, stream_count FROM meta").fetchone()
        self.limits.check_streams(count)
        lease = Lease(stream_id, new_generation(last), ttl)
        connection.execute("UPDATE meta SET last_generation = ?, stream_count = ?", (lease.generation, count + 1))
        now, wall = bootclock.now(), time.time()
        row = Row(
            lease.generation,
            Status.STREAMING,
            size=0,
            entries=0,
            error=None,
            metadata=metadata,
            ttl=ttl,
            owner=owner,
            boot_id=bootclock.domain(),
            lease_until=now + self.grace,
            expires_boot=now + ttl,
            expires_at=wall + ttl,
            created_at=wall,
            updated_at=wall,
            finished_at=None,
        )
        marks = ",".join("?" * len(row))
        connection.execute(f"INSERT INTO streams (stream_id, {_COLUMNS}) VALUES (?,{marks})", (stream_id, *row))
        return lease

    def append(
        self, connection: sqlite3.Connection, lease: Lease, chunks: list[bytes], length: int
    ) -> list[pages.Page] | ResumableStreamError:
        """Append all chunks, `length` bytes, as pages; or nothing, and say why. No pages are new where a repeated
        append was stored before. The lease advances with the commit."""
        try:
            self.limits.check_chunks(chunks)
            if self._extend_as_expected(connection, lease, length, len(chunks)):
                return _insert_pages(connection, lease, chunks)
            # Something is not as the lease expects: the row tells what.
            row = select_living(connection, lease.stream_id)
            refused = rules.append_error(lease, row, length)
            if refused is not None or row is None:
                return refused or StreamLostError(f"stream {lease.stream_id} is gone")
            if row.size != lease.offset:  # a repeated append, or the lease was used twice
                stored, _ = read(connection, lease.generation, lease.offset, length)
                if stored != b"".join(chunks):
                    return rules.conflict_error(lease)
                length, chunks = 0, []  # a sign of life all the same
            self.limits.check_room(lease.stream_id, row.size + length, row.entries + len(chunks))
        except ResumableStreamError as error:
            return error
        self._extend(connection, lease, length, len(chunks))
        return _insert_pages(connection, lease, chunks)

    def renew(self, connection: sqlite3.Connection, lease: Lease) -> ResumableStreamError | None:
        """Renew the lease, or say why not."""
        try:
            error = rules.ownership_error(lease, select_living(connection, lease.stream_id))
        except ResumableStreamError as damaged:
            return damaged
        if error is None:
            self._extend(connection, lease, 0, 0)
        return error

    def end(
        self, connection: sqlite3.Connection, stream_id: str, row: Row, status: Status, error: str | None = None
    ) -> Row:
        """Write the ending of a running stream, of which this transaction has read `row`; returns the row as it
        is now. The stream lives `finished_ttl`, or its ttl, from now; not at all if it was overdue."""
        wall, life = time.time(), 0.0 if row.overdue else self.finished_ttl or row.ttl
        ended = row._replace(
            status=status,
            error=error,
            boot_id=bootclock.domain(),
            expires_boot=bootclock.now() + life,
            expires_at=wall + life,
            updated_at=wall,
            finished_at=wall,
        )
        connection.execute(
            "UPDATE streams SET status = ?, error = ?, boot_id = ?, expires_boot = ?, expires_at = ?,"
            " updated_at = ?, finished_at = ? WHERE stream_id = ?",
            (status.value, error, ended.boot_id, ended.expires_boot, ended.expires_at, wall, wall, stream_id),
        )
        return ended

    def _extend(self, connection: sqlite3.Connection, lease: Lease, length: int, entries: int) -> None:
        """Extend size, lease and ttl. The caller has checked the row."""
        connection.execute(_EXTEND, self._extension(lease, length, entries, bootclock.now()))

    def _extend_as_expected(self, connection: sqlite3.Connection, lease: Lease, length: int, entries: int) -> bool:
        """As `_extend`, but only if the row is as the lease expects. One statement; False if nothing was done."""
        now = bootclock.now()
        expected = (
            lease.generation,
            lease.offset,
            bootclock.domain(),
            now,
            self.limits.max_stream_bytes - length,
            self.limits.max_entries - entries,
        )
        values = self._extension(lease, length, entries, now) + expected
        return connection.execute(_EXTEND_AS_EXPECTED, values).rowcount == 1

    def _extension(self, lease: Lease, length: int, entries: int, now: float) -> tuple[float | str, ...]:
        wall = time.time()
        leases = bootclock.domain(), now + self.grace, now + lease.ttl
        return length, entries, *leases, wall + lease.ttl, wall, lease.stream_id


def _insert_pages(connection: sqlite3.Connection, lease: Lease, chunks: Sequence[bytes]) -> list[pages.Page]:
    packed = pages.pack(chunks, lease.offset)
    for end, payload, lengths in packed:
        connection.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?, ?)",
            (lease.generation, end, payload, lengths, _checksum(end, payload, lengths)),
        )
    return packed


def _checksum(end: int, payload: bytes, lengths: bytes | None) -> int:
    return zlib.crc32(lengths or b"", zlib.crc32(payload, end & 0xFFFFFFFF))
