"""What a callback writes an assistant's message with."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from ..errors import MalformedStreamError, StreamFinalizedError
from .chunk_queue import ChunkQueue
from .message.chunks import AssistantStreamChunk, PartStart, StateOperation, UpdateState
from .message.jsontext import JsonValue, join_surrogates, jsonable, stringify
from .message.parts import (
    UNSET,
    DataPart,
    FilePart,
    Part,
    ReasoningPart,
    SourcePart,
    TextPart,
    ToolCallPart,
    Unset,
)
from .message.state import StateProxy, apply_operation


class TextPartController:
    """Writes one text or reasoning part, or the arguments of a tool call. Thread-safe.

    Blocks and raises as the controller does. Leaving its `with` block closes it.
    """

    def __init__(self, queue: ChunkQueue, index: int, *, args: bool = False) -> None:
        self._queue = queue
        self._index = index
        self._args = args

    def append(self, text: str) -> None:
        """Add text. StreamFinalizedError once this was closed."""
        text = _text(text)
        with self._queue as builder:
            (builder.append_args if self._args else builder.append)(self._index, text)

    def close(self) -> None:
        """Nothing more comes. Idempotent."""
        try:
            with self._queue as builder:
                (builder.close_args if self._args else builder.close_part)(self._index)
        except StreamFinalizedError:  # the end of the stream has closed it
            return

    def __enter__(self) -> TextPartController:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # otherwise the end of the stream closes it, after the error
            self.close()


class ToolCallPartController:
    """Writes one tool call: its arguments through `args_text`, then its response. Thread-safe.

    Blocks and raises as the controller does. Leaving its `with` block closes it.
    """

    def __init__(self, queue: ChunkQueue, index: int, tool_call_id: str) -> None:
        self._queue = queue
        self._index = index
        self.tool_call_id = tool_call_id
        """The id given, or the one made up."""
        self.args_text = TextPartController(queue, index, args=True)
        """Where the arguments' JSON text goes. No text at all counts as `{}`."""

    def set_response(
        self,
        result: object = UNSET,
        is_error: bool = False,
        artifact: object = None,
        model_content: object = None,
        messages: object = None,
    ) -> None:
        """Answer the call and close the part; without a `result` it is "<no result>", while None is null.

        `artifact`, `model_content` and `messages` are left out where they are None. Ignored once the part is
        closed. TypeError for what JSON cannot hold.
        """
        response = _response(result, is_error, artifact, model_content, messages)
        try:
            with self._queue as builder:
                builder.respond(self._index, **response)
        except StreamFinalizedError:  # the end of the stream has closed it
            return

    def close(self) -> None:
        """End the part, answered or not. Idempotent."""
        try:
            with self._queue as builder:
                builder.close_part(self._index)
        except StreamFinalizedError:  # the end of the stream has closed it
            return

    def __enter__(self) -> ToolCallPartController:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()


