"""The rows of the SQLite store's `streams` table, and the statements that several operations share."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...contract import Lease, Status, StreamInfo
from ...errors import StoreUnavailableError
from .. import base as rules
from . import clock as bootclock

logger = logging.getLogger("resumable_sync")

COLUMNS = (
    "generation, status, size, entries, error, metadata, ttl, owner, boot_id, lease_until, expires_boot,"
    " expires_at, created_at, updated_at, finished_at"
)

_IDS_OF_A_QUERY = 500


class Row(NamedTuple):
    """A row behind its stream id; see schema.sql."""

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
        if self.boot_id == bootclock.boot_id():
            return self.expires_boot - bootclock.now()
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
    """The next `limit` streams behind id `after`."""
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
    """The rows that can be read: a damaged one fails those who ask for its stream, nobody else."""
    for stream_id, *columns in found:
        try:
            yield stream_id, _as_row(columns)
        except StoreUnavailableError as damaged:
            logger.warning("stream %s is passed over: %s", stream_id, damaged)


def check(connection: sqlite3.Connection) -> Iterator[str]:
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


def insert(connection: sqlite3.Connection, lease: Lease, metadata: str, owner: str, grace: float) -> None:
    """Begin the generation of `lease`."""
    now, wall = bootclock.now(), time.time()
    connection.execute(
        f"INSERT INTO streams (stream_id, {COLUMNS}) VALUES (?,?,?,0,0,NULL,?,?,?,?,?,?,?,?,?,NULL)",
        (
            lease.stream_id,
            lease.generation,
            Status.STREAMING.value,
            metadata,
            lease.ttl,
            owner,
            bootclock.boot_id(),
            now + grace,
            now + lease.ttl,
            wall + lease.ttl,
            wall,
            wall,
        ),
    )


def extend(connection: sqlite3.Connection, lease: Lease, length: int, entries: int, grace: float) -> None:
    """Book an append, or with zeros a sign of life: size, lease and ttl. The caller has checked the row."""
    now, wall = bootclock.now(), time.time()
    connection.execute(
        "UPDATE streams SET size = size + ?, entries = entries + ?, lease_until = ?, expires_boot = ?,"
        " expires_at = ?, updated_at = ? WHERE stream_id = ?",
        (length, entries, now + grace, now + lease.ttl, wall + lease.ttl, wall, lease.stream_id),
    )


def advance(
    connection: sqlite3.Connection, lease: Lease, length: int, entries: int, grace: float, limits: rules.Limits
) -> bool:
    """Book an append if the row is as the lease expects, in one statement; False, and nothing is done, if not."""
    now, wall = bootclock.now(), time.time()
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
            bootclock.boot_id(),
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
            bootclock.boot_id(),
            bootclock.now() + life,
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
