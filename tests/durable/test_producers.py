"""Idempotent producers: the rules against a model, and over the stores."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync.contract import Store
from resumable_sync.durable import producers
from resumable_sync.durable.producers import Claim, Progress, Verdict, decide
from resumable_sync.stores.memory import MemoryStore

from .support import Client, Reply, client, producer, read_all

ATTEMPTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 4)), max_size=25)


class Model:
    """What a stream holds and answers, by a list of all that was ever stored."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, int, int]] = []

    def append(self, name: str, epoch: int, seq: int) -> tuple[int, str | None]:
        """The status, and the number that goes with it."""
        mine = [(e, s) for n, e, s in self.stored if n == name]
        newest = max((e for e, _ in mine), default=None)
        if newest is not None and epoch < newest:
            return 403, str(newest)
        seqs = [s for e, s in mine if e == epoch]
        if seqs and seq <= max(seqs):
            return 204, str(max(seqs))
        if seq != len(seqs):
            return (400, None) if mine and not seqs else (409, str(len(seqs)))
        self.stored.append((name, epoch, seq))
        return 200, str(seq)


@given(ATTEMPTS)
def test_a_random_program_is_answered_as_by_the_model(attempts: list[tuple[str, int, int]]) -> None:
    """On one store with two applications, which remember different things."""
    store, model = MemoryStore(), Model()
    apps = [client(store), client(store)]
    apps[0].put("s")
    for number, (name, epoch, seq) in enumerate(attempts):
        reply = apps[number * 7 % 2].post("s", f"{name}{epoch}{seq}.", **producer(seq, epoch, name))
        status, detail = model.append(name, epoch, seq)
        assert reply.status == status
        header = {200: "producer-seq", 204: "producer-seq", 403: "producer-epoch", 409: "producer-expected-seq"}
        assert status == 400 or reply.headers[header[status]] == detail
        assert status == 400 or reply.offset == apps[0].head("s").offset
    assert read_all(apps[1], "s") == "".join(f"{n}{e}{s}." for n, e, s in model.stored).encode()
    store.close()


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), st.text("\x20\x7eäÿ.#%/", min_size=1, max_size=400))
def test_what_a_note_says_is_read_back(epoch: int, seq: int, name: str) -> None:
    claim = Claim(name, epoch, seq)
    progress = producers.progress_of(producers.new_value(claim))
    assert progress is not None and progress[:2] == (epoch, seq)
    assert decide(claim, progress) is Verdict.REPEATED
    assert claim.note.isascii() and len(claim.note) <= 300


def test_ids_have_notes_of_their_own() -> None:
    names = ["a", "A", "a.b", "a%2Eb", "x" * 300, "x" * 301, "#", "%23", "ä", "Ã¤"]
    assert len({Claim(name, 0, 0).note for name in names}) == len(names)


@pytest.mark.parametrize(
    "progress, epoch, seq, verdict",
    [
        (None, 0, 0, Verdict.NEXT),
        (None, 5, 0, Verdict.NEXT),
        (None, 0, 1, Verdict.GAP),
        (Progress(1, 4, 0), 0, 5, Verdict.STALE),
        (Progress(1, 4, 0), 2, 0, Verdict.NEXT),
        (Progress(1, 4, 0), 2, 1, Verdict.LATE_START),
        (Progress(1, 4, 0), 1, 0, Verdict.REPEATED),
        (Progress(1, 4, 0), 1, 4, Verdict.REPEATED),
        (Progress(1, 4, 0), 1, 5, Verdict.NEXT),
        (Progress(1, 4, 0), 1, 6, Verdict.GAP),
    ],
)
def test_verdicts(progress: Progress | None, epoch: int, seq: int, verdict: Verdict) -> None:
    assert decide(Claim("p", epoch, seq), progress) is verdict


BAD: list[dict[str, str]] = [
    {"Producer_Id": "p"},
    {"Producer_Id": "p", "Producer_Epoch": "0"},
    {"Producer_Epoch": "0", "Producer_Seq": "0"},
    {"Producer_Id": ""},
    {"Producer_Id": "", "Producer_Epoch": "0", "Producer_Seq": "0"},
    *({"Producer_Id": "p", "Producer_Epoch": "0", "Producer_Seq": text} for text in ("", "-1", "+1", "1.0", "x")),
    *(
        {"Producer_Id": "p", "Producer_Epoch": text, "Producer_Seq": "0"}
        for text in ("", str(2**53), "9" * 40, "٠")
    ),
]


@pytest.mark.parametrize("headers", BAD, ids=str)
def test_malformed_headers_store_nothing(headers: dict[str, str]) -> None:
    ask = client(MemoryStore())
    ask.put("s")
    assert ask.post("s", "x", **headers).status == 400
    assert ask.post("none", "x", **headers).status == 400  # before anything is looked up
    assert read_all(ask, "s") == b""


