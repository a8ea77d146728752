"""What the system says about this process and its sockets."""

from __future__ import annotations

import ctypes
import fcntl
import resource
import struct
import sys
import termios
from pathlib import Path
from typing import Final

_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def resident_bytes() -> int:
    """Return this process' resident memory; its peak where the system tells no more (macOS)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def give_back_memory() -> None:
    """Give the system the free pages between what is in use; only glibc keeps them, and can."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def kernel_unread(fd: int) -> int:
    """Return how many bytes have come for a socket that nobody has read (FIONREAD)."""
    try:
        raw = fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)
    except OSError:
        return 0
    held: int = struct.unpack("i", raw)[0]
    return held


def kernel_unsent(fd: int) -> int:
    """Return how many bytes of a socket its peer has not taken yet (SIOCOUTQ); 0 where the system does not say."""
    try:
        raw = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return 0
    held: int = struct.unpack("i", raw)[0]
    return held
