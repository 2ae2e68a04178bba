"""A server of the Durable Streams protocol."""

from .app import DurableStreamsApp

__all__ = ["DurableStreamsApp"]
