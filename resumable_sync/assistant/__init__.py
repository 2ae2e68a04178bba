"""Assistant streams: what a callback writes, the formats it travels in, and the message it becomes.

The words: a **chunk** here is one step of a message, an `AssistantStreamChunk` (in the rest of the library a
chunk is the bytes of one append); a **part** is a piece of the message's content, such as a text or a tool call,
which chunks open, fill and close; **pieces** are bytes: those that an encoder makes of chunks, whole frames at a
time, or any cuts of them that a decoder is fed.
"""

from .controller import AssistantStreamController, TextPartController, ToolCallPartController
from .formats.base import AssistantStreamEncoder, Pieces
from .formats.data_stream import DataStreamDecoder, DataStreamEncoder
from .formats.plain_text import PlainTextDecoder, PlainTextEncoder
from .formats.transport import AssistantTransportDecoder, AssistantTransportEncoder
from .formats.ui_message import UIMessageStreamDecoder, UIMessageStreamEncoder
from .http.chat import ChatRequest
from .http.endpoints import AssistantEndpoints
from .http.flask import assistant_blueprint
from .http.responses import (
    REPLAY_CONTENT_LENGTH_HEADER,
    RESUMABLE_STREAM_ID_HEADER,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
)
from .message.accumulator import AssistantMessage, AssistantMessageAccumulator
from .message.chunks import AssistantStreamChunk
from .message.response import ToolResponse
from .message.state import StateProxy
from .read import read_assistant_message, read_ui_message
from .stream import AssistantStream, create_assistant_stream

__all__ = [
    "AssistantEndpoints",
    "AssistantMessage",
    "AssistantMessageAccumulator",
    "AssistantStream",
    "AssistantStreamChunk",
    "AssistantStreamController",
    "AssistantStreamEncoder",
    "AssistantTransportDecoder",
    "AssistantTransportEncoder",
    "ChatRequest",
    "DataStreamDecoder",
    "DataStreamEncoder",
    "Pieces",
    "PlainTextDecoder",
    "PlainTextEncoder",
    "REPLAY_CONTENT_LENGTH_HEADER",
    "RESUMABLE_STREAM_ID_HEADER",
    "StateProxy",
    "TextPartController",
    "ToolCallPartController",
    "ToolResponse",
    "UIMessageStreamDecoder",
    "UIMessageStreamEncoder",
    "assistant_blueprint",
    "create_assistant_stream",
    "create_resumable_assistant_stream_response",
    "create_resume_assistant_stream_response",
    "read_assistant_message",
    "read_ui_message",
]
