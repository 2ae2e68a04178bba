"""The collector in a real registry, scraped over HTTP and read by prometheus_client's own parser."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from resumable_sync import MemoryStore, ResumableStreamContext, Store, StreamInfo
from resumable_sync.metrics import ResumableSyncCollector, serve_metrics

from .support import wait_until
from .wsgi.application import TEXT
from .wsgi.servers import Gunicorn

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        text = response.read().decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            key = (sample.name.removeprefix("resumable_sync_"), tuple(sorted(sample.labels.items())))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def served(collector: ResumableSyncCollector) -> int:
    registry = CollectorRegistry()
    registry.register(collector)
    return serve_metrics(registry, free_ports(3))


def test_a_scrape(store: Store) -> None:
    started, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[bytes]:
        yield b"x" * 100
        started.set()
        go_on.wait(60)

    with ResumableStreamContext(store) as context:
        port = served(ResumableSyncCollector(context, list_every=0.001))
        assert value(scrape(port), "bytes_total") == 0
        context.produce("a", lambda: [b"a" * 1000])
        context.start("b", source)
        started.wait(60)
        wait_until(lambda: value(scrape(port), "bytes_total") == 1100)
        samples = scrape(port)
        assert value(samples, "producers") == 1 and value(samples, "viewers") == 0
        assert value(samples, "elections_total") == 2 and value(samples, "takeovers_total") == 0
        assert value(samples, "endings_total", status="done") == 1
        assert value(samples, "endings_total", status="interrupted") == 0
        assert value(samples, "store_errors_total", operation="append") == 0
        assert value(samples, "appends_total") == value(samples, "append_bytes_count") == 2
        assert value(samples, "append_bytes_sum") == 1100 and value(samples, "chunks_total") == 2
        assert value(samples, "append_bytes_bucket", le="63") == 0
        assert value(samples, "append_bytes_bucket", le="255") == 1
        assert value(samples, "append_bytes_bucket", le="1023") == 2
        assert value(samples, "append_seconds_count") == value(samples, "append_seconds_bucket", le="+Inf") == 2
        assert 0 < value(samples, "append_seconds_sum") < 120
        assert value(samples, "streams", status="done") == value(samples, "streams", status="streaming") == 1
        assert value(samples, "streams_truncated") == 0 and value(samples, "streams_failures_total") == 0
        context.cancel("b")
        go_on.set()
        wait_until(lambda: value(scrape(port), "endings_total", status="cancelled") == 1)
    assert value(scrape(port), "closed") == 1


def test_buckets_only_grow() -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        context.produce("a", lambda: [b"x" * size for size in (1, 10, 100, 1000, 10_000, 100_000)] * 20)
        samples = scrape(served(ResumableSyncCollector(context)))
    for name in ("append_bytes", "append_seconds"):
        buckets = [
            (float(dict(labels)["le"]), found)
            for (each, labels), found in samples.items()
            if each == f"{name}_bucket"
        ]
        assert len(buckets) == 10 and buckets == sorted(buckets)
        assert [found for _, found in buckets] == sorted(found for _, found in buckets)
        assert buckets[-1] == (float("inf"), value(samples, f"{name}_count"))
    assert not any(name.startswith("streams") for name, _ in samples)  # a listing costs I/O: only on demand


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    sizes = (63, 64, 255, 256, 4095, 4096)
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        for size in sizes:
            with context.writer(str(size)) as out:
                out.write(b"x" * size)
        samples = scrape(served(ResumableSyncCollector(context)))
    for (name, labels), found in samples.items():
        if name == "append_bytes_bucket":
            assert found == sum(size <= float(dict(labels)["le"]) for size in sizes), labels


def test_several_contexts_have_a_label() -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as one, ResumableStreamContext(store) as two:
        one.produce("a", lambda: [b"12345"])
        two.produce("b", lambda: [b"1"])
        samples = scrape(served(ResumableSyncCollector({"one": one, 'tw"o\n': two}, list_every=60)))
        assert value(samples, "bytes_total", context="one") == 5
        assert value(samples, "bytes_total", context='tw"o\n') == 1
        assert value(samples, "append_bytes_count", context="one") == 1
        assert value(samples, "streams", context="one", status="done") == 2


class Slow(MemoryStore):
    """A store whose listing hangs, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.listings = 0

    def _streams(self) -> Iterator[StreamInfo]:
        self.listings += 1
        assert self.go_on.wait(60)
        return super()._streams()


