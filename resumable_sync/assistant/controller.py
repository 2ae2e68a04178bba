"""What a callback writes an assistant's message with."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..errors import MalformedStreamError, StreamFinalizedError
from .chunk_queue import ChunkQueue, WriteEnd
from .error_text import ErrorFormatter, error_text
from .message.builder import ChunkBuilder
from .message.chunks import (
    AssistantStreamChunk,
    Error,
    MessageFinish,
    PartStart,
    StateOperation,
    UIFrame,
    UpdateState,
    is_approval,
)
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
)
from .message.response import ToolResponse, metadata_of
from .message.state import StateProxy, apply_operation


class TextPartController:
    """Writes one text or reasoning part, or the arguments of a tool call. Thread-safe.

    Blocks and raises as the controller does. Leaving its `with` block closes it.
    """

    def __init__(self, queue: ChunkQueue | WriteEnd, index: int, *, args: bool = False) -> None:
        self._queue = queue
        self._index = index
        self._args = args

    def append(self, text: str, provider_metadata: Mapping[str, Any] | None = None) -> None:
        """Add text. StreamFinalizedError once this was closed.

        Provider metadata replaces what the part has; the arguments of a tool call have none.
        """
        text, metadata = _text(text), metadata_of(provider_metadata)
        with self._queue.room(), self._queue as builder:
            if self._args:
                builder.append_args(self._index, text)
            else:
                builder.append(self._index, text, metadata)

    def close(self, provider_metadata: Mapping[str, Any] | None = None) -> None:
        """Nothing more comes, but for provider metadata, which replaces what the part has. Idempotent."""
        metadata = metadata_of(provider_metadata)
        try:
            with self._queue.room(), self._queue as builder:
                if self._args:
                    builder.close_args(self._index)
                else:
                    builder.close_part(self._index, metadata)
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

    def __init__(self, queue: ChunkQueue | WriteEnd, index: int, tool_call_id: str) -> None:
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
        is_preliminary: bool = False,
        provider_executed: bool | None = None,
        provider_metadata: Mapping[str, Any] | None = None,
        tool_metadata: Mapping[str, Any] | None = None,
        dynamic: bool | None = None,
    ) -> None:
        """Answer the call and close the part; without a `result` it is "<no result>", while None is null.

        The fields are those of ToolResponse; one of these as the `result` is taken instead of all of them. A
        preliminary answer closes the arguments and leaves the call unanswered; the next one replaces it. Ignored
        once the part is closed. TypeError for what JSON cannot hold.
        """
        response = (
            result
            if isinstance(result, ToolResponse)
            else ToolResponse(
                result,
                is_error,
                artifact,
                model_content,
                messages,
                is_preliminary,
                provider_executed,
                provider_metadata,
                tool_metadata,
                dynamic,
            )
        )
        chunk = response.to_chunk()
        self._write(lambda builder: builder.respond(self._index, chunk))

    def set_approval(
        self,
        approval: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        approved: bool | None = None,
        reason: str | None = None,
        **more: object,
    ) -> None:
        """Ask whether the call may run (`approved` is left out), or say what was decided.

        Given by keywords, or as a mapping in the JavaScript shape; `more` are keys of that shape, such as
        `prompt` and `requestReason`. The `id` names the approval. A newer one replaces an older; ignored once
        the part is closed. ValueError without an id, or if `approved` is neither true nor false; TypeError for
        what JSON cannot hold.
        """
        if approval is None:
            approval = _without_none(id=id, approved=approved, reason=reason, **more)
        copied: Any = jsonable(approval)
        if not is_approval(copied):
            raise ValueError(f"an approval needs an id, and `approved` is true or false: {approval!r:.200}")
        self._write(lambda builder: builder.approve(self._index, copied))

    def close(self) -> None:
        """End the part, answered or not. Idempotent."""
        self._write(lambda builder: builder.close_part(self._index))

    def _write(self, write: Callable[[ChunkBuilder], None]) -> None:
        try:
            with self._queue.room(), self._queue as builder:
                write(builder)
        except StreamFinalizedError:  # the end of the stream has closed the part
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

    def __init__(
        self,
        queue: ChunkQueue | WriteEnd,
        parent_id: str | None = None,
        *,
        format_error: ErrorFormatter | None = None,
    ) -> None:
        self._queue = queue
        self._parent_id = parent_id
        self._format_error = format_error

    def __enter__(self) -> AssistantStreamController:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stream; an exception that passes becomes an `error` chunk, and open tool calls stay cut off."""
        if error is None:
            self.close()
        else:
            self._queue.finish([Error(error=error_text(error, self._format_error))], cut_off=True)

    def append_text(self, text: str) -> None:
        """Add text to the open text part, or open one; the next part of any kind ends it."""
        text = _text(text)
        with self._queue.room(), self._queue as builder:
            builder.append_text(text, self._parent_id)

    def append_reasoning(
        self,
        text: str,
        unstable_summary: str | None = None,
        provider_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Add text to the open reasoning part, or open one; a summary or metadata always opens one of its own."""
        text, metadata = _text(text), metadata_of(provider_metadata)
        with self._queue.room(), self._queue as builder:
            builder.append_reasoning(text, self._parent_id, unstable_summary, metadata)

    def append_source(
        self,
        source: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        url: str | None = None,
        title: str | None = None,
        source_type: str = "url",
        media_type: str | None = None,
        filename: str | None = None,
        provider_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a citation, given by keywords or as a mapping in the JavaScript shape.

        One of the type "url" needs an `url`, one of the type "document" a `title` and a `media_type`.
        """
        if source is None:
            source = _without_none(
                sourceType=source_type,
                id=id,
                url=url,
                title=title,
                mediaType=media_type,
                filename=filename,
                providerMetadata=metadata_of(provider_metadata),
            )
        self._add_whole(SourcePart, source)

    def append_file(
        self,
        file: Mapping[str, Any] | None = None,
        *,
        data: str | None = None,
        mime_type: str | None = None,
        provider_metadata: Mapping[str, Any] | None = None,
        reasoning: bool = False,
    ) -> None:
        """Add a file, given by keywords or as a mapping in the JavaScript shape.

        With `reasoning` it belongs to the model's thinking, which the AI SDK's format alone can say, from
        version 7 on: the other formats leave it out.
        """
        if file is None:
            metadata = metadata_of(provider_metadata)
            file = _without_none(data=data, mimeType=mime_type, providerMetadata=metadata)
        if not reasoning:
            self._add_whole(FilePart, file)
            return
        part: Any = _part_of(FilePart, file, None)
        metadata = {} if part.provider_metadata is None else {"providerMetadata": part.provider_metadata}
        self._add_frame({"type": "reasoning-file", "url": part.data, "mediaType": part.mime_type, **metadata})

    def append_data(
        self,
        part: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        data: object = None,
        id: str | None = None,
        transient: bool | None = None,
    ) -> None:
        """Add a named data part, given by keywords or as a mapping in the JavaScript shape.

        In a UIMessage the newer of one name and `id` takes the place of the older, and one that is `transient`
        is shown, but kept in no message.
        """
        if part is None:
            part = {"name": name, "data": data, **_without_none(id=id, transient=transient)}
        self._add_whole(DataPart, part)

    def append_custom(self, kind: str, provider_metadata: Mapping[str, Any] | None = None) -> None:
        """Add a provider's own part. The AI SDK's format alone has it, from version 7 on."""
        metadata = _without_none(providerMetadata=metadata_of(provider_metadata))
        self._add_frame({"type": "custom", "kind": _text(kind), **metadata})

    def append_tool_result(self, tool_call_id: str, result: object = UNSET, is_error: bool = False) -> None:
        """Answer a tool call by its id: one of an earlier response, such as one that the user has approved since.

        A call of this message is answered as `set_response` does it, also where its part was closed without an
        answer; ignored if it has one. `result` may be a ToolResponse. The client of the AI SDK finds a call of an
        earlier response by its id and goes on with it.
        """
        response = ToolResponse(result, is_error) if not isinstance(result, ToolResponse) else result
        self.reopen_tool_call(tool_call_id).set_response(response)

    def reopen_tool_call(self, tool_call_id: str) -> ToolCallPartController:
        """A writer of a tool call by its id, for its approval and its answers: of an earlier response, or of this.

        Of a call of this message that was closed without an answer too.
        """
        part = ToolCallPart(tool_name="", tool_call_id=_text(tool_call_id), parent_id=self._parent_id or None)
        with self._queue.room(), self._queue as builder:
            index = builder.reopen(part)
        return ToolCallPartController(self._queue, index, part.tool_call_id)

    def set_message_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Merge `metadata` into the message's own, at any time, object by object.

        Clients of the AI SDK find it as the message's `metadata`, those that read an AssistantMessage under
        `custom` there. Only the AI SDK's format carries it.
        """
        frame: Any = {"type": "message-metadata", "messageMetadata": metadata_of(metadata)}
        with self._queue.room(), self._queue as builder:
            builder.enqueue(UIFrame(frame=frame))

    def _add_frame(self, frame: Mapping[str, Any]) -> None:
        with self._queue.room(), self._queue as builder:
            builder.end_implicit()
            builder.enqueue(UIFrame(frame=frame))

    def set_finish(self, finish_reason: str, usage: Mapping[str, Any] | None = None) -> None:
        """Why the message ends, and what it has used, told at its end: the latest reason counts, numbers add up.

        Nothing is told where it ends by an exception or `abort`, or where the reason is "tool-calls" and all
        calls are answered. TypeError for what JSON cannot hold.
        """
        given: Any = None if usage is None else jsonable(usage)
        with self._queue.room(), self._queue:
            before = self._queue.ending
            total = _sum(None if before is None else before.usage, given)
            self._queue.ending = MessageFinish(finish_reason=_text(finish_reason), usage=total)

    def has_tool_call(self, tool_call_id: str) -> bool:
        """Whether the message has a call of this id, which no other call of it may have then."""
        with self._queue.room(), self._queue as builder:
            return builder.has_call(tool_call_id)

    @contextmanager
    def on_cancel(self, callback: Callable[[], object]) -> Iterator[None]:
        """Within the `with` block: call `callback()` once, in another thread, when the reader has gone.

        For breaking a wait, such as that for a model's server: a callback that blocks elsewhere would notice
        only at its next call of this controller. At once, in this thread, if the reader has gone before. It may
        still be called, or run, right after the block. It must not block; what it raises is logged.
        """
        if not self._queue.add_hook(callback):
            callback()
        try:
            yield
        finally:
            self._queue.remove_hook(callback)

    def abort(self, reason: str | None = None) -> None:
        """End the stream as one that was stopped: clients show the message as incomplete, without an error.

        Texts are closed, tool calls that are open stay cut off. The callback may go on without the stream; later
        calls raise StreamFinalizedError. Ignored once the stream has ended. The AI SDK shows the `reason`.
        """
        frame: Any = {"type": "abort", **_without_none(reason=None if reason is None else _text(reason))}
        usage = {"inputTokens": 0, "outputTokens": 0}
        last = MessageFinish(finish_reason="other", usage=usage)
        self._queue.finish([UIFrame(frame=frame)], [last], cut_off=True)

    def _add_whole(self, kind: type[Part], given: Mapping[str, Any]) -> None:
        part = _part_of(kind, given, self._parent_id)
        with self._queue.room(), self._queue as builder:
            builder.close_part(builder.start(part))

    def add_text_part(self, provider_metadata: Mapping[str, Any] | None = None) -> TextPartController:
        """Open a text part of its own."""
        metadata = metadata_of(provider_metadata)
        part = TextPart(parent_id=self._parent_id or None, provider_metadata=metadata)
        return TextPartController(self._queue, self._start(part))

    def add_reasoning_part(
        self, unstable_summary: str | None = None, provider_metadata: Mapping[str, Any] | None = None
    ) -> TextPartController:
        """Open a reasoning part of its own."""
        part = ReasoningPart(
            parent_id=self._parent_id or None,
            unstable_summary=unstable_summary,
            provider_metadata=metadata_of(provider_metadata),
        )
        return TextPartController(self._queue, self._start(part))

    def _start(self, part: Part) -> int:
        with self._queue.room(), self._queue as builder:
            return builder.start(part)

    def add_tool_call_part(
        self,
        tool: str | Mapping[str, Any] | None = None,
        *,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        args_text: str | None = None,
        args: object = None,
        response: ToolResponse | Mapping[str, Any] | None = None,
        provider_executed: bool | None = None,
        dynamic: bool | None = None,
        title: str | None = None,
        provider_metadata: Mapping[str, Any] | None = None,
        tool_metadata: Mapping[str, Any] | None = None,
        input_encoding: str | None = None,
    ) -> ToolCallPartController:
        """Open a tool call: by name, by keywords, or as a mapping in the JavaScript shape.

        An id is made up where none is given; ids must differ within a message. `args` or `args_text` are
        complete arguments. A `response` closes the part, unless it is preliminary; it goes out before the end of
        the arguments, so that no client runs a call that is answered. The rest is for clients of the AI SDK.
        """
        if isinstance(tool, str):
            tool_name = tool
        elif tool is not None:
            given: Any = {
                "toolName": tool_name,
                "toolCallId": tool_call_id,
                "argsText": args_text,
                "args": args,
                "response": response,
                "providerExecuted": provider_executed,
                "dynamic": dynamic,
                "title": title,
                "providerMetadata": provider_metadata,
                "toolMetadata": tool_metadata,
                "inputEncoding": input_encoding,
            }
            given = {key: tool.get(key, default) for key, default in given.items()}
            tool_name, tool_call_id = given["toolName"], given["toolCallId"]
            args_text, args, response = given["argsText"], given["args"], given["response"]
            provider_executed, dynamic, title = given["providerExecuted"], given["dynamic"], given["title"]
            provider_metadata, tool_metadata = given["providerMetadata"], given["toolMetadata"]
            input_encoding = given["inputEncoding"]
        if not isinstance(tool_name, str) or (args is not None and args_text is not None):
            raise ValueError("a tool call needs a name, and args or args_text, not both")
        tool_call_id = _text(f"call_{secrets.token_hex(8)}" if tool_call_id is None else tool_call_id)
        text = stringify(jsonable(args)) if args is not None else args_text
        if isinstance(response, Mapping):
            response = ToolResponse.from_json(response)
        answer = None if response is None else response.to_chunk()
        part = ToolCallPart(
            tool_name=_text(tool_name),
            tool_call_id=tool_call_id,
            parent_id=self._parent_id or None,
            provider_executed=provider_executed,
            dynamic=dynamic,
            title=title,
            provider_metadata=metadata_of(provider_metadata),
            tool_metadata=metadata_of(tool_metadata),
            input_encoding=input_encoding,
        )
        with self._queue.room(), self._queue as builder:
            index = builder.start(part)
            if text is not None:
                builder.append_args(index, _text(text))
            if answer is not None:
                builder.respond(index, answer)
            elif text is not None:
                builder.close_args(index)
        return ToolCallPartController(self._queue, index, tool_call_id)

    def enqueue(self, chunk: AssistantStreamChunk | Mapping[str, Any]) -> None:
        """Send a chunk as it is, or one in the JavaScript shape. MalformedStreamError if it is none.

        A part that is opened so does not end the open text, and is closed at the end if nothing else does.
        """
        if not isinstance(chunk, AssistantStreamChunk):
            chunk = AssistantStreamChunk.from_json(chunk)
        with self._queue.room(), self._queue as builder:
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
                with self._queue.room(), self._queue as builder:
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
        return AssistantStreamController(self._queue, _text(parent_id), format_error=self._format_error)

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
        with self._queue.room(), self._queue as builder:
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


def _sum(old: Any, new: Any) -> Any:
    """Both usages together: what both count is added."""
    if old is None or new is None:
        return new if old is None else old
    shared = {key: old[key] + new[key] for key in old.keys() & new.keys() if _counts(old[key], new[key])}
    return {**old, **new, **shared}


def _counts(*values: object) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _without_none(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _part_of(kind: type[Part], given: Mapping[str, Any], parent_id: str | None) -> Part:
    """The part that a caller describes in the JavaScript shape. ValueError if it is none of this kind."""
    fields: Any = jsonable(given)
    parent = {"parentId": parent_id} if parent_id else {}
    part = Part.from_json(
        {**fields, "type": kind.type, **parent} if "type" in fields else {"type": kind.type, **fields, **parent}
    )
    if not isinstance(part, kind):
        raise ValueError(f"not a {kind.type} part: {given!r:.200}")
    return part
