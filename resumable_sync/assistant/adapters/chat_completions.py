"""The chunks of chat completions, by all the servers that speak them each in its own way.

https://platform.openai.com/docs/api-reference/chat-streaming has the shape. Beyond it: `reasoning_content` and
`reasoning` in deltas; content as a list of parts; annotations, and citations beside the choices; tool calls whose
id is repeated or missing, whose index is missing or always 0, or that come as a whole.
"""

from __future__ import annotations

from typing import Any

from .reading import field, list_of, text_of, usage_of
from .turn import ModelToolCall, Turn, failure


class ChatCompletion:
    """Reads the chunks of one answer. One thread at a time."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._texts = 0  # texts and reasonings begun: the newest is open
        self._reasoning: bool | None = None  # what the newest is; None: none is open
        self._at_index: dict[object, ModelToolCall] = {}
        self._calls: list[ModelToolCall] = []

    def take(self, event: Any) -> None:
        """One chunk, or the event of OpenAI's helper that holds it; its other events tell nothing new."""
        chunk = field(event, "chunk") if text_of(event, "type") == "chunk" else event
        if field(chunk, "error"):
            raise failure(field(chunk, "error"))
        choices = list_of(chunk, "choices")
        if field(chunk, "choices") is None and field(chunk, "usage") is None:
            return
        turn = self._turn
        turn.begin(text_of(chunk, "id"))
        self._take_usage(field(chunk, "usage"))
        for choice in choices:
            if field(choice, "index") in (None, 0):
                self._take_delta(field(choice, "delta"))
                turn.reason = text_of(choice, "finish_reason") or turn.reason
        for citation in list_of(chunk, "search_results") or list_of(chunk, "citations"):
            turn.cite(citation)

    def _take_delta(self, delta: Any) -> None:
        self._say(text_of(delta, "reasoning_content") or text_of(delta, "reasoning"), reasoning=True)
        self._say(text_of(delta, "content"))
        for part in list_of(delta, "content"):
            for inner in list_of(part, "thinking"):
                self._say(text_of(inner, "text"), reasoning=True)
            self._say(text_of(part, "text"))
        refusal = text_of(delta, "refusal")
        self._turn.refused = self._turn.refused or bool(refusal)
        self._say(refusal)
        function_call = field(delta, "function_call")  # what came before tool calls
        if function_call is not None:
            self._take_call({"index": "function_call", "function": function_call})
        for call in list_of(delta, "tool_calls"):
            self._take_call(call)
        for annotation in list_of(delta, "annotations"):
            self._turn.cite(annotation)

    def _say(self, text: str, *, reasoning: bool = False) -> None:
        if not text:
            return
        if self._reasoning is not reasoning:
            self._end()
            self._texts += 1
            self._reasoning = reasoning
        self._turn.say(self._texts, text, reasoning=reasoning)

    def _end(self) -> None:
        self._turn.end(self._texts)
        self._reasoning = None

    def _take_call(self, delta: Any) -> None:
        self._end()
        custom = field(delta, "custom")
        function = field(delta, "function") if custom is None else custom
        name, call_id = text_of(function, "name"), text_of(delta, "id")
        index = field(delta, "index")
        call = self._known(index, call_id, name)
        if call is None:
            encoding = {} if custom is None else {"input_encoding": "text"}
            call = self._turn.call(("call", len(self._calls)), call_id, **encoding)
            self._calls.append(call)
            if index is not None:
                self._at_index[index] = call
        call.id = call.id or call_id
        self._turn.write_call(call, name, text_of(function, "arguments" if custom is None else "input"))

    def _known(self, index: object, call_id: str, name: str) -> ModelToolCall | None:
        """The call that a delta goes on with; None if it begins one."""
        if index is not None:
            call = self._at_index.get(index)
            # Another id at the same index, with a name, is another call.
            another = call is not None and bool(name and call.id and call_id) and call_id != call.id
            return None if another else call
        if call_id:
            return next((call for call in self._calls if call.id == call_id), None)
        return self._calls[-1] if self._calls and not name else None

    def _take_usage(self, usage: Any) -> None:
        """What was counted up to here; the last is the whole."""
        if usage is not None:
            self._turn.usage = usage_of(
                {
                    "inputTokens": field(usage, "prompt_tokens"),
                    "outputTokens": field(usage, "completion_tokens"),
                    "totalTokens": field(usage, "total_tokens"),
                    "reasoningTokens": field(field(usage, "completion_tokens_details"), "reasoning_tokens"),
                    "cachedInputTokens": field(field(usage, "prompt_tokens_details"), "cached_tokens"),
                }
            )
