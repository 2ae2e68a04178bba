"""Frames of the AI SDK as chunks: one decoding, event by event."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from ...message.chunks import AssistantStreamChunk, Result, UIFrame
from ...message.jsontext import parse_json, stringify
from ...message.parts import FilePart, ReasoningPart, SourcePart, TextPart, ToolCallPart
from ..base import Output, message_chunk, skip, text_of

_NO_USAGE = {"inputTokens": 0, "outputTokens": 0}
_DENIED = "Tool approval denied"
_KEPT = ("custom", "reasoning-file", "steering-message", "reset-step")  # for the UIMessage alone


class _Call:
    """A tool call. It becomes a part once its input is complete."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fields: dict[str, Any] = {}
        self.input: list[str] = []
        self.index: int | None = None
        self.outputs: list[Result] = []  # came before the input was complete
        self.answered = False
        self.approval: dict[str, Any] | None = None

    def note(self, frame: Mapping[str, Any]) -> None:
        """Keep what the frame says of the call besides its input."""
        for name, kind in _CALL_FIELDS.items():
            if isinstance(frame.get(name), kind):
                self.fields[name] = frame[name]


_CALL_FIELDS: Mapping[str, type] = {
    "providerExecuted": bool,
    "dynamic": bool,
    "title": str,
    "providerMetadata": Mapping,
    "toolMetadata": Mapping,
    "inputEncoding": str,
}

_DECISION: Mapping[str, type] = {
    "approved": bool,
    "reason": str,
    "providerExecuted": bool,
    "providerMetadata": Mapping,
}


