"""The events of Anthropic's messages: https://docs.anthropic.com/en/api/messages-streaming."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..controller import AssistantStreamController
from ..message.response import ToolResponse
from .reading import field, list_of, plain, text_of, usage_of
from .turn import ModelTurn, Turn, failure, write

_PROVIDERS_CALLS = ("server_tool_use", "mcp_tool_use")


def write_anthropic(controller: AssistantStreamController, stream: Iterable[Any]) -> ModelTurn:
    """Write what a model answers, from the events of `stream`: of Anthropic's messages.

    From `client.messages.create(…, stream=True)`, the helper `with client.messages.stream(…) as stream`, or dicts.
    The signature of a reasoning, and what was redacted, go along as provider metadata `anthropic`. After
    `pause_turn` the application asks the model to go on. Returns, blocks and raises as `write_openai` does.
    """
    return write(controller, stream, _Message)


class _Message:
    """Reads the events of one message. One thread at a time."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._blocks: dict[object, Any] = {}  # index: the block as it began
        self._signatures: dict[object, str] = {}
        self._reason = ""
        self._counted: dict[str, int] = {}

    def take(self, event: Any) -> None:
        """One event; those of the helper, and ones that are not known, tell nothing new."""
        kind, index = text_of(event, "type"), field(event, "index")
        if kind == "error":
            raise failure(field(event, "error"))
        if kind == "message_start":
            self._turn.begin(text_of(field(event, "message"), "id"))
            self._count(field(field(event, "message"), "usage"))
        elif kind == "content_block_start":
            self._begin(index, field(event, "content_block"))
        elif kind == "content_block_delta":
            self._delta(index, field(event, "delta"))
        elif kind == "content_block_stop":
            self._end(index)
        elif kind == "message_delta":
            self._count(field(event, "usage"))
            self._reason = text_of(field(event, "delta"), "stop_reason") or self._reason
        elif kind == "message_stop":
            self._turn.reason = self._reason or "stop"

    def _begin(self, index: object, block: Any) -> None:
        turn, kind = self._turn, text_of(block, "type")
        turn.begin("")
        self._blocks[index] = block
        if kind == "text":
            turn.say(("text", index), text_of(block, "text"))
            for citation in list_of(block, "citations"):
                turn.cite(citation)
        elif kind == "thinking":
            turn.say(("text", index), text_of(block, "thinking"), reasoning=True)
            self._signatures[index] = text_of(block, "signature")
        elif kind == "redacted_thinking":
            metadata = {"anthropic": {"redactedData": text_of(block, "data")}}
            turn.open(("text", index), reasoning=True, metadata=metadata)
        elif kind == "tool_use" or kind in _PROVIDERS_CALLS:
            options = {"provider_executed": True} if kind in _PROVIDERS_CALLS else {}
            turn.write_call(turn.call(index, text_of(block, "id"), **options), text_of(block, "name"))
        elif kind.endswith("_tool_result"):
            content = plain(field(block, "content"))
            kinds = text_of(content, "type") if isinstance(content, dict) else ""
            failed = field(block, "is_error") is True or kinds.endswith("_error")
            response = ToolResponse(content, is_error=failed, provider_executed=True)
            turn.respond(text_of(block, "tool_use_id"), response)

    def _delta(self, index: object, delta: Any) -> None:
        turn, kind = self._turn, text_of(delta, "type")
        if kind == "text_delta":
            turn.say(("text", index), text_of(delta, "text"))
        elif kind == "thinking_delta":
            turn.say(("text", index), text_of(delta, "thinking"), reasoning=True)
        elif kind == "signature_delta":
            self._signatures[index] = text_of(delta, "signature")
        elif kind == "input_json_delta":
            turn.write_call(turn.call(index), args=text_of(delta, "partial_json"))
        elif kind == "citations_delta":
            turn.cite(field(delta, "citation"))

    def _end(self, index: object) -> None:
        block = self._blocks.get(index)
        kind = text_of(block, "type")
        signature = self._signatures.get(index)
        if signature and not self._turn.said(("text", index)):  # thinking that is left out is signed all the same
            self._turn.open(("text", index), reasoning=True)
        self._turn.end(("text", index), {"anthropic": {"signature": signature}} if signature else None)
        if kind == "tool_use" or kind in _PROVIDERS_CALLS:
            call, given = self._turn.call(index), plain(field(block, "input"))
            if given and not call.args_text:  # some servers tell it at once
                self._turn.write_call(call, args=json.dumps(given))

    def _count(self, usage: Any) -> None:
        """What was counted up to here. Of the input, what a cache was read or written for comes on top."""
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        told = usage_of({name: field(usage, name) for name in names})
        thinking = field(field(usage, "output_tokens_details"), "thinking_tokens")
        self._counted.update(told, **usage_of({"thinking": thinking}))
        counted = self._counted
        if counted:
            inputs = sum(counted.get(name, 0) for name in names if name != "output_tokens")
            outputs = counted.get("output_tokens", 0)
            self._turn.usage = usage_of(
                {
                    "inputTokens": inputs,
                    "outputTokens": outputs,
                    "totalTokens": inputs + outputs,
                    "reasoningTokens": counted.get("thinking"),
                    "cachedInputTokens": counted.get("cache_read_input_tokens"),
                }
            )
