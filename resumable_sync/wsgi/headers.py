"""Response headers: what the library sets, and what it lets the application set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..contract import Position, Status

STREAM_ID_HEADER = "x-resumable-stream-id"
CURSOR_HEADER = "x-resumable-cursor"
"""The cursor in front of the first byte of the body (for HEAD: of the body that GET would get)."""
STATUS_HEADER = "x-resumable-status"
"""The stream's status when the response began."""
SIZE_HEADER = "x-resumable-size"
"""Bytes of the stream that were stored when the response began."""
REPLAY_HEADER = "x-resumable-replay-length"
"""How many bytes of the stream, from the cursor on, were stored when the response began: the replay."""

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]] | None
Headers = list[tuple[str, str]]

CONTENT_TYPE_KEY = "content-type"
"""Where the stream's metadata keeps the content type, for whoever resumes it."""
EVENT_STREAM = "text/event-stream; charset=utf-8"
"""The type of server-sent events; some clients decode Latin-1 where it does not say how."""
_ANY_CONTENT = "application/octet-stream"

_OWN = frozenset({STREAM_ID_HEADER, CURSOR_HEADER, STATUS_HEADER, SIZE_HEADER, REPLAY_HEADER})
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # no line break, no control character, Latin-1

_STREAMING = {
    "content-type": ("Content-Type", _ANY_CONTENT),
    "cache-control": ("Cache-Control", "no-store, no-transform"),
    "x-accel-buffering": ("X-Accel-Buffering", "no"),  # nginx holds everything back otherwise
    "content-encoding": ("Content-Encoding", "identity"),  # so does compression, such as Django's GZip
}


class Opening(NamedTuple):
    """Where a stream stood when a response began, and where the body begins."""

    stream_id: str
    status: Status = Status.MISSING
    size: int = 0
    start: Position = Position(0, 0)
    """Means nothing for a stream that is missing."""
    metadata: Mapping[str, str] = {}
    """What was kept with the stream; empty where the endpoint does not need it."""


def checked_headers(headers: HeaderInput) -> Headers:
    """The application's headers as a list, without those that only the library sets.

    ValueError for a hop-by-hop header (PEP 3333 leaves those to the server), Content-Length (the library knows
    it or nobody does), a name that is no token, a value with a line break, control or non-Latin-1 character.
    """
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    checked = []
    for name, value in pairs:
        lower = name.lower()
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ValueError(f"not a header: {name!r}: {value!r}")
        if lower in _HOP_BY_HOP or lower == "content-length":
            raise ValueError(f"the header {name} is the server's to set, not the application's")
        if lower not in _OWN:
            checked.append((name, value))
    return checked


def kept_content_type(metadata: Mapping[str, str]) -> str:
    """The content type that was kept with the stream, a harmless one where no header can hold it."""
    kept = metadata.get(CONTENT_TYPE_KEY, _ANY_CONTENT)
    return kept if _VALUE.fullmatch(kept) is not None else _ANY_CONTENT


def streaming_headers(own: Headers) -> Headers:
    """`own`, completed by what a streamed body needs to pass proxies unchanged and unbuffered."""
    names = {name.lower() for name, _ in own}
    return [pair for lower, pair in _STREAMING.items() if lower not in names] + own


def error_headers(own: Headers, length: int) -> Headers:
    """`own` (cross-origin headers, say) without what describes the body that is not sent, for a JSON error."""
    kept = [(name, value) for name, value in own if not name.lower().startswith(("content-", "cache-"))]
    return [
        ("Content-Type", "application/json"),
        ("Content-Length", str(length)),
        ("Cache-Control", "no-store"),
    ] + kept


def unchanged_headers(own: Headers) -> Headers:
    """`own` without what describes a body, for 304."""
    kept = [(name, value) for name, value in own if not name.lower().startswith("content-")]
    names = {name.lower() for name, _ in kept}
    return kept if "cache-control" in names else [_STREAMING["cache-control"], *kept]


def position_headers(opening: Opening) -> Headers:
    """Where the stream stands and where this body begins."""
    headers = [(STREAM_ID_HEADER, opening.stream_id), (STATUS_HEADER, str(opening.status))]
    if opening.status is not Status.MISSING:
        headers += [
            (CURSOR_HEADER, str(opening.start)),
            (SIZE_HEADER, str(opening.size)),
            (REPLAY_HEADER, str(opening.size - opening.start.offset)),
        ]
    return headers
