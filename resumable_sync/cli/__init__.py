"""The command line `resumable-sync`: publish bytes as a stream, follow it elsewhere, look after the store."""

from .main import main

__all__ = ["main"]
