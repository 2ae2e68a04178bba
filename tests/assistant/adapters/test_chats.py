"""Whole chats: a model that calls a tool of the server and goes on, in every format; the connection of its reader
is cut in the middle, and the answer resumed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.assistant import (
    AssistantStreamController,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
    read_assistant_message,
)
from resumable_sync.assistant.adapters import ModelTurn

from ...javascript import JavaScript, cannot, running
from ...support import PATIENCE
from ..clients.support import TOOL_CALLS, Chat, Server, calls, last, serving, states, texts
from ..formats.programs import ENCODERS, JAVASCRIPT_FORMATS
from .providers import PROVIDERS, Provider
from .server import Answer, ModelServer

CALL = ("call_1", "weather", '{"city": "Rome"}')
FIRST, SECOND = "Let me see. ", "The sun shines in Rome."
each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)


def planned(provider: Provider) -> tuple[Answer, Answer]:
    """A model's two answers: it calls the tool, and says what came of it, with a pause in the middle."""
    events = provider.answer(SECOND)
    half = len(events) // 2
    parts: list[bytes | int] = [provider.body(*events[:half], done=False), 0, provider.body(*events[half:])]
    return Answer([provider.body(*provider.answer(FIRST, [CALL]))]), Answer(parts)


def answering(models: ModelServer, provider: Provider) -> Callable[..., None]:
    """What an application does: it asks the model until that calls no tool any more."""

    def answer(controller: AssistantStreamController, request: Any = None) -> None:
        def asked() -> ModelTurn:
            return provider.write(controller, provider.stream(models.url))

        while (turn := asked()).tool_calls:
            for call in turn.tool_calls:
                assert (call.name, call.args, call.id) == ("weather", {"city": "Rome"}, "call_1")
                call.set_response({"sun": True})

    return answer


@pytest.mark.parametrize("format_name", ENCODERS)
@each_provider
def test_an_answer_that_is_cut_and_resumed(
    models: ModelServer,
    context: ResumableStreamContext,
    javascript: JavaScript,
    provider: Provider,
    format_name: str,
) -> None:
    first, second = planned(provider)
    models.plan(first, second)
    stream_id = f"{provider.name}-{format_name}"
    response = create_resumable_assistant_stream_response(
        context=context, stream_id=stream_id, callback=answering(models, provider), encoder=ENCODERS[format_name]
    )
    viewer = iter(response)
    seen = next(viewer)
    assert second.held.wait(PATIENCE)
    viewer.close()  # type: ignore[attr-defined]
    second.go.set()
    whole = b"".join(create_resume_assistant_stream_response(context=context, stream_id=stream_id))
    assert whole.startswith(seen)
    message = read_assistant_message(context, stream_id)
    if format_name in JAVASCRIPT_FORMATS and format_name != "plain-text":
        theirs = javascript.decode(format_name, whole, 7)
        assert [_said(part) for part in theirs["parts"]] == [_said(part) for part in message["parts"]]
        assert theirs["status"] == message["status"]
    if format_name == "plain-text":
        assert whole.decode() == FIRST + SECOND
        return
    text, call, more = message["parts"]
    assert (text["text"], more["text"]) == (FIRST, SECOND)
    assert (call["args"], call["result"], call["state"]) == ({"city": "Rome"}, {"sun": True}, "result")
    assert message["status"] == {"type": "complete", "reason": "stop"}


def _said(part: Any) -> Any:
    names = ("type", "text", "toolName", "toolCallId", "args", "argsText", "result", "state")
    return {name: part[name] for name in names if name in part}


@pytest.fixture
def context() -> Iterator[ResumableStreamContext]:

    with MemoryStore() as store, ResumableStreamContext(store) as made:
        yield made


@pytest.fixture(scope="module")
def chats() -> Iterator[JavaScript]:
    with running("chats.mjs") as found:
        if isinstance(found, str):
            cannot("THE CHATS OF THE AI SDK WERE", found)
        yield found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@each_provider
