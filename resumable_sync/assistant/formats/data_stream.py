"""The data stream, the default format: one line per frame, `prefix:JSON`.

Lossy: provider metadata of texts and reasonings, which of two texts that are open at once a delta belongs to, and
whether a call was cut off: a reader takes its arguments for complete at the end, also after an error.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...errors import MalformedStreamError
from ..message.chunks import (
    FINISH_REASONS,
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
    is_approval,
)
from ..message.jsontext import JsonValue, parse_json, stringify, wire_json
from ..message.parts import (
    UNSET,
    DataPart,
    FilePart,
    Part,
    ReasoningPart,
    SourcePart,
    TextPart,
    ToolCallPart,
    is_anything,
    is_list,
    is_object,
    is_text,
)
from ..message.response import ToolResponse
from .base import (
    INTERRUPTED_TEXT,
    Format,
    Output,
    PartTypes,
    Pieces,
    complain,
    message_chunk,
    skip,
    text_of,
)

_WHOLE_PARTS: Mapping[type[Part], str] = {ToolCallPart: "b", SourcePart: "h", FilePart: "k", DataPart: "aui-data"}
_PREFIX_BYTES = 32  # longer than any prefix
_LINE_END = re.compile(r"\r\n|\r|\n")


def _without_type(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """`data` without its key `type`, which the prefix of a line stands for."""
    return {key: value for key, value in data.items() if key != "type"}


def _line(prefix: str, value: object) -> bytes:
    return f"{prefix}:{wire_json(value)}\n".encode()


class DataStreamEncoder:
    """Encodes chunks as lines. Holds no state: thread-safe and reusable."""

    heartbeat = b"2:[]\n"
    """What keeps a silent connection alive, sent between pieces and never stored. It adds no data."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {"Content-Type": "text/plain; charset=utf-8", "x-vercel-ai-data-stream": "v1"}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """Whole lines, one piece per chunk that has any. A stream of nothing is nothing.

        Iterating raises MalformedStreamError for a chunk that addresses no part, or the wrong kind.
        """
        writer = _Writer()
        return Pieces(chunks, writer.encode, writer.finish_all_args)

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What to send after `stored`, all bytes of a stream that ended as `status`, to end the message.

        An error line with `text` (not for a cancelled stream) and a finish line with the reason `error`, or
        `other` for a cancelled stream. Clients show the message as incomplete, with the error or as stopped,
        and close its parts by themselves. Nothing after a stream that is `done` or has a finish line.
        """
        if status == "done":
            return b""
        cut = finished = failed = False
        begun = b""
        for piece in stored:
            for line in piece.splitlines(keepends=True):
                cut = not line.endswith(b"\n")
                begun = (begun + line[:_PREFIX_BYTES])[:_PREFIX_BYTES]
                finished = finished or begun.startswith(b"d:")
                failed = failed or begun.startswith(b"3:")
                begun = begun if cut else b""
        ending = b"\n" if cut else b""
        if not finished:
            cancelled = status == "cancelled" and not failed
            ending += b"" if cancelled or failed else _line("3", text)
            usage = {"inputTokens": 0, "outputTokens": 0}
            reason = "other" if cancelled else "error"
            ending += _line("d", {"path": [], "finishReason": reason, "usage": usage})
        return ending


