"""The demo as a Flask application: how a view starts, resumes and stops a stream."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_from_directory
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ..assistant import assistant_blueprint
from ..context import ResumableStreamContext
from ..contract import Store
from ..inspector import Inspector
from ..stores import open_store
from ..wsgi import ViewerCap, javascript_response, resume_response, resume_sse_response, sse_response
from .answers import AnswerSource, own_text_source
from .chat import WORDS_PER_SECOND, chat_endpoints

_HEARTBEAT_SECONDS = 3.0
_LISTED = 100  # streams of a list, those that began last
_MAX_VIEWERS = 64


def create_app(
    store: Store | str = "memory://", source: AnswerSource | None = None, rate: float = WORDS_PER_SECOND
) -> Flask:
    """The demo on `store` (or its URL), streaming `source` (default: a text of its own).

    The chat, and that text, have `rate` words a second.

    `app.extensions["resumable_sync"]` is the context; close it when the server ends, and the store if it was
    given as one. Any number of processes may serve the same SQLite file.
    """
    app = Flask(__name__, static_folder=None)
    context = ResumableStreamContext(open_store(store) if isinstance(store, str) else store, heartbeat=1.0)
    app.extensions["resumable_sync"] = context
    answers = source or own_text_source(rate)
    viewers = ViewerCap(_MAX_VIEWERS)

    @app.before_request
    def refuse_other_sites() -> None:
        # A page of another site could have this server run its command; browsers say where a request is from.
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            abort(403)

    @app.get("/")
    def page() -> Response:
        return send_from_directory(str(app.root_path), "index.html")

    @app.get("/chat")
    def chat() -> Response:
        return send_from_directory(str(app.root_path), "chat.html")

    chatting = chat_endpoints(context, viewers, _HEARTBEAT_SECONDS, rate)
    app.register_blueprint(assistant_blueprint(chatting), url_prefix="/api/chat")

    @app.get("/resumable.js")
    def client() -> Any:
        return javascript_response()

    @app.get("/<name>.<any(css, js):kind>")
    def asset(name: str, kind: str) -> Response:
        return send_from_directory(str(app.root_path), f"{name}.{kind}")

    @app.post("/answers/<stream_id>")
    def start(stream_id: str) -> Any:
        return sse_response(
            context,
            stream_id,
            answers.make_stream,
            encode="json",
            errors="replace",  # what is no text is shown as something
            heartbeat=_HEARTBEAT_SECONDS,
            viewers=viewers,
            metadata=answers.metadata,
            format_error=str,
        )

    @app.get("/answers/<stream_id>")
    def resume(stream_id: str) -> Any:
        return resume_sse_response(
            context,
            stream_id,
            encode="json",
            errors="replace",
            heartbeat=_HEARTBEAT_SECONDS,
            viewers=viewers,
            format_error=str,
        )

    @app.get("/answers/<stream_id>/raw")
    def raw(stream_id: str) -> Any:
        return resume_response(context, stream_id, heartbeat=_HEARTBEAT_SECONDS, viewers=viewers)

    @app.post("/answers/<stream_id>/cancel")
    def cancel(stream_id: str) -> Response:
        return jsonify(cancelled=context.cancel(stream_id))

    @app.delete("/answers/<stream_id>")
    def delete(stream_id: str) -> Response:
        return jsonify(deleted=context.delete(stream_id))

    # The page's list is the inspector's, which refuses other sites by itself. Who may open the demo may do all.
    inspector = Inspector(context, authorize=lambda *_: True, viewers=viewers, per_page=_LISTED)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/streams": inspector})  # type: ignore[method-assign]
    return app
