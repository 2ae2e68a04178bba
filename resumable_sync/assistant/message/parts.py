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
    """How one attribute maps to a key of the JavaScript shape. Optional ones equal to `absent` are left out."""

    name: str
    key: str
    valid: Callable[[Any], bool]
    required: bool = True
    absent: object = None


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
    for name, key, _, required, absent in fields:
        item = getattr(value, name)
        if required or item is not absent:
            into[key] = item


def fields_from_json(fields: Sequence[Field], data: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return constructor arguments; MalformedStreamError for a field that is missing or of a wrong type."""
    taken = {}
    for name, key, valid, required, absent in fields:
        if key not in data or (not required and absent is None and data[key] is None):
            if required:
                raise MalformedStreamError(f"{what} without {key!r}")
        elif not valid(data[key]):
            raise MalformedStreamError(f"{what} with a wrong {key!r}: {data[key]!r:.80}")
        else:
            taken[name] = data[key]
    return taken


_PARENT = Field("parent_id", "parentId", is_text, required=False)


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

    type: ClassVar[str] = "text"


@dataclass(frozen=True, kw_only=True)
class ReasoningPart(Part):
    """The model's thinking, built by `text-delta`."""

    unstable_summary: str | None = None
    type: ClassVar[str] = "reasoning"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("unstable_summary", "unstable_summary", is_text, required=False),
    )


@dataclass(frozen=True, kw_only=True)
class ToolCallPart(Part):
    """A call of a tool; its arguments come as `text-delta`, its outcome as `result`."""

    tool_name: str
    tool_call_id: str
    type: ClassVar[str] = "tool-call"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("tool_name", "toolName", is_text),
        Field("tool_call_id", "toolCallId", is_text),
    )


@dataclass(frozen=True, kw_only=True)
class SourcePart(Part):
    """A citation."""

    id: str
    url: str
    title: str | None = None
    source_type: str = "url"
    type: ClassVar[str] = "source"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("source_type", "sourceType", is_text),
        Field("id", "id", is_text),
        Field("url", "url", is_text),
        Field("title", "title", is_text, required=False),
    )


@dataclass(frozen=True, kw_only=True)
class FilePart(Part):
    """A file: `data` is what the front end expects there, a URL or base64."""

    data: str
    mime_type: str
    type: ClassVar[str] = "file"
    _fields: ClassVar[tuple[Field, ...]] = (
        Field("data", "data", is_text),
        Field("mime_type", "mimeType", is_text),
    )


@dataclass(frozen=True, kw_only=True)
class DataPart(Part):
    """A named JSON value that the front end renders."""

    name: str
    data: JsonValue
    type: ClassVar[str] = "data"
    _fields: ClassVar[tuple[Field, ...]] = (Field("name", "name", is_text), Field("data", "data", is_anything))


@dataclass(frozen=True, kw_only=True)
class UnknownPart(Part):
    """A part of a newer or broken producer: it takes an index and is otherwise passed on as it came."""


_PARTS: Mapping[str, type[Part]] = {
    part.type: part for part in (TextPart, ReasoningPart, ToolCallPart, SourcePart, FilePart, DataPart)
}
