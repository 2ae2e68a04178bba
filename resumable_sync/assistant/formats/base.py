"""What the formats share: what a format is, how an encoder is driven, and what decoders build chunks with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import MalformedStreamError
from ...sse import Event, EventParser, utf16_units
from ..message.builder import ChunkBuilder
from ..message.chunks import AssistantStreamChunk, TextDelta
from ..message.parts import Part

logger = logging.getLogger("resumable_sync")

DONE = "[DONE]"
"""The data of the event that ends a message, in the formats that are server-sent events."""

INTERRUPTED_TEXT = "The response was interrupted."
"""What closing frames tell the reader of a message whose producer was lost."""


MAX_UNITS = 1 << 24
"""UTF-16 code units that a line or an event may have: assistant-stream reads no more, and so do the decoders."""

_MAX_DELTA = 1 << 21  # characters: fewer than MAX_UNITS however JSON escapes them


class Pieces(Iterator[bytes]):
    """Encoded chunks, one piece of whole frames at a time, never an empty one.

    A text that is too long for a frame is divided over several. Iterating raises MalformedStreamError for
    anything else that is, unless frames are not `bounded`.

    One thread at a time iterates. `close` closes the chunks it reads from and may be called from wherever
    theirs may: for an AssistantStream from any thread, also while another one is blocked in `next`, which
    then stops; for a generator only while nobody executes it (ValueError otherwise).
    """

    def __init__(
        self,
        chunks: Iterable[AssistantStreamChunk],
        encode: Callable[[AssistantStreamChunk], bytes],
        end: Callable[[], bytes],
        begin: bytes = b"",
        *,
        bounded: bool = True,
    ) -> None:
        self._source = chunks
        self._chunks = iter(chunks)
        self._encode = encode
        self._end = end
        self._begin = begin
        self._bounded = bounded
        self._ended = False

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> bytes:
        if self._begin:
            piece, self._begin = self._begin, b""
            return piece
        while not self._ended:
            try:
                chunk = next(self._chunks)
            except StopIteration:
                if self._ended:  # closed meanwhile: what ended is the reading, not the message
                    break
                self._ended = True
                piece = self._end()
            else:
                piece = self._encode_in_bounds(chunk)
            if piece:
                return piece
        raise StopIteration

    def _encode_in_bounds(self, chunk: AssistantStreamChunk) -> bytes:
        if isinstance(chunk, TextDelta) and len(chunk.text_delta) > _MAX_DELTA:
            text = chunk.text_delta
            parts = [text[at : at + _MAX_DELTA] for at in range(0, len(text), _MAX_DELTA)]
            first = [TextDelta(path=chunk.path, text_delta=part) for part in parts[:-1]]
            last = TextDelta(path=chunk.path, text_delta=parts[-1], provider_metadata=chunk.provider_metadata)
            return b"".join([self._encode(delta) for delta in (*first, last)])
        piece = self._encode(chunk)
        if self._bounded and len(piece) > MAX_UNITS:
            for line in piece.split(b"\n"):
                if len(line) > MAX_UNITS and utf16_units(line.decode("utf-8")) > MAX_UNITS:
                    raise MalformedStreamError(f"a {chunk.type} chunk is too large for a frame that clients read")
        return piece

    def close(self) -> None:
        """Stop, and close what is read from. Idempotent."""
        self._ended = True
        self._begin = b""
        close: Callable[[], object] | None = getattr(self._source, "close", None)
        if close is not None:
            close()


class AssistantStreamEncoder(Protocol):
    """What an encoder of any format offers. Those of this package are thread-safe and reusable."""

    heartbeat: bytes
    """What may be sent between pieces to keep a silent connection alive; empty if the format has nothing."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format, none of them hop-by-hop."""

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Iterator[bytes]:
        """The bytes of a message, in pieces of whole frames."""

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What makes `stored`, all bytes of a stream that ended as `status`, a message that has ended.

        `stored` begins at the first byte, for what is open depends on all of it; its boundaries do not matter.
        """


class Decoder(Protocol):
    """What a decoder of any format offers."""

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """The chunks in `pieces`, whose boundaries do not matter."""


def _nothing_kept(encoder: Any) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Format:
    """All that the responses, the endpoints and the readers know of a format."""

    name: str
    """What a stream's metadata calls it."""
    encoder: type[AssistantStreamEncoder]
    """The encoder's class, whose instances themselves, not those of its subclasses, write this format."""
    decoder: Callable[[], Decoder]
    """Makes a decoder for what is stored, as lenient as the format allows."""
    closes: bool = True
    """Whether closing frames can tell that a message was interrupted. If not, its response is broken off."""
    keep: Callable[[Any], Mapping[str, str]] = _nothing_kept
    """From an encoder what the stream's metadata keeps, so that `restore` makes its like."""
    restore: Callable[[Mapping[str, str]], AssistantStreamEncoder] | None = None
    """From a stream's metadata the encoder that wrote it; by default `encoder()`."""
    exposed: tuple[str, ...] = ()
    """Headers of the format that a page of another origin must be able to read."""
    front_end: str | None = None
    """Which of the endpoints' front ends speaks it: "chat", "transport", "ag-ui", or none."""

    def encoder_for(self, metadata: Mapping[str, str]) -> AssistantStreamEncoder:
        """The encoder that wrote a stream with this metadata."""
        return self.encoder() if self.restore is None else self.restore(metadata)


