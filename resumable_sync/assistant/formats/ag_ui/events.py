"""The events of a run: how one is written, and which of those that begin something have not ended it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ....errors import MalformedStreamError
from ....sse import EventParser, utf16_units
from ...message.jsontext import parse_json, wire_json

MAX_EVENT_UNITS = 10 * 1024 * 1024
"""UTF-16 code units that an event may have: HttpAgent reads no more."""

INVALID_ARGUMENTS = "invalidArguments"
"""In the metadata of a result: it is none, but keeps clients from running a call whose arguments are no JSON."""


def frame(data: str) -> bytes:
    """One event with this JSON. MalformedStreamError if it is longer than clients read."""
    encoded = f"data: {data}\n\n".encode()
    if len(encoded) > MAX_EVENT_UNITS and utf16_units(data) + 8 > MAX_EVENT_UNITS:
        raise MalformedStreamError("an event that is larger than AG-UI's clients read")
    return encoded


def event_bytes(event: Mapping[str, Any]) -> bytes:
    """One event. Raises as `frame`."""
    return frame(wire_json(event))


def present(**fields: object) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def run_error(message: str, **more: Any) -> dict[str, Any]:
    """The event that ends a run which failed."""
    return {"type": "RUN_ERROR", "message": message, **more}


class Opened:
    """What of a run is open, told by its events. One thread at a time."""

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self.ids: dict[str, str] = {}
        """The run's `threadId` and `runId`, once it has started."""
        self._messages: dict[str, None] = {}
        self._thoughts: dict[str, None] = {}
        self._spans: dict[str, None] = {}
        self._calls: dict[str, None] = {}
        self._steps: dict[str, None] = {}
        self._answered: set[str] = set()
        self._sets = {
            "TEXT_MESSAGE": (self._messages, "messageId"),
            "REASONING_MESSAGE": (self._thoughts, "messageId"),
            "REASONING": (self._spans, "messageId"),
            "TOOL_CALL": (self._calls, "toolCallId"),
            "STEP": (self._steps, "stepName"),
        }

    @property
    def cut(self) -> list[str]:
        """The calls whose arguments were never closed, and that nobody has answered."""
        return [call for call in self._calls if call not in self._answered]

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of an event."""
        kind = str(event.get("type"))
        of, _, edge = kind.rpartition("_")
        if kind == "RUN_STARTED":
            self.started = True
            self.ids = {name: str(event.get(name, "")) for name in ("threadId", "runId")}
        elif kind in ("RUN_FINISHED", "RUN_ERROR"):
            self.ended = True
        elif kind == "TOOL_CALL_RESULT":
            self._answered.add(str(event.get("toolCallId")))
        elif of in self._sets:
            entities, key = self._sets[of]
            if edge in ("START", "STARTED"):
                entities[str(event.get(key))] = None
            elif edge in ("END", "FINISHED"):
                entities.pop(str(event.get(key)), None)

    def ending(self, last: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """What ends the run with `last`. A call that was cut stays open: no client may run it."""
        events: list[Mapping[str, Any]] = []
        events += [{"type": "TEXT_MESSAGE_END", "messageId": name} for name in self._messages]
        events += [{"type": "REASONING_MESSAGE_END", "messageId": name} for name in self._thoughts]
        events += [{"type": "REASONING_END", "messageId": name} for name in self._spans]
        events += [{"type": "TOOL_CALL_END", "toolCallId": name} for name in self._calls if name in self._answered]
        events += [unfinished_step(name) for name in self._steps]
        return [*events, last]


def unfinished_step(name: str) -> dict[str, Any]:
    """The end of a step that nobody has finished."""
    return {"type": "STEP_FINISHED", "stepName": name, "metadata": {"unfinished": True}}


def opened_in(stored: Iterable[bytes]) -> tuple[Opened, bool]:
    """What is open after `stored`, and whether that ends within an event."""
    opened = Opened()
    parser = EventParser()
    for piece in stored:
        for event in parser.feed(piece):
            try:
                value = parse_json(event.data)
            except ValueError:
                continue
            if isinstance(value, Mapping):
                opened.see(value)
            if opened.ended:
                return opened, False
    return opened, parser.pending
