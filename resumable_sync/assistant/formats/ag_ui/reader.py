"""Events of a run as chunks: one decoding, event by event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...message.chunks import (
    AssistantStreamChunk,
    Error,
    MessageFinish,
    PartFinish,
    Result,
    StateOperation,
    StepFinish,
    StepStart,
    UpdateState,
    is_approval,
)
from ...message.jsontext import JsonValue, parse_json
from ...message.parts import DataPart, FilePart, Part, SourcePart, ToolCallPart
from ..base import Output, message_chunk, skip, text_of
from .events import INVALID_ARGUMENTS
from .patch import operations_of
from .writer import JSON_TYPE, activity_id

_NO_USAGE = {"inputTokens": 0, "outputTokens": 0}
_RESULT_FIELDS = (
    "isError",
    "artifact",
    "modelContent",
    "messages",
    "providerExecuted",
    "providerMetadata",
    "toolMetadata",
    "dynamic",
)
_CALL_FIELDS = (
    "parentId",
    "providerExecuted",
    "dynamic",
    "title",
    "providerMetadata",
    "toolMetadata",
    "inputEncoding",
)


class _Block:
    """A text or reasoning message that is open."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.metadata: Any = None  # of the part's end
        self.message_ended = False


class Reader:
    """The state of one decoding. One thread at a time."""

    def __init__(self) -> None:
        self._output = Output()
        self._builder = self._output.builder
        self.ended = False
        """Whether the run has its last event."""
        self._run_id = ""
        self._texts: dict[str, _Block | None] = {}  # the open ones; None for those of others than the assistant
        self._thoughts: dict[str, _Block] = {}
        self._spans: set[str] = set()
        self._calls: dict[str, int] = {}
        self._open_calls: dict[str, None] = {}
        self._answered: set[str] = set()
        self._approvals: set[str] = set()  # the ids of calls
        self._activities: dict[str, Any] = {}
        self._chunked: tuple[str, str] | None = None  # what a *_CHUNK event has opened: its kind and its id
        self._state: JsonValue = None

    def read(self, data: str) -> list[AssistantStreamChunk]:
        """The chunks that follow from an event's data."""
        try:
            event: Any = parse_json(data)
            if not isinstance(event, Mapping) or not isinstance(event.get("type"), str):
                raise ValueError("no event")
            kind = event["type"]
            if self._chunked is not None and not kind.endswith("_CHUNK") and kind != "RAW":
                self._end_chunked(complete=kind != "RUN_ERROR")
            handler = self._HANDLERS.get(kind)
            if handler is not None:
                handler(self, event)
        except (KeyError, TypeError, ValueError) as error:
            skip("AG-UI event", data, repr(error))
        return self._output.take()

    # The run

    def _run_started(self, event: Mapping[str, Any]) -> None:
        self._run_id = text_of(event.get("runId", ""))

    def _run_finished(self, event: Mapping[str, Any]) -> None:
        self.ended = True
        outcome = _object(event.get("outcome"))
        for interrupt in outcome.get("interrupts") or () if outcome.get("type") == "interrupt" else ():
            self._interrupt(_object(interrupt))
        reason = _metadata(event).get("finishReason")
        usage = _usage(event)
        if outcome.get("type") == "cancelled":
            reason, usage = "other", usage or _NO_USAGE
        elif not isinstance(reason, str) and usage is not None:
            reason = "stop" if self._calls.keys() <= self._answered else "tool-calls"
        if isinstance(reason, str):
            self._builder.enqueue(MessageFinish(finish_reason=reason, usage=usage))
        self._end_parts()

    def _run_error(self, event: Mapping[str, Any]) -> None:
        self.ended = True
        usage, reason = _usage(event), _metadata(event).get("finishReason")
        if event.get("code") == "cancelled":
            self._builder.enqueue(MessageFinish(finish_reason="other", usage=usage or _NO_USAGE))
        elif reason == "error":
            self._builder.enqueue(MessageFinish(finish_reason="error", usage=usage))
        else:
            code = event.get("code")
            message = event.get("message")
            self._builder.enqueue(
                Error(
                    error=message if isinstance(message, str) else None,
                    code=code if isinstance(code, str) else None,
                )
            )
            if usage is not None:
                self._builder.enqueue(MessageFinish(finish_reason="error", usage=usage))
        self._end_parts()

    def _end_parts(self) -> None:
        """Nothing more comes of any part; the arguments of a call that is open are not complete."""
        for name in self._open_calls:
            self._builder.enqueue(PartFinish(path=(self._calls[name],)))
        self._open_calls.clear()
        self._builder.finish()

    # Texts and reasoning

    def _text_start(self, event: Mapping[str, Any]) -> None:
        name = text_of(event["messageId"])
        if name in self._texts:
            return
        if event.get("role", "assistant") != "assistant":
            self._texts[name] = None
            return
        fields = {"type": "text", **_known(event, "parentId", "providerMetadata")}
        self._texts[name] = _Block(self._builder.start(Part.from_json(fields)))

    def _text_content(self, event: Mapping[str, Any]) -> None:
        name = text_of(event["messageId"])
        delta = text_of(event["delta"])
        if name not in self._texts:
            self._text_start({"messageId": name})
        self._append(self._texts[name], delta, event)

    def _text_end(self, event: Mapping[str, Any]) -> None:
        block = self._texts.pop(text_of(event["messageId"]), None)
        if block is not None:
            self._builder.close_part(block.index, _provider(event))

    def _append(self, block: _Block | None, delta: str, event: Mapping[str, Any]) -> None:
        if block is not None and (delta or "metadata" in event):
            self._builder.append(block.index, delta, _provider(event))

    def _reasoning_start(self, event: Mapping[str, Any]) -> None:
        self._spans.add(text_of(event.get("messageId", "")))

    def _thought_start(self, event: Mapping[str, Any]) -> None:
        name = text_of(event.get("messageId", ""))
        known = self._thoughts.get(name)
        if known is not None and not known.message_ended:
            return
        if known is not None:  # a second message of one id in one span
            self._close_thought(name)
        fields: dict[str, Any] = {"type": "reasoning", **_known(event, "parentId", "providerMetadata")}
        if isinstance(_metadata(event).get("summary"), str):
            fields["unstable_summary"] = _metadata(event)["summary"]
        self._thoughts[name] = _Block(self._builder.start(Part.from_json(fields)))

    def _thought_content(self, event: Mapping[str, Any]) -> None:
        name = text_of(event.get("messageId", ""))
        delta = text_of(event["delta"])
        if name not in self._thoughts:
            self._thought_start({"messageId": name})
        self._append(self._thoughts[name], delta, event)

    def _thought_end(self, event: Mapping[str, Any]) -> None:
        name = text_of(event.get("messageId", ""))
        block = self._thoughts.get(name)
        if block is not None:
            block.message_ended = True
            block.metadata = _provider(event)
            if name not in self._spans:
                self._close_thought(name)

    def _reasoning_end(self, event: Mapping[str, Any]) -> None:
        name = text_of(event.get("messageId", ""))
        self._spans.discard(name)
        block = self._thoughts.get(name)
        if block is not None and block.message_ended:
            self._close_thought(name)

    def _close_thought(self, name: str) -> None:
        block = self._thoughts.pop(name)
        self._builder.close_part(block.index, block.metadata)

    def _encrypted(self, event: Mapping[str, Any]) -> None:
        """What a provider wants back. Of a message that has ended nothing can be said any more."""
        name, value = text_of(event["entityId"]), text_of(event["encryptedValue"])
        block = self._thoughts.get(name) or self._texts.get(name)
        if event.get("subtype") != "tool-call" and block is not None:
            self._builder.append(block.index, "", {"ag-ui": {"encryptedValue": value}})

    # Tool calls

    def _call_start(self, event: Mapping[str, Any]) -> None:
        name = text_of(event["toolCallId"])
        if name in self._calls:
            return
        fields = {"type": "tool-call", "toolName": text_of(event["toolCallName"]), "toolCallId": name}
        self._calls[name] = self._builder.start(Part.from_json({**fields, **_known(event, *_CALL_FIELDS)}))
        self._open_calls[name] = None

    def _call_args(self, event: Mapping[str, Any]) -> None:
        index, delta = self._calls[text_of(event["toolCallId"])], text_of(event["delta"])
        if delta and self._builder.args_open(index):
            self._builder.append_args(index, delta)

    def _call_end(self, event: Mapping[str, Any]) -> None:
        name = text_of(event["toolCallId"])
        self._open_calls.pop(name, None)
        self._builder.close_args(self._calls[name])

    def _call_result(self, event: Mapping[str, Any]) -> None:
        metadata = _metadata(event)
        if metadata.get(INVALID_ARGUMENTS) is True:
            return
        content = event.get("content")
        if metadata.get("contentType") == JSON_TYPE and isinstance(content, str):
            content = parse_json(content)
        self._respond(text_of(event["toolCallId"]), {"result": content, **metadata})

    def _respond(self, name: str, fields: Mapping[str, Any]) -> None:
        known = {key: fields[key] for key in ("result", "isPreliminary", *_RESULT_FIELDS) if key in fields}
        result = AssistantStreamChunk.from_json({"type": "result", "path": [0], "isError": False, **known})
        assert isinstance(result, Result)
        self._builder.respond(self._call(name), result)
        if not result.is_preliminary:
            self._answered.add(name)
            self._open_calls.pop(name, None)

    def _call(self, name: str) -> int:
        """The part of a call; one of an earlier run gets a part without a name."""
        index = self._builder.reopen(ToolCallPart(tool_name="", tool_call_id=name))
        self._calls.setdefault(name, index)
        return index

    def _approve(self, name: str, approval: object) -> None:
        if not is_approval(approval):
            raise ValueError("not an approval")
        self._approvals.add(name)
        self._builder.approve(self._call(name), approval)  # type: ignore[arg-type]  # it is a mapping

    def _interrupt(self, interrupt: Mapping[str, Any]) -> None:
        """What is asked of the user is kept where it concerns a call, unless the call says it already."""
        name = interrupt.get("toolCallId")
        if isinstance(name, str) and name in self._calls and name not in self._approvals:
            message = interrupt.get("message")
            prompt = {"prompt": message} if isinstance(message, str) else {}
            self._approve(name, {"id": interrupt.get("id"), **prompt})

    # Events that begin what they continue, and end what came before

    def _text_chunk(self, event: Mapping[str, Any]) -> None:
        self._chunk("text", event, "messageId", self._text_start, self._text_content)

    def _thought_chunk(self, event: Mapping[str, Any]) -> None:
        self._chunk("reasoning", event, "messageId", self._thought_start, self._thought_content)

    def _call_chunk(self, event: Mapping[str, Any]) -> None:
        self._chunk("call", event, "toolCallId", self._call_start, self._call_args)

    def _chunk(
        self,
        kind: str,
        event: Mapping[str, Any],
        key: str,
        start: Callable[[Mapping[str, Any]], None],
        more: Callable[[Mapping[str, Any]], None],
    ) -> None:
        if event.get(key) is None and self._chunked is not None and self._chunked[0] == kind:
            event = {**event, key: self._chunked[1]}
        if (kind, event[key]) != self._chunked:
            if self._chunked is not None:
                self._end_chunked()
            start(event)
            self._chunked = (kind, text_of(event[key]))
        if event.get("delta"):
            more(event)

    def _end_chunked(self, *, complete: bool = True) -> None:
        assert self._chunked is not None
        (kind, name), self._chunked = self._chunked, None
        if kind == "text":
            self._text_end({"messageId": name})
        elif kind == "reasoning":
            self._thought_end({"messageId": name})
        elif complete:
            self._call_end({"toolCallId": name})

    # Steps, the state, and what the application shows

    def _step_started(self, event: Mapping[str, Any]) -> None:
        if not _metadata(event).get("implied"):
            self._builder.enqueue(StepStart(message_id=text_of(event["stepName"])))

    def _step_finished(self, event: Mapping[str, Any]) -> None:
        metadata = _metadata(event)
        if metadata.get("unfinished"):
            return
        fields: Any = {key: metadata[key] for key in ("usage", "isContinued") if key in metadata}
        reason = metadata.get("finishReason", "unknown")
        finished = message_chunk("step-finish", {"finishReason": reason, **fields})
        assert isinstance(finished, StepFinish)
        self._builder.enqueue(finished)

    def _state_snapshot(self, event: Mapping[str, Any]) -> None:
        self._state = event["snapshot"]
        self._builder.enqueue(UpdateState(operations=(StateOperation("set", (), self._state),)))

    def _state_delta(self, event: Mapping[str, Any]) -> None:
        operations, self._state = operations_of(self._state, _list(event["delta"]))
        if operations:
            self._builder.enqueue(UpdateState(operations=tuple(operations)))

    def _activity_snapshot(self, event: Mapping[str, Any]) -> None:
        name = text_of(event["messageId"])
        if name in self._activities and event.get("replace") is False:
            return
        self._activity(name, text_of(event["activityType"]), event["content"], event)

    def _activity_delta(self, event: Mapping[str, Any]) -> None:
        name = text_of(event["messageId"])
        _, content = operations_of(self._activities[name], _list(event["patch"]))
        self._activity(name, text_of(event["activityType"]), content, event)

    def _activity(self, name: str, kind: str, content: Any, event: Mapping[str, Any]) -> None:
        self._activities[name] = content
        part_id = name.removeprefix(activity_id(self._run_id, kind, ""))
        self._output.add_whole(
            DataPart, {"name": kind, "data": content, "id": part_id, **_known(event, "parentId")}
        )

    def _custom(self, event: Mapping[str, Any]) -> None:
        name, value = text_of(event["name"]), event["value"]
        try:
            if self._own(name, value):
                return
        except (KeyError, TypeError, ValueError):
            pass  # an application's event that has the name of one of ours
        own = name.startswith("data-")
        fields = {"name": name.removeprefix("data-"), "data": value}
        self._output.add_whole(
            DataPart, {**fields, **(_known(event, "parentId", "id", "transient") if own else {})}
        )

    def _own(self, name: str, value: Any) -> bool:
        """Whether the event is one of those that stand for what the protocol has no event for."""
        if name in ("source", "file"):
            self._output.add_whole(SourcePart if name == "source" else FilePart, value)
        elif name in ("data", "annotations"):
            self._builder.enqueue(message_chunk(name, {name: value}))
        elif name in ("warning", "info"):
            code = value.get("code") if isinstance(value, Mapping) else None
            text = text_of(value["message"])
            self._builder.enqueue(Error(error=text, code=None if code is None else text_of(code), severity=name))
        elif name == "tool-call-approval":
            self._approve(text_of(value["toolCallId"]), value["approval"])
        elif name == "tool-result-preliminary":
            self._respond(text_of(value["toolCallId"]), {**value, "isPreliminary": True})
        else:
            return False
        return True

    _HANDLERS: Mapping[str, Callable[[Reader, Any], None]] = {
        "RUN_STARTED": _run_started,
        "RUN_FINISHED": _run_finished,
        "RUN_ERROR": _run_error,
        "TEXT_MESSAGE_START": _text_start,
        "TEXT_MESSAGE_CONTENT": _text_content,
        "TEXT_MESSAGE_END": _text_end,
        "TEXT_MESSAGE_CHUNK": _text_chunk,
        "REASONING_START": _reasoning_start,
        "REASONING_MESSAGE_START": _thought_start,
        "REASONING_MESSAGE_CONTENT": _thought_content,
        "REASONING_MESSAGE_END": _thought_end,
        "REASONING_MESSAGE_CHUNK": _thought_chunk,
        "REASONING_END": _reasoning_end,
        "REASONING_ENCRYPTED_VALUE": _encrypted,
        "THINKING_TEXT_MESSAGE_START": _thought_start,  # of producers before 1.0, without an id
        "THINKING_TEXT_MESSAGE_CONTENT": _thought_content,
        "THINKING_TEXT_MESSAGE_END": _thought_end,
        "TOOL_CALL_START": _call_start,
        "TOOL_CALL_ARGS": _call_args,
        "TOOL_CALL_END": _call_end,
        "TOOL_CALL_CHUNK": _call_chunk,
        "TOOL_CALL_RESULT": _call_result,
        "STEP_STARTED": _step_started,
        "STEP_FINISHED": _step_finished,
        "STATE_SNAPSHOT": _state_snapshot,
        "STATE_DELTA": _state_delta,
        "ACTIVITY_SNAPSHOT": _activity_snapshot,
        "ACTIVITY_DELTA": _activity_delta,
        "CUSTOM": _custom,
    }


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _metadata(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(event.get("metadata"))


def _provider(event: Mapping[str, Any]) -> Any:
    found = _metadata(event).get("providerMetadata")
    return found if isinstance(found, Mapping) else None


def _known(event: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of an event's metadata that are ours."""
    metadata = _metadata(event)
    return {name: metadata[name] for name in names if name in metadata}


def _usage(event: Mapping[str, Any]) -> Any:
    """What was used, over all models that the event names; None if it says nothing."""
    own = _metadata(event).get("usage")
    if isinstance(own, Mapping):
        return own
    entries = [entry for entry in event.get("usage") or () if isinstance(entry, Mapping)]
    if len(entries) < 2:
        return entries[0] if entries else None
    total: dict[str, Any] = {}
    for entry in entries:
        for name, count in entry.items():
            if type(count) is int:
                total[name] = total.get(name, 0) + count
    return total
