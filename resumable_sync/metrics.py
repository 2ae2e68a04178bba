"""Figures of contexts for Prometheus (extra `metrics`: the package `prometheus-client`).

    prometheus_client.REGISTRY.register(ResumableSyncCollector(context))

Nothing is counted twice, and nothing is sent anywhere: a scrape reads what the contexts have counted anyway
(`ResumableStreamContext.stats`). All figures are of the process that is scraped, but for `resumable_sync_streams`
and `resumable_sync_orphans`, which are the store's.

    resumable_sync_producers, _viewers, _pending_bytes, …       gauges: what runs here
    resumable_sync_appends_total, _chunks_total, _bytes_total   what was stored from here
    resumable_sync_append_seconds, _append_bytes                histograms, of every append
    resumable_sync_elections_total, _takeovers_total, _releases_total
    resumable_sync_endings_total{status}                        streams that were produced here, by their endings
    resumable_sync_lost_total, _superseded_total                whose ending could not be stored, or was another's
    resumable_sync_store_errors_total{operation}                append, renew, read, end: unavailable, and repeated
    resumable_sync_streams{status}                              of the store, with `list_every` alone

**Several workers.** Each process counts for itself. A scrape that goes through gunicorn's port reaches any one
worker, so its counters would jump between those of all. prometheus_client's multiprocess mode is no help: it
collects what its own metric objects wrote to files, and never calls a collector. So give each worker a port of its
own, have Prometheus scrape all of them, and sum in the query:

    def post_worker_init(worker):                       # gunicorn.conf.py
        registry = CollectorRegistry()
        registry.register(ResumableSyncCollector(context))
        serve_metrics(registry, range(9200, 9200 + 2 * workers))        # the first of them that is free

    scrape_configs: [{job_name: app, static_configs: [{targets: ["host:9200", "host:9201", …]}]}]
    sum(rate(resumable_sync_bytes_total[5m]))

Twice as many ports as workers, because during a reload the old ones still hold theirs. A worker that begins anew
begins at zero, which `rate` takes for the reset that it is. With one process `prometheus_client.make_wsgi_app` on
the application's own port is all that is needed.
"""

from __future__ import annotations

import errno
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .context import ResumableStreamContext
from .contract import ENDINGS, Status
from .errors import ResumableStreamError, StoreUnavailableError
from .interrupts import Event
from .process import PerProcess, start_thread
from .stats import Histogram, Stats

try:
    from prometheus_client import start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        'resumable_sync.metrics needs the Prometheus client: pip install "resumable_sync[metrics]"'
    ) from missing

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["ResumableSyncCollector", "serve_metrics"]

logger = logging.getLogger("resumable_sync")

_SECONDS_POWERS = range(8, 26, 2)  # of microseconds: 256 µs to 16.8 s
_BYTES_POWERS = range(6, 24, 2)  # below 64 bytes to below 4 MiB
_LISTING_PATIENCE = 2.0  # seconds that a scrape waits for its listings, all together


class _Listing(NamedTuple):
    """The streams of a store, as they were listed."""

    at: float
    """Monotonic."""
    by_status: Mapping[Status, int]
    whole: bool


class _StreamCount:
    """Counts the streams of one store by status, not too often, in one process.

    Thread-safe: `_lock` guards all fields. The store is read in a thread of its own, so that one which hangs
    holds up no scrape for long; while that goes on no other begins.
    """

    def __init__(self, context: ResumableStreamContext, every: float, limit: int) -> None:
        self._context = context
        self._every = every
        self._limit = limit
        self._lock = threading.Lock()
        self._found: _Listing | None = None
        self._under_way: threading.Event | None = None
        self._failures = 0

    def begin(self) -> threading.Event | None:
        """Begin a new listing, if it is time for it. What is set once it, or the one under way, has ended."""
        with self._lock:
            begins = None
            if self._under_way is None and (
                self._found is None or time.monotonic() - self._found.at >= self._every
            ):
                begins = self._under_way = Event()
            under_way = self._under_way
        if begins is not None:
            try:
                start_thread(functools.partial(self._list, begins), "resumable-sync-metrics")
            except StoreUnavailableError:  # the process can have no more threads
                self._end(begins, None)
        return under_way

    def get(self) -> tuple[_Listing | None, int]:
        """The latest listing, and how many have failed. Does not wait."""
        with self._lock:
            return self._found, self._failures

    def _list(self, done: threading.Event) -> None:
        found: _Listing | None = None
        try:
            by_status: Counter[Status] = Counter()
            whole = True
            for number, info in enumerate(self._context.store.streams()):
                if number >= self._limit:
                    whole = False
                    break
                by_status[info.status] += 1
            found = _Listing(time.monotonic(), by_status, whole)
        except ResumableStreamError as error:
            logger.debug("the streams could not be counted: %s", error)
        except Exception:
            logger.exception("the streams could not be counted")
        finally:
            self._end(done, found)

    def _end(self, done: threading.Event, found: _Listing | None) -> None:
        with self._lock:
            self._under_way = None
            if found is None:
                self._failures += 1
            else:
                self._found = found
        done.set()


