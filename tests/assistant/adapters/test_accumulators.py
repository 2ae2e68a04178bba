"""The message is the one that the provider's own client makes of the same bytes, however they are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .providers import (
    PROVIDERS,
    Provider,
    Written,
    anthropic_blocks,
    anthropic_end,
    call_item,
    chat_call,
    chat_chunk,
    chat_usage,
    langchain,
    message_item,
    package,
    reasoning_item,
    response_events,
)
from .server import Answer, ModelServer

BY_NAME = {provider.name: provider for provider in PROVIDERS}
texts = st.text(st.sampled_from('ab \n"\\{}\u00e9\u2028\U0001f600'), max_size=6)
pieces = st.lists(texts, max_size=4)
arguments = st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(0, 99), texts, st.none()), max_size=2)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@st.composite
def split(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)])]


@st.composite
def tools(draw: st.DrawFn) -> list[tuple[str, str, list[str]]]:
    """Calls: id, name, and pieces of the arguments, which may be none at all."""
    made = []
    for number in range(draw(st.integers(0, 3))):
        text = draw(st.one_of(st.just(""), arguments.map(json.dumps)))
        made.append((f"call_{number}", draw(st.sampled_from(["f", "g"])), draw(split(text))))
    return made


@st.composite
def chat_events(draw: st.DrawFn) -> list[Any]:
    events = [chat_chunk({"role": "assistant", "content": draw(st.sampled_from(["", None]))})]
    events += [chat_chunk({"reasoning_content": piece}) for piece in draw(pieces)]
    name = draw(st.sampled_from(["content", "content", "content", "refusal"]))
    events += [chat_chunk({name: piece}) for piece in draw(pieces)]
    calls = draw(tools())
    left = {index: list(args) for index, (_, _, args) in enumerate(calls)}
    for index, (call_id, name, _) in enumerate(calls):
        events.append(chat_chunk(chat_call(index, call_id, name)))
        if draw(st.booleans()):  # one after the other, or by turns
            events += [chat_chunk(chat_call(index, args=piece)) for piece in left.pop(index)]
    while left:
        index = draw(st.sampled_from(sorted(left)))
        events.append(chat_chunk(chat_call(index, args=left[index].pop(0))))
        if not left[index]:
            del left[index]
    events.append(chat_chunk({}, "tool_calls" if calls else "stop"))
    return [*events, chat_chunk(**chat_usage(draw(st.integers(0, 9)), 3))]


@st.composite
def anthropic_events(draw: st.DrawFn) -> list[Any]:
    blocks: list[tuple[Any, list[Any]]] = []
    for kind in draw(st.lists(st.sampled_from(["text", "thinking"]), max_size=3)):
        deltas: list[Any] = [{"type": f"{kind}_delta", kind: piece} for piece in draw(pieces)]
        if kind == "thinking":
            deltas.append({"type": "signature_delta", "signature": "sig"})
        blocks.append(({"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}, deltas))
    calls = draw(tools())
    for call_id, name, args in calls:
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in args]
        blocks.append(({"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas))
    usage = {"input_tokens": draw(st.integers(0, 9)), "output_tokens": 1, "cache_read_input_tokens": 2}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    start = {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None}}
    reason = "tool_use" if calls else draw(st.sampled_from(["end_turn", "refusal", "max_tokens", "stop_sequence"]))
    return [start, *anthropic_blocks(blocks), *anthropic_end(reason, 5)]


@st.composite
def responses_events(draw: st.DrawFn) -> list[Any]:
    items = [reasoning_item(draw(st.lists(pieces, max_size=2)))] if draw(st.booleans()) else []
    for number in range(draw(st.integers(0, 2))):
        said = draw(pieces)
        items.append(message_item("".join(said), said, number=number))
    items += [call_item(number, *call) for number, call in enumerate(draw(tools()))]
    return response_events(items)


EVENTS = {
    "chat": chat_events(),
    "anthropic": anthropic_events(),
    "responses": responses_events(),
    "langchain": chat_events(),
}


@st.composite
def bodies(draw: st.DrawFn, provider: Provider) -> list[bytes]:
    """An answer, cut anywhere."""
    body = provider.body(*draw(EVENTS[provider.name]))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)])]


Accumulated = dict[str, Any]


def of_chat(stream: Any) -> Accumulated:
    completion = stream.get_final_completion()
    (choice,) = completion.choices
    message, usage = choice.message, completion.usage
    return {
        "text": (message.content or "") + (message.refusal or ""),
        "reasoning": getattr(message, "reasoning_content", None) or "",
        "calls": [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []],
        "usage": (usage.prompt_tokens, usage.completion_tokens),
        "reason": choice.finish_reason,
    }


def of_anthropic(stream: Any) -> Accumulated:
    message = stream.get_final_message()
    usage = message.usage
    blocks: dict[str, list[Any]] = {"text": [], "thinking": [], "tool_use": []}
    for block in message.content:
        blocks[block.type].append(block)
    return {
        "text": "".join(block.text for block in blocks["text"]),
        "reasoning": "".join(block.thinking for block in blocks["thinking"]),
        "calls": [(block.id, block.name, json.dumps(block.input)) for block in blocks["tool_use"]],
        "usage": (usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens),
        "reason": message.stop_reason,
    }


def of_responses(stream: Any) -> Accumulated:
    response = stream.get_final_response()
    summaries = [part.text for item in response.output if item.type == "reasoning" for part in item.summary]
    calls = [item for item in response.output if item.type == "function_call"]
    return {
        "text": response.output_text,
        "reasoning": "".join(summaries),
        "calls": [(item.call_id, item.name, item.arguments) for item in calls],
        "usage": (response.usage.input_tokens, response.usage.output_tokens),
        "reason": "stop",
    }


def of_langchain(chunks: list[Any]) -> Accumulated:
    """LangChain adds chunks up. Its client of OpenAI passes no reasoning on."""
    message = sum(chunks[1:], chunks[0])
    parsed = [*message.tool_calls, *message.invalid_tool_calls]
    texts = {call["id"]: call["args"] or "" for call in message.tool_call_chunks}
    usage = message.usage_metadata
    return {
        "text": message.content if isinstance(message.content, str) else message.text,
        "reasoning": message.additional_kwargs.get("reasoning_content", ""),
        "calls": sorted((call["id"], call["name"], texts[call["id"]]) for call in parsed),
        "usage": (usage["input_tokens"], usage["output_tokens"]),
        "reason": message.response_metadata["finish_reason"],
    }


ACCUMULATED = {"chat": of_chat, "anthropic": of_anthropic, "responses": of_responses}


def of_ours(made: Written) -> Accumulated:
    usage = made.step["usage"]
    return {
        "text": "".join(made.texts()),
        "reasoning": "".join(made.texts("reasoning")),
        "calls": sorted(
            (call["toolCallId"], call["toolName"], json.loads(call["argsText"])) for call in made.calls
        ),
        "usage": (usage["inputTokens"], usage["outputTokens"]),
        "reason": made.turn.provider_reason,
    }


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
@quick
@given(data=st.data())
def test_the_message_of_the_providers_own_client(
    models: ModelServer, provider: Provider, data: st.DataObject
) -> None:
    compare(models, provider, data)


@pytest.mark.heavy
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
@settings(quick, max_examples=1000)
@given(data=st.data())
def test_the_message_of_the_providers_own_client_at_length(
    models: ModelServer, provider: Provider, data: st.DataObject
) -> None:
    compare(models, provider, data)


def compare(models: ModelServer, provider: Provider, data: st.DataObject) -> None:
    package("langchain_openai" if provider.name == "langchain" else "openai")
    models.plan(Answer(data.draw(bodies(provider)), chunked=data.draw(st.booleans())))
    if provider.name == "langchain":
        chunks = list(langchain(models.url).stream("go"))
        theirs = of_langchain(chunks)
        made = Written(lambda controller: provider.write(controller, iter(chunks)))
    else:
        with provider.ask(models.url) as stream:
            made = Written(lambda controller: provider.write(controller, stream))
            theirs = ACCUMULATED[provider.name](stream)
    assert made.error is None, made.error
    theirs["calls"] = sorted((call_id, name, json.loads(args or "{}")) for call_id, name, args in theirs["calls"])
    assert of_ours(made) == theirs
    assert [call["state"] for call in made.calls] == ["call"] * len(
        made.calls
    ) or made.turn.finish_reason == "length"
