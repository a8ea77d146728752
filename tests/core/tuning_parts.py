"""Settings, spans and an engine to tune, with nothing around them."""

from __future__ import annotations

from typing import Any

import attrs

from proxy.cache.l1 import L1
from proxy.config.load import load_settings
from proxy.config.model import ClassSettings, Settings
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.lifetimes import Lifetimes
from proxy.core.tuners.spans import Moment, Small, Span, Tiers
from proxy.core.tuners.trial import SPANS
from proxy.core.tuning import SPAN_S
from proxy.core.values import Values
from proxy.values.clock import HybridClock
from proxy.values.dictionary import Dictionaries
from proxy.values.fences import Fences
from proxy.values.rules import Rules
from proxy.values.sealing import Sealer
from proxy.values.ttl import Thresholds

MIB = 1 << 20


def make_settings(mode: str = "apply", **overrides: object) -> Settings:
    """Return settings; a dot in a path is written as two underscores."""
    paths = {path.replace("__", "."): value for path, value in overrides.items()}
    return load_settings(None, env={}, overrides={"tuning.mode": mode, **paths})


def make_engine(max_bytes: int = 64 * MIB) -> Engine:
    """Return an engine whose L1 is served."""
    engine = Engine(L1(max_bytes), Stats(), enabled=True, max_age_s=300.0, max_value_bytes=MIB)
    engine.now = 1000.0
    engine.serve()
    return engine


def make_values(engine: Engine, *classes: ClassSettings) -> Values:
    """Return a value layer for classes."""
    sealer = Sealer(HybridClock(lambda: 0.0), Dictionaries(), lambda: 0.0)
    values = Values(engine, sealer, Fences(), Lifetimes(Thresholds(), engine.l1, lambda: 0.5))
    values.take(Rules(classes))
    return values


def span(**after: Any) -> Span:
    """Return a span of 10 s with 10,000 reads and half of them hits, unless it is said otherwise."""
    counted: dict[str, Any] = {"reads": 10_000, "hits": 5000, "l1_bytes": 64 * MIB, "l1_max_bytes": 64 * MIB}
    return Span(Moment(0.0), Moment(SPAN_S, **counted | after))


def spans(**after: Any) -> list[Span]:
    """Return as many spans as a step is proposed from, all alike."""
    return [span(**after)] * SPANS


def small(**counted: Any) -> Small:
    """Return what small values came to: 100 of 8,000 bytes, one in ten tried, each half as large then."""
    usual = {"seen_bytes": 800_000, "tried": 10, "tried_bytes": 80_000, "saved_bytes": 40_000, "seconds": 0.0001}
    return Small(**usual | counted)


def missing(**tiers: int) -> Tiers:
    """Return counts by tier."""
    return Tiers(**tiers)


def with_class(settings: Settings, **fields: Any) -> Settings:
    """Return settings with one class."""
    return attrs.evolve(settings, classes=(ClassSettings("c", ("c:*",), **fields),))
