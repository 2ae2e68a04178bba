"""The events of OpenAI's responses: https://platform.openai.com/docs/api-reference/responses-streaming."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

from ...errors import UpstreamError
from ..message.response import ToolResponse
from .reading import field, list_of, plain, text_of, usage_of
from .turn import ModelToolCall, Turn, failure

_ENVELOPE = ("id", "type", "status", "output", "outputs", "result", "results", "error")
"""What of a provider's own tool call are no arguments."""


class Response:
    """Reads the events of one response. One thread at a time."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def take(self, event: Any) -> None:
        """One event; those that tell nothing new are passed over."""
        kind = text_of(event, "type")
        if kind == "error" or (not kind and field(event, "error")):
            raise failure(field(event, "error") or event)
        if not kind.startswith("response."):
            return
        response = field(event, "response")
        self._turn.begin(text_of(response, "id"))
        key = field(event, "output_index")
        name = kind.removeprefix("response.")
        if name in ("completed", "incomplete", "failed", "cancelled"):
            self._end(name, response)
        elif name == "output_item.added":
            self._item(key, field(event, "item"))
        elif name == "output_item.done":
            self._item_done(key, field(event, "item"))
        elif name in ("function_call_arguments.delta", "custom_tool_call_input.delta"):
            self._turn.write_call(self._turn.call(key), args=text_of(event, "delta"))
        elif name == "output_text.annotation.added":
            self._turn.cite(field(event, "annotation"))
        else:
            self._text(name, key, event)

    def _text(self, name: str, item: Hashable, event: Any) -> None:
        """What is written into the item at its place, and the whole of it where there were no deltas."""
        of, _, step = name.rpartition(".")
        texts = {
            "output_text": ("content_index", "text"),
            "refusal": ("content_index", "refusal"),
            "reasoning_text": ("content_index", "text"),
            "reasoning_summary_text": ("summary_index", "text"),
        }
        if of not in texts or step not in ("delta", "done"):
            return
        index, whole = texts[of]
        key = (item, index, field(event, index))
        self._turn.refused = self._turn.refused or of == "refusal"
        reasoning = of.startswith("reasoning")
        if step == "delta":
            self._turn.say(key, text_of(event, "delta"), reasoning=reasoning)
        else:
            if not self._turn.said(key):
                self._turn.say(key, text_of(event, whole), reasoning=reasoning)
            self._turn.end(key)

    def _item(self, key: Hashable, item: Any) -> ModelToolCall | None:
        """An item of the output; the call, if it is one that the application answers."""
        kind = text_of(item, "type")
        if kind not in ("function_call", "custom_tool_call"):
            return None
        encoding = {"input_encoding": "text"} if kind == "custom_tool_call" else {}
        call = self._turn.call(key, text_of(item, "call_id") or text_of(item, "id"), **encoding)
        if not call.name:
            self._turn.write_call(call, text_of(item, "name"))
        return call

    def _item_done(self, key: Hashable, item: Any) -> None:
        kind = text_of(item, "type")
        call = self._item(key, item)
        if call is not None:
            if not call.args_text:
                self._turn.write_call(call, args=text_of(item, "arguments") or text_of(item, "input"))
        elif kind == "image_generation_call" and text_of(item, "result"):
            mime_type = f"image/{text_of(item, 'output_format') or 'png'}"
            self._turn.controller.append_file(data=text_of(item, "result"), mime_type=mime_type)
        elif kind.endswith("_call") and kind not in ("computer_call", "local_shell_call", "shell_call"):
            self._provider_call(key, kind, item)

    def _provider_call(self, key: Hashable, kind: str, item: Any) -> None:
        """A tool that the provider has run, told as a whole."""
        told = plain(item)
        call = self._turn.call(key, text_of(item, "id"), provider_executed=True)
        name = text_of(item, "name") or kind.removesuffix("_call")
        args = text_of(item, "arguments")
        given = {key: value for key, value in told.items() if key not in _ENVELOPE and value is not None}
        self._turn.write_call(call, name, args or json.dumps(given))
        outputs = [told.get(name) for name in ("output", "outputs", "results", "result", "error")]
        result = next((output for output in outputs if output is not None), {"status": told.get("status")})
        failed = told.get("status") in ("failed", "incomplete") or told.get("error") is not None
        self._turn.respond(call.id, ToolResponse(result, is_error=failed, provider_executed=True))

    def _end(self, name: str, response: Any) -> None:
        if name == "failed":
            raise failure(field(response, "error") or "the response failed")
        if name == "cancelled":
            raise UpstreamError("the response was cancelled at the model's server")
        usage = field(response, "usage")
        if usage is not None:
            self._turn.usage = usage_of(
                {
                    "inputTokens": field(usage, "input_tokens"),
                    "outputTokens": field(usage, "output_tokens"),
                    "totalTokens": field(usage, "total_tokens"),
                    "reasoningTokens": field(field(usage, "output_tokens_details"), "reasoning_tokens"),
                    "cachedInputTokens": field(field(usage, "input_tokens_details"), "cached_tokens"),
                }
            )
        self._turn.reason = "stop"
        if name == "incomplete":
            why = text_of(field(response, "incomplete_details"), "reason")
            self._turn.reason = why or "length"
        for each in list_of(response, "output"):
            if text_of(each, "type") == "message":
                for part in list_of(each, "content"):
                    for annotation in list_of(part, "annotations"):
                        self._turn.cite(annotation)
