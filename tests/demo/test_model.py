"""The demo's chat with a model that the environment names."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from resumable_sync.demo.app import create_app
from resumable_sync.demo.model import NOT_INSTALLED, WITHOUT

from ..assistant.adapters.providers import chat_answer, chat_body, package
from ..assistant.adapters.server import Answer, serving_models


def answer_to(text: str) -> Any:
    """What the demo answers to the second question of a chat: the text, with all that is streamed."""
    app = create_app(rate=10_000.0)
    said = [("user", "first"), ("assistant", "one"), ("user", text)]
    messages = [
        {"id": str(at), "role": role, "parts": [{"type": "text", "text": part}]}
        for at, (role, part) in enumerate(said)
    ]
    try:
        return app.test_client().post("/api/chat/", json={"id": "c", "messages": messages}).text
    finally:
        app.extensions["resumable_sync"].close()


def test_a_model_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    package("openai")
    with serving_models() as models:
        models.plan(Answer([chat_body(*chat_answer("I am one."))]))
        monkeypatch.setenv("DEMO_MODEL", "m")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{models.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        streamed = answer_to("which model?")
    assert [f'"delta":"{piece}"' in streamed for piece in ("I ", "am ", "one.")] == [True] * 3
    assert models.requests[0]["model"] == "m"
    assert [message["content"] for message in models.requests[0]["messages"]] == ["first", "one", "which model?"]


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = importlib.import_module

    def without(name: str, *arguments: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return imported(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setenv("DEMO_MODEL", "m")
    assert NOT_INSTALLED in answer_to("hello")


def test_without_a_model_it_says_how_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMO_MODEL", raising=False)
    streamed = answer_to("which model are you?")
    assert all(word in streamed for word in WITHOUT.split())
