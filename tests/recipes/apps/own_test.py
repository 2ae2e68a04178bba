"""How an application tests its own streams."""

import json

from resumable_sync import MemoryStore, sse

from .flask_app import create_app


def test_an_answer():
    client = create_app(MemoryStore()).test_client()
    body = client.post("/answers/7", data="Why?").data  # reading waits for the end
    events = list(sse.parse_events([body]))
    assert json.loads(events[-1].data)["status"] == "done"
    words = [each for each in events if each.event == "message"]
    assert [each.data for each in words] == ["You", "asked:", "Why?"]
    seen = {"Last-Event-ID": words[0].id}  # a client that comes back after it gets the rest
    assert b"You" not in (rest := client.get("/answers/7", headers=seen).data) and b"Why?" in rest
    assert client.get("/answers/8").status_code == 404
