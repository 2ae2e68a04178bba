"""Which chunks follow from an operation: the rules of parts, kept apart from threads and wire formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import MalformedStreamError, StreamFinalizedError
from .chunks import (
    AssistantStreamChunk,
    Error,
    PartFinish,
    PartStart,
    Result,
    TextDelta,
    ToolCallApproval,
    ToolCallArgsTextFinish,
)
from .jsontext import JsonValue
from .parts import Part, ReasoningPart, TextPart, ToolCallPart

Metadata = Mapping[str, JsonValue]


@dataclass
class _PartState:
    """How far one part has come. `args_open` and what follows `closed` are ever true for tool calls alone."""

    is_call: bool
    args_open: bool
    closed: bool = False
    has_args: bool = False
    answered: bool = False
    cut: bool = False
    """Whether an error came while the arguments were open."""
    reopened: bool = False
    """Whether an answer is awaited even if the part was closed."""


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
        self._calls: dict[str, int] = {}  # tool call id: the newest part of it
        self._implicit: _Implicit | None = None

    def start(self, part: Part) -> int:
        """Open a part and return its index. The implicit part ends."""
        self.end_implicit()
        return self.enqueue(PartStart(part=part))

    def reopen(self, part: ToolCallPart) -> int:
        """The part that answers go to of the call with the id of `part`: its own, even a closed one, else `part`.

        That one is opened, for a call of an earlier message.
        """
        index = self._calls.get(part.tool_call_id)
        if index is None:
            return self.start(part)
        self._parts[index].reopened = True
        return index

    def has_call(self, tool_call_id: str) -> bool:
        """Whether a part is a call of this id."""
        return tool_call_id in self._calls

    def unanswered(self) -> bool:
        """Whether a call has no answer, or a preliminary one alone."""
        return any(part.is_call and not part.answered for part in self._parts)

    def end_implicit(self) -> None:
        """End the implicit part, if there is one."""
        if self._implicit is not None:
            self.close_part(self._implicit.at)
            self._implicit = None

    def append_text(self, text: str, parent_id: str | None = None) -> None:
        """Continue the implicit text part of this parent, or open one."""
        self._append(TextPart(parent_id=parent_id or None), text, parent_id)

    def append_reasoning(
        self,
        text: str,
        parent_id: str | None = None,
        summary: str | None = None,
        provider_metadata: Metadata | None = None,
        *,
        new_part: bool = False,
    ) -> None:
        """Continue the implicit reasoning part; a summary, metadata or `new_part` opens one of its own.

        Such a part may begin without text.
        """
        part = ReasoningPart(
            parent_id=parent_id or None, unstable_summary=summary, provider_metadata=provider_metadata
        )
        new_part = new_part or summary is not None or provider_metadata is not None
        self._append(part, text, parent_id, new_part)

    def _append(self, part: Part, text: str, parent_id: str | None, new_part: bool = False) -> None:
        implicit = self._implicit
        fits = implicit is not None and implicit.kind is type(part) and implicit.parent_id == parent_id
        if implicit is None or not fits or self._parts[implicit.at].closed or new_part:
            implicit = _Implicit(self.start(part), type(part), parent_id)
            self._implicit = implicit
        if text or not new_part:
            self.append(implicit.at, text)

    def append(self, index: int, text: str, provider_metadata: Metadata | None = None) -> None:
        """More text, or arguments, of part `index`. StreamFinalizedError if that has ended."""
        part = self._parts[index]
        if part.closed:
            raise StreamFinalizedError(
                f"part {index} of the message was closed; the stream itself may go on: open another part"
            )
        part.has_args = part.has_args or bool(text)
        self._emit(TextDelta(path=(index,), text_delta=text, provider_metadata=provider_metadata))

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

    def expects_args(self, index: int) -> bool:
        """Whether no arguments were appended yet, and can be."""
        return self._parts[index].args_open and not self._parts[index].has_args

    def close_args(self, index: int) -> None:
        """Complete the arguments of a tool call; none at all count as `{}`. Idempotent."""
        part = self._parts[index]
        if part.args_open:
            part.args_open = False
            if not part.has_args:
                self._emit(TextDelta(path=(index,), text_delta="{}"))
            self._emit(ToolCallArgsTextFinish(path=(index,)))

    def respond(self, index: int, result: Result) -> None:
        """Answer a tool call with `result`, whatever its path, and close the call.

        A preliminary result closes the arguments alone. Ignored once the call is closed, unless it was reopened
        and has no final result, and a preliminary one once there is a final one.
        """
        part = self._parts[index]
        if not self._takes_answers(part) or (part.answered and result.is_preliminary):
            return
        self._emit(result.with_path((index,)))
        if result.is_preliminary:
            self.close_args(index)
        else:
            part.answered = True
            self.close_part(index)

    def approve(self, index: int, approval: Mapping[str, JsonValue]) -> None:
        """Say whether a tool call may run, in place of what was said before. Ignored once the call is closed."""
        if self._takes_answers(self._parts[index]):
            self._emit(ToolCallApproval(path=(index,), approval=approval))

    def _takes_answers(self, part: _PartState) -> bool:
        return not part.closed or (part.reopened and not part.answered)

    def close_part(self, index: int, provider_metadata: Metadata | None = None) -> None:
        """End part `index`. Idempotent."""
        part = self._parts[index]
        if not part.closed:
            self.close_args(index)
            part.closed = True
            self._emit(PartFinish(path=(index,), provider_metadata=provider_metadata))

    def enqueue(self, chunk: AssistantStreamChunk) -> int:
        """Emit a chunk as it is, and take note of what it does to its part, whose index is returned.

        MalformedStreamError if it addresses a part that does not exist. Chunks of the message return -1.
        """
        if isinstance(chunk, PartStart):
            if chunk.path:
                raise MalformedStreamError("a part inside a part is not supported")
            is_call = isinstance(chunk.part, ToolCallPart)
            if isinstance(chunk.part, ToolCallPart):
                self._calls[chunk.part.tool_call_id] = len(self._parts)
            self._parts.append(_PartState(is_call=is_call, args_open=is_call))
            self._emit(chunk)
            return len(self._parts) - 1
        if not chunk.path:
            if isinstance(chunk, Error) and chunk.severity not in ("warning", "info"):
                for part in self._parts:
                    part.cut = part.args_open
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
        elif isinstance(chunk, Result):
            part.answered = part.answered or not chunk.is_preliminary
        elif isinstance(chunk, PartFinish):
            part.closed, part.args_open = True, False
        self._emit(chunk)
        return index

    def finish(self, *, cut_off: bool = False, to_be_run: bool = False) -> None:
        """Close every open part, in part order.

        With `cut_off` a tool call is left as it is: neither its arguments nor the call itself are complete. With
        `to_be_run`, where clients run the calls that are closed, so is one that was being written when an error
        came, such as that of a merged stream, and that nobody has closed since.
        """
        for index, part in enumerate(self._parts):
            if not ((to_be_run and part.cut) or (cut_off and part.is_call)):
                self.close_part(index)