class Reader:
    """The state of one decoding. One thread at a time."""

    def __init__(self) -> None:
        self._output = Output()
        self._builder = self._output.builder
        self._calls: dict[str, _Call] = {}
        self._blocks: dict[tuple[str, str], int] = {}  # kind and id of each open block: its part
        self._newest: dict[str, str] = {}  # kind: the id of the block that was opened last
        self._message_id: str | None = None
        self._opened_by_start = False  # a step, and nothing was said of steps since

    def read(self, data: str) -> list[AssistantStreamChunk]:
        """The chunks that follow from an event's data."""
        try:
            frame: Any = parse_json(data)
            if not isinstance(frame, Mapping) or not isinstance(frame.get("type"), str):
                raise ValueError("no frame")
            self._take(frame["type"], frame)
        except (KeyError, TypeError, ValueError) as error:
            skip("UI message stream chunk", data, repr(error))
        return self._output.take()

    def end(self) -> list[AssistantStreamChunk]:
        """The chunks that follow from the end of the stream."""
        for call_id, call in self._calls.items():
            self._complete(call_id, call)
        self._builder.finish()
        return self._output.take()

    def _take(self, kind: str, frame: Mapping[str, Any]) -> None:
        of, _, edge = kind.rpartition("-")
        if of in ("text", "reasoning") and edge in ("start", "delta", "end"):
            self._block(of, edge, frame)
        elif kind.startswith("tool-approval-"):
            self._approval(kind, frame)
        elif kind.startswith("tool-"):
            self._tool(kind, frame)
        elif kind.startswith("data-"):
            if not frame.get("transient"):
                self._message("data", data=[{"name": kind[len("data-") :], "data": frame.get("data")}])
        elif kind in ("source-url", "source-document", "source", "file"):
            self._whole(kind, frame)
        elif kind == "start":
            self._start(frame)
        elif kind == "start-step":
            message_id = frame.get("messageId") or self._message_id or secrets.token_hex(8)
            if not (self._opened_by_start and message_id == self._message_id):
                self._message("step-start", messageId=message_id)
            self._opened_by_start = False
        elif kind == "finish-step":
            self._opened_by_start = False
            self._close_blocks()
            self._message("step-finish", **_finish(frame), isContinued=bool(frame.get("isContinued")))
        elif kind == "message-metadata":
            self._metadata(frame.get("messageMetadata"))
        elif kind == "finish":
            self._close_blocks()
            self._finish(frame)
        elif kind == "abort":
            self._calls = {id: call for id, call in self._calls.items() if call.index is not None}
            self._close_blocks()
            self._keep(frame)
            self._message("message-finish", finishReason="other", usage=_NO_USAGE)
        elif kind == "error":
            text = frame.get("errorText")
            self._message("error", **({"error": text} if isinstance(text, str) else {}))
        elif kind in _KEPT:
            self._keep(frame)

    def _message(self, kind: str, **fields: Any) -> None:
        self._builder.enqueue(message_chunk(kind, fields))

    def _keep(self, frame: Mapping[str, Any], path: tuple[int, ...] = ()) -> None:
        self._builder.enqueue(UIFrame(path=path, frame=dict(frame)))

    def _metadata(self, metadata: Any) -> None:
        if metadata is not None:
            self._keep({"type": "message-metadata", "messageMetadata": metadata})

    def _start(self, frame: Mapping[str, Any]) -> None:
        message_id = frame.get("messageId") or secrets.token_hex(8)
        if message_id != self._message_id:  # a second start of the same message only makes the client look
            self._message_id = message_id
            self._opened_by_start = True
            self._message("step-start", messageId=message_id)
        self._metadata(frame.get("messageMetadata"))

    def _finish(self, frame: Mapping[str, Any]) -> None:
        metadata = frame.get("messageMetadata")
        if isinstance(metadata, Mapping):
            self._metadata({key: value for key, value in metadata.items() if key != "usage"} or None)
        self._message("message-finish", **_finish(frame))

    def _whole(self, kind: str, frame: Mapping[str, Any]) -> None:
        """A part in one frame. Older servers put it into a key of its own."""
        more = _metadata_of(frame)
        if kind == "file":
            file = frame.get("file") or {"mimeType": frame["mediaType"], "data": frame["url"]}
            self._output.add_whole(FilePart, {"mimeType": file["mimeType"], "data": file["data"], **more})
        elif kind == "source-document":
            document = {"sourceType": "document", "id": frame["sourceId"], "mediaType": frame["mediaType"]}
            names = {key: frame[key] for key in ("title", "filename") if frame.get(key)}
            self._output.add_whole(SourcePart, {**document, **names, **more})
        else:
            given = frame["source"] if kind == "source" else {"id": frame["sourceId"], **frame}
            title = {"title": given["title"]} if given.get("title") else {}
            source = {"sourceType": "url", "id": given["id"], "url": given["url"], **title}
            self._output.add_whole(SourcePart, {**source, **more})

    # Text and reasoning

    def _block(self, of: str, edge: str, frame: Mapping[str, Any]) -> None:
        block = frame.get("id", self._newest.get(of))
        metadata = _metadata_of(frame).get("providerMetadata")
        if edge == "start":
            block = text_of(block)
            self._close_block(of, block)
            kind = TextPart if of == "text" else ReasoningPart
            self._blocks[of, block] = self._builder.start(kind(provider_metadata=metadata))
            self._newest[of] = block
            return
        index = None if block is None else self._blocks.get((of, text_of(block)))
        if edge == "end":
            if index is not None and block is not None:
                if of == "text" and frame.get("citations") is not None:
                    self._keep({key: value for key, value in frame.items() if key != "id"}, (index,))
                self._close_block(of, block, metadata)
            return
        delta = text_of(frame.get("textDelta", frame.get("delta", "")) if of == "text" else frame["delta"])
        if index is not None:
            self._builder.append(index, delta, metadata)
        elif of == "text":
            self._builder.append_text(delta)
        else:
            self._builder.append_reasoning(delta)

    def _close_block(self, of: str, block: str, metadata: Any = None) -> None:
        index = self._blocks.pop((of, block), None)
        if self._newest.get(of) == block:
            del self._newest[of]
        if index is not None:
            self._builder.close_part(index, metadata)

    def _close_blocks(self) -> None:
        for of, block in list(self._blocks):
            self._close_block(of, block)

    # Tool calls

    def _tool(self, kind: str, frame: Mapping[str, Any]) -> None:
        call_id = text_of(frame["toolCallId"])
        call = self._calls.get(call_id)
        if kind == "tool-input-delta":
            delta = text_of(frame["inputTextDelta"])
            if call is not None and call.index is None:
                call.input.append(delta)
        elif kind in ("tool-input-start", "tool-input-available", "tool-input-error"):
            if call is None:
                name = frame.get("toolName")
                call = self._calls[call_id] = _Call(name if isinstance(name, str) else "")
            if call.index is None:
                call.note(frame)
                if kind != "tool-input-start":
                    self._input(kind, frame, call_id, call)
        elif kind == "tool-output-denied":
            if call is not None and call.index is not None:
                reason = (call.approval or {}).get("reason") or _DENIED
                self._builder.respond(call.index, Result(result={"error": reason}, is_error=True))
        elif kind == "tool-output-error" or (kind == "tool-output-available" and "output" in frame):
            self._tool_output(kind, frame, call_id, call)

    def _input(self, kind: str, frame: Mapping[str, Any], call_id: str, call: _Call) -> None:
        if "input" in frame:
            text = isinstance(frame["input"], str) and (
                kind == "tool-input-error" or call.fields.get("inputEncoding") == "text"
            )
            call.input = [frame["input"] if text else stringify(frame["input"])]
        if kind == "tool-input-error":
            error = frame.get("errorText")
            call.outputs.append(Result(result=error if isinstance(error, str) else "", is_error=True))
        self._complete(call_id, call)

    def _tool_output(self, kind: str, frame: Mapping[str, Any], call_id: str, call: _Call | None) -> None:
        opens = call is None  # an answer to a call of an earlier response
        if call is None:
            call = self._calls[call_id] = _Call("")
        if call.answered:
            return
        if kind == "tool-output-error":
            error = frame.get("errorText")
            result = Result(result=error if isinstance(error, str) else "", is_error=True, **_of_result(frame))
        else:
            preliminary = bool(frame.get("preliminary"))
            result = Result(result=frame["output"], is_preliminary=preliminary, **_of_result(frame))
        call.answered = not result.is_preliminary
        call.outputs.append(result)
        if opens or call.index is not None:
            self._complete(call_id, call)

    def _complete(self, call_id: str, call: _Call) -> None:
        """The input of a call is complete: it becomes a part."""
        if call.index is None:
            part = ToolCallPart.from_json(
                {"type": "tool-call", "toolName": call.name, "toolCallId": call_id, **call.fields}
            )
            call.index = self._builder.start(part)
            if any(call.input):
                self._builder.append_args(call.index, "".join(call.input))
            self._builder.close_args(call.index)
        for output in call.outputs:
            self._builder.respond(call.index, output)
        call.outputs.clear()

    def _approval(self, kind: str, frame: Mapping[str, Any]) -> None:
        """What is said of a call of an earlier response belongs to the message of that, and is dropped."""
        approval_id = text_of(frame["approvalId"])
        if kind == "tool-approval-request":
            call = self._calls.get(text_of(frame["toolCallId"]))
            if call is not None:
                self._set_approval(call, _requested(approval_id, frame))
        elif kind == "tool-approval-response" and isinstance(frame.get("approved"), bool):
            for call in self._calls.values():
                if call.approval is not None and call.approval["id"] == approval_id:
                    decision = {
                        name: frame[name] for name, kind in _DECISION.items() if isinstance(frame.get(name), kind)
                    }
                    self._set_approval(call, {**call.approval, **decision})
                    return

    def _set_approval(self, call: _Call, approval: dict[str, Any]) -> None:
        if call.index is not None:
            call.approval = approval
            self._builder.approve(call.index, approval)


