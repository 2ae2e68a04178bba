"""The parts of an assistant message as frozen, typed values, and how such values map to JSON fields.

Nothing changes after it was made; the JSON values inside are shared, so treat them as read-only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

from ...errors import MalformedStreamError
from .jsontext import JsonValue


class Unset(enum.Enum):
    """The type of UNSET."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET
"""A field that is absent, where None would be a JSON null."""


class Field(NamedTuple):
    """How one attribute maps to a key of the JavaScript shape. Optional ones equal to `absent` are left out.

    A `tolerant` one that is of the wrong kind counts as absent, for it is no reason to lose what it stands on.
    """

    name: str
    key: str
    valid: Callable[[Any], bool]
    required: bool = True
    absent: object = None
    tolerant: bool = False


def extra(name: str, key: str, valid: Callable[[Any], bool]) -> Field:
    """A tolerant field."""
    return Field(name, key, valid, required=False, tolerant=True)


def is_text(value: object) -> bool:
    """Whether `value` is a string."""
    return isinstance(value, str)


def is_list(value: object) -> bool:
    """Whether `value` is an array."""
    return isinstance(value, (list, tuple))


def is_object(value: object) -> bool:
    """Whether `value` is an object."""
    return isinstance(value, Mapping)


def is_boolean(value: object) -> bool:
    """Whether `value` is true or false."""
    return isinstance(value, bool)


def is_anything(value: object) -> bool:
    """Whether `value` is any JSON value."""
    return True


def fields_to_json(value: object, fields: Sequence[Field], into: dict[str, JsonValue]) -> None:
    """Add the attributes of `value` to `into`, in the order of `fields`."""
    for name, key, _, required, absent, _ in fields:
        item = getattr(value, name)
        if required or item is not absent:
            into[key] = item


def fields_from_json(fields: Sequence[Field], data: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return constructor arguments; MalformedStreamError for a field that is missing or of a wrong type."""
    taken = {}
    for name, key, valid, required, _, tolerant in fields:
        if key not in data or (data[key] is None and not required and not valid(None)):
            if required:
                raise MalformedStreamError(f"{what} without {key!r}")
        elif valid(data[key]):
            taken[name] = data[key]
        elif not tolerant:
            raise MalformedStreamError(f"{what} with a wrong {key!r}: {data[key]!r:.80}")
    return taken


_PARENT = Field("parent_id", "parentId", is_text, required=False)
PROVIDER_METADATA = extra("provider_metadata", "providerMetadata", is_object)
"""What a provider wants back with the next request, such as the signature of a model's thinking."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a `part-start` announces. `parent_id` groups parts that belong together."""

    parent_id: str | None = None
    raw: Mapping[str, JsonValue] | None = field(default=None, repr=False, compare=False)
    type: ClassVar[str] = ""
    _fields: ClassVar[tuple[Field, ...]] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """The JavaScript shape."""
        if self.raw is not None:
            return dict(self.raw)
        data: dict[str, JsonValue] = {"type": self.type}
        fields_to_json(self, (*self._fields, _PARENT), data)
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Part:
        """The part that `data` describes; UnknownPart where it is none that this version knows."""
        made = _PARTS.get(data["type"]) if isinstance(data.get("type"), str) else None
        if made is None:
            return UnknownPart(raw=data)
        try:
            return made(raw=data, **fields_from_json((*made._fields, _PARENT), data, f"a {made.type} part"))
        except MalformedStreamError:  # it still takes an index, or all later paths would be off by one
            return UnknownPart(raw=data)


@dataclass(frozen=True, kw_only=True)
class TextPart(Part):
    """Text for the reader, built by `text-delta`."""

    provider_metadata: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "text"
    _fields: ClassVar[tuple[Field, ...]] = (PROVIDER_METADATA,)


@dataclass(frozen=True, kw_only=True)
class ReasoningPart(Part):
    """The model's thinking, built by `text-delta`."""

    unstable_summary: str | None = None
    provider_metadata: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "reasoning"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("unstable_summary", "unstable_summary", is_text, required=False),
        PROVIDER_METADATA,
    )


@dataclass(frozen=True, kw_only=True)
class ToolCallPart(Part):
    """A call of a tool; its arguments come as `text-delta`, its outcome as `result`.

    A call without a name is one of an earlier response, which is answered here. What else is optional belongs
    to the AI SDK: whether the provider runs the tool, whether the tool is unknown to the client's types, a title
    to show, metadata of provider and tool, and `input_encoding` "text" where the input is no JSON.
    """

    tool_name: str
    tool_call_id: str
    provider_executed: bool | None = None
    dynamic: bool | None = None
    title: str | None = None
    provider_metadata: Mapping[str, JsonValue] | None = None
    tool_metadata: Mapping[str, JsonValue] | None = None
    input_encoding: str | None = None
    type: ClassVar[str] = "tool-call"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("tool_name", "toolName", is_text),
        Field("tool_call_id", "toolCallId", is_text),
        extra("provider_executed", "providerExecuted", is_boolean),
        extra("dynamic", "dynamic", is_boolean),
        extra("title", "title", is_text),
        PROVIDER_METADATA,
        extra("tool_metadata", "toolMetadata", is_object),
        extra("input_encoding", "inputEncoding", is_text),
    )


@dataclass(frozen=True, kw_only=True)
class SourcePart(Part):
    """A citation: of a page, which has a `url`, or of a document (`source_type` "document"), which has none."""

    id: str
    url: str | None = None
    title: str | None = None
    source_type: str = "url"
    media_type: str | None = None
    filename: str | None = None
    provider_metadata: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "source"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("source_type", "sourceType", is_text),
        Field("id", "id", is_text),
        Field("url", "url", is_text, required=False),
        Field("title", "title", is_text, required=False),
        extra("media_type", "mediaType", is_text),
        extra("filename", "filename", is_text),
        PROVIDER_METADATA,
    )

    def __post_init__(self) -> None:
        if self.source_type != "document" and self.url is None:
            raise MalformedStreamError("a source part without 'url'")


@dataclass(frozen=True, kw_only=True)
class FilePart(Part):
    """A file: `data` is what the front end expects there, a URL or base64."""

    data: str
    mime_type: str
    provider_metadata: Mapping[str, JsonValue] | None = None
    type: ClassVar[str] = "file"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("data", "data", is_text),
        Field("mime_type", "mimeType", is_text),
        PROVIDER_METADATA,
    )


@dataclass(frozen=True, kw_only=True)
class DataPart(Part):
    """A named JSON value that the front end renders.

    In a UIMessage the newer of one name and `id` takes the place of the older, and one that is `transient` is
    shown, but kept in no message.
    """

    name: str
    data: JsonValue
    id: str | None = None
    transient: bool | None = None
    type: ClassVar[str] = "data"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("name", "name", is_text),
        Field("data", "data", is_anything),
        extra("id", "id", is_text),
        extra("transient", "transient", is_boolean),
    )


@dataclass(frozen=True, kw_only=True)
class UnknownPart(Part):
    """A part of a newer or broken producer: it takes an index and is otherwise passed on as it came."""


_PARTS: Mapping[str, type[Part]] = {
    part.type: part for part in (TextPart, ReasoningPart, ToolCallPart, SourcePart, FilePart, DataPart)
}
