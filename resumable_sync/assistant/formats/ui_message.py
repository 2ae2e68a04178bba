"""The AI SDK's UI message stream: server-sent events of its own chunk types.

Only chunks that AI SDK 5, 6 and 7 all know are sent, for any other is fatal there. Lossy: parent ids,
annotations, state, artifacts, the usage and reason of steps, and part boundaries between equal kinds of text.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...errors import MalformedStreamError
from ...sse import HEARTBEAT, EventParser, format_event
from ..message.chunks import (
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
from ..message.jsontext import JsonValue, parse_json, stringify, wire_json
from ..message.partial_json import PartialJson
from ..message.parts import UNSET, DataPart, FilePart, Part, ReasoningPart, SourcePart, TextPart, ToolCallPart
from ..message.response import ToolResponse
from .base import (
    DONE,
    INTERRUPTED_TEXT,
    Format,
    Output,
    PartTypes,
    Pieces,
    event_data,
    message_chunk,
    skip,
    text_of,
)

MESSAGE_KEY = "assistant-message"
"""Where a stream's metadata keeps what the encoder named the message."""

_NO_USAGE = {"inputTokens": 0, "outputTokens": 0}


def _frame(kind: str, **fields: object) -> bytes:
    return format_event(wire_json({"type": kind, **fields}))


def _present(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


class UIMessageStreamEncoder:
    """Encodes chunks for `useChat` and its like. `message_id` is what the client names the message.

    Holds no state of a stream: thread-safe and reusable.
    """

    def __init__(self, message_id: str | None = None) -> None:
        self.message_id = message_id

    heartbeat = HEARTBEAT
    """What keeps a silent connection alive, sent between pieces and never stored."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "x-vercel-ai-ui-message-stream": "v1",
            "x-accel-buffering": "no",
        }

    def _start(self) -> bytes:
        return _frame("start", **_present(messageId=self.message_id))

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """Whole events: `start` at once, then one piece per chunk that has any, `finish` and `[DONE]` last.

        Iterating raises MalformedStreamError for a chunk that addresses no part, or the wrong kind.
        """
        writer = _Writer()
        return Pieces(chunks, writer.encode, writer.end, begin=self._start())

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What to send after `stored`, all bytes of a stream that ended as `status`, to end the message.

        The ends of open text and reasoning, `error` with `text` (not for a cancelled stream), `finish` with
        the reason `error`, or `other` for a cancelled stream, `[DONE]`. `useChat` keeps what it has and shows
        the error, or is simply ready again. A tool call whose input was being written stays as it is, so that
        no client acts on it. Nothing after a stream that is `done` or has its `[DONE]`.
        """
        if status == "done":
            return b""
        open_ids: dict[tuple[str, str], None] = {}
        seen: set[str] = set()
        parser = EventParser()
        for piece in stored:
            for event in parser.feed(piece):
                if event.data == DONE:
                    return b""
                chunk = _parsed(event.data)
                kind, _, edge = str(chunk.get("type")).rpartition("-")
                seen.add(str(chunk.get("type")))
                if kind in ("text", "reasoning") and edge == "start":
                    open_ids[kind, str(chunk.get("id"))] = None
                elif edge == "end":
                    open_ids.pop((kind, str(chunk.get("id"))), None)
        ending = [] if "start" in seen else [self._start()]
        ending += [_frame(f"{kind}-end", id=block) for kind, block in open_ids]
        cancelled = status == "cancelled" and "error" not in seen
        if not (cancelled or seen & {"finish", "error"}):
            ending.append(_frame("error", errorText=text))
        if "finish" not in seen:
            ending.append(_frame("finish", finishReason="other" if cancelled else "error"))
        return b"".join(ending) + format_event(DONE)


def _parsed(data: str) -> Mapping[str, Any]:
    """The object in an event's data, an empty one if there is none."""
    try:
        value = parse_json(data)
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}


