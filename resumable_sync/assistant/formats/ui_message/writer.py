"""Chunks as frames of the AI SDK: one encoding, from its first frame to its last."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ....errors import MalformedStreamError
from ....sse import format_event
from ...message.chunks import (
    Annotations,
    AssistantStreamChunk,
    Data,
    Error,
    MessageFinish,
    PartFinish,
    PartStart,
    Result,
    StepFinish,
    StepStart,
    TextDelta,
    ToolCallApproval,
    ToolCallArgsTextFinish,
    UIFrame,
    UpdateState,
)
from ...message.finish_reasons import finish_reason
from ...message.jsontext import JsonValue, join_surrogates, parse_json, stringify, wire_json
from ...message.parts import UNSET, DataPart, FilePart, Part, ReasoningPart, SourcePart, TextPart, ToolCallPart
from ..base import DONE, PartTypes
from .frames import Steps, frame_bytes, present

NO_JSON_TEXT = "The arguments of this tool call are not complete JSON."
"""What a `tool-input-error` frame says."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_WHITE_SPACE = re.compile(r"[ \t\r\n]+")
_PATH_LENGTH = 100  # what begins with a slash and is shorter is rather a path than base64


def file_url(data: str, media_type: str) -> str:
    """What a client can load: plain base64 becomes a data URL, everything else stays."""
    packed = _WHITE_SPACE.sub("", data)
    if _SCHEME.match(data) or len(packed) % 4 or _BASE64.fullmatch(packed) is None:
        return data
    if packed.startswith("/") and not packed.startswith("/9j/") and len(packed) < _PATH_LENGTH:
        return data
    return f"data:{media_type};base64,{packed}"


class _Call:
    """One tool call, and how much of it was written."""

    def __init__(self, part: ToolCallPart, earlier: bool) -> None:
        self.part = part
        self.text: list[str] = []
        self.begin = (
            f'data: {{"type":"tool-input-delta","toolCallId":{wire_json(part.tool_call_id)},"inputTextDelta":'
        )
        self.earlier = earlier
        """Whether the call is one of an earlier response, which the client has: here it has outputs alone."""
        self.closed = self.earlier
        """Whether nothing more is written of the arguments."""
        self.available = self.earlier
        """Whether the client was told that they are complete."""
        self.answered = self.earlier
        self.approvals: list[Mapping[str, Any]] = []  # came before the arguments were complete
        self.approval: Mapping[str, Any] = {}
        self.decision: tuple[object, object] | None = None

    def fields(self) -> dict[str, Any]:
        """What every frame of the input says of the call."""
        part = self.part
        return present(
            providerExecuted=part.provider_executed,
            providerMetadata=part.provider_metadata,
            toolMetadata=part.tool_metadata,
            dynamic=part.dynamic,
            title=part.title,
        )


