"""How far a publication is, on one line of a terminal."""

from __future__ import annotations

import os
import time

from .exits import PROGRAM
from .terminal import terminal_columns, write_stderr


class Progress:
    """Bytes and rate on one line of the terminal at stderr, rewritten in place; nothing if stderr is no terminal.

    Each call is one write that begins with a fresh line, so threads may mix them.
    """

    def __init__(self, stream_id: str, quiet: bool) -> None:
        self._stream_id = stream_id
        self._shown = os.isatty(2) and not quiet
        self._began = time.monotonic()

    def show(self, size: int, ending: str = "") -> None:
        """Rewrite the line; with `ending` it stays."""
        if not self._shown:
            return
        seconds = max(time.monotonic() - self._began, 1e-3)
        figures = f": {human_bytes(size)}, {human_bytes(size / seconds)}/s"
        if ending:
            figures += f" {ending} in {seconds:.1f} s"
        # A line that wraps could not be rewritten in place.
        room = max(terminal_columns() - len(figures) - 1, 4)
        name = self._stream_id if len(self._stream_id) <= room else f"{self._stream_id[: room - 3]}..."
        write_stderr(f"\r\x1b[K{name}{figures}" + "\n" * bool(ending))

    def say(self, message: str) -> None:
        """Put a line of ours, of printable text, in its place; the next call shows it again below."""
        write_stderr("\r\x1b[K" * self._shown + f"{PROGRAM}: {message}\n")

    def clear(self) -> None:
        """Remove the line, for a message to take its place."""
        if self._shown:
            write_stderr("\r\x1b[K")


def human_bytes(size: float) -> str:
    """`size` with a decimal unit, for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