class PartTypes:
    """Remembers the parts of a stream, so that a chunk can be told by the part that it addresses."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def start(self, chunk: AssistantStreamChunk, part: Part) -> int:
        """Note a part-start and return the part's index."""
        if chunk.path:
            raise MalformedStreamError("a part inside a part is not supported")
        self._parts.append(part)
        return len(self._parts) - 1

    def of(self, chunk: AssistantStreamChunk) -> Part:
        """The part that `chunk` addresses. MalformedStreamError if there is none."""
        if len(chunk.path) != 1 or chunk.path[0] >= len(self._parts):
            raise MalformedStreamError(f"a {chunk.type} chunk for no part: path {list(chunk.path)}")
        return self._parts[chunk.path[0]]


class Output:
    """A builder, and what it has built since it was last asked. One thread at a time."""

    def __init__(self) -> None:
        self._chunks: list[AssistantStreamChunk] = []
        self.builder = ChunkBuilder(lambda chunk: self._chunks.append(chunk))

    def take(self) -> list[AssistantStreamChunk]:
        """The chunks built since the last call."""
        taken, self._chunks = self._chunks, []
        return taken

    def add_whole(self, kind: type[Part], fields: Mapping[str, Any]) -> None:
        """A part that begins and ends here. ValueError if the fields make none of this kind."""
        part = Part.from_json({**fields, "type": kind.type})
        if not isinstance(part, kind):
            raise ValueError(f"not a {kind.type} part")
        self.builder.close_part(self.builder.start(part))


def message_chunk(kind: str, fields: Mapping[str, Any]) -> AssistantStreamChunk:
    """A chunk of the message as a whole. ValueError if the fields make none."""
    return AssistantStreamChunk.from_json({**fields, "type": kind, "path": []})


def event_data(pieces: Iterable[bytes], strict: bool) -> Iterator[str]:
    """The data of each event up to DONE; complains of its absence, and of events with a name.

    MalformedStreamError for one of more than MAX_UNITS.
    """
    parser = EventParser(MAX_UNITS)
    for piece in pieces:
        for event in events_of(parser, piece):
            if event.event != "message":
                complain(strict, f"an event that this format does not know: {event.event!r:.80}")
            elif event.data == DONE:
                return
            else:
                yield event.data
    complain(strict, "the stream ended without its [DONE] marker")


def events_of(parser: EventParser, piece: bytes) -> Iterator[Event]:
    """The events that `piece` completes. MalformedStreamError for one that is too long."""
    try:
        yield from parser.each(piece)
    except ValueError as error:
        raise MalformedStreamError(str(error)) from error


def text_of(value: object) -> str:
    """`value` if it is text, else ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r:.80}")
    return value


def complain(strict: bool, problem: str) -> None:
    """MalformedStreamError where decoding is strict, else a warning in the log."""
    if strict:
        raise MalformedStreamError(problem)
    logger.warning("%s", problem)


def skip(kind: str, text: str, problem: str) -> None:
    """Log that a frame was dropped, as the JavaScript decoders drop it however strict they are."""
    logger.warning("dropped an invalid %s (%.200s): %.200s", kind, problem, text)