class Writer:
    """The state of one encoding. One thread at a time."""

    def __init__(self, start: Mapping[str, Any], earlier_calls: Collection[str] = ()) -> None:
        self._start = start
        self._earlier_calls = earlier_calls
        self._parts = PartTypes()
        self._blocks = 0  # text and reasoning blocks begun, which numbers their ids
        self._open: dict[int, str] = {}  # part index: the id of its open block
        self._calls: dict[int, _Call] = {}
        self._steps = Steps()
        self._app_steps = False  # whether the application has written any
        self._app_step = False  # whether the open step is the application's
        self._failed = False
        self._aborted = False
        self._has_metadata = False  # whether the application has set any
        self._cut_off = False  # whether a call was told to have no complete input, ever
        self._finish: MessageFinish | None = None
        self._out: list[bytes] = []

    def encode(self, chunk: AssistantStreamChunk) -> bytes:
        """The frames of a chunk, empty if it has none."""
        handle = self._HANDLERS.get(type(chunk))
        if handle is None:
            raise MalformedStreamError(f"not a chunk: {type(chunk).__name__}")
        handle(self, chunk)
        return self._taken()

    def end(self) -> bytes:
        """The last frames."""
        self._end_blocks()
        if not self._failed and (self._cut_off or not self._app_steps) and self._steps.asks_again:
            self._begin_step()
            if "messageId" in self._start:
                self._write(self._start)  # without it the client would not see the new step
        if self._steps.open and not self._app_step:
            self._write({"type": "finish-step"})
        reason = None
        metadata = None
        if self._finish is not None:
            reason = finish_reason(self._finish.finish_reason)
            metadata = present(usage=self._finish.usage) if self._has_metadata else None
        elif self._aborted:
            reason = "other"
        elif any(not call.answered for call in self._calls.values()):
            reason = "tool-calls"
        fields = present(finishReason="error" if self._failed else reason, messageMetadata=metadata or None)
        self._write({"type": "finish", **fields})
        return self._taken() + format_event(DONE)

    def _taken(self) -> bytes:
        taken = b"".join(self._out)
        self._out.clear()
        return taken

    def _write(self, frame: Mapping[str, Any]) -> None:
        self._steps.see(frame)
        self._out.append(frame_bytes(frame))

    # Steps

    def _begin_step(self) -> None:
        if self._steps.open:
            self._write({"type": "finish-step"})
        self._app_step = False
        self._write({"type": "start-step"})

    def _content(self, *, said: bool = False) -> None:
        """Something of the message follows; `said` is what a model says after the outputs that it was given.

        A step of the application's own is left alone. A block that is open keeps its step too, for the end of
        a step would cut it in two.
        """
        steps = self._steps
        if not steps.begun:
            self._begin_step()
        elif said and steps.answered and not self._open and not (steps.open and self._app_step):
            self._begin_step()

    def _step_start(self, chunk: StepStart) -> None:
        if self._steps.open and not self._app_step:
            self._end_blocks()
            self._write({"type": "finish-step"})
        self._app_steps = self._app_step = True
        self._write({"type": "start-step"})

    def _step_finish(self, chunk: StepFinish) -> None:
        self._end_blocks()
        self._app_steps, self._app_step = True, False
        self._write({"type": "finish-step"})

    # Parts

    def _part_start(self, chunk: PartStart) -> None:
        part = chunk.part
        index = self._parts.start(chunk, part)
        if isinstance(part, (TextPart, ReasoningPart)):
            self._content(said=True)
            self._begin_block(index, part, part.provider_metadata)
        elif isinstance(part, ToolCallPart):
            self._calls[index] = call = _Call(part, not part.tool_name or part.tool_call_id in self._earlier_calls)
            if call.earlier:
                return
            self._content(said=True)
            start = {"type": "tool-input-start", "toolCallId": part.tool_call_id, "toolName": part.tool_name}
            self._write({**start, **call.fields(), **present(inputEncoding=part.input_encoding)})
        elif isinstance(part, SourcePart):
            self._content()
            self._write(_source(part))
        elif isinstance(part, FilePart):
            self._content()
            url = file_url(part.data, part.mime_type)
            more = present(providerMetadata=part.provider_metadata)
            self._write({"type": "file", "url": url, "mediaType": part.mime_type, **more})
        elif isinstance(part, DataPart):
            more = present(id=part.id, transient=part.transient)
            self._data_frame({"type": f"data-{part.name}", "data": part.data, **more})

    def _data_frame(self, frame: Mapping[str, Any]) -> None:
        if not frame.get("transient"):
            self._content()
        self._write(frame)

    def _part_finish(self, chunk: PartFinish) -> None:
        part, index = self._parts.of(chunk), chunk.path[0]
        if isinstance(part, ToolCallPart):
            self._close_input(self._calls[index])
        elif index in self._open:
            self._end_block(index, present(providerMetadata=chunk.provider_metadata))

    def _text_delta(self, chunk: TextDelta) -> None:
        part, index = self._parts.of(chunk), chunk.path[0]
        if isinstance(part, ToolCallPart):
            call = self._calls[index]
            if not call.closed:
                call.text.append(chunk.text_delta)
                # Such frames are many: they are put together without a dict, and change nothing of the steps.
                self._out.append(f"{call.begin}{wire_json(chunk.text_delta)}}}\n\n".encode())
            return
        if not isinstance(part, (TextPart, ReasoningPart)):
            raise MalformedStreamError(f"a {chunk.type} chunk does not fit a {part.type} part")
        if index not in self._open:  # an error or the end of a step has ended its block
            self._content(said=True)
            self._begin_block(index, part, None)
        kind, block = f"{part.type}-delta", self._open[index]
        if chunk.provider_metadata is not None:
            more = {"providerMetadata": chunk.provider_metadata}
            self._write({"type": kind, "id": block, "delta": chunk.text_delta, **more})
        else:  # such frames are many, too
            self._steps.say()
            self._out.append(
                f'data: {{"type":"{kind}","id":"{block}","delta":{wire_json(chunk.text_delta)}}}\n\n'.encode()
            )

    def _begin_block(self, index: int, part: Part, metadata: object) -> None:
        self._open[index] = f"{part.type}-{self._blocks}"
        self._blocks += 1
        more = present(providerMetadata=metadata)
        self._write({"type": f"{part.type}-start", "id": self._open[index], **more})

    def _end_block(self, index: int, more: Mapping[str, Any]) -> None:
        block = self._open.pop(index)
        self._write({"type": f"{block.partition('-')[0]}-end", "id": block, **more})

    def _end_blocks(self) -> None:
        for index in list(self._open):
            self._end_block(index, {})

    # Tool calls

    def _call(self, chunk: AssistantStreamChunk) -> _Call:
        part = self._parts.of(chunk)
        if not isinstance(part, ToolCallPart):
            raise MalformedStreamError(f"a {chunk.type} chunk does not fit a {part.type} part")
        return self._calls[chunk.path[0]]

    def _args_finish(self, chunk: ToolCallArgsTextFinish) -> None:
        self._close_input(self._call(chunk))

    def _close_input(self, call: _Call) -> None:
        """The answer has closed the arguments. A client may run the call if they are whole.

        After an error nobody knows who closed them: then the call stays as it is, and no client runs it.
        """
        if call.closed or self._failed:
            call.closed = True
            return
        if not self._make_available(call):
            error = {"input": join_surrogates("".join(call.text)), "errorText": NO_JSON_TEXT}
            self._input_frame("tool-input-error", call, error)

    def _make_available(self, call: _Call) -> bool:
        """Tell the client that the arguments are complete, if they are."""
        call.closed = True
        text = join_surrogates("".join(call.text))
        value: JsonValue = text
        if call.part.input_encoding != "text":
            try:
                value = parse_json(text) if call.text else {}
            except ValueError:
                return False
        call.available = True
        self._input_frame("tool-input-available", call, {"input": value})
        for approval in call.approvals:
            self._write_approval(call, approval)
        call.approvals.clear()
        return True

    def _input_frame(self, kind: str, call: _Call, fields: Mapping[str, Any]) -> None:
        names = {"toolCallId": call.part.tool_call_id, "toolName": call.part.tool_name}
        self._write({"type": kind, **names, **fields, **call.fields()})

    def _approval(self, chunk: ToolCallApproval) -> None:
        call = self._call(chunk)
        if call.available:
            self._write_approval(call, chunk.approval)
        elif not call.closed:
            call.approvals.append(chunk.approval)

    def _write_approval(self, call: _Call, approval: Mapping[str, Any]) -> None:
        if call.approval.get("id") != approval["id"]:
            request = {"approvalId": approval["id"], "toolCallId": call.part.tool_call_id}
            self._write({"type": "tool-approval-request", **request, **_request(approval)})
            call.decision = None
        decision = (approval.get("approved"), approval.get("reason"))
        if isinstance(decision[0], bool) and decision != call.decision:
            response = {"approvalId": approval["id"], "approved": decision[0]}
            more = present(
                reason=decision[1],
                providerExecuted=approval.get("providerExecuted"),
                providerMetadata=approval.get("providerMetadata"),
            )
            self._write({"type": "tool-approval-response", **response, **more})
            call.decision = decision
        call.approval = approval

    def _result(self, chunk: Result) -> None:
        call = self._call(chunk)
        if not call.closed and not self._failed:
            # Broken arguments are not told as complete, and not as an error either: the output is there.
            self._make_available(call)
        call.closed = True
        if not chunk.is_preliminary:
            call.answered = True
        self._write_output(call.part.tool_call_id, chunk, call)

    def _write_output(self, call_id: str, chunk: Result, call: _Call | None) -> None:
        dynamic = chunk.dynamic if call is None or chunk.dynamic is not None else call.part.dynamic
        more = present(
            providerExecuted=chunk.provider_executed,
            providerMetadata=chunk.provider_metadata,
            toolMetadata=chunk.tool_metadata,
            dynamic=dynamic,
        )
        result = None if chunk.result is UNSET else chunk.result
        if not chunk.is_error:
            interim = {"preliminary": True} if chunk.is_preliminary else {}
            frame = {"type": "tool-output-available", "toolCallId": call_id, "output": result, **interim}
        elif call is not None and call.approval.get("approved") is False:
            frame, more = {"type": "tool-output-denied", "toolCallId": call_id}, {}
        else:
            text = result if isinstance(result, str) else stringify(result)
            frame = {"type": "tool-output-error", "toolCallId": call_id, "errorText": text}
        self._write({**frame, **more})

    # The message as a whole

    def _data(self, chunk: Data) -> None:
        for item in chunk.data:
            if isinstance(item, Mapping) and isinstance(item.get("name"), str) and "data" in item:
                self._data_frame({"type": f"data-{item['name']}", "data": item["data"]})
            else:
                self._data_frame({"type": "data-value", "data": item})

    def _error(self, chunk: Error) -> None:
        text = chunk.error or "unknown error"
        if chunk.severity in ("warning", "info"):
            # An `error` frame would end the chat: the note goes beside the message, to who listens for it.
            note = {"message": text, **present(code=chunk.code)}
            self._write({"type": f"data-{chunk.severity}", "data": note, "transient": True})
            return
        self._failed = True
        self._end_blocks()
        self._write({"type": "error", "errorText": text})

    def _message_finish(self, chunk: MessageFinish) -> None:
        # Sent at the end: clients take it for the last word, and parts may still be closed. Of several the
        # last counts, but none hides an error: as in the accumulator.
        if self._finish is None or self._finish.finish_reason != "error":
            self._finish = chunk

    def _ui_frame(self, chunk: UIFrame) -> None:
        frame = chunk.frame
        kind = frame.get("type")
        if not isinstance(kind, str):
            raise MalformedStreamError("a frame without a type")
        if kind in ("start", "finish", "message-metadata"):
            if frame.get("messageMetadata") is not None:
                self._has_metadata = True
                self._write({"type": "message-metadata", "messageMetadata": frame["messageMetadata"]})
        elif kind in ("text-end", "reasoning-end"):
            self._end_of(kind, chunk)
        elif kind == "abort":
            self._end_blocks()
            self._aborted = True
            self._write(frame)
        elif kind == "reset-step":
            self._end_blocks()
            self._write(frame)
        elif kind == "tool-input-error":
            # No client runs the call, and none asks the model again by itself: it would be cut off again.
            self._cut_off = True
            for call in self._calls.values():
                call.closed = call.closed or call.part.tool_call_id == frame.get("toolCallId")
            self._write(frame)
        else:
            self._content()
            self._write(frame)

    def _end_of(self, kind: str, chunk: UIFrame) -> None:
        """What only the AI SDK's end of a block can say, such as citations.

        It ends the block of the part that it addresses, or the block that was opened last.
        """
        of = kind.partition("-")[0]
        for index in chunk.path[:1] or tuple(reversed(self._open)):
            if self._open.get(index, "").startswith(of):
                more = {name: value for name, value in chunk.frame.items() if name not in ("type", "id")}
                self._end_block(index, more)
                return

    def _nothing(self, chunk: AssistantStreamChunk) -> None:
        """What this format has no place for."""

    _HANDLERS: Mapping[type[AssistantStreamChunk], Callable[[Writer, Any], None]] = {
        PartStart: _part_start,
        PartFinish: _part_finish,
        TextDelta: _text_delta,
        ToolCallArgsTextFinish: _args_finish,
        ToolCallApproval: _approval,
        Result: _result,
        Data: _data,
        Error: _error,
        StepStart: _step_start,
        StepFinish: _step_finish,
        MessageFinish: _message_finish,
        UIFrame: _ui_frame,
        Annotations: _nothing,
        UpdateState: _nothing,
    }


def _source(part: SourcePart) -> dict[str, Any]:
    more = present(providerMetadata=part.provider_metadata)
    if part.source_type == "document":
        document = {
            "type": "source-document",
            "sourceId": part.id,
            "mediaType": part.media_type or "application/octet-stream",
            "title": part.title or part.filename or part.id,
        }
        return {**document, **present(filename=part.filename or None), **more}
    source = {"type": "source-url", "sourceId": part.id, "url": part.url or ""}
    return {**source, **present(title=part.title or None), **more}


def _request(approval: Mapping[str, Any]) -> dict[str, Any]:
    schema_input = {"inputSchemaInput": approval["inputSchemaInput"]} if "inputSchemaInput" in approval else {}
    reason = approval.get("requestReason", approval.get("prompt"))
    return {
        **present(approvalDescriptor=approval.get("descriptor")),
        **schema_input,
        **present(reason=reason, isAutomatic=approval.get("isAutomatic"), signature=approval.get("signature")),
    }
