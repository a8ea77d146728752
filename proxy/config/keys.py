"""Every key of the configuration, declared once: path, kind, default, whether it applies live, when to change it.

The loader, `respite check`, the comparison on reload and the test that holds `conf/respite.toml` and
`conf/README.md` to the truth all read this table. A new key is one line here and one field in `model.py`. The keys of
the sides that Respite talks to stand in `sides.py`. Those of an array of tables are a table of their own, [[class]] in
`classes.py` and [[event]] in `event_rules.py`; here the array as a whole is one key.
"""

from __future__ import annotations

from typing import Final

from proxy.config import kinds
from proxy.config.alerts import ALERTS, METRICS
from proxy.config.classes import CLASSES
from proxy.config.event_rules import EVENTS
from proxy.config.key import Key, Tables
from proxy.config.kinds import Kind
from proxy.config.outage import OUTAGE
from proxy.config.push import PUSH
from proxy.config.sides import SIDES
from proxy.config.telemetry import OTEL
from proxy.config.tuning import TUNING

_KIB = 1 << 10
_GIB = 1 << 30
_TIB = 1 << 40
_HOUR = 3600.0
_DAY = 86400.0


def _key(path: str, kind: Kind | Tables, default: object, when: str, *, field: str = "", restart: bool = False) -> Key:
    return Key(path, field or path, kind, default, live=not restart, help=when)


