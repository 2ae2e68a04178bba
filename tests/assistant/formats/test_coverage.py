"""The table of what is written and read of the AI SDK's stream is whole, and true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from resumable_sync.assistant import UIMessageStreamDecoder

from ...javascript import JavaScript
from .coverage import COVERAGE, FRAME, pairs, unknown
from .frames import SAMPLES, Frame, written


def test_the_table_knows_all_of_the_newest_schema(javascript: JavaScript) -> None:
    assert list(unknown(javascript.ask("schema", version=7))) == []


@pytest.mark.parametrize("version", [5, 6])
def test_what_older_versions_know_the_newest_does(javascript: JavaScript, version: int) -> None:
    assert pairs(javascript.ask("schema", version=version)["types"]) <= pairs(COVERAGE)


def test_the_table_says_something_of_each() -> None:
    for kind, fields in COVERAGE.items():
        for field, (encoder, decoder) in fields.items():
            where = f"{kind} {field}"
            assert encoder == "encoded" or encoder.startswith("lost: "), where
            assert decoder == "decoded" or decoder.startswith("lost: "), where


def test_an_unknown_field_is_told() -> None:
    types = {kind: {field: False for field in fields if field != FRAME} for kind, fields in COVERAGE.items()}
    assert list(unknown({"types": types})) == []
    types["start"]["invented"] = True
    types["invented"] = {}
    del types["abort"]
    told = [line.split(":")[0] for line in unknown({"types": types})]
    assert told == ["invented (frame)", "start invented", "abort (frame)", "abort reason"]


def kind_of(frame: Frame) -> str:
    return "data-*" if frame["type"].startswith("data-") else str(frame["type"])


def test_what_is_called_encoded_is_what_the_controller_can_write() -> None:
    seen = {(kind_of(frame), field) for frame in written() for field in (FRAME, *frame) if field != "type"}
    called = {(kind, field) for kind, field in pairs(COVERAGE) if COVERAGE[kind][field][0] == "encoded"}
    assert (sorted(called - seen), sorted(seen - called)) == ([], [])


@pytest.mark.parametrize("version", [7])
def test_the_newest_schema_accepts_what_is_written(javascript: JavaScript, version: int) -> None:
    for frame in [*written(), *(frame for _, frame, _ in SAMPLES)]:
        assert javascript.ask("accepts", version=version, frame=frame), frame


def test_the_samples_have_every_type_and_field() -> None:
    seen = {(kind_of(frame), field) for _, frame, _ in SAMPLES for field in (FRAME, *frame) if field != "type"}
    assert seen == pairs(COVERAGE)


def read(frames: list[Frame]) -> list[Any]:
    body = b"".join(b"data: %s\n\n" % json.dumps(frame).encode() for frame in frames)
    chunks: list[Any] = [chunk.to_json() for chunk in UIMessageStreamDecoder().decode([body, b"data: [DONE]\n\n"])]
    made_up: dict[str, str] = {}  # ids of steps that the decoder makes up, which differ from one time to the other
    for chunk in chunks:
        if chunk["type"] == "step-start" and chunk["messageId"] not in ("m", "other"):
            chunk["messageId"] = made_up.setdefault(chunk["messageId"], f"made up {len(made_up)}")
    return chunks


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return "other" if isinstance(value, str) else {"other": 1} if isinstance(value, dict) else ["other"]


@pytest.mark.parametrize("kind", COVERAGE)
def test_what_is_called_decoded_makes_a_difference(javascript: JavaScript, kind: str) -> None:
    required = javascript.ask("schema", version=7)["types"][kind]
    noticed = set()
    for before, frame, after in SAMPLES:
        if kind_of(frame) != kind:
            continue
        whole = read([*before, frame, *after])
        if read([*before, *after]) != whole:
            noticed.add(FRAME)
        for field in required.keys() & frame.keys():
            other = {name: value for name, value in frame.items() if name != field}
            if required[field]:
                other[field] = changed(frame[field])
            if read([*before, other, *after]) != whole:
                noticed.add(field)
    assert noticed == {field for field, (_, decoder) in COVERAGE[kind].items() if decoder == "decoded"}
