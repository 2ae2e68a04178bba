"""Words that are gone: each has a standard term, or reads as its opposite to a native speaker."""

from __future__ import annotations

import re
from pathlib import Path

import resumable_sync

PACKAGE = Path(resumable_sync.__file__).parent
README = PACKAGE.parent / "README.md"

GONE = {
    r"\bbehind\b": "a position is *after* a cursor, a wrapper *around* what it wraps",
    r"\bsettle[ds]?\b|\bsettling\b": "record a result, confirm an election, parse a reply",
    r"\b(keeps?|keeping) house\b|\bhousekeeping\b|\bjanitors?\b": "sweep, check, checkpoint",
    r"\bstr(ike|uck|ikes) off\b": "remove",
    r"\b[Bb]ooks? (the|an?|it|what)\b|\bbooked\b": "record",
    r"\blook(s|ed)? (at|into) the store\b|\blook first\b|def +look\(": "fetch, snapshot",
    r"\bhow-manieth\b|\bmain door\b|\bby (him|her)self\b|\bnor is NaN\b": "plain English",
}


def test_words_that_are_gone_stay_away() -> None:
    sources = [path for kind in ("*.py", "*.lua", "*.sql") for path in PACKAGE.rglob(kind)]
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{number}: {line.strip()}  ({instead})"
        for path in [*sources, README]
        if path.exists()  # an installed package has no README beside it
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for words, instead in GONE.items()
        if re.search(words, line.replace("_", " "))  # in names, too
    ]
    assert not found, "\n".join(found)
