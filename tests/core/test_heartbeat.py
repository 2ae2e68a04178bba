"""When leases are renewed: the decision by itself, and the thread beside stores that are slow or hang."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from resumable_sync import (
    Lease,
    LeaseLostError,
    MemoryStore,
    ProducerInterruptedError,
    ResumableStreamContext,
    ResumableStreamError,
    Store,
    StoreUnavailableError,
    StreamFinalizedError,
    current_producer,
)
from resumable_sync.committer import committer_for
from resumable_sync.heartbeat import Heartbeat, Pulse, take_due

from ..backends import BACKEND_PARAMS, BACKENDS
from ..support import PATIENCE, wait_until

TIMEOUT = 20.0
NOW = 1000.0
INTERVAL = 5.0


def pulse(renew_in: float, signed_ago: float | None) -> Pulse:
    made = Pulse(Lease("s", 1), INTERVAL)
    made.renew_at = NOW + renew_in
    if signed_ago is not None:
        made.signed_at = NOW - signed_ago
    return made


@pytest.mark.parametrize(
    "pulses, due, look_in",
    [
        ([], [], math.inf),
        ([(2, None)], [], 2),
        ([(0, None)], [0], 1),  # and again soon, unless the renewal succeeds
        ([(-3, None)], [0], 1),
        ([(0.9, None)], [], 0.9),
        ([(0, None), (0.9, None), (1.1, None)], [0, 1], 1),  # those that are nearly due go along
        ([(0, 2)], [], 3),  # an append has renewed it meanwhile
        ([(0, 4.5)], [], 0.5),
        ([(0, 4.5), (-1, None)], [0, 1], 0.5 + 0.5),
    ],
)
def test_what_is_due(pulses: list[tuple[float, float | None]], due: list[int], look_in: float) -> None:
    """Each: in how many seconds it is to be looked at, and how long ago an append succeeded."""
    made = [pulse(*each) for each in pulses]
    found, look_at = take_due(made, NOW)
    assert found == [made[number] for number in due] and look_at == NOW + look_in


@pytest.mark.parametrize("signed_ago", [None, 0])
def test_one_that_is_asked_for_is_due_once_even_if_an_append_has_just_succeeded(signed_ago: float | None) -> None:
    made = pulse(4, signed_ago)
    made.asked = True
    assert take_due([made], NOW)[0] == [made]
    assert take_due([made], NOW)[0] == []


class Recorder:
    """Of a store, only what renews: what it was asked, and what it answers."""

    def __init__(self, answer: Callable[[Lease], ResumableStreamError | None] = lambda lease: None) -> None:
        self.grace = 0.6
        self.answer = answer
        self.renewed: list[str] = []

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        self.renewed += [lease.stream_id for lease in leases]
        return [self.answer(lease) for lease in leases]


def started(store: Any, *ids: str, interval: float = 0.02) -> tuple[Heartbeat, list[Pulse], list[Any]]:
    heartbeat, refused = Heartbeat(store), list[Any]()
    pulses = [Pulse(Lease(stream_id, 1), interval) for stream_id in ids]
    for each in pulses:
        heartbeat.add(each, refused.append)
    return heartbeat, pulses, refused


def test_each_is_renewed_again_and_again_until_it_is_removed() -> None:
    store = Recorder()
    heartbeat, pulses, refused = started(store, "s", "t")
    wait_until(lambda: store.renewed.count("s") > 3 and store.renewed.count("t") > 3)
    for each in pulses:
        heartbeat.remove(each)
        heartbeat.remove(each)
    assert refused == []


def test_a_refusal_is_told_once_and_ends_the_renewals() -> None:
    error = StreamFinalizedError("cancelled", status="cancelled")
    store = Recorder(lambda lease: error if lease.stream_id == "s" else None)
    heartbeat, pulses, refused = started(store, "s", "t")
    wait_until(lambda: store.renewed.count("t") > 5)
    assert refused == [error] and store.renewed.count("s") == 1
    heartbeat.remove(pulses[1])


@pytest.mark.parametrize(
    "trouble", [StoreUnavailableError("away"), RuntimeError("a fault"), KeyboardInterrupt(), MemoryError()]
)
def test_what_fails_for_the_moment_is_repeated(trouble: BaseException) -> None:
    class Failing(Recorder):
        def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
            results = super().renew(leases)
            if len(self.renewed) < 3:
                raise trouble
            return results

    store = Failing()
    heartbeat, (only,), refused = started(store, "s")
    wait_until(lambda: len(store.renewed) > 5)
    assert refused == []
    heartbeat.remove(only)


def test_one_that_raises_when_it_is_told_leaves_the_others_alone() -> None:
    store = Recorder(lambda lease: None if lease.stream_id == "other" else LeaseLostError("lost"))
    heartbeat, told = Heartbeat(cast(Store, store)), threading.Event()

    def fail(error: ResumableStreamError) -> None:
        raise RuntimeError("an application's fault")

    pulses = [Pulse(Lease(stream_id, 1), 0.02) for stream_id in ("s", "t", "other")]
    for each, on_refused in zip(pulses, (fail, lambda error: told.set(), lambda error: None)):
        heartbeat.add(each, on_refused)
    assert told.wait(TIMEOUT)
    wait_until(lambda: store.renewed.count("other") > 3)
    heartbeat.remove(pulses[2])


def test_it_is_asked_for_at_once() -> None:
    store = Recorder()
    heartbeat, (only,), _ = started(store, "s", interval=TIMEOUT * 10)
    only.signed_at = time.monotonic()
    heartbeat.ask(only)
    wait_until(lambda: store.renewed == ["s"])
    heartbeat.remove(only)


class Hanging(MemoryStore):
    """A store whose appends hang, as on a server that was frozen, while it answers everything else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.hangs = False
        self.hanging, self.go_on = threading.Event(), threading.Event()

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        if self.hangs:
            self.hanging.set()
            assert self.go_on.wait(TIMEOUT)
        return super().append_many(batches, *rest)


