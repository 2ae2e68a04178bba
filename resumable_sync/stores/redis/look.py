"""Reading a stream from Redis: its state, and a range of its log, in one trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...contract import Batch, Position
from ...errors import ResumableStreamError, StreamLostError
from .. import base as rules
from .. import pages
from ..pages import PAGE_BYTES, Page
from .connection import Link
from .index import Keys
from .scripts import Call, script
from .state import Found, absent, as_error, parse_found

_ROWS = 1000  # that one trip brings at most
_LAST_OFFSET = 2**63


def look(link: Link, keys: Keys, stream_id: str, position: Position | None, max_bytes: int) -> tuple[Batch, float]:
    """What Redis has behind `position`, and the seconds until the stream's state may change by itself.

    One trip, if a position is given and no chunk is larger than a page; else up to three. The batch is of the
    moment at which the state was taken: rows are only ever added, and newer ones are left out.
    """
    try:
        return _look(link, keys, stream_id, position, max_bytes)
    except StreamLostError:  # maybe only because the stream was replaced between two commands
        return _look(link, keys, stream_id, position, max_bytes)


def _look(
    link: Link, keys: Keys, stream_id: str, position: Position | None, max_bytes: int
) -> tuple[Batch, float]:
    generation, offset = position or ("", 0)
    calls = [script("look", keys.of(stream_id), generation, offset, keys.finished_ttl)]
    if position is not None:
        calls.append(_range(keys, stream_id, position, max_bytes))
    replies = link.run(calls)
    found = parse_found(replies[0])
    if isinstance(found, ResumableStreamError):
        raise found
    if not isinstance(found, Found):
        raise absent(stream_id, found)
    start = rules.start_position(stream_id, found, position)
    data = b""
    lengths: Sequence[int] = ()
    if start.offset < found.size:
        if position is None:
            replies += link.run([_range(keys, stream_id, start, max_bytes)])
        rows = _rows(replies[1], found.size)
        if not rows:  # a chunk that is larger than the range
            rows = _rows(link.run([_range(keys, stream_id, start, _LAST_OFFSET, 1)])[0], found.size)
        data, lengths = pages.unpack(rows, start.offset, max_bytes)
    return Batch(start, data, lengths, size=found.size, status=found.status, error=found.error), found.due


def _range(keys: Keys, stream_id: str, start: Position, max_bytes: int, count: int = _ROWS) -> Call:
    """The rows behind `start`, until `max_bytes` and what is left of a page. The ids are the ends of the rows."""
    end = min(start.offset + max_bytes + PAGE_BYTES, _LAST_OFFSET)
    log = keys.log(stream_id)
    return Call(log, ("XRANGE", log, f"({start}", f"{start.generation}-{end}", "COUNT", count))


def _rows(reply: Any, size: int) -> list[Page]:
    """The rows up to offset `size` as pages. StreamLostError if one is none: somebody else wrote into the log."""
    if isinstance(reply, Exception):
        raise as_error(reply)
    try:
        rows = [(int(row_id[row_id.index(b"-") + 1 :]), fields) for row_id, fields in reply]
        if any(fields[0] != b"p" for _, fields in rows):
            raise ValueError("not a row of chunks")
        return [(end, fields[1], fields[3] if len(fields) > 3 else None) for end, fields in rows if end <= size]
    except (ValueError, IndexError, TypeError) as wrong:
        raise StreamLostError(f"the stream's log holds what is not of it: {wrong}") from wrong
