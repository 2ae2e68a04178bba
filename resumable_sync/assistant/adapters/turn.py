"""One answer of a model, written as it comes: what all adapters write with, and what they return."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import StreamCancelledError, StreamFinalizedError, UpstreamError
from ..controller import AssistantStreamController, TextPartController, ToolCallPartController
from ..message.chunks import StepFinish, StepStart, UIFrame
from ..message.finish_reasons import finish_reason
from ..message.parts import UNSET
from ..message.response import ToolResponse
from .reading import field, reading, text_of

CUT_OFF_TEXT = "The arguments of this tool call were cut off."
"""How a call is answered that nobody may run."""

_CUT_OFF = ("length", "content-filter", "error")
"""Finish reasons after which what was written last is not whole."""

_DOCUMENTS = {
    "char_location": "text/plain",
    "content_block_location": "text/plain",
    "page_location": "application/pdf",
}


class ModelToolCall:
    """A call of a tool in a model's answer. `part` writes to it; `set_response` answers it. Thread-safe."""

    def __init__(self, controller: AssistantStreamController, tool_call_id: str, **options: Any) -> None:
        self._controller = controller
        self._options = options
        self._pieces: list[str] = []  # of the arguments; written by the adapter's thread alone
        self._part: ToolCallPartController | None = None
        self.id = tool_call_id
        """As the provider gave it, "" if it did not: the next request names the call by it. In the message, where
        ids must differ, it may have another one: that of its `part`."""
        self.name = ""
        self.answered = False
        """Whether the provider has told what came of it."""

    @property
    def part(self) -> ToolCallPartController:
        """Its writer."""
        assert self._part is not None, "a call without a name"
        return self._part

    @property
    def args_text(self) -> str:
        """The arguments as the model wrote them."""
        return "".join(self._pieces)

    @property
    def args(self) -> Any:
        """The arguments; none at all are {}. ValueError if they are no JSON."""
        return json.loads(self.args_text) if self.args_text else {}

    @property
    def is_providers(self) -> bool:
        """Whether the provider runs the tool."""
        return bool(self._options.get("provider_executed"))

    def set_response(self, result: object = UNSET, is_error: bool = False) -> None:
        """Answer the call; `result` may be a ToolResponse. As of ToolCallPartController."""
        self.part.set_response(result, is_error)

    def to_openai(self) -> dict[str, Any]:
        """The call as a request to chat completions repeats it."""
        function = {"name": self.name, "arguments": self.args_text or "{}"}
        return {"id": self.id or self.part.tool_call_id, "type": "function", "function": function}

    def _append(self, name: str, args: str) -> None:
        """More of the call, which begins with its name."""
        if self._part is None and name:
            self.name = name
            known = not self.id or self._controller.has_tool_call(self.id)
            self._part = self._controller.add_tool_call_part(
                tool_name=name, tool_call_id=None if known else self.id, **self._options
            )
            args = self.args_text + args
            self._pieces.clear()
        if args:
            self._pieces.append(args)
            if self._part is not None:
                self._part.args_text.append(args)

    def _cut_off(self) -> None:
        """Answer a call that is not whole, so that no client runs it."""
        if self._part is None or self.answered:
            return
        self.answered = True
        names = {"toolCallId": self.part.tool_call_id, "toolName": self.name}
        executed = {"providerExecuted": True} if self.is_providers else {}
        frame: Any = {
            "type": "tool-input-error",
            **names,
            "input": self.args_text,
            "errorText": CUT_OFF_TEXT,
            **executed,
        }
        self._controller.enqueue(UIFrame(frame=frame))
        self.part.set_response(CUT_OFF_TEXT, is_error=True, provider_executed=self.is_providers or None)


@dataclass(frozen=True)
class ModelTurn:
    """What became of one answer of a model."""

    finish_reason: str
    """`stop`, `length`, `content-filter`, `tool-calls`, `error` or `other`."""
    provider_reason: str
    """The same in the provider's word, such as `pause_turn`."""
    usage: Mapping[str, int] | None
    """Tokens: inputTokens, which includes those of a cache, outputTokens, and what else was told, if anything."""
    text: str
    tool_calls: list[ModelToolCall]
    """Those that want an answer, in the order in which they began; [] where the answer was cut off."""


