"""`python -m proxy`: the same as the command `respite`."""

from __future__ import annotations

from proxy.cli.main import main

if __name__ == "__main__":
    main()
