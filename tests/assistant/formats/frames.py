"""What the controller can write in the AI SDK's format, and streams that have every type and field of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from resumable_sync.assistant import AssistantStreamController, UIMessageStreamEncoder, create_assistant_stream

Frame = dict[str, Any]
PM = {"acme": {"signature": "s"}}
CITATIONS = [{"source": {"type": "source", "sourceType": "url", "id": "s", "url": "https://example.org"}}]


def texts(controller: AssistantStreamController) -> None:
    controller.set_message_metadata({"model": "m"})
    for part in (controller.add_text_part(PM), controller.add_reasoning_part(None, PM)):
        part.append("a", PM)
        part.close(PM)
    controller.append_data(name="x", data=1, id="d", transient=True)
    controller.append_source(id="u", url="https://example.org", title="T", provider_metadata=PM)
    controller.append_source(
        id="d", source_type="document", title="T", media_type="text/plain", filename="f", provider_metadata=PM
    )
    controller.append_file(data="https://example.org/f", mime_type="text/plain", provider_metadata=PM)
    controller.append_file(
        data="https://example.org/f", mime_type="text/plain", provider_metadata=PM, reasoning=True
    )
    controller.append_custom("acme.thing", PM)
    controller.enqueue({"type": "message-finish", "finishReason": "stop", "usage": _USAGE})


_USAGE = {"inputTokens": 1, "outputTokens": 2}
_CALL: dict[str, Any] = {
    "provider_executed": True,
    "dynamic": True,
    "title": "T",
    "provider_metadata": PM,
    "tool_metadata": {"a": 1},
    "input_encoding": "text",
}


def calls(controller: AssistantStreamController) -> None:
    call = controller.add_tool_call_part("pay", tool_call_id="1", args={"eur": 5}, **_CALL)
    approval = {
        "id": "ap",
        "descriptor": {"a": 1},
        "inputSchemaInput": {"b": 1},
        "requestReason": "r",
        "isAutomatic": True,
        "signature": "s",
    }
    call.set_approval(approval)
    call.set_approval(
        {**approval, "approved": True, "reason": "r", "providerExecuted": True, "providerMetadata": PM}
    )
    call.set_response({"half": True}, is_preliminary=True)
    call.set_response({"paid": True})
    controller.add_tool_call_part("pay", tool_call_id="2", args={"eur": 5}, **_CALL).set_response(
        "no", is_error=True
    )
    broken = controller.add_tool_call_part("pay", tool_call_id="3", **{**_CALL, "input_encoding": None})
    broken.args_text.append("{no")
    broken.close()
    denied = controller.add_tool_call_part("pay", tool_call_id="4", args={})
    denied.set_approval({"id": "ap4"})
    denied.set_approval({"id": "ap4", "approved": False})
    denied.set_response({"error": "no"}, is_error=True)
    for index, is_error in ((4, False), (5, True)):
        controller.add_tool_call_part("pay", tool_call_id=f"raw {index}", args={})
        result = {"type": "result", "path": [index], "result": "r", "isError": is_error}
        controller.enqueue({**result, "providerExecuted": True, "providerMetadata": PM, "toolMetadata": {"a": 1}})


def raw_frames(controller: AssistantStreamController) -> None:
    """What the AI SDK's format alone has, and the controller has no call for."""
    part = controller.add_text_part()
    part.append("a")
    controller.enqueue({"type": "ui-frame", "path": [0], "frame": {"type": "text-end", "citations": CITATIONS}})
    steering = {"type": "steering-message", "id": "s", "parts": [{"type": "text", "text": "a"}]}
    controller.enqueue({"type": "ui-frame", "path": [], "frame": steering})
    controller.enqueue({"type": "ui-frame", "path": [], "frame": {"type": "reset-step"}})


def aborted(controller: AssistantStreamController) -> None:
    controller.append_text("a")
    controller.abort("tired")


def failing(controller: AssistantStreamController) -> None:
    raise ValueError("boom")


PROGRAMS: list[Callable[[AssistantStreamController], None]] = [texts, calls, raw_frames, aborted, failing]


def frames_of(pieces: Iterable[bytes]) -> list[Frame]:
    lines = b"".join(pieces).decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def written() -> list[Frame]:
    """All frames that the programs become."""
    made = (UIMessageStreamEncoder("m").encode(create_assistant_stream(program)) for program in PROGRAMS)
    return [frame for pieces in made for frame in frames_of(pieces)]


