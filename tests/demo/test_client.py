"""The demo's addresses, with Flask and without, followed by the JavaScript client that they serve."""

from __future__ import annotations

import shutil
import urllib.request
from base64 import b64decode
from pathlib import Path

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.demo.answers import text_source
from resumable_sync.demo.app import create_app
from resumable_sync.demo.bare import create_bare_app
from resumable_sync.demo.server import DemoServer

from ..javascript import NODE, cannot, started
from .conftest import until

TEXT = " ".join(f"wörd{number}" for number in range(100))


@pytest.mark.parametrize("kind", ["Flask", "bare WSGI"])
@pytest.mark.parametrize(("status", "rate"), [("done", 500.0), ("cancelled", 2.0)])
def test_followed_to_its_ending(kind: str, status: str, rate: float, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        cannot("THE DEMO'S ADDRESSES WERE", "node is not installed")
    source, script = text_source(TEXT, "words", rate), tmp_path / "resumable.js"
    with MemoryStore() as store:
        flask = create_app(store, source) if kind == "Flask" else None
        context = flask.extensions["resumable_sync"] if flask is not None else ResumableStreamContext(store)
        server = DemoServer("127.0.0.1", 0, flask or create_bare_app(context, source))
        try:
            with urllib.request.urlopen(f"{server.url}resumable.js") as response:
                script.write_bytes(response.read())
            with started(NODE, "follow.mjs", str(script)) as node:
                address = f"{server.url}answers/one"
                how = {"method": "POST", "encoding": "json", "cancelUrl": f"{address}/cancel", "mode": "push"}
                node.ask("start", given=["events", address, how])
                until(lambda: node.ask("seen", given=["events"])["chunks"], "the first words")
                if status == "cancelled":
                    node.ask("act", given=["events", "cancel"])
                until(lambda: node.ask("seen", given=["events"])["endings"], "the ending")
                node.ask("start", given=["raw", f"{address}/raw", {"mode": "push"}])
                until(lambda: node.ask("seen", given=["raw"])["endings"], "the raw ending")
                events, raw = (node.ask("seen", given=[name]) for name in ("events", "raw"))
        finally:
            server.close()
            context.close()
    assert [each["status"] for each in events["endings"]] == [status]
    assert raw["endings"] == events["endings"]
    assert b"".join(map(b64decode, raw["chunks"])) == b"".join(map(b64decode, events["chunks"]))
