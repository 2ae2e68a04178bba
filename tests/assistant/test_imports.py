"""The codecs know chunks, bytes and errors, and nothing of threads, stores or HTTP."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resumable_sync.assistant

PACKAGE = Path(resumable_sync.assistant.__file__).parent
LEAVES = {"jsontext", "parts", "chunks", "builder", "pieces", "partial_json", "sse", "errors"}
ALLOWED = {
    "data_stream": LEAVES | {"data_stream_lines"},
    **dict.fromkeys(
        ["data_stream_lines", "transport", "ui_message", "ui_message_decoder", "plain_text",
         *(LEAVES - {"sse", "errors"})],
        LEAVES,
    ),
}


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_a_codec_imports_no_more_than_it_may(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert imported <= ALLOWED[module]


def test_modules_stay_short() -> None:
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.glob("*.py")}
    assert max(lengths.values()) <= 350, lengths
