"""Byte ranges and conditional requests of raw responses (RFC 9110, sections 13 and 14).

What is served is the stream after the cursor that was asked for, by default the start; that cursor, in quotes, is
the strong entity tag: bytes of one generation never change, they only become more. All positions here count from
that cursor. While a stream grows nobody knows its length, and while it is not `done` nobody has all of it:

- A range that is stored whole is 206 with its length. One whose end is not stored yet is 206 without, and live.
- "From here on" of a growing stream announces UNKNOWN_LENGTH as its length, since Chromium discards a download for
  the `*` that would say "unknown"; curl takes either, and wget, which finds the end too early, asks once more.
- From exactly the end of what is stored, a growing stream goes on: curl and wget read 416 as "you have it all".
  Whoever asks for what lies beyond has bytes of another life: 409, or all of it if the request has If-Range. So
  has whoever goes on, without If-Range, with what does not exist: no stream begins for that.
- Of a stream that ended, but not as `done`, one byte more than there is is announced and never sent.
- If-None-Match gives 304 only once the stream is `done`.

A Range that is malformed, of another unit, of several ranges, or a suffix of unknown length, is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contract import Status
from .headers import Headers, Opening

UNKNOWN_LENGTH = 2**53 - 1
"""Bytes that a growing stream is said to have: the largest length that JavaScript holds exactly."""

APPLICATION_S = frozenset({"accept-ranges", "content-range", "etag", "last-modified"})
"""An application that sets one of these headers sees to ranges and conditions itself, or has none."""

_RANGE = re.compile(r"bytes=[ \t,]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t,]*", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_HUGE = 10**18  # fits into 64 bits; whatever exceeds it is as far beyond every end


@dataclass(frozen=True)
class Part:
    """What a request gets of a stream: `status` is 200, 206, 304, 409 or 416."""

    status: int
    first: int = 0
    """Where the body begins, in bytes after the cursor asked for."""
    stop: int | None = None
    """Where it ends; None: where the stream does."""
    length: int | None = None
    """Content-Length, where it is known."""
    content_range: str | None = None


def entity_tag(opening: Opening) -> str:
    """The strong entity tag of the stream from `opening.start` on."""
    return f'"{opening.start}"'


def whole_length(opening: Opening) -> int | None:
    """The length to announce for all of it: None while it grows, one byte too many if it did not end as `done`."""
    stored = opening.size - opening.start.offset
    return stored + (opening.status is not Status.DONE) if opening.status.ended else None


def select(environ: Mapping[str, Any], opening: Opening) -> Part:
    """The part of the stream from `opening.start` on that the request is to get. Pure."""
    tag = entity_tag(opening)
    if opening.status is Status.DONE and _names(environ.get("HTTP_IF_NONE_MATCH", ""), tag):
        return Part(304)
    whole = Part(200, length=whole_length(opening))
    condition = environ.get("HTTP_IF_RANGE")
    if environ.get("REQUEST_METHOD", "GET") != "GET" or (condition is not None and condition.strip() != tag):
        return whole
    asked = _RANGE.fullmatch(environ.get("HTTP_RANGE", "").strip())
    if asked is None:
        return whole
    stored = opening.size - opening.start.offset
    if opening.status is Status.DONE:
        return _of_done(asked, stored) or whole
    part = _of_unfinished(asked, stored, ended=opening.status.ended) or whole
    return whole if part.status == 409 and condition is not None else part


def goes_on(environ: Mapping[str, Any]) -> bool:
    """Whether the request comes from somebody who has the beginning already, and has not said of which life.

    To begin the stream for it would splice two lives. With If-Range it gets all of the new one."""
    asked = _RANGE.fullmatch(environ.get("HTTP_RANGE", "").strip())
    return asked is not None and "HTTP_IF_RANGE" not in environ and _number(asked[1] or "0") > 0


def part_headers(part: Part, opening: Opening) -> Headers:
    """What such a response says beside its content; `opening` is the one that `part` was selected from."""
    headers = [("Accept-Ranges", "bytes"), ("ETag", entity_tag(opening))]
    if part.content_range is not None:
        headers.append(("Content-Range", part.content_range))
    return headers


def _names(condition: str, tag: str) -> bool:
    """Whether an If-None-Match holds the tag, weak or not."""
    return condition.strip() == "*" or tag in _TAG.findall(condition)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 18 else _HUGE  # Python refuses to read thousands of digits


def _of_done(asked: re.Match[str], size: int) -> Part | None:
    first_digits, last_digits, suffix_digits = asked.groups()
    last = size - 1
    if suffix_digits is not None:
        suffix = _number(suffix_digits)
        first = max(0, size - suffix) if suffix else size
    else:
        first = _number(first_digits)
        if last_digits:
            last = min(last, _number(last_digits))
            if _number(last_digits) < first:
                return None
    if size == 0 and first == 0 and suffix_digits is None:
        return None  # nothing is all there is
    if first >= size:
        return Part(416, content_range=f"bytes */{size}")
    return Part(206, first, last + 1, last + 1 - first, f"bytes {first}-{last}/{size}")


def _of_unfinished(asked: re.Match[str], stored: int, *, ended: bool) -> Part | None:
    first_digits, last_digits, suffix_digits = asked.groups()
    if suffix_digits is not None:
        return None
    first = _number(first_digits)
    last = _number(last_digits) if last_digits else None
    if last is not None and last < first:
        return None
    if first > stored:
        return Part(409)
    if last is not None and last < stored:
        return Part(206, first, last + 1, last + 1 - first, f"bytes {first}-{last}/*")
    if ended:
        return Part(206, first, None, stored + 1 - first, f"bytes {first}-{stored}/{stored + 1}")
    if last is not None:  # as RFC 8673 has it
        return Part(206, first, last + 1, None, f"bytes {first}-{last}/*")
    if first == 0:
        return None
    return Part(206, first, None, None, f"bytes {first}-{UNKNOWN_LENGTH - 1}/{UNKNOWN_LENGTH}")