def test_every_process_answers_alike(store: Store) -> None:
    one, other = client(store), client(store)
    one.put("s")
    for number in range(3):
        assert one.post("s", f"{number}", **producer(number)).status == 200
        repeated = other.post("s", f"{number}", **producer(number))
        assert repeated.status == 204
        assert repeated.headers["producer-seq"] == f"{number}"
        assert repeated.offset == one.head("s").offset
    assert other.post("s", "3", **producer(3)).status == 200
    assert one.post("s", "4", **producer(4)).status == 200  # what it remembers is old
    assert one.post("s", "5", **producer(0, 1)).status == 200
    fenced = other.post("s", "x", **producer(5))
    assert fenced.status == 403 and fenced.headers["producer-epoch"] == "1"
    gap = other.post("s", "x", **producer(7, 1))
    assert gap.status == 409
    assert (gap.headers["producer-expected-seq"], gap.headers["producer-received-seq"]) == ("1", "7")
    assert read_all(one, "s") == b"012345"


def test_what_is_refused_does_not_count(store: Store) -> None:
    """Neither invalid JSON, nor another type, nor a Stream-Seq that is too low, is an append of the producer."""
    ask = client(store)
    ask.put("s", Content_Type="application/json")
    for body, kind, status in (
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("1", "text/plain", 409),
    ):
        assert ask.post("s", body, Content_Type=kind, **producer(0)).status == status
    assert ask.post("s", "1", Content_Type="application/json", Stream_Seq="b", **producer(0)).status == 200
    assert ask.post("s", "2", Content_Type="application/json", Stream_Seq="a", **producer(1)).status == 409
    assert ask.post("s", "2", Content_Type="application/json", Stream_Seq="c", **producer(1)).status == 200
    again = ask.post("s", "2", Content_Type="application/json", Stream_Seq="a", **producer(1))
    assert again.status == 204  # a repeated append, whatever its Stream-Seq
    assert read_all(ask, "s") == b"[1,2]"


def test_a_close_takes_part(store: Store) -> None:
    ask, other = client(store), client(store)
    ask.put("s")
    ask.post("s", "a", **producer(0))
    close = {"Stream_Closed": "true", **producer(1)}
    assert ask("POST", "s", None, {"Stream-Closed": "true", "Producer-Id": "p"}).status == 400
    assert _close(ask, producer(2)).status == 409
    assert _close(ask, producer(1)).status == 204
    assert _close(other, producer(1)).status == 204
    assert _close(other, producer(0)).status == 409
    assert _close(other, producer(1, name="q")).status == 409
    assert other("POST", "s", None, {"Stream-Closed": "true"}).status == 204
    refused = ask.post("s", "b", **producer(2))
    assert refused.status == 409 and refused.headers["stream-closed"] == "true" and refused.offset
    assert ask.post("s", "b", **close).status == 204
    assert read_all(other, "s") == b"a"


def test_a_last_append_that_closes(store: Store) -> None:
    ask = client(store)
    ask.put("s")
    first = ask.post("s", "a", Stream_Closed="true", **producer(0))
    again = ask.post("s", "a", Stream_Closed="true", **producer(0))
    assert (first.status, again.status) == (200, 204)
    assert first.headers["stream-closed"] == again.headers["stream-closed"] == "true"
    assert read_all(ask, "s") == b"a"


def _close(ask: Client, headers: dict[str, str]) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask("POST", "s", None, {"Stream-Closed": "true", **named})


def test_producers_are_bounded_and_idle_ones_make_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = client(store, max_writers=2)
    ask.put("s")
    for name in "ab":
        assert ask.post("s", name, **producer(0, name=name)).status == 200
    assert ask.post("s", "c", **producer(0, name="c")).status == 413
    monkeypatch.setattr(producers, "IDLE_SECONDS", -60)
    assert ask.post("s", "c", **producer(0, name="c")).status == 200
    assert ask.post("s", "a", **producer(1, name="a")).status == 409  # forgotten
    assert read_all(ask, "s") == b"abc"


def test_equal_attempts_of_one_producer_are_stored_once(store: Store) -> None:
    apps = [client(store), client(store)]
    apps[0].put("s")
    barrier = threading.Barrier(6)
    statuses: list[int] = []

    def append(number: int) -> None:
        barrier.wait()
        statuses.extend(apps[number % 2].post("s", f"{seq}.", **producer(seq)).status for seq in range(10))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(200) == 10 and set(statuses) <= {200, 204}
    assert read_all(apps[0], "s") == b"".join(b"%d." % seq for seq in range(10))
