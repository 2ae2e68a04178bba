"""Contexts over every store, and the Node process that plays the front ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Store

from ...browser import chromium
from ...javascript import JavaScript, cannot, running
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        if isinstance(found, str):
            cannot("useChat IN A BROWSER WAS", found)
        yield found
