"""Offset tokens: they sort, mean one place, and a fork keeps those of its source up to the point of the fork."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync.durable.answers import Refusal
from resumable_sync.durable.offsets import START_TOKEN, Lineage, Token, parse_token

NUMBERS = st.integers(0, 2**53 - 1)


@st.composite
def chains(draw: st.DrawFn) -> list[Lineage]:
    """A stream and forks of it, each of the one before."""
    found = [Lineage(draw(st.integers(1, 100)))]
    for _ in range(draw(st.integers(0, 4))):
        source = found[-1]
        found.append(Lineage(source.generation + draw(st.integers(1, 9)), source.until(draw(st.integers(0, 40)))))
    return found


@given(NUMBERS, NUMBERS)
def test_a_token_is_read_as_it_was_written(lineage: int, offset: int) -> None:
    token = Token(lineage, offset)
    assert parse_token(str(token)) == (token if max(token) else None)


@given(chains(), st.lists(st.integers(0, 60), min_size=2, max_size=6))
def test_tokens_sort_like_offsets_and_lead_back(chain: list[Lineage], offsets: list[int]) -> None:
    for lineage in chain:
        tokens = [lineage.token(offset) for offset in sorted(offsets)]
        assert tokens == sorted(tokens)
        assert [lineage.offset(parse_token(token)) for token in tokens] == sorted(offsets)


@given(chains(), st.integers(0, 60))
def test_a_fork_shares_the_tokens_up_to_its_point_and_no_others(chain: list[Lineage], offset: int) -> None:
    for source, fork in zip(chain, chain[1:]):
        point = fork.inherited[-1][1]
        token = parse_token(source.token(offset))
        assert fork.offset(token) == (offset if offset <= point else None)
        own = parse_token(fork.token(offset))
        assert source.offset(own) == (offset if offset <= point else None)


@pytest.mark.parametrize("text", ["-1", START_TOKEN])
def test_what_means_the_start(text: str) -> None:
    assert parse_token(text) is None
    assert Lineage(7).offset(None) == Lineage(9, ((7, 3),)).offset(None) == 0


@pytest.mark.parametrize(
    "text",
    ["", "0", "-2", "now", "0_0", START_TOKEN + " ", "9" * 16 + "_" + "9" * 16, "٠" * 16 + "_" + "0" * 16]
    + [f"{2**53:016d}_{0:016d}", f"{1:016d}_{2**53:016d}", f"{1:017d}_{1:016d}", f"{1:016d}-{1:016d}", "\n"],
)
def test_no_tokens(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_token(text)
    assert refused.value.status == 400
