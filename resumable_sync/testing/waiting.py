"""The store contract where threads meet: reads that wait, what wakes them, and what they are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one since Python 3.11
from queue import SimpleQueue
from typing import Any

import pytest

from ..contract import Batch, Maintenance, Status, Store
from ..errors import StoreUnavailableError, StreamLostError, StreamNotFoundError
from .kit import CLOCK_TOLERANCE, PATIENCE, ContractKit, acquired, call, drain, guarantee, outcome, race
from .producing import BY_NAME

PAUSE = 0.03
"""Seconds given to a thread to reach its wait. Nothing is proved by it: see `WaitContract._caught`."""

USES: dict[str, Callable[[Store], object]] = {
    "acquire": lambda store: store.acquire("new"),
    "cancel": lambda store: store.cancel("s"),
    "read": lambda store: store.read("s"),
    "read and wait": lambda store: store.read("s", timeout=PATIENCE),
    "status": lambda store: store.status("s"),
    "info": lambda store: store.info("s"),
    "streams": lambda store: list(store.streams()),
    "delete": lambda store: store.delete("s"),
    "sweep": lambda store: store.sweep(),
}


class WaitContract(ContractKit):
    """No wait longer than asked for, none that misses what it waits for."""

    def _caught(self, make: Callable[[], tuple[Future[Batch], Callable[[], object]]]) -> StreamLostError:
        """What a waiting reader gets when its stream goes.

        `make` starts a reader in a thread and gives the act that takes its stream away. Whether the reader
        waits already at that moment cannot be seen, and one that has not yet begun finds no stream at all. So
        there are rounds until one caught the reader waiting.
        """
        for _ in range(50):
            reader, act = make()
            with pytest.raises(FutureTimeoutError):
                reader.result(PAUSE)
            act()
            error = reader.exception(PATIENCE)
            if isinstance(error, StreamLostError):
                return error
            assert isinstance(error, StreamNotFoundError), error or reader.result()
        raise AssertionError("a waiting reader was never told that its stream was lost")

    @guarantee("G10")
    def test_a_wait_takes_its_time_and_no_more(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        for timeout in (0.0, 0.2):
            begin = time.monotonic()
            batch = store.read("s", timeout=timeout)
            taken = time.monotonic() - begin
            assert (batch.data, batch.status, batch.cursor) == (b"", Status.STREAMING, lease.cursor)
            assert timeout - CLOCK_TOLERANCE <= taken < timeout + PATIENCE / 3

    @guarantee("G1")
    def test_what_is_there_is_not_waited_for(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.append(lease, b"data")
        begin = time.monotonic()
        assert store.read("s", timeout=PATIENCE).data == b"data"
        store.finalize(lease, Status.DONE)
        assert store.read("s", lease.cursor, timeout=PATIENCE).status is Status.DONE
        assert time.monotonic() - begin < PATIENCE / 3

    @guarantee("G1")
    @pytest.mark.parametrize("across", [False, True], ids=["same store", "second store"])
    def test_no_wake_up_is_lost(self, across: bool) -> None:
        store = self.new()
        reading = self.second(store) if across else store
        lease = acquired(store, "s")
        received: SimpleQueue[bytes] = SimpleQueue()
        rounds = 150

        def follow() -> None:
            after = lease.cursor
            for _ in range(rounds):
                batch = reading.read("s", after, timeout=PATIENCE)
                received.put(batch.data)
                after = batch.cursor

        begin = time.monotonic()
        reader = call(follow)
        for number in range(rounds):
            store.append(lease, b"%d" % number)
            assert received.get(timeout=PATIENCE) == b"%d" % number  # b"" had the wait run out instead
        reader.result(PATIENCE)
        assert time.monotonic() - begin < PATIENCE

    @guarantee("G1", "G9")
    def test_every_waiting_reader_is_woken(self) -> None:
        store = self.new()
        stores = store, self.second(store)
        lease = acquired(store, "s")
        received: SimpleQueue[bytes] = SimpleQueue()

        def follow(number: int) -> bytes:
            data, after = b"", ""
            while len(data) < number + 1:  # the readers leave one after another, the producer goes on
                batch = stores[number % 2].read("s", after, timeout=PATIENCE)
                assert batch.data
                data, after = data + batch.data, batch.cursor
                received.put(batch.data)
            return data

        readers = [call(follow, number) for number in range(8)]
        for number in range(8):
            store.append(lease, b"%d" % number)
            for _ in range(8 - number):
                assert received.get(timeout=PATIENCE) == b"%d" % number
        assert [reader.result(PATIENCE) for reader in readers] == [
            b"01234567"[: number + 1] for number in range(8)
        ]
        assert store.status("s") is Status.STREAMING

    @guarantee("G5", "G9")
    @pytest.mark.parametrize("ending", BY_NAME)
    def test_an_ending_wakes_readers(self, ending: Status) -> None:
        store = self.new()
        lease = acquired(store, "s")
        readers = [call(other.read, "s", timeout=PATIENCE) for other in (store, self.second(store))]
        with pytest.raises(FutureTimeoutError):
            readers[0].result(PAUSE)
        if ending is Status.CANCELLED:
            assert store.cancel("s")
        else:
            store.finalize(lease, ending)
        begin = time.monotonic()
        for reader in readers:
            batch = reader.result(PATIENCE)
            assert (batch.data, batch.status) == (b"", ending)
        assert time.monotonic() - begin < PATIENCE / 3

    @guarantee("G6")
    @pytest.mark.parametrize("across", [False, True], ids=["same store", "second store"])
    @pytest.mark.parametrize("at_start", [False, True], ids=["by cursor", "from the start"])
    def test_delete_under_a_waiting_reader(self, across: bool, at_start: bool) -> None:
        store = self.new()
        other = self.second(store) if across else store

        def make() -> tuple[Future[Batch], Callable[[], object]]:
            lease = acquired(store, "s")
            after = "" if at_start else lease.cursor
            return call(other.read, "s", after, timeout=PATIENCE), lambda: store.delete("s")

        assert self._caught(make).code == "lost"

    @guarantee("G6")
    def test_clear_under_a_waiting_reader(self) -> None:
        store = self.new()
        if not isinstance(store, Maintenance):
            pytest.skip("this store has no Maintenance")
        clear = store.clear

        def make() -> tuple[Future[Batch], Callable[[], object]]:
            lease = acquired(store, "s")
            return call(store.read, "s", lease.cursor, timeout=PATIENCE), clear

        assert self._caught(make).code == "lost"

    @guarantee("G1", "G6")
    def test_replacement_under_a_waiting_reader(self) -> None:
        store = self.new()
        other = self.second(store)
        for _ in range(20):
            lease = acquired(store, "s")
            store.append(lease, b"old")
            reader = call(other.read, "s", lease.cursor, timeout=PATIENCE)
            store.delete("s")
            new = acquired(store, "s")
            store.append(new, b"new bytes")
            # Lost if it waited or came late; it may also have come between the two, to no stream.
            assert isinstance(reader.exception(PATIENCE), (StreamLostError, StreamNotFoundError))
            store.delete("s")

    @guarantee("G6")
    def test_expiry_under_a_waiting_reader(self) -> None:
        store = self.new()

        def make() -> tuple[Future[Batch], Callable[[], object]]:
            acquired(store, "s", ttl=2.0)  # far longer than it takes to begin to wait
            return call(store.read, "s", timeout=PATIENCE / 3), lambda: None

        begin = time.monotonic()
        assert self._caught(make).code == "lost"
        assert time.monotonic() - begin >= 2.0 - CLOCK_TOLERANCE
        assert store.status("s") is Status.MISSING

    @guarantee("G7")
    def test_wake_ends_waits_early(self) -> None:
        store = self.new()
        for name in "ab":
            acquired(store, name)
        readers = [call(store.read, name, timeout=PATIENCE) for name in "ab"]
        begin = time.monotonic()
        for reader in readers:
            while True:  # a wake before the wait has begun does nothing
                store.wake()
                if not isinstance(outcome(reader.result, PAUSE), FutureTimeoutError):
                    break
                assert time.monotonic() - begin < PATIENCE / 3
        assert [(reader.result().data, reader.result().status) for reader in readers] == [(b"", "streaming")] * 2
        begin = time.monotonic()
        assert store.read("a", timeout=0.2).data == b""  # later reads are not concerned
        assert time.monotonic() - begin >= 0.2 - CLOCK_TOLERANCE

    @guarantee("G10")
    def test_close_wakes_readers(self) -> None:
        store = self.new()
        acquired(self.second(store), "s")  # a store that closes may end what it produces itself
        readers = [call(store.read, "s", timeout=PATIENCE) for _ in range(4)]
        with pytest.raises(FutureTimeoutError):
            readers[0].result(PAUSE)
        begin = time.monotonic()
        race(4, lambda _: store.close())
        for reader in readers:
            assert isinstance(reader.exception(PATIENCE), StoreUnavailableError)
        assert time.monotonic() - begin < PATIENCE / 3

    @guarantee("G10")
    def test_close_meets_readers_that_just_begin(self) -> None:
        for _ in range(10):
            store = self.new()

            def act(number: int) -> object:
                if number == 0:
                    store.close()
                    return None
                producing = outcome(store.acquire, f"s{number}")
                return producing, outcome(store.read, f"s{number}", timeout=PATIENCE)

            begin = time.monotonic()
            for result in race(5, act)[1:]:
                assert isinstance(result, tuple)
                # A store that closes may end what it produces itself, and a read may see just that.
                ended = isinstance(result[1], Batch) and result[1].status is Status.INTERRUPTED
                assert ended or isinstance(result[1], StoreUnavailableError), result
            assert time.monotonic() - begin < PATIENCE / 3

    @guarantee("G10")
    def test_a_closed_store_refuses_everything(self) -> None:
        store = self.new()
        lease = acquired(store, "s")
        store.close()
        store.close()
        for name, use in USES.items():
            error = outcome(use, store)
            assert isinstance(error, StoreUnavailableError), f"{name}: {error!r}"
        with pytest.raises(StoreUnavailableError):
            store.append(lease, b"x")
        with pytest.raises(StoreUnavailableError):
            store.finalize(lease, Status.DONE)
        results: list[Any] = [*store.append_many([(lease, [b"x"])]), *store.renew([lease])]
        assert [type(result) for result in results] == [StoreUnavailableError] * 2
        assert lease.offset == 0

    @guarantee("G1", "G2")
    def test_threads_do_not_disturb_one_another(self) -> None:
        store = self.new()
        stores = store, self.second(store)

        def work(number: int) -> None:
            mine, other = stores[number % 2], stores[1 - number % 2]
            for _ in range(4):
                lease = acquired(mine, f"s{number}")
                written = b""
                for step in range(15):
                    chunk = b"%d/%d;" % (number, step)
                    mine.append_many([(lease, [chunk])])
                    written += chunk
                    assert other.read(lease.stream_id, f"{lease.generation}-{len(written) - 1}").data == b";"
                assert mine.renew([lease]) == [None]
                assert lease.stream_id in [info.stream_id for info in other.streams()]
                mine.finalize(lease, Status.DONE)
                data, last = drain(other, lease.stream_id, max_bytes=11)
                assert (data, last.status) == (written, Status.DONE)
                assert other.delete(lease.stream_id)

        race(6, work)
        assert list(store.streams()) == []

    @guarantee("G2", "G8")
    def test_closing_one_instance_leaves_the_data(self) -> None:
        store = self.new()
        other = self.second(store)
        if other is store:
            pytest.skip("a store of one process")
        lease = acquired(store, "s")
        store.append(lease, b"kept")
        store.finalize(lease, Status.DONE)
        running = acquired(other, "t")
        store.close()
        assert (other.read("s").data, other.status("s")) == (b"kept", Status.DONE)
        other.append(running, b"goes on")
        assert other.read("t").data == b"goes on"
