"""Standard streams that are closed or broken, and text that a terminal must not take for commands."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO, cast


def printable(text: str) -> str:
    """`text` with escapes for what is not printable: a stored text must not control the reader's terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _ErrorStream(io.TextIOBase):
    """`sys.stderr` for all that writes there: messages, tracebacks, the log, warnings, argparse.

    What cannot be written is dropped, since there is no better place to report to. Nothing is buffered, so that
    nothing is left to fail at exit. Control characters are escaped, but for line feeds and tabs.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        write_stderr("".join(c if c in "\n\t" else printable(c) for c in text), self._encoding)
        return len(text)


def write_stderr(text: str, encoding: str = "utf-8") -> None:
    """Write to stderr as it is; drop what cannot be written."""
    rest = text.encode(encoding, "backslashreplace")
    with contextlib.suppress(OSError):
        while rest:
            rest = rest[os.write(2, rest) :]


def terminal_columns() -> int:
    """The width of the terminal at stderr; 80 if that is not known."""
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:  # there is none, or it has hung up
        return 80


def prepare_standard_streams() -> None:
    """Make the standard streams safe to use, whatever this program was started with.

    A closed descriptor would be the next number for the store's file, and output would be written into that. So
    /dev/null takes its place, opened the wrong way: reading or writing fails as it does with a closed one.
    """
    for descriptor, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number, which is this one
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:  # Python makes no stream of a closed descriptor
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # A TextIO in all that is used: it writes, flushes and is no terminal.
    sys.stderr = cast(TextIO, _ErrorStream(getattr(sys.stderr, "encoding", None) or "utf-8"))


def discard_stdout() -> None:
    """Let what cannot be written go nowhere, so that the interpreter does not stumble over it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
