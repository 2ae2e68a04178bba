"""The endpoints as a Flask blueprint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .endpoints import AssistantEndpoints

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Blueprint


def assistant_blueprint(endpoints: AssistantEndpoints, name: str = "assistant") -> Blueprint:
    """A blueprint that serves `endpoints`: `app.register_blueprint(blueprint, url_prefix="/api/chat")`.

    The application's `before_request` functions run in front of it; they must not read the request's body, which
    the endpoints bound and read by themselves. Each blueprint of an application needs its own `name`. ImportError
    without Flask. A `url_prefix` is needed; the endpoints' own `prefix` stays empty.
    """
    try:
        from flask import Blueprint
    except ImportError as missing:
        raise ImportError("assistant_blueprint needs Flask: pip install flask") from missing

    blueprint = Blueprint(name, __name__)

    def serve(path: str = "") -> WSGIApplication:
        def below(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            whole = environ.get("PATH_INFO", "")
            below = path.encode("utf-8").decode("latin-1")
            mount = whole.removesuffix(below).rstrip("/")
            moved = {**environ, "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + mount, "PATH_INFO": f"/{below}"}
            return endpoints(moved, start_response)

        return below

    methods = ["GET", "POST", "DELETE", "OPTIONS"]
    for rule in ("", "/", "/<path:path>"):
        blueprint.add_url_rule(
            rule, f"serve{len(rule)}", serve, methods=methods, provide_automatic_options=False, strict_slashes=True
        )
    return blueprint
