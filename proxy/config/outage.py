"""Every key of [outage], as `keys.py` has the others: what is kept for the time that Redis is away."""

from __future__ import annotations

from typing import Final

from proxy.config import kinds
from proxy.config.key import Key

_TIB = 1 << 40

OUTAGE: Final[tuple[Key, ...]] = (
    Key(
        "outage.stale_bytes",
        "outage.stale_bytes",
        kinds.size(0, _TIB),
        "32MiB",
        live=True,
        help="Raise when more is to be served while Redis is away; what classes with stale_if_error may keep of L1.",
    ),
    Key(
        "outage.memory_bytes",
        "outage.memory_bytes",
        kinds.size(0, _TIB),
        "16MiB",
        live=True,
        help='Raise when writes of classes with offline = "memory" are refused for want of room while Redis is away.',
    ),
)
