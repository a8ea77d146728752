"""What a worker tells of itself to the report: its upstream, its links, its memory.

Only looks; `core.figures.report` makes figures of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from proxy.core.figures.hottest import Hottest
from proxy.core.figures.report import build_report, gauges, named_histograms
from proxy.core.figures.stats import Histogram, MetricFamily
from proxy.core.figures.tally_report import LinkKind, link_fields, tally_families
from proxy.core.outage.figures import families as outage_families
from proxy.core.outage.figures import upstream_fields
from proxy.net.process import resident_bytes

if TYPE_CHECKING:
    from proxy.net.worker import Worker


class Facts:
    """`core.figures.report.Reported` of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.stats = worker.stats
        self.engine = worker.engine
        self.tracking = worker.tracking
        self.hottest = Hottest(worker.engine)
        # Who hears the broker's events says what became of them; here, nobody does.
        self.event_facts: Callable[[], dict[str, Any]] = lambda: {"state": "off"}
        self.event_families: Callable[[], Iterable[MetricFamily]] = lambda: ()

    def families(self) -> list[MetricFamily]:
        """Return what is counted, measured, and told of the broker."""
        measured = gauges(build_report(self))
        counted = tally_families(self.engine.tally, self.link_kinds())
        outages = outage_families(self.engine.outage)
        return [*self.stats.families(), *measured, *counted, *outages, *self.event_families()]

    def histograms(self) -> dict[str, Histogram]:
        """Return the present state of every histogram, by its name."""
        return named_histograms(self)

    def upstream_facts(self) -> dict[str, Any]:
        """Return url, state, server and why it is not up."""
        control = self._worker.control
        return {
            "url": self._worker.endpoint.display,
            "state": control.state,
            "server": control.server,
            "why": control.why,
            **upstream_fields(self.engine.outage),
            "tracked_keys": control.watch.governor.keys,
            "tracked_max_keys": control.watch.governor.max_keys,
        }

    def link_facts(self) -> list[dict[str, Any]]:
        """Return one row a link to Redis."""
        rows = [
            {
                "id": f"data-{number}",
                "kind": "data",
                "db": scope.db,
                "user": scope.user.decode("utf-8", "replace"),
                "protocol": scope.protocol,
                "state": "up" if link.connected else "down",
                "tracked": link.tracked,
                "outstanding": len(link.fifo),
                "outbox_bytes": link.unsent_bytes,
                **link_fields(link.counted()),
            }
            for scope, group in self._worker.links.groups.items()
            for number, link in enumerate(group.links)
        ]
        rows += [
            {
                "id": f"pinned-{link.upstream_id}",
                "kind": "pinned",
                "db": link.place.db,
                "user": link.place.identity.user.decode("utf-8", "replace"),
                "protocol": link.place.protocol,
                "state": "idle" if link.holder is None else "held",
                "tracked": False,
                "outstanding": len(link.fifo),
                "outbox_bytes": link.unsent_bytes,
                **link_fields(link.counted()),
            }
            for link in self._worker.pool.links
        ]
        control = self._worker.control
        kind = control.counted()
        rows.append(
            {
                "id": "invalidation",
                "kind": "invalidation",
                "db": 0,
                "user": "",
                "protocol": 3 if control.is_resp3 else 2,
                "state": "up" if control.is_up else "down",
                "tracked": self.tracking.may_cache,
                "outstanding": kind.outstanding,
                "outbox_bytes": kind.outbox_bytes,
                **link_fields(kind.figures),
            }
        )
        return rows

    def link_kinds(self) -> dict[str, LinkKind]:
        """Return how the links of each kind stand, and what was counted of them, those that ended included."""
        kinds = {"data": LinkKind(), "pinned": LinkKind()}
        for kind, ended in self.stats.ended_links.items():
            kinds[kind].figures.add(ended)
        groups = self._worker.links.groups.values()
        for link in (*(link for group in groups for link in group.links), *self._worker.pool.links):
            found = kinds[link.kind]
            found.up += link.connected
            found.outstanding += len(link.fifo)
            found.outbox_bytes += link.unsent_bytes
            found.figures.add(link.counted())
        kinds["invalidation"] = self._worker.control.counted()
        return kinds

    def value_facts(self) -> dict[str, Any]:
        """Return what was done to values."""
        return self._worker.value_layer.report()

    def uptime_s(self) -> float:
        """Return seconds since the start."""
        return time.monotonic() - self._worker.started_at

    def resident_bytes(self) -> int:
        """Return the resident memory of this process."""
        return resident_bytes()

    def client_count(self) -> int:
        """Return how many clients are connected."""
        return len(self._worker.clients)