class _Input:
    """The input of one tool call."""

    def __init__(self) -> None:
        self.args = PartialJson()
        self.available = False
        self.answered = False


class _Writer:
    """The state of one encoding."""

    def __init__(self) -> None:
        self._parts = PartTypes()
        self._blocks = 0  # text and reasoning blocks begun, which numbers their ids
        self._open: dict[int, str] = {}  # part index: the id of its open block
        self._calls: dict[int, _Input] = {}
        self._failed = False
        self._finish: MessageFinish | None = None

    def encode(self, chunk: AssistantStreamChunk) -> bytes:
        if isinstance(chunk, PartStart):
            return self._start(self._parts.start(chunk, chunk.part), chunk.part)
        if isinstance(chunk, (TextDelta, ToolCallArgsTextFinish, Result, PartFinish)):
            return self._encode_for_part(chunk, self._parts.of(chunk), chunk.path[0])
        if isinstance(chunk, Data):
            return b"".join(map(_data, chunk.data))
        if isinstance(chunk, Error):
            self._failed = True
            return self._close_blocks() + _frame("error", errorText=chunk.error or "unknown error")
        if isinstance(chunk, StepStart):
            return _frame("start-step")
        if isinstance(chunk, StepFinish):
            return self._close_blocks() + _frame("finish-step")
        if isinstance(chunk, MessageFinish):
            # Sent at the end: clients take it for the last word, and parts may still be closed. Of several the
            # last counts, but none hides an error: as in the accumulator.
            if self._finish is None or self._finish.finish_reason != "error":
                self._finish = chunk
            return self._close_blocks()
        if isinstance(chunk, (Annotations, ToolCallApproval, UIFrame, UpdateState)):
            return b""
        raise MalformedStreamError(f"not a chunk: {type(chunk).__name__}")

    def _start(self, index: int, part: Part) -> bytes:
        if isinstance(part, ToolCallPart):
            self._calls[index] = _Input()
            return _frame("tool-input-start", toolCallId=part.tool_call_id, toolName=part.tool_name)
        if isinstance(part, SourcePart):
            title = {"title": part.title} if part.title else {}
            return _frame("source-url", sourceId=part.id, url=part.url, **title)
        if isinstance(part, FilePart):
            return _frame("file", url=part.data, mediaType=part.mime_type)
        if isinstance(part, DataPart):
            return _frame(f"data-{part.name}", data=part.data)
        return b""

    def _encode_for_part(self, chunk: AssistantStreamChunk, part: Part, index: int) -> bytes:
        if isinstance(part, ToolCallPart):
            call = self._calls[index]
            if isinstance(chunk, TextDelta):
                return self._input_delta(chunk, part, call)
            if isinstance(chunk, Result):
                return self._output(chunk, part, call)
            return self._input(part, call)
        if isinstance(chunk, PartFinish):
            block = self._open.pop(index, None)
            return b"" if block is None else _end_block(block)
        if isinstance(chunk, TextDelta) and isinstance(part, (TextPart, ReasoningPart)):
            begin = b""
            if index not in self._open:
                self._open[index] = f"{part.type}-{self._blocks}"
                self._blocks += 1
                begin = _frame(f"{part.type}-start", id=self._open[index])
            return begin + _frame(f"{part.type}-delta", id=self._open[index], delta=chunk.text_delta)
        raise MalformedStreamError(f"a {chunk.type} chunk does not fit a {part.type} part")

    def _input_delta(self, chunk: TextDelta, part: ToolCallPart, call: _Input) -> bytes:
        if call.available:
            return b""
        call.args.feed(chunk.text_delta)
        return _frame("tool-input-delta", toolCallId=part.tool_call_id, inputTextDelta=chunk.text_delta)

    def _input(self, part: ToolCallPart, call: _Input) -> bytes:
        if call.available:
            return b""
        call.available = True
        return _frame(
            "tool-input-available", toolCallId=part.tool_call_id, toolName=part.tool_name, input=call.args.value
        )

    def _output(self, chunk: Result, part: ToolCallPart, call: _Input) -> bytes:
        begin = self._input(part, call)
        call.answered = True
        result = None if chunk.result is UNSET else chunk.result
        if chunk.is_error:
            text = result if isinstance(result, str) else stringify(result)
            return begin + _frame("tool-output-error", toolCallId=part.tool_call_id, errorText=text)
        return begin + _frame("tool-output-available", toolCallId=part.tool_call_id, output=result)

    def _close_blocks(self) -> bytes:
        ended = b"".join(map(_end_block, self._open.values()))
        self._open.clear()
        return ended

    def end(self) -> bytes:
        reason = None
        metadata: dict[str, object] = {}
        if self._finish is not None:
            reason = None if self._finish.finish_reason == "unknown" else self._finish.finish_reason
            metadata = _present(usage=self._finish.usage)
        elif any(not call.answered for call in self._calls.values()):
            reason = "tool-calls"
        finish = _present(finishReason="error" if self._failed else reason, messageMetadata=metadata or None)
        return self._close_blocks() + _frame("finish", **finish) + format_event(DONE)


