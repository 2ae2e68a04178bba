"""Exit codes, and the one line on stderr that goes with those that are not 0."""

from __future__ import annotations

import enum
import sys

from ..errors import ResumableStreamError

PROGRAM = "resumable-sync"

SIGNALLED = 128
"""Added to the number of the signal that ended the program, as shells do: 130 is Ctrl-C, 143 SIGTERM."""

OUTPUT_CLOSED = SIGNALLED + 13
"""The reader of our output went away (what a shell shows for SIGPIPE)."""


class Exit(enum.IntEnum):
    """What the exit code says. Stable: scripts may rely on the numbers."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    ERROR = 3
    INTERRUPTED = 4
    CANCELLED = 5
    LOST = 6
    MISSING = 7
    TAKEN = 8
    UNAVAILABLE = 9
    LIMIT = 10


EXIT_HELP = """\
exit codes:
   0  done                         6  lost: deleted, expired or replaced meanwhile
   1  failed otherwise             7  no such stream
   2  wrong usage, id or cursor    8  the id is taken
   3  the stream ended as error    9  the store is unavailable: locked, full, damaged
   4    … as interrupted          10  a limit of the store was reached
   5    … as cancelled        128+n  stopped by signal n: 130 Ctrl-C, 141 output closed, 143 SIGTERM
"""

_BY_ERROR_CODE = {
    "missing": Exit.MISSING,
    "lost": Exit.LOST,
    "superseded": Exit.LOST,
    "finalized": Exit.LOST,
    "error": Exit.ERROR,
    "interrupted": Exit.INTERRUPTED,
    "cancelled": Exit.CANCELLED,
    "invalid-id": Exit.USAGE,
    "invalid-cursor": Exit.USAGE,
    "limit": Exit.LIMIT,
    "unavailable": Exit.UNAVAILABLE,
}


class CommandError(Exception):
    """A command cannot go on: the line to print, and the exit code."""

    def __init__(self, message: str, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: BaseException) -> int:
    """The exit code that tells of `error`."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, ResumableStreamError):
        return _BY_ERROR_CODE.get(error.code, Exit.FAILED)
    return Exit.FAILED


def say(message: str) -> None:
    """Print one line on stderr; to nobody if stderr is gone."""
    line = " ".join(message.split())
    try:
        print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)
    except OSError:
        pass  # there is no better place to report to
