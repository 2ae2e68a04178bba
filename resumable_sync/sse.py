"""Server-sent events: framing and an incremental parser.

Format: WHATWG HTML Living Standard, section 9.2 "Server-sent events". A leaf: it knows nothing of streams.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_BREAK_IN_FIELD = re.compile(r"[\r\n\0]")


class Event(NamedTuple):
    """One dispatched event. `event` is "message" unless named; `id` is the last id seen, "" if none."""

    data: str
    event: str = "message"
    id: str = ""


def format_event(
    data: str, *, event: str | None = None, event_id: str | None = None, retry: float | None = None
) -> bytes:
    """Frame one event as UTF-8. `retry` is the client's reconnection delay in seconds.

    Line breaks in `data` (CR LF, CR or LF alike) become several `data:` lines, which a client joins with LF.
    ValueError if `event` or `event_id` contain a line break or NUL. Pure; thread-safe.
    """
    lines = []
    if retry is not None:
        lines.append(f"retry: {round(retry * 1000)}")
    for name, value in (("id", event_id), ("event", event)):
        if value is not None:
            if _LINE_BREAK_IN_FIELD.search(value):
                raise ValueError(f"the {name} field of an event cannot hold a line break or NUL: {value!r}")
            lines.append(f"{name}: {value}")
    lines.extend(f"data: {line}" for line in _LINE_END.split(data))
    return ("\n".join(lines) + "\n\n").encode("utf-8")


HEARTBEAT = b": hb\n"
"""A comment line to send between events. No blank line follows: some Python clients would dispatch on it."""


def utf16_units(text: str) -> int:
    """The length of `text` as JavaScript counts it. Pure; thread-safe."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


class EventParser:
    """Incremental parser: feed it bytes cut anywhere, get events. One thread at a time.

    Input that is not UTF-8 is decoded with U+FFFD, as the standard says. An event that the input ends
    within is dropped, as the standard says: `pending` tells that there was one. With `max_units` a line, and the
    data of an event, may have so many UTF-16 code units, which is how JavaScript measures text: `feed` raises
    ValueError where there are more, and the parser is of no use afterwards.
    """

    def __init__(self, max_units: int | None = None) -> None:
        self._max_units = max_units
        self._line_units = 0  # of what is in the buffer; so the next one
        self._data_units = 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._buffer: list[str] = []  # text since the last line end
        self._after_cr = False
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self.last_event_id = ""  # of the last event that was complete: what a client reconnects with
        self.retry: float | None = None

    @property
    def pending(self) -> bool:
        """True when the input so far ends within an event."""
        return bool(self._data or self._event or any(self._buffer))

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes."""
        return list(self.each(piece))

    def each(self, piece: bytes) -> Iterator[Event]:
        """The events that `piece` completes, one by one; to be iterated to its end before more is fed.

        What stands before a line or an event of more than `max_units` comes before the ValueError.
        """
        text = self._decoder.decode(piece)
        if self._after_cr and text:
            self._after_cr = False
            if text[0] == "\n":  # the second half of a CR LF that was cut in two
                text = text[1:]
        self._after_cr = self._after_cr or text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        for line in lines:
            self._buffer_more(line)
            whole, self._buffer, self._line_units = "".join(self._buffer), [], 0
            event = self._take_line(whole)
            if event is not None:
                yield event
        if rest:
            self._buffer_more(rest)

    def _buffer_more(self, text: str) -> None:
        self._buffer.append(text)
        if self._max_units is not None:
            self._line_units += utf16_units(text)
            self._check(self._line_units, "a line")

    def _check(self, units: int, what: str) -> None:
        if self._max_units is not None and units > self._max_units:
            raise ValueError(f"{what} of more than {self._max_units} UTF-16 code units")

    def _take_line(self, line: str) -> Event | None:
        if not line:
            data, self._data, self._data_units = self._data, [], 0
            name, self._event = self._event, ""
            self.last_event_id = self._id
            return Event("\n".join(data), name or "message", self.last_event_id) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            if self._max_units is not None:
                self._data_units += utf16_units(value) + (len(self._data) > 1)
                self._check(self._data_units, "an event")
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000
        return None


def parse_events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events in `pieces`, whose boundaries do not matter."""
    parser = EventParser()
    for piece in pieces:
        yield from parser.each(piece)
