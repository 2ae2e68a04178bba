"""Every guarantee is tested, and every test of the contract knows what it is for."""

import re

import pytest

from resumable_sync import contract as types
from resumable_sync.testing import GUARANTEES, contract_tests, guarantee


def test_the_names_are_those_of_the_contract() -> None:
    assert tuple(re.findall(r"^(G\d+) ", types.__doc__ or "", re.MULTILINE)) == GUARANTEES


@pytest.mark.parametrize("name", GUARANTEES)
def test_each_guarantee_is_cited(name: str) -> None:
    assert any(name in cited for cited in contract_tests().values())


@pytest.mark.parametrize("test", contract_tests())
def test_each_contract_test_cites_a_guarantee(test: str) -> None:
    cited = contract_tests()[test]
    assert cited and set(cited) <= set(GUARANTEES)


@pytest.mark.parametrize("names", [(), ("G11",), ("G1", "g2")])
def test_unknown_guarantees_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        guarantee(*names)