def test_the_ai_sdk_resumes_a_chat(
    chats: JavaScript, server: Server, models: ModelServer, provider: Provider
) -> None:
    first, second = planned(provider)
    models.plan(first, second)
    chat_id = server.chat_for(answering(models, provider))
    chat = Chat(chats, server, 7, chat_id, automatic=[TOOL_CALLS])
    chat.ask("send", text="go")
    chat.reached(state="output-available")
    assert second.held.wait(PATIENCE)
    cut = chat.ask("leave") or chat.settled()
    again = Chat(chats, server, 7, chat_id, automatic=[TOOL_CALLS], messages=cut["messages"][:1])
    again.ask("resume")
    again.reached(type="tool-weather")
    second.go.set()
    report = again.settled()
    assert report["status"] == "ready" and report["posts"] == 0 and len(server.requests[chat_id]) == 1
    message = last(report)
    assert texts(message) == [FIRST, SECOND]
    assert [(call["input"], call["output"]) for call in calls(message)] == [({"city": "Rome"}, {"sun": True})]


@each_provider
def test_a_tool_of_the_client_is_run_once(
    chats: JavaScript, server: Server, models: ModelServer, provider: Provider
) -> None:
    models.plan(
        Answer([provider.body(*provider.answer(FIRST, [CALL]))]), Answer([provider.body(*provider.answer(SECOND))])
    )

    def answer(controller: AssistantStreamController, request: Any) -> None:
        provider.write(controller, provider.stream(models.url))

    chat_id = server.chat_for(answer)
    report = Chat(chats, server, 7, chat_id, automatic=[TOOL_CALLS], tools={"weather": {"sun": True}}).send()
    assert (
        report["ran"] == [["weather", {"city": "Rome"}]] and report["posts"] == 2 and report["status"] == "ready"
    )
    assert texts(last(report)) == [FIRST, SECOND]


@pytest.mark.parametrize("args", ["", '{"city": "Rome"}', '{"city": "Ro'])
@pytest.mark.parametrize("version", [5, 6, 7])
@pytest.mark.parametrize("how", ["cut", "length"])
def test_no_client_runs_a_call_that_is_not_whole(
    chats: JavaScript, server: Server, models: ModelServer, how: str, version: int, args: str
) -> None:
    """Also where its arguments look as if they were; and none asks again by itself."""
    provider = PROVIDERS[0]
    events = provider.answer(FIRST, [("call_1", "weather", args)])
    if how == "length":
        events[-2]["choices"][0]["finish_reason"] = "length"
        models.plan(Answer([provider.body(*events)]))
    else:
        models.plan(Answer([provider.body(*events[:-2], done=False)], chunked=False))
    chat_id = server.chat_for(lambda controller, request: provider.write(controller, provider.stream(models.url)))
    report = Chat(chats, server, version, chat_id, automatic=[TOOL_CALLS], tools={"weather": 1}).send()
    assert report["ran"] == [] and report["posts"] == 1
    assert states(last(report)) == ["output-error"]
    assert report["status"] == ("error" if how == "cut" else "ready")
    assert texts(last(report)) == [FIRST]


@pytest.mark.parametrize("args", ["", '{"city": "Rome"}', '{"city": "Ro'])
@pytest.mark.parametrize("format_name", ["data-stream", "assistant-transport"])
@pytest.mark.parametrize("how", ["cut", "length"])
def test_nor_do_those_of_assistant_ui(
    chats: JavaScript, context: ResumableStreamContext, models: ModelServer, how: str, format_name: str, args: str
) -> None:

    provider = PROVIDERS[0]
    events = provider.answer(FIRST, [("call_1", "weather", args)])
    if how == "length":
        events[-2]["choices"][0]["finish_reason"] = "length"
        models.plan(Answer([provider.body(*events)]))
    else:
        models.plan(Answer([provider.body(*events[:-2], done=False)], chunked=False))
    body = b"".join(
        create_resumable_assistant_stream_response(
            context=context,
            stream_id="a",
            callback=lambda controller: provider.write(controller, provider.stream(models.url)),
            encoder=ENCODERS[format_name],
        )
    )
    encoded = base64.b64encode(body).decode()
    told = chats.ask("executed", format=format_name, body=encoded, names=["weather"])
    assert told["ran"] == []
    reason = "error" if how == "cut" else "length"
    assert told["message"]["status"]["type"] == "incomplete" and told["message"]["status"]["reason"] == reason