def test_an_append_that_hangs_costs_nobody_the_lease() -> None:
    """G7: neither the silent producers of the process, nor the one whose append hangs."""
    store, free = Hanging(grace=2.0), threading.Event()

    def silent() -> Iterator[bytes]:
        yield b"x"
        free.wait(TIMEOUT)

    numbers = [b"%d " % number for number in range(100)]
    with ResumableStreamContext(store) as context:
        assert next(context.run("silent", silent)) == b"x"
        store.hangs = True
        viewer = context.run("busy", lambda: numbers)
        assert store.hanging.wait(TIMEOUT)
        until = time.monotonic() + 1.5 * store.grace
        while time.monotonic() < until:
            assert store.status("silent") == store.status("busy") == "streaming"
            free.wait(0.01)
        store.go_on.set()
        assert b"".join(viewer) == b"".join(numbers)
        free.set()
        assert b"".join(context.require_resume("silent")) == b"x"
    store.close()


def test_an_append_that_hangs_hides_no_cancel() -> None:
    """G9: a producer learns within a heartbeat that it was cancelled elsewhere."""
    store, learned = Hanging(), threading.Event()

    def silent() -> Iterator[bytes]:
        producer = current_producer()
        yield b"x"
        if producer.cancelled.wait(TIMEOUT):
            learned.set()

    with ResumableStreamContext(store, heartbeat=0.05) as context:
        assert next(context.run("silent", silent)) == b"x"
        store.hangs = True
        viewer = context.run("busy", lambda: [b"x"] * 100)
        assert store.hanging.wait(TIMEOUT)
        assert store.cancel("silent") and learned.wait(TIMEOUT / 2)
        store.go_on.set()
        assert b"".join(viewer) == b"x" * 100
    store.close()


