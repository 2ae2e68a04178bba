"""The message in a stored stream, for an application that keeps it when the stream is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from ..context import ResumableStreamContext
from ..contract import Status, StreamInfo
from ..errors import MalformedStreamError, StreamNotFoundError
from .formats.base import INTERRUPTED_TEXT
from .formats.data_stream import DataStreamDecoder
from .formats.plain_text import PlainTextDecoder
from .formats.transport import AssistantTransportDecoder
from .formats.ui_message_decoder import UIMessageStreamDecoder
from .http.responses import FORMAT_KEY, encoder_of
from .message.accumulator import AssistantMessage, AssistantMessageAccumulator
from .message.chunks import AssistantStreamChunk
from .stream import DEFAULT_ERROR_TEXT


class Decoder(Protocol):
    """What a decoder of any format offers."""

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """The chunks in `pieces`."""


DECODERS: Mapping[str, Callable[[], Decoder]] = {
    "data-stream": lambda: DataStreamDecoder(strict=False),
    "assistant-transport": lambda: AssistantTransportDecoder(strict=False),
    "ui-message-stream": UIMessageStreamDecoder,
    "plain-text": PlainTextDecoder,
}


def read_assistant_message(
    context: ResumableStreamContext, stream_id: str, *, decoder: Callable[[], Decoder] | None = None
) -> AssistantMessage:
    """The message that a stream holds: what its viewers see at its end, or, while it runs, so far.

    For the streams of `create_resumable_assistant_stream_response`, in any format of this package, and for
    those of another format with its `decoder`. A cancelled or interrupted stream gives an incomplete message, as
    its closing frames say. A lossy format gives what it holds. May be called from an `on_finalize` hook.

    Reads what is stored and does not wait for more. Raises StreamNotFoundError if there is no such stream,
    StreamLostError if it goes while it is read, StoreUnavailableError, MalformedStreamError if it holds
    something else. Thread-safe.
    """
    info = context.info(stream_id)
    if info is None:
        raise StreamNotFoundError(f"there is no stream {stream_id}")
    make_decoder = decoder or DECODERS.get(info.metadata.get(FORMAT_KEY, "data-stream"))
    if make_decoder is None:
        raise MalformedStreamError(f"stream {stream_id} is in a format that needs a decoder of its own")
    accumulator = AssistantMessageAccumulator(strict=False)
    for chunk in make_decoder().decode(_stored(context, info)):
        accumulator.add(chunk)
    return accumulator.finish() if info.status.ended else accumulator.message


def _stored(context: ResumableStreamContext, info: StreamInfo) -> Iterator[bytes]:
    """The bytes of the snapshot `info`, and its closing frames."""
    encoder = encoder_of(info, None)
    read: list[bytes] = []
    cursor, left = f"{info.generation}-0", info.size
    while left > 0:
        batch = context.store.read(info.stream_id, cursor)
        data, cursor = batch.data[:left], batch.cursor
        left -= len(data)
        read.append(data)
        yield data
    if info.status.ended and encoder is not None:
        text = DEFAULT_ERROR_TEXT if info.status is Status.ERROR else INTERRUPTED_TEXT
        yield encoder.closing_frames(read, info.status.value, text)
