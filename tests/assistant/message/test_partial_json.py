"""Arguments that are read while they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable_sync.assistant.message.partial_json import PartialJson
from resumable_sync.assistant.message.parts import UNSET

words = st.text('ab\\"\n\u2028é😀\ud83d', max_size=4)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def pieces(draw: st.DrawFn) -> list[str]:
    """An object or array, written in one way or another, perhaps damaged or cut off, in pieces."""
    value = draw(st.lists(values, max_size=4) | st.dictionaries(words, values, max_size=4))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text('{}[]",:\\ut1-.e x\n', max_size=2)) + text[at + draw(st.integers(0, 1)) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=20)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)])]


@settings(deadline=None)
@given(pieces())
def test_what_somebody_holds_never_changes(given: list[str]) -> None:
    """The values, and what is inside them, are held in turns; the reading is the same in any case."""
    holding, alone = PartialJson(), PartialJson()
    held: list[tuple[Any, str]] = []
    for number, piece in enumerate(given):
        value: Any = holding.feed(piece)
        inside = list(value.values()) if isinstance(value, dict) else value
        held += [(item, repr(item)) for item in ([value], inside, [])[number % 3]]
        alone.feed(piece)
        assert repr(alone.value) == repr(value)
        del value, inside
    assert [repr(value) for value, _ in held] == [seen for _, seen in held]
    whole = alone.whole()
    assert whole is UNSET or repr(whole) == repr(alone.value)


@pytest.mark.parametrize("begin", ['{"a":"', '{"a":[1,', '[{"b":{"c":"'])
def test_what_nobody_holds_grows_in_place(begin: str) -> None:
    """So that long arguments in short pieces cost no more than their length."""
    parser = PartialJson()
    parser.feed(begin)
    places = {id(parser.feed("1,")) for _ in range(100)}
    assert len(places) == 1
    kept = parser.value
    assert parser.feed("2") is not kept


@pytest.mark.parametrize(
    "text, whole",
    [
        ('{"a":1}', {"a": 1}),
        (" 12 ", 12),
        ('"text"', "text"),
        ("null", None),
        ("", UNSET),
        ('{"a":1', UNSET),
        ('{"a":1}}', UNSET),
        ('{"a":1} {"b":2}', UNSET),
        ('{"__proto__":1}', UNSET),
    ],
)
def test_only_whole_json_is_whole(text: str, whole: Any) -> None:
    parser = PartialJson()
    for char in text:
        parser.feed(char)
    assert parser.whole() == whole and isinstance(parser.value, dict)


def test_what_no_client_can_hold_is_not_read_on() -> None:
    deep = PartialJson()
    deep.feed("[" * 100_000)
    json.dumps(deep.value)
    long = PartialJson()
    for _ in range(2_000):
        long.feed("[" if not long.text else "1" * 50)
    assert long.feed("]") == long.value
