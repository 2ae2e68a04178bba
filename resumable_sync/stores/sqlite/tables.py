"""What is in the tables of the SQLite store (schema.sql, additions.sql), and what a transaction does to a stream.

SQLite verifies no content, and a column may hold any type. So rows are checked where they are read: a damaged one
fails those who ask for its stream, nobody else. Pages carry a checksum.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from ...contract import Lease, Notes, Status, StreamInfo, new_generation, new_token
from ...errors import ResumableStreamError, StoreUnavailableError, StreamLostError
from ...logs import about
from .. import base as rules
from .. import pages
from ..notes import Commit, Creation, commit_error, with_notes
from . import clock as bootclock

logger = logging.getLogger("resumable_sync")

_IDS_OF_A_QUERY = 500
_UNKNOWN_LIFE_SECONDS = 1.0  # after which to ask again how long a stream lives
_NEVER = 1e15  # by the boot clock
_AFTER_ANY_ID = "\x7f"  # sorts after every character of an id


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
    fence: str = ""
    producer: str = ""
    handover: float = 0.0
    term: int = 1
    term_begin: int = 0
    empty_terms: int = 0
    sliding: int = 1

    @property
    def shared(self) -> bool:
        """Whether it has no producer, and anybody may commit to it."""
        return self.term == 0

    @property
    def lease_end(self) -> float:
        """When the lease ends, and the handover begins; by the boot clock."""
        return self.lease_until - self.handover

    @property
    def life(self) -> float:
        """Seconds until the stream's ttl runs out, by the boot clock; by the wall clock in another clock domain,
        as after a reboot. There a running stream lives on until its producer is known to be dead: see
        `overdue`."""
        if self.boot_id == bootclock.domain():
            return self.expires_boot - bootclock.now()
        life = self.expires_at - time.time()
        return life if self.status.ended or self.shared else max(life, _UNKNOWN_LIFE_SECONDS)

    @property
    def expired(self) -> bool:
        """Whether the stream's ttl has run out."""
        return self.life <= 0

    @property
    def overdue(self) -> bool:
        """Whether the ttl of a stream of another clock domain has run out by the wall clock: it is gone if its
        producer is dead, and otherwise about to be renewed."""
        return self.boot_id != bootclock.domain() and self.expires_at <= time.time()

    def info(
        self, stream_id: str, *, producer_alive: bool = True, notes: Mapping[str, str] | None = None
    ) -> StreamInfo:
        """The row as the public snapshot. `producer_alive`: whether somebody produces it if it is running."""
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
            producer_alive=self.status is Status.STREAMING and not self.shared and producer_alive,
            shared=self.shared,
            term=self.term,
            handover=self.handover,
            ttl=self.ttl,
            sliding=bool(self.sliding),
            notes=notes or {},
        )


_COLUMNS = ", ".join(Row._fields)
_TYPES: tuple[tuple[type, ...], ...] = (
    *((int,), (str,), (int,), (int,), (str, type(None)), (str,), (float,), (str,), (str,)),
    *((float,), (float,), (float,), (float,), (float,), (float, type(None))),
    *((str,), (str,), (float,), (int,), (int,), (int,), (int,)),
)
_INTACT = frozenset(product(*_TYPES))  # the types of a row's columns, as a whole: one look tells
_GENERATIONS_END = 2**53  # not before the year 2242
_STATUSES = {status.value: status for status in Status if status is not Status.MISSING}


def _as_row(stream_id: str, columns: Sequence[Any]) -> Row:
    if tuple(map(type, columns)) not in _INTACT:
        for name, value, kinds in zip(Row._fields, columns, _TYPES):
            if type(value) not in kinds:
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
    connection: sqlite3.Connection, after: str, limit: int, *, prefix: str = "", status: Status | None = None
) -> tuple[list[tuple[str, Row]], str | None]:
    """The next `limit` streams after id `after` without those that cannot be read, and the id to go on after;
    None if there are no more. `prefix`: only ids that begin so; `status`: only those at it."""
    # One lower bound: of two, SQLite might begin at the wrong one.
    where, begin = ("stream_id >= ?", prefix) if after < prefix else ("stream_id > ?", after)
    where, values = f"{where} AND stream_id < ?", [begin, prefix + _AFTER_ANY_ID]
    if status is not None:
        where, values = f"status = ? AND {where}", [status.value, *values]
    found = connection.execute(
        f"SELECT stream_id, {_COLUMNS} FROM streams WHERE {where} ORDER BY stream_id LIMIT ?", (*values, limit)
    ).fetchall()
    return list(_readable(found)), found[-1][0] if len(found) == limit else None