class Turn:
    """Writes one answer. One thread at a time."""

    def __init__(self, controller: AssistantStreamController) -> None:
        self.controller = controller
        self.refused = False
        self.usage: dict[str, int] = {}
        self.reason = ""
        """In the provider's word; "" until the provider has told."""
        self._begun = False
        self._parts: dict[Hashable, TextPartController] = {}
        self._texts: list[str] = []
        self._calls: dict[Hashable, ModelToolCall] = {}
        self._sources: dict[Hashable, dict[str, Any]] = {}

    def begin(self, message_id: str) -> None:
        """The answer has come this far; its first event begins a step."""
        if not self._begun:
            self._begun = True
            self.controller.enqueue(StepStart(message_id=message_id or secrets.token_hex(8)))

    def say(self, key: Hashable, text: str, *, reasoning: bool = False) -> None:
        """More of the text that `key` names. Nothing opens no part."""
        if not text:
            return
        if key not in self._parts:
            self.open(key, reasoning=reasoning)
        if not reasoning:
            self._texts.append(text)
        self._parts[key].append(text)

    def open(self, key: Hashable, *, reasoning: bool, metadata: Mapping[str, Any] | None = None) -> None:
        """Open a part, which may stay empty."""
        add = self.controller.add_reasoning_part if reasoning else self.controller.add_text_part
        self._parts[key] = add(provider_metadata=metadata)

    def end(self, key: Hashable, metadata: Mapping[str, Any] | None = None) -> None:
        """Nothing more comes of the text that `key` names."""
        part = self._parts.pop(key, None)
        if part is not None:
            part.close(metadata)

    def said(self, key: Hashable) -> bool:
        """Whether the text that `key` names has begun."""
        return key in self._parts

    def refuse(self, key: Hashable, text: str) -> None:
        """More of a refusal, which the reader is to see."""
        self.refused = self.refused or bool(text)
        self.say(key, text)

    def call(self, key: Hashable, tool_call_id: str = "", **options: Any) -> ModelToolCall:
        """The call that `key` names."""
        if key not in self._calls:
            self._calls[key] = ModelToolCall(self.controller, tool_call_id, **options)
        return self._calls[key]

    def write_call(self, call: ModelToolCall, name: str = "", args: str = "") -> None:
        """More of a call."""
        call._append(name, args)

    def respond(self, tool_call_id: str, response: ToolResponse) -> None:
        """What the provider's own tool has returned, to a call of this answer or of one before."""
        for call in self._calls.values():
            if call.id == tool_call_id:
                call.answered = True
                call.set_response(response)
                return
        self.controller.append_tool_result(tool_call_id, response)

    def cite(self, citation: object) -> None:
        """Something was cited, perhaps again. It is written after the text, which it would cut in two."""
        inner = field(citation, "url_citation") or field(citation, "file_citation") or citation
        url = inner if isinstance(inner, str) else text_of(inner, "url")
        if not url and text_of(inner, "source").startswith(("http://", "https://")):
            url = text_of(inner, "source")
        title = text_of(inner, "title") or text_of(inner, "document_title")
        if url:
            self._sources.setdefault(url, {"url": url, "title": title or None})
            return
        name = text_of(inner, "filename")
        which = text_of(inner, "file_id") or field(inner, "document_index")
        if title or name or which is not None:
            media_type = _DOCUMENTS.get(text_of(inner, "type"), "application/octet-stream")
            document: dict[str, Any] = {
                "source_type": "document",
                "title": title or name or f"{which}",
                "media_type": media_type,
            }
            key = ("document", which if which is not None else title or name)
            self._sources.setdefault(key, {**document, "filename": name or None})

    def finish(self) -> ModelTurn:
        """The provider has said all. UpstreamError if it has not said so."""
        if not self.reason:
            raise UpstreamError("the model's answer ended without a finish reason: it broke off")
        reason = finish_reason(self.reason) or "other"
        if self.refused and reason == "stop":
            reason = "content-filter"
        if any(call._part is None for call in self._calls.values()):
            raise UpstreamError("the model called a tool without a name")
        for key in list(self._parts):
            self.end(key)
        for source in self._sources.values():
            self.controller.append_source(id=secrets.token_hex(8), **source)
        if reason in _CUT_OFF:
            self._cut_off()
        else:
            for call in self._calls.values():
                call.part.args_text.close()
        wanted = [call for call in self._calls.values() if not (call.answered or call.is_providers)]
        if wanted and reason == "stop":  # many servers say so
            reason = "tool-calls"
        usage = self.usage or None
        self.controller.enqueue(StepFinish(finish_reason=reason, usage=usage, is_continued=False))
        self.controller.set_finish(reason, usage)
        return ModelTurn(reason, self.reason, usage, "".join(self._texts), wanted)

    def fail(self) -> None:
        """The answer broke off: nobody may run what it has called, whatever comes next."""
        with suppress(StreamCancelledError, StreamFinalizedError):  # nobody reads any more
            for key in list(self._parts):
                self.end(key)
            self._cut_off()

    def _cut_off(self) -> None:
        for call in self._calls.values():
            call._cut_off()


class Reader(Protocol):
    """What makes an answer of events."""

    def take(self, event: Any) -> None:
        """One event, in its turn. UpstreamError if it tells of an error."""


def write(
    controller: AssistantStreamController, stream: Iterable[Any], make: Callable[[Turn], Reader]
) -> ModelTurn:
    """Write the answer that `make(turn)` reads from the events."""
    turn = Turn(controller)
    reader = make(turn)
    with reading(controller, stream) as events:
        try:
            for event in events:
                reader.take(event)
            return turn.finish()
        except BaseException:
            turn.fail()
            raise


def failure(error: object) -> UpstreamError:
    """What a provider tells of an error, as an exception."""
    told = text_of(error, "message") or (error if isinstance(error, str) else "")
    kind = text_of(error, "type") or text_of(error, "code")
    return UpstreamError(f"the model's server reports an error: {told or kind or error!r}")
