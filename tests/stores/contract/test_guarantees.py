"""Every guarantee is tested, and every test of the contract knows what it is for."""

import re

import pytest

from resumable_sync import contract as types
from resumable_sync.testing import (
    GUARANTEES,
    SharedContract,
    StoreContract,
    TakeoverContract,
    contract_tests,
    guarantee,
)

CITED = {
    f"{contract.__name__}.{name}": cited
    for contract in (StoreContract, TakeoverContract, SharedContract)
    for name, cited in contract_tests(contract).items()
}


def test_the_names_are_those_of_the_contract() -> None:
    assert tuple(re.findall(r"^(G\d+) ", types.__doc__ or "", re.MULTILINE)) == GUARANTEES


@pytest.mark.parametrize("name", GUARANTEES)
def test_each_guarantee_is_cited(name: str) -> None:
    assert any(name in cited for cited in CITED.values())


@pytest.mark.parametrize("test", CITED)
def test_each_contract_test_cites_a_guarantee(test: str) -> None:
    assert CITED[test] and set(CITED[test]) <= set(GUARANTEES)


def test_no_test_hides_another() -> None:
    """The parts of a contract are classes: in two of them a test of the same name would run once."""
    for contract in (StoreContract, TakeoverContract, SharedContract):
        names = [name for part in contract.__bases__ for name in vars(part) if name.startswith("test_")]
        assert sorted(names) == sorted(contract_tests(contract))


@pytest.mark.parametrize("names", [(), ("G13",), ("G1", "g2")])
def test_unknown_guarantees_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        guarantee(*names)
