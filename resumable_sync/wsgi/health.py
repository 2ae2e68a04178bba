"""The answer to a load balancer that asks whether this process can serve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ..context import ResumableStreamContext
from .bodies import FormatError, formatted
from .headers import HeaderInput, checked_headers, error_headers
from .response import Answer, StreamResponse, status_line


def health_response(
    context: ResumableStreamContext,
    *,
    timeout: float = 5.0,
    headers: HeaderInput = None,
    format_error: FormatError | None = None,
    environ: Mapping[str, Any] | None = None,
) -> StreamResponse:
    """Answer whether this process can begin a stream, append to it, read it back and delete it; see
    `ResumableStreamContext.check_health`.

    200 with `{"status": "ok", "seconds"}`, or 503 with `{"status": "failing", "step", "error", "seconds"}`, where
    `error` is a code, and `message` too if `format_error(exception) -> str` makes one: what errors say may name
    files and hosts. Blocks for `timeout` seconds at most, although the store may hang: keep that below the timeout
    of whoever asks. A worker that is closed or draining answers 503. HEAD checks as GET does. Requests that come
    together share a check; even so, whoever may ask makes the store work. ValueError at once for a bad timeout or
    bad headers.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    own = checked_headers(headers)

    def prepare(_: dict[str, Any]) -> Answer:
        health = context.check_health(timeout)
        answer: dict[str, object] = {"status": "ok" if health.ok else "failing"}
        if not health.ok:
            answer.update(step=health.step, error=health.code)
            if format_error is not None and health.error is not None:
                message = formatted(health.error, format_error)
                if message is not None:  # else whoever asks learns what is wrong with the store all the same
                    answer["message"] = message
        answer["seconds"] = round(health.seconds, 6)
        body = json.dumps(answer).encode()
        return Answer(status_line(200 if health.ok else 503), error_headers(own, len(body)), [body])

    return StreamResponse(prepare, environ)
