"""The providers' client packages, each pointed to a server of ours, and the events that their servers send."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from resumable_sync.assistant import (
    AssistantMessageAccumulator,
    AssistantStreamController,
    create_assistant_stream,
)
from resumable_sync.assistant.adapters import ModelTurn, write_anthropic, write_langchain, write_openai

from ...javascript import cannot
from .server import sse

QUESTION = [{"role": "user", "content": "go"}]


@functools.cache
def package(name: str, extra: str = "ci") -> Any:
    """The client package; without it a skip, in CI a failure."""
    if importlib.util.find_spec(name) is None:
        cannot(f"THE ADAPTER WITH {name} WAS", f"install the extra: {extra}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        return importlib.import_module(name)


@functools.cache
def openai(url: str) -> Any:
    return package("openai").OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@functools.cache
def anthropic(url: str) -> Any:
    return package("anthropic").Anthropic(base_url=url, api_key="none", max_retries=0)


@functools.cache
def langchain(url: str) -> Any:
    return package("langchain_openai").ChatOpenAI(
        model="m", base_url=f"{url}/v1", api_key="none", max_retries=0, stream_usage=True
    )


def chat_stream(url: str) -> Any:
    return openai(url).chat.completions.create(model="m", messages=QUESTION, stream=True)


def responses_stream(url: str) -> Any:
    return openai(url).responses.create(model="m", input="go", stream=True)


def anthropic_stream(url: str) -> Any:
    return anthropic(url).messages.create(model="m", max_tokens=99, messages=QUESTION, stream=True)


def langchain_stream(url: str) -> Any:
    return langchain(url).stream("go")


def chat_helper(url: str) -> Any:
    return openai(url).chat.completions.stream(model="m", messages=QUESTION)


def responses_helper(url: str) -> Any:
    return openai(url).responses.stream(model="m", input="go")


def anthropic_helper(url: str) -> Any:
    return anthropic(url).messages.stream(model="m", max_tokens=99, messages=QUESTION)


# Events, as the servers send them


def chat_chunk(delta: Any = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": choices, **more}


def chat_call(index: int, call_id: str | None = None, name: str | None = None, args: str = "") -> dict[str, Any]:
    head = {} if call_id is None else {"id": call_id, "type": "function"}
    function = {"arguments": args} if name is None else {"name": name, "arguments": args}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


def chat_usage(inputs: int, outputs: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}}


def chat_answer(text: str, calls: Iterable[tuple[str, str, str]] = ()) -> list[Any]:
    events = [chat_chunk({"role": "assistant", "content": ""})]
    events += [chat_chunk({"content": word}) for word in _words(text)]
    for index, (call_id, name, args) in enumerate(calls):
        events.append(chat_chunk(chat_call(index, call_id, name)))
        events += [chat_chunk(chat_call(index, args=piece)) for piece in _pieces(args)]
    return [*events, chat_chunk({}, "tool_calls" if calls else "stop"), chat_chunk(**chat_usage(3, 4))]


def anthropic_answer(text: str, calls: Iterable[tuple[str, str, str]] = ()) -> list[Any]:
    usage = {"input_tokens": 3, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    events: list[Any] = [
        {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None}}
    ]
    blocks: list[tuple[Any, list[Any]]] = []
    if text:
        deltas: list[Any] = [{"type": "text_delta", "text": word} for word in _words(text)]
        blocks.append(({"type": "text", "text": ""}, deltas))
    for call_id, name, args in calls:
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *_pieces(args)]]
        blocks.append(({"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas))
    events += anthropic_blocks(blocks)
    return [*events, *anthropic_end("tool_use" if calls else "end_turn", 4)]


def anthropic_blocks(blocks: Iterable[tuple[Any, list[Any]]]) -> list[Any]:
    events: list[Any] = []
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    return events


def anthropic_end(reason: str, outputs: int) -> list[Any]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "ping"},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": outputs}},
        {"type": "message_stop"},
    ]


def response_events(items: list[tuple[Any, list[Any], Any]], **ending: Any) -> list[Any]:
    """The events of a response: items as they begin, what comes in them, and as they are at their end."""
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True}
    head = {**head, "tool_choice": "auto", "tools": [], "status": "in_progress", "output": []}
    events: list[Any] = [{"type": "response.created", "response": head}]
    for index, (begun, inner, done) in enumerate(items):
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        events += [{"output_index": index, "item_id": begun["id"], **event} for event in inner]
        events.append({"type": "response.output_item.done", "output_index": index, "item": done})
    usage = {
        **{"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    outputs = [done for _, _, done in items]
    last = {"status": "completed", **ending}
    events.append(
        {"type": f"response.{last['status']}", "response": {**head, "output": outputs, "usage": usage, **last}}
    )
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def message_item(
    text: str, pieces: list[str], annotations: list[Any] | None = None, number: int = 0
) -> tuple[Any, list[Any], Any]:
    """A message of a response, with one text."""
    at = {"content_index": 0}
    head = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
    part = {"type": "output_text", "text": "", "annotations": []}
    inner: list[Any] = [{"type": "response.content_part.added", "part": part, **at}]
    inner += [{"type": "response.output_text.delta", "delta": piece, "logprobs": [], **at} for piece in pieces]
    for number, annotation in enumerate(annotations or []):
        added = {"type": "response.output_text.annotation.added", "annotation_index": number}
        inner.append({**added, "annotation": annotation, **at})
    whole = {**part, "text": text, "annotations": annotations or []}
    inner.append({"type": "response.output_text.done", "text": text, "logprobs": [], **at})
    inner.append({"type": "response.content_part.done", "part": whole, **at})
    return (
        {**head, "status": "in_progress", "content": []},
        inner,
        {**head, "status": "completed", "content": [whole]},
    )


def reasoning_item(texts: list[list[str]]) -> tuple[Any, list[Any], Any]:
    inner: list[Any] = []
    for number, pieces in enumerate(texts):
        at, text = {"summary_index": number}, "".join(pieces)
        kind, part = "response.reasoning_summary", {"type": "summary_text", "text": ""}
        inner.append({"type": f"{kind}_part.added", "part": part, **at})
        inner += [{"type": f"{kind}_text.delta", "delta": piece, **at} for piece in pieces]
        inner.append({"type": f"{kind}_text.done", "text": text, **at})
        inner.append({"type": f"{kind}_part.done", "part": {**part, "text": text}, **at})
    summary = [{"type": "summary_text", "text": "".join(pieces)} for pieces in texts]
    head = {"id": "rs_1", "type": "reasoning"}
    return {**head, "summary": []}, inner, {**head, "summary": summary}


def call_item(number: int, call_id: str, name: str, pieces: list[str]) -> tuple[Any, list[Any], Any]:
    head = {"id": f"fc_{number}", "type": "function_call", "call_id": call_id, "name": name}
    kind, args = "response.function_call_arguments", "".join(pieces)
    inner: list[Any] = [{"type": f"{kind}.delta", "delta": piece} for piece in pieces]
    inner.append({"type": f"{kind}.done", "arguments": args, "name": name})
    begun = {**head, "status": "in_progress", "arguments": ""}
    return begun, inner, {**head, "status": "completed", "arguments": args}


def responses_answer(text: str, calls: Iterable[tuple[str, str, str]] = ()) -> list[Any]:
    items = [message_item(text, _words(text))] if text else []
    items += [
        call_item(number, call_id, name, _pieces(args)) for number, (call_id, name, args) in enumerate(calls)
    ]
    return response_events(items)


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def _pieces(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


@dataclass(frozen=True)
class Provider:
    """One adapter, its client, and its server's events."""

    name: str
    write: Callable[..., ModelTurn]
    stream: Callable[[str], Any]
    answer: Callable[..., list[Any]]
    body: Callable[..., bytes]
    helper: Callable[[str], AbstractContextManager[Any]] | None = None
    error: Any = None
    """An event that tells of an error."""

    def ask(self, url: str) -> AbstractContextManager[Any]:
        """What the client streams, by its helper where there is one."""
        return nullcontext(self.stream(url)) if self.helper is None else self.helper(url)


OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}
chat_body = functools.partial(sse, done=True)
named_body = functools.partial(sse, named=True)
_CHAT: tuple[Any, Any, Any] = (write_openai, chat_stream, chat_answer)
PROVIDERS = [
    Provider("chat", *_CHAT, chat_body, chat_helper, {"error": OVERLOADED}),
    Provider(
        "responses",
        write_openai,
        responses_stream,
        responses_answer,
        named_body,
        responses_helper,
        {"type": "error", "code": "server_error", "message": "Overloaded", "param": None, "sequence_number": 9},
    ),
    Provider(
        "anthropic",
        write_anthropic,
        anthropic_stream,
        anthropic_answer,
        named_body,
        anthropic_helper,
        {"type": "error", "error": OVERLOADED},
    ),
    Provider("langchain", write_langchain, langchain_stream, chat_answer, chat_body, None, {"error": OVERLOADED}),
]


# What was written


class Written:
    """The message that a callback writes, and what it returned or raised."""

    def __init__(self, callback: Callable[[AssistantStreamController], Any]) -> None:
        self.turn: Any = None
        self.error: BaseException | None = None

        def run(controller: AssistantStreamController) -> None:
            try:
                self.turn = callback(controller)
            except BaseException as error:
                self.error = error
                raise

        self.chunks = list(create_assistant_stream(run, format_error=str))
        accumulator = AssistantMessageAccumulator()
        for chunk in self.chunks:
            accumulator.add(chunk)
        self.message = accumulator.finish()

    def texts(self, kind: str = "text") -> list[str]:
        return [part["text"] for part in self.message["parts"] if part["type"] == kind]

    @property
    def calls(self) -> list[Any]:
        return [part for part in self.message["parts"] if part["type"] == "tool-call"]

    @property
    def sources(self) -> list[Any]:
        return [part for part in self.message["parts"] if part["type"] == "source"]

    @property
    def step(self) -> Any:
        (step,) = self.message["metadata"]["steps"]
        return step


def written(write: Callable[..., ModelTurn], events: Iterable[Any]) -> Written:
    return Written(lambda controller: write(controller, events))
