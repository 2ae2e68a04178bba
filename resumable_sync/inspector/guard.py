"""What keeps other sites out: the headers of every answer, and whose requests may change something."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Nothing inline, nothing from elsewhere, and no page may frame this one."""

HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),  # not no-referrer, with which forms send the Origin "null"
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]

_PORTS = {"http": 80, "https": 443}


def from_other_site(environ: Mapping[str, Any]) -> bool:
    """Whether a browser says that a page of another site asks. Typed addresses and links that are followed within
    this one do not count."""
    return environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none")


def may_change(environ: Mapping[str, Any], origins: Collection[str]) -> bool:
    """Whether a request that changes something was made by one of our own pages, or by those of `origins`.

    Browsers say where a request is from, which a page cannot alter: by Sec-Fetch-Site over HTTPS and on loopback,
    by Origin in any case. One that says neither is refused: no browser sent it, or a very old one.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin in origins:
        return True
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return bool(site == "same-origin")
    made_by = None if origin is None else _authority(origin)  # None also of "null", of a sandboxed page
    return made_by is not None and made_by == _own_authority(environ, str(origin))


def _authority(origin: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS.get(parts.scheme)
        return (parts.hostname, port) if parts.hostname and port else None
    except ValueError:  # such as a port that is none
        return None


def _own_authority(environ: Mapping[str, Any], origin: str) -> tuple[str, int] | None:
    """Host and port as the browser addressed them. The scheme is that of its Origin: in a proxy TLS may end."""
    return _authority(f"{origin.partition(':')[0]}://{environ.get('HTTP_HOST', '')}")
