"""Assistant streams: what a callback writes, the formats it travels in, and the message it becomes."""

from .accumulator import AssistantMessage, AssistantMessageAccumulator
from .blueprint import assistant_blueprint
from .chunks import AssistantStreamChunk
from .controller import AssistantStreamController, TextPartController, ToolCallPartController
from .data_stream import DataStreamDecoder, DataStreamEncoder
from .endpoints import AssistantEndpoints, ChatRequest
from .pieces import AssistantStreamEncoder, Pieces
from .plain_text import PlainTextDecoder, PlainTextEncoder
from .response import (
    REPLAY_CONTENT_LENGTH_HEADER,
    RESUMABLE_STREAM_ID_HEADER,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
)
from .state import StateProxy
from .stored import read_assistant_message
from .stream import AssistantStream, create_assistant_stream
from .transport import AssistantTransportDecoder, AssistantTransportEncoder
from .ui_message import UIMessageStreamEncoder
from .ui_message_decoder import UIMessageStreamDecoder

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
    "UIMessageStreamDecoder",
    "UIMessageStreamEncoder",
    "assistant_blueprint",
    "create_assistant_stream",
    "create_resumable_assistant_stream_response",
    "create_resume_assistant_stream_response",
    "read_assistant_message",
]
