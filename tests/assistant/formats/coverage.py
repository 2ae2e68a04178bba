"""What of the AI SDK's UI message stream is written and read here, type by type and field by field.

`coverage.json` says of every type in the SDK's newest schema, and of each of its fields, first what the encoder
does with it and then what the decoder does: "encoded" and "decoded", or "lost: why".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FRAME = "(frame)"
"""In the place of a field: the type itself."""

COVERAGE: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("coverage.json").read_text("utf-8")
)


def pairs(table: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Each type with each of its fields, and with FRAME."""
    return {(kind, field) for kind, fields in table.items() for field in (FRAME, *fields)}


def unknown(schema: Mapping[str, Any]) -> Iterator[str]:
    """What the schema has and the table does not, and the other way round."""
    for kind, field in sorted(pairs(schema["types"]) - pairs(COVERAGE)):
        yield f"{kind} {field}: new, coverage.json does not say what is done with it"
    for kind, field in sorted(pairs(COVERAGE) - pairs(schema["types"])):
        yield f"{kind} {field}: in coverage.json, but the schema has it no longer"