def _requested(approval_id: str, frame: Mapping[str, Any]) -> dict[str, Any]:
    approval: dict[str, Any] = {"id": approval_id}
    if frame.get("approvalDescriptor") is not None:
        approval["descriptor"] = frame["approvalDescriptor"]
    if "inputSchemaInput" in frame:
        approval["inputSchemaInput"] = frame["inputSchemaInput"]
    if isinstance(frame.get("reason"), str):
        approval.update(prompt=frame["reason"], requestReason=frame["reason"])
    if isinstance(frame.get("isAutomatic"), bool):
        approval["isAutomatic"] = frame["isAutomatic"]
    if isinstance(frame.get("signature"), str):
        approval["signature"] = frame["signature"]
    return approval


def _metadata_of(frame: Mapping[str, Any]) -> dict[str, Any]:
    metadata = frame.get("providerMetadata")
    return {"providerMetadata": metadata} if isinstance(metadata, Mapping) else {}


def _of_result(frame: Mapping[str, Any]) -> dict[str, Any]:
    """What an output says besides its value."""
    names = {
        "providerExecuted": "provider_executed",
        "providerMetadata": "provider_metadata",
        "toolMetadata": "tool_metadata",
        "dynamic": "dynamic",
    }
    return {name: frame[key] for key, name in names.items() if isinstance(frame.get(key), _CALL_FIELDS[key])}


def _finish(frame: Mapping[str, Any]) -> dict[str, Any]:
    metadata = frame.get("messageMetadata")
    usage = frame.get("usage") or (metadata.get("usage") if isinstance(metadata, Mapping) else None)
    return {
        "finishReason": frame.get("finishReason") or "unknown",
        "usage": usage if isinstance(usage, Mapping) else _NO_USAGE,
    }
