"""What the adapters make of single events, also of those that only some servers send."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from resumable_sync.assistant.adapters import UpstreamError, write_anthropic, write_langchain, write_openai

from .providers import (
    Written,
    anthropic_answer,
    anthropic_blocks,
    anthropic_end,
    chat_answer,
    chat_call,
    chat_chunk,
    chat_usage,
    message_item,
    response_events,
    responses_answer,
    written,
)

STOP = chat_chunk({}, "stop")


def objects(value: Any) -> Any:
    """The same event as objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: objects(item) for key, item in value.items()})
    return [objects(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_of_compatible_servers(name: str) -> None:
    deltas = [{name: "Let me "}, {name: "see."}, {"content": "So"}, {"content": "!", name: None}]
    made = written(write_openai, [*map(chat_chunk, deltas), STOP])
    assert made.texts("reasoning") == ["Let me see."] and made.texts() == ["So!"]
    assert made.message["status"] == {"type": "complete", "reason": "stop"}


def test_a_reasoning_that_is_told_twice_is_written_once() -> None:
    made = written(write_openai, [chat_chunk({"reasoning_content": "a", "reasoning": "a"}), STOP])
    assert made.texts("reasoning") == ["a"]


def test_content_as_a_list_of_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    made = written(write_openai, [chat_chunk({"content": [thinking, {"type": "text", "text": "yes"}]}), STOP])
    assert made.texts("reasoning") == ["hm"] and made.texts() == ["yes"]


def calls_of(*deltas: Any) -> list[tuple[str, str]]:
    made = written(write_openai, [*map(chat_chunk, deltas), chat_chunk({}, "tool_calls")])
    assert made.error is None, made.error
    assert [call["state"] for call in made.calls] == ["call"] * len(made.calls)
    assert made.message["status"] == {"type": "requires-action", "reason": "tool-calls"}
    ids = [call["toolCallId"] for call in made.calls]
    assert all(ids) and len(set(ids)) == len(ids)
    assert [call.name for call in made.turn.tool_calls] == [call["toolName"] for call in made.calls]
    return [(call["toolName"], call["argsText"]) for call in made.calls]


BOTH = [("f", '{"a":1}'), ("g", '{"b":2}')]


def test_parallel_calls_that_take_turns() -> None:
    deltas = [
        chat_call(0, "x", "f"),
        chat_call(1, "y", "g"),
        chat_call(0, args='{"a"'),
        chat_call(1, args='{"b":'),
        chat_call(0, args=":1}"),
        chat_call(1, args="2}"),
    ]
    assert calls_of(*deltas) == BOTH


def test_ids_that_are_repeated_with_each_delta() -> None:
    assert calls_of(chat_call(0, "x", "f", '{"a"'), chat_call(0, "x", "f", ":1}")) == BOTH[:1]


@pytest.mark.parametrize("call_id", [None, ""])
def test_ids_that_are_missing(call_id: str | None) -> None:
    assert calls_of(chat_call(0, call_id, "f", '{"a":1}'), chat_call(1, call_id, "g", '{"b":2}')) == BOTH


def test_one_id_for_two_calls() -> None:
    assert calls_of(chat_call(0, "x", "f", '{"a":1}'), chat_call(1, "x", "g", '{"b":2}')) == BOTH


def test_whole_calls_that_all_have_the_index_0() -> None:
    assert calls_of(chat_call(0, "x", "f", '{"a":1}'), chat_call(0, "y", "g", '{"b":2}')) == BOTH


def test_an_index_that_is_missing() -> None:
    deltas = [chat_call(0, "x", "f", '{"a"'), chat_call(0, None, None, ":1}"), chat_call(0, "y", "g", '{"b":2}')]
    for delta in deltas:
        del delta["tool_calls"][0]["index"]
    assert calls_of(*deltas) == BOTH


def test_a_name_that_comes_late() -> None:
    assert calls_of(chat_call(0, "x", None, '{"a"'), chat_call(0, None, "f", ":1}")) == BOTH[:1]


def test_arguments_that_are_empty() -> None:
    assert calls_of(chat_call(0, "x", "f")) == [("f", "{}")]


def test_a_call_without_a_name_breaks_the_answer() -> None:
    made = written(write_openai, [chat_chunk(chat_call(0, "x", None, "{}")), chat_chunk({}, "tool_calls")])
    assert isinstance(made.error, UpstreamError) and made.message["status"]["reason"] == "error"


def test_the_older_function_call_and_a_custom_tool() -> None:
    old = chat_chunk({"function_call": {"name": "f", "arguments": '{"a":1}'}})
    made = written(write_openai, [old, chat_chunk({}, "function_call")])
    assert [call["args"] for call in made.calls] == [{"a": 1}] and made.turn.finish_reason == "tool-calls"
    custom = {"index": 0, "id": "x", "type": "custom", "custom": {"name": "f", "input": "free text"}}
    made = written(write_openai, [chat_chunk({"tool_calls": [custom]}), chat_chunk({}, "tool_calls")])
    assert made.calls[0]["argsText"] == "free text"


def test_calls_of_a_server_that_stops_for_them() -> None:
    made = written(write_openai, [chat_chunk(chat_call(0, "x", "f", "{}")), STOP])
    assert made.turn.finish_reason == "tool-calls" and made.turn.provider_reason == "stop"
    assert made.message["status"]["type"] == "requires-action"


@pytest.mark.parametrize(
    "write, events",
    [
        (write_openai, [chat_chunk({"refusal": "I "}), chat_chunk({"refusal": "won't."}), STOP]),
        (
            write_openai,
            response_events(
                [
                    (
                        {"id": "m", "type": "message"},
                        [{"type": "response.refusal.delta", "content_index": 0, "delta": "I won't."}],
                        {"type": "message"},
                    )
                ]
            ),
        ),
        (write_anthropic, [*anthropic_answer("I won't.")[:-3], *anthropic_end("refusal", 4)]),
        (
            write_langchain,
            [
                {
                    "content": "",
                    "additional_kwargs": {"refusal": "I won't."},
                    "response_metadata": {"finish_reason": "stop"},
                }
            ],
        ),
    ],
    ids=["chat", "responses", "anthropic", "langchain"],
)
def test_a_refusal_is_shown(write: Any, events: list[Any]) -> None:
    made = written(write, events)
    assert made.texts() == ["I won't."]
    assert made.message["status"] == {"type": "incomplete", "reason": "content-filter"}


def test_usage_and_reason() -> None:
    usage = {**chat_usage(5, 7)["usage"], "prompt_tokens_details": {"cached_tokens": 2}}
    usage["completion_tokens_details"] = {"reasoning_tokens": 3}
    made = written(write_openai, [chat_chunk({"content": "x"}), STOP, chat_chunk(usage=usage)])
    told = {"inputTokens": 5, "outputTokens": 7, "totalTokens": 12, "reasoningTokens": 3, "cachedInputTokens": 2}
    assert made.step["usage"] == told == made.turn.usage
    assert made.step["messageId"] == "chatcmpl-1" and made.step["finishReason"] == "stop"


CITED = {"type": "url_citation", "url_citation": {"url": "https://a.b", "title": "A", "start_index": 0}}


def test_annotations_and_citations_are_sources_after_the_whole_text() -> None:
    deltas = [{"content": "x"}, {"annotations": [CITED]}, {"content": "y"}, {"annotations": [CITED]}]
    made = written(write_openai, [*map(chat_chunk, deltas), chat_chunk({}, "stop", citations=["https://c.d"])])
    assert [part["type"] for part in made.message["parts"]] == ["text", "source", "source"]
    assert made.texts() == ["xy"]
    assert [(source["url"], source.get("title")) for source in made.sources] == [
        ("https://a.b", "A"),
        ("https://c.d", None),
    ]


def test_sources_of_responses() -> None:
    annotations = [
        {"type": "url_citation", "url": "https://a.b", "title": "A", "start_index": 0, "end_index": 1},
        {"type": "file_citation", "file_id": "file-1", "filename": "b.pdf", "index": 0},
    ]
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"query": "q"}}
    items = [({**search, "status": "in_progress"}, [], search), message_item("xy", ["x", "y"], annotations)]
    made = written(write_openai, response_events(items))
    assert [(each["sourceType"], each["title"]) for each in made.sources] == [("url", "A"), ("document", "b.pdf")]
    (call,) = made.calls
    assert call["toolName"] == "web_search" and call["args"] == {"action": {"query": "q"}}
    assert call["state"] == "result" and call["result"] == {"status": "completed"}
    assert made.turn.tool_calls == [] and made.turn.finish_reason == "stop"


