"""Which store the command line works on."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from ..contract import Store
from ..stores import open_store
from .exits import CommandError, Exit

ENVIRONMENT_VARIABLE = "RESUMABLE_STORE"


def default_url() -> str:
    """The URL of a SQLite file in the user's state directory, which is made (for the user alone) if need be."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The XDG specification says to ignore a relative path.
        base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
        directory = base / "resumable_sync"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise CommandError(
            f"no place for the default store: {error}; name one with --store", Exit.UNAVAILABLE
        ) from error
    return "sqlite:///" + quote(str(directory / "streams.db"))


def store_url(option: str | None) -> str:
    """The store that --store, the environment or the default name, in this order."""
    return option or os.environ.get(ENVIRONMENT_VARIABLE) or default_url()


def open_named_store(option: str | None) -> Store:
    """Open `store_url(option)`."""
    url = store_url(option)
    try:
        return open_store(url)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except ImportError as error:
        raise CommandError(f"{url} needs a package that is not installed: {error}", Exit.UNAVAILABLE) from error
