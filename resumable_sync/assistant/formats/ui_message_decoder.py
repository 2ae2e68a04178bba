"""Decoding the AI SDK's UI message stream."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...sse import EventParser
from ..message.chunks import AssistantStreamChunk
from ..message.jsontext import parse_json, stringify
from ..message.parts import FilePart, Part, SourcePart, ToolCallPart
from .base import Output, complain, skip

_DONE = "[DONE]"
_NO_USAGE = {"inputTokens": 0, "outputTokens": 0}


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
        parser = EventParser()
        reader = _Reader()
        for piece in pieces:
            for event in parser.feed(piece):
                if event.event != "message":
                    complain(self._strict, f"an event that this format does not know: {event.event!r:.80}")
                elif event.data == _DONE:
                    yield from reader.end()
                    return
                else:
                    yield from reader.read(event.data)
        complain(self._strict, "the stream ended without its [DONE] marker")
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
            self._builder.append_text(_text(chunk.get("textDelta", chunk.get("delta", ""))))
        elif kind == "reasoning-delta":
            self._builder.append_reasoning(_text(chunk["delta"]))
        elif kind.startswith("tool-"):
            self._take_tool(kind, chunk)
        elif kind.startswith("data-"):
            if not chunk.get("transient"):
                self._message("data", data=[{"name": kind[len("data-") :], "data": chunk.get("data")}])
        elif kind == "source-url":
            title = {"title": chunk["title"]} if chunk.get("title") else {}
            source = {"sourceType": "url", "id": chunk["sourceId"], "url": chunk["url"], **title}
            self._whole(SourcePart, source)
        elif kind == "file":
            self._whole(FilePart, {"mimeType": chunk["mediaType"], "data": chunk["url"]})
        elif kind in ("start", "start-step"):
            if kind == "start" or self._message_id is None:
                self._message_id = chunk.get("messageId") or secrets.token_hex(8)
            self._message("step-start", messageId=chunk.get("messageId") or self._message_id)
        elif kind == "finish-step":
            self._message("step-finish", **_finish(chunk), isContinued=bool(chunk.get("isContinued")))
        elif kind == "finish":
            self._message("message-finish", **_finish(chunk))
        elif kind == "error":
            self._message("error", error=_text(chunk["errorText"]))

    def _message(self, kind: str, **fields: Any) -> None:
        self._builder.enqueue(AssistantStreamChunk.from_json({"type": kind, "path": [], **fields}))

    def _whole(self, kind: type[Part], fields: Mapping[str, Any]) -> None:
        part = Part.from_json({"type": kind.type, **fields})
        if not isinstance(part, kind):
            raise ValueError(f"not a {kind.type} part")
        self._builder.close_part(self._builder.start(part))

    def _take_tool(self, kind: str, chunk: Mapping[str, Any]) -> None:
        call_id = _text(chunk["toolCallId"])
        call = self._calls.get(call_id)
        begins = kind in ("tool-input-start", "tool-input-available", "tool-input-error")
        if call is None and begins:
            call = self._calls[call_id] = _ToolCall(_text(chunk.get("toolName", "")))
        if call is None:
            skip("UI message stream chunk", kind, f"no tool call {call_id:.80}")
        elif kind == "tool-input-delta":
            call.input += _text(chunk["inputTextDelta"])
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
            self._builder.respond(call.index, call.output[0], is_error=call.output[1])


def _finish(chunk: Mapping[str, Any]) -> dict[str, Any]:
    metadata = chunk.get("messageMetadata")
    usage = chunk.get("usage") or (metadata.get("usage") if isinstance(metadata, Mapping) else None)
    return {
        "finishReason": chunk.get("finishReason") or "unknown",
        "usage": usage if isinstance(usage, Mapping) else _NO_USAGE,
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r:.80}")
    return value
