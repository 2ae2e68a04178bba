"""AG-UI, the agent-user interaction protocol, version 1.0: server-sent events of its own types.

An answer is a run. Each text and each reasoning is a message of the conversation, calls belong to the message
before them or to one of their own, and their results are messages too. What the protocol has no event for goes
as `CUSTOM`: `source`, `file`, `data-NAME` for data parts, `data`, `annotations`, `warning`, `info`,
`tool-call-approval`, `tool-result-preliminary`. A data part with an `id` that is an object, and not transient, is
an activity. Fields that the events lack are in their `metadata`: `parentId`, `providerMetadata`, `summary`, a
call's `title` and the like, a result's `isError`, `artifact`, `modelContent`, `messages` and, unless it is a text,
`contentType`, a step's and the run's `finishReason` and `usage`.

**Tool calls.** `TOOL_CALL_END` comes where the arguments are complete JSON. Those that are none are answered first
(metadata `invalidArguments`), so that no client runs the call. A call that is cut off never ends, and then its run
ends with `RUN_ERROR`, with the code `cancelled` where it was stopped: `RUN_FINISHED` is allowed only once all
calls have ended. A call that awaits an approval interrupts the run; the client answers it in `resume`.

**State.** The first update is a snapshot, later ones are JSON patches. JSON Patch cannot append to a text, so one
that grows in the state is sent whole each time: let it grow in few steps, or say it in the message.

**Replays.** The messages that the client has sent are the run's first event, so that a client which holds half of
the answer drops it before it reads it again. Reasoning alone outlives that in HttpAgent, unless the client has
sent some: clear the agent's messages before it connects.

Clients before 1.0 (HttpAgent 0.0.59) fail at the outcome `cancelled`, and at calls that the end of the run names.
So the latter is left to clients, who know which calls have no result; and a client whose input has no
`protocolVersion` is told of a stop as of a call that was cut off then. An error is told as the last event, for
nothing may follow it. Lossy: UIFrames but `abort`; the second of two calls
with one id; whether a result is absent or empty; the severity `critical`; state operations that cannot be applied;
the name of a step that had none. Read are also events that are not written here: `*_CHUNK`, `ACTIVITY_DELTA`,
encrypted reasoning (as provider metadata), `THINKING_*`. Not read: `RAW`, `SUBAGENT_*`, `MESSAGES_SNAPSHOT`,
messages of other roles. `tests/assistant/formats/coverage_ag_ui.json` has every field.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ....errors import MalformedStreamError
from ....sse import HEARTBEAT, EventParser
from ...message.chunks import AssistantStreamChunk
from ..base import INTERRUPTED_TEXT, MAX_UNITS, Format, Pieces, complain, events_of
from .events import event_bytes, opened_in, run_error
from .reader import Reader
from .writer import Writer, stopped_run

THREAD_KEY = "assistant-thread"
RUN_KEY = "assistant-run"
"""Where a stream's metadata keeps the ids that the encoder gave the run."""
BEFORE_1_KEY = "assistant-run-before-1"
"""Where it keeps that the client is older than version 1.0."""


class AGUIEncoder:
    """Encodes chunks for AG-UI's `HttpAgent` and its like. `thread_id` and `run_id`: those of the client's input.

    Made up where they are left out. The ids of messages begin with the run's. `messages`: those of the input, with
    which the run begins, so that it can be read again; left out where they are too long for an event. `before_1`:
    the client is older than version 1.0, as one whose input has no `protocolVersion`. Holds no state of a stream:
    thread-safe and reusable.
    """

    def __init__(
        self,
        thread_id: str | None = None,
        run_id: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        before_1: bool = False,
    ) -> None:
        self.thread_id = f"thread-{secrets.token_hex(8)}" if thread_id is None else thread_id
        self.run_id = f"run-{secrets.token_hex(8)}" if run_id is None else run_id
        self.messages = messages
        self.before_1 = before_1

    heartbeat = HEARTBEAT
    """What keeps a silent connection alive, sent between pieces and never stored."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }

    @property
    def _ids(self) -> dict[str, str]:
        return {"threadId": self.thread_id, "runId": self.run_id}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """Whole events: `RUN_STARTED` at once, then one piece per chunk that has any, `RUN_FINISHED` or
        `RUN_ERROR` last.

        Iterating raises MalformedStreamError for a chunk that addresses no part, or the wrong kind, and for what
        is larger than an event that clients read (10 MiB) and is no text.
        """
        begin = event_bytes({"type": "RUN_STARTED", **self._ids})
        if self.messages is not None:
            try:
                begin += event_bytes({"type": "MESSAGES_SNAPSHOT", "messages": self.messages})
            except MalformedStreamError:
                pass  # the client has them; only half an answer would be read twice
        writer = Writer(self._ids, self.before_1)
        return Pieces(chunks, writer.encode, writer.end, begin=begin)

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What to send after `stored`, all bytes of a stream that ended as `status`, to end the run.

        The ends of open texts, reasonings and steps; `RUN_ERROR` with `text`, or `RUN_FINISHED` with the outcome
        `cancelled` for a cancelled stream. Where a call was cut off there, or the client is an older one, it is
        `RUN_ERROR` with the code `cancelled`. Such a call stays as it is, so that no client runs it. Nothing after
        a stream that is `done` or has its last event.
        """
        if status == "done":
            return b""
        opened, cut = opened_in(stored)
        if opened.ended:
            return b""
        ids = opened.ids or self._ids
        begin = [] if opened.started else [{"type": "RUN_STARTED", **ids}]
        last = stopped_run(opened, ids, self.before_1) if status == "cancelled" else run_error(text)
        return (b"\n\n" if cut else b"") + b"".join(map(event_bytes, [*begin, *opened.ending(last)]))


class AGUIDecoder:
    """Decodes what AGUIEncoder, or another agent that speaks AG-UI, writes: one run, from its start to its end.

    `strict`: MalformedStreamError for an end without the run's last event, and for events with a name; otherwise a
    warning in the log. Events that are not known are ignored, broken ones dropped with a warning.
    MalformedStreamError, however strict, for an event of more than 16 MiB (2**24 UTF-16 code units).
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks in `pieces`, whose boundaries do not matter."""
        reader = Reader()
        parser = EventParser(MAX_UNITS)
        for piece in pieces:
            for event in events_of(parser, piece):
                if event.event != "message":
                    complain(self._strict, f"an event that this format does not know: {event.event!r:.80}")
                    continue
                yield from reader.read(event.data)
                if reader.ended:
                    return
        complain(self._strict, "the stream ended without the end of its run")


def _keep(encoder: AGUIEncoder) -> Mapping[str, str]:
    before_1 = {BEFORE_1_KEY: "1"} if encoder.before_1 else {}
    return {THREAD_KEY: encoder.thread_id, RUN_KEY: encoder.run_id, **before_1}


def _restore(metadata: Mapping[str, str]) -> AGUIEncoder:
    ids = metadata.get(THREAD_KEY), metadata.get(RUN_KEY)
    return AGUIEncoder(*ids, before_1=BEFORE_1_KEY in metadata)


FORMAT = Format(
    "ag-ui",
    AGUIEncoder,
    lambda: AGUIDecoder(strict=False),
    keep=_keep,
    restore=_restore,
    front_end="ag-ui",
)
