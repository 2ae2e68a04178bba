"""Which store, or which address, the command line works on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from ..stores import open_store
from ..stores.base import BaseStore
from .exits import CommandError, Exit

ENVIRONMENT_VARIABLE = "RESUMABLE_STORE"


def is_address(stream_id: str) -> bool:
    """Whether this names a stream by the address of its response. No id of a store has a slash."""
    return stream_id.startswith(("http://", "https://"))


def default_url() -> str:
    """The URL of a SQLite file in the user's state directory, created, private to the user, if missing."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The XDG specification says to ignore a relative path.
        base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
        directory = base / "resumable_sync"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise CommandError(
            f"the default store has no place: {error}; name a store with --store URL", Exit.UNAVAILABLE
        ) from error
    return "sqlite:///" + quote(os.fsencode(directory / "streams.db"))


def store_url(option: str | None) -> str:
    """The URL from --store, or else from the environment, or else the default one."""
    return option or os.environ.get(ENVIRONMENT_VARIABLE) or default_url()


@contextlib.contextmanager
def named_store(option: str | None) -> Iterator[BaseStore]:
    """Open `store_url(option)`, and close it after the block."""
    url = store_url(option)
    try:
        store = open_store(url)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except ImportError as error:
        raise CommandError(f"{url} needs a package that is not installed: {error}", Exit.UNAVAILABLE) from error
    with contextlib.closing(store):
        yield store