RUNNING = "streams INDEXED BY running WHERE status = 'streaming'"
"""Its index also has `owner`."""

CONTINUABLE = "streams INDEXED BY continuable WHERE status = 'streaming' AND handover > 0"
"""Its index also has `producer`."""


def select_continuable(connection: sqlite3.Connection) -> list[str]:
    """The ids of running streams with a handover."""
    found = connection.execute(f"SELECT stream_id FROM {CONTINUABLE}")
    return [stream_id for (stream_id,) in found]


def select_notes(
    connection: sqlite3.Connection, stream_id: str, names: Sequence[str] | None = None
) -> dict[str, str]:
    """The notes of a stream, or those of these names that there are."""
    sql = "SELECT name, value FROM notes WHERE stream_id = ?"
    if names is None:
        found = connection.execute(sql, (stream_id,)).fetchall()
    else:
        found = []
        for name in names:
            found += connection.execute(f"{sql} AND name = ?", (stream_id, name)).fetchall()
    notes = {}
    for name, value in found:
        if type(name) is not str or type(value) is not str:
            raise _damaged(stream_id, f"its note {name!r:.100} is {value!r:.100}")
        notes[name] = value
    return notes


def set_notes(connection: sqlite3.Connection, stream_id: str, notes: Notes) -> None:
    """Set these notes, or take those away that are None. The caller has checked that there is room."""
    for name, value in notes.items():
        if value is None:
            connection.execute("DELETE FROM notes WHERE stream_id = ? AND name = ?", (stream_id, name))
        else:
            connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (stream_id, name, value))


def check_room_for_notes(connection: sqlite3.Connection, stream_id: str, notes: Notes) -> None:
    """LimitExceededError if these notes would make too many, or too large ones."""
    if notes:
        with_notes(stream_id, select_notes(connection, stream_id), notes)


def _readable(found: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Row]]:
    for stream_id, *columns in found:
        try:
            yield stream_id, _as_row(stream_id, columns)
        except StoreUnavailableError as damaged:
            pass_over(stream_id, damaged)


def pass_over(stream_id: str, damaged: StoreUnavailableError) -> None:
    """Log that a listing leaves out a stream that cannot be read."""
    logger.warning("%s (it is passed over)", damaged, extra=about("damaged", stream_id))


def select_pages(connection: sqlite3.Connection, generation: int, offset: int) -> Iterator[pages.Page]:
    """The pages that reach beyond `offset`. StreamLostError if one is damaged."""
    sql = "SELECT end, payload, lengths, checksum FROM pages WHERE generation = ? AND end > ? ORDER BY end"
    for end, payload, lengths, checksum in connection.execute(sql, (generation, offset)):
        try:
            found = zlib.crc32(payload, end & 0xFFFFFFFF)  # as _checksum, without a call for each row
            intact = (found if lengths is None else zlib.crc32(lengths, found)) == checksum
        except TypeError:
            intact = False
        if not intact:
            raise StreamLostError(f"the bytes before offset {end} are damaged in the file")
        yield end, payload, lengths


def read(
    connection: sqlite3.Connection, generation: int, offset: int, max_bytes: int
) -> tuple[list[bytes], Sequence[int]]:
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
        try:
            select_notes(connection, stream_id)
        except StoreUnavailableError as damaged:
            yield str(damaged)
    strays = "SELECT DISTINCT stream_id FROM notes WHERE stream_id NOT IN (SELECT stream_id FROM streams)"
    for (stream_id,) in connection.execute(strays):
        yield f"there are notes of stream {stream_id}, which is not there"


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
    connection.execute("DELETE FROM notes")  # of whatever a damaged file holds
    connection.execute("UPDATE meta SET stream_count = 0")
    return ids


