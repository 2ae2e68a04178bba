"""JSON as JavaScript reads and writes it.

Every string that leaves through here is one that `JSON.parse` takes back, and every string that comes in is
refused where `JSON.parse` would refuse it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NoReturn, TypeAlias

JsonValue: TypeAlias = "None | bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue]"

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR_OR_SINGLE = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
_LINE_BREAK = re.compile("[\x85\u2028\u2029]")
# JavaScript prints whole numbers below this with all their digits.
_EXPONENT_FROM = 1e21


def join_surrogates(text: str) -> str:
    """Return `text` with every split surrogate pair joined into the one character it stands for.

    JavaScript cannot tell the two apart, Python can. Lone surrogates stay. Pure; thread-safe.
    """
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def concat(text: str, more: str) -> str:
    """`text + more`, joining a surrogate pair that was cut exactly between the two."""
    if more and text and "\ud800" <= text[-1] <= "\udbff" and "\udc00" <= more[0] <= "\udfff":
        return text[:-1] + join_surrogates(text[-1] + more[0]) + more[1:]
    return text + more


def jsonable(value: object) -> JsonValue:
    """Return a deep copy of `value` in plain JSON types, as JavaScript would have it.

    NaN and infinities become None, whole floats become int, tuples become lists. TypeError for a value or a
    key that JSON cannot hold, ValueError for one nested too deeply (or within itself). Pure; thread-safe as
    long as nobody changes `value` meanwhile.
    """
    try:
        return _copy(value)
    except RecursionError as error:
        raise ValueError("a JSON value is nested too deeply, or contains itself") from error


def _copy(value: object) -> JsonValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return join_surrogates(str.__str__(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # Through the shortest decimal form, whose digits are those that JavaScript prints.
        return int(Decimal(repr(value))) if value.is_integer() and abs(value) < _EXPONENT_FROM else float(value)
    if isinstance(value, Mapping):
        copied: dict[str, JsonValue] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a JSON object's keys are strings, not {type(key).__name__}")
            copied[join_surrogates(key)] = _copy(item)
        return copied
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def stringify(value: object) -> str:
    """What `JSON.stringify(value)` returns: compact, lone surrogates escaped, null for NaN.

    Raises as `jsonable`. Pure; thread-safe.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        text = json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else _PAIR_OR_SINGLE.sub(_join_or_escape, text)


def wire_json(value: object) -> str:
    """`stringify` for the wire: U+0085, U+2028 and U+2029 are escaped too.

    Python's line splitting breaks on them, so a client that reads lines would tear a frame in two.
    """
    text = stringify(value)
    return text if text.isascii() else _LINE_BREAK.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _join_or_escape(match: re.Match[str]) -> str:
    return join_surrogates(match[0]) if len(match[0]) == 2 else _escape(match)


def parse_json(text: str) -> JsonValue:
    """Parse one JSON text, else ValueError.

    Refused beyond the grammar: NaN and infinities as literals, nesting too deep for the interpreter, and
    the keys by which an object would take over its prototype in a JavaScript client, which refuses them.
    """
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
        if "proto" in text or "\\u" in text:
            _refuse_prototypes(value)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_prototypes(value: JsonValue) -> None:
    if isinstance(value, dict):
        constructor = value.get("constructor")
        if "__proto__" in value or (isinstance(constructor, dict) and "prototype" in constructor):
            raise ValueError("an object that would change its own prototype")
        for item in value.values():
            _refuse_prototypes(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_prototypes(item)
