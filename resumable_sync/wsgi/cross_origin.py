"""Cross-origin rules: which other origins' pages may use an application, and what of it they may see."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from .headers import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_PREFLIGHT_SECONDS = 600


class CrossOrigin:
    """Which other origins' pages may use an application. Immutable; thread-safe.

    `origins`: such as `https://example.com`, or "*"; none: no other origin's. `credentials` lets them send
    cookies; ValueError together with "*". `exposed`: the response headers that such a page can read.
    """

    def __init__(self, origins: Collection[str] | str | None, credentials: bool, exposed: Iterable[str]) -> None:
        self._any = origins == "*" or (origins is not None and "*" in origins)
        if self._any and credentials:
            raise ValueError("credentials need a list of origins: every page could act as its user otherwise")
        given = [origins] if isinstance(origins, str) else list(origins or ())
        self._origins = frozenset(origin.rstrip("/") for origin in given)
        self._credentials = credentials
        self._exposed = ", ".join(exposed)

    @property
    def used(self) -> bool:
        """Whether there is any other origin that may."""
        return bool(self._origins)

    def headers(self, environ: WSGIEnvironment) -> Headers:
        """What lets the page that asks read the answer."""
        if not self.used:
            return []
        origin = environ.get("HTTP_ORIGIN", "")
        vary = [] if self._any else [("Vary", "Origin")]
        if not (self._any or origin in self._origins):
            return vary
        headers = [
            ("Access-Control-Allow-Origin", "*" if self._any else origin),
            ("Access-Control-Expose-Headers", self._exposed),
            *vary,
        ]
        if self._credentials:
            headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers

    def preflight(self, environ: WSGIEnvironment, methods: Iterable[str], allowed: str) -> Headers:
        """What lets the page send the request it asks about; `allowed` names the headers that it may send."""
        headers = self.headers(environ)
        if any(name == "Access-Control-Allow-Origin" for name, _ in headers):
            headers += [
                ("Access-Control-Allow-Methods", ", ".join(methods)),
                ("Access-Control-Allow-Headers", allowed),
                ("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS)),
            ]
        return headers
