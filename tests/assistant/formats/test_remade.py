"""The worked examples of assistant-stream 0.3.57 are what the installed packages make of them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from resumable_sync.assistant import UIMessageStreamDecoder, UIMessageStreamEncoder
from resumable_sync.assistant.message.ui_message import UIMessageAccumulator
from resumable_sync.errors import MalformedStreamError

from ...javascript import JavaScript
from .programs import cut
from .remade import differences, kept

CONTROLLER = kept("controller")
DECODE = kept("decode")
SERVERS = kept("ai")


@pytest.mark.parametrize("name", CONTROLLER)
def test_what_the_controllers_calls_become(javascript: JavaScript, name: str) -> None:
    assert differences(javascript, "controller", CONTROLLER[name]) == []


@pytest.mark.parametrize("name", DECODE)
def test_what_the_decoders_read(javascript: JavaScript, name: str) -> None:
    assert differences(javascript, "decode", DECODE[name]) == []


@pytest.mark.parametrize("name", SERVERS)
def test_what_the_ai_sdks_servers_send(javascript: JavaScript, name: str) -> None:
    assert differences(javascript, "ai", SERVERS[name]) == []


CHUNKS_LACK = {"aborted": "a call that was cut off", "data_parts": "the ids of data"}


@pytest.mark.parametrize("version", [5, 6, 7])
@pytest.mark.parametrize("name", SERVERS)
def test_what_the_servers_of_each_version_send_is_read(javascript: JavaScript, name: str, version: int) -> None:
    """As that version's own client reads it; so, too, once it has gone through chunks and our encoder."""
    made = javascript.ask("server", version=version, name=name)
    if made is None:
        assert (name, version) == ("approval_requested", 5)  # it has no approvals
        return
    body = base64.b64decode(made["body"])
    shown = javascript.ai(version, body)["message"]
    assert _message(body) == shown
    if name not in CHUNKS_LACK:
        again = b"".join(UIMessageStreamEncoder(shown["id"]).encode(UIMessageStreamDecoder().decode(cut(body, 7))))
        assert _parts(_message(again)) == _parts(shown)
        assert _parts(javascript.ai(version, again)["message"]) == _parts(shown)


def _parts(message: Any) -> list[Any]:
    """A message's parts without steps, and without what a decoder makes anew: a reasoning's id, and the end of a
    text that an error left open."""
    parts = [part for part in message["parts"] if part["type"] != "step-start"]
    made_anew = {"reasoning": ("id", "state"), "text": ("state",)}
    return [
        {key: value for key, value in part.items() if key not in made_anew.get(part["type"], ())} for part in parts
    ]


def _message(body: bytes) -> Any:
    """The message that `useChat` holds, as JSON has it."""
    accumulator = UIMessageAccumulator()
    try:
        for event in body.decode("utf-8").split("\n\n"):
            if event.startswith("data: {"):
                accumulator.add(json.loads(event.removeprefix("data: ")))
    except MalformedStreamError:
        pass  # the server said that it failed
    return json.loads(json.dumps(accumulator.message))


def test_a_difference_is_told(javascript: JavaScript) -> None:
    example: dict[str, Any] = CONTROLLER["01_text_only"]
    changed = {**example, "messages": {**example["messages"], "plain-text": {"parts": []}}}
    told = differences(javascript, "controller", changed)
    assert told and all(line.startswith("/messages/plain-text/") for line in told)