class ResumableSyncCollector(Collector):
    """Collects the figures of a context, or of several, each with the label `context`: its key.

    `list_every`: also count the store's streams by status, in one listing of all of them at most every so many
    seconds (a scrape in between gets the last result, and one waits two seconds at most for new ones, of however
    many contexts; after a listing that failed the next scrape tries again); None, the default, never does.
    `list_limit`: a larger store is counted no further, which `resumable_sync_streams_truncated` tells. Records
    that the library keeps for itself are not counted. Where several workers share a store, one should list.

    Thread-safe. Works in a forked child, which begins at zero. Register it once in a registry.
    """

    def __init__(
        self,
        contexts: ResumableStreamContext | Mapping[str, ResumableStreamContext],
        *,
        list_every: float | None = None,
        list_limit: int = 100_000,
    ) -> None:
        if list_every is not None and not list_every > 0:
            raise ValueError(f"list_every must be a positive number of seconds, not {list_every!r}")
        if list_limit < 1:
            raise ValueError("list_limit must be positive")
        named = isinstance(contexts, Mapping)
        self._labels = ["context"] if named else []
        self._contexts: dict[tuple[str, ...], ResumableStreamContext] = (
            {(name,): context for name, context in contexts.items()}
            if isinstance(contexts, Mapping)
            else {(): contexts}
        )
        self._counts: dict[tuple[str, ...], PerProcess[_StreamCount]] = {}
        if list_every is not None:
            for labels, context in self._contexts.items():
                make = functools.partial(_StreamCount, context, list_every, list_limit)
                self._counts[labels] = PerProcess(make)

    def describe(self) -> Iterable[Metric]:
        """Nothing is read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment; called by a scrape."""
        stats = {labels: context.stats() for labels, context in self._contexts.items()}
        yield from self._gauges(stats)
        yield from self._counters(stats)
        yield self._histogram(
            "append_seconds",
            "Seconds from the beginning of a group commit to its acknowledgement, for each append in it",
            {labels: each.totals.append_seconds for labels, each in stats.items()},
            _SECONDS_POWERS,
        )
        yield self._histogram(
            "append_bytes",
            "Bytes that an append stored",
            {labels: each.totals.append_bytes for labels, each in stats.items()},
            _BYTES_POWERS,
        )
        if self._counts:
            yield from self._streams()

    def _gauges(self, stats: Mapping[tuple[str, ...], Stats]) -> Iterator[Metric]:
        for name, text in (
            ("producers", "Streams that are produced in this process"),
            ("starting", "Elections under way"),
            ("handover", "Producers whose streams another one may go on with"),
            ("stalled", "Producers whose appends are repeated because the store is away"),
            ("blocked", "Producers whose source waits because too much is not stored yet"),
            ("pending_chunks", "Chunks that are made and not stored yet"),
            ("pending_bytes", "Bytes that are made and not stored yet"),
            ("viewers", "Followers that have begun and not ended"),
            ("reading", "Viewers inside a read of the store, where they wait"),
            ("awaiting", "Calls that wait for a stream to begin"),
            ("orphans", "Streams without a producer, when recovery last asked the store"),
            ("draining", "1 while the context drains"),
            ("closed", "1 once the context is closed"),
        ):
            yield self._family(GaugeMetricFamily, name, text, {k: getattr(v, name) for k, v in stats.items()})

    def _counters(self, stats: Mapping[tuple[str, ...], Stats]) -> Iterator[Metric]:
        for name, field, text in (
            ("appends", "appends", "Appends that were stored, each of one stream"),
            ("chunks", "chunks", "Chunks that were stored"),
            ("bytes", "bytes", "Bytes that were stored"),
            ("elections", "elected", "Streams that this process began to produce"),
            ("takeovers", "taken_over", "Streams with which this process went on after another producer"),
            ("releases", "released", "Streams that were let go of, for another producer"),
            ("lost", "lost", "Streams produced here whose ending could not be stored"),
            ("superseded", "superseded", "Streams that another producer had taken over"),
        ):
            values = {labels: getattr(each.totals, field) for labels, each in stats.items()}
            yield self._family(CounterMetricFamily, name, text, values)
        endings = CounterMetricFamily(
            "resumable_sync_endings",
            "Streams that were produced here, by their endings",
            labels=[*self._labels, "status"],
        )
        errors = CounterMetricFamily(
            "resumable_sync_store_errors",
            "How often the store was unavailable to what the library repeats by itself",
            labels=[*self._labels, "operation"],
        )
        for labels, each in stats.items():
            for status in sorted(ENDINGS):
                endings.add_metric([*labels, str(status)], each.totals.endings.get(str(status), 0))
            for operation in ("append", "renew", "read", "end"):
                errors.add_metric([*labels, operation], each.totals.store_errors.get(operation, 0))
        yield endings
        yield errors

    def _family(self, kind: Any, name: str, text: str, values: Mapping[tuple[str, ...], float]) -> Metric:
        family: Any = kind(f"resumable_sync_{name}", text, labels=self._labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        metric: Metric = family
        return metric

    def _histogram(
        self, name: str, text: str, values: Mapping[tuple[str, ...], Histogram], powers: Iterable[int]
    ) -> Metric:
        family = HistogramMetricFamily(f"resumable_sync_{name}", text, labels=self._labels)
        for labels, histogram in values.items():
            # A bucket holds what is at most `le`. Bytes are whole, so those below 2**n are at most 2**n - 1, and
            # 4096 is not among them. Durations are rounded down, to microseconds: they are below 2**n itself.
            whole = 1 if histogram.unit == 1 else 0
            buckets = [(repr((2**n - whole) * histogram.unit), float(histogram.below(n))) for n in powers]
            buckets.append(("+Inf", float(histogram.count)))
            family.add_metric(list(labels), buckets, histogram.total)
        return family

    def _streams(self) -> Iterator[Metric]:
        streams = GaugeMetricFamily(
            "resumable_sync_streams", "Streams of the store, by status", labels=[*self._labels, "status"]
        )
        counts = {labels: count.get() for labels, count in self._counts.items()}
        deadline = time.monotonic() + _LISTING_PATIENCE
        for under_way in [count.begin() for count in counts.values()]:  # all of them, before the first wait
            if under_way is not None:
                under_way.wait(max(0.0, deadline - time.monotonic()))
        truncated, ages, failures = {}, {}, {}
        for labels, count in counts.items():
            found, failures[labels] = count.get()
            if found is None:
                continue
            for status in (Status.STREAMING, *sorted(ENDINGS)):
                streams.add_metric([*labels, str(status)], found.by_status.get(status, 0))
            truncated[labels] = not found.whole
            ages[labels] = time.monotonic() - found.at
        yield streams
        yield self._family(
            GaugeMetricFamily, "streams_truncated", "1 if the store has more streams than were counted", truncated
        )
        yield self._family(GaugeMetricFamily, "streams_age_seconds", "Seconds since they were counted", ages)
        yield self._family(
            CounterMetricFamily, "streams_failures", "How often the streams could not be counted", failures
        )


def serve_metrics(registry: CollectorRegistry, ports: Iterable[int], *, host: str = "127.0.0.1") -> int:
    """Serve the registry's metrics over HTTP, in a thread, at the first of these ports that is free; returns it.

    For each worker of a server to be scraped by itself; see the module's docstring. `host`: who can reach it; it
    asks nobody for a password. Lasts as long as the process. OSError if no port is free. Thread-safe.
    """
    taken: OSError | None = None
    for port in ports:
        try:
            server, _ = start_http_server(port, addr=host, registry=registry)
            return int(server.server_port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            taken = error
    raise taken or OSError(errno.EADDRINUSE, "no port was given")
