"""An agent framework on asyncio, with a model that needs no network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from resumable_sync import ResumableStreamContext, Status, StreamCancelledError, open_store

from ..support import PATIENCE, wait_until
from .support import Place, need


@pytest.fixture
def context(place: Place) -> Iterator[ResumableStreamContext]:
    with open_store(place.streams) as store, ResumableStreamContext(store) as made:
        yield made


def test_an_answer_is_streamed(context: ResumableStreamContext) -> None:
    need("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    from .apps.agent_app import ask

    agent = Agent(TestModel(custom_output_text="The sun shines in Rome."))
    assert b"".join(ask(context, "a", agent, "How is the weather?")) == b"The sun shines in Rome."
    assert len(list(context.entries("a"))) > 1


def test_an_answer_is_cancelled_in_the_middle(context: ResumableStreamContext) -> None:
    need("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.function import FunctionModel

    from .apps.agent_app import ask

    raised = list[BaseException]()
    awaiting, closed = threading.Event(), threading.Event()

    async def half_an_answer(messages: Any, info: Any) -> AsyncIterator[str]:
        try:
            yield "The sun "
            asyncio.get_running_loop().call_soon(awaiting.set)
            await asyncio.Event().wait()
        except BaseException as each:
            raised.append(each)
            raise
        finally:
            closed.set()

    viewer = ask(context, "a", Agent(FunctionModel(stream_function=half_an_answer)), "How is the weather?")
    assert awaiting.wait(PATIENCE)  # cancelled before that it would be closed, not cancelled
    wait_until(lambda: context.store.read("a").size)
    context.cancel("a")
    assert closed.wait(PATIENCE) and isinstance(raised[0], asyncio.CancelledError)
    with pytest.raises(StreamCancelledError):
        list(viewer)
    assert context.status("a") is Status.CANCELLED and context.store.read("a").data == b"The sun "
    wait_until(lambda: not context._running.get().producers)
