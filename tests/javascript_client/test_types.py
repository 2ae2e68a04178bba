"""The client's types, by the TypeScript compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ..javascript import NODE, cannot, missing_packages
from .conftest import SCRIPT


def test_the_types_allow_what_is_meant_and_nothing_else() -> None:
    missing = missing_packages()
    if missing is not None:
        cannot("THE TYPES OF THE JAVASCRIPT CLIENT WERE", missing)
    command = ["node", "node_modules/typescript/bin/tsc", "--project", "usage.json"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, ""), done


def test_the_types_and_the_module_have_the_same_names(tmp_path: Path) -> None:
    types = SCRIPT.with_suffix(".d.ts").read_text("utf-8")
    code = "const module = await import(process.argv[1]); console.log(Object.keys(module).join(' '))"
    module = tmp_path / "resumable.mjs"
    shutil.copy(SCRIPT, module)
    command = ["node", "--input-type=module", "--eval", code, str(module)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    declared = set(re.findall(r"^export declare (?:class|function) (\w+)", types, re.MULTILINE))
    assert set(done.stdout.split()) == declared == {"follow", "StreamEndedError"}
