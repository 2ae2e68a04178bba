"""Assistant streams: what a callback writes, the formats it travels in, and the message it becomes.

The words: a **chunk** here is one step of a message, an `AssistantStreamChunk` (in the rest of the library a
chunk is the bytes of one append); a **part** is a piece of the message's content, such as a text or a tool call,
which chunks open, fill and close; **pieces** are bytes: those that an encoder makes of chunks, whole frames at a
time, or any cuts of them that a decoder is fed.

**What each client reads.** AI SDK clients end a message with an error at a frame, or a field, that their version
does not know. So what not all know is written only where the application uses it. Versions of npm `ai`, as tested;
"5" is 5.0.277, "6" 6.0.326, "7" 7.0.173:

    what                                        frame, field                              read by
    text, reasoning, tools, sources, files      all others                                5.0.0 on
    why a message ended                         finish: finishReason                      5.0.110 on
    title of a tool call                        title                                     5, 6.0.0, 7.0.0
    metadata of a tool call                     toolMetadata, its providerMetadata        5, 6, 7.0.0
    why an answer was stopped                   abort: reason                             5, 6, 7.0.0
    citations; input as text                    text-end: citations; inputEncoding        5, 6, 7
    approval asked for; denied                  tool-approval-request, tool-output-denied 6.0.0, 7.0.0
    its automatic decision, signature           isAutomatic, signature                    6, 7.0.0
    its reason, descriptor, schema              reason, approvalDescriptor, …             6, 7
    approval answered by the server             tool-approval-response                    7.0.0
    files of the reasoning, custom parts        reasoning-file, custom                    7.0.0
    step taken back, message in between         reset-step, steering-message              7

npm `assistant-stream` reads approvals, preliminary results, provider metadata, documents, and errors with a code
or a severity from 0.3.57 on; 0.3.44 drops them. `tests/assistant/formats/coverage.json` has every field.
"""

from .controller import AssistantStreamController, TextPartController, ToolCallPartController
from .formats.ag_ui import AGUIDecoder, AGUIEncoder
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
from .stream import AssistantStream, create_assistant_stream, create_assistant_stream_controller

__all__ = [
    "AGUIDecoder",
    "AGUIEncoder",
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
    "create_assistant_stream_controller",
    "create_resumable_assistant_stream_response",
    "create_resume_assistant_stream_response",
    "read_assistant_message",
    "read_ui_message",
]
