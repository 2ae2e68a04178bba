"""The message chunks of LangChain's chat models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..controller import AssistantStreamController
from .reading import field, list_of, text_of, usage_of
from .turn import ModelToolCall, ModelTurn, Turn, write

_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")


def write_langchain(
    controller: AssistantStreamController, stream: Iterable[Any], *, needs_reason: bool = True
) -> ModelTurn:
    """Write what a chat model answers, from the message chunks of `stream`: `model.stream(messages)`.

    With `needs_reason` an answer that ends without a finish reason in its `response_metadata` has broken off.
    Leave it out for models that tell none, such as local ones, whose answers end by an exception or are whole.
    Returns, blocks and raises as `write_openai` does, but when a stream is cancelled the model is stopped at its
    next chunk only.
    """

    def make(turn: Turn) -> _Chunks:
        if not needs_reason:
            turn.reason = "stop"
        return _Chunks(turn)

    return write(controller, stream, make)


class _Chunks:
    """Reads the chunks of one message. One thread at a time."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._texts = 0
        self._open: tuple[bool, object] | None = None  # whether it is reasoning, and the index of its block
        self._calls: list[ModelToolCall] = []
        self._at_index: dict[object, ModelToolCall] = {}

    def take(self, event: Any) -> None:
        """One chunk."""
        turn = self._turn
        turn.begin(text_of(event, "id"))
        more = field(event, "additional_kwargs")
        self._say(text_of(more, "reasoning_content"), True, None)
        self._say(text_of(event, "content"), False, None)
        for block in list_of(event, "content"):
            self._block(block)
        refusal = text_of(more, "refusal")
        turn.refused = turn.refused or bool(refusal)
        self._say(refusal, False, None)
        pieces = list_of(event, "tool_call_chunks")
        for piece in pieces:
            self._call(piece)
        for whole in [] if pieces else list_of(event, "tool_calls"):  # of a message that was not streamed
            self._call({"id": field(whole, "id"), "name": field(whole, "name"), "args": field(whole, "args")})
        self._metadata(field(event, "response_metadata"), field(event, "usage_metadata"))

    def _block(self, block: Any) -> None:
        kind, index = text_of(block, "type"), field(block, "index")
        if isinstance(block, str):
            self._say(block, False, None)
        elif kind in ("text", "text-plain"):
            self._say(text_of(block, "text"), False, index)
            for citation in [*list_of(block, "annotations"), *list_of(block, "citations")]:
                self._turn.cite(citation)
        elif kind in ("reasoning", "thinking", "reasoning_content"):
            self._say(text_of(block, "thinking") or text_of(block, "reasoning"), True, index)
            for part in list_of(block, "summary"):
                self._say(text_of(part, "text"), True, (index, field(part, "index")))
            for part in list_of(block, "content"):
                self._say(text_of(part, "text"), True, (index, field(part, "index")))
        elif kind == "refusal":
            self._turn.refused = True
            self._say(text_of(block, "refusal"), False, index)

    def _say(self, text: str, reasoning: bool, index: object) -> None:
        if not text:
            return
        if self._open != (reasoning, index):
            self._end()
            self._texts += 1
            self._open = (reasoning, index)
        self._turn.say(self._texts, text, reasoning=reasoning)

    def _end(self) -> None:
        self._turn.end(self._texts)
        self._open = None

    def _call(self, piece: Any) -> None:
        self._end()
        args, index, call_id = field(piece, "args"), field(piece, "index"), text_of(piece, "id")
        call = self._at_index.get(index) if index is not None else None
        if call is not None and call_id and call.id and call_id != call.id:  # LangChain keeps them apart, too
            call = None
        if call is None:
            call = self._turn.call(("call", len(self._calls)), call_id)
            self._calls.append(call)
            if index is not None:
                self._at_index[index] = call
        call.id = call.id or call_id
        text = args if isinstance(args, str) else "" if args is None else json.dumps(args)
        self._turn.write_call(call, text_of(piece, "name"), text)

    def _metadata(self, metadata: Any, usage: Any) -> None:
        turn = self._turn
        status = text_of(metadata, "status")  # of responses
        if status == "completed":
            turn.reason = "stop"
        elif status == "incomplete":
            turn.reason = text_of(field(metadata, "incomplete_details"), "reason") or "length"
        turn.reason = next(filter(None, (text_of(metadata, name) for name in _REASONS)), turn.reason)
        if usage is None:
            return
        told = {
            "inputTokens": field(usage, "input_tokens"),
            "outputTokens": field(usage, "output_tokens"),
            "totalTokens": field(usage, "total_tokens"),
            "reasoningTokens": field(field(usage, "output_token_details"), "reasoning"),
            "cachedInputTokens": field(field(usage, "input_token_details"), "cache_read"),
        }
        for name, count in usage_of(told).items():  # each chunk tells its share
            turn.usage[name] = turn.usage.get(name, 0) + count
