"""The Node process that holds the chats, and a server for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...javascript import JavaScript, cannot, running
from .support import Server, serving


@pytest.fixture(scope="session")
def _chats() -> Iterator[JavaScript | str]:
    with running("chats.mjs") as found:
        yield found


@pytest.fixture
def chats(_chats: JavaScript | str) -> JavaScript:
    """The AI SDK's chats, or a skip (in CI a failure) that says why they are missing."""
    if isinstance(_chats, str):
        cannot("THE CHATS OF THE AI SDK WERE", _chats)
    return _chats


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running