_TO_TRASH = "INSERT OR IGNORE INTO trash SELECT generation FROM streams WHERE typeof(generation) = 'integer'"

_EXTEND = (
    "UPDATE streams SET size = size + ?, entries = entries + ?, boot_id = ?, lease_until = ?, expires_boot = ?,"
    " expires_at = ?, updated_at = ? WHERE stream_id = ?"
)
_EXTEND_AS_EXPECTED = (
    f"{_EXTEND} AND generation = ? AND fence = ? AND status = 'streaming' AND size = ? AND boot_id = ?"
    " AND expires_boot > ? AND size <= ? AND entries <= ?"
)


def _change(connection: sqlite3.Connection, stream_id: str, row: Row, **values: Any) -> Row:
    """Write these columns of a stream of which this transaction has read `row`; returns the row as it is now."""
    columns = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"UPDATE streams SET {columns} WHERE stream_id = ?", (*values.values(), stream_id))
    return row._replace(**values)


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
        handover: float = 0.0,
    ) -> Lease:
        """Begin a new generation, in place of the `expired` one if there is one. Raises LimitExceededError."""
        row = _new_row(ttl, self._life(ttl, handover), metadata)._replace(
            owner="" if handover else owner,
            producer=owner if handover else "",
            lease_until=bootclock.now() + self.grace + handover,
            fence=new_token(),
            handover=handover,
        )
        generation = self._insert(connection, stream_id, expired, row)
        return Lease(stream_id, generation, ttl, token=row.fence, handover=handover)

    def check(self, creation: Creation) -> None:
        """LimitExceededError if it is too large, whatever is stored."""
        self.limits.check_chunks(creation.chunks)
        self.limits.check_room(creation.stream_id, sum(map(len, creation.chunks)), len(creation.chunks))
        with_notes(creation.stream_id, {}, creation.notes)

    def create(self, connection: sqlite3.Connection, creation: Creation, expired: Row | None, token: str) -> Row:
        """Begin a shared stream, in place of the `expired` one if there is one. Raises LimitExceededError."""
        stream_id, chunks = creation.stream_id, creation.chunks
        size = sum(map(len, chunks))
        row = _new_row(creation.ttl, creation.ttl, json.dumps(creation.metadata))
        row = row._replace(size=size, entries=len(chunks), fence=token, term=0, sliding=int(creation.sliding))
        if creation.ending is not None:
            row = row._replace(status=creation.ending, finished_at=row.created_at)
        row = row._replace(generation=self._insert(connection, stream_id, expired, row))
        set_notes(connection, stream_id, creation.notes)
        _insert_pages(connection, row.generation, 0, chunks)
        return row

    def _insert(self, connection: sqlite3.Connection, stream_id: str, expired: Row | None, row: Row) -> int:
        """Put the row there as a new generation, which is returned."""
        last, count = self._counters(connection)
        if expired is not None:
            count -= 1
        self.limits.check_streams(count)
        if expired is not None:
            remove(connection, stream_id)
        row = row._replace(generation=new_generation(last))
        connection.execute("UPDATE meta SET last_generation = ?, stream_count = ?", (row.generation, count + 1))
        marks = ",".join("?" * len(row))
        connection.execute(f"INSERT INTO streams (stream_id, {_COLUMNS}) VALUES (?,{marks})", (stream_id, *row))
        return row.generation

    def _counters(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The last generation, and how many streams there are. What cannot be is made anew: it is no stream's."""
        last, count = connection.execute("SELECT last_generation, stream_count FROM meta").fetchone()
        if type(last) is not int or not 0 <= last < _GENERATIONS_END:
            last = 0  # the clock keeps generations growing
        if type(count) is not int or not 0 <= count <= self.limits.max_streams:
            (count,) = connection.execute("SELECT count(*) FROM streams").fetchone()
        return last, count

    def append(
        self,
        connection: sqlite3.Connection,
        lease: Lease,
        chunks: list[bytes],
        length: int,
        notes: Notes | None = None,
    ) -> list[pages.Page] | ResumableStreamError:
        """Append all chunks, `length` bytes, as pages, and set notes; or nothing, and say why. No pages are new
        where a repeated append was stored before. The lease advances with the commit."""
        try:
            self.limits.check_chunks(chunks)
            if not notes and self._extend_as_expected(connection, lease, length, len(chunks)):
                return _insert_pages(connection, lease.generation, lease.offset, chunks)
            # Something is not as the lease expects: the row tells what.
            row = select_living(connection, lease.stream_id)
            refused = rules.append_error(lease, row, length)
            if refused is not None or row is None:
                return refused or StreamLostError(f"stream {lease.stream_id} is gone")
            if row.size != lease.offset:  # a repeated append, or the lease was used twice
                stored, _ = read(connection, lease.generation, lease.offset, length)
                if b"".join(stored) != b"".join(chunks):
                    return rules.conflict_error(lease)
                length, chunks, notes = 0, [], None  # a sign of life all the same
            self.limits.check_room(lease.stream_id, row.size + length, row.entries + len(chunks))
            if notes:
                check_room_for_notes(connection, lease.stream_id, notes)
        except ResumableStreamError as error:
            return error
        self._extend(connection, lease, length, len(chunks))
        if notes:
            set_notes(connection, lease.stream_id, notes)
            _change(connection, lease.stream_id, row, term_begin=-1)
        return _insert_pages(connection, lease.generation, lease.offset, chunks)

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
        is now. The stream lives `finished_ttl`, or its ttl, from now; not at all if it was overdue. A shared one
        lives on as it would have."""
        wall = time.time()
        ending: dict[str, Any] = {"status": status, "error": error, "updated_at": wall, "finished_at": wall}
        if not row.shared:
            ending.update(_expiry(0.0 if row.overdue else self.finished_ttl or row.ttl))
        return _change(connection, stream_id, row, **ending)

    def take_over(
        self, connection: sqlite3.Connection, stream_id: str, row: Row, token: str, producer: str
    ) -> Lease | None:
        """Begin the next term of a running stream that nobody produces, of which this transaction has read `row`;
        None if there is to be none."""
        term = rules.Term(row.term, row.term_begin, row.empty_terms).next(row.size)
        if term is None:
            return None
        _change(
            connection,
            stream_id,
            row,
            fence=token,
            producer=producer,
            term=term.number,
            term_begin=term.begin,
            empty_terms=term.empty,
            lease_until=bootclock.now() + self.grace + row.handover,
            updated_at=time.time(),
            **_expiry(self._life(row.ttl, row.handover)),
        )
        return Lease(stream_id, row.generation, row.ttl, row.size, token, term.number, row.handover)

    def release(self, connection: sqlite3.Connection, stream_id: str, row: Row, fence: str) -> Row:
        """Let go of a running stream, of which this transaction has read `row`: its handover begins, or it ends if
        it has none. Returns the row as it is now."""
        if not row.handover:
            return self.end(
                connection, stream_id, _change(connection, stream_id, row, fence=fence), Status.INTERRUPTED
            )
        return _change(
            connection,
            stream_id,
            row,
            fence=fence,
            producer="",
            lease_until=bootclock.now() + row.handover,
            updated_at=time.time(),
            **_expiry(self._life(row.ttl, row.handover)),
        )

    def commit_error(
        self, connection: sqlite3.Connection, commit: Commit, row: Row | None
    ) -> ResumableStreamError | None:
        """Why `commit` is refused of a stream of which this transaction has read `row`; None if it is not."""
        stream_id = commit.stream_id
        try:
            error = commit_error(commit, row, lambda names: select_notes(connection, stream_id, names))
            if error is not None or row is None:
                return error
            self.limits.check_chunks(commit.chunks)
            if commit.chunks:
                self.limits.check_room(stream_id, row.size + commit.length, row.entries + len(commit.chunks))
            check_room_for_notes(connection, stream_id, commit.notes)
        except ResumableStreamError as refused:  # by a limit, or as its notes are damaged
            return refused
        return None

    def commit(self, connection: sqlite3.Connection, commit: Commit, row: Row) -> tuple[Row, list[pages.Page]]:
        """Carry out what is not refused; returns the row as it is now, and the new pages."""
        stream_id, chunks = commit.stream_id, commit.chunks
        written = _insert_pages(connection, row.generation, row.size, chunks)
        set_notes(connection, stream_id, commit.notes)
        if not row.shared:
            return row, written  # notes alone: no sign of life of its producer
        wall = time.time()
        values: dict[str, Any] = {"size": row.size + commit.length, "entries": row.entries + len(chunks)}
        if not row.status.ended:
            values["updated_at"] = wall
        if row.sliding:
            values.update(_expiry(row.ttl))
        if commit.ending is not None:
            values.update(status=commit.ending, error=commit.error, finished_at=wall)
        return _change(connection, stream_id, row, **values), written

    def touch(self, connection: sqlite3.Connection, stream_id: str, row: Row) -> None:
        """Renew the life of a stream, of which this transaction has read `row`, if it is sliding."""
        if not row.sliding:
            return
        life = self._life(row.ttl, row.handover)
        if row.shared:
            values = _expiry(life)
            if not row.status.ended:
                values["updated_at"] = time.time()
        elif row.status.ended:
            values = _expiry(
                max(self.finished_ttl or row.ttl, row.life)
            )  # another process may have other settings
        elif row.boot_id == bootclock.domain():
            values = _expiry(life)  # `updated_at` is for its producer to renew: in other clock domains that tells
        else:
            expires_at = time.time() + life  # and by its producer's clock, which is not ours, as much later
            values = {"expires_at": expires_at, "expires_boot": row.expires_boot + expires_at - row.expires_at}
        _change(connection, stream_id, row, **values)

    def _life(self, ttl: float, handover: float) -> float:
        """Seconds that a stream lives after a sign of life: it never expires in its handover."""
        return max(ttl, self.grace + handover) if handover else ttl

    def _extend(self, connection: sqlite3.Connection, lease: Lease, length: int, entries: int) -> None:
        """Extend size, lease and ttl. The caller has checked the row."""
        connection.execute(_EXTEND, self._extension(lease, length, entries, bootclock.now(), bootclock.domain()))

    def _extend_as_expected(self, connection: sqlite3.Connection, lease: Lease, length: int, entries: int) -> bool:
        """As `_extend`, but only if the row is as the lease expects. One statement; False if nothing was done."""
        now, domain = bootclock.now(), bootclock.domain()
        expected = (
            lease.generation,
            lease.token,
            lease.offset,
            domain,
            now,
            self.limits.max_stream_bytes - length,
            self.limits.max_entries - entries,
        )
        values = self._extension(lease, length, entries, now, domain) + expected
        return connection.execute(_EXTEND_AS_EXPECTED, values).rowcount == 1

    def _extension(
        self, lease: Lease, length: int, entries: int, now: float, domain: str
    ) -> tuple[float | str, ...]:
        wall, handover = time.time(), lease.handover
        life = self._life(lease.ttl, handover) if handover else lease.ttl
        return length, entries, domain, now + self.grace + handover, now + life, wall + life, wall, lease.stream_id


def _new_row(ttl: float, life: float, metadata: str) -> Row:
    """A stream that begins now, without a producer; it has no generation yet."""
    wall = time.time()
    return Row(
        generation=0,
        status=Status.STREAMING,
        size=0,
        entries=0,
        error=None,
        metadata=metadata,
        ttl=ttl,
        owner="",
        lease_until=_NEVER,
        created_at=wall,
        updated_at=wall,
        finished_at=None,
        **_expiry(life),
    )


def _expiry(life: float) -> dict[str, Any]:
    """The columns of a stream that lives `life` seconds from now."""
    return {
        "boot_id": bootclock.domain(),
        "expires_boot": bootclock.now() + life,
        "expires_at": time.time() + life,
    }


def _insert_pages(
    connection: sqlite3.Connection, generation: int, offset: int, chunks: Sequence[bytes]
) -> list[pages.Page]:
    packed = pages.pack(chunks, offset)
    for end, payload, lengths in packed:
        connection.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?, ?)",
            (generation, end, payload, lengths, _checksum(end, payload, lengths)),
        )
    return packed


def _checksum(end: int, payload: bytes, lengths: bytes | None) -> int:
    return zlib.crc32(lengths or b"", zlib.crc32(payload, end & 0xFFFFFFFF))
