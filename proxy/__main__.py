"""`python -m proxy`, and the command `respite`: where both begin. It imports nothing dear."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130  # as a shell says it of a command that Ctrl-C ended


def main() -> None:
    """Run the command line and leave with its exit code."""
    _fill_streams()
    try:
        from proxy.cli.main import main as run  # noqa: PLC0415 - Ctrl-C may come while it is imported
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


def _fill_streams() -> None:
    """Have standard streams that somebody closed lead nowhere: a socket of ours would get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)


if __name__ == "__main__":
    main()
