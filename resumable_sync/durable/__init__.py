"""A server of the Durable Streams protocol, over any store that has shared streams.

`DurableStreamsApp` is a WSGI application for the protocol's clients: npm `@durable-streams/client` and what
stands on it (TanStack, the AI SDK's transport, State Protocol), PyPI `durable-streams`, curl. A stream is at its
path:

    PUT      creates it: with a body, closed (`Stream-Closed: true`), with a life (`Stream-TTL`,
             `Stream-Expires-At`), as a fork (`Stream-Forked-From`, `Stream-Fork-Offset`,
             `Stream-Fork-Sub-Offset`). 201, or 200 if it is there as it is asked for
    POST     appends, closes, or both. With producer headers a repeated append is stored once; with
             `Stream-Seq` a late one is refused
    GET      what follows `offset`: at once, or also what comes (`live=long-poll`, `live=sse`)
    HEAD     where it stands
    DELETE   removes it; while a fork of it lives, it is 410, then 404

For example:

```python
from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.durable import DurableStreamsApp
from resumable_sync.wsgi import ViewerCap

context = ResumableStreamContext(open_store("sqlite:///streams.db"))

def authorize(environ, stream_id, action):       # action: "read", "create", "append", "close" or "delete"
    user = environ.get("REMOTE_USER", "nobody")
    return action == "read" or stream_id.startswith(f"{user}:")

application = DurableStreamsApp(context, authorize=authorize, prefix="/streams", viewers=ViewerCap(48))
```

    gunicorn app:application --worker-class gthread --threads 64 --workers 4 --keep-alive 75

In a Flask application: `app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/streams": durable})`, of
`werkzeug.middleware.dispatcher`, and no `prefix`.

**Guarantees.** It has no state: any number of processes serve one store, and answer alike after a kill. An
append is one commit: its bytes, the producer's progress, Stream-Seq and a closing are stored together or not at
all. An answer of 200 or 204 says that it is stored, as well as the store keeps things (G2). Offsets sort as
texts and always mean the same bytes: once a stream was deleted and made anew, or a fork, they are 410.

**Security.** Without `authorize` nothing can be written, and only streams of the `namespace` can be read: it is
put in front of every id, and ends with `.`, `:`, `_` or `-`. With it, each request is judged by the *id* of the
stream and the action: false is 403; a callable is a WSGI application that answers, with 401 and a challenge,
say. A body that closes needs `append` and `close`; a fork `read` on its source and `create`. The id is the path
below `prefix`, with `:` for `/` (`a/b` and `a:b` are one stream), or what `stream_id(path)` makes of it; 400 for
what is no id then, and for ids of the library's own records. Where cookies tell who asks, look at the request's
origin, too. Other origins' pages get nothing unless `cors_origins` names theirs. The texts of errors are fixed.

**Limits**, and what is answered beyond them: `max_body_bytes` 413; a JSON message of more than the store's
`max_chunk_bytes`, a full stream, more than 100,000 messages in a body 413; `max_writers` producers of a stream
(idle ones make way after 7 days) 413; forks of more than `max_fork_bytes`, of which a stream has 900 at most,
and 32 one of the other 413; a store that is full or away 503; live readers beyond the ViewerCap 503. Each live
reader holds a thread: for `sse_seconds`, `long_poll_seconds`, or until it leaves. Clients repeat 503 for ever,
and no other.

**Life.** `Stream-TTL` counts from the last POST that stored or repeated something, or GET; those renew it, to
within a fiftieth of it; `Stream-Expires-At` is renewed by nothing. Where a client gives neither, `default_ttl`
(None: no end) applies.

**JSON.** A message is one chunk, kept as the very text that came, and a Python program that appends one message
per chunk (`context.shared_writer`, or a source of `context.run` whose metadata says `{"content-type":
"application/json"}`) is read like any other. Not taken: NaN, Infinity, what is nested deeper than Python can
follow.

**Streams that a context produces** are read as they are; a POST is 405. One that ended as `error`, `cancelled`
or `interrupted` never looks closed: after its last byte readers get 410 with `Stream-Ending`, an event stream
ends.

**What to know:**

- A producer that begins again, under an id that was used, with epoch 0 and sequence 0 is taken for a repetition:
  it is answered 204, and its first batch is not stored. That is the protocol. Take a new id, or a higher epoch.
- A plain append whose fate is unknown (the store's reply was lost) is answered 503. Clients repeat it, so it may
  be stored twice. Only producer headers prevent that; a `Stream-Seq` makes the repetition a 409.
- PyPI `durable-streams` 0.1.0 ignores closing: it long-polls a closed stream without a pause.
- gunicorn closes idle connections after 2 seconds, and a client whose POST meets that does not repeat it: set
  `--keep-alive 75`. Set `sse_seconds` to 1 or more: the npm client takes shorter event streams for broken.
- In event streams of text a CR LF or CR arrives as LF; in other responses all bytes arrive as they are.
- Responses are not cached in shared caches unless `cache_control` says so, such as `public, max-age=60,
  stale-while-revalidate=300`. Whoever sets that makes what `authorize` allows to one readable by others.
- `/__ds/` (the protocol's subscriptions) is 501.

Protocol: Durable Streams PROTOCOL.md, 1.0 draft, with forks, closing and idempotent producers.
"""

from .app import DurableStreamsApp

__all__ = ["DurableStreamsApp"]
