"""The Node process that answers for the JavaScript implementations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..javascript import JavaScript, cannot, running


@pytest.fixture(scope="session")
def _node() -> Iterator[JavaScript | str]:
    with running("driver.mjs") as found:
        yield found


@pytest.fixture(scope="session")
def _older_node() -> Iterator[JavaScript | str]:
    with running("driver.mjs", "assistant-stream-0.3.44") as found:
        yield found


@pytest.fixture
def javascript(_node: JavaScript | str) -> JavaScript:
    """The JavaScript implementations, or a skip (in CI a failure) that says why they are missing."""
    if isinstance(_node, str):
        cannot("THE JAVASCRIPT DECODERS AND ENCODERS WERE", _node)
    return _node


@pytest.fixture
def older_javascript(_older_node: JavaScript | str) -> JavaScript:
    """As `javascript`, with assistant-stream 0.3.44, which many pages still have."""
    if isinstance(_older_node, str):
        cannot("THE OLDER JAVASCRIPT DECODERS WERE", _older_node)
    return _older_node
