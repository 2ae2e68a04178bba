"""The cursor of a viewer of several streams: where it stands in each of them, as one id of an event.

`s1.` and, in base64 for URLs, one record for each stream that has begun for this viewer:

    8 bytes   BLAKE2b of the stream's id: ids may be long, and an event's id comes back in one line of a header
    1 byte    how many bytes the offset has, 0 to 7; or 255: the viewer was told how the stream ended, and
              nothing follows
    7 bytes   the generation
    n bytes   the offset

All numbers are big-endian. A hundred streams take 3,070 characters at most; one that runs takes about 25.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from ..contract import Position
from ..errors import InvalidCursorError

MAX_STREAMS = 100
"""Streams that one response follows at most. Many servers take a header of 8 KiB."""

_PREFIX = "s1."
_ENDED = 255
_KEY_BYTES = 8
_NUMBER_BYTES = 7  # 2**53, see contract.py, and the 16 digits that a cursor may have
_MAX_LENGTH = len(_PREFIX) + (MAX_STREAMS * (_KEY_BYTES + 1 + 2 * _NUMBER_BYTES) * 4 + 2) // 3


class CombinedCursor:
    """Where a viewer stands in each of `stream_ids`. One thread at a time.

    Begins with what `text` says of these; "" says nothing. What it says of other streams is forgotten.
    InvalidCursorError for what is no such cursor.
    """

    def __init__(self, stream_ids: Iterable[str], text: str = "") -> None:
        found = _parse(text)
        self._keys = {stream_id: _key(stream_id) for stream_id in stream_ids}
        self._records = {key: found[key] for key in self._keys.values() if key in found}

    def position(self, stream_id: str) -> Position | None:
        """Where the viewer stands in this one; None if it has not begun, or is over."""
        record = self._records.get(self._keys[stream_id])
        if record is None or record[_KEY_BYTES] == _ENDED:
            return None
        numbers = record[_KEY_BYTES + 1 :]
        return Position(
            int.from_bytes(numbers[:_NUMBER_BYTES], "big"), int.from_bytes(numbers[_NUMBER_BYTES:], "big")
        )

    def left(self) -> list[str]:
        """The streams of which the viewer has not been told how they ended."""
        ended = {key for key, record in self._records.items() if record[_KEY_BYTES] == _ENDED}
        return [stream_id for stream_id, key in self._keys.items() if key not in ended]

    def reach(self, stream_id: str, position: Position) -> None:
        """The viewer has everything of this one up to here."""
        key = self._keys[stream_id]
        size = (position.offset.bit_length() + 7) // 8
        numbers = position.generation.to_bytes(_NUMBER_BYTES, "big") + position.offset.to_bytes(size, "big")
        self._records[key] = key + bytes([size]) + numbers

    def end(self, stream_id: str) -> None:
        """The viewer was told how this one ended."""
        key = self._keys[stream_id]
        self._records[key] = key + bytes([_ENDED])

    def __str__(self) -> str:
        return _PREFIX + base64.urlsafe_b64encode(b"".join(self._records.values())).decode("ascii").rstrip("=")


def _key(stream_id: str) -> bytes:
    return hashlib.blake2b(stream_id.encode("ascii"), digest_size=_KEY_BYTES).digest()


def _parse(text: str) -> dict[bytes, bytes]:
    """The records by their keys."""
    if not text:
        return {}
    try:
        if not text.startswith(_PREFIX) or len(text) > _MAX_LENGTH:
            raise ValueError("no cursor of several streams")
        packed = text[len(_PREFIX) :].encode("ascii")
        data = base64.b64decode(packed + b"=" * (-len(packed) % 4), b"-_", validate=True)
        return dict(_records(data))
    except (ValueError, binascii.Error) as error:
        raise InvalidCursorError(f"not a cursor of several streams: {text!r:.80}") from error


def _records(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    begin = 0
    while begin < len(data):
        size_at = begin + _KEY_BYTES
        if size_at >= len(data):
            raise ValueError("a record is cut")
        size = data[size_at]
        if size > _NUMBER_BYTES and size != _ENDED:
            raise ValueError("an offset is too large")
        end = size_at + 1 + (0 if size == _ENDED else _NUMBER_BYTES + size)
        if end > len(data):
            raise ValueError("a record is cut")
        yield data[begin:size_at], data[begin:end]
        begin = end
