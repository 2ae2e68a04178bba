"""What the whole suite shares: how it runs side by side, stores of every kind, Hypothesis's profiles."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from resumable_sync.contract import Store

from .backends import BACKEND_PARAMS, BACKENDS, WITHOUT_REDIS, Backend
from .figures import Report, figures, reporter
from .javascript import Bundles, cannot
from .thrown import Thrown

if TYPE_CHECKING:
    from selenium import webdriver

pytest.register_assert_rewrite("resumable_sync.testing")

WORKERS = max(6, os.cpu_count() or 1)
"""Processes that share the suite. Most tests wait for something, so that two cores serve six of them well."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(WITHOUT_REDIS, action="store_true", help="leave out, and count, what needs Redis")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite side by side, unless `-n` says otherwise or pytest-xdist is not there.

    Files and tests that are named run in this process. Not in `addopts`, which would need pytest-xdist always.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # a worker comes by here too, and must start no workers of its own
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and config.pluginmanager.has_plugin("xdist") and not config.option.usepdb:
        if config.option.numprocesses is None and config.option.dist == "no":
            config.option.numprocesses = WORKERS
            config.option.dist = "worksteal"  # keeps the tests of a module together while it can


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption(WITHOUT_REDIS):
        for item in items:
            if item.get_closest_marker("redis") is not None:
                item.add_marker(pytest.mark.skip(reason=WITHOUT_REDIS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what UTF-8 cannot encode, such as half a surrogate pair in a log: reports go to another process."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    lines = figures(reports)
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
    left_out = sum(WITHOUT_REDIS in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if left_out:
        terminalreporter.section("NOT TESTED")
        terminalreporter.write_line(
            f"{WITHOUT_REDIS} left out {left_out} tests: RedisStore was not tested", red=True
        )


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Prints figures after the run; see tests/figures.py."""
    return reporter(request.node)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The process's one headless Chromium, or a skip (in CI a failure) that says why there is none."""
    from .browser import chromium  # not above: most runs need no browser

    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        if isinstance(found, str):
            cannot("THE PAGES IN A BROWSER WERE", found)
        yield found


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The scripts of pages, made once for all processes that share the suite."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    return Bundles(directory)


@pytest.fixture(params=BACKEND_PARAMS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """One kind of store after the other: whoever uses this, or `store`, runs over every kind."""
    made = BACKENDS[request.param]()
    yield made
    made.close()


@pytest.fixture
def store(backend: Backend) -> Iterator[Store]:
    """A new, empty store of each kind."""
    made = backend.make()
    yield made
    made.close()


settings.register_profile(
    "default", deadline=None, max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, max_examples=15, print_blob=True
)
settings.register_profile("brief", settings.get_profile("ci"), max_examples=8, stateful_step_count=20)
settings.register_profile(
    "nightly", settings.get_profile("default"), max_examples=5000, stateful_step_count=100, phases=[*Phase]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A job that a shell without job control starts in the background ignores SIGINT, and so would the programs that
# the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def alarms() -> Iterator[Callable[[float], object]]:
    """Has an exception thrown into the main thread after some seconds; none once `alarms(0)` has returned.

    Python may run a handler some time after its signal came, and so after the timer was stopped: a flag says
    whether it is still wanted."""
    armed = False

    def throw(number: int, frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Thrown

    def arm(seconds: float) -> None:
        nonlocal armed
        armed = seconds > 0
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, throw)
    try:
        yield arm
    finally:
        arm(0)
        signal.signal(signal.SIGALRM, before)
