"""How long a line or an event may be, which is as long as JavaScript clients read."""

from __future__ import annotations

from typing import Any

import pytest

from resumable_sync.assistant import AssistantStreamChunk
from resumable_sync.assistant.formats.base import MAX_UNITS
from resumable_sync.assistant.message.chunks import Data, PartFinish, PartStart, TextDelta
from resumable_sync.assistant.message.parts import TextPart, ToolCallPart
from resumable_sync.errors import MalformedStreamError
from resumable_sync.sse import EventParser, utf16_units

from .programs import DECODERS, ENCODERS, accumulate, cut

FRAMES = {"data-stream": (b'0:"', b'"\n'), "assistant-transport": (b"data: ", b"\n\ndata: [DONE]\n\n")}
framed = pytest.mark.parametrize("name", FRAMES)


def frame(name: str, units: int) -> bytes:
    """A frame of so many units, of characters that are two units and four bytes each."""
    begin, end = FRAMES[name]
    rest = units - len(begin) - end.count(b'"')
    return begin + "\U0001f600".encode() * (rest // 2) + b"x" * (rest % 2) + end


@framed
@pytest.mark.parametrize("strict", [True, False])
def test_a_frame_that_is_too_long_is_refused_before_it_has_ended(name: str, strict: bool) -> None:
    body = frame(name, MAX_UNITS + 1)
    for pieces in (cut(body, 1 << 20), iter([body])):
        with pytest.raises(MalformedStreamError, match="UTF-16"):
            list(DECODERS[name](strict=strict).decode(pieces))


@framed
@pytest.mark.parametrize("whole", [True, False])
def test_what_stands_before_a_frame_that_is_too_long_is_read(name: str, whole: bool) -> None:
    begin, end = FRAMES[name]
    chunk = Data(data=[1])
    first = b"".join(ENCODERS[name]().encode([chunk])).removesuffix(b"data: [DONE]\n\n")
    long = begin + b"x" * MAX_UNITS + end
    chunks = DECODERS[name](strict=False).decode([first + long] if whole else [first, long])
    assert next(chunks) == chunk
    with pytest.raises(MalformedStreamError, match="UTF-16"):
        next(chunks)


@framed
def test_the_longest_frame_is_read(name: str) -> None:
    list(DECODERS[name](strict=False).decode(cut(frame(name, MAX_UNITS), 1 << 20)))


def test_the_data_of_an_event_may_come_in_lines() -> None:
    parser = EventParser(10)
    assert [event.data for event in parser.feed(b"data: abc\ndata:a\n\ndata: abc\ndata:a\n\n")] == ["abc\na"] * 2
    with pytest.raises(ValueError, match="event"):
        parser.feed(b"data: abc\ndata: abc\ndata: abc\n\n")
    with pytest.raises(ValueError, match="line"):
        EventParser(10).feed(b": comment comment\n")
    assert utf16_units("a\U0001f600\ud83d") == 4


@framed
@pytest.mark.parametrize("char", ["x", "\0", "\U0001f600"])
@pytest.mark.parametrize("part", [TextPart(), ToolCallPart(tool_name="n", tool_call_id="t")])
def test_long_texts_are_divided_over_several_frames(name: str, char: str, part: Any) -> None:
    text = char * 3_000_000
    chunks: list[AssistantStreamChunk] = [
        PartStart(part=part),
        TextDelta(path=(0,), text_delta=text, provider_metadata={"p": {}}),
        PartFinish(path=(0,)),
    ]
    body = b"".join(ENCODERS[name]().encode(chunks))
    [read] = accumulate(DECODERS[name]().decode([body]))["parts"]
    assert read["text" if isinstance(part, TextPart) else "argsText"] == text


@framed
def test_what_cannot_be_divided_is_refused_where_it_is_written(name: str) -> None:
    pieces = ENCODERS[name]().encode([Data(data=["x" * MAX_UNITS])])
    with pytest.raises(MalformedStreamError, match="data"):
        list(pieces)
    assert list(ENCODERS["plain-text"]().encode([PartStart(part=TextPart())])) == []
