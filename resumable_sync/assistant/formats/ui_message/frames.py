"""The frames of the AI SDK: how one is written, and how they lie in steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...message.jsontext import wire_json

# What can come in a step without the client's copy of the message being written.
_UNSEEN = ("start-step", "finish-step", "reset-step", "error", "abort", "finish", "start", "message-metadata")


def frame_bytes(frame: Mapping[str, Any]) -> bytes:
    """One event. JSON holds no line break, so one line of data is enough."""
    return f"data: {wire_json(frame)}\n\n".encode()


def present(**fields: object) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


class Steps:
    """Where a stream is in its steps, told by the frames that were written. One thread at a time.

    Clients that send by themselves (`lastAssistantMessageIsCompleteWithToolCalls`) look at what follows the
    last start of a step: if all calls there have an output, they ask again. So a message must not end there.
    """

    def __init__(self) -> None:
        self.open = False
        """Whether a step has begun and not finished."""
        self.begun = False
        """Whether there was any step."""
        self._said = False  # whether anything in the step has reached the client
        self._calls: dict[str, bool] = {}  # the calls of the step, and whether they have an output

    def say(self) -> None:
        """Take note of a frame of text."""
        self._said = True

    def see(self, frame: Mapping[str, Any]) -> None:
        """Take note of a frame."""
        kind = frame["type"]
        if kind == "start-step":
            self.open = self.begun = True
            self._said = False
            self._calls = {}
        elif kind == "finish-step":
            self.open = False
        elif kind == "reset-step":
            self._calls = {}
        elif kind.startswith("tool-"):
            self._said = True
            self._see_call(kind, frame)
        elif kind not in _UNSEEN and not frame.get("transient"):
            self._said = True

    def _see_call(self, kind: str, frame: Mapping[str, Any]) -> None:
        call_id = str(frame.get("toolCallId"))
        if kind.startswith("tool-input-"):
            if not frame.get("providerExecuted") and kind != "tool-input-delta":
                self._calls[call_id] = kind == "tool-input-error"
        elif call_id in self._calls and kind in (
            "tool-output-available",
            "tool-output-error",
            "tool-output-denied",
        ):
            self._calls[call_id] = not frame.get("preliminary")

    @property
    def answered(self) -> bool:
        """Whether the step holds calls, and all of them have their output."""
        return bool(self._calls) and all(self._calls.values())

    @property
    def asks_again(self) -> bool:
        """Whether a client would send by itself if the message ended here.

        Also where nothing was said yet: the step before may be one whose calls the client has answered.
        """
        return self.answered or not (self.begun and self._said)
