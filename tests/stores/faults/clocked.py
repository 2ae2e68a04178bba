"""Runs a program of `programs` with a wrong wall clock: `python -m tests.stores.faults.clocked SKEW JUMP …`.

The clock is SKEW seconds off when the library is imported, and JUMP more, to and fro, five times a second.
"""

from __future__ import annotations

import sys
import threading
import time

_true_time, _true_time_ns = time.time, time.time_ns


class _Clock:
    skew = 0.0


def _time() -> float:
    return _true_time() + _Clock.skew


def _time_ns() -> int:
    return _true_time_ns() + int(_Clock.skew * 1e9)


def _jump(skew: float, jump: float) -> None:
    pause = threading.Event()
    while not pause.wait(0.1):
        _Clock.skew = skew + jump
        pause.wait(0.1)
        _Clock.skew = skew


def main() -> None:
    skew, jump = float(sys.argv[1]), float(sys.argv[2])
    _Clock.skew = skew
    time.time, time.time_ns = _time, _time_ns
    threading.Thread(target=_jump, args=(skew, jump), daemon=True).start()
    del sys.argv[1:3]
    from . import programs

    programs.main()


if __name__ == "__main__":
    main()
