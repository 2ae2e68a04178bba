"""Exit codes, and the one line on stderr that explains those other than 0."""

from __future__ import annotations

import enum
import os
import shutil
import sys

from ..errors import ResumableStreamError

PROGRAM = "resumable-sync"

SIGNALLED = 128
"""Added to the number of the signal that ended the program, as shells do: 130 is Ctrl-C, 143 SIGTERM."""

OUTPUT_CLOSED = SIGNALLED + 13
"""The reader of our output went away (what a shell shows for SIGPIPE)."""


class Exit(enum.IntEnum):
    """What the exit code means. Stable: scripts may rely on the numbers."""

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
   0  done                            6  lost: deleted, expired or replaced
   1  any other failure               7  no such stream
   2  wrong usage, id or cursor       8  the id is taken
   3  the stream ended as error       9  store unavailable: locked, full, damaged
   4  ... as interrupted             10  a limit of the store is reached
   5  ... as cancelled            128+n  stopped by signal n: 130 by Ctrl-C,
                                         143 by SIGTERM; 141 if output is closed
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
    """A command cannot go on. Holds the line to print, and the exit code."""

    def __init__(self, message: str, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def check_command(name: str) -> None:
    """CommandError for a command that a shell would not run, with the shell's code: 127 if there is none, 126 if
    what is there cannot be executed."""
    if shutil.which(name) is not None:
        return
    if os.sep in name and os.path.isdir(name):
        raise CommandError(f"cannot run {name}: it is a directory", 126)
    if shutil.which(name, os.F_OK) is not None:
        raise CommandError(f"cannot run {name}: it is not executable", 126)
    raise CommandError(f"command not found: {name}", 127)


def exit_code(error: BaseException) -> int:
    """The exit code for `error`."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, ResumableStreamError):
        return _BY_ERROR_CODE.get(error.code, Exit.FAILED)
    return Exit.FAILED


def say(message: str) -> None:
    """Print one line on stderr."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)


def id_argument(stream_id: str) -> str:
    """The arguments that name a stream on a command line, to be put last."""
    return f"-- {stream_id}" if stream_id.startswith("-") else stream_id
