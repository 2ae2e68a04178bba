"""The worked examples of assistant-stream 0.3.57 are what the installed packages make of them."""

from __future__ import annotations

from typing import Any

import pytest

from ...javascript import JavaScript
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
def test_what_is_read_of_the_ai_sdks_servers(javascript: JavaScript, name: str) -> None:
    assert differences(javascript, "ai", SERVERS[name]) == []


def test_a_difference_is_told(javascript: JavaScript) -> None:
    example: dict[str, Any] = CONTROLLER["01_text_only"]
    changed = {**example, "messages": {**example["messages"], "plain-text": {"parts": []}}}
    told = differences(javascript, "controller", changed)
    assert told and all(line.startswith("/messages/plain-text/") for line in told)
