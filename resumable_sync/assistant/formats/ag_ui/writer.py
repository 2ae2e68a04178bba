"""Chunks as events of a run: one encoding, from its first event to its last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ....errors import MalformedStreamError
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
from ...message.jsontext import JsonValue, join_surrogates, parse_json, stringify, wire_json
from ...message.parts import UNSET, DataPart, FilePart, ReasoningPart, SourcePart, TextPart, ToolCallPart
from ...message.state import apply_operation
from ..base import INTERRUPTED_TEXT, PartTypes
from .events import INVALID_ARGUMENTS, Opened, event_bytes, frame, present, run_error, unfinished_step
from .patch import patch_of

logger = logging.getLogger("resumable_sync")

NO_JSON_TEXT = "The arguments of this tool call are not complete JSON."
"""What a call whose arguments are none is answered with."""
STOPPED_TEXT = "The run was stopped."
"""The message of a run that was stopped, where that is an error."""
FAILED_TEXT = "The run ended with an error."
"""The message of a run whose model says that it failed, and no more."""

JSON_TYPE = "application/json"

_MAX_DELTA = 1 << 20  # characters: fewer than MAX_EVENT_UNITS however JSON escapes them
_COUNTS = (
    "inputTokens",
    "outputTokens",
    "totalTokens",
    "reasoningTokens",
    "cachedInputTokens",
    "cacheWriteInputTokens",
)
_MAX_COUNT = 2**53 - 1


def stopped_run(opened: Opened, ids: Mapping[str, str], before_1: bool) -> dict[str, Any]:
    """The last event of a run that was stopped.

    The protocol knows such an end from 1.0 on, but not while a call is open; and to end the call would be to say
    that its arguments are complete.
    """
    if opened.cut or before_1:
        return run_error(STOPPED_TEXT, code="cancelled")
    return {"type": "RUN_FINISHED", **ids, "outcome": {"type": "cancelled"}}


class _Block:
    """A text or reasoning part, which is a message of its own."""

    def __init__(self, part: TextPart | ReasoningPart, message_id: str) -> None:
        self.message_id = message_id
        self.open = False
        self.kind = "TEXT_MESSAGE" if isinstance(part, TextPart) else "REASONING_MESSAGE"
        head = {"type": f"{self.kind}_CONTENT", "messageId": message_id}
        self.begin = f'{wire_json(head)[:-1]},"delta":'


class _Call:
    """A tool call, and how much of it was written."""

    def __init__(self, part: ToolCallPart, foreign: bool) -> None:
        self.part = part
        self.text: list[str] = []
        self.open = not foreign
        """Whether it has begun here and not ended."""
        self.closed = foreign
        """Whether nothing more is written of the arguments."""
        self.answered = False
        self.approval: Mapping[str, Any] = {}
        head = {"type": "TOOL_CALL_ARGS", "toolCallId": part.tool_call_id}
        self.begin = f'{wire_json(head)[:-1]},"delta":'

    @property
    def has_json(self) -> bool:
        """Whether the arguments are what they should be."""
        if self.part.input_encoding == "text":
            return True
        try:
            parse_json(join_surrogates("".join(self.text)))
        except ValueError:
            return False
        return True


class Writer:
    """The state of one encoding. One thread at a time."""

    def __init__(self, ids: Mapping[str, str], before_1: bool = False) -> None:
        self._ids = ids
        self._before_1 = before_1
        self._opened = Opened()
        self._parts = PartTypes()
        self._out: list[bytes] = []
        self._messages = 0  # begun, which numbers their ids
        self._blocks: dict[int, _Block] = {}
        self._calls: dict[int, _Call] = {}
        self._begun: dict[str, _Call] = {}  # those that begin here, by their ids
        self._parent: str | None = None  # the message that a call belongs to which begins now
        self._step: str | None = None
        self._steps = 0
        self._state: JsonValue = None
        self._state_told = False
        self._error: Error | None = None
        self._finish: MessageFinish | None = None
        self._aborted = False

    def encode(self, chunk: AssistantStreamChunk) -> bytes:
        """The events of a chunk."""
        handler = self._HANDLERS.get(type(chunk))
        if handler is None:
            raise MalformedStreamError(f"not a chunk: {type(chunk).__name__}")
        handler(self, chunk)
        return self._taken()

    def end(self) -> bytes:
        """The last events."""
        for event in self._opened.ending(self._last()):
            self._write(event)
        return self._taken()

    def _last(self) -> dict[str, Any]:
        finish = self._finish
        usage = {} if finish is None or finish.usage is None else _usage(finish.usage)
        metadata = usage.pop("metadata", {})
        if self._error is not None:
            more = {**present(code=self._error.code), **usage, **present(metadata=metadata or None)}
            return run_error("unknown error" if self._error.error is None else self._error.error, **more)
        if finish is not None:
            metadata = {"finishReason": finish.finish_reason, **metadata}
            if finish.finish_reason == "error":
                return run_error(FAILED_TEXT, **usage, metadata=metadata)
        for call in self._calls.values():
            if call.open and call.closed and not call.answered:  # no JSON
                self._answer(call, {"content": NO_JSON_TEXT, "metadata": {INVALID_ARGUMENTS: True}})
                self._end_call(call)
        if self._aborted:
            return stopped_run(self._opened, self._ids, self._before_1)
        if self._opened.cut:
            return run_error(INTERRUPTED_TEXT)
        last = {"type": "RUN_FINISHED", **self._ids, **usage, **present(metadata=metadata or None)}
        return {**last, **present(outcome=self._outcome())}

    def _outcome(self) -> dict[str, Any] | None:
        """What is asked of the user. Which calls the client has to answer it knows: they have no result."""
        asked = [
            call
            for call in self._calls.values()
            if call.part.tool_name
            and not call.answered
            and call.approval
            and not isinstance(call.approval.get("approved"), bool)
        ]
        interrupts = {call.approval["id"]: _interrupt(call) for call in asked}
        return {"type": "interrupt", "interrupts": list(interrupts.values())} if interrupts else None

    def _taken(self) -> bytes:
        taken = b"".join(self._out)
        self._out.clear()
        return taken

    def _write(self, event: Mapping[str, Any]) -> None:
        self._opened.see(event)
        self._out.append(event_bytes(event))

    def _write_delta(self, begin: str, text: str) -> None:
        """Such events are many: they are put together without a dict, and change nothing of what is open."""
        for at in range(0, len(text), _MAX_DELTA):
            self._out.append(frame(f"{begin}{wire_json(text[at : at + _MAX_DELTA])}}}"))

    def _custom(self, name: str, value: object, **metadata: object) -> None:
        more = present(metadata=present(**metadata) or None)
        self._write({"type": "CUSTOM", "name": name, "value": value, **more})

    def _new_id(self) -> str:
        self._messages += 1
        return f"{self._ids['runId']}-{self._messages}"

    # Parts

    def _part_start(self, chunk: PartStart) -> None:
        part = chunk.part
        index = self._parts.start(chunk, part)
        if isinstance(part, (TextPart, ReasoningPart)):
            self._blocks[index] = block = _Block(part, self._new_id())
            summary = part.unstable_summary if isinstance(part, ReasoningPart) else None
            metadata = present(
                providerMetadata=part.provider_metadata, parentId=part.parent_id or None, summary=summary
            )
            self._begin_block(block, metadata)
        elif isinstance(part, ToolCallPart):
            self._begin_call(index, part)
        elif isinstance(part, (SourcePart, FilePart)):
            fields = {key: value for key, value in part.to_json().items() if key != "type"}
            self._custom(part.type, fields)
        elif isinstance(part, DataPart):
            self._data_part(part)

    def _begin_block(self, block: _Block, metadata: Mapping[str, Any]) -> None:
        block.open = True
        more = present(metadata=metadata or None)
        if block.kind == "TEXT_MESSAGE":
            self._parent = block.message_id
            role = "assistant"
        else:
            self._parent = None
            role = "reasoning"
            self._write({"type": "REASONING_START", "messageId": block.message_id})
        self._write({"type": f"{block.kind}_START", "messageId": block.message_id, "role": role, **more})

    def _begin_call(self, index: int, part: ToolCallPart) -> None:
        # One of an earlier response has answers alone here; of two with one id the client knows the first.
        foreign = not part.tool_name or part.tool_call_id in self._begun
        self._calls[index] = call = _Call(part, foreign)
        if foreign:
            return
        self._begun[part.tool_call_id] = call
        if self._parent is None:
            self._parent = self._new_id()
        metadata = present(
            parentId=part.parent_id or None,
            providerExecuted=part.provider_executed,
            dynamic=part.dynamic,
            title=part.title,
            providerMetadata=part.provider_metadata,
            toolMetadata=part.tool_metadata,
            inputEncoding=part.input_encoding,
        )
        start = {"type": "TOOL_CALL_START", "toolCallId": part.tool_call_id, "toolCallName": part.tool_name}
        self._write({**start, "parentMessageId": self._parent, **present(metadata=metadata or None)})

    def _data_part(self, part: DataPart) -> None:
        parent = part.parent_id or None
        if part.id is not None and isinstance(part.data, Mapping) and not part.transient:
            activity = {
                "type": "ACTIVITY_SNAPSHOT",
                "messageId": activity_id(self._ids["runId"], part.name, part.id),
                "activityType": part.name,
                "content": part.data,
            }
            self._write({**activity, **present(metadata=present(parentId=parent) or None)})
        else:
            self._custom(f"data-{part.name}", part.data, parentId=parent, id=part.id, transient=part.transient)

    def _part_finish(self, chunk: PartFinish) -> None:
        self._parts.of(chunk)
        index = chunk.path[0]
        if index in self._calls:
            self._close(self._calls[index])
        elif index in self._blocks and self._blocks[index].open:
            block = self._blocks[index]
            block.open = False
            metadata = present(metadata=_provider(chunk.provider_metadata))
            self._write({"type": f"{block.kind}_END", "messageId": block.message_id, **metadata})
            if block.kind == "REASONING_MESSAGE":
                self._write({"type": "REASONING_END", "messageId": block.message_id})

    def _text_delta(self, chunk: TextDelta) -> None:
        part, index, text = self._parts.of(chunk), chunk.path[0], chunk.text_delta
        if index in self._calls:
            call = self._calls[index]
            if not call.closed:
                call.text.append(text)
                self._write_delta(call.begin, text)
            return
        block = self._blocks.get(index)
        if block is None:
            raise MalformedStreamError(f"a {chunk.type} chunk does not fit a {part.type} part")
        if not block.open:
            self._begin_block(block, {})
        if chunk.provider_metadata is None:
            self._write_delta(block.begin, text)
        else:
            content = {"type": f"{block.kind}_CONTENT", "messageId": block.message_id, "delta": text}
            self._write({**content, "metadata": _provider(chunk.provider_metadata)})

    # Tool calls

    def _call(self, chunk: AssistantStreamChunk) -> _Call:
        part = self._parts.of(chunk)
        if not isinstance(part, ToolCallPart):
            raise MalformedStreamError(f"a {chunk.type} chunk does not fit a {part.type} part")
        return self._calls[chunk.path[0]]

    def _args_finish(self, chunk: ToolCallArgsTextFinish) -> None:
        self._close(self._call(chunk))

    def _close(self, call: _Call) -> None:
        """The answer has closed the arguments. A client may run the call if they are whole.

        Arguments that are no JSON are not told as complete before the call is answered. After an error nobody
        knows who closed them: then the call stays as it is.
        """
        if call.closed or self._error is not None:
            call.closed = True
            return
        call.closed = True
        if not any(call.text):
            call.text.append("{}")
            self._write_delta(call.begin, "{}")
        if call.answered or call.has_json:
            self._end_call(call)

    def _end_call(self, call: _Call) -> None:
        call.open = False
        self._write({"type": "TOOL_CALL_END", "toolCallId": call.part.tool_call_id})

    def _answer(self, call: _Call, fields: Mapping[str, Any]) -> None:
        call.answered = True
        self._parent = None
        result = {"type": "TOOL_CALL_RESULT", "messageId": self._new_id(), "toolCallId": call.part.tool_call_id}
        self._write({**result, **fields, "role": "tool"})

    def _result(self, chunk: Result) -> None:
        call = self._call(chunk)
        if call.answered:
            return
        if chunk.is_preliminary:
            fields = {key: value for key, value in chunk.to_json().items() if key not in ("type", "path")}
            self._custom("tool-result-preliminary", {"toolCallId": call.part.tool_call_id, **fields})
            return
        metadata = {
            "isError": chunk.is_error or UNSET,
            "artifact": chunk.artifact,
            "modelContent": chunk.model_content,
            "messages": chunk.messages,
        }
        more = present(
            providerExecuted=chunk.provider_executed,
            providerMetadata=chunk.provider_metadata,
            toolMetadata=chunk.tool_metadata,
            dynamic=chunk.dynamic,
            contentType=None if chunk.result is UNSET or isinstance(chunk.result, str) else JSON_TYPE,
        )
        metadata = {**{key: value for key, value in metadata.items() if value is not UNSET}, **more}
        content = "" if chunk.result is UNSET else chunk.result
        text = content if isinstance(content, str) else stringify(content)
        self._begun.get(call.part.tool_call_id, call).answered = True  # the part that the call began in
        self._answer(call, {"content": text, **present(metadata=metadata or None)})
        if call.open and call.closed and self._error is None:
            self._end_call(call)

    def _approval(self, chunk: ToolCallApproval) -> None:
        call = self._call(chunk)
        call.approval = chunk.approval
        self._custom("tool-call-approval", {"toolCallId": call.part.tool_call_id, "approval": chunk.approval})

    # The message as a whole

    def _data(self, chunk: Data) -> None:
        self._custom("data", chunk.data)

    def _annotations(self, chunk: Annotations) -> None:
        self._custom("annotations", chunk.annotations)

    def _error_chunk(self, chunk: Error) -> None:
        if chunk.severity in ("warning", "info"):
            self._custom(chunk.severity, {"message": chunk.error or "", **present(code=chunk.code)})
        else:
            self._error = chunk  # told last, for nothing may follow it

    def _message_finish(self, chunk: MessageFinish) -> None:
        # Of several the last counts, but none hides an error: as in the accumulator.
        if self._finish is None or self._finish.finish_reason != "error":
            self._finish = chunk

    def _step_start(self, chunk: StepStart) -> None:
        if self._step is not None:
            self._write(unfinished_step(self._step))
        self._begin_step(chunk.message_id)

    def _begin_step(self, name: str | None, **metadata: object) -> str:
        self._steps += 1
        self._step = name or f"step-{self._steps}"
        self._write({"type": "STEP_STARTED", "stepName": self._step, **present(metadata=metadata or None)})
        return self._step

    def _step_finish(self, chunk: StepFinish) -> None:
        step = self._step if self._step is not None else self._begin_step(None, implied=True)
        metadata = present(finishReason=chunk.finish_reason, usage=chunk.usage, isContinued=chunk.is_continued)
        self._write({"type": "STEP_FINISHED", "stepName": step, "metadata": metadata})
        self._step = None

    def _update_state(self, chunk: UpdateState) -> None:
        patch: list[dict[str, Any]] = []
        changed = False
        for operation in chunk.operations:
            try:
                if not operation.path:
                    self._state, self._state_told = apply_operation(self._state, operation), False
                elif self._state is None:
                    self._state = apply_operation(self._state, operation)
                else:
                    entry, self._state = patch_of(self._state, operation)
                    patch.append(entry)
                changed = True
            except MalformedStreamError:
                logger.warning("left out a state operation that cannot be applied", exc_info=True)
        if changed and not self._state_told:  # what the client has is not known here
            self._write({"type": "STATE_SNAPSHOT", "snapshot": self._state})
            self._state_told = self._state is not None
        elif patch:
            self._write({"type": "STATE_DELTA", "delta": patch})

    def _ui_frame(self, chunk: UIFrame) -> None:
        self._aborted = self._aborted or chunk.frame.get("type") == "abort"

    _HANDLERS: Mapping[type[AssistantStreamChunk], Callable[[Writer, Any], None]] = {
        PartStart: _part_start,
        PartFinish: _part_finish,
        TextDelta: _text_delta,
        ToolCallArgsTextFinish: _args_finish,
        ToolCallApproval: _approval,
        Result: _result,
        Data: _data,
        Error: _error_chunk,
        StepStart: _step_start,
        StepFinish: _step_finish,
        MessageFinish: _message_finish,
        UIFrame: _ui_frame,
        Annotations: _annotations,
        UpdateState: _update_state,
    }


def activity_id(run_id: str, name: str, part_id: str) -> str:
    """The message id of an activity, which differs from all others of the conversation."""
    return f"{run_id}-{name}-{part_id}"


def _provider(metadata: Mapping[str, JsonValue] | None) -> dict[str, Any] | None:
    return None if metadata is None else {"providerMetadata": metadata}


def _interrupt(call: _Call) -> dict[str, Any]:
    approval = call.approval
    asked = approval.get("prompt", approval.get("requestReason"))
    message = asked if isinstance(asked, str) else None
    names = {"id": approval["id"], "reason": "tool_call", "toolCallId": call.part.tool_call_id}
    return {**names, **present(message=message)}


def _usage(given: Mapping[str, Any]) -> dict[str, Any]:
    """The field `usage`, and what it has no place for as metadata."""
    counts: dict[str, Any] = {
        name: given[name] for name in _COUNTS if type(given.get(name)) is int and 0 <= given[name] <= _MAX_COUNT
    }
    counts.update({name: given[name] for name in ("provider", "model") if isinstance(given.get(name), str)})
    fields: dict[str, Any] = {"usage": [counts]} if counts else {}
    return fields if counts == given and counts else {**fields, "metadata": {"usage": given}}