def test_a_listing_that_hangs_holds_up_no_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable_sync.metrics._LISTING_PATIENCE", 0.05)
    with Slow() as store, ResumableStreamContext(store) as context:
        port = served(ResumableSyncCollector(context, list_every=1000, list_limit=2))
        for stream_id in ("a", "b", "c"):
            context.produce(stream_id, lambda: [b"x"])
        for _ in range(3):
            samples = scrape(port)
            assert value(samples, "appends_total") == 3
            assert ("streams", (("status", "done"),)) not in samples
        assert store.listings == 1
        store.go_on.set()
        wait_until(lambda: ("streams", (("status", "done"),)) in scrape(port))
        samples = scrape(port)
        assert (value(samples, "streams", status="done"), value(samples, "streams_truncated")) == (2, 1)
        assert store.listings == 1  # the last result, for `list_every` seconds


def test_listings_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """None begins only after another one was given up, however many contexts there are."""
    monkeypatch.setattr("resumable_sync.metrics._LISTING_PATIENCE", 60.0)
    with ExitStack() as stack:
        stores = [stack.enter_context(Slow()) for _ in range(3)]
        contexts = {str(n): stack.enter_context(ResumableStreamContext(store)) for n, store in enumerate(stores)}
        collector = ResumableSyncCollector(contexts, list_every=1000)
        scraper = threading.Thread(target=lambda: list(collector.collect()))
        scraper.start()
        wait_until(lambda: [store.listings for store in stores] == [1, 1, 1])
        for store in stores:
            store.go_on.set()
        scraper.join(60)
        (streams,) = [each for each in collector.collect() if each.name == "resumable_sync_streams_age_seconds"]
        assert len(streams.samples) == 3


def test_a_listing_that_fails_is_counted() -> None:
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        port = served(ResumableSyncCollector(context, list_every=1000))
        store.close()
        assert value(scrape(port), "streams_failures_total") == 1
        assert value(scrape(port), "streams_failures_total") == 2


def test_bad_settings() -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        for options in (
            {"list_every": 0.0},
            {"list_every": -1.0},
            {"list_every": float("nan")},
            {"list_limit": 0},
        ):
            with pytest.raises(ValueError, match="list_"):
                ResumableSyncCollector(context, **options)
        with pytest.raises(OSError, match="no port"):
            serve_metrics(CollectorRegistry(), [])
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError, match="in use"):
            serve_metrics(CollectorRegistry(), [listener.getsockname()[1]])


def test_each_worker_of_gunicorn_is_scraped_by_itself(tmp_path: Path) -> None:
    ports = free_ports(4)
    url = f"sqlite:///{tmp_path}/x.db"
    settings = {"TEST_METRICS_PORTS": ",".join(map(str, ports))}

    def found() -> list[Samples]:
        samples = []
        for port in ports:
            try:
                samples.append(scrape(port))
            except urllib.error.URLError:  # nobody listens there
                continue
        return samples

    conf = str(Path(__file__).with_name("metrics_conf.py"))
    with Gunicorn(tmp_path, url, "--workers", "2", "--config", conf, settings=settings) as server:
        wait_until(lambda: len(found()) == 2)
        for number in range(8):
            connection = server.get(f"/sse/s{number}?source=whole")
            assert b"event: end" in connection.read()
            connection.leave()
        # Each has its own share of what was done, and sees all of the store.
        size = 8 * sum(map(len, TEXT))
        wait_until(lambda: sum(value(each, "endings_total", status="done") for each in found()) == 8)
        assert sum(value(each, "bytes_total") for each in found()) == size
        wait_until(lambda: [value(each, "streams", status="done") for each in found()] == [8, 8])
