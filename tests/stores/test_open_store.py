"""What a store's URL may say beside its place: options of the constructor, and nothing that would be ignored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import MemoryStore, SQLiteStore, Status, open_store


def test_options_in_the_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db?ttl=60&grace=5.5&max_chunk_bytes=100&max_file_bytes=10000000&finished_ttl=30"
    with open_store(url) as store:
        assert isinstance(store, SQLiteStore)
        lease = store.acquire("s")
        assert lease is not None and lease.ttl == 60
        assert (store.grace, store.max_chunk_bytes, store._finished_ttl) == (5.5, 100, 30)
    with open_store("memory://?ttl=60", ttl=7) as store:  # the code has the last word
        lease = store.acquire("s")
        assert lease is not None and lease.ttl == 7
    with open_store("memory:?max_streams=3") as store:
        assert isinstance(store, MemoryStore) and store._limits.max_streams == 3


@pytest.mark.parametrize("scheme", ["sqlite:///{}/s.db", "memory://"])
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("colour=red", "colour; known are ttl, .*grace"),
        ("ttl=5&colour=red&size=1", "colour, size"),
        ("colour", "colour"),
        ("clock=now", "clock"),
        ("path=elsewhere", "path"),
        ("ttl=soon", "ttl"),
        ("ttl=", "ttl"),
        ("ttl=0", "ttl"),
        ("ttl=nan", "ttl"),
        ("max_streams=2.5", "max_streams"),
        ("ttl=5&ttl=6", "twice"),
        ("ttl=5#part", "fragment"),
    ],
)
def test_options_that_would_be_ignored_are_refused(scheme: str, query: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        open_store(scheme.format(tmp_path) + "?" + query)
    assert not (tmp_path / "s.db").exists()


def test_names_that_mean_something_in_urls(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/a%3Fb%23c.db") as store:
        store.acquire("s")
    assert (tmp_path / "a?b#c.db").exists()
    with open_store(f"{tmp_path}/d?e.db") as store:  # a path, not a URL
        store.acquire("s")
    assert (tmp_path / "d?e.db").exists()
    for url in ("memory://name", "memory:///name"):
        with pytest.raises(ValueError, match="no name"):
            open_store(url)


def test_names_of_files_need_not_be_utf_8(tmp_path: Path) -> None:
    stores = [open_store(f"sqlite:///{tmp_path}/{name}.db") for name in ("a%ff", "a%fe")]
    assert sorted(os.listdir(os.fsencode(tmp_path)))[0] == b"a\xfe.db"
    lease = stores[0].acquire("s")
    assert lease is not None and stores[1].status("s") is Status.MISSING
    for store in stores:
        store.close()


@pytest.mark.parametrize("character", ["\t", "\r", "\n"])
def test_what_a_url_would_lose_is_refused(character: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write %09, %0D and %0A"):
        open_store(f"sqlite:///{tmp_path}/a{character}b.db")
    with open_store(f"{tmp_path}/c{character}d.db"):  # a path, not a URL
        assert (tmp_path / f"c{character}d.db").exists()


@pytest.mark.parametrize("url", [None, 5, b"memory://"])
def test_a_url_is_text(url: Any) -> None:
    with pytest.raises(TypeError, match="must be text"):
        open_store(url)
