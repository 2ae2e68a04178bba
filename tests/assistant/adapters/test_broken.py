"""A model's server that goes away, at any byte and in any way; and readers that go, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resumable_sync import MemoryStore, ResumableStreamContext, Status
from resumable_sync.assistant import AssistantStreamController, create_resumable_assistant_stream_response
from resumable_sync.assistant.adapters import UpstreamError
from resumable_sync.errors import StreamCancelledError

from ...support import wait_until
from .providers import PROVIDERS, Provider, Written
from .server import Answer, ModelServer

CALL = ("call_1", "delete", '{"path": "/home"}')
TEXT = "I will do that."
each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)


def read(models: ModelServer, provider: Provider, answer: Answer) -> Written:
    models.plan(answer)
    return Written(lambda controller: provider.write(controller, provider.stream(models.url)))


def check_cut(models: ModelServer, provider: Provider, at: int, chunked: bool) -> None:
    body = provider.body(*provider.answer(TEXT, [CALL]))
    made = read(models, provider, Answer([body[: at % len(body)]], chunked=chunked, complete=False))
    if made.error is None:  # what is lacking says nothing more: the reason was there
        assert not chunked
        assert made.texts() == [TEXT] and [call["args"] for call in made.calls] == [{"path": "/home"}]
        assert made.message["status"] == {"type": "requires-action", "reason": "tool-calls"}
        return
    assert made.message["status"]["type"] == "incomplete" and made.message["status"]["reason"] == "error"
    assert TEXT.startswith("".join(made.texts()))
    assert all(call["state"] == "result" and call["isError"] for call in made.calls)
    assert "message-finish" not in {chunk.type for chunk in made.chunks}


@each_provider
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1 << 16), chunked=st.booleans())
def test_a_cut_at_any_byte(models: ModelServer, provider: Provider, at: int, chunked: bool) -> None:
    check_cut(models, provider, at, chunked)


@pytest.mark.heavy
@each_provider
@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_at_every_byte(models: ModelServer, provider: Provider, chunked: bool) -> None:
    for at in range(len(provider.body(*provider.answer(TEXT, [CALL])))):
        check_cut(models, provider, at, chunked)


@each_provider
def test_an_error_that_is_told_in_the_middle(models: ModelServer, provider: Provider) -> None:
    events = provider.answer(TEXT, [CALL])
    made = read(models, provider, Answer([provider.body(*events[:-3], provider.error)]))
    assert "Overloaded" in str(made.error)
    assert made.message["status"]["reason"] == "error"
    assert all(call["state"] == "result" and call["isError"] for call in made.calls) and made.calls


@each_provider
def test_the_connection_of_a_complete_answer_is_used_again(models: ModelServer, provider: Provider) -> None:
    for _ in range(2):
        made = read(models, provider, Answer([provider.body(*provider.answer(TEXT))]))
        assert made.error is None and made.texts() == [TEXT]
        assert made.message["status"] == {"type": "complete", "reason": "stop"}


@pytest.fixture
def context() -> Iterator[ResumableStreamContext]:
    with MemoryStore() as store, ResumableStreamContext(store) as made:
        yield made


def answering(
    context: ResumableStreamContext,
    callback: Callable[[AssistantStreamController], Any],
    raised: list[BaseException],
) -> None:
    def answer(controller: AssistantStreamController) -> None:
        try:
            callback(controller)
        except BaseException as error:
            raised.append(error)
            raise

    response = create_resumable_assistant_stream_response(context=context, stream_id="a", callback=answer)
    iter(response)


@pytest.mark.parametrize("helper", [False, True])
@each_provider
def test_a_cancelled_stream_closes_its_connection_at_once(
    models: ModelServer, context: ResumableStreamContext, provider: Provider, helper: bool
) -> None:
    """The model says nothing meanwhile; a generator is closed at its next word, as nothing else can be done."""
    events = provider.answer(TEXT, [CALL])
    begun, more = provider.body(*events[:4], done=False), provider.body(events[4], done=False)
    answer = Answer([begun, 0, *[more] * 10_000])
    models.plan(answer)
    raised: list[BaseException] = []

    def callback(controller: AssistantStreamController) -> None:
        if helper:
            with provider.ask(models.url) as stream:
                provider.write(controller, stream)
        else:
            provider.write(controller, provider.stream(models.url))

    answering(context, callback, raised)
    assert answer.held.wait(60)
    wait_until(lambda: context.store.read("a").size)
    context.cancel("a")
    if provider.name == "langchain":
        wait_until(lambda: context.status("a") is Status.CANCELLED)
        answer.go.set()
    assert answer.gone.wait(60)
    wait_until(lambda: raised)
    assert isinstance(raised[0], StreamCancelledError)
    assert context.status("a") is Status.CANCELLED


@each_provider
def test_a_callback_that_goes_on_after_a_broken_answer(models: ModelServer, provider: Provider) -> None:
    body = provider.body(*provider.answer(TEXT, [CALL]))
    models.plan(
        Answer([body[: len(body) // 2]], chunked=False), Answer([provider.body(*provider.answer("Again."))])
    )

    def callback(controller: AssistantStreamController) -> None:
        with pytest.raises(UpstreamError):
            provider.write(controller, provider.stream(models.url))
        provider.write(controller, provider.stream(models.url))

    made = Written(callback)
    assert made.error is None and made.texts()[-1] == "Again."
    assert made.message["status"] == {"type": "complete", "reason": "stop"}
