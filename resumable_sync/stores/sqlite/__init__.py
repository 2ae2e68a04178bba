"""Streams in a SQLite file, shared by all processes of one machine; see `SQLiteStore`."""

from .store import SQLiteStore

__all__ = ["SQLiteStore"]
