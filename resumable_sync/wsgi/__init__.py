"""Responses that survive their connection, for Flask, Django and any WSGI server.

In Flask return the response from the view. In a bare WSGI application return
`response(environ, start_response)`. In Django:

    response = sse_response(context, stream_id, make_stream, environ=request.META)
    return StreamingHttpResponse(response, status=response.status_code, headers=dict(response.headers))

What the two formats promise, the options that all functions share, and what is refused how: `views`. A whole
configuration, and what operators can expect: `operations`.

**A page with an EventSource**, every event handled, of answers that were begun before (`sse_response` of a POST):

    <pre id="answer"></pre><p id="state"></p>
    <script>
      const source = new EventSource("/answers/7"), tell = (text) => { state.textContent = text; };
      const [answer, state] = ["answer", "state"].map((id) => document.getElementById(id));
      let cursor = "";                                              // EventSource keeps one, too, but hides it
      source.onopen = () => tell("replaying");
      source.onmessage = (event) => { answer.append(event.data); cursor = event.lastEventId; };     // the chunks
      source.addEventListener("live", (event) => { tell("live"); cursor = event.lastEventId; });    // now new ones
      source.addEventListener("end", (event) => {
        source.close();                                             // or it would ask once more, and be told 204
        const { status, error } = JSON.parse(event.data);           // done, error, cancelled, interrupted, lost
        tell(error ? `${status}: ${error}` : status);
      });
      source.onerror = () => source.readyState !== EventSource.CLOSED ? tell("reconnecting") :      // by itself
        fetch(`${source.url}?after=${cursor}`, { method: "HEAD" }).then(({ status }) =>             // or why not
          tell({ 204: "done", 404: "there is no such answer", 410: "lost" }[status] ?? "refused"));
    </script>

EventSource does not tell a refusal from 204, which a page gets that was cut after the last byte of an answer and
comes back once that is done: so ask again. 404 after some chunks: it was deleted or has expired; 410: begun anew.
EventSource gives up for good at a 503: with `ViewerCap(limit, event_source=True)` it comes back from a full house.

**Several streams on one connection.** A browser allows a host six connections under HTTP/1.1, and EventSource
holds each for as long as its stream runs. `several_sse_response` follows up to 100 streams on one:

    @app.get("/answers")
    def follow_all():
        ids = [each for each in request.args.getlist("id") if may_read(current_user, each)]
        return several_sse_response(context, ids, wait=30)

    const source = new EventSource("/answers?id=a-1&id=a-2");       // to follow others: close it, make another
    for (const id of ["a-1", "a-2"]) {
      source.addEventListener(`chunk:${id}`, (event) => show(id, event.data));
      source.addEventListener(`end:${id}`, (event) => finish(id, JSON.parse(event.data).status));
    }
    source.addEventListener("end", () => source.close());           // all have ended

Each event carries one cursor for all the streams, with which EventSource comes back by itself. See its docstring.
"""

from .bodies import ResponseAbortedError
from .cap import ViewerCap
from .headers import CURSOR_HEADER, REPLAY_HEADER, SIZE_HEADER, STATUS_HEADER, STREAM_ID_HEADER
from .health import health_response
from .response import DEFAULT_HEARTBEAT, StreamResponse
from .script import javascript_response
from .several import several_sse_response
from .shutdown import close_on_sigterm, close_with_uwsgi, close_with_worker
from .views import resume_response, resume_sse_response, sse_response, stream_response

__all__ = [
    "CURSOR_HEADER",
    "DEFAULT_HEARTBEAT",
    "REPLAY_HEADER",
    "SIZE_HEADER",
    "STATUS_HEADER",
    "STREAM_ID_HEADER",
    "ResponseAbortedError",
    "StreamResponse",
    "ViewerCap",
    "close_on_sigterm",
    "close_with_uwsgi",
    "close_with_worker",
    "health_response",
    "javascript_response",
    "resume_response",
    "resume_sse_response",
    "several_sse_response",
    "sse_response",
    "stream_response",
]
