"""The chunks of an assistant stream, as frozen, typed values.

`to_json` and `from_json` speak the JavaScript shape (camelCase keys). A value that was read from JSON keeps
that JSON, so writing it again changes neither the order of its keys nor fields that this version does not
know. Values never change after they were made; the JSON values inside them are shared, so treat them as
read-only. That makes all of them safe to pass between threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

from ...errors import MalformedStreamError
from .jsontext import JsonValue, jsonable
from .parts import (
    PROVIDER_METADATA,
    UNSET,
    Field,
    Part,
    Unset,
    extra,
    fields_from_json,
    fields_to_json,
    is_anything,
    is_boolean,
    is_list,
    is_object,
    is_text,
)

FINISH_REASONS = ("stop", "length", "content-filter", "tool-calls", "error", "other", "unknown")
"""Why a step or a message ended. Other strings are passed on."""

SEVERITIES = ("critical", "warning", "info")
"""How bad an error is. The latter two do not end a message."""


@dataclass(frozen=True)
class StateOperation:
    """One change of the state: `set` a value, or `append-text` to a string, at `path`."""

    type: Literal["set", "append-text"]
    path: tuple[str, ...]
    value: JsonValue

    def to_json(self) -> dict[str, JsonValue]:
        """The JavaScript shape."""
        return {"type": self.type, "path": list(self.path), "value": self.value}

    @staticmethod
    def from_json(data: object) -> StateOperation:
        """Read the JavaScript shape; MalformedStreamError if it is none."""
        if isinstance(data, Mapping) and data.get("type") in ("set", "append-text") and "value" in data:
            path = data.get("path")
            if isinstance(path, (list, tuple)) and all(isinstance(key, (str, int)) for key in path):
                return StateOperation(data["type"], tuple(map(str, path)), data["value"])
        raise MalformedStreamError(f"not a state operation: {data!r:.80}")


_ChunkT = TypeVar("_ChunkT", bound="AssistantStreamChunk")


@dataclass(frozen=True, kw_only=True)
class AssistantStreamChunk:
    """One step in the making of a message. `path` is () for the message, (i,) for its i-th part."""

    path: tuple[int, ...] = ()
    raw: Mapping[str, JsonValue] | None = field(default=None, repr=False, compare=False)
    type: ClassVar[str] = ""
    _fields: ClassVar[tuple[Field, ...]] = ()
    _of_part: ClassVar[bool] = False

    def to_json(self) -> dict[str, JsonValue]:
        """The JavaScript shape, as a new dict."""
        if self.raw is not None:
            return dict(self.raw)
        data: dict[str, JsonValue] = {"type": self.type, "path": list(self.path)}
        fields_to_json(self, self._fields, data)
        return data

    def with_path(self: _ChunkT, path: tuple[int, ...]) -> _ChunkT:
        """The same chunk addressed to `path`."""
        raw = self.raw
        return replace(self, path=path, raw=None if raw is None else {**raw, "path": list(path)})

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> AssistantStreamChunk:
        """Read the JavaScript shape. `path` may be missing on chunks that address the message.

        MalformedStreamError (a ValueError) for an unknown type, a bad path, or fields that are missing or
        of a wrong type; TypeError for values that JSON cannot hold. Pure; thread-safe.
        """
        if not isinstance(data, Mapping):
            raise MalformedStreamError(f"a chunk is an object, not {data!r:.80}")
        made = _CHUNKS.get(data["type"]) if isinstance(data.get("type"), str) else None
        if made is None:
            raise MalformedStreamError(f"not a type of chunk: {data.get('type')!r:.80}")
        copied: Any = jsonable(data)
        path = copied.setdefault("path", None if made._of_part else [])
        if not is_list(path) or not all(type(index) is int and index >= 0 for index in path):
            raise MalformedStreamError(f"a {made.type} chunk with a wrong path: {path!r:.80}")
        taken = fields_from_json(made._fields, copied, f"a {made.type} chunk")
        return made(path=tuple(path), raw=copied, **made._converted(taken))

    @classmethod
    def _converted(cls, taken: dict[str, Any]) -> dict[str, Any]:
        return taken


@dataclass(frozen=True, kw_only=True)
class PartStart(AssistantStreamChunk):
    """Opens a part: the i-th of these opens part i."""

    part: Part
    type: ClassVar[str] = "part-start"
    _fields: ClassVar[tuple[Field, ...]] = (Field("part", "part", is_object),)

    def to_json(self) -> dict[str, JsonValue]:
        """The JavaScript shape, as a new dict."""
        if self.raw is not None:
            return dict(self.raw)
        return {"type": self.type, "part": self.part.to_json(), "path": list(self.path)}

    @classmethod
    def _converted(cls, taken: dict[str, Any]) -> dict[str, Any]:
        return {"part": Part.from_json(taken["part"])}


@dataclass(frozen=True, kw_only=True)
class PartFinish(AssistantStreamChunk):
    """Nothing more comes for this part. Provider metadata replaces that of a text or reasoning part."""

    provider_metadata: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "part-finish"
    _fields: ClassVar[tuple[Field, ...]] = (PROVIDER_METADATA,)
    _of_part: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class TextDelta(AssistantStreamChunk):
    """More text of a text or reasoning part, or of a tool call's arguments.

    Provider metadata replaces that of a text or reasoning part.
    """

    text_delta: str
    provider_metadata: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "text-delta"
    _fields: ClassVar[tuple[Field, ...]] = (Field("text_delta", "textDelta", is_text), PROVIDER_METADATA)
    _of_part: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class ToolCallArgsTextFinish(AssistantStreamChunk):
    """A tool call's arguments are complete."""

    type: ClassVar[str] = "tool-call-args-text-finish"
    _of_part: ClassVar[bool] = True


