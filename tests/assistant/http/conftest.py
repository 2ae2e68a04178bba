"""Contexts over every store, and the Node process that plays the front ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Store

from ...backends import BACKEND_PARAMS, BACKENDS
from ...javascript import JavaScript, cannot, running
from .servers import ChatServer
from .support import Hooks


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def context(store: Store, hooks: Hooks) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(
        store, on_error=hooks.on_error, on_finalize=hooks.on_finalize, on_append=hooks.on_append
    ) as made:
        yield made


@pytest.fixture(scope="session", params=BACKEND_PARAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """gunicorn on each kind of store, for all modules that take what it serves as it is."""
    directory = tmp_path_factory.mktemp("chat")
    kind = BACKENDS[request.param]
    with ChatServer(directory, kind.url(directory), workers=2 if kind.shared else 1) as serving:
        yield serving


@pytest.fixture(scope="session")
def _clients() -> Iterator[JavaScript | str]:
    with running("clients.mjs") as found:
        yield found


@pytest.fixture
def clients(_clients: JavaScript | str) -> JavaScript:
    """The front ends' transports, or a skip (in CI a failure) that says why they are missing."""
    if isinstance(_clients, str):
        cannot("THE FRONT ENDS' TRANSPORTS WERE", _clients)
    return _clients
