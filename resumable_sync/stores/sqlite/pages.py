"""The rows of the SQLite store's `pages` table, each with a checksum: SQLite itself verifies no content."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence

from ...errors import StreamLostError
from .. import pages


def insert(
    connection: sqlite3.Connection, generation: int, chunks: Sequence[bytes], offset: int
) -> list[pages.Page]:
    """Put chunks at `offset`; returns them as pages."""
    rows = pages.pack(chunks, offset)
    for end, payload, lengths in rows:
        connection.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?, ?)",
            (generation, end, payload, lengths, _checksum(end, payload, lengths)),
        )
    return rows


def read(
    connection: sqlite3.Connection, generation: int, offset: int, max_bytes: int
) -> tuple[bytes, Sequence[int]]:
    """What lies behind `offset`; see `pages.unpack`. StreamLostError if a page is missing or damaged."""
    return pages.unpack(select(connection, generation, offset), offset, max_bytes)


def check(connection: sqlite3.Connection, generation: int, size: int) -> Iterator[str]:
    """What is wrong with a generation that should be `size` bytes long, in words."""
    reached = 0
    try:
        for end, payload, _ in select(connection, generation, 0):
            if end - len(payload) != reached:
                yield f"bytes {reached} to {end - len(payload)} are missing"
            reached = end
    except StreamLostError as damaged:
        yield str(damaged)
    else:
        if reached != size:
            yield f"{reached} of {size} bytes are stored"


def select(connection: sqlite3.Connection, generation: int, offset: int) -> Iterator[pages.Page]:
    """The pages that reach beyond `offset`."""
    sql = "SELECT end, payload, lengths, checksum FROM pages WHERE generation = ? AND end > ? ORDER BY end"
    for end, payload, lengths, checksum in connection.execute(sql, (generation, offset)):
        if _checksum(end, payload, lengths) != checksum:
            raise StreamLostError(f"the bytes before offset {end} are damaged in the file")
        yield end, payload, lengths


def _checksum(end: int, payload: bytes, lengths: bytes | None) -> int:
    return zlib.crc32(lengths or b"", zlib.crc32(payload, end & 0xFFFFFFFF))
