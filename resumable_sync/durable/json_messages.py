"""JSON bodies as messages, each of which is kept as the text that came."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

MEDIA_TYPE = "application/json"

MAX_MESSAGES = 100_000
"""Of one body."""

_SPACE = re.compile(r"[ \t\n\r]*")


class NotJSONError(ValueError):
    """A body is no JSON text."""


class TooManyError(Exception):
    """A body holds more than MAX_MESSAGES."""


def _no_constant(name: str) -> object:
    raise NotJSONError(f"{name} is not JSON")


# Nothing is kept of what is read: only where it ends matters. Numbers are never converted, so that thousands of
# digits cost nothing, and objects are dropped as soon as they are complete.
_DECODER = json.JSONDecoder(parse_int=bool, parse_float=bool, parse_constant=_no_constant, object_pairs_hook=bool)


def split_messages(body: bytes) -> list[bytes]:
    """The messages of a body: the elements of an array, or the one value. NotJSONError if it is no JSON text,
    TooManyError.

    Each is the very text that came. Refused are also NaN and Infinity, what is nested too deeply for Python, and
    what is not UTF-8. Pure; thread-safe.
    """
    try:
        text = body.decode("utf-8")
        begin = _end_of_space(text, 0)
        if not text.startswith("[", begin):
            end = _DECODER.raw_decode(text, begin)[1]
            _check_end(text, end)
            return [text[begin:end].encode()]
        return [message.encode() for message in _elements(text, begin + 1)]
    except (ValueError, RecursionError) as error:
        raise NotJSONError("the body is not JSON") from error


def join_messages(messages: Iterable[bytes]) -> bytes:
    """The messages as an array."""
    return b"[%b]" % b",".join(messages)


def _elements(text: str, position: int) -> list[str]:
    found: list[str] = []
    position = _end_of_space(text, position)
    if text.startswith("]", position):
        _check_end(text, position + 1)
        return found
    while True:
        end = _DECODER.raw_decode(text, position)[1]
        if len(found) == MAX_MESSAGES:
            raise TooManyError(f"a body holds more than {MAX_MESSAGES} messages")
        found.append(text[position:end])
        position = _end_of_space(text, end)
        if text.startswith("]", position):
            _check_end(text, position + 1)
            return found
        if not text.startswith(",", position):
            raise NotJSONError("an array goes on with a comma")
        position = _end_of_space(text, position + 1)


def _end_of_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _check_end(text: str, position: int) -> None:
    if _end_of_space(text, position) != len(text):
        raise NotJSONError("something follows the value")
