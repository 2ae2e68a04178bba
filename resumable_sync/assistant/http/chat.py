"""What a client sends to a chat, checked, and as the application sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .incoming import Refusal

MAX_CHAT_ID = 1024
"""Characters of the ids that clients give: of a chat, a message, and of an idempotency key."""


@dataclass(frozen=True)
class ChatRequest:
    """One message sent to a chat, as the application's callback and its `on_finish` see it."""

    chat_id: str
    """The chat or thread; empty where the client has not named one, and then nothing can be resumed by it."""
    stream_id: str
    """The stream that the answer is stored in."""
    body: Mapping[str, Any]
    """The request's JSON. Whatever a client sends: check what you use."""
    environ: Mapping[str, Any]
    """The WSGI environment; its body is read already."""
    user: Any = None
    """What `authorize` has returned, such as the user that it found; None without one."""
    message_id: str | None = None
    """The AI SDK's id of the message that is answered with; None in the other protocols."""

    @property
    def messages(self) -> list[Any]:
        """The messages of the AI SDK or of AG-UI, [] where there are none."""
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) else []

    @property
    def commands(self) -> list[Any]:
        """The assistant transport's commands, [] where there are none."""
        commands = self.body.get("commands")
        return commands if isinstance(commands, list) else []

    @property
    def trigger(self) -> str:
        """Why the AI SDK's client asks: `submit-message`, or `regenerate-message`."""
        return str(self.body.get("trigger") or "submit-message")


def chat_id_of(value: object) -> str:
    """The id of a chat. Refusal if it is none."""
    return name_of(value, "the chat's id")


def name_of(value: object, what: str) -> str:
    """`value` if it is text that can name something. Refusal, which calls it `what`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHAT_ID:
        raise Refusal(400, f"{what} is missing or too long")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(400, f"{what} is not text") from error
    return value


def continued_message(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The assistant's message that the answer goes on with, as the client sent it; None for an answer of its own.

    The last message is gone on with: a tool of the client has answered, or an approval was given. Never when a
    message is made anew, for the last one is then the one before it. Refusal for a body that is none of useChat's.
    """
    messages = _objects(body, "messages")
    trigger = body.get("trigger")
    if trigger is not None and not isinstance(trigger, str):
        raise Refusal(400, "trigger is not text")
    if body.get("messageId") is not None:
        name_of(body["messageId"], "messageId")
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or trigger == "regenerate-message":
        return None
    if last.get("id") is None:
        return None
    name_of(last["id"], "the last message's id")
    for part in _objects(last, "parts", "type"):
        dynamic = part["type"] == "dynamic-tool"
        if dynamic or part["type"].startswith("tool-"):
            named = isinstance(part.get("toolCallId"), str) and (
                not dynamic or isinstance(part.get("toolName"), str)
            )
            if not named or not isinstance(part.get("rawInput") or "", str):
                raise Refusal(400, "a tool call of the last message has no toolCallId or toolName")
    return {**last, "parts": last.get("parts") or []}


def call_ids(message: Mapping[str, Any] | None) -> frozenset[str]:
    """The ids of the tool calls in a message of the AI SDK."""
    ids = [part.get("toolCallId") for part in message["parts"]] if message is not None else []
    return frozenset(call_id for call_id in ids if isinstance(call_id, str))


def check_commands(body: Mapping[str, Any]) -> None:
    """Refusal for a body that is none of the assistant transport's."""
    _objects(body, "commands")


def check_run_input(body: Mapping[str, Any]) -> None:
    """Refusal for a body that is no `RunAgentInput` of AG-UI."""
    name_of(body.get("runId"), "runId")
    for name in ("messages", "tools", "context", "resume"):
        _objects(body, name)


def _objects(holder: Mapping[str, Any], name: str, *needed: str) -> list[dict[str, Any]]:
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal(400, f"{name} is not a list of objects")
    if "type" in needed and not all(isinstance(item.get("type"), str) for item in value):
        raise Refusal(400, f"one of {name} has no type")
    return value
