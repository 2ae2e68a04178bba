"""Which chunks follow from an operation: the rules of parts, kept apart from threads and wire formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import MalformedStreamError, StreamFinalizedError
from .chunks import AssistantStreamChunk, PartFinish, PartStart, Result, TextDelta, ToolCallArgsTextFinish
from .jsontext import JsonValue
from .parts import UNSET, Part, ReasoningPart, TextPart, ToolCallPart, Unset

NO_RESULT = "<no result>"
"""The result of a tool call that was answered without one."""


@dataclass
class _PartState:
    """How far one part has come. `args_open` is ever true for tool calls alone."""

    args_open: bool
    closed: bool = False
    has_args: bool = False


class _Implicit(NamedTuple):
    """The part that `append_text` and `append_reasoning` continue."""

    at: int
    kind: type[Part]
    parent_id: str | None


class ChunkBuilder:
    """Turns operations into well-formed chunks, handed to `emit` one by one, in call order.

    One thread at a time. A method that raises has emitted nothing.
    """

    def __init__(self, emit: Callable[[AssistantStreamChunk], None]) -> None:
        self._emit = emit
        self._parts: list[_PartState] = []
        self._implicit: _Implicit | None = None

    def start(self, part: Part) -> int:
        """Open a part and return its index. The implicit part ends."""
        if self._implicit is not None:
            self.close_part(self._implicit.at)
            self._implicit = None
        return self.enqueue(PartStart(part=part))

    def append_text(self, text: str, parent_id: str | None = None) -> None:
        """Continue the implicit text part of this parent, or open one."""
        self._append(TextPart(parent_id=parent_id or None), text, parent_id)

    def append_reasoning(
        self, text: str, parent_id: str | None = None, summary: str | None = None, *, new_part: bool = False
    ) -> None:
        """Continue the implicit reasoning part; a summary, or `new_part`, opens one of its own.

        Such a part may begin without text.
        """
        part = ReasoningPart(parent_id=parent_id or None, unstable_summary=summary)
        self._append(part, text, parent_id, new_part or summary is not None)

    def _append(self, part: Part, text: str, parent_id: str | None, new_part: bool = False) -> None:
        implicit = self._implicit
        fits = implicit is not None and implicit.kind is type(part) and implicit.parent_id == parent_id
        if implicit is None or not fits or self._parts[implicit.at].closed or new_part:
            implicit = _Implicit(self.start(part), type(part), parent_id)
            self._implicit = implicit
        if text or not new_part:
            self.append(implicit.at, text)

    def append(self, index: int, text: str) -> None:
        """More text, or arguments, of part `index`. StreamFinalizedError if that has ended."""
        part = self._parts[index]
        if part.closed:
            raise StreamFinalizedError(
                f"part {index} of the message was closed; the stream itself may go on: open another part"
            )
        part.has_args = part.has_args or bool(text)
        self._emit(TextDelta(path=(index,), text_delta=text))

    def append_args(self, index: int, text: str) -> None:
        """More of a tool call's arguments. StreamFinalizedError if they are complete."""
        if not self._parts[index].args_open:
            raise StreamFinalizedError(
                f"the arguments of part {index} are complete: nothing can be appended to them"
            )
        self.append(index, text)

    def args_open(self, index: int) -> bool:
        """Whether more arguments can be appended."""
        return self._parts[index].args_open

    def close_args(self, index: int) -> None:
        """Complete the arguments of a tool call; none at all count as `{}`. Idempotent."""
        part = self._parts[index]
        if part.args_open:
            part.args_open = False
            if not part.has_args:
                self._emit(TextDelta(path=(index,), text_delta="{}"))
            self._emit(ToolCallArgsTextFinish(path=(index,)))

    def respond(
        self,
        index: int,
        result: JsonValue | Unset,
        *,
        is_error: bool = False,
        artifact: JsonValue | Unset = UNSET,
        model_content: JsonValue | Unset = UNSET,
        messages: JsonValue | Unset = UNSET,
    ) -> None:
        """Answer a tool call and close it. Ignored once it is closed."""
        if self._parts[index].closed:
            return
        self._emit(
            Result(
                path=(index,),
                artifact=artifact,
                result=NO_RESULT if result is UNSET else result,
                is_error=is_error,
                model_content=model_content,
                messages=messages,
            )
        )
        self.close_part(index)

    def close_part(self, index: int) -> None:
        """End part `index`. Idempotent."""
        part = self._parts[index]
        if not part.closed:
            self.close_args(index)
            part.closed = True
            self._emit(PartFinish(path=(index,)))

    def enqueue(self, chunk: AssistantStreamChunk) -> int:
        """Emit a chunk as it is, and take note of what it does to its part, whose index is returned.

        MalformedStreamError if it addresses a part that does not exist. Chunks of the message return -1.
        """
        if isinstance(chunk, PartStart):
            if chunk.path:
                raise MalformedStreamError("a part inside a part is not supported")
            self._parts.append(_PartState(args_open=isinstance(chunk.part, ToolCallPart)))
            self._emit(chunk)
            return len(self._parts) - 1
        if not chunk.path:
            self._emit(chunk)
            return -1
        index = chunk.path[0]
        if len(chunk.path) > 1 or index >= len(self._parts):
            raise MalformedStreamError(f"no part at path {list(chunk.path)}")
        part = self._parts[index]
        if isinstance(chunk, TextDelta):
            part.has_args = part.has_args or bool(chunk.text_delta)
        elif isinstance(chunk, ToolCallArgsTextFinish):
            part.args_open = False
        elif isinstance(chunk, PartFinish):
            part.closed, part.args_open = True, False
        self._emit(chunk)
        return index

    def finish(self) -> None:
        """Close every open part, in part order."""
        for index in range(len(self._parts)):
            self.close_part(index)
