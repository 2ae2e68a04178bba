"""A UIMessage as frames, for a client that begins a replay with nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...message.jsontext import stringify
from .frames import frame_bytes, present


def message_frames(message: Mapping[str, Any]) -> bytes:
    """The frames that bring a client to where `message` stands, `start` first; the last step stays open.

    The AI SDK's clients begin the replay of a resumed stream with an empty message. No frame makes a client run a
    tool or ask again for an approval that was given: a call that waits is shown as one whose input has come, until
    the stream answers it. One that was refused is shown as denied. The decision itself is in no frame that AI
    SDK 6 reads; what is saved has it.
    """
    frames: list[dict[str, Any]] = [
        {"type": "start", **present(messageId=message.get("id"), messageMetadata=message.get("metadata"))}
    ]
    begun = False
    for number, part in enumerate(message.get("parts") or []):
        if part["type"] == "step-start":
            frames += [{"type": "finish-step"}] if begun else []
            begun = True
        frames += _part_frames(part, f"before-{number}")
    return b"".join(map(frame_bytes, frames))


def _part_frames(part: Mapping[str, Any], block: str) -> Iterator[dict[str, Any]]:
    kind = part["type"]
    if kind == "step-start":
        yield {"type": "start-step"}
    elif kind in ("text", "reasoning"):
        metadata = present(providerMetadata=part.get("providerMetadata"))
        if isinstance(part.get("id"), str):  # AI SDK 7 keeps that of a reasoning
            block = part["id"]
        yield {"type": f"{kind}-start", "id": block, **metadata}
        if isinstance(part.get("text"), str):
            yield {"type": f"{kind}-delta", "id": block, "delta": part["text"]}
        yield {"type": f"{kind}-end", "id": block, **present(citations=part.get("citations")), **metadata}
    elif kind == "dynamic-tool" or kind.startswith("tool-"):
        yield from _call_frames(part, kind)
    elif kind.startswith("data-") or kind in ("file", "reasoning-file", "source-url", "source-document", "custom"):
        yield dict(part)


def _call_frames(part: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    call = {"toolCallId": part["toolCallId"]}
    dynamic = {"dynamic": True} if kind == "dynamic-tool" else {}
    executed = present(providerExecuted=part.get("providerExecuted"))
    yield {
        "type": "tool-input-start",
        **call,
        "toolName": part["toolName"] if dynamic else kind[len("tool-") :],
        **dynamic,
        **executed,
        **present(
            title=part.get("title"),
            toolMetadata=part.get("toolMetadata"),
            inputEncoding=part.get("inputEncoding"),
            providerMetadata=part.get("callProviderMetadata"),
        ),
    }
    given = part.get("input", part.get("rawInput"))
    if given is not None:
        as_text = isinstance(given, str) and ("input" not in part or part.get("inputEncoding") == "text")
        yield {"type": "tool-input-delta", **call, "inputTextDelta": given if as_text else stringify(given)}
    state, approval = part.get("state"), part.get("approval")
    more = {**dynamic, **executed, **present(providerMetadata=part.get("resultProviderMetadata"))}
    if state == "approval-requested" and isinstance(approval, Mapping):
        yield {"type": "tool-approval-request", "approvalId": approval.get("id"), **call}
    elif state == "output-available":
        output = {"output": part.get("output"), **present(preliminary=part.get("preliminary"))}
        yield {"type": "tool-output-available", **call, **output, **more}
    elif state == "output-error":
        yield {"type": "tool-output-error", **call, "errorText": str(part.get("errorText") or ""), **more}
    elif state == "output-denied" or (isinstance(approval, Mapping) and approval.get("approved") is False):
        yield {"type": "tool-output-denied", **call}
