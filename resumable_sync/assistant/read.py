"""The message in a stored stream, for an application that keeps it when the stream is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..context import ResumableStreamContext
from ..contract import Status, Store
from ..errors import MalformedStreamError, StreamNotFoundError
from .error_text import DEFAULT_ERROR_TEXT
from .formats.base import INTERRUPTED_TEXT, Decoder
from .formats.registry import DEFAULT, FORMAT_KEY, FORMATS, encoder_of
from .message.accumulator import AssistantMessage, AssistantMessageAccumulator


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
    format = FORMATS.get(info.metadata.get(FORMAT_KEY, DEFAULT.name))
    make_decoder = decoder or (None if format is None else format.decoder)
    if make_decoder is None:
        raise MalformedStreamError(f"stream {stream_id} is in a format that needs a decoder of its own")
    encoder = encoder_of(info.metadata) if info.status.ended else None
    text = DEFAULT_ERROR_TEXT if info.status is Status.ERROR else INTERRUPTED_TEXT

    def pieces() -> Iterator[bytes]:
        read: list[bytes] = []
        for piece in stored_pieces(context.store, stream_id, info.generation):
            read.append(piece)
            yield piece
        if encoder is not None:
            yield encoder.closing_frames(read, info.status.value, text)

    accumulator = AssistantMessageAccumulator(strict=False)
    for chunk in make_decoder().decode(pieces()):
        accumulator.add(chunk)
    return accumulator.finish() if info.status.ended else accumulator.message


def stored_pieces(store: Store, stream_id: str, generation: int) -> Iterator[bytes]:
    """The bytes of a stream from its start, as far as they were stored when the reading began. Does not wait."""
    offset, end = 0, None
    while end is None or offset < end:
        batch = store.read(stream_id, f"{generation}-{offset}")
        offset, end = batch.offset, batch.size if end is None else end
        yield batch.data
