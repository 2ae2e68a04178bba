"""Controller programs as lists of operations, the form that the golden cases are written in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from resumable_sync.assistant import (
    AssistantMessageAccumulator,
    AssistantStreamChunk,
    AssistantStreamController,
    create_assistant_stream,
)
from resumable_sync.assistant.formats.registry import FORMATS

Program = list[list[Any]]

ENCODERS: dict[str, Any] = {name: format.encoder for name, format in FORMATS.items()}
DECODERS: dict[str, Any] = {name: type(format.decoder()) for name, format in FORMATS.items()}

GOLDEN = Path(__file__).with_name("golden")
CASES: dict[str, Any] = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GOLDEN.glob("*.json"))}
"""The worked examples: what the JavaScript implementations made of each program."""

JAVASCRIPT_FORMATS = sorted(set.intersection(*(set(case["encoders"]) for case in CASES.values())))
"""The formats that JavaScript has too. One that it does not have is in no worked example: its own tests say what
its bytes are."""


def body_of(case: dict[str, Any], format_name: str) -> str:
    """What is written of a case: the example's bytes, or for the AI SDK's format our encoder's own.

    Upstream has no encoder of that format, and the examples none of the steps that it needs.
    """
    if format_name != "ui-message-stream":
        return str(case["encoders"][format_name]["body"])
    chunks = [AssistantStreamChunk.from_json(chunk) for chunk in case["chunks"]]
    return b"".join(ENCODERS[format_name]().encode(chunks)).decode("utf-8")


def callback_of(program: Program) -> Callable[[AssistantStreamController], None]:
    """A callback that performs the operations one after another."""

    def callback(root: AssistantStreamController) -> None:
        handles: dict[str, Any] = {}
        for name, *args in program:
            controller = root
            if name.startswith("@"):  # ["@parent", operation, …]
                controller = root.with_parent_id(name[1:])
                name, *args = args
            perform(controller, handles, name, args)

    return callback


def perform(controller: AssistantStreamController, handles: dict[str, Any], name: str, args: list[Any]) -> None:
    if name == "throw":
        raise ValueError(args[0])
    if name == "add_tool_call_part":
        handles[args[0]] = controller.add_tool_call_part(args[1])
    elif name == "add_text_part":
        handles[args[0]] = controller.add_text_part(**keywords(*args[1:]))
    elif name == "add_reasoning_part":
        handles[args[0]] = controller.add_reasoning_part(**keywords(*args[1:]))
    elif name == "append_reasoning":
        controller.append_reasoning(args[0], **keywords(*args[1:]))
    elif name == "tool.args_append":
        handles[args[0]].args_text.append(args[1])
    elif name == "tool.args_close":
        handles[args[0]].args_text.close()
    elif name == "tool.set_response":
        handles[args[0]].set_response(**keywords(args[1]))
    elif name == "tool.set_approval":
        handles[args[0]].set_approval(args[1])
    elif name == "tool.close":
        handles[args[0]].close()
    elif name == "part.close":
        handles[args[0]].close(*args[1:])
    elif name == "part.append":
        handles[args[0]].append(*args[1:])
    elif name == "merge":
        controller.merge(create_assistant_stream(callback_of(args[0])))
    elif name == "state.set":
        target = controller.state
        for key in args[0][:-1]:
            target = target[key]
        target[args[0][-1]] = args[1]
    else:
        getattr(controller, name)(*args)


def keywords(given: Any = None) -> dict[str, Any]:
    """Options in the JavaScript shape, or a summary, as keyword arguments."""
    if not isinstance(given, dict):
        return {} if given is None else {"unstable_summary": given}
    return {re.sub("[A-Z]", lambda match: "_" + match[0].lower(), key): value for key, value in given.items()}


def chunks_of(program: Program) -> list[AssistantStreamChunk]:
    return list(create_assistant_stream(callback_of(program), format_error=lambda error: f"Error: {error}"))


def accumulate(chunks: Iterable[AssistantStreamChunk]) -> dict[str, Any]:
    accumulator = AssistantMessageAccumulator()
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.finish()


def normalized(message: dict[str, Any]) -> dict[str, Any]:
    """The message with ids that a decoder made up replaced, as the golden cases have them."""
    steps = [
        {**step, "messageId": "<generated>"} if _made_up(step.get("messageId")) else step
        for step in message["metadata"]["steps"]
    ]
    return {**message, "metadata": {**message["metadata"], "steps": steps}}


def _made_up(identifier: object) -> bool:
    return (
        isinstance(identifier, str)
        and re.fullmatch("<generated>|[0-9A-Za-z]{7}|[0-9a-f]{16}", identifier) is not None
    )


def cut(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def written_steps(message: dict[str, Any], format_name: str) -> dict[str, Any]:
    """The message without steps where the encoder writes some of its own."""
    if format_name != "ui-message-stream":
        return message
    return {**message, "metadata": {**message["metadata"], "steps": []}}
