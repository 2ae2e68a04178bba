"""The data stream, the default format: one line per frame, `prefix:JSON`.

Lossy: an error's code and severity, a result's `modelContent` and `messages`, and which of two text parts that
are open at once a delta belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...errors import MalformedStreamError
from ..message.chunks import (
    Annotations,
    AssistantStreamChunk,
    Data,
    Error,
    MessageFinish,
    PartFinish,
    PartStart,
    Result,
    StepFinish,
    StepStart,
    TextDelta,
    ToolCallArgsTextFinish,
    UpdateState,
)
from ..message.jsontext import wire_json
from ..message.parts import UNSET, DataPart, FilePart, Part, ReasoningPart, SourcePart, TextPart, ToolCallPart
from .base import INTERRUPTED_TEXT, PartTypes, Pieces
from .data_stream_lines import LineReader, lines_of, without_type

_WHOLE_PARTS: Mapping[type[Part], str] = {ToolCallPart: "b", SourcePart: "h", FilePart: "k", DataPart: "aui-data"}
_PREFIX_BYTES = 32  # longer than any prefix


def _line(prefix: str, value: object) -> bytes:
    return f"{prefix}:{wire_json(value)}\n".encode()


class DataStreamEncoder:
    """Encodes chunks as lines. Holds no state: thread-safe and reusable."""

    heartbeat = b"2:[]\n"
    """What keeps a silent connection alive, sent between pieces and never stored. It adds no data."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {"Content-Type": "text/plain; charset=utf-8", "x-vercel-ai-data-stream": "v1"}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """Whole lines, one piece per chunk that has any. A stream of nothing is nothing.

        Iterating raises MalformedStreamError for a chunk that addresses no part, or the wrong kind.
        """
        writer = _Writer()
        return Pieces(chunks, writer.encode, writer.finish_all_args)

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What to send behind `stored`, all bytes of a stream that ended as `status`, to end the message.

        An error line with `text` (not for a cancelled stream) and a finish line with the reason `error`, or
        `other` for a cancelled stream. Clients show the message as incomplete, with the error or as stopped,
        and close its parts by themselves. Nothing behind a stream that is `done` or has a finish line.
        """
        if status == "done":
            return b""
        cut = finished = failed = False
        begun = b""
        for piece in stored:
            for line in piece.splitlines(keepends=True):
                cut = not line.endswith(b"\n")
                begun = (begun + line[:_PREFIX_BYTES])[:_PREFIX_BYTES]
                finished = finished or begun.startswith(b"d:")
                failed = failed or begun.startswith(b"3:")
                begun = begun if cut else b""
        ending = b"\n" if cut else b""
        if not finished:
            cancelled = status == "cancelled" and not failed
            ending += b"" if cancelled or failed else _line("3", text)
            usage = {"inputTokens": 0, "outputTokens": 0}
            reason = "other" if cancelled else "error"
            ending += _line("d", {"path": [], "finishReason": reason, "usage": usage})
        return ending


class _Writer:
    """The state of one encoding."""

    def __init__(self) -> None:
        self._parts = PartTypes()
        self._open_args: dict[str, bool] = {}  # tool call id: whether any arguments were written

    def encode(self, chunk: AssistantStreamChunk) -> bytes:
        if isinstance(chunk, TextDelta):
            return self._encode_delta(chunk, self._parts.of(chunk))
        if isinstance(chunk, PartStart):
            self._parts.start(chunk, chunk.part)
            return self._encode_start(chunk.part)
        if isinstance(chunk, (PartFinish, ToolCallArgsTextFinish)):
            part = self._parts.of(chunk)
            return self._finish_args(part.tool_call_id) if isinstance(part, ToolCallPart) else b""
        if isinstance(chunk, Result):
            return self._encode_result(chunk, self._parts.of(chunk))
        if isinstance(chunk, Error):
            # What is no more than a warning does not end the message, nor the arguments in it.
            ended = b"" if chunk.severity in ("warning", "info") else self.finish_all_args()
            return ended + _line("3", "unknown error" if chunk.error is None else chunk.error)
        if isinstance(chunk, (StepFinish, MessageFinish)):
            prefix = "e" if isinstance(chunk, StepFinish) else "d"
            return self.finish_all_args() + _line(prefix, without_type(chunk.to_json()))
        if isinstance(chunk, StepStart):
            return _line("f", without_type(chunk.to_json()))
        if isinstance(chunk, Annotations):
            return _line("8", chunk.annotations)
        if isinstance(chunk, Data):
            return _line("2", chunk.data)
        if isinstance(chunk, UpdateState):
            return _line("aui-state", chunk.to_json()["operations"])
        raise MalformedStreamError(f"not a chunk: {type(chunk).__name__}")

    def _encode_start(self, part: Part) -> bytes:
        if isinstance(part, ToolCallPart):
            self._open_args[part.tool_call_id] = False
        prefix = _WHOLE_PARTS.get(type(part))
        if prefix is not None:
            return _line(prefix, without_type(part.to_json()))
        if isinstance(part, ReasoningPart) and part.unstable_summary is not None:
            parent = {} if part.parent_id is None else {"parentId": part.parent_id}
            return _line("aui-reasoning-part-start", {"unstable_summary": part.unstable_summary, **parent})
        return b""

    def _encode_delta(self, chunk: TextDelta, part: Part) -> bytes:
        text = chunk.text_delta
        if isinstance(part, TextPart):
            if part.parent_id:
                return _line("aui-text-delta", {"textDelta": text, "parentId": part.parent_id})
            return _line("0", text)
        if isinstance(part, ReasoningPart):
            if part.parent_id:
                return _line("aui-reasoning-delta", {"reasoningDelta": text, "parentId": part.parent_id})
            return _line("g", text)
        if not isinstance(part, ToolCallPart):
            raise MalformedStreamError(f"a text-delta chunk for a part without text: {part.type}")
        if part.tool_call_id not in self._open_args:
            return b""  # arguments behind the result
        self._open_args[part.tool_call_id] = True
        return _line("c", {"toolCallId": part.tool_call_id, "argsTextDelta": text})

    def _encode_result(self, chunk: Result, part: Part) -> bytes:
        if not isinstance(part, ToolCallPart):
            raise MalformedStreamError(f"a result chunk for a part that is no tool call: {part.type}")
        self._open_args.pop(part.tool_call_id, None)
        fields = {"toolCallId": part.tool_call_id, "result": chunk.result, "artifact": chunk.artifact}
        present = {key: value for key, value in fields.items() if value is not UNSET}
        return _line("a", {**present, "isError": True} if chunk.is_error else present)

    def _finish_args(self, tool_call_id: str) -> bytes:
        has_args = self._open_args.pop(tool_call_id, None)
        if has_args is None:
            return b""
        delta = "" if has_args else "{}"  # for clients that know nothing of isFinal
        return _line("c", {"toolCallId": tool_call_id, "argsTextDelta": delta, "isFinal": True})

    def finish_all_args(self) -> bytes:
        return b"".join([self._finish_args(tool_call_id) for tool_call_id in list(self._open_args)])


class DataStreamDecoder:
    """Decodes what DataStreamEncoder, or its JavaScript original of any age, writes.

    `strict`: MalformedStreamError for an unknown prefix, an unknown or repeated tool call id, and a last line
    without its end; otherwise such lines are dropped with a warning in the log. Lines that hold no valid JSON,
    or the wrong kind of it, are dropped with a warning either way.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks in `pieces`, whose boundaries do not matter."""
        reader = LineReader(self._strict)
        for line in lines_of(pieces, self._strict):
            yield from reader.read(line)
        yield from reader.end()
