"""The answer to a tool call, with all that can go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .chunks import Result
from .jsontext import jsonable
from .parts import UNSET, is_object

NO_RESULT = "<no result>"
"""The result of a tool call that was answered without one."""

_KEYS = {
    "result": "result",
    "isError": "is_error",
    "artifact": "artifact",
    "modelContent": "model_content",
    "messages": "messages",
    "isPreliminary": "is_preliminary",
    "providerExecuted": "provider_executed",
    "providerMetadata": "provider_metadata",
    "toolMetadata": "tool_metadata",
    "dynamic": "dynamic",
}


@dataclass(frozen=True)
class ToolResponse:
    """What a tool returned: for `set_response`, `add_tool_call_part` and `append_tool_result` of a controller.

    A function that runs a tool can return it where the plain result says too little. JSON values are copied when
    the response is used; None leaves a field out, except for `result`, where it is null.
    """

    result: object = UNSET
    """"<no result>" where it is left out."""
    is_error: bool = False
    artifact: object = None
    """For the user interface alone."""
    model_content: object = None
    """What the model reads instead of the result: a list of parts. TypeError for anything else."""
    messages: object = None
    is_preliminary: bool = False
    """More is to come: the call stays unanswered, and the next response replaces this one."""
    provider_executed: bool | None = None
    provider_metadata: Mapping[str, Any] | None = None
    tool_metadata: Mapping[str, Any] | None = None
    dynamic: bool | None = None

    @staticmethod
    def of(value: object) -> ToolResponse:
        """`value` itself if it is a response, else one with this result. Pure."""
        return value if isinstance(value, ToolResponse) else ToolResponse(value)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ToolResponse:
        """Read the JavaScript shape, as of `add_tool_call_part`. Keys that it does not know are passed over."""
        return ToolResponse(**{name: data[key] for key, name in _KEYS.items() if key in data})

    def to_chunk(self) -> Result:
        """The `result` chunk that says this, for no part yet. TypeError for what JSON cannot hold."""
        if self.model_content is not None and not isinstance(self.model_content, (list, tuple)):
            raise TypeError(f"model_content is a list of parts, not {type(self.model_content).__name__}")
        given = {"artifact": self.artifact, "model_content": self.model_content, "messages": self.messages}
        optional: dict[str, Any] = {name: jsonable(value) for name, value in given.items() if value is not None}
        return Result(
            result=NO_RESULT if self.result is UNSET else jsonable(self.result),
            is_error=bool(self.is_error),
            is_preliminary=bool(self.is_preliminary),
            provider_executed=self.provider_executed,
            provider_metadata=metadata_of(self.provider_metadata),
            tool_metadata=metadata_of(self.tool_metadata),
            dynamic=self.dynamic,
            **optional,
        )


def metadata_of(given: Mapping[str, Any] | None) -> Any:
    """A copy of an object of metadata, or None. TypeError for anything else."""
    if given is not None and not is_object(given):
        raise TypeError(f"metadata is a mapping, not {type(given).__name__}")
    return None if given is None else jsonable(given)