class _Writer:
    """The state of one encoding."""

    def __init__(self) -> None:
        self._parts = PartTypes()
        self._open_args: dict[str, bool] = {}  # tool call id: whether any arguments were written

    def encode(self, chunk: AssistantStreamChunk) -> bytes:
        if isinstance(chunk, TextDelta):
            return self._encode_delta(chunk, self._parts.of(chunk))
        if isinstance(chunk, PartStart):
            self._parts.start(chunk, chunk.part)
            return self._encode_start(chunk.part)
        if isinstance(chunk, (PartFinish, ToolCallArgsTextFinish)):
            part = self._parts.of(chunk)
            return self._finish_args(part.tool_call_id) if isinstance(part, ToolCallPart) else b""
        if isinstance(chunk, Result):
            return self._encode_result(chunk, self._parts.of(chunk))
        if isinstance(chunk, Error):
            # What is no more than a warning does not end the message, nor the arguments in it.
            ended = b"" if chunk.severity in ("warning", "info") else self.finish_all_args()
            return ended + _line("3", _error_value(chunk))
        if isinstance(chunk, (StepFinish, MessageFinish)):
            prefix = "e" if isinstance(chunk, StepFinish) else "d"
            return self.finish_all_args() + _line(prefix, _without_type(chunk.to_json()))
        if isinstance(chunk, StepStart):
            return _line("f", _without_type(chunk.to_json()))
        if isinstance(chunk, Annotations):
            return _line("8", chunk.annotations)
        if isinstance(chunk, Data):
            return _line("2", chunk.data)
        if isinstance(chunk, UpdateState):
            return _line("aui-state", chunk.to_json()["operations"])
        if isinstance(chunk, ToolCallApproval):
            part = self._parts.of(chunk)
            if not isinstance(part, ToolCallPart):
                return b""
            return _line("aui-tool-call-approval", {"toolCallId": part.tool_call_id, "approval": chunk.approval})
        if isinstance(chunk, UIFrame):
            return b""
        raise MalformedStreamError(f"not a chunk: {type(chunk).__name__}")

    def _encode_start(self, part: Part) -> bytes:
        if isinstance(part, ToolCallPart):
            self._open_args[part.tool_call_id] = False
        prefix = _WHOLE_PARTS.get(type(part))
        if prefix is not None:
            return _line(prefix, _without_type(part.to_json()))
        if isinstance(part, ReasoningPart) and part.unstable_summary is not None:
            parent = {} if part.parent_id is None else {"parentId": part.parent_id}
            return _line("aui-reasoning-part-start", {"unstable_summary": part.unstable_summary, **parent})
        return b""

    def _encode_delta(self, chunk: TextDelta, part: Part) -> bytes:
        text = chunk.text_delta
        if isinstance(part, TextPart):
            if part.parent_id:
                return _line("aui-text-delta", {"textDelta": text, "parentId": part.parent_id})
            return _line("0", text)
        if isinstance(part, ReasoningPart):
            if part.parent_id:
                return _line("aui-reasoning-delta", {"reasoningDelta": text, "parentId": part.parent_id})
            return _line("g", text)
        if not isinstance(part, ToolCallPart):
            raise MalformedStreamError(f"a text-delta chunk for a part without text: {part.type}")
        if part.tool_call_id not in self._open_args:
            return b""  # arguments after the result
        self._open_args[part.tool_call_id] = True
        return _line("c", {"toolCallId": part.tool_call_id, "argsTextDelta": text})

    def _encode_result(self, chunk: Result, part: Part) -> bytes:
        if not isinstance(part, ToolCallPart):
            raise MalformedStreamError(f"a result chunk for a part that is no tool call: {part.type}")
        self._open_args.pop(part.tool_call_id, None)
        fields = {
            "toolCallId": part.tool_call_id,
            "result": chunk.result,
            "artifact": chunk.artifact,
            "isError": chunk.is_error or UNSET,
            "isPreliminary": chunk.is_preliminary or UNSET,
            "modelContent": chunk.model_content,
            "messages": chunk.messages,
        }
        return _line("a", {key: value for key, value in fields.items() if value is not UNSET})

    def _finish_args(self, tool_call_id: str) -> bytes:
        has_args = self._open_args.pop(tool_call_id, None)
        if has_args is None:
            return b""
        delta = "" if has_args else "{}"  # for clients that know nothing of isFinal
        return _line("c", {"toolCallId": tool_call_id, "argsTextDelta": delta, "isFinal": True})

    def finish_all_args(self) -> bytes:
        return b"".join([self._finish_args(tool_call_id) for tool_call_id in list(self._open_args)])


