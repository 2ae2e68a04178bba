"""OpenAI's two streams: chat completions, which many servers speak, and responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..controller import AssistantStreamController
from .chat_completions import ChatCompletion
from .reading import field, text_of
from .responses import Response
from .turn import ModelTurn, Reader, Turn, write


def write_openai(controller: AssistantStreamController, stream: Iterable[Any]) -> ModelTurn:
    """Write what a model answers, from the events of `stream`: of chat completions, or of responses.

    From `client.chat.completions.create(…, stream=True)`, `client.responses.create(…, stream=True)`, the helpers
    `with client.chat.completions.stream(…) as stream` and `with client.responses.stream(…) as stream`,
    `litellm.completion(…, stream=True)`, or dicts. Of several choices the first is taken. Usage comes with chat
    completions where `stream_options={"include_usage": True}` asks for it.

    Returns once the answer is complete, and blocks until then. Raises UpstreamError where it broke off or an error
    is told, what the client raises, StreamCancelledError when the stream was cancelled, and TypeError for what is
    no stream: see this package. `stream` is closed in any case. Other threads may use the controller meanwhile.
    """
    return write(controller, stream, _Either)


class _Either:
    """Responses have a type of event that says so; all else is of chat completions."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._reader: Reader | None = None

    def take(self, event: Any) -> None:
        if self._reader is None:
            kind = text_of(event, "type")
            responses = kind.startswith("response.") or (kind == "error" and field(event, "choices") is None)
            self._reader = Response(self._turn) if responses else ChatCompletion(self._turn)
        self._reader.take(event)
