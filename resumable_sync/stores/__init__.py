"""The stores, and `open_store`, which picks one by URL. Each is imported only when it is asked for."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode, urlsplit

from .base import BaseStore

__all__ = ["open_store"]


def open_store(url: str, **options: Any) -> BaseStore:
    """Open the store that `url` names; `options` go to its constructor.

    `memory://` is private to the process. `sqlite:///relative/or` `sqlite:////absolute/path.db` (or any path
    that ends in .db, .sqlite or .sqlite3) serves all processes of one machine. `redis://host:port/db`,
    `rediss://…` (TLS) and `unix:///path` as redis-py takes them, `redis+sentinel://host:port/service/db` and
    `redis+cluster://host:port[,host:port]` serve many machines; they need `pip install "resumable_sync[redis]"`
    (ImportError).

    A query gives options of the constructor that are numbers or text: `sqlite:///path.db?ttl=600&grace=5`; those
    in `options` override it. For Redis it may also hold redis-py's of login and connection, such as `client_name`.
    ValueError for an option that is not known or cannot be obeyed, and for any other URL; TypeError for what is no
    text; StoreUnavailableError if the store cannot be opened; Redis is connected to at the first use, which fails
    within half a second if no server listens.
    """
    if not isinstance(url, str):
        raise TypeError(f"a store's URL must be text, not {type(url).__name__}")
    parts = urlsplit(url)
    if parts.scheme and any(character in url for character in "\t\r\n"):  # which urlsplit has dropped
        raise ValueError(f"a store's URL has no line ends and tabs: write %09, %0D and %0A in {url!r}")
    if parts.scheme and parts.fragment:
        raise ValueError("a store's URL has no fragment: write # as %23")
    if parts.scheme == "memory":
        from .memory import MemoryStore

        if parts.netloc or parts.path.strip("/"):
            raise ValueError("a store in memory has no name: write memory://")
        return MemoryStore(**{**_own_options(MemoryStore, parts.query), **options})
    if parts.scheme == "sqlite" or (not parts.scheme and url.endswith((".db", ".sqlite", ".sqlite3"))):
        from .sqlite import SQLiteStore

        # Names of files need not be UTF-8.
        path = os.fsdecode(unquote_to_bytes(parts.path.removeprefix("/"))) if parts.scheme else url
        if not path or parts.netloc:
            raise ValueError(f"{url!r} names no file; write sqlite:///relative.db or sqlite:////absolute/path.db")
        given = _own_options(SQLiteStore, parts.query if parts.scheme else "")
        return SQLiteStore(path, **{**given, **options})
    if parts.scheme in ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"):
        from .redis import RedisStore

        given, others = _split_options(RedisStore, parts.query)
        rest = "?" + urlencode(others) if others else ""
        return RedisStore.from_url(url.partition("?")[0] + rest, **{**given, **options})
    raise ValueError(f"{url!r} is no store; use memory://, sqlite:///path/to/file.db or redis://host:port/0")


_READ: Mapping[str, Callable[[str], object]] = {"float": float, "int": int, "str": str}


def _split_options(store: type[BaseStore], query: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The options of the constructor that a URL's query gives, and what else is in it."""
    known = _known_options(store)
    given: dict[str, Any] = {}
    others: list[tuple[str, str]] = []
    seen: set[str] = set()
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in seen:
            raise ValueError(f"the URL gives the option {name} twice")
        seen.add(name)
        if name not in known:
            others.append((name, text))
            continue
        try:
            given[name] = known[name](text)
        except ValueError as error:
            raise ValueError(f"the URL's option {name}={text!r} is not a number") from error
    return given, others


def _own_options(store: type[BaseStore], query: str) -> dict[str, Any]:
    """As `_split_options`, where nothing else may be in the query."""
    given, others = _split_options(store, query)
    if others:
        unknown, known = ", ".join(name for name, _ in others), ", ".join(_known_options(store))
        raise ValueError(f"no options of {store.__name__} in a URL: {unknown}; known are {known}")
    return given


def _known_options(store: type[BaseStore]) -> dict[str, Callable[[str], object]]:
    """The keyword arguments of the constructor that a URL can give, and how each is read, by their annotations."""
    known = {}
    for name, parameter in inspect.signature(store).parameters.items():
        read = _READ.get(str(parameter.annotation).removesuffix(" | None"))
        if read is not None and parameter.kind is parameter.KEYWORD_ONLY:
            known[name] = read
    return known
