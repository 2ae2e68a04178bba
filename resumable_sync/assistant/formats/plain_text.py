"""Plain text: the text parts of a message and nothing else."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from ..message.chunks import AssistantStreamChunk, PartStart, TextDelta
from ..message.jsontext import concat
from ..message.parts import TextPart
from .base import INTERRUPTED_TEXT, Format, Output, PartTypes, Pieces


class PlainTextEncoder:
    """Encodes the text of text parts as UTF-8. Holds no state: thread-safe and reusable."""

    heartbeat = b""
    """There is none: every byte would be text."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {"Content-Type": "text/plain; charset=utf-8"}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """One piece per piece of text. MalformedStreamError for a chunk that addresses no part."""
        writer = _Writer()
        return Pieces(chunks, writer.encode, writer.end, bounded=False)

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """Nothing, for plain text has no way to say how it ended."""
        return b""


class _Writer:
    def __init__(self) -> None:
        self._parts = PartTypes()
        self._held = ""  # the first half of a surrogate pair whose other half may come next

    def encode(self, chunk: AssistantStreamChunk) -> bytes:
        if isinstance(chunk, PartStart):
            self._parts.start(chunk, chunk.part)
        elif isinstance(chunk, TextDelta) and isinstance(self._parts.of(chunk), TextPart) and chunk.text_delta:
            text, self._held = concat(self._held, chunk.text_delta), ""
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._held = text[:-1], text[-1]
            return _utf8(text)
        return b""

    def end(self) -> bytes:
        return _utf8(self._held)


def _utf8(text: str) -> bytes:
    """UTF-8 with U+FFFD for lone surrogates, as JavaScript encodes."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


class PlainTextDecoder:
    """Decodes text into one text part. Bytes that are not UTF-8 become U+FFFD; a byte order mark goes."""

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks of the text in `pieces`, whose boundaries do not matter."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        output = Output()
        for piece in pieces:
            text = decoder.decode(piece)
            if text:
                output.builder.append_text(text)
                yield from output.take()
        text = decoder.decode(b"", True)
        if text:
            output.builder.append_text(text)
        output.builder.finish()
        yield from output.take()


FORMAT = Format("plain-text", PlainTextEncoder, PlainTextDecoder, closes=False)
