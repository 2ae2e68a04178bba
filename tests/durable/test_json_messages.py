"""JSON bodies: each message is the very text that came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync.durable.json_messages import (
    MAX_MESSAGES,
    NotJSONError,
    TooManyError,
    join_messages,
    split_messages,
)

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SPACES = st.text(" \t\r\n", max_size=3)


@given(st.lists(VALUES, max_size=8), SPACES, st.booleans())
def test_an_array_is_its_elements(values: list[Any], space: str, ascii_only: bool) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
    texts = [text.encode("utf-8", "replace").decode() for text in texts]  # half of a surrogate pair is no text
    body = f"{space}[{space}{f'{space},{space}'.join(texts)}{space}]{space}".encode()
    assert split_messages(body) == [text.encode() for text in texts]


@given(VALUES.filter(lambda value: not isinstance(value, list)), SPACES)
def test_anything_else_is_one_message(value: Any, space: str) -> None:
    text = json.dumps(value)
    assert split_messages(f"{space}{text}{space}".encode()) == [text.encode()]


@given(st.lists(VALUES.filter(lambda value: not isinstance(value, list)), max_size=8))
def test_messages_come_back_as_an_array(values: list[Any]) -> None:
    messages = [json.dumps(value).encode() for value in values]
    assert split_messages(join_messages(messages)) == messages


@given(st.binary(max_size=40))
def test_what_is_taken_is_json_and_what_is_refused_is_not(body: bytes) -> None:
    try:
        messages = split_messages(body)
    except NotJSONError:
        with pytest.raises((ValueError, RecursionError)):
            json.loads(body.decode("utf-8"), parse_constant=_refuse)
        return
    value = json.loads(body.decode("utf-8"))
    assert list(map(json.loads, messages)) == (value if isinstance(value, list) else [value])


def _refuse(name: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize(
    "text",
    ["12345678901234567890123", "1.10", "1E400", "-0", "1" * 5000, '"\\u00e9"', '{"a":1,"a":2}', '"\\ud800"'],
)
def test_texts_stay_as_they_are(text: str) -> None:
    assert split_messages(text.encode()) == [text.encode()]
    assert split_messages(f"[{text},{text}]".encode()) == [text.encode()] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1]]",
        b"1 2",
        b"{",
        b"{} {}",
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"\xef\xbb\xbf[1]",
        b'"\xff"',
        b"\xff",
        b"'a'",
        b"[1]\x00",
        b"\xa01",
        b"[" * 100_000,
        b"[" + b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_no_json(body: bytes) -> None:
    with pytest.raises(NotJSONError):
        split_messages(body)


def test_messages_of_a_body_are_bounded() -> None:
    assert len(split_messages(b"[%b]" % b",".join([b"1"] * MAX_MESSAGES))) == MAX_MESSAGES
    with pytest.raises(TooManyError):
        split_messages(b"[%b]" % b",".join([b"1"] * (MAX_MESSAGES + 1)))
