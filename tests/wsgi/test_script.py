"""The JavaScript client as a response: bare WSGI, Flask, and real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import resumable_sync
from resumable_sync.wsgi import javascript_response

from .servers import Gunicorn, Server, in_process
from .support import call

SCRIPT = (Path(resumable_sync.__file__).parent / "static" / "resumable.js").read_bytes()


def test_whole_and_not_modified() -> None:
    reply = call(javascript_response())
    tag = reply.headers["etag"]
    assert (reply.status, reply.read()) == (200, SCRIPT) and tag.startswith('"')
    assert reply.headers == {
        "content-type": "text/javascript; charset=utf-8",
        "content-length": str(len(SCRIPT)),
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
        "etag": tag,
    }
    for known in (tag, f"W/{tag}", f'"a, b", {tag}', "*"):
        same = call(javascript_response(), IF_NONE_MATCH=known)
        assert (same.status, same.read()) == (304, b""), known
        assert same.headers == {"etag": tag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    for other in ('"other"', tag.strip('"'), ""):
        assert call(javascript_response(), IF_NONE_MATCH=other).status == 200, other


def test_head_and_other_methods() -> None:
    head, whole = call(javascript_response(), "HEAD"), call(javascript_response())
    assert (head.status, head.read(), head.headers) == (200, b"", whole.headers)
    refused = call(javascript_response(), "POST")
    assert (refused.status, refused.headers["allow"], refused.read()) == (405, "GET, HEAD", b"")


def test_options() -> None:
    own = {"cache-control": "private", "Access-Control-Allow-Origin": "*", "ETag": '"own"'}
    reply = call(javascript_response(headers=own, max_age=60))
    names = [name.lower() for name, _ in reply.pairs]
    assert sorted(names) == sorted(set(names)) and reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["cache-control"] == "private" and reply.headers["etag"] != '"own"'
    assert call(javascript_response(max_age=60)).headers["cache-control"] == "public, max-age=60"
    with pytest.raises(ValueError, match="max_age"):
        javascript_response(max_age=-1)
    with pytest.raises(ValueError, match="Content-Length"):
        javascript_response(headers={"Content-Length": "1"})


def test_in_flask() -> None:
    app = Flask(__name__)
    app.add_url_rule("/resumable.js", view_func=javascript_response, endpoint="client")
    asked = app.test_client()
    whole = asked.get("/resumable.js")
    assert (whole.status_code, whole.data, whole.mimetype) == (200, SCRIPT, "text/javascript")
    assert asked.head("/resumable.js").headers["content-length"] == str(len(SCRIPT))
    same = asked.get("/resumable.js", headers={"If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.data) == (304, b"")


@pytest.mark.parametrize("kind", ["wsgiref", "werkzeug", "waitress", "gunicorn"])
def test_on_a_server(kind: str, tmp_path: Path) -> None:
    running: Any = Gunicorn(tmp_path, "memory://", "--workers", "1") if kind == "gunicorn" else in_process(kind)
    with running as server:
        assert isinstance(server, Server)
        whole = server.get("/resumable.js")
        assert (whole.status, whole.read()) == (200, SCRIPT)
        whole.leave()
        same = server.get("/resumable.js", If_None_Match=whole.headers["etag"])
        assert (same.status, same.read(), same.headers["etag"]) == (304, b"", whole.headers["etag"])
        same.leave()
        head = server.get("/resumable.js", "HEAD")
        assert (head.status, head.read(), head.headers["content-length"]) == (200, b"", str(len(SCRIPT)))
        head.leave()
