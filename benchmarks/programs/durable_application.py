"""The Durable Streams server that is measured."""

from __future__ import annotations

from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.durable import DurableStreamsApp


def application(store: str) -> DurableStreamsApp:
    """For gunicorn, which is given `…:application('memory://')`. Everybody may do everything."""
    return DurableStreamsApp(
        ResumableStreamContext(open_store(store)), authorize=lambda *_: True, prefix="/v1/stream"
    )
