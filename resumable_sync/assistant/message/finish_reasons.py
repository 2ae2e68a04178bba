"""Why messages end: the words of the providers, as those of the AI SDK."""

from __future__ import annotations

from collections.abc import Mapping

_REASONS: Mapping[str, str | None] = {
    **{reason: reason for reason in ("stop", "length", "content-filter", "tool-calls", "error", "other")},
    "unknown": None,  # AI SDK 6 and later refuse it
    **dict.fromkeys(("end-turn", "stop-sequence", "eos", "eos-token", "end", "complete", "completed"), "stop"),
    **dict.fromkeys(("max-tokens", "max-output-tokens", "max-length", "model-length"), "length"),
    "model-context-window-exceeded": "length",
    **dict.fromkeys(("safety", "refusal", "recitation", "blocklist", "prohibited-content"), "content-filter"),
    **dict.fromkeys(("content-filtered", "guardrail-intervened", "spii", "image-safety"), "content-filter"),
    **dict.fromkeys(("tool-call", "tool-use", "function-call"), "tool-calls"),
    **dict.fromkeys(("failed", "malformed-function-call"), "error"),
}


def finish_reason(reason: str) -> str | None:
    """The reason as all versions of the AI SDK read it; None where it is to be left out."""
    return _REASONS.get(reason.strip().lower().replace("_", "-").replace(" ", "-"), "other")
