"""A chat that answers out of its own head: a Markov chain over the demo's text, and one tool."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from functools import cache
from importlib import resources

from ..assistant import AssistantEndpoints, AssistantStreamController, ChatRequest
from ..context import ResumableStreamContext
from ..producer import current_producer
from ..wsgi import ViewerCap

_WORDS_PER_SECOND = 12.0
_TOOL_SECONDS = 0.6
_ANSWER_WORDS = 70
_ASKED_CHARACTERS = 2000  # of a question that are looked at


def chat_endpoints(context: ResumableStreamContext, viewers: ViewerCap, heartbeat: float) -> AssistantEndpoints:
    """The chat's addresses, in the AI SDK's protocol. The page speaks it by itself; `useChat` could as well."""
    return AssistantEndpoints(
        context,
        answer,
        authorize=None,
        viewers=viewers,
        heartbeat=heartbeat,
        max_body_bytes=256 * 1024,
        format_error=str,
    )


def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
    """Count what was asked, then talk about something else, word by word, until somebody stops it."""
    stopped = current_producer().cancelled
    asked = question_of(request)
    controller.append_text("Let me count that. ")
    with controller.add_tool_call_part(tool_name="count_words", args={"text": asked}) as tool:
        if stopped.wait(_TOOL_SECONDS):  # a tool that takes its time
            return
        words = re.findall(r"\w+", asked)
        tool.set_response({"words": len(words), "letters": sum(map(len, words))})
    text = f"You used {len(words)} words. That reminds me of a story. {ramble(asked, _ANSWER_WORDS)}"
    for word in re.findall(r"\S+\s*", text):
        if stopped.wait(1 / _WORDS_PER_SECOND):
            return
        controller.append_text(word)


def question_of(request: ChatRequest) -> str:
    """The text of the last message; "" if it has none."""
    last = request.messages[-1] if request.messages else None
    parts = last.get("parts") if isinstance(last, dict) else None
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return " ".join(text for text in texts if isinstance(text, str))[:_ASKED_CHARACTERS]


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
