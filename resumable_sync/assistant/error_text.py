"""What clients are told of an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("resumable_sync")

ErrorFormatter = Callable[[BaseException], str]

DEFAULT_ERROR_TEXT = "An error occurred."
"""What a client is told of an exception unless the application says otherwise."""


def error_text(error: BaseException, format_error: ErrorFormatter | None) -> str:
    """What clients are told of `error`. Never raises."""
    if format_error is None:
        return DEFAULT_ERROR_TEXT
    try:
        return str(format_error(error))
    except Exception:
        logger.error("format_error failed", exc_info=True)
        return DEFAULT_ERROR_TEXT
