"""Python loads this at its start where a run of chaos asks for it: the wall clock is as far off as a file says.

`CHAOS_CLOCK` names a file of eight bytes, a double of seconds. The monotonic clock goes on as it does on a host whose
wall clock somebody sets. `CHAOS_SABOTAGE` names a promise to take out (`sabotage.py`).
"""

from __future__ import annotations

import mmap
import os
import struct
import time


def _set_off(path: str) -> None:
    with open(path, "r+b") as file:
        cell = mmap.mmap(file.fileno(), 8)
    real, real_ns = time.time, time.time_ns

    def offset_s() -> float:
        return float(struct.unpack("d", cell[:8])[0])

    time.time = lambda: real() + offset_s()
    time.time_ns = lambda: real_ns() + int(offset_s() * 1e9)


if path := os.environ.get("CHAOS_CLOCK"):
    _set_off(path)

if rule := os.environ.get("CHAOS_SABOTAGE"):
    from tests.e2e.chaos.sabotage import take_out

    take_out(rule)
