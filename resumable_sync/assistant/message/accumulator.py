"""From chunks to the message that they build: what a front end shows and an application stores."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import MalformedStreamError, StreamFinalizedError
from .chunks import (
    SEVERITIES,
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
from .jsontext import JsonValue, concat
from .partial_json import PartialJson
from .parts import UNSET, DataPart, FilePart, Part, ReasoningPart, SourcePart, TextPart, ToolCallPart
from .state import apply_operation

logger = logging.getLogger("resumable_sync")

_TIMED = ("reasoning", "tool-call")


class AssistantMessage(dict[str, Any]):
    """A message in the JavaScript shape. `message["content"]` is the old name of `message["parts"]`.

    The alias is no key of its own, so that a stored message does not hold its parts twice.
    """

    def __missing__(self, key: str) -> Any:
        if key == "content":
            return self["parts"]
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As for a dict, and the alias is found too."""
        return super().get("parts" if key == "content" else key, default)


class AssistantMessageAccumulator:
    """Builds the message as the JavaScript accumulator does, one chunk at a time.

    Every message returned is a snapshot: later chunks make new ones. Snapshots share what did not change, so
    treat them as read-only. A delta costs time in proportion to its length, and to that of the text before where
    somebody still holds an older snapshot: also in `message = accumulator.add(chunk)`, which holds the last one
    meanwhile. Who needs the message now and then drops what `add` returns and asks `message`. `initial_message`
    continues an earlier message. A chunk that addresses no part, or one of the wrong kind, is logged and
    skipped. A state operation that cannot be applied raises MalformedStreamError, or is logged and skipped where
    `strict` is false. Times (`timing`) of reasoning and tool calls are measured, in milliseconds, with a `clock`
    alone, such as `time.time`: what is read from a store was written at another time. One thread at a time;
    nothing blocks.
    """

    def __init__(
        self,
        initial_message: Mapping[str, Any] | None = None,
        *,
        strict: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._strict = strict
        self._clock = clock
        self._finished = False
        self._fields: dict[str, Any] = (
            dict(initial_message)
            if initial_message
            else {
                "role": "assistant",
                "status": {"type": "running"},
                "parts": [],
                "metadata": {
                    "unstable_state": None,
                    "unstable_data": [],
                    "unstable_annotations": [],
                    "steps": [],
                    "custom": {},
                },
            }
        )
        # The parts; of those that are being written, by their index, what grows is kept apart. No message that
        # was handed out is kept here, so that a text can grow in place once nobody holds what it was.
        self._parts: list[Any] = list(self._fields["parts"])
        self._texts: dict[int, str] = {}
        self._args: dict[int, PartialJson] = {}

    @property
    def message(self) -> AssistantMessage:
        """The message so far, as a new snapshot."""
        parts = list(self._parts)
        for at, text in self._texts.items():
            parts[at] = {**parts[at], "text": text}
        for at, args in self._args.items():
            parts[at] = {**parts[at], "argsText": args.text, "args": args.value}
        return AssistantMessage({**self._fields, "parts": parts})

    def add(self, chunk: AssistantStreamChunk) -> AssistantMessage:
        """Take the next chunk and return the message so far.

        StreamFinalizedError after `finish`; MalformedStreamError as said above, and the message stays as it was.
        """
        if self._finished:
            raise StreamFinalizedError("the message is finished: no chunk can be added after finish()")
        if isinstance(chunk, PartStart):
            self._parts.append(self._with_start(_new_part(chunk.part)))
        elif isinstance(chunk, UIFrame):
            self._take_frame(chunk.frame)
        elif isinstance(chunk, (TextDelta, PartFinish, Result, ToolCallApproval, ToolCallArgsTextFinish)):
            self._change_part(chunk)
        elif isinstance(chunk, MessageFinish):
            self._finish_message(chunk.finish_reason)
        elif isinstance(chunk, Error):
            self._fields["status"] = {"type": "incomplete", "reason": "error", "error": _error(chunk)}
        else:
            self._change_metadata(chunk)
        return self.message

    def finish(self) -> AssistantMessage:
        """The stream has ended: return the final message. Idempotent.

        A message that is still running ends as `requires-action` if a tool call is unanswered, else as
        `complete`.
        """
        if not self._finished:
            self._finished = True
            if self._fields["status"]["type"] == "running":
                unanswered = any(part["type"] == "tool-call" and part["state"] != "result" for part in self._parts)
                self._finish_message("tool-calls" if unanswered else "unknown")
        return self.message

    def _finish_message(self, reason: str) -> None:
        status = self._fields["status"]
        if status["type"] == "incomplete" and status["reason"] == "error":
            return  # a provider's finish chunk must not hide the error
        kind = {"tool-calls": "requires-action", "stop": "complete", "unknown": "complete"}
        self._fields["status"] = {"type": kind.get(reason, "incomplete"), "reason": reason}

    def _take_frame(self, frame: Mapping[str, JsonValue]) -> None:
        """Take what the AI SDK's format alone has, as far as the message has a place for it."""
        given = frame.get("messageMetadata")
        if frame["type"] == "message-metadata" and isinstance(given, Mapping):
            metadata = self._fields["metadata"]
            self._fields["metadata"] = {**metadata, "custom": _merged(metadata["custom"], given)}
        elif frame["type"] == "abort":
            self._finish_message("other")

    def _change_part(self, chunk: AssistantStreamChunk) -> None:
        if len(chunk.path) != 1 or chunk.path[0] >= len(self._parts):
            logger.warning("skipped a %s chunk: no part at path %s", chunk.type, list(chunk.path))
            return
        at = chunk.path[0]
        part = self._parts[at]
        is_call = part["type"] == "tool-call"
        if isinstance(chunk, PartFinish):
            self._finish_part(at, part, chunk)
        elif isinstance(chunk, TextDelta) and (is_call or part["type"] in ("text", "reasoning")):
            self._grow(at, part, chunk)
        elif not is_call or isinstance(chunk, TextDelta):
            logger.warning("skipped a %s chunk: part %d is a %s", chunk.type, at, part["type"])
        elif isinstance(chunk, Result):
            if not chunk.is_preliminary:
                self._store_text(at)
            self._parts[at] = self._with_result(self._parts[at], chunk)
        elif isinstance(chunk, ToolCallApproval):
            self._parts[at] = {**part, "approval": chunk.approval}
        elif part["state"] == "partial-call":
            running = part["status"]["type"] == "running"
            status = {"type": "running", "isArgsComplete": True} if running else part["status"]
            self._parts[at] = {**part, "state": "call", "status": status}

    def _grow(self, at: int, part: dict[str, Any], chunk: TextDelta) -> None:
        """More text of a part, or more arguments."""
        if part["type"] == "tool-call":
            args = self._args.get(at)
            if args is None:
                args = self._args[at] = PartialJson(part["args"])
                args.feed(part["argsText"])
            args.feed(chunk.text_delta)
            return
        if chunk.provider_metadata is not None:
            self._parts[at] = {**part, "providerMetadata": chunk.provider_metadata}
        text = self._texts.pop(at, part["text"])
        if text and "\ud800" <= text[-1] <= "\udbff":
            text = concat(text, chunk.text_delta)
        else:
            text += chunk.text_delta
        self._texts[at] = text

    def _store_text(self, at: int) -> None:
        """Put what grew into its part: little or nothing more will come."""
        if at in self._texts:
            self._parts[at] = {**self._parts[at], "text": self._texts.pop(at)}
        if at in self._args:
            args = self._args.pop(at)
            self._parts[at] = {**self._parts[at], "argsText": args.text, "args": args.value}

    def _finish_part(self, at: int, part: dict[str, Any], chunk: PartFinish) -> None:
        self._store_text(at)
        if part.get("isPreliminary"):
            return  # the call is still unanswered
        changes: dict[str, Any] = {"status": {"type": "complete", "reason": "unknown"}}
        if chunk.provider_metadata is not None and part["type"] in ("text", "reasoning"):
            changes["providerMetadata"] = chunk.provider_metadata
        part = self._parts[at]
        self._parts[at] = {**(self._with_end(part) if part["type"] == "reasoning" else part), **changes}

    def _with_result(self, part: dict[str, Any], chunk: Result) -> dict[str, Any]:
        """The call with an answer, in place of the one before. A preliminary one after the final one is none."""
        if chunk.is_preliminary and part["state"] == "result":
            return part
        answer = {
            "artifact": chunk.artifact,
            "result": chunk.result,
            "isError": chunk.is_error,
            "isPreliminary": True if chunk.is_preliminary else UNSET,
            "modelContent": chunk.model_content,
            "messages": chunk.messages,
        }
        changed = {key: value for key, value in part.items() if key not in answer}
        changed.update({key: value for key, value in answer.items() if value is not UNSET})
        if not chunk.is_preliminary:
            status = {"type": "complete", "reason": "stop"}
            return self._with_end({**changed, "state": "result", "status": status})
        if part["status"]["type"] != "running":
            args_complete = part["state"] != "partial-call"
            changed["status"] = {"type": "running", "isArgsComplete": args_complete}
        return changed

    def _with_start(self, part: dict[str, Any]) -> dict[str, Any]:
        if self._clock is None or part["type"] not in _TIMED:
            return part
        return {**part, "timing": {"startedAt": int(self._clock() * 1000)}}

    def _with_end(self, part: dict[str, Any]) -> dict[str, Any]:
        if self._clock is None or "timing" not in part:
            return part
        return {**part, "timing": {"completedAt": int(self._clock() * 1000), **part["timing"]}}

    def _change_metadata(self, chunk: AssistantStreamChunk) -> None:
        old = self._fields["metadata"]
        if isinstance(chunk, Annotations):
            new = {"unstable_annotations": [*old["unstable_annotations"], *chunk.annotations]}
        elif isinstance(chunk, Data):
            new = {"unstable_data": [*old["unstable_data"], *chunk.data]}
        elif isinstance(chunk, StepStart):
            started = {"state": "started", **_present(messageId=chunk.message_id)}
            new = {"steps": [*old["steps"], started]}
        elif isinstance(chunk, StepFinish):
            new = {"steps": _finish_step(old["steps"], chunk)}
        elif isinstance(chunk, UpdateState):
            new = {"unstable_state": self._apply(old["unstable_state"], chunk)}
        else:
            raise MalformedStreamError(f"not a chunk: {type(chunk).__name__}")
        self._fields["metadata"] = {**old, **new}

    def _apply(self, state: JsonValue, chunk: UpdateState) -> Any:
        for operation in chunk.operations:
            try:
                state = apply_operation(state, operation)
            except MalformedStreamError:
                if self._strict:
                    raise
                logger.warning("skipped a state operation that cannot be applied", exc_info=True)
        return state


def _merged(old: Any, new: Any) -> Any:
    """Objects are merged key by key, anything else is replaced."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _new_part(part: Part) -> dict[str, Any]:
    parent = {"parentId": part.parent_id} if part.parent_id else {}
    running = {"type": "running"}
    if isinstance(part, TextPart):
        metadata = _present(providerMetadata=part.provider_metadata)
        return {"type": "text", "text": "", "status": running, **metadata, **parent}
    if isinstance(part, ToolCallPart):
        return {
            "type": "tool-call",
            "state": "partial-call",
            "status": {**running, "isArgsComplete": False},
            "toolCallId": part.tool_call_id,
            "toolName": part.tool_name,
            "argsText": "",
            "args": {},
            **parent,
        }
    if isinstance(part, SourcePart):
        named = part.title is not None if part.source_type == "document" else bool(part.title)
        fields: dict[str, Any] = {"title": part.title} if named else {}
        if part.source_type == "document":
            fields["mediaType"] = part.media_type or "application/octet-stream"
            fields.update({"filename": part.filename} if part.filename else {})
        else:
            fields["url"] = part.url
        return {"type": "source", "sourceType": part.source_type, "id": part.id, **fields, **parent}
    if isinstance(part, FilePart):
        return {"type": "file", "mimeType": part.mime_type, "data": part.data, **parent}
    if isinstance(part, DataPart):
        return {"type": "data", "name": part.name, "data": part.data, **parent}
    if isinstance(part, ReasoningPart):
        optional = _present(providerMetadata=part.provider_metadata, unstable_summary=part.unstable_summary)
        return {"type": "reasoning", "text": "", "status": running, **optional, **parent}
    logger.warning("a part of an unknown type becomes an empty reasoning part, to keep the others' places")
    return {"type": "reasoning", "text": "", "status": running}


def _finish_step(steps: list[Any], chunk: StepFinish) -> list[Any]:
    """The last step ends if it was started, else a step that nobody started is added."""
    finished = {
        "state": "finished",
        "finishReason": chunk.finish_reason,
        **_present(usage=chunk.usage, isContinued=chunk.is_continued),
    }
    if steps and steps[-1]["state"] == "started":
        return [*steps[:-1], {**steps[-1], **finished}]
    return [*steps, {"messageId": secrets.token_hex(8), **finished}]


def _error(chunk: Error) -> dict[str, Any]:
    severity = chunk.severity if chunk.severity in SEVERITIES else None
    return {
        "code": "unknown" if chunk.code is None else chunk.code,
        "message": "unknown error" if chunk.error is None else chunk.error,
        **_present(severity=severity),
    }
