"""The AI SDK's UI message stream: server-sent events of its own chunk types.

What AI SDK 5, 6 and 7 do not all know is sent only where the application uses the feature, for a frame that a
client does not know is fatal there. Lossy: parent ids, annotations, state, artifacts, the usage and reason of
steps, and the model's content of results.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ....sse import HEARTBEAT
from ...message.chunks import AssistantStreamChunk
from ..base import INTERRUPTED_TEXT, Format, Pieces, event_data
from .closing import Stored
from .frames import frame_bytes, present
from .reader import Reader
from .writer import Writer

MESSAGE_KEY = "assistant-message"
"""Where a stream's metadata keeps what the encoder named the message."""


class UIMessageStreamEncoder:
    """Encodes chunks for `useChat` and its like. `message_id` is what the client names the message.

    Give one where clients send by themselves once all tools have answered (`sendAutomaticallyWhen`): with it they
    see that an answer is over that ends with the output of a tool. Steps are written as the AI SDK's own server
    writes them, unless the application writes some. `earlier_calls`: the ids of tool calls that the message holds
    already, from an earlier response; a part that is opened for one only answers it. Holds no state of a stream:
    thread-safe and reusable.
    """

    def __init__(self, message_id: str | None = None, *, earlier_calls: Collection[str] = ()) -> None:
        self.message_id = message_id
        self.earlier_calls = earlier_calls

    heartbeat = HEARTBEAT
    """What keeps a silent connection alive, sent between pieces and never stored."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a response in this format."""
        return {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "x-vercel-ai-ui-message-stream": "v1",
            "x-accel-buffering": "no",
        }

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Pieces:
        """Whole events: `start` at once, then one piece per chunk that has any, `finish` and `[DONE]` last.

        Iterating raises MalformedStreamError for a chunk that addresses no part, or the wrong kind.
        """
        start = {"type": "start", **present(messageId=self.message_id)}
        writer = Writer(start, self.earlier_calls)
        return Pieces(chunks, writer.encode, writer.end, begin=frame_bytes(start))

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = INTERRUPTED_TEXT) -> bytes:
        """What to send after `stored`, all bytes of a stream that ended as `status`, to end the message.

        The ends of open text and reasoning; `error` with `text`, or `abort` for a cancelled stream; the end of
        the step, `finish` with the reason `error`, or `other` for a cancelled stream, `[DONE]`. `useChat` keeps
        what it has and shows the error, or is simply ready again and asks for nothing by itself. A tool call
        whose input was being written stays as it is, so that no client acts on it. Nothing after a stream that
        is `done` or has its `[DONE]`.
        """
        if status == "done":
            return b""
        found = Stored(stored)
        return b"" if found.done else found.closing_frames(status, text, self.message_id)


class UIMessageStreamDecoder:
    """Decodes what UIMessageStreamEncoder or the AI SDK writes, as the JavaScript decoder of it does.

    Blocks of text and reasoning are told apart by their ids; a tool call appears once its input is complete,
    or at the end; `start` and a `start-step` after it are one step; `abort` is an end for the reason `other`.
    `strict`: MalformedStreamError for an end without `[DONE]` and for events with a name; otherwise a warning
    in the log. Unknown chunks are ignored, broken ones dropped with a warning. MalformedStreamError, however
    strict, for an event of more than 16 MiB (2**24 UTF-16 code units).
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        """Yield the chunks in `pieces`, whose boundaries do not matter."""
        reader = Reader()
        for data in event_data(pieces, self._strict):
            yield from reader.read(data)
        yield from reader.end()


def _keep(encoder: UIMessageStreamEncoder) -> Mapping[str, str]:
    return {} if encoder.message_id is None else {MESSAGE_KEY: encoder.message_id}


def _restore(metadata: Mapping[str, str]) -> UIMessageStreamEncoder:
    # All viewers of a stream that ended before it began must be told the same name.
    return UIMessageStreamEncoder(metadata.get(MESSAGE_KEY))


FORMAT = Format(
    "ui-message-stream",
    UIMessageStreamEncoder,
    lambda: UIMessageStreamDecoder(strict=False),
    keep=_keep,
    restore=_restore,
    exposed=("x-vercel-ai-ui-message-stream",),
    front_end="chat",
)
