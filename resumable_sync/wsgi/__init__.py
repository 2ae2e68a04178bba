"""Responses that survive their connection, for Flask, Django and any WSGI server.

In Flask return the response from the view. In a bare WSGI application return
`response(environ, start_response)`. In Django:

    response = sse_response(context, stream_id, make_stream, environ=request.META)
    return StreamingHttpResponse(response, status=response.status_code, headers=dict(response.headers))

What the two formats promise, the options that all functions share, and what is refused how: `views`.
"""

from .bodies import ResponseAbortedError
from .cap import ViewerCap
from .headers import CURSOR_HEADER, REPLAY_HEADER, SIZE_HEADER, STATUS_HEADER, STREAM_ID_HEADER
from .response import DEFAULT_HEARTBEAT, StreamResponse
from .script import javascript_response
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
    "javascript_response",
    "resume_response",
    "resume_sse_response",
    "sse_response",
    "stream_response",
]
