"""Answers as values, and refusals as exceptions that carry one. Texts are fixed, and say nothing of the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

from ..wsgi.headers import Headers

NEXT_OFFSET = "Stream-Next-Offset"
UP_TO_DATE = "Stream-Up-To-Date"
CLOSED = "Stream-Closed"
ENDING = "Stream-Ending"
"""How a stream ended that did not end as `done`: error, cancelled or interrupted. The library's own."""
CURSOR = "Stream-Cursor"
TTL = "Stream-TTL"
EXPIRES_AT = "Stream-Expires-At"
SSE_ENCODING = "Stream-SSE-Data-Encoding"
EPOCH = "Producer-Epoch"
SEQ = "Producer-Seq"
EXPECTED_SEQ = "Producer-Expected-Seq"
RECEIVED_SEQ = "Producer-Received-Seq"

RETRY_AFTER = 5
"""Seconds in `Retry-After`."""

EXPOSED = (
    NEXT_OFFSET,
    UP_TO_DATE,
    CLOSED,
    ENDING,
    CURSOR,
    TTL,
    EXPIRES_AT,
    SSE_ENCODING,
    EPOCH,
    SEQ,
    EXPECTED_SEQ,
    RECEIVED_SEQ,
    "ETag",
    "Location",
    "Retry-After",
)
"""Response headers that a page of another origin must be able to read."""

ALLOWED = ", ".join(
    (
        "Content-Type",
        "Authorization",
        "If-None-Match",
        "Stream-Seq",
        "Stream-TTL",
        "Stream-Expires-At",
        "Stream-Closed",
        "Stream-Forked-From",
        "Stream-Fork-Offset",
        "Stream-Fork-Sub-Offset",
        "Producer-Id",
        "Producer-Epoch",
        "Producer-Seq",
    )
)
"""Request headers that it may send."""


@dataclass
class Answer:
    """What is sent for one request."""

    status: int
    headers: Headers = field(default_factory=list)
    body: Iterable[bytes] = ()

    @property
    def line(self) -> str:
        """The status line, such as `200 OK`."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


class Refusal(Exception):
    """A request that is answered with `status` and JSON `{"error": reason}`."""

    def __init__(
        self, status: int, reason: str, headers: Headers | None = None, retry_after: int = RETRY_AFTER
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or []
        self.retry_after = retry_after

    @property
    def answer(self) -> Answer:
        """It as an answer."""
        body = json.dumps({"error": str(self)}, separators=(",", ":")).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if self.status == 503:
            headers.append(("Retry-After", str(self.retry_after)))
        return Answer(self.status, [*headers, ("Cache-Control", "no-store"), *self.headers], [body])


def missing() -> Refusal:
    """There is no such stream."""
    return Refusal(404, "stream not found")


def gone(ending: str = "") -> Refusal:
    """The stream is deleted, or its `ending` is not one that completes it, and nothing of it is left to read."""
    if not ending:
        return Refusal(410, "stream is gone")
    return Refusal(410, "stream ended incomplete", [(ENDING, ending)])
