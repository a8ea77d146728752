"""What a proxy has to do with a broker: put together here, and only where one is configured.

Brings `proxy.amqp` and the protocol's library along, a sixth of what a start takes: imported by who knows that it is
needed.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import trio

from proxy import __version__
from proxy.amqp.change_families import change_families
from proxy.amqp.families import families
from proxy.amqp.relay import Relay
from proxy.amqp.service import EventService
from proxy.config.model import Settings
from proxy.core.figures.stats import Histogram
from proxy.events.figures import EventFigures
from proxy.events.mapping import Mapper
from proxy.events.notices import RelayFigures
from proxy.events.sink import Sink
from proxy.net.worker import Worker


def make_event_service(worker: Worker, settings: Settings, sink: Sink) -> EventService:
    """Return what takes the broker's events for a worker, which shows from now on what became of them."""
    figures = EventFigures(Histogram())

    def now_ms() -> int:
        return int(time.time() * 1000)

    worker.facts.event_facts = lambda: figures.report(now_ms(), trio.current_time())
    worker.facts.event_families = lambda: families(figures, now_ms=now_ms(), now=trio.current_time())
    name = f"respite {__version__}"
    return EventService(settings.amqp, Mapper(settings.events), sink, figures, now_ms=now_ms, name=name)


def show_changes(worker: Worker, settings: Settings, *, relays: bool) -> Relay | None:
    """Have a worker show what becomes of the changes it announces; return what relays them, if this one `relays`."""
    layer, facts = worker.value_layer, worker.facts
    figures = RelayFigures() if relays else None
    events, others = facts.event_facts, facts.event_families

    def report() -> dict[str, Any]:
        return {**layer.notices.counts.report(), **(figures.report() if figures is not None else {})}

    facts.event_facts = lambda: {**events(), "changes": report()}
    facts.event_families = lambda: [*others(), *change_families(report())]
    if figures is None:
        return None
    token = secrets.token_hex(12)
    return Relay(settings.amqp, layer.notice_store, figures, token=token, name=f"respite {__version__}")