def test_blocks_of_anthropic() -> None:
    page = {"type": "web_search_result_location", "url": "https://a.b", "title": "A", "cited_text": "x"}
    document = {"type": "page_location", "document_index": 0, "document_title": "B", "cited_text": "y"}
    results = [{"type": "web_search_result", "url": "https://a.b", "title": "A"}]
    blocks: list[Any] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "sig"}],
        ),
        ({"type": "redacted_thinking", "data": "zzz"}, []),
        (
            {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"query":"q"}'}],
        ),
        ({"type": "web_search_tool_result", "tool_use_id": "srv", "content": results}, []),
        (
            {"type": "text", "text": ""},
            [{"type": "text_delta", "text": "yes"}]
            + [{"type": "citations_delta", "citation": each} for each in (page, page, document)],
        ),
    ]
    start, *_ = anthropic_answer("")
    made = written(write_anthropic, [start, *anthropic_blocks(blocks), *anthropic_end("end_turn", 9)])
    thought, redacted, call, text, *sources = made.message["parts"]
    assert thought["text"] == "hm" and thought["providerMetadata"] == {"anthropic": {"signature": "sig"}}
    assert redacted["text"] == "" and redacted["providerMetadata"] == {"anthropic": {"redactedData": "zzz"}}
    assert (call["toolName"], call["args"], call["result"]) == ("web_search", {"query": "q"}, results)
    assert text["text"] == "yes" and [(s.get("url"), s["title"]) for s in sources] == [
        ("https://a.b", "A"),
        (None, "B"),
    ]
    assert made.turn.tool_calls == []


