"""A chat that answers out of its own head: a Markov chain over the demo's text, and two tools; one asks first.

Where the environment names a model, that answers instead: see `model.py`.
"""

from __future__ import annotations

import random
import re
import secrets
from collections import defaultdict
from functools import cache, partial
from importlib import resources
from typing import Any

from ..assistant import AssistantEndpoints, AssistantStreamController, ChatRequest
from ..context import ResumableStreamContext
from ..producer import current_producer
from ..wsgi import ViewerCap
from .model import WITHOUT, answer_with_model, model_name

WORDS_PER_SECOND = 12.0
_TOOL_SECONDS = 0.6
_ANSWER_WORDS = 70
_POST = "send_postcard"
_POSTCARD = re.compile(r"\b(post)?cards?\b", re.IGNORECASE)
_MODEL = re.compile(r"\b(which|what) model\b", re.IGNORECASE)
_ASKED_CHARACTERS = 2000  # of a question that are looked at


def chat_endpoints(
    context: ResumableStreamContext, viewers: ViewerCap, heartbeat: float, rate: float = WORDS_PER_SECOND
) -> AssistantEndpoints:
    """The chat's addresses, in the AI SDK's protocol. The page speaks it by itself; `useChat` could as well."""
    return AssistantEndpoints(
        context,
        partial(answer, rate=rate),
        authorize=None,
        viewers=viewers,
        heartbeat=heartbeat,
        max_body_bytes=256 * 1024,
        format_error=str,
    )


def answer(controller: AssistantStreamController, request: ChatRequest, *, rate: float = WORDS_PER_SECOND) -> None:
    """Count what was asked, then talk about something else, `rate` words a second, until somebody stops it.

    Before a postcard is sent, the user is asked. The decision comes with the next request, which goes on with the
    message that has asked. Where the environment names a model, all of it is the model's to answer.
    """
    model = model_name()
    if model:
        answer_with_model(controller, request, model)
        return
    asked = question_of(request)
    decision = decision_of(request)
    if decision is not None:
        _post(controller, *decision, rate)
    elif _POSTCARD.search(asked):
        controller.append_text("A postcard costs a stamp. ")
        tool = controller.add_tool_call_part(_POST, args={"text": asked})
        tool.set_approval({"id": f"approval-{secrets.token_hex(8)}"})
    elif _MODEL.search(asked):
        _say(controller, WITHOUT, rate)
    else:
        _count(controller, asked, rate)


def _count(controller: AssistantStreamController, asked: str, rate: float) -> None:
    controller.append_text("Let me count that. ")
    with controller.add_tool_call_part(tool_name="count_words", args={"text": asked}) as tool:
        if current_producer().cancelled.wait(_TOOL_SECONDS):  # a tool that takes its time
            return
        words = re.findall(r"\w+", asked)
        tool.set_response({"words": len(words), "letters": sum(map(len, words))})
    _say(
        controller,
        f"You used {len(words)} words. That reminds me of a story. {ramble(asked, _ANSWER_WORDS)}",
        rate,
    )


def _post(controller: AssistantStreamController, call: str, approved: bool, rate: float) -> None:
    if not approved:
        _say(controller, "Then I keep the stamp.", rate)
        return
    if current_producer().cancelled.wait(_TOOL_SECONDS):
        return
    controller.append_tool_result(call, {"posted": True})
    _say(controller, "It is on its way. Nothing was sent, of course: this is a demo.", rate)


def _say(controller: AssistantStreamController, text: str, rate: float) -> None:
    stopped = current_producer().cancelled
    for word in re.findall(r"\S+\s*", text):
        if stopped.wait(1 / rate):
            return
        controller.append_text(word)


def question_of(request: ChatRequest) -> str:
    """The text of the last message that is not an answer; "" if there is none."""
    asked = [message for message in request.messages if isinstance(message, dict)]
    asked = [message for message in asked if message.get("role") != "assistant"]
    texts = [part.get("text") for part in _parts(asked[-1])] if asked else []
    return " ".join(text for text in texts if isinstance(text, str))[:_ASKED_CHARACTERS]


def decision_of(request: ChatRequest) -> tuple[str, bool] | None:
    """The call whose approval the last message answers, and whether it was given; None if it answers none."""
    for part in reversed(_parts(request.messages[-1])) if request.messages else ():
        call, approval = part.get("toolCallId"), part.get("approval")
        if part.get("state") == "approval-responded" and isinstance(call, str) and isinstance(approval, dict):
            return call, approval.get("approved") is True
    return None


def _parts(message: object) -> list[dict[str, Any]]:
    parts = message.get("parts") if isinstance(message, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def ramble(seed: str, length: int) -> str:
    """About `length` words that sound like the demo's text, the same ones for the same seed."""
    followers = _followers()
    chance = random.Random(seed)
    starts = sorted(pair for pair in followers if pair[0][0].isupper())
    words = list(chance.choice(starts))
    while len(words) < 2 * length and not (len(words) >= length and words[-1].endswith((".", "?", "!"))):
        words.append(chance.choice(followers.get((words[-2], words[-1])) or chance.choice(starts)))
    return " ".join(words)


@cache
def _followers() -> dict[tuple[str, str], list[str]]:
    """For each pair of words those that follow it in the text."""
    words = resources.files(__package__).joinpath("text.txt").read_text("utf-8").split()
    followers = defaultdict(list)
    for first, second, third in zip(words, words[1:], words[2:]):
        followers[first, second].append(third)
    return dict(followers)