def _end_block(block: str) -> bytes:
    return _frame(f"{block.partition('-')[0]}-end", id=block)


def _data(item: JsonValue) -> bytes:
    if isinstance(item, Mapping) and isinstance(item.get("name"), str) and "data" in item:
        return _frame(f"data-{item['name']}", data=item["data"])
    return _frame("data-value", data=item)


class UIMessageStreamDecoder:
    """Decodes what UIMessageStreamEncoder or the AI SDK writes, as the JavaScript decoder of it does.

    Text and reasoning continue the open part of their kind, whatever their ids; a tool call appears once its
    input is complete; `start` counts as the start of a step. `strict`: MalformedStreamError for an end without
    `[DONE]` and for events with a name; otherwise a warning in the log. Unknown chunks are ignored, broken
    ones dropped with a warning.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks in `pieces`, whose boundaries do not matter."""
        reader = _Reader()
        for data in event_data(pieces, self._strict):
            yield from reader.read(data)
        yield from reader.end()


class _ToolCall:
    """A tool call whose input is not complete yet (index None), or that waits for its output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.input = ""
        self.index: int | None = None
        self.output: tuple[Any, bool] | None = None  # came before the input was complete


class _Reader:
    """The state of one decoding."""

    def __init__(self) -> None:
        self._output = Output()
        self._builder = self._output.builder
        self._calls: dict[str, _ToolCall] = {}
        self._message_id: str | None = None

    def read(self, data: str) -> list[AssistantStreamChunk]:
        try:
            chunk: Any = parse_json(data)
            if not isinstance(chunk, Mapping) or not isinstance(chunk.get("type"), str):
                raise ValueError("no chunk")
            self._take(chunk["type"], chunk)
        except (KeyError, TypeError, ValueError) as error:
            skip("UI message stream chunk", data, repr(error))
        return self._output.take()

    def end(self) -> list[AssistantStreamChunk]:
        for call_id, call in self._calls.items():
            self._complete(call_id, call)
        self._builder.finish()
        return self._output.take()

    def _take(self, kind: str, chunk: Mapping[str, Any]) -> None:
        if kind == "text-delta":
            self._builder.append_text(text_of(chunk.get("textDelta", chunk.get("delta", ""))))
        elif kind == "reasoning-delta":
            self._builder.append_reasoning(text_of(chunk["delta"]))
        elif kind.startswith("tool-"):
            self._take_tool(kind, chunk)
        elif kind.startswith("data-"):
            if not chunk.get("transient"):
                self._message("data", data=[{"name": kind[len("data-") :], "data": chunk.get("data")}])
        elif kind == "source-url":
            title = {"title": chunk["title"]} if chunk.get("title") else {}
            source = {"sourceType": "url", "id": chunk["sourceId"], "url": chunk["url"], **title}
            self._output.add_whole(SourcePart, source)
        elif kind == "file":
            self._output.add_whole(FilePart, {"mimeType": chunk["mediaType"], "data": chunk["url"]})
        elif kind in ("start", "start-step"):
            if kind == "start" or self._message_id is None:
                self._message_id = chunk.get("messageId") or secrets.token_hex(8)
            self._message("step-start", messageId=chunk.get("messageId") or self._message_id)
        elif kind == "finish-step":
            self._message("step-finish", **_finish(chunk), isContinued=bool(chunk.get("isContinued")))
        elif kind == "finish":
            self._message("message-finish", **_finish(chunk))
        elif kind == "error":
            self._message("error", error=text_of(chunk["errorText"]))

    def _message(self, kind: str, **fields: Any) -> None:
        self._builder.enqueue(message_chunk(kind, fields))

    def _take_tool(self, kind: str, chunk: Mapping[str, Any]) -> None:
        call_id = text_of(chunk["toolCallId"])
        call = self._calls.get(call_id)
        begins = kind in ("tool-input-start", "tool-input-available", "tool-input-error")
        if call is None and begins:
            call = self._calls[call_id] = _ToolCall(text_of(chunk.get("toolName", "")))
        if call is None:
            skip("UI message stream chunk", kind, f"no tool call {call_id:.80}")
        elif kind == "tool-input-delta":
            call.input += text_of(chunk["inputTextDelta"])
        elif kind in ("tool-input-available", "tool-input-error") and call.index is None:
            if "input" in chunk:
                unparsed = kind == "tool-input-error" and isinstance(chunk["input"], str)
                call.input = chunk["input"] if unparsed else stringify(chunk["input"])
            if kind == "tool-input-error":
                call.output = (chunk.get("errorText", ""), True)
            self._complete(call_id, call)
        elif kind in ("tool-output-available", "tool-output-error") and not chunk.get("preliminary"):
            failed = kind == "tool-output-error"
            call.output = (chunk.get("errorText", "") if failed else chunk.get("output"), failed)
            if call.index is not None:
                self._answer(call)

    def _complete(self, call_id: str, call: _ToolCall) -> None:
        """The input of a call is complete: it becomes a part."""
        if call.index is None:
            call.index = self._builder.start(ToolCallPart(tool_name=call.name, tool_call_id=call_id))
            if call.input:
                self._builder.append_args(call.index, call.input)
            self._builder.close_args(call.index)
        self._answer(call)

    def _answer(self, call: _ToolCall) -> None:
        if call.index is not None and call.output is not None:
            self._builder.respond(call.index, ToolResponse(*call.output).to_chunk())


def _finish(chunk: Mapping[str, Any]) -> dict[str, Any]:
    metadata = chunk.get("messageMetadata")
    usage = chunk.get("usage") or (metadata.get("usage") if isinstance(metadata, Mapping) else None)
    return {
        "finishReason": chunk.get("finishReason") or "unknown",
        "usage": usage if isinstance(usage, Mapping) else _NO_USAGE,
    }


def _keep(encoder: UIMessageStreamEncoder) -> Mapping[str, str]:
    return {} if encoder.message_id is None else {MESSAGE_KEY: encoder.message_id}


def _restore(metadata: Mapping[str, str]) -> UIMessageStreamEncoder:
    # All viewers of a stream that ended before it began must be told the same name.
    return UIMessageStreamEncoder(metadata.get(MESSAGE_KEY))


FORMAT = Format(
    "ui-message-stream",
    UIMessageStreamEncoder,
    lambda: UIMessageStreamDecoder(strict=False),
    keep=_keep,
    restore=_restore,
    exposed=("x-vercel-ai-ui-message-stream",),
    front_end="chat",
)
