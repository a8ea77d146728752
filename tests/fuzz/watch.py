"""What an input must not do besides raising: take long, or take memory.

Owns the alarm and the measures. Time is what this process computes, not what passes: the machine may be busy with
other things; only an input that waits for ever is found by the clock on the wall.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

FOR_EVER_S: Final = 20.0
_SLACK_BYTES: Final = 96 << 20
_STATM: Final = Path("/proc/self/statm")
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class HangError(BaseException):
    """An input took too long. No Exception: who catches those must not catch this one."""


class TooMuchMemoryError(Exception):
    """An input took more memory than any of its size may."""


class Watch:
    """Watches one input after the other."""

    def __init__(self, jump_bytes: int, slow_s: float) -> None:
        self._jump_bytes = jump_bytes
        self._slow_s = slow_s
        self._peak = peak_bytes()
        self._computed_s = self._passed_s = 0.0
        self._is_on = False

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise HangError out of whatever runs in the block and takes too long. Main thread only.

        There is no more memory than an input may take, and what a process may grow by besides.
        """
        before = signal.signal(signal.SIGALRM, self._tick)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        signal.setitimer(signal.ITIMER_REAL, self._slow_s / 2, self._slow_s / 2)
        if _STATM.exists():  # memory that is asked for, and never used, is a MemoryError
            most = _statm(0) + self._jump_bytes + _SLACK_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (most if limits[1] < 0 else min(most, limits[1]), limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def begin(self) -> None:
        """Take note that an input begins."""
        self._computed_s = time.process_time()
        self._passed_s = time.monotonic()
        self._is_on = True

    def end(self) -> None:
        """Judge the input that has ended. Raises HangError, TooMuchMemoryError."""
        self._is_on = False
        took_s = time.process_time() - self._computed_s
        if took_s > self._slow_s:
            raise HangError(f"it took {took_s:.1f} s")
        peak = peak_bytes()
        grown = peak - self._peak
        self._peak = peak
        if grown > self._jump_bytes:
            raise TooMuchMemoryError(f"it took {grown >> 20} MiB")

    def leave(self) -> None:
        """Take note that the input has ended by raising: there is nothing to be judged."""
        self._is_on = False
        self._peak = peak_bytes()

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_on:
            return
        took_s = time.process_time() - self._computed_s
        if took_s > self._slow_s:
            self._is_on = False
            raise HangError(f"it takes more than {took_s:.1f} s")
        if time.monotonic() - self._passed_s > FOR_EVER_S:
            self._is_on = False
            raise HangError(f"it has waited for {FOR_EVER_S:.0f} s")


def peak_bytes() -> int:
    """Return how much memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def held_bytes() -> int:
    """Return how much memory this process has; where that is not told, the most it ever had."""
    if _STATM.exists():
        return _statm(1)
    return peak_bytes()


def _statm(column: int) -> int:
    return int(_STATM.read_text().split()[column]) * resource.getpagesize()
