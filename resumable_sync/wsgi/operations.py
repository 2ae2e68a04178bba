"""For operators: a configuration that fits together, what to expect when things go wrong, what to alarm on.

Flask under gunicorn with two workers, nginx in front, streams in SQLite or Redis. tests/operations takes the four
files from this text, runs them, and measures what is said below.

    # app.py
    import os

    from flask import Flask, request
    from resumable_sync import ResumableStreamContext, open_store
    from resumable_sync.wsgi import ViewerCap, health_response, resume_sse_response, sse_response

    app = Flask(__name__)
    context = ResumableStreamContext(open_store(os.environ["RESUMABLE_STORE"]), recover=recover)
    viewers = ViewerCap(48)                             # of each worker, and below its threads

    @app.post("/answers/<answer_id>")
    def start(answer_id):
        question = request.get_data(as_text=True)
        return sse_response(context, answer_id, lambda: model_tokens(question),
                            restart={"error", "interrupted"}, viewers=viewers)

    @app.get("/answers/<answer_id>")
    def resume(answer_id):
        return resume_sse_response(context, answer_id, viewers=viewers)

    @app.get("/health")
    def health():
        return health_response(context, timeout=2)

`recover` makes the sources of streams with a handover go on; leave it out where there are none.

    # gunicorn.conf.py
    wsgi_app = "app:app"
    bind = "127.0.0.1:8000"
    worker_class = "gthread"
    workers = 2
    threads = 64                                        # the cap of viewers, and 16 for all other requests
    timeout = 30                                        # of a worker that hangs, not of a response
    graceful_timeout = 150                              # above `drain`
    worker_tmp_dir = "/dev/shm"                         # not on a disk that may be slow or full
    preload_app = False                                 # or a reload would not load what is new

    def post_worker_init(worker):
        # Imported here: the master would keep what it has imported over a reload, and give it to the new workers.
        from app import context
        from prometheus_client import CollectorRegistry
        from resumable_sync.metrics import ResumableSyncCollector, serve_metrics
        from resumable_sync.wsgi import close_with_worker

        close_with_worker(worker, context, drain=120)   # as long as an answer may take
        registry = CollectorRegistry()
        registry.register(ResumableSyncCollector(context, list_every=60))
        serve_metrics(registry, range(9200, 9200 + 2 * workers))

nginx, within `http`; in `events` it needs two `worker_connections` for each viewer, and some more:

    # nginx.conf
    upstream app {
        server 127.0.0.1:8000;
    }
    server {
        listen 80;
        location / {
            proxy_pass http://app;
            proxy_http_version 1.1;                     # with 1.0 raw responses end by their connection alone
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_connect_timeout 5s;
            proxy_read_timeout 60s;                     # four heartbeats of a response
        }
        location = /health {                            # whoever may ask makes the store work
            allow 127.0.0.1;
            deny all;
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_read_timeout 5s;
        }
    }

And Redis, where the streams are there:

    # redis.conf
    appendonly yes
    appendfsync everysec
    save ""
    maxmemory 2gb
    maxmemory-policy noeviction
    timeout 0
    tcp-keepalive 60

Keep no upstream connections (no `keepalive` in `upstream`): a POST on one that a worker closes just then may be
a 502. Nothing need be said of buffering: the responses say it. Redis needs memory for what was streamed within its
`ttl` (a day), and half as much again; with a `finished_ttl` of an hour, far less.

**Limits that fit together**, each smaller than what follows it:

    ViewerCap (48) < threads (64); 2 * workers * threads < worker_connections of nginx < its open files
    heartbeat of a context (5 s) <= grace of the store (15 s) / 3
    heartbeat of a response (15 s) < proxy_read_timeout (60 s), and the idle timeout of every other proxy
    timeout of health_response (2 s) < that of whoever asks
    longest answer < drain (120 s), or a deploy interrupts it
    drain < graceful_timeout (150 s) < TimeoutStopSec of systemd, or the grace period of a container (180 s)

While deploys overlap there are twice as many workers, threads and ports of metrics. With systemd:
`ExecReload=/bin/kill -HUP $MAINPID`, and `KillMode=mixed`, so that the master alone is told to end.

**What to expect.** The drill (`pytest -m heavy tests/operations`) holds these figures against real servers:

    deploy (kill -HUP)      Answers run to their ends; their viewers come back at once. No other request is
                            refused; some wait until a new worker has started, 5 s at most.
    a worker is killed      Its streams are `interrupted` within 3 s on SQLite, within 20 s on Redis (grace, and a
                            check); with a handover they go on then. Its requests are cut, or 502. There is a new
                            worker within 5 s; meanwhile viewers beyond the other one's cap get 503, and come back.
    the disk is full        New streams and /health: 503. What is stored is read on, other requests are answered, a
                            killed worker is replaced. What runs waits for the grace time, and loses nothing if
                            there is room by then. Otherwise its viewers get 503 after 48 s at most, and are told
                            `interrupted` within 5 s of there being room.
    Redis restarts          New streams: 503 after 5 s; /health: 503 after 2 s. What runs waits for the grace time,
                            and goes on within 3 s of Redis being back, with all its bytes.
    the viewers are many    One more: 503 with Retry-After. Other requests are answered within 0.5 s. A viewer that
                            left gives its place back at the next chunk, or after two heartbeats of silence.

**Alarms.** Each worker is scraped at a port of its own (see `resumable_sync.metrics`). Its counters are those of
its process, and go with it. While a store is away a scrape takes 2 s.

    increase(resumable_sync_lost_total[10m]) > 0                    endings that could not be stored
    delta(resumable_sync_streams{status="interrupted"}[10m]) > 0    also those of killed workers, whose own
                                                                    resumable_sync_endings_total went with them
    resumable_sync_viewers + resumable_sync_awaiting > 40           near the cap of 48
    resumable_sync_stalled > 0, for some seconds                    the store is away, or full
    resumable_sync_orphans > 0, for a minute                        nobody goes on with streams that could
    count(up{job="app"} == 1) < 2                                   a worker is missing
    /health is not 200                                              nothing can be begun here
    free space of the disk; used_memory of Redis near maxmemory     SQLite's log alone may take 64 MiB

**Upgrades.** Install, then `kill -HUP` the master: new workers load it. 0.1.0 and this edition share a store, so
the machines may follow one another in any order. gunicorn itself, and what gunicorn.conf.py imports at its top,
need a restart.

**Several Unix users or containers on one file**: see `resumable_sync.stores.sqlite`. Mount the directory, from a
disk of the machine; give each container ports of its own for the metrics.

**Backup.** SQLite: `sqlite3 streams.db ".backup copy.db"`, also while it is used; never a copy of the file alone.
Redis: `redis-cli --rdb copy.rdb`. Going back to a copy loses what came after it; producers and viewers are told.
"""
