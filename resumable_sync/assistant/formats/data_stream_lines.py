"""Reading the lines of a data stream."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...errors import MalformedStreamError
from ..message.chunks import AssistantStreamChunk, MessageFinish, StepFinish
from ..message.jsontext import JsonValue, parse_json, stringify
from ..message.parts import (
    UNSET,
    DataPart,
    FilePart,
    Part,
    SourcePart,
    ToolCallPart,
    is_anything,
    is_list,
    is_object,
    is_text,
)
from .base import Output, complain, skip

_LINE_END = re.compile(r"\r\n|\r|\n")


def without_type(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """`data` without its key `type`, which the prefix of a line stands for."""
    return {key: value for key, value in data.items() if key != "type"}


def lines_of(pieces: Iterable[bytes], strict: bool) -> Iterator[str]:
    """The lines in `pieces`, without their ends."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    begun: list[str] = []
    for piece in pieces:
        # A CR LF that is cut in two makes an empty line, which nobody minds.
        *lines, rest = _LINE_END.split(decoder.decode(piece))
        for line in lines:
            yield "".join((*begun, line))
            begun.clear()
        if rest:
            begun.append(rest)
    if begun or decoder.getstate()[0]:
        complain(strict, f"the stream ended within a line: {''.join(begun):.80}")


