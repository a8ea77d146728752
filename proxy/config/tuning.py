"""The keys of [tuning], as `keys.py` has the others: whether Respite tunes itself, and how far it may go."""

from __future__ import annotations

from typing import Final

from proxy.config import kinds
from proxy.config.key import Key

_KIB = 1 << 10
_GIB = 1 << 30
_TIB = 1 << 40

TUNING: Final[tuple[Key, ...]] = (
    Key(
        "tuning.mode",
        "tuning.mode",
        kinds.choice("off", "suggest", "apply"),
        "off",
        live=True,
        help='Set to "suggest" to be told in the log what to change and what for, to "apply" to have it done.',
    ),
    Key(
        "tuning.max_l1_bytes",
        "tuning.max_l1_bytes",
        kinds.size(_KIB, _TIB),
        "128MiB",
        live=True,
        help="Raise to let L1 grow further while that brings hits; below l1.max_bytes it does not grow at all.",
    ),
    Key(
        "tuning.min_compress_bytes",
        "tuning.min_compress_bytes",
        kinds.size(64, _GIB),
        "1KiB",
        live=True,
        help="Lower to let compression.min_bytes be lowered further, if values of that size shrink well.",
    ),
    Key(
        "tuning.max_compress_bytes",
        "tuning.max_compress_bytes",
        kinds.size(64, _GIB),
        "64KiB",
        live=True,
        help="Raise to let compression.min_bytes be raised further, if compression.time_share does not do for all.",
    ),
    Key(
        "tuning.max_ttl_factor",
        "tuning.max_ttl_factor",
        kinds.share(1, 100),
        2,
        live=True,
        help="Raise to let ttl.window, ttl.hot and ttl.cold become so many times, or parts of, what they are set to.",
    ),
)