def test_the_whole_input_of_a_call_at_its_beginning() -> None:
    start, *_ = anthropic_answer("")
    call = {"type": "tool_use", "id": "x", "name": "f", "input": {"a": 1}}
    made = written(write_anthropic, [start, *anthropic_blocks([(call, [])]), *anthropic_end("tool_use", 1)])
    assert made.calls[0]["args"] == {"a": 1} == made.turn.tool_calls[0].args


def test_anthropic_counts_what_a_cache_was_read_for() -> None:
    events = anthropic_answer("x")
    events[0]["message"]["usage"] = {"input_tokens": 3, "cache_read_input_tokens": 10, "output_tokens": 1}
    made = written(write_anthropic, events)
    told = {"inputTokens": 13, "outputTokens": 4, "totalTokens": 17, "cachedInputTokens": 10}
    assert made.step["usage"] == told


CALL = ("x", "f", '{"a":1}')
CUT: dict[str, tuple[Any, list[Any]]] = {
    "chat": (write_openai, [*chat_answer("hi", [CALL])[:-2], chat_chunk({}, "length")]),
    "responses": (
        write_openai,
        response_events(
            [(({"id": "i", "type": "function_call", "call_id": "x", "name": "f"}), [], {"type": "function_call"})],
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        ),
    ),
    "anthropic": (write_anthropic, [*anthropic_answer("hi", [CALL])[:-3], *anthropic_end("max_tokens", 4)]),
}


