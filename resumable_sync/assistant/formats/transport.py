"""The assistant transport: every chunk as JSON in a server-sent event of its own. Only UIFrames are lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...sse import HEARTBEAT, EventParser, format_event
from ..message.chunks import AssistantStreamChunk, Error, MessageFinish, PartFinish, PartStart, UIFrame
from ..message.jsontext import parse_json, wire_json
from .base import DONE, INTERRUPTED_TEXT, Format, Pieces, event_data, skip


def _frame(chunk: AssistantStreamChunk) -> bytes:
    if isinstance(chunk, UIFrame):
        return b""
    return format_event(wire_json(chunk.to_json()))


class AssistantTransportEncoder:
    """Encodes chunks as server-sent events, `[DONE]` last. Holds no state: thread-safe and reusable."""

    heartbeat = HEARTBEAT
    """What keeps a silent connection alive, sent between pieces and never stored."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """One piece per chunk, and one for the end."""
        return Pieces(chunks, _frame, lambda: format_event(DONE))

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What to send after `stored`, all bytes of a stream that ended as `status`, to end the message.

        An `error` chunk with `text` (not for a cancelled stream), the end of every open part, a
        `message-finish` with the reason `other` for a cancelled stream, `[DONE]`. Clients show the message as
        incomplete, with the error or as stopped. Arguments of a tool call that were being written are not
        declared complete, so that no client acts on them. Nothing is sent after a stream that is `done` or
        has its `[DONE]`; nothing but the ends of parts and `[DONE]` after a finished message.
        """
        if status == "done":
            return b""
        opened = 0
        closed: set[int] = set()
        finished = failed = False
        parser = EventParser()
        for piece in stored:
            for event in parser.feed(piece):
                if event.data == DONE:
                    return b""
                chunk = _read(event.data)
                if isinstance(chunk, PartStart):
                    opened += 1
                elif isinstance(chunk, PartFinish):
                    closed.add(chunk.path[0])
                finished = finished or isinstance(chunk, MessageFinish)
                failed = failed or isinstance(chunk, Error)
        ending: list[AssistantStreamChunk] = []
        if not (finished or failed or status == "cancelled"):
            ending.append(Error(error=text))
        ending.extend(PartFinish(path=(index,)) for index in range(opened) if index not in closed)
        if not (finished or failed) and status == "cancelled":
            ending.append(MessageFinish(finish_reason="other", usage={"inputTokens": 0, "outputTokens": 0}))
        return b"".join(map(_frame, ending)) + format_event(DONE)


def _read(data: str) -> AssistantStreamChunk | None:
    """The chunk in an event, None (and a warning) if there is none."""
    try:
        value = parse_json(data)
        if isinstance(value, Mapping):
            return AssistantStreamChunk.from_json(value)
        problem = "no object"
    except ValueError as error:
        problem = str(error)
    skip("assistant-transport chunk", data, problem)
    return None


class AssistantTransportDecoder:
    """Decodes what AssistantTransportEncoder, or its JavaScript original, writes.

    `strict`: MalformedStreamError for an end without `[DONE]` and for events with a name; otherwise a warning
    in the log. Chunks that cannot be understood are dropped with a warning either way. What follows `[DONE]`
    is ignored.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks in `pieces`, whose boundaries do not matter."""
        for data in event_data(pieces, self._strict):
            chunk = _read(data)
            if chunk is not None:
                yield chunk


FORMAT = Format(
    "assistant-transport",
    AssistantTransportEncoder,
    lambda: AssistantTransportDecoder(strict=False),
    front_end="transport",
)
