"""Byte streams that survive their connection, for threads and WSGI."""

from ._version import __version__

__all__ = ["__version__"]
