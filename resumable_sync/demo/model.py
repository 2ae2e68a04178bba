"""A real model for the demo's chat: any server that speaks OpenAI's chat completions.

    DEMO_MODEL=gpt-5-mini OPENAI_API_KEY=… resumable-sync demo
    DEMO_MODEL=llama3.2 OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_API_KEY=none resumable-sync demo

It takes the package openai, which reads the address and the key from the environment itself.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from ..assistant import AssistantStreamController, ChatRequest
from ..assistant.adapters import write_openai

MODEL_VARIABLE = "DEMO_MODEL"
WITHOUT = (
    "No model answers here: this demo talks out of its own head. Set DEMO_MODEL to a model's name, and "
    "OPENAI_BASE_URL and OPENAI_API_KEY to those of a server that speaks OpenAI's API, to talk to that."
)
NOT_INSTALLED = "DEMO_MODEL names a model, but the package that asks it is not installed: pip install openai"


def model_name() -> str:
    """The model that the environment names; "" if none."""
    return os.environ.get(MODEL_VARIABLE, "").strip()


def answer_with_model(controller: AssistantStreamController, request: ChatRequest, model: str) -> None:
    """Have `model` answer the chat. Raises what its client raises."""
    try:
        openai: Any = importlib.import_module("openai")
    except ImportError:
        controller.append_text(NOT_INSTALLED)
        return
    asked = [
        {"role": message["role"], "content": text} for message in request.messages if (text := _text(message))
    ]
    with openai.OpenAI() as client:
        write_openai(controller, client.chat.completions.create(model=model, messages=asked, stream=True))


def _text(message: Any) -> str:
    """What a message of the user or of the assistant says; "" for anything else."""
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
        return ""
    parts = message.get("parts")
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(text for text in texts if isinstance(text, str))
