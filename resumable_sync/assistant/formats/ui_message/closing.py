"""How a stream of frames ends whose producer did not end it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ....sse import EventParser, format_event
from ...message.jsontext import parse_json
from ..base import DONE
from .frames import Steps, frame_bytes, present


class Stored:
    """What of a stream is open, told by all its bytes."""

    def __init__(self, stored: Iterable[bytes]) -> None:
        self.done = False
        """Whether the stream has its last event."""
        self.cut = False
        """Whether the bytes end within an event."""
        self.seen: set[str] = set()
        self.message_id: str | None = None
        self.steps = Steps()
        self._blocks: dict[tuple[str, str], None] = {}
        parser = EventParser()
        for piece in stored:
            for event in parser.feed(piece):
                if event.data == DONE:
                    self.done = True
                    return
                self._see(_parsed(event.data))
        self.cut = parser.pending

    def _see(self, frame: Mapping[str, Any]) -> None:
        kind = str(frame.get("type"))
        self.seen.add(kind)
        self.steps.see({**frame, "type": kind})
        of, _, edge = kind.rpartition("-")
        if of in ("text", "reasoning") and edge == "start":
            self._blocks[of, str(frame.get("id"))] = None
        elif of in ("text", "reasoning") and edge == "end":
            self._blocks.pop((of, str(frame.get("id"))), None)
        elif kind in ("finish-step", "reset-step"):  # AI SDK 5 and 6 know no block after it
            self._blocks.clear()
        elif kind == "start" and isinstance(frame.get("messageId"), str):
            self.message_id = frame["messageId"]

    def closing_frames(self, status: str, text: str, message_id: str | None) -> bytes:
        """The frames that end the message. `message_id` is for a stream that has not told its own."""
        start = {"type": "start", **present(messageId=self.message_id or message_id)}
        frames: list[Mapping[str, Any]] = [] if "start" in self.seen else [start]
        frames += [{"type": f"{of}-end", "id": block} for of, block in self._blocks]
        finished = "finish" in self.seen
        stopped = "error" not in self.seen and (status == "cancelled" or "abort" in self.seen)
        if not finished and not stopped and "error" not in self.seen:
            frames.append({"type": "error", "errorText": text})
        if not finished and stopped and self.steps.asks_again:
            # The client reads on to the end, as of any answer, and must find no reason to ask again.
            frames += [{"type": "finish-step"}] if self.steps.open else []
            frames += [{"type": "start-step"}, *([start] if "messageId" in start else [])]
            self.steps.see({"type": "start-step"})
        if self.steps.open and not finished:
            frames.append({"type": "finish-step"})
        if stopped and not finished and "abort" not in self.seen:
            frames.append({"type": "abort"})
        if not finished:
            frames.append({"type": "finish", "finishReason": "other" if stopped else "error"})
        ended = b"\n\n" if self.cut else b""
        return ended + b"".join(map(frame_bytes, frames)) + format_event(DONE)


def _parsed(data: str) -> Mapping[str, Any]:
    """The object in an event's data, an empty one if there is none."""
    try:
        value = parse_json(data)
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}
