"""A network and mounts of its own for a run, where packets can be dropped and a disk filled: nobody else's.

Linux, as root: `unshare` makes them, `ip rule` sends what belongs to a port into a black hole, a small tmpfs is the
disk. Where that is not allowed, a run does without these faults; relays that go silent and snapshots that fail come
near to them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MARK = "CHAOS_NAMESPACE"
UNSHARE = ("unshare", "--net", "--mount", "--propagation", "private")

PAGE_BYTES = 4096


def is_inside() -> bool:
    """Tell whether this process runs in a namespace made by `enter`."""
    return os.environ.get(MARK) == "1"


def enter(module: str, words: Sequence[str]) -> None:
    """Start this program anew in a namespace and end with its exit code; return where that is not allowed."""
    probe = "ip link set lo up && ip rule add pref 100 lookup local && ip rule del pref 0"
    try:
        tried = subprocess.run([*UNSHARE, "sh", "-c", probe], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return
    if tried.returncode == 0:
        os.environ[MARK] = "1"
        # One shell stays in front, so that the rules stand before the first socket is opened.
        line = f'{probe} && exec "$@"'
        os.execvp(UNSHARE[0], [*UNSHARE, "sh", "-c", line, "sh", sys.executable, "-m", module, *words])


@contextmanager
def dropped(port: int, direction: str) -> Iterator[None]:
    """Drop what goes "to" a port, or what comes "from" it; nobody is told, as by a cable that is cut."""
    side = {"to": "dport", "from": "sport"}[direction]
    rule = ["pref", "50", "ipproto", "tcp", side, str(port), "blackhole"]
    subprocess.run(["ip", "rule", "add", *rule], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["ip", "rule", "del", *rule], check=True, timeout=10)


@contextmanager
def disk(path: Path, size_bytes: int) -> Iterator[None]:
    """Have a small disk of its own at a path."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(path)], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)


@contextmanager
def filled(path: Path) -> Iterator[None]:
    """Fill the disk that a path is on to its last byte."""
    filler = path / "filler"
    try:
        with filler.open("wb") as file:
            at, step = 0, 1 << 26
            while step >= PAGE_BYTES:
                try:
                    os.posix_fallocate(file.fileno(), at, step)
                    at += step
                except OSError:
                    step //= 2  # so much is not left
            yield
    finally:
        filler.unlink(missing_ok=True)
