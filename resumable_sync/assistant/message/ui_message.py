"""From the AI SDK's frames to its UIMessage: what `useChat` shows, and what an application saves for it.

The rules are those of the AI SDK 7's reader, with the parts that 5 and 6 build where all three know the frame.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from ...errors import MalformedStreamError
from .jsontext import join_surrogates, parse_json
from .partial_json import PartialJson
from .parts import UNSET

_DECODER = json.JSONDecoder()
_UNSAFE_KEYS = ("__proto__", "constructor", "prototype")  # JavaScript merges objects without them

_ANSWERED = ("output-available", "output-error", "output-denied")
_STATES: Mapping[str, tuple[str, ...]] = {
    "output": ("output-available",),
    "preliminary": ("output-available",),
    "errorText": ("output-error",),
    "approval": ("approval-requested", "approval-responded", *_ANSWERED),
}
"""The states of a tool call in which the AI SDK's schema takes a field. Others are taken in all."""


class UIMessageAccumulator:
    """Builds the UIMessage `{id, role, parts, metadata}` that `readUIMessageStream` builds, a frame at a time.

    `message` continues an earlier message of the assistant, as in a second response that answers its tool
    calls; it is copied, and one of another role is not continued. A `start` with another id begins anew.
    `metadata` is absent until a frame brings some. One thread at a time; nothing blocks.
    """

    def __init__(self, message: Mapping[str, Any] | None = None) -> None:
        self.error: str | None = None
        """The text of the last `error` frame, which `useChat` shows; None if there was none."""
        self.aborted = False
        """Whether an `abort` frame came."""
        self.finish_reason: str | None = None
        """What the `finish` frame said."""
        self._begin(copy.deepcopy(dict(message)) if message and message.get("role") == "assistant" else None)

    def _begin(self, message: dict[str, Any] | None, message_id: str = "") -> None:
        if message is None:
            message = {"id": message_id, "role": "assistant", "parts": []}
        self._message = message
        self._parts: list[dict[str, Any]] = message["parts"]
        self._texts: dict[tuple[str, str], _Text] = {}
        self._inputs: dict[str, _Input] = {}
        self._step = 0
        for part in self._current_step():
            if _is_tool(part) and part.get("state") == "input-streaming":
                name = part["toolName"] if part["type"] == "dynamic-tool" else part["type"][len("tool-") :]
                self._inputs[part["toolCallId"]] = streaming = _Input(part, name, part, self._step)
                streaming.pieces = [part.get("rawInput") or ""]

    @property
    def message(self) -> dict[str, Any]:
        """The message so far. The next frame may change it: copy what is to stay.

        Costs time in proportion to the texts that grew since it was asked for, and to streaming tool input.
        """
        for text in self._texts.values():
            text.catch_up()
        for streaming in self._inputs.values():
            streaming.catch_up()
        return self._message

    @property
    def saved(self) -> dict[str, Any]:
        """The message so far as `validateUIMessages` accepts it; it shares the parts that need no change.

        That differs from `message` in tool calls. One that was answered without arguments that are JSON has their
        text as its `input`, as AI SDK 7 has it of a broken call, and `{}` where there is none. What belongs to
        another state is left out: an `output` before a question, or an `approval` that an answered call was not
        given. A denied call has one that was refused.
        """
        message = self.message
        return {**message, "parts": [self._saved(part) if _is_tool(part) else part for part in self._parts]}

    def _saved(self, part: dict[str, Any]) -> dict[str, Any]:
        state = part.get("state")
        kept = {name: value for name, value in part.items() if state in _STATES.get(name, (state,))}
        if "input" not in kept and state not in ("input-streaming", "output-error"):
            streamed = self._inputs.get(part.get("toolCallId", ""))
            text = "".join(streamed.pieces) if streamed is not None and streamed.part is part else ""
            kept["input"] = text or {}
        given = kept.get("approval")
        approval = given if isinstance(given, Mapping) else {}
        if state == "output-denied":
            kept["approval"] = {"id": part.get("toolCallId"), **approval, "approved": False}
        elif state in _ANSWERED and approval.get("approved") is not True:
            kept.pop("approval", None)
        return kept

    def add(self, frame: Mapping[str, Any]) -> None:
        """Take the next frame.

        MalformedStreamError where the AI SDK's reader fails: for a frame that lacks what its type needs, and
        for one that addresses a block or a tool call that does not exist. The message stays as it was, and it
        is what `useChat` shows, which reads no further. Frames of unknown types are passed over.
        """
        kind = _text(frame, "type")
        if kind.startswith("data-"):
            self._data(kind, frame)
        elif kind.startswith(("text-", "reasoning-")) and kind != "reasoning-file":
            self._block(kind, frame)
        elif kind.startswith("tool-"):
            self._tool(kind, frame)
        elif kind in ("file", "reasoning-file"):
            self._add(frame, kind, required=("mediaType", "url"), optional=("providerMetadata",))
        elif kind == "source-url":
            self._add(frame, kind, required=("sourceId", "url"), optional=("title", "providerMetadata"))
        elif kind == "source-document":
            required, optional = ("sourceId", "mediaType", "title"), ("filename", "providerMetadata")
            self._add(frame, kind, required=required, optional=optional)
        elif kind == "custom":
            self._add(frame, kind, required=("kind",), optional=("providerMetadata",))
        elif kind == "steering-message":
            self._parts.append({"type": kind, "id": _text(frame, "id"), "parts": frame.get("parts")})
        elif kind == "start-step":
            self._parts.append({"type": "step-start"})
            self._step += 1
        elif kind == "reset-step":
            self._reset_step()
        elif kind in ("start", "message-metadata", "finish"):
            self._about_message(kind, frame)
        elif kind == "error":
            self.error = _text(frame, "errorText")
        elif kind == "abort":
            self.aborted = True

    def _about_message(self, kind: str, frame: Mapping[str, Any]) -> None:
        if kind == "start" and frame.get("messageId") is not None:
            message_id = _text(frame, "messageId")
            if message_id != self._message["id"]:
                self._begin(None, message_id)
        if kind == "finish" and frame.get("finishReason") is not None:
            self.finish_reason = frame["finishReason"]
        metadata = frame.get("messageMetadata")
        if metadata is not None:
            self._message["metadata"] = _merged(self._message.get("metadata"), metadata)

    def _add(
        self, frame: Mapping[str, Any], kind: str, *, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> None:
        fields = {name: _text(frame, name) for name in required}
        self._parts.append({"type": kind, **fields, **_present(frame, *optional)})

    def _data(self, kind: str, frame: Mapping[str, Any]) -> None:
        data = _needed(frame, "data")
        if frame.get("transient"):
            return
        if frame.get("id") is not None:
            for part in self._parts:
                if part["type"] == kind and part.get("id") == frame["id"]:
                    part["data"] = data
                    return
        self._parts.append(dict(frame))

    def _block(self, kind: str, frame: Mapping[str, Any]) -> None:
        """The start, growth or end of a text or a reasoning."""
        of, _, edge = kind.rpartition("-")
        block = _text(frame, "id")
        if edge == "start":
            name = {"id": block} if of == "reasoning" else {}
            part = {"type": of, **name, "text": "", **_present(frame, "providerMetadata"), "state": "streaming"}
            self._parts.append(part)
            self._texts.pop((of, block), _Text(part)).catch_up()
            self._texts[of, block] = _Text(part)
            return
        text = self._texts.get((of, block))
        if text is None:
            raise MalformedStreamError(f"a {kind} frame for no open block: {block!r:.80}")
        if edge == "delta":
            text.pieces.append(_text(frame, "delta"))
        elif edge == "end":
            del self._texts[of, block]
            text.catch_up()
            text.part["state"] = "done"
            text.part.update(_present(frame, "citations") if of == "text" else {})
        text.part.update(_present(frame, "providerMetadata"))

    def _current_step(self) -> list[dict[str, Any]]:
        at = len(self._parts)
        while at and self._parts[at - 1]["type"] != "step-start":
            at -= 1
        return self._parts[at:]

    def _reset_step(self) -> None:
        kept = len(self._parts) - len(self._current_step())
        del self._parts[kept:]
        self._texts.clear()
        self._inputs.clear()

    def _tool(self, kind: str, frame: Mapping[str, Any]) -> None:
        if kind == "tool-approval-response":
            self._approval_response(frame)
            return
        call_id = _text(frame, "toolCallId")
        streaming = self._inputs.get(call_id)
        if kind == "tool-input-delta":
            if streaming is None:
                raise MalformedStreamError(f"a {kind} frame for no streaming call: {call_id!r:.80}")
            delta = _text(frame, "inputTextDelta")
            if streaming.part["state"] != "input-streaming" or streaming.step != self._step:
                # The AI SDK's reader streams it anew: over what came meanwhile, or in the new step.
                streaming.catch_up()
                streaming.begins = streaming.dynamic and self._in_step(call_id, True) is None
                streaming.part, streaming.step = (
                    self._tool_part(call_id, streaming.name, streaming.dynamic),
                    self._step,
                )
                _update(streaming.part, {"state": "input-streaming"}, streaming.again)
            else:
                streaming.begins = False
            streaming.pieces.append(delta)
            streaming.grown = True
            return
        if streaming is not None:
            streaming.catch_up()
        if kind in ("tool-input-start", "tool-input-available", "tool-input-error"):
            self._tool_input(kind, frame, call_id)
        elif kind in ("tool-output-available", "tool-output-error"):
            self._tool_output(kind, frame, self._call(call_id))
        elif kind == "tool-approval-request":
            part, approval = self._call(call_id), _requested(frame)
            part["state"], part["approval"] = "approval-requested", approval
        elif kind == "tool-output-denied":
            self._call(call_id)["state"] = "output-denied"

    def _tool_input(self, kind: str, frame: Mapping[str, Any], call_id: str) -> None:
        name, dynamic = _text(frame, "toolName"), bool(frame.get("dynamic"))
        starts = kind == "tool-input-start"
        fields: dict[str, Any] = {"state": "input-streaming"}
        if not starts:
            fields = {"state": "input-available", "input": _needed(frame, "input")}
        if kind == "tool-input-error":
            fields = {**fields, "state": "output-error", "errorText": _text(frame, "errorText")}
            begun = self._in_step(call_id)  # it stays of the kind that it was begun as
            dynamic = begun["type"] == "dynamic-tool" if begun else dynamic
        part = self._tool_part(call_id, name, dynamic)
        # The reader of the AI SDK takes the title of a broken input from the call's beginning alone.
        _update(part, fields, frame, title=kind != "tool-input-error")
        if starts:
            self._inputs[call_id] = _Input(part, name, frame, self._step)

    def _in_step(self, call_id: str, dynamic: bool | None = None) -> dict[str, Any] | None:
        """The call of this id in the current step, one that is dynamic or not if that is asked."""
        for part in self._current_step():
            if _is_tool(part) and part.get("toolCallId") == call_id:
                if dynamic is None or (part["type"] == "dynamic-tool") == dynamic:
                    return part
        return None

    def _tool_part(self, call_id: str, name: str, dynamic: bool) -> dict[str, Any]:
        """The part of a call in the current step, a new one if there is none."""
        part = self._in_step(call_id, dynamic)
        if part is None:
            part = {"type": "dynamic-tool" if dynamic else f"tool-{name}", "toolCallId": call_id}
            self._parts.append(part)
        part.update({"toolName": name} if dynamic else {"type": f"tool-{name}"})
        return part

    def _tool_output(self, kind: str, frame: Mapping[str, Any], part: dict[str, Any]) -> None:
        fields = {"input": part["input"]} if "input" in part else {}
        if kind == "tool-output-error":
            raw = _present(part, "rawInput") if part["type"] != "dynamic-tool" else {}
            fields = {**fields, **raw, "state": "output-error", "errorText": _text(frame, "errorText")}
        else:
            fields = {**fields, "state": "output-available", "output": _needed(frame, "output")}
            fields.update(_present(frame, "preliminary"))
        _update(part, fields, frame, title=False)

    def _call(self, call_id: str) -> dict[str, Any]:
        """The newest call of this id, one of the current step if there is one."""
        found = self._in_step(call_id) or next(
            (part for part in reversed(self._parts) if _is_tool(part) and part.get("toolCallId") == call_id), None
        )
        if found is not None:
            return found
        raise MalformedStreamError(f"there is no tool call {call_id!r:.80}")

    def _approval_response(self, frame: Mapping[str, Any]) -> None:
        approval_id, approved = _text(frame, "approvalId"), frame.get("approved")
        if not isinstance(approved, bool):
            raise MalformedStreamError("a tool-approval-response frame that does not say whether")
        for part in self._parts:
            approval = part.get("approval")
            if _is_tool(part) and isinstance(approval, Mapping) and approval.get("id") == approval_id:
                break
        else:
            raise MalformedStreamError(f"there is no approval {approval_id!r:.80}")
        streaming = self._inputs.get(part["toolCallId"])
        if streaming is not None:
            streaming.catch_up()
        part["state"] = "approval-responded"
        part["approval"] = {**approval, "approved": approved, **_present(frame, "reason")}
        part.update(_present(frame, "providerExecuted"))
        if frame.get("providerMetadata") is not None:
            part["callProviderMetadata"] = frame["providerMetadata"]


class _Text:
    """A block that grows, and what came for it since its part was last written."""

    def __init__(self, part: dict[str, Any]) -> None:
        self.part = part
        self.pieces: list[str] = []

    def catch_up(self) -> None:
        if self.pieces:
            self.part["text"] = join_surrogates("".join((self.part["text"], *self.pieces)))
            self.pieces.clear()


class _Input:
    """The input of a call while it is streamed. Read when somebody asks, not with each piece."""

    def __init__(self, part: dict[str, Any], name: str, begun: Mapping[str, Any], step: int) -> None:
        self.part = part
        self.name = name
        self.step = step
        self.dynamic = part["type"] == "dynamic-tool"
        self.encoding = begun.get("inputEncoding")
        self.again = _present(begun, "title", "toolMetadata", "inputEncoding")
        """What of the call's beginning counts once more where it is streamed anew."""
        self.pieces: list[str] = []
        self.grown = False
        self.begins = False
        """Whether the newest piece has begun a dynamic call anew: the AI SDK's reader then keeps no raw text."""

    def catch_up(self) -> None:
        if self.grown:
            self.grown = False
            text = join_surrogates("".join(self.pieces))
            self.pieces = [text]
            if not self.begins:
                self.part["rawInput"] = text
            value = text if self.encoding == "text" else _partial_value(text)
            self.part.pop("input", None)
            if value is not UNSET:
                self.part["input"] = value


def _partial_value(text: str) -> Any:
    """What a JSON text says so far, UNSET where nothing can be read of it."""
    try:
        return parse_json(text)
    except ValueError:
        pass
    parser = PartialJson()
    bare = text.lstrip(" \t\r\n")
    if bare[:1] in ("{", "["):
        unread: list[Any] = []
        parser.value = unread
        value = parser.feed(text)
        return UNSET if value is unread else value
    if bare[:1] in tuple('"-0123456789'):  # a value that is whole counts, whatever follows it
        try:
            return _DECODER.raw_decode(bare)[0]
        except ValueError:
            pass
    value = parser.feed("[" + text)  # it reads objects and arrays alone
    return value[0] if isinstance(value, list) and value else UNSET


def _is_tool(part: Mapping[str, Any]) -> bool:
    kind: str = part["type"]
    return kind == "dynamic-tool" or kind.startswith("tool-")


def _update(
    part: dict[str, Any],
    fields: Mapping[str, Any],
    frame: Mapping[str, Any],
    *,
    title: bool = True,
) -> None:
    """Bring a call into a state: what belongs to another one goes, what belongs to the call stays."""
    for name in ("input", "output", "errorText", "rawInput", "preliminary", "inputEncoding"):
        part.pop(name, None)
    part.update(fields)
    if part["state"] == "input-streaming":
        part.update(_present(frame, "inputEncoding"))
    names = ("title", "toolMetadata", "providerExecuted") if title else ("toolMetadata", "providerExecuted")
    part.update(_present(frame, *names))
    metadata = frame.get("providerMetadata")
    if metadata is not None:
        answered = part["state"] in ("output-available", "output-error")
        part["resultProviderMetadata" if answered else "callProviderMetadata"] = metadata


def _requested(frame: Mapping[str, Any]) -> dict[str, Any]:
    approval: dict[str, Any] = {"id": _text(frame, "approvalId")}
    if frame.get("approvalDescriptor") is not None:
        approval["descriptor"] = frame["approvalDescriptor"]
    if "inputSchemaInput" in frame:
        approval["inputSchemaInput"] = frame["inputSchemaInput"]
    if frame.get("reason") is not None:
        approval["requestReason"] = frame["reason"]
    if frame.get("isAutomatic") is True:
        approval["isAutomatic"] = True
    return {**approval, **_present(frame, "signature")}


def _merged(base: Any, more: Any) -> Any:
    """Objects within objects are merged, everything else is replaced."""
    if not (isinstance(base, Mapping) and isinstance(more, Mapping)):
        return more
    kept = {key: value for key, value in more.items() if key not in _UNSAFE_KEYS}
    return {**base, **{key: _merged(base.get(key), value) for key, value in kept.items()}}


def _present(frame: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: frame[name] for name in names if frame.get(name) is not None}


def _needed(frame: Mapping[str, Any], name: str) -> Any:
    if name not in frame:
        raise MalformedStreamError(f"a {frame.get('type')} frame without {name!r}")
    return frame[name]


def _text(frame: Mapping[str, Any], name: str) -> str:
    value = frame.get(name)
    if not isinstance(value, str):
        raise MalformedStreamError(f"a {frame.get('type')!r:.80} frame without text in {name!r}: {value!r:.80}")
    return value
