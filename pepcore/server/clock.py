"""The clocks of the daemon, read in one place.

`now` is CLOCK_BOOTTIME in nanoseconds: it counts suspends and is not moved by whoever sets the wall clock. `wall_ms`
is Unix time in milliseconds: what time windows and token expiries are written in.
"""

from __future__ import annotations

import time


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