def is_approval(value: object) -> bool:
    """Whether `value` is an approval: an object with an `id`; its `approved`, if there, is true or false."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("id"), str)
        and (value.get("approved") is None or isinstance(value["approved"], bool))
    )


@dataclass(frozen=True, kw_only=True)
class ToolCallApproval(AssistantStreamChunk):
    """Whether a tool call may run: asked, or decided where `approved` says so. A newer one replaces an older.

    The keys of `approval` are `id`, `approved`, `reason`, `prompt`, `requestReason`, `isAutomatic`, `signature`,
    `descriptor` and `inputSchemaInput`; others are kept.
    """

    approval: Mapping[str, JsonValue]
    type: ClassVar[str] = "tool-call-approval"
    _fields: ClassVar[tuple[Field, ...]] = (Field("approval", "approval", is_approval),)
    _of_part: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Result(AssistantStreamChunk):
    """What a tool returned. `artifact` is for the user interface alone, `model_content` for the model.

    A preliminary one leaves the call unanswered; the next one replaces it with all that it brought. The last
    four fields belong to the AI SDK.
    """

    artifact: JsonValue | Unset = UNSET
    result: JsonValue | Unset = UNSET
    is_error: bool = False
    is_preliminary: bool = False
    model_content: Sequence[JsonValue] | Unset = UNSET
    messages: JsonValue | Unset = UNSET
    provider_executed: bool | None = None
    provider_metadata: Mapping[str, JsonValue] | None = None
    tool_metadata: Mapping[str, JsonValue] | None = None
    dynamic: bool | None = None
    type: ClassVar[str] = "result"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("artifact", "artifact", is_anything, False, UNSET),
        Field("result", "result", is_anything, False, UNSET),
        Field("is_error", "isError", is_boolean, False, UNSET),
        Field("is_preliminary", "isPreliminary", is_boolean, False, False, tolerant=True),
        Field("model_content", "modelContent", is_list, False, UNSET, tolerant=True),
        Field("messages", "messages", is_anything, False, UNSET),
        extra("provider_executed", "providerExecuted", is_boolean),
        PROVIDER_METADATA,
        extra("tool_metadata", "toolMetadata", is_object),
        extra("dynamic", "dynamic", is_boolean),
    )
    _of_part: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Annotations(AssistantStreamChunk):
    """Annotations of the message."""

    annotations: Sequence[JsonValue]
    type: ClassVar[str] = "annotations"
    _fields: ClassVar[tuple[Field, ...]] = (Field("annotations", "annotations", is_list),)


@dataclass(frozen=True, kw_only=True)
class Data(AssistantStreamChunk):
    """Application data beside the message."""

    data: Sequence[JsonValue]
    type: ClassVar[str] = "data"
    _fields: ClassVar[tuple[Field, ...]] = (Field("data", "data", is_list),)


@dataclass(frozen=True, kw_only=True)
class StepStart(AssistantStreamChunk):
    """A step of generation begins."""

    message_id: str | None = None
    type: ClassVar[str] = "step-start"
    _fields: ClassVar[tuple[Field, ...]] = (Field("message_id", "messageId", is_text, required=False),)


@dataclass(frozen=True, kw_only=True)
class StepFinish(AssistantStreamChunk):
    """A step ends. `usage` counts tokens: inputTokens, outputTokens, and what else a provider tells."""

    finish_reason: str
    usage: Mapping[str, JsonValue] | None = None
    is_continued: bool | None = None
    type: ClassVar[str] = "step-finish"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("finish_reason", "finishReason", is_text),
        Field("usage", "usage", is_object, required=False),
        Field("is_continued", "isContinued", is_boolean, required=False),
    )


@dataclass(frozen=True, kw_only=True)
class MessageFinish(AssistantStreamChunk):
    """The message is complete; parts may still be closed after it."""

    finish_reason: str
    usage: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "message-finish"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("finish_reason", "finishReason", is_text),
        Field("usage", "usage", is_object, required=False),
    )


@dataclass(frozen=True, kw_only=True)
class Error(AssistantStreamChunk):
    """Something failed. `severity` is critical (also when absent), warning or info."""

    error: str | None = None
    code: str | None = None
    severity: str | None = None
    type: ClassVar[str] = "error"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("error", "error", is_text, required=False),
        Field("code", "code", is_text, required=False),
        Field("severity", "severity", is_text, required=False),
    )


@dataclass(frozen=True, kw_only=True)
class UpdateState(AssistantStreamChunk):
    """Changes of the state that accompanies the message, in order."""

    operations: tuple[StateOperation, ...]
    type: ClassVar[str] = "update-state"
    _fields: ClassVar[tuple[Field, ...]] = (Field("operations", "operations", is_list),)

    def to_json(self) -> dict[str, JsonValue]:
        """The JavaScript shape, as a new dict."""
        if self.raw is not None:
            return dict(self.raw)
        operations = [operation.to_json() for operation in self.operations]
        return {"type": self.type, "path": list(self.path), "operations": operations}

    @classmethod
    def _converted(cls, taken: dict[str, Any]) -> dict[str, Any]:
        return {"operations": tuple(map(StateOperation.from_json, taken["operations"]))}


def is_frame(value: object) -> bool:
    """Whether `value` can be a frame of the AI SDK: an object with a `type`."""
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


@dataclass(frozen=True, kw_only=True)
class UIFrame(AssistantStreamChunk):
    """A frame that the AI SDK's format alone has, such as `message-metadata`. The other formats leave it out."""

    frame: Mapping[str, JsonValue]
    type: ClassVar[str] = "ui-frame"
    _fields: ClassVar[tuple[Field, ...]] = (Field("frame", "frame", is_frame),)


_CHUNKS: Mapping[str, type[AssistantStreamChunk]] = {
    chunk.type: chunk
    for chunk in (
        PartStart,
        PartFinish,
        TextDelta,
        ToolCallArgsTextFinish,
        ToolCallApproval,
        Result,
        Annotations,
        Data,
        StepStart,
        StepFinish,
        MessageFinish,
        Error,
        UpdateState,
        UIFrame,
    )
}
