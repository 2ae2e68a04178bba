"""Assistant streams: what a callback writes, the formats it travels in, and the message it becomes."""

from .accumulator import AssistantMessage, AssistantMessageAccumulator
from .chunks import AssistantStreamChunk
from .controller import AssistantStreamController, TextPartController, ToolCallPartController
from .data_stream import DataStreamDecoder, DataStreamEncoder
from .pieces import AssistantStreamEncoder, Pieces
from .plain_text import PlainTextDecoder, PlainTextEncoder
from .state import StateProxy
from .stream import AssistantStream, create_assistant_stream
from .transport import AssistantTransportDecoder, AssistantTransportEncoder
from .ui_message import UIMessageStreamEncoder
from .ui_message_decoder import UIMessageStreamDecoder

__all__ = [
    "AssistantMessage",
    "AssistantMessageAccumulator",
    "AssistantStream",
    "AssistantStreamChunk",
    "AssistantStreamController",
    "AssistantStreamEncoder",
    "AssistantTransportDecoder",
    "AssistantTransportEncoder",
    "DataStreamDecoder",
    "DataStreamEncoder",
    "Pieces",
    "PlainTextDecoder",
    "PlainTextEncoder",
    "StateProxy",
    "TextPartController",
    "ToolCallPartController",
    "UIMessageStreamDecoder",
    "UIMessageStreamEncoder",
    "create_assistant_stream",
]