def _error_value(chunk: Error) -> JsonValue:
    """The text alone, unless there is more to say: readers before 0.3.57 know no other value."""
    text = "unknown error" if chunk.error is None else chunk.error
    if chunk.code is None and chunk.severity is None:
        return text
    fields = {"error": text, "code": chunk.code, "severity": chunk.severity}
    return {key: value for key, value in fields.items() if value is not None}


class DataStreamDecoder:
    """Decodes what DataStreamEncoder, or its JavaScript original of any age, writes.

    `strict`: MalformedStreamError for an unknown prefix, an unknown or repeated tool call id, and a last line
    without its end; otherwise such lines are dropped with a warning in the log. Lines that hold no valid JSON,
    or the wrong kind of it, are dropped with a warning either way.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks in `pieces`, whose boundaries do not matter."""
        reader = _Reader(self._strict)
        for line in _lines(pieces, self._strict):
            yield from reader.read(line)
        yield from reader.end()


def _lines(pieces: Iterable[bytes], strict: bool) -> Iterator[str]:
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


class _Reader:
    """The state of one decoding: lines in, chunks out. One thread at a time."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.output = Output()
        self.builder = self.output.builder
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
        return self.output.take()

    def end(self) -> list[AssistantStreamChunk]:
        """The chunks that close what is open when the lines end."""
        self._close_all_args()
        self.builder.finish()
        return self.output.take()

    def _refuse(self, problem: str) -> None:
        if self._strict:
            raise _Refused(problem)
        complain(False, problem)

    def _call(self, value: Mapping[str, Any]) -> int | None:
        index = self._calls.get(text_of(value["toolCallId"]))
        if index is None:
            self._refuse(f"a tool call with an unknown id: {value['toolCallId']:.80}")
        return index

    def _close_all_args(self) -> None:
        for index in self._calls.values():
            self.builder.close_args(index)

    def _parented_text(self, value: Mapping[str, Any]) -> None:
        self.builder.append_text(text_of(value["textDelta"]), text_of(value["parentId"]))

    def _parented_reasoning(self, value: Mapping[str, Any]) -> None:
        self.builder.append_reasoning(text_of(value["reasoningDelta"]), text_of(value["parentId"]))

    def _reasoning_start(self, value: Mapping[str, Any]) -> None:
        summary = text_of(value["unstable_summary"]) if "unstable_summary" in value else None
        self.builder.append_reasoning("", value.get("parentId") or None, summary, new_part=True)

    def _tool_start(self, value: Mapping[str, Any]) -> None:
        call_id = text_of(value["toolCallId"])
        if call_id in self._calls:
            self._refuse(f"a tool call with an id that was used before: {call_id:.80}")
            return
        self._calls[call_id] = self._start({"type": "tool-call", **value})

    def _tool_args(self, value: Mapping[str, Any]) -> None:
        delta = text_of(value["argsTextDelta"])
        index = self._call(value)
        if index is None:
            return
        if not self.builder.args_open(index):
            skip("arguments delta", delta, "the arguments were closed")
            return
        if delta:
            self.builder.append_args(index, delta)
        if value.get("isFinal") is True:
            self.builder.close_args(index)

    def _tool_result(self, value: Mapping[str, Any]) -> None:
        index = self._call(value)
        if index is not None:
            response = ToolResponse(
                value.get("result", UNSET),
                bool(value.get("isError")),
                model_content=value.get("modelContent"),
                messages=value.get("messages"),
                is_preliminary=value.get("isPreliminary") is True,
            )
            self.builder.respond(index, replace(response.to_chunk(), artifact=value.get("artifact", UNSET)))

    def _approval(self, value: Mapping[str, Any]) -> None:
        index = self._call(value)
        if index is not None:
            if not is_approval(value.get("approval")):
                raise ValueError("not an approval")
            self.builder.approve(index, value["approval"])

    def _whole_tool_call(self, value: Mapping[str, Any]) -> None:
        call_id = text_of(value["toolCallId"])
        index = self._calls.get(call_id)
        if index is None:
            index = self._start({"type": "tool-call", "toolName": value["toolName"], "toolCallId": call_id})
            self._calls[call_id] = index
        if value.get("args") is not None and self.builder.expects_args(index):
            self.builder.append_args(index, stringify(value["args"]))
        self.builder.close_args(index)

    def _start(self, part: Mapping[str, Any]) -> int:
        if not isinstance(Part.from_json(part), ToolCallPart):
            raise ValueError("not a tool call")
        return self.builder.start(Part.from_json(part))

    def add_message(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind in ("message-finish", "step-finish"):
            fields = _finish_fields(kind, fields)
            self._close_all_args()
        self.builder.enqueue(message_chunk(kind, fields))

    def error(self, value: Any) -> None:
        """An error, whatever the line holds: a broken one is one too."""
        if isinstance(value, str):
            fields = {"error": value}
        elif isinstance(value, Mapping) and isinstance(value.get("error"), str):
            fields = {"error": value["error"]}
            if isinstance(value.get("code"), str):
                fields["code"] = value["code"]
            if value.get("severity") in SEVERITIES:
                fields["severity"] = value["severity"]
        else:
            fields = {"error": stringify(value)}
        self.add_message("error", fields)


def _finish_fields(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a finish, with what a line may leave out or spell in its own way."""
    reason, usage = text_of(value["finishReason"]), value.get("usage")
    if usage is not None and not is_object(usage):
        raise ValueError("usage is no object")
    fields = {
        **value,
        "finishReason": reason if reason in FINISH_REASONS else "other",
        "usage": {"inputTokens": 0, "outputTokens": 0} if usage is None else usage,
        "path": [],
    }
    if kind == "step-finish" and value.get("isContinued") is None:
        fields["isContinued"] = False
    return fields


