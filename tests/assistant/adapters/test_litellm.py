"""LiteLLM, which speaks to many providers in the shape of chat completions. Too large for each run."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from resumable_sync.assistant.adapters import write_openai

from .providers import QUESTION, Written, chat_answer, chat_body, chat_chunk, package
from .server import Answer, ModelServer

pytestmark = pytest.mark.heavy


def asked(models: ModelServer, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> Written:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the network
    litellm: Any = package("litellm", "models")
    models.plan(answer)
    warnings.simplefilter("ignore")  # the package's own; pytest resets it
    stream = litellm.completion(
        model="openai/m",
        messages=QUESTION,
        stream=True,
        api_base=f"{models.url}/v1",
        api_key="none",
        max_retries=0,
    )
    return Written(lambda controller: write_openai(controller, stream))


def test_an_answer_with_reasoning_and_two_calls(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    events = chat_answer("hi", [("x", "f", '{"a":1}'), ("y", "g", "")])
    events.insert(1, chat_chunk({"reasoning_content": "hm"}))
    made = asked(models, monkeypatch, Answer([chat_body(*events)]))
    assert made.error is None and made.texts("reasoning") == ["hm"] and made.texts() == ["hi"]
    assert [(call["toolCallId"], call["args"]) for call in made.calls] == [("x", {"a": 1}), ("y", {})]
    assert made.turn.finish_reason == "tool-calls"


def test_an_answer_that_breaks_off(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    body = chat_body(*chat_answer("hello", [("x", "f", '{"a":1}')]))
    made = asked(models, monkeypatch, Answer([body[: len(body) // 2]], complete=False))
    assert made.error is not None and made.message["status"]["reason"] == "error"
    assert all(call["state"] == "result" for call in made.calls)