class AssistantStreamController:
    """Writes the chunks of one message. `create_assistant_stream` makes it and passes it to the callback.

    Thread-safe: each call is atomic, and the chunks of all threads come out in the order of the calls. A call
    blocks while the consumer lags by more than the queue's bound. It raises StreamCancelledError once
    the consumer has gone, and StreamFinalizedError once the stream, or the part that is written to, was
    closed. JSON values are copied, so they may be changed afterwards; TypeError for what JSON cannot hold.
    """

    def __init__(self, queue: ChunkQueue, parent_id: str | None = None) -> None:
        self._queue = queue
        self._parent_id = parent_id

    def append_text(self, text: str) -> None:
        """Add text to the open text part, or open one; the next part of any kind ends it."""
        text = _text(text)
        with self._queue as builder:
            builder.append_text(text, self._parent_id)

    def append_reasoning(self, text: str, unstable_summary: str | None = None) -> None:
        """Add text to the open reasoning part, or open one; a summary always opens one of its own."""
        text = _text(text)
        with self._queue as builder:
            builder.append_reasoning(text, self._parent_id, unstable_summary)

    def append_source(
        self,
        source: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        url: str | None = None,
        title: str | None = None,
        source_type: str = "url",
    ) -> None:
        """Add a citation, given by keywords or as a mapping in the JavaScript shape."""
        if source is None:
            source = _without_none(sourceType=source_type, id=id, url=url, title=title)
        self._add_whole(SourcePart, source)

    def append_file(
        self, file: Mapping[str, Any] | None = None, *, data: str | None = None, mime_type: str | None = None
    ) -> None:
        """Add a file, given by keywords or as a mapping in the JavaScript shape."""
        self._add_whole(FilePart, _without_none(data=data, mimeType=mime_type) if file is None else file)

    def append_data(
        self, part: Mapping[str, Any] | None = None, *, name: str | None = None, data: object = None
    ) -> None:
        """Add a named data part, given by keywords or as a mapping in the JavaScript shape."""
        self._add_whole(DataPart, {"name": name, "data": data} if part is None else part)

    def _add_whole(self, kind: type[Part], given: Mapping[str, Any]) -> None:
        fields: Any = jsonable(given)
        parent = {"parentId": self._parent_id} if self._parent_id else {}
        part = Part.from_json(
            {**fields, "type": kind.type, **parent}
            if "type" in fields
            else {"type": kind.type, **fields, **parent}
        )
        if not isinstance(part, kind):
            raise ValueError(f"not a {kind.type} part: {given!r:.200}")
        with self._queue as builder:
            builder.close_part(builder.start(part))

    def add_text_part(self) -> TextPartController:
        """Open a text part of its own."""
        return TextPartController(self._queue, self._start(TextPart(parent_id=self._parent_id or None)))

    def add_reasoning_part(self, unstable_summary: str | None = None) -> TextPartController:
        """Open a reasoning part of its own."""
        part = ReasoningPart(parent_id=self._parent_id or None, unstable_summary=unstable_summary)
        return TextPartController(self._queue, self._start(part))

    def _start(self, part: Part) -> int:
        with self._queue as builder:
            return builder.start(part)

    def add_tool_call_part(
        self,
        tool: str | Mapping[str, Any] | None = None,
        *,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        args_text: str | None = None,
        args: Mapping[str, object] | None = None,
        response: Mapping[str, Any] | None = None,
    ) -> ToolCallPartController:
        """Open a tool call: by name, by keywords, or as a mapping in the JavaScript shape.

        An id is made up where none is given; ids must differ within a message. `args` or `args_text` are
        complete arguments. `response` has the keys result, isError, artifact, modelContent and messages, and
        closes the part.
        """
        if isinstance(tool, str):
            tool_name = tool
        elif tool is not None:
            tool_name, tool_call_id = tool.get("toolName", tool_name), tool.get("toolCallId", tool_call_id)
            args_text, args = tool.get("argsText", args_text), tool.get("args", args)
            response = tool.get("response", response)
        if not isinstance(tool_name, str) or (args is not None and args_text is not None):
            raise ValueError("a tool call needs a name, and args or args_text, not both")
        tool_call_id = _text(f"call_{secrets.token_hex(8)}" if tool_call_id is None else tool_call_id)
        text = stringify(jsonable(args)) if args is not None else args_text
        answer = (
            None
            if response is None
            else _response(
                response.get("result", UNSET),
                bool(response.get("isError", False)),
                response.get("artifact"),
                response.get("modelContent"),
                response.get("messages"),
            )
        )
        parent_id = self._parent_id or None
        part = ToolCallPart(tool_name=_text(tool_name), tool_call_id=tool_call_id, parent_id=parent_id)
        with self._queue as builder:
            index = builder.start(part)
            if text is not None:
                builder.append_args(index, _text(text))
                builder.close_args(index)
            if answer is not None:
                builder.respond(index, **answer)
        return ToolCallPartController(self._queue, index, tool_call_id)

    def enqueue(self, chunk: AssistantStreamChunk | Mapping[str, Any]) -> None:
        """Send a chunk as it is, or one in the JavaScript shape. MalformedStreamError if it is none.

        A part that is opened so does not end the open text, and is closed at the end if nothing else does.
        """
        if not isinstance(chunk, AssistantStreamChunk):
            chunk = AssistantStreamChunk.from_json(chunk)
        with self._queue as builder:
            builder.enqueue(chunk)
            self._note_state(chunk)

    def merge(self, chunks: Iterable[AssistantStreamChunk]) -> None:
        """Send all chunks of another stream, its parts after those that exist; returns when it has ended.

        Call it in a thread of its own to write beside it. What `chunks` raises passes through; it is closed
        in any case.
        """
        places: list[int] = []
        try:
            for chunk in chunks:
                if chunk.path:
                    if chunk.path[0] >= len(places):
                        raise MalformedStreamError(f"no part at path {list(chunk.path)} of the merged stream")
                    chunk = chunk.with_path((places[chunk.path[0]], *chunk.path[1:]))
                with self._queue as builder:
                    index = builder.enqueue(chunk)
                    self._note_state(chunk)
                if isinstance(chunk, PartStart):
                    places.append(index)
        finally:
            close: Callable[[], object] | None = getattr(chunks, "close", None)
            if close is not None:
                close()

    def with_parent_id(self, parent_id: str) -> AssistantStreamController:
        """A controller of the same stream whose parts carry this parent id."""
        return AssistantStreamController(self._queue, _text(parent_id))

    def close(self) -> None:
        """Close every open part and end the stream; the callback may go on without it. Idempotent."""
        self._queue.finish()

    @property
    def state(self) -> Any:
        """The state that accompanies the message: a StateProxy, or the plain value if it is no object or array."""
        state = self._queue.state
        return StateProxy(self) if state is None or isinstance(state, (dict, list)) else state

    @state.setter
    def state(self, value: object) -> None:
        if not (isinstance(value, StateProxy) and value.is_root_of(self)):
            StateProxy(self).replace(value)

    def read_state(self) -> JsonValue:
        """The state as plain JSON values, to be read only. Never blocks."""
        return self._queue.state

    def update_state(self, change: Callable[[JsonValue], list[StateOperation]]) -> None:
        """Apply and send, as one chunk, the operations that a pure function makes of the state.

        It runs under the stream's lock. MalformedStreamError if one cannot be applied; nothing is sent then.
        """
        with self._queue as builder:
            state = self._queue.state
            operations = tuple(change(state))
            for operation in operations:
                state = apply_operation(state, operation)
            if operations:
                builder.enqueue(UpdateState(operations=operations))
                self._queue.state = state

    def _note_state(self, chunk: AssistantStreamChunk) -> None:
        """Follow what somebody else's operations do to the state. Called under the queue's lock."""
        if isinstance(chunk, UpdateState):
            for operation in chunk.operations:
                try:
                    self._queue.state = apply_operation(self._queue.state, operation)
                except MalformedStreamError:
                    return  # readers will find the same; the chunk is passed on as it came


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return join_surrogates(value)


def _without_none(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _response(
    result: object, is_error: bool, artifact: object, model_content: object, messages: object
) -> dict[str, Any]:
    optional = {"artifact": artifact, "model_content": model_content, "messages": messages}
    return {
        "result": result if isinstance(result, Unset) else jsonable(result),
        "is_error": is_error,
        **{name: UNSET if value is None else jsonable(value) for name, value in optional.items()},
    }
