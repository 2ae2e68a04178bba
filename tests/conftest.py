"""Hypothesis profiles: `default` is moderate, `ci` always tries the same, `nightly` looks for hours."""

import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings

pytest.register_assert_rewrite("resumable_sync.testing")

settings.register_profile(
    "default", deadline=None, max_examples=40, stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, max_examples=25, print_blob=True,
)  # fmt: skip
settings.register_profile(
    "nightly", settings.get_profile("default"), max_examples=5000, stateful_step_count=100,
    phases=[*Phase],
)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A job that a shell without job control starts in the background ignores SIGINT, and so would the programs that
# the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
