"""Is the server's tracking table about to overflow? Redis then invalidates keys at random, which nobody changed.

    share of the table in use   < 60 %  calm     >= 80 %  warn once     >= 95 %  narrow what is tracked

The table is bounded in keys (`tracking_total_keys`); `tracking_total_items` counts a key once for each client.

Owns the judgement. Narrowing means: track only what L1 is about to hold (OPTIN), and hold only what is read twice.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from proxy.log import get_logger

Verdict = Literal["calm", "warn", "narrow"]

EVERY_S: Final = 5.0  # how often the server is asked
DEFAULT_MAX_KEYS: Final = 1_000_000  # of Redis, where CONFIG GET is not allowed
CALM: Final = 0.60
WARN: Final = 0.80
NARROW: Final = 0.95
_RISING: Final[tuple[Verdict, ...]] = ("calm", "warn", "narrow")
_ITEMS: Final = re.compile(rb"tracking_total_keys:(\d+)")
log = get_logger("governor")


class Governor:
    """Watch one server's table. `max_keys` 0 is a table without a bound."""

    def __init__(self) -> None:
        self.keys = 0
        self.max_keys = DEFAULT_MAX_KEYS
        self.verdict: Verdict = "calm"

    @property
    def pressure(self) -> float:
        """Share of the table in use, 0.0 for one without a bound."""
        return self.keys / self.max_keys if self.max_keys else 0.0

    def limit(self, reply: object) -> None:
        """Take the decoded reply to CONFIG GET tracking-table-max-keys; anything else leaves Redis' default."""
        pair = [item for entry in reply.items() for item in entry] if isinstance(reply, dict) else reply
        self.max_keys = DEFAULT_MAX_KEYS
        if isinstance(pair, list) and len(pair) == 2 and pair[1].isdigit():
            self.max_keys = int(pair[1])

    def judge(self, info: bytes) -> Verdict:
        """Take INFO stats; return what is to be done, and say it in the log when it is more than before."""
        found = _ITEMS.search(info)
        self.keys = int(found[1]) if found else 0
        pressure = self.pressure
        if pressure >= NARROW:
            verdict: Verdict = "narrow"
        elif pressure >= WARN:
            verdict = "warn"
        else:
            verdict = "calm" if pressure < CALM or self.verdict == "calm" else "warn"
        if _RISING.index(verdict) > _RISING.index(self.verdict):
            log.warning(
                "the server's tracking table fills up",
                keys=self.keys,
                max_keys=self.max_keys,
                advice="raise tracking-table-max-keys of the server, or lower l1.max_bytes",
            )
        self.verdict = verdict
        return verdict
