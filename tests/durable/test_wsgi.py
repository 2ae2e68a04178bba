"""The rules of WSGI, as the standard library checks them; and the example in the page of documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from resumable_sync import durable
from resumable_sync.stores.memory import MemoryStore

from .support import TEXT, Client, Reply, client, producer


class Checked(Client):
    """The validator wants each answer to be closed."""

    def __call__(self, *arguments: object, **options: object) -> Reply:
        reply = super().__call__(*arguments, **options)  # type: ignore[arg-type]
        assert reply.data is not None
        return reply


@pytest.mark.filterwarnings("error")
def test_every_kind_of_answer_keeps_the_rules() -> None:
    ask = Checked(validator(client(MemoryStore(), cors_origins="*").app))
    assert ask.put("s", "one").status == 201
    assert ask.put("s", "one").status == 200
    assert ask.post("s", "two", **producer(0)).status == 200
    assert ask.post("s", "two", **producer(0)).status == 204
    assert ask.post("s", "x", **producer(5)).status == 409
    assert ask.put("f", Stream_Forked_From="/s").status == 201
    tag = ask.get("s").headers["etag"]
    assert ask.get("s", If_None_Match=tag).status == 304
    assert ask.get("s?offset=now").status == 200
    assert ask.get("s?offset=now&live=long-poll").status == 204
    assert ask.get("s?offset=-1&live=long-poll").status == 200
    assert ask.get("s?offset=-1&live=sse").data.startswith(b"event: data\ndata:onetwo\n\n")
    assert ask.get("s?offset=x").status == 400
    assert ask.head("s").status == 200
    assert ask.head("none").status == 404
    assert ask("OPTIONS", "s").status == 204
    assert ask("POST", "s", None, {**TEXT, "Stream-Closed": "true"}).status == 204
    assert ask.delete("s").status == 204
    assert ask.get("s").status == 410


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec((durable.__doc__ or "").split("```python\n")[1].split("```")[0], names)
    ask = Client(names["application"], "/streams/")
    assert ask.put("alice/chat", "hello").status == 403
    alice = {"REMOTE_USER": "alice"}
    assert ask("PUT", "alice/chat", b"hello", TEXT, alice).status == 201
    assert ask.get("alice/chat").data == b"hello"
    names["context"].close()
    names["context"].store.close()