@pytest.mark.parametrize("name", CUT)
def test_a_call_in_an_answer_that_was_too_long_is_answered(name: str) -> None:
    """Its arguments may be whole JSON all the same, or none at all, which counts as {}."""
    made = written(*CUT[name])
    (call,) = made.calls
    assert call["state"] == "result" and call["isError"] and made.turn.tool_calls == []
    assert made.message["status"] == {"type": "incomplete", "reason": "length"}


ANSWERS: dict[str, tuple[Any, list[Any]]] = {
    "chat": (write_openai, chat_answer("hello", [CALL])),
    "responses": (write_openai, responses_answer("hello", [CALL])),
    "anthropic": (write_anthropic, anthropic_answer("hello", [CALL])),
}


@pytest.mark.parametrize("as_objects", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_dicts_and_objects(name: str, as_objects: bool) -> None:
    write, events = ANSWERS[name]
    made = written(write, map(objects, events) if as_objects else events)
    assert made.texts() == ["hello"] == [made.turn.text]
    assert [(call["toolCallId"], call["args"]) for call in made.calls] == [("x", {"a": 1})]


@pytest.mark.parametrize("name", ANSWERS)
def test_every_beginning_of_an_answer_is_no_answer(name: str) -> None:
    write, events = ANSWERS[name]
    last = next(
        at
        for at, event in enumerate(events)
        if event.get("type") in ("message_stop", "response.completed")
        or (event.get("choices") and event["choices"][0]["finish_reason"])
    )
    for count in range(last + 1):
        made = written(write, events[:count])
        assert isinstance(made.error, UpstreamError) and made.message["status"]["reason"] == "error", count
        assert all(call["state"] == "result" and call["isError"] for call in made.calls), count
    assert written(write, events[: last + 1]).error is None


def test_an_application_that_asks_again_leaves_no_call_to_run() -> None:
    def answer(controller: Any) -> None:
        with pytest.raises(UpstreamError):
            write_openai(controller, chat_answer("one", [CALL])[:-2])
        write_openai(controller, chat_answer("two", [CALL]))

    made = Written(answer)
    first, second = made.calls
    assert first["state"] == "result" and first["isError"] and second["state"] == "call"
    assert first["toolCallId"] != second["toolCallId"]
    assert made.error is None and made.message["status"]["type"] == "requires-action"


def test_the_usage_of_several_steps_adds_up() -> None:
    def answer(controller: Any) -> None:
        for call in write_openai(controller, chat_answer("one", [CALL])).tool_calls:
            call.set_response({"n": 1})
        write_openai(controller, chat_answer("two"))

    made = Written(answer)
    (finish,) = [chunk for chunk in made.chunks if chunk.type == "message-finish"]
    assert finish.to_json()["usage"] == {"inputTokens": 6, "outputTokens": 8, "totalTokens": 14}
    assert made.message["status"] == {"type": "complete", "reason": "stop"}
    assert [step["usage"]["inputTokens"] for step in made.message["metadata"]["steps"]] == [3, 3]


@pytest.mark.parametrize("wrong", [None, object(), 5])
def test_what_is_no_stream(wrong: Any) -> None:
    made = written(write_openai, wrong)
    assert isinstance(made.error, TypeError) and "stream=True" in str(made.error)


def test_langchain_without_a_reason_only_where_it_is_not_needed() -> None:
    chunks = [{"content": "a", "id": "1"}, {"content": "b", "id": "1"}]
    assert isinstance(written(write_langchain, chunks).error, UpstreamError)
    made = written(lambda controller, events: write_langchain(controller, events, needs_reason=False), chunks)
    assert made.texts() == ["ab"] and made.error is None


@pytest.mark.parametrize("module", ["resumable_sync.assistant", "resumable_sync.assistant.adapters"])
def test_no_providers_package_is_imported(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "providers = ('openai', 'anthropic', 'langchain_core', 'litellm', 'httpx', 'httpx2', 'pydantic')\n"
        "print(sorted(name for name in (*providers, 'resumable_sync.assistant.adapters') if name in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [module] if module.endswith("adapters") else []
    assert out.stdout.strip() == str(loaded)
