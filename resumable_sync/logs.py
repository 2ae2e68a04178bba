"""Structured log records: what a record of the logger `resumable_sync` says besides its text.

Each record that concerns a stream has three attributes, which formatters find as they find those of any `extra`:

    stream_id    the stream; "" where the record concerns several
    generation   its life, as in its cursors; None where it is not known
    code         what happened: a key of CODES, stable from one edition to the next
"""

from __future__ import annotations

from typing import TypedDict

__all__ = ["CODES"]

CODES = {
    "source-failed": "the source raised, or hung for its idle timeout; the stream ends as error",
    "source-close-failed": "the source's close() raised after the ending was decided",
    "producer-failed": "the producer broke off without a fault of the source; the stream ends as interrupted",
    "not-ended": "the ending could not be stored: viewers see the loss, or the lease runs out",
    "released": "the stream was released for another producer to go on",
    "recovered": "this process goes on with a stream that had lost its producer",
    "recovery-failed": "this process cannot go on with a stream that has lost its producer",
    "recovery-delayed": "the store did not answer; recovery asks about the stream again",
    "hook-failed": "a hook or callback of the application raised",
    "store-fault": "the store raised what a store must not; its streams are tried again or end",
    "damaged": "a listing passed over a stream that cannot be read",
    "sweep-failed": "the sweep passed over a stream",
    "not-served": "a request was answered with 500 or above before anything was sent",
    "viewer-left": "a viewer has left, or its response has lasted its time",
    "response-cut": "a response stopped short of the ending done",
    "not-text": "a stream that is sent as text is not UTF-8",
    "viewer-failed": "following the stream failed; its viewer was told error",
    "format-error-failed": "the application's format_error raised",
    "not-noted": "how a chat's message ended could not be noted with it",
    "follow-up-failed": "what follows the end of a chat's stream failed, such as on_finish",
    "unreadable": "the stored message breaks off at what no client reads",
    "unhealthy": "a health check failed",
}
"""Every code, and what it says."""


class Extra(TypedDict):
    """The `extra` of a log call."""

    stream_id: str
    generation: int | None
    code: str


def about(code: str, stream_id: str = "", generation: int | None = None) -> Extra:
    """The `extra` of a log call that concerns a stream. Pure; thread-safe."""
    return {"stream_id": stream_id, "generation": generation, "code": code}
