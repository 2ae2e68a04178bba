"""The message in a stored stream, for an application that keeps it when the stream is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..context import ResumableStreamContext
from ..contract import Status, StreamInfo
from ..errors import MalformedStreamError, StreamNotFoundError
from ..logs import about
from .continued import kept_message
from .error_text import DEFAULT_ERROR_TEXT
from .formats import ui_message
from .formats.base import INTERRUPTED_TEXT, Decoder, event_data
from .formats.registry import DEFAULT, FORMAT_KEY, FORMATS, encoder_of
from .message.accumulator import AssistantMessage, AssistantMessageAccumulator
from .message.jsontext import parse_json
from .message.ui_message import UIMessageAccumulator
from .stored import stored_pieces

logger = logging.getLogger("resumable_sync")


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
    info = _info(context, stream_id)
    make_decoder = _decoder(info, decoder)
    accumulator = AssistantMessageAccumulator(strict=False)
    for chunk in make_decoder().decode(_pieces(context, info)):
        accumulator.add(chunk)
    return accumulator.finish() if info.status.ended else accumulator.message


def read_ui_message(
    context: ResumableStreamContext,
    stream_id: str,
    message: Mapping[str, Any] | None = None,
    *,
    decoder: Callable[[], Decoder] | None = None,
) -> dict[str, Any]:
    """The message that a stream holds as the AI SDK's `useChat` holds it: `{id, role, parts, metadata}`.

    What `readUIMessageStream` builds of it, but for what `validateUIMessages` would refuse there: a tool call
    that was answered has its broken arguments as a text, and no approval that nobody gave. `metadata` is there
    where some was set. A stream of the endpoints that goes on with an earlier message (a tool or an approval was
    answered) gives that message as a whole, as the client sent it; give `message` where another stream goes on
    with one. Streams in other formats are read as if they were written in the AI SDK's; a message without a name
    has the stream's id. A stream that was cancelled or interrupted gives what its viewers have after its closing
    frames, and one that runs what they have so far.

    Reads what is stored and does not wait for more. Raises as `read_assistant_message`. Thread-safe.
    """
    return read_ui(context, _info(context, stream_id), decoder, message).saved


def read_ui(
    context: ResumableStreamContext,
    info: StreamInfo,
    decoder: Callable[[], Decoder] | None = None,
    message: Mapping[str, Any] | None = None,
) -> UIMessageAccumulator:
    """What useChat's reader has read of a stream; its message is named. Raises as `read_ui_message`."""
    accumulator = UIMessageAccumulator(
        kept_message(context.store, info.stream_id, info.metadata) if message is None else message
    )
    pieces: Iterable[bytes] = _pieces(context, info)
    if decoder is not None or FORMATS.get(info.metadata.get(FORMAT_KEY, DEFAULT.name)) is not ui_message.FORMAT:
        pieces = ui_message.UIMessageStreamEncoder().encode(_decoder(info, decoder)().decode(pieces))
    for data in event_data(pieces, False):
        try:
            frame = parse_json(data)
            if isinstance(frame, Mapping):
                accumulator.add(frame)
        except (ValueError, MalformedStreamError) as error:  # the client reads no further either
            extra = about("unreadable", info.stream_id, info.generation)
            logger.warning("stream %s holds what no client reads: %s", info.stream_id, error, extra=extra)
            break
    if not accumulator.message["id"]:
        accumulator.message["id"] = info.stream_id
    return accumulator


def _info(context: ResumableStreamContext, stream_id: str) -> StreamInfo:
    info = context.info(stream_id)
    if info is None:
        raise StreamNotFoundError(f"there is no stream {stream_id}")
    return info


def _decoder(info: StreamInfo, given: Callable[[], Decoder] | None) -> Callable[[], Decoder]:
    format = FORMATS.get(info.metadata.get(FORMAT_KEY, DEFAULT.name))
    make_decoder = given or (None if format is None else format.decoder)
    if make_decoder is None:
        raise MalformedStreamError(f"stream {info.stream_id} is in a format that needs a decoder of its own")
    return make_decoder


def _pieces(context: ResumableStreamContext, info: StreamInfo) -> Iterator[bytes]:
    """What is stored, and what its viewers are sent after it."""
    encoder = encoder_of(info.metadata) if info.status.ended else None
    text = DEFAULT_ERROR_TEXT if info.status is Status.ERROR else INTERRUPTED_TEXT
    read: list[bytes] = []
    for piece in stored_pieces(context.store, info.stream_id, info.generation):
        read.append(piece)
        yield piece
    if encoder is not None:
        yield encoder.closing_frames(read, info.status.value, text)