class LineReader:
    """The state of one decoding: lines in, chunks out. One thread at a time."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._output = Output()
        self._builder = self._output.builder
        self._calls: dict[str, int] = {}  # tool call id: part index

    def read(self, line: str) -> list[AssistantStreamChunk]:
        """The chunks that one line, without its end, stands for. MalformedStreamError where it is refused."""
        if not line.strip():
            return []
        prefix, colon, text = line.partition(":")
        try:
            if not colon:
                raise ValueError("no prefix")
            value: Any = parse_json(text)
            known = _READERS.get(prefix)
            if known is not None and not known[0](value):
                raise ValueError("the wrong kind of value")
            if known is not None:
                known[1](self, value)
        except _Refused:
            raise
        except (KeyError, TypeError, ValueError) as error:
            skip("data stream line", line, repr(error))
        else:
            if known is None:
                complain(self._strict, f"a line with an unknown prefix: {line:.80}")
        return self._output.take()

    def end(self) -> list[AssistantStreamChunk]:
        """The chunks that close what is open when the lines end."""
        self._close_all_args()
        self._builder.finish()
        return self._output.take()

    def _refuse(self, problem: str) -> None:
        if self._strict:
            raise _Refused(problem)
        complain(False, problem)

    def _call(self, value: Mapping[str, Any]) -> int | None:
        index = self._calls.get(_text(value, "toolCallId"))
        if index is None:
            self._refuse(f"a tool call with an unknown id: {value['toolCallId']:.80}")
        return index

    def _close_all_args(self) -> None:
        for index in self._calls.values():
            self._builder.close_args(index)

    def _text(self, value: str) -> None:
        self._builder.append_text(value)

    def _reasoning(self, value: str) -> None:
        self._builder.append_reasoning(value)

    def _parented_text(self, value: Mapping[str, Any]) -> None:
        self._builder.append_text(_text(value, "textDelta"), _text(value, "parentId"))

    def _parented_reasoning(self, value: Mapping[str, Any]) -> None:
        self._builder.append_reasoning(_text(value, "reasoningDelta"), _text(value, "parentId"))

    def _reasoning_start(self, value: Mapping[str, Any]) -> None:
        summary = _text(value, "unstable_summary") if "unstable_summary" in value else None
        self._builder.append_reasoning("", value.get("parentId") or None, summary, new_part=True)

    def _tool_start(self, value: Mapping[str, Any]) -> None:
        call_id = _text(value, "toolCallId")
        if call_id in self._calls:
            self._refuse(f"a tool call with an id that was used before: {call_id:.80}")
            return
        self._calls[call_id] = self._start({"type": "tool-call", **value})

    def _tool_args(self, value: Mapping[str, Any]) -> None:
        delta = _text(value, "argsTextDelta")
        index = self._call(value)
        if index is None:
            return
        if not self._builder.args_open(index):
            skip("arguments delta", delta, "the arguments were closed")
            return
        if delta:
            self._builder.append_args(index, delta)
        if value.get("isFinal") is True:
            self._builder.close_args(index)

    def _tool_result(self, value: Mapping[str, Any]) -> None:
        index = self._call(value)
        if index is not None:
            self._builder.respond(
                index,
                value.get("result", UNSET),
                is_error=bool(value.get("isError")),
                artifact=value.get("artifact", UNSET),
            )

    def _whole_tool_call(self, value: Mapping[str, Any]) -> None:
        index = self._calls.get(_text(value, "toolCallId"))
        if index is None:
            index = self._start(
                {"type": "tool-call", "toolName": value["toolName"], "toolCallId": value["toolCallId"]}
            )
            self._calls[value["toolCallId"]] = index
            if "args" in value:
                self._builder.append_args(index, stringify(value["args"]))
        self._builder.close_args(index)

    def _start(self, part: Mapping[str, Any]) -> int:
        if not isinstance(Part.from_json(part), ToolCallPart):
            raise ValueError("not a tool call")
        return self._builder.start(Part.from_json(part))

    def _whole(self, kind: type[Part], value: Mapping[str, Any]) -> None:
        part = Part.from_json({**value, "type": kind.type})
        if not isinstance(part, kind):
            raise ValueError(f"not a {kind.type} part")
        self._builder.close_part(self._builder.start(part))

    def _source(self, value: Mapping[str, Any]) -> None:
        self._whole(SourcePart, value)

    def _file(self, value: Mapping[str, Any]) -> None:
        self._whole(FilePart, value)

    def _data_part(self, value: Mapping[str, Any]) -> None:
        self._whole(DataPart, value)

    def _message(self, kind: str, fields: Mapping[str, Any]) -> None:
        chunk = AssistantStreamChunk.from_json({"type": kind, "path": [], **without_type(fields)})
        if isinstance(chunk, (StepFinish, MessageFinish)):
            self._close_all_args()
        self._builder.enqueue(chunk)

    def _ignore(self, value: object) -> None:
        """Signed and redacted reasoning are of no use here."""


class _Refused(MalformedStreamError):
    """Raised through the reading of a line where strict decoding refuses it."""


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value[key]
    if not isinstance(text, str):
        raise ValueError(f"{key} is no text")
    return text


def _message(kind: str, key: str | None = None) -> Callable[[LineReader, Any], None]:
    if key is None:
        return lambda reader, value: reader._message(kind, value)
    return lambda reader, value: reader._message(kind, {key: value})


_READERS: Mapping[str, tuple[Callable[[Any], bool], Callable[[LineReader, Any], None]]] = {
    "0": (is_text, LineReader._text),
    "2": (is_list, _message("data", "data")),
    "3": (is_text, _message("error", "error")),
    "8": (is_list, _message("annotations", "annotations")),
    "9": (is_object, LineReader._whole_tool_call),
    "a": (is_object, LineReader._tool_result),
    "b": (is_object, LineReader._tool_start),
    "c": (is_object, LineReader._tool_args),
    "d": (is_object, _message("message-finish")),
    "e": (is_object, _message("step-finish")),
    "f": (is_object, _message("step-start")),
    "g": (is_text, LineReader._reasoning),
    "h": (is_object, LineReader._source),
    "i": (is_anything, LineReader._ignore),
    "j": (is_anything, LineReader._ignore),
    "k": (is_object, LineReader._file),
    "aui-state": (is_list, _message("update-state", "operations")),
    "aui-text-delta": (is_object, LineReader._parented_text),
    "aui-reasoning-delta": (is_object, LineReader._parented_reasoning),
    "aui-reasoning-part-start": (is_object, LineReader._reasoning_start),
    "aui-data": (is_object, LineReader._data_part),
}
