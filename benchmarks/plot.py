"""SVG plots, made from the JSON of a run alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(document: Mapping[str, Any], folder: Path) -> None:
    """Write the plots and the Markdown table into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
