"""From chunks to the message that they build: what a front end shows and an application stores."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from ...errors import MalformedStreamError, StreamFinalizedError
from .chunks import (
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
    treat them as read-only. `initial_message` continues an earlier message. A chunk that addresses no part,
    or one of the wrong kind, is logged and skipped. A state operation that cannot be applied raises
    MalformedStreamError, or is logged and skipped where `strict` is false. Times (`timing`) are not measured.
    One thread at a time; nothing blocks.
    """

    def __init__(self, initial_message: Mapping[str, Any] | None = None, *, strict: bool = True) -> None:
        self._strict = strict
        self._finished = False
        self._args: dict[int, PartialJson] = {}
        self.message = (
            AssistantMessage(initial_message)
            if initial_message
            else AssistantMessage(
                role="assistant",
                status={"type": "running"},
                parts=[],
                metadata={
                    "unstable_state": None,
                    "unstable_data": [],
                    "unstable_annotations": [],
                    "steps": [],
                    "custom": {},
                },
            )
        )
        """The message so far."""

    def add(self, chunk: AssistantStreamChunk) -> AssistantMessage:
        """Take the next chunk and return the message so far.

        StreamFinalizedError after `finish`; MalformedStreamError as said above, and the message stays as it was.
        """
        if self._finished:
            raise StreamFinalizedError("the message is finished: no chunk can be added after finish()")
        if isinstance(chunk, PartStart):
            self._update(parts=[*self.message["parts"], _new_part(chunk.part)])
        elif isinstance(chunk, UIFrame):
            self._take_frame(chunk.frame)
        elif isinstance(chunk, (TextDelta, PartFinish, Result, ToolCallApproval, ToolCallArgsTextFinish)):
            self._change_part(chunk)
        elif isinstance(chunk, MessageFinish):
            self._finish_message(chunk.finish_reason)
        elif isinstance(chunk, Error):
            self._update(status={"type": "incomplete", "reason": "error", "error": _error(chunk)})
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
            if self.message["status"]["type"] == "running":
                unanswered = any(
                    part["type"] == "tool-call" and part["state"] != "result" for part in self.message["parts"]
                )
                self._finish_message("tool-calls" if unanswered else "unknown")
        return self.message

    def _update(self, **fields: Any) -> None:
        self.message = AssistantMessage({**self.message, **fields})

    def _finish_message(self, reason: str) -> None:
        status = self.message["status"]
        if status["type"] == "incomplete" and status["reason"] == "error":
            return  # a provider's finish chunk must not hide the error
        kind = {"tool-calls": "requires-action", "stop": "complete", "unknown": "complete"}
        self._update(status={"type": kind.get(reason, "incomplete"), "reason": reason})

    def _take_frame(self, frame: Mapping[str, JsonValue]) -> None:
        """Take what the AI SDK's format alone has, as far as the message has a place for it."""
        given = frame.get("messageMetadata")
        if frame["type"] == "message-metadata" and isinstance(given, Mapping):
            metadata = self.message["metadata"]
            self._update(metadata={**metadata, "custom": _merged(metadata["custom"], given)})
        elif frame["type"] == "abort":
            self._finish_message("other")

    def _change_part(self, chunk: AssistantStreamChunk) -> None:
        parts = self.message["parts"]
        if len(chunk.path) != 1 or chunk.path[0] >= len(parts):
            logger.warning("skipped a %s chunk: no part at path %s", chunk.type, list(chunk.path))
            return
        at = chunk.path[0]
        changes = self._part_changes(chunk, parts[at], at)
        if changes is None:
            logger.warning("skipped a %s chunk: part %d is a %s", chunk.type, at, parts[at]["type"])
            return
        self._update(parts=[*parts[:at], {**parts[at], **changes}, *parts[at + 1 :]])

    def _part_changes(self, chunk: AssistantStreamChunk, part: Any, at: int) -> dict[str, Any] | None:
        """What changes in `part`, None if the chunk does not fit."""
        if isinstance(chunk, PartFinish):
            return {"status": {"type": "complete", "reason": "unknown"}}
        if isinstance(chunk, TextDelta) and part["type"] in ("text", "reasoning"):
            return {"text": concat(part["text"], chunk.text_delta)}
        if part["type"] != "tool-call":
            return None
        if isinstance(chunk, TextDelta):
            args = self._args.get(at)
            if args is None:
                args = self._args[at] = PartialJson()
                args.value = part["args"]
                if part["argsText"]:
                    args.feed(part["argsText"])
            args.feed(chunk.text_delta)
            return {"argsText": args.text, "args": args.value}
        if isinstance(chunk, ToolCallApproval):
            return {"approval": chunk.approval}
        if isinstance(chunk, Result):
            self._args.pop(at, None)
            return _result(chunk)
        if part["state"] != "partial-call":
            return {}
        if part["status"]["type"] != "running":
            return {"state": "call"}
        return {"state": "call", "status": {"type": "running", "isArgsComplete": True}}

    def _change_metadata(self, chunk: AssistantStreamChunk) -> None:
        old = self.message["metadata"]
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
        self._update(metadata={**old, **new})

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
        return {"type": "text", "text": "", "status": running, **parent}
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
        title = {"title": part.title} if part.title else {}
        return {
            "type": "source",
            "sourceType": part.source_type,
            "id": part.id,
            "url": part.url,
            **title,
            **parent,
        }
    if isinstance(part, FilePart):
        return {"type": "file", "mimeType": part.mime_type, "data": part.data, **parent}
    if isinstance(part, DataPart):
        return {"type": "data", "name": part.name, "data": part.data, **parent}
    if isinstance(part, ReasoningPart):
        summary = _present(unstable_summary=part.unstable_summary)
        return {"type": "reasoning", "text": "", "status": running, **summary, **parent}
    logger.warning("a part of an unknown type becomes an empty reasoning part, to keep the others' places")
    return {"type": "reasoning", "text": "", "status": running}


def _result(chunk: Result) -> dict[str, Any]:
    fields = {
        "artifact": chunk.artifact,
        "result": chunk.result,
        "isError": chunk.is_error,
        "modelContent": chunk.model_content,
        "messages": chunk.messages,
    }
    present = {name: value for name, value in fields.items() if value is not UNSET}
    return {"state": "result", **present, "status": {"type": "complete", "reason": "stop"}}


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
    severity = chunk.severity if chunk.severity in ("critical", "warning", "info") else None
    return {
        "code": "unknown" if chunk.code is None else chunk.code,
        "message": "unknown error" if chunk.error is None else chunk.error,
        **_present(severity=severity),
    }