class TwoServers(MemoryStore):
    """Streams with ids that begin with "a" are kept on one server, the others on another, which hangs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.hanging, self.go_on = threading.Event(), threading.Event()

    def route(self, stream_id: str) -> str:
        return stream_id[0]

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        self._hang([lease for lease, _ in batches])
        return super().append_many(batches, *rest)

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        self._hang(leases)
        return super().renew(leases)

    def _hang(self, leases: Sequence[Lease]) -> None:
        assert len({self.route(lease.stream_id) for lease in leases}) == 1
        if leases[0].stream_id.startswith("b"):
            self.hanging.set()
            assert self.go_on.wait(TIMEOUT)


def test_a_server_that_hangs_holds_up_no_stream_of_another() -> None:
    store, free = TwoServers(grace=2.0), threading.Event()

    def silent() -> Iterator[bytes]:
        yield b"x"
        free.wait(TIMEOUT)

    with ResumableStreamContext(store) as context:
        assert next(context.run("a-silent", silent)) == b"x"
        stuck = context.run("b-stuck", lambda: [b"x"] * 100)
        assert store.hanging.wait(TIMEOUT)
        until, round_number = time.monotonic() + 1.5 * store.grace, 0
        while time.monotonic() < until:
            round_number += 1
            assert b"".join(context.run(f"a{round_number}", lambda: [b"whole"] * 50)) == b"whole" * 50
            assert store.status("a-silent") == "streaming"
        store.go_on.set()
        with pytest.raises(ProducerInterruptedError):  # nobody could renew that one
            b"".join(stuck)
        free.set()
        assert b"".join(context.require_resume("a-silent")) == b"x"
    store.close()


class Distant:
    """A store some time away: every append and renewal takes that much longer."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        time.sleep(self._seconds)
        return self._store.append_many(batches)

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        time.sleep(self._seconds)
        return self._store.renew(leases)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.005])
@pytest.mark.parametrize("kind", BACKEND_PARAMS)
def test_a_busy_process_renews_its_silent_producer_and_hears_of_cancels(kind: str, seconds: float) -> None:
    """G7, G8, G9: beside a source that is always ready, at whatever distance the store is."""
    backend = BACKENDS[kind]()
    store = backend.make(grace=2.5, max_entries=1_000_000_000)
    stop, told = threading.Event(), threading.Event()

    def busy() -> Iterator[bytes]:
        while not stop.is_set():
            yield b"x"

    def silent() -> Iterator[bytes]:
        producer = current_producer()
        yield b"x"
        if producer.cancelled.wait(PATIENCE):
            told.set()

    with ResumableStreamContext(cast(Store, Distant(store, seconds))) as context:
        context.start("silent", silent)
        context.start("busy", busy)
        until = time.monotonic() + 1.5 * store.grace
        while time.monotonic() < until:
            assert store.status("silent") == store.status("busy") == "streaming"
            stop.wait(0.05)
        assert store.cancel("silent")  # as another process would do it
        assert told.wait(PATIENCE)
        stop.set()
        for _ in context.batches("busy"):
            pass
    store.close()
    backend.close()


class Touched(MemoryStore):
    """Remembers what was touched; the first calls raise."""

    def __init__(self, *troubles: BaseException) -> None:
        super().__init__()
        self.troubles = list(troubles)
        self.touched: list[str] = []

    def touch(self, stream_id: str) -> bool:
        self.touched.append(stream_id)
        if self.troubles:
            raise self.troubles.pop()
        return super().touch(stream_id)


def test_a_shared_stream_is_kept_alive_until_it_is_let_go_of() -> None:
    with Touched(StoreUnavailableError("away"), RuntimeError("a fault")) as store:
        assert store.create("s") is not None
        let_go = committer_for(store, "s").keep_alive("s", 0.06)
        gone = committer_for(store, "gone").keep_alive("gone", 0.06)
        wait_until(lambda: store.touched.count("s") > 5)
        assert store.touched.count("gone") <= 3  # once the store has said so, it is not asked again
        for each in let_go, gone, let_go:
            each()
