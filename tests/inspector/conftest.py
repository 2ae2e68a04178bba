"""An inspector over each kind of store, and one that a browser can open."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from resumable_sync import ResumableStreamContext, Store
from resumable_sync.inspector import Inspector

from ..assistant.http.support import call
from ..wsgi.servers import serving
from ..wsgi.support import Reply

OWN = {"host": "ops.example.com", "origin": "https://ops.example.com"}
"""What a browser sends of a form of this application's own page."""


class Guard:
    """An `authorize` that remembers what it was asked, and refuses what is in `refused`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.refused: set[str] = set()

    def __call__(self, environ: Mapping[str, Any], action: str, stream_id: str) -> object:
        self.asked.append((action, stream_id))
        return action not in self.refused


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
def context(store: Store) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as context:
        yield context


@pytest.fixture
def inspector(context: ResumableStreamContext, guard: Guard) -> Inspector:
    return Inspector(context, authorize=guard)


def get(application: Any, path: str = "/", method: str = "GET", **query: str | list[str]) -> Reply:
    return call(application, method, path, query=urlencode(query, doseq=True))


def post(application: Any, path: str, stream_id: str, **headers: str) -> Reply:
    return call(application, "POST", path, query=urlencode({"id": stream_id}), **(headers or OWN))


def listed(page: bytes) -> list[str]:
    """The ids that a list shows, in its order."""
    return [html.unescape(found) for found in re.findall(r'<a class="id"[^>]*>([^<]*)</a>', page.decode())]


def ended(context: ResumableStreamContext, stream_id: str, *chunks: bytes, **options: Any) -> None:
    """A stream of these chunks that is done."""
    context.produce(stream_id, lambda: chunks, **options)


@pytest.fixture
def address(inspector: Inspector) -> Iterator[str]:
    """Where the inspector is served, for a browser."""
    with serving("werkzeug", inspector) as port:
        yield f"http://127.0.0.1:{port}"
