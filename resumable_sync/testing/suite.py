"""The whole store contract as one class."""

from __future__ import annotations

from .ending import EndingContract, LimitContract, ManyContract
from .kit import cited
from .listing import ListingContract
from .living import LeaseContract, TtlContract
from .maintenance import MaintenanceContract
from .producing import AcquireContract, AppendContract
from .reading import InfoContract, ReadContract
from .waiting import WaitContract


class StoreContract(
    AcquireContract,
    AppendContract,
    LimitContract,
    ManyContract,
    EndingContract,
    ReadContract,
    InfoContract,
    ListingContract,
    WaitContract,
    LeaseContract,
    TtlContract,
    MaintenanceContract,
):
    """Everything that `resumable_sync.contract.Store` promises, as pytest tests; each cites its guarantees.

    Subclass it in a test module, under a name that begins with `Test`, and say how to make a store:

        class TestMyStore(StoreContract):
            def make_store(self, **options):
                return MyStore(**options)

            def second_store(self, store):  # only where several processes share the data
                return MyStore(store.path, ...)

    It takes about ten seconds, most of it waits for short ttls. A failure names the guarantee in the test's
    decorator. Write `pytest.register_assert_rewrite("resumable_sync.testing")` into conftest.py, ahead of the
    import, to have pytest show the values of failed assertions.
    """


def contract_tests(contract: type = StoreContract) -> dict[str, tuple[str, ...]]:
    """The tests of a contract class by name, each with the guarantees that it cites."""
    return {name: cited(getattr(contract, name)) for name in dir(contract) if name.startswith("test_")}
