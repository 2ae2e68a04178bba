"""The program that tells what is new in the newest clients, on what is installed and on what is not."""

from __future__ import annotations

from typing import Any

import pytest

from ..javascript import NODE, JavaScript, cannot, missing_packages
from .__main__ import main, told_of


def test_nothing_differs_from_the_adopted_versions(capsys: pytest.CaptureFixture[str]) -> None:
    missing = missing_packages()
    if missing is not None:
        cannot("THE DRIFT OF THE CLIENTS WAS", missing)
    assert main(["--installed", str(NODE)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "nothing differs" and said[0].startswith("ai: adopted 7.")


def test_what_differs_is_told() -> None:
    class Newer(JavaScript):
        def __init__(self) -> None:
            pass

        def ask(self, ask: str, **request: Any) -> Any:
            if ask == "schema":
                return {
                    "types": {"start": {"messageId": False, "invented": False}},
                    "finishReasons": ["stop", "tired"],
                }
            raise AssertionError("TypeError: gone")

    told = list(told_of(Newer()))
    assert "start invented: new, coverage.json does not say what is done with it" in told
    assert "finish finishReason tired: new" in told and "finish finishReason length: gone" in told
    assert "controller/01_text_only: cannot be made any more: TypeError: gone" in told


def test_the_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert "--assistant-stream" in said and "newest npm clients" in said
