"""Ask the admin port of this container how it is: `probe.py healthz` or `probe.py readyz`; exit code 0 is yes.

An HTTP probe from outside would need the admin port to be open to others, and a token in the manifest.
"""

import sys
import urllib.error
import urllib.request

ADMIN = "http://127.0.0.1:6390"


def main() -> int:
    """Print the answer and return 0 for a 200, else 1."""
    try:
        with urllib.request.urlopen(f"{ADMIN}/{sys.argv[1]}", timeout=2) as answer:
            print(answer.read().decode().strip())
            return 0
    except urllib.error.HTTPError as exc:
        print(f"{exc.code} {exc.read().decode(errors='replace').strip()}")
    except OSError as exc:
        print(f"no answer from {ADMIN}: {exc}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
