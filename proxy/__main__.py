"""`python -m proxy`, and the command `respite`: where both begin. It imports nothing dear."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as a shell says it of a command that Ctrl-C ended


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        from proxy.cli.main import main as run  # noqa: PLC0415 - Ctrl-C may come while it is imported
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
