"""Hypothesis profiles: `default` is moderate, `ci` always tries the same, `nightly` looks for hours."""

import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings

from .figures import FIGURES, Report, reporter

pytest.register_assert_rewrite("resumable_sync.testing")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-redis", action="store_true", help="leave out, and count, what needs Redis")


_left_out = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_left_out] = 0
    if config.getoption("--without-redis"):
        for item in items:
            if item.get_closest_marker("redis") is not None:
                item.add_marker(pytest.mark.skip(reason="--without-redis"))
                config.stash[_left_out] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)
    if config.stash.get(_left_out, 0):
        count = config.stash[_left_out]
        terminalreporter.section("NOT TESTED")
        terminalreporter.write_line(f"--without-redis left out {count} tests: RedisStore was not tested", red=True)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Prints figures after the run; see tests/figures.py."""
    return reporter(request.config, request.node.name)


settings.register_profile(
    "default", deadline=None, max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, max_examples=25, print_blob=True
)
settings.register_profile(
    "nightly", settings.get_profile("default"), max_examples=5000, stateful_step_count=100, phases=[*Phase]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A job that a shell without job control starts in the background ignores SIGINT, and so would the programs that
# the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
