"""The table of what is written and read of the AI SDK's stream is whole, and true."""

from __future__ import annotations

import pytest

from ...javascript import JavaScript
from .coverage import COVERAGE, FRAME, pairs, unknown


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