class _Refused(MalformedStreamError):
    """Raised through the reading of a line where strict decoding refuses it."""


def _message(kind: str, key: str | None = None) -> Callable[[_Reader, Any], None]:
    return lambda reader, value: reader.add_message(kind, value if key is None else {key: value})


def _whole(kind: type[Part]) -> Callable[[_Reader, Any], None]:
    return lambda reader, value: reader.output.add_whole(kind, value)


def _ignore(reader: _Reader, value: object) -> None:
    """Signed and redacted reasoning are of no use here."""


_READERS: Mapping[str, tuple[Callable[[Any], bool], Callable[[_Reader, Any], None]]] = {
    "0": (is_text, lambda reader, value: reader.builder.append_text(value)),
    "2": (is_list, _message("data", "data")),
    "3": (is_anything, _Reader.error),
    "8": (is_list, _message("annotations", "annotations")),
    "9": (is_object, _Reader._whole_tool_call),
    "a": (is_object, _Reader._tool_result),
    "b": (is_object, _Reader._tool_start),
    "c": (is_object, _Reader._tool_args),
    "d": (is_object, _message("message-finish")),
    "e": (is_object, _message("step-finish")),
    "f": (is_object, _message("step-start")),
    "g": (is_text, lambda reader, value: reader.builder.append_reasoning(value)),
    "h": (is_object, _whole(SourcePart)),
    "i": (is_anything, _ignore),
    "j": (is_anything, _ignore),
    "k": (is_object, _whole(FilePart)),
    "aui-state": (is_list, _message("update-state", "operations")),
    "aui-text-delta": (is_object, _Reader._parented_text),
    "aui-reasoning-delta": (is_object, _Reader._parented_reasoning),
    "aui-reasoning-part-start": (is_object, _Reader._reasoning_start),
    "aui-data": (is_object, _whole(DataPart)),
    "aui-tool-call-approval": (is_object, _Reader._approval),
}


FORMAT = Format(
    "data-stream",
    DataStreamEncoder,
    lambda: DataStreamDecoder(strict=False),
    exposed=("x-vercel-ai-data-stream",),
    front_end="transport",
)
