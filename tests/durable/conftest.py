"""Servers on every store, and the Node packages that are locked in tests/durable/node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..backends import BACKEND_PARAMS, BACKENDS, Backend
from ..javascript import cannot, missing_packages
from .servers import Server

NODE = Path(__file__).with_name("node")

SHARED_BACKEND_PARAMS = [parameters for parameters in BACKEND_PARAMS if BACKENDS[str(parameters.values[0])].shared]
"""Stores that several processes can share."""


@pytest.fixture(scope="session")
def node() -> Path:
    """Where the conformance suite and the clients are installed; without them a skip, in CI a failure."""
    missing = missing_packages(NODE)
    if missing is not None:
        cannot("THE DURABLE STREAMS CLIENTS WERE", missing)
    return NODE


@pytest.fixture(scope="module", params=SHARED_BACKEND_PARAMS)
def kind(request: pytest.FixtureRequest) -> type[Backend]:
    """One kind of store after the other that processes can share."""
    return BACKENDS[request.param]


@pytest.fixture(scope="module")
def server(kind: type[Backend], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers. Its event streams last 1.2 seconds: a client takes those under a second for broken."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, kind.url(directory), workers=2, sse_seconds=1.2) as running:
        yield running.await_start()