KEYS: Final[tuple[Key, ...]] = (
    *SIDES,
    _key(
        "l1.enabled",
        kinds.flag(),
        True,
        "Set to false to send every read to Redis.",
    ),
    _key(
        "l1.max_bytes",
        kinds.size(_KIB, _TIB),
        "64MiB",
        "Raise when respite stats shows evictions and a low hit rate; the memory that L1 may use.",
    ),
    _key(
        "l1.max_value_bytes",
        kinds.size(1, _GIB),
        "1MiB",
        "Lower to keep many small values rather than a few big ones; a bigger value is passed on and not kept.",
    ),
    _key(
        "l1.max_age",
        kinds.seconds(0.001, 30 * _DAY),
        "5m",
        "Lower to bound the worst case further: no value lives in L1 for longer, whatever Redis says or fails to say.",
        field="l1.max_age_s",
    ),
    _key(
        "l1.max_staleness",
        kinds.seconds(0.01, _HOUR),
        "2s",
        "Lower for data that must be fresher; L1 is not served once the invalidation link has been silent for longer.",
        field="l1.max_staleness_s",
    ),
    _key(
        "l1.admit",
        kinds.choice("auto", "always", "second_read"),
        "auto",
        'Set to "second_read" when most keys are read once: a value is kept from its second read on; or to "always".',
    ),
    _key(
        "l1.scope",
        kinds.choice("all", "classes"),
        "all",
        'Set to "classes" to begin with some keys: only those of a [[class]] with l1 = true are kept.',
    ),
    _key(
        "l1.cache_commands",
        kinds.module_commands(),
        [],
        'Set to module commands that only read and depend on nothing but their keys: ["JSON.GET", "JSON.MGET"].',
    ),
    _key(
        "l1.tracking",
        kinds.choice("auto", "redirect", "broadcast", "off"),
        "auto",
        "Change when one does badly: redirect, broadcast (every change is announced), off (only l1.max_age counts).",
    ),
    _key(
        "l1.fence_scripts",
        kinds.flag(),
        True,
        "Set to false when scripts touch only keys they declare: their replies then come one round trip sooner.",
    ),
    _key(
        "l1.verify",
        kinds.share(0, 1),
        0.0001,
        "Raise to check more hits against Redis in the background, 1 for all; each costs a read there, 0 checks none.",
    ),
    _key(
        "l1.touch_rate",
        kinds.count(0, 100_000),
        100,
        "Raise when Redis evicts (LRU or LFU) what is hot here; so many hot keys a second are touched there, 0 none.",
    ),
    _key(
        "l1.early_refresh",
        kinds.share(0, 0.5),
        0,
        "Set to 0.1 where l1.max_age is seconds: in the last tenth of it one reader fetches a hot value anew.",
    ),
    _key(
        "rollout.mode",
        kinds.choice("on", "off", "shadow"),
        "on",
        'Set to "off" for pure pass-through, to "shadow" to fill L1 and compare it with Redis without serving from it.',
    ),
    _key(
        "rollout.percent",
        kinds.share(0, 100),
        100,
        "Lower to begin with some: so many percent of client connections get rollout.mode, the rest pass through.",
    ),
    _key(
        "rollout.write_envelopes",
        kinds.flag(),
        True,
        "Set to false as the first step of a roll-out, the last of a way back: envelopes are read, none are written.",
    ),
    _key(
        "ttl.window",
        kinds.seconds(1, _DAY),
        "60s",
        "Change with ttl.warm_above and ttl.hot_above: reads of a key are counted over so long.",
        field="ttl.window_s",
    ),
    _key(
        "ttl.warm_above",
        kinds.count(0, 1_000_000),
        5,
        "Raise when too much is warm: a key with more reads in the window gets the base TTL of its class.",
    ),
    _key(
        "ttl.hot_above",
        kinds.count(0, 1_000_000),
        10,
        "Raise when too much is hot: a key with more reads in the window gets half the base, at most ttl.hot.",
    ),
    _key(
        "ttl.hot",
        kinds.seconds(0.01, 365 * _DAY),
        "5m",
        "Lower to renew hot data more often; the most that a hot key lives after a write.",
        field="ttl.hot_s",
    ),
    _key(
        "ttl.cold",
        kinds.seconds(0, 365 * _DAY),
        "1h",
        "Raise to keep cold data longer, where max_ttl of its class lets it: without one it lives for twice the base.",
        field="ttl.cold_s",
    ),
    _key(
        "ttl.jitter",
        kinds.share(0, 0.5),
        0.05,
        "Raise when many keys that were written together end together: TTLs vary by this share, both ways.",
    ),
    _key(
        "compression.min_bytes",
        kinds.size(1, _GIB),
        "10KiB",
        "Lower to save memory on smaller values of classes with compress = true, at the price of time.",
    ),
    _key(
        "compression.min_saving",
        kinds.share(0, 0.99),
        0.1,
        "Raise to compress only what shrinks well; a value is kept compressed if it saves at least this share.",
    ),
    _key(
        "compression.time_share",
        kinds.share(0.01, 1),
        0.05,
        "Raise where memory counts more than speed: the share of a worker's time that compressing may take.",
    ),
    _key(
        "compression.codec",
        kinds.choice("lz4", "zstd"),
        "lz4",
        "Set to \"zstd\" to save more memory for more time; needs pip install 'respite-proxy[zstd]' on every host.",
    ),
    *OUTAGE,
    *PUSH,
    _key(
        "log.level",
        kinds.choice("debug", "info", "warning", "error"),
        "info",
        'Set to "debug" while looking for a fault, to "warning" where logs are dear.',
    ),
    _key(
        "log.format",
        kinds.choice("text", "json"),
        "text",
        'Set to "json" where a collector reads the logs: one object a line.',
        restart=True,
    ),
    _key(
        "class",
        CLASSES,
        [],
        "Add to treat some keys apart; the first class whose glob takes a key has it.",
        field="classes",
    ),
    _key(
        "event",
        EVENTS,
        [],
        "Add for events that name no keys themselves; the first rule whose routing_key takes one says what it means.",
        field="events",
    ),
    *METRICS,
    _key(
        "alert",
        ALERTS,
        [],
        "Add to be told of more, or of what is told anyway in another way; the alerts of README.md are always there.",
        field="alerts",
    ),
    *TUNING,
    *OTEL,
)