_CALLED: Frame = {"toolCallId": "c", "toolName": "pay"}
_KNOWN: Frame = {
    "providerExecuted": True,
    "dynamic": True,
    "title": "T",
    "providerMetadata": PM,
    "toolMetadata": {"a": 1},
}
_OUTPUT: Frame = {name: value for name, value in _KNOWN.items() if name != "title"}
_TEXT: Frame = {"type": "text-start", "id": "t"}
_REASONING: Frame = {"type": "reasoning-start", "id": "r"}
_STARTED: Frame = {"type": "tool-input-start", **_CALLED}
_AVAILABLE: Frame = {"type": "tool-input-available", **_CALLED, "input": {"eur": 5}}
_REQUEST: Frame = {"type": "tool-approval-request", "approvalId": "ap", "toolCallId": "c"}
_SAID: Frame = {"type": "text-delta", "id": "t", "delta": "a"}

Sample = tuple[list[Frame], Frame, list[Frame]]
SAMPLES: list[Sample] = [
    ([], {"type": "start", "messageId": "m", "messageMetadata": {"a": 1}}, []),
    ([], {**_TEXT, "providerMetadata": PM}, [_SAID]),
    ([_TEXT], {**_SAID, "providerMetadata": PM}, []),
    (
        [_TEXT, _SAID],
        {"type": "text-end", "id": "t", "citations": CITATIONS, "providerMetadata": PM},
        [_SAID],
    ),
    ([], {**_REASONING, "providerMetadata": PM}, [{"type": "reasoning-delta", "id": "r", "delta": "a"}]),
    ([_REASONING], {"type": "reasoning-delta", "id": "r", "delta": "a", "providerMetadata": PM}, []),
    (
        [_REASONING, {"type": "reasoning-delta", "id": "r", "delta": "a"}],
        {"type": "reasoning-end", "id": "r", "providerMetadata": PM},
        [{"type": "reasoning-delta", "id": "r", "delta": "a"}],
    ),
    ([], {"type": "error", "errorText": "boom"}, []),
    (
        [],
        {**_STARTED, **_KNOWN, "inputEncoding": "text"},
        [{"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": "{}"}],
    ),
    ([_STARTED], {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": '{"eur": 5}'}, []),
    ([], {**_AVAILABLE, **_KNOWN}, []),
    ([], {"type": "tool-input-error", **_CALLED, **_KNOWN, "input": "{no", "errorText": "boom"}, []),
    (
        [_AVAILABLE],
        {
            **_REQUEST,
            "approvalDescriptor": {"a": 1},
            "inputSchemaInput": {"b": 1},
            "reason": "r",
            "isAutomatic": True,
            "signature": "s",
        },
        [],
    ),
    (
        [_AVAILABLE, _REQUEST],
        {
            "type": "tool-approval-response",
            "approvalId": "ap",
            "approved": True,
            "reason": "r",
            "providerExecuted": True,
            "providerMetadata": PM,
        },
        [],
    ),
    (
        [_AVAILABLE],
        {"type": "tool-output-available", "toolCallId": "c", "output": 1, "preliminary": True, **_OUTPUT},
        [],
    ),
    ([_AVAILABLE], {"type": "tool-output-error", "toolCallId": "c", "errorText": "boom", **_OUTPUT}, []),
    ([_AVAILABLE, _REQUEST], {"type": "tool-output-denied", "toolCallId": "c"}, []),
    ([], {"type": "source-url", "sourceId": "s", "url": "u", "title": "T", "providerMetadata": PM}, []),
    (
        [],
        {
            "type": "source-document",
            "sourceId": "s",
            "mediaType": "text/plain",
            "title": "T",
            "filename": "f",
            "providerMetadata": PM,
        },
        [],
    ),
    ([], {"type": "file", "url": "u", "mediaType": "text/plain", "providerMetadata": PM}, []),
    ([], {"type": "reasoning-file", "url": "u", "mediaType": "text/plain", "providerMetadata": PM}, []),
    ([], {"type": "custom", "kind": "acme.thing", "providerMetadata": PM}, []),
    ([], {"type": "steering-message", "id": "s", "parts": [{"type": "text", "text": "a"}]}, []),
    ([], {"type": "data-x", "id": "d", "data": [1]}, []),
    ([], {"type": "data-x", "data": [1], "transient": True}, []),  # shown, and kept in no message
    ([_TEXT, _SAID], {"type": "start-step"}, []),
    ([{"type": "start-step"}], {"type": "finish-step"}, []),
    ([{"type": "start-step"}, _TEXT, _SAID], {"type": "reset-step"}, []),
    ([], {"type": "message-metadata", "messageMetadata": {"a": 1}}, []),
    ([], {"type": "finish", "finishReason": "length", "messageMetadata": {"a": 1}}, []),
    ([_TEXT, _SAID], {"type": "abort", "reason": "tired"}, []),
]
"""For each type a frame with all of its fields, or two, and what comes before and after it."""
