"""The report: one shape for /stats.json, RESPITE STATS and the gauges of /metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy import __version__
from proxy.cache.entry import Scope
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.hottest import Hottest
from proxy.core.figures.links import LinkFigures
from proxy.core.figures.report import build_report, explain_key, gauges
from proxy.core.figures.stats import Stats
from proxy.core.figures.tally_report import LinkKind
from proxy.core.tracking import Tracking
from proxy.wire.encode import bulk

BOB = Scope(b"bob", 1, 3)


class Reported:
    """A worker of which the figures are set by hand."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.engine = Engine(L1(1 << 20), self.stats, enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
        self.engine.now = 100.0
        self.tracking = Tracking(self.engine, wanted="auto", max_staleness_s=1.0)
        self.hottest = Hottest(self.engine)
        self.uptime = 50.0
        self.links: list[dict[str, Any]] = []
        counted = ("sealed", "opened", "damaged", "unwrapped", "purged", "dependents")
        ttl = ("changed", "would_change", "left", "at_min", "at_max")
        self.values: dict[str, Any] = {
            "enabled": True,
            "raw_bytes_total": 1000,
            "stored_bytes_total": 250,
            "saved": 0.75,
            "fences": 2,
            "dictionaries": 1,
            "sweep": {"running": True, "share": 0.5, "scanned_total": 10, "unlinked_total": 11},
            "ttl": {
                "decided_total": {"hot": 1, "warm": 2, "cold": 3},
                **{f"{name}_total": number for number, name in enumerate(ttl, 20)},
            },
            **{f"{name}_total": number for number, name in enumerate(counted, 30)},
        }

    def upstream_facts(self) -> dict[str, Any]:
        """Return a server that is up."""
        facts = {"url": "redis://x:1", "state": "up", "server": "redis 7.0.15", "why": ""}
        return {**facts, "tracked_keys": 5, "tracked_max_keys": 10}

    def link_facts(self) -> list[dict[str, Any]]:
        """Return the links."""
        return self.links

    def event_facts(self) -> dict[str, Any]:
        """Nobody listens to a broker."""
        return {"state": "off"}

    def link_kinds(self) -> dict[str, LinkKind]:
        """Return the kinds of links."""
        return {"data": LinkKind(up=1, outstanding=2, figures=LinkFigures(3, 0, 40, 50))}

    def value_facts(self) -> dict[str, Any]:
        """Return what was done to values."""
        return self.values

    def uptime_s(self) -> float:
        """Return the hand clock."""
        return self.uptime

    def resident_bytes(self) -> int:
        """Return some memory."""
        return 123_456

    def client_count(self) -> int:
        """Return some clients."""
        return 4

    def publish(self, key: bytes, *, scope: Scope = BOB, pttl_ms: int = -1) -> None:
        """Put a value into L1 the way a read does."""
        flight = self.engine.open(self.engine.l1.namespace(scope), bulk(key), self)
        flight.reply = b"$1\r\nv\r\n"
        self.engine.finish(flight, pttl_ms)


@pytest.fixture
def worker() -> Reported:
    """Make a worker whose L1 is served."""
    made = Reported()
    made.tracking.choose(resp3=True, version=(7, 0))
    made.tracking.begin(7, made.engine.now)
    return made


def test_report_of_a_fresh_worker_has_every_figure(worker: Reported) -> None:
    """Each section is there before anything has happened, in JSON's own types; nothing divides by zero."""
    worker.uptime = 0.0
    report = build_report(worker)

    assert json.loads(json.dumps(report)) == report
    assert {name: set(section) for name, section in report.items() if isinstance(section, dict)} == {
        "upstream": {
            *("url", "state", "server", "why", "tracking", "tracking_reason", "tracking_narrowed"),
            *("tracked_keys", "tracked_max_keys"),
        },
        "outage": {
            *("state", "since_s", "why", "last_why", "last_lasted_s", "fallbacks", "stale_entries", "stale_bytes"),
            *("stale_max_bytes", "stale_served_total", "stale_served"),
        },
        "clients": {
            *("connected", "pinned", "accepted_total", "rejected_total", "killed_total", "crowded_total"),
            *("throttled_total", "pins_refused_total", "logins_failed_total", "logins_refused_total"),
            *("killed_unread_total", "killed_unproven_total", "handshakes_failed_total", "protocol_errors_total"),
        },
        "l1": {
            *("enabled", "serving", "entries", "bytes", "max_bytes", "hits_total", "misses_total", "joined_total"),
            *("hit_rate", "evictions_total", "invalidations_total", "flushes_total", "published_total"),
            *("refused_total", "revoked_total", "touched_total", "hash_fields_expire"),
            *("refreshed_total", "needless_pushes_total"),
        },
        "consistency": {"verified_total", "stale_total", "healed_total", "staleness_p50_us", "staleness_p99_us"},
        "commands": {"total", "per_second", "errors_total", "denied_total", "denied_by_user_total"},
        "waited": {"count", "mean_us", "p50_us", "p90_us", "p99_us"},
        "latency": {"count", "mean_us", "p50_us", "p90_us", "p99_us"},
        "values": set(worker.values),  # net.values.value_layer's to say
        "events": {"state"},  # more where a broker is asked
        "memory": {"rss_bytes"},
    }
    assert (report["version"], report["uptime_s"], report["links"]) == (__version__, 0.0, [])
    assert (report["commands"]["per_second"], report["l1"]["hit_rate"]) == (0.0, 0.0)


def test_report_tells_what_was_counted(worker: Reported) -> None:
    """Each counter ends up under its own name."""
    for number, name in enumerate(
        ("accepted", "rejected", "killed", "joined", "invalidations", "flushes", "published", "refused", "failed"), 1
    ):
        setattr(worker.stats, name, number)
    worker.stats.hits, worker.stats.misses, worker.stats.commands = 30, 10, 125

    report = build_report(worker)

    clients, l1, commands = report["clients"], report["l1"], report["commands"]
    assert (clients["accepted_total"], clients["rejected_total"], clients["killed_total"]) == (1, 2, 3)
    assert (l1["joined_total"], l1["invalidations_total"], l1["flushes_total"]) == (4, 5, 6)
    assert (l1["published_total"], l1["refused_total"], commands["errors_total"]) == (7, 8, 9)
    assert (l1["hits_total"], l1["misses_total"], l1["hit_rate"]) == (30, 10, 0.75)
    assert (commands["total"], commands["per_second"]) == (125, 2.5)
    assert (clients["connected"], report["memory"]["rss_bytes"]) == (4, 123_456)


def test_report_tells_who_was_turned_away(worker: Reported) -> None:
    """By reason; of what was denied whose it was, where it was one of listen.users."""
    names = ("killed_unread", "killed_unproven", "handshakes_failed", "protocol_errors", "crowded", "throttled")
    for number, name in enumerate(names, 1):
        setattr(worker.stats, name, number)
    for user in ("web", "", "jobs", "web"):
        worker.stats.deny(user)

    report = build_report(worker)

    assert [report["clients"][f"{name}_total"] for name in names] == [1, 2, 3, 4, 5, 6]
    assert report["commands"]["denied_total"] == 4
    assert report["commands"]["denied_by_user_total"] == {"web": 2, "jobs": 1}


def test_report_tells_the_state_of_l1(worker: Reported) -> None:
    """Entries, bytes, whether it is served, and how the server tracks."""
    worker.publish(b"k")
    report = build_report(worker)
    assert (report["l1"]["entries"], report["l1"]["serving"], report["l1"]["enabled"]) == (1, True, True)
    assert 0 < report["l1"]["bytes"] < report["l1"]["max_bytes"] == 1 << 20
    assert report["upstream"]["tracking"] == "redirect"

    worker.tracking.lose()

    report = build_report(worker)
    assert (report["l1"]["entries"], report["l1"]["bytes"], report["l1"]["serving"]) == (0, 0, False)


def test_report_counts_pinned_links(worker: Reported) -> None:
    """Of the links, which are passed on as they are."""
    worker.links = [{"kind": kind} for kind in ("data", "pinned", "data", "pinned", "pinned")]

    report = build_report(worker)

    assert report["clients"]["pinned"] == 3
    assert report["links"] == worker.links


def test_report_tells_latency_in_microseconds(worker: Reported) -> None:
    """Quantiles of what went upstream: half at 1 ms, one in a hundred at 100 ms."""
    for _ in range(980):
        worker.stats.latency.add(0.001)
    for _ in range(20):
        worker.stats.latency.add(0.1)

    latency = build_report(worker)["latency"]

    assert latency["count"] == 1000
    assert 500 <= latency["p50_us"] <= latency["p90_us"] <= 2000
    assert 50_000 <= latency["p99_us"] <= 200_000


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain_of_an_unknown_key_says_so(worker: Reported) -> None:
    """Nothing is held, and why that may be is told."""
    assert explain_key(worker.engine, b"nosuch") == {
        "key": "nosuch",
        "l1": [],
        "l1_serving": True,
        "write_in_flight": False,
        "events": [],
    }


def test_explain_of_a_key_tells_for_whom_and_how_long(worker: Reported) -> None:
    """One row a user, database and protocol that holds it."""
    worker.publish(b"k", pttl_ms=9000)
    worker.publish(b"k", scope=Scope(b"", 0, 2))
    worker.publish(b"other")
    worker.engine.now += 2.5

    assert explain_key(worker.engine, b"k")["l1"] == [
        {
            "user": "bob",
            "db": 1,
            "protocol": 3,
            "in_flight": False,
            "reply_bytes": 7,
            "uses": 1,
            "idle_s": 2.5,
            "ends_in_s": 6.5,
        },
        {
            "user": "",
            "db": 0,
            "protocol": 2,
            "in_flight": False,
            "reply_bytes": 7,
            "uses": 1,
            "idle_s": 2.5,
            "ends_in_s": 57.5,
        },
    ]


def test_explain_sees_flights_and_writes(worker: Reported) -> None:
    """A read and a write on their way are told; so is a write of all keys."""
    worker.engine.open(worker.engine.l1.namespace(Scope(b"", 0, 2)), bulk(b"k"), worker)
    assert explain_key(worker.engine, b"k")["l1"] == [{"user": "", "db": 0, "protocol": 2, "in_flight": True}]

    worker.engine.begin_write([bulk(b"k")])
    assert explain_key(worker.engine, b"k")["write_in_flight"]
    assert not explain_key(worker.engine, b"other")["write_in_flight"]
    worker.engine.begin_write_all()
    assert explain_key(worker.engine, b"other")["write_in_flight"]


def test_explain_tells_an_entry_that_is_not_served(worker: Reported) -> None:
    """While L1 is suspended what it holds is still shown."""
    worker.publish(b"k")
    worker.engine.suspend()

    explained = explain_key(worker.engine, b"k")
    assert (len(explained["l1"]), explained["l1_serving"]) == (1, False)


def test_explain_shows_any_bytes(worker: Reported) -> None:
    """A key that is no text is shown as well as it can be."""
    worker.publish(b"\xff\x00k")

    explained = explain_key(worker.engine, b"\xff\x00k")
    assert explained["key"] == "\ufffd\x00k"
    assert json.dumps(explained)


# -- gauges ------------------------------------------------------------------------------------------------------------


def test_gauges_are_the_reports_figures(worker: Reported) -> None:
    """Each gauge has one sample with the value of the report; switches are 0 or 1."""
    worker.publish(b"k")
    worker.links = [{"kind": "pinned"}]
    report = build_report(worker)
    families = {family.name: family for family in gauges(report)}
    values = {name: family.samples[0].value for name, family in families.items()}

    assert values["respite_clients"] == 4
    assert values["respite_pinned_links"] == 1
    assert values["respite_l1_entries"] == 1
    assert values["respite_l1_bytes"] == report["l1"]["bytes"]
    assert values["respite_l1_max_bytes"] == 1 << 20
    assert (values["respite_l1_serving"], values["respite_upstream_up"]) == (1.0, 1.0)
    assert (values["respite_resident_memory_bytes"], values["respite_uptime_seconds"]) == (123_456, 50)
    assert (values["respite_l1_evictions"], values["respite_l1_revoked"]) == (0, 0)
    labelled = {"respite_sweep_keys": ({"what": "scanned"}, 10), "respite_ttl_decisions": ({"tier": "hot"}, 1)}
    for name, family in families.items():
        assert len(family.samples) == 1 or name in labelled, name
        assert family.help.endswith("."), name
        for sample in family.samples:
            assert (family.kind, sample.suffix) in (("gauge", ""), ("counter", "_total")), name
            assert isinstance(sample.value, float), name
    for name, (labels, value) in labelled.items():
        assert (families[name].samples[0].labels, families[name].samples[0].value) == (labels, value)


def test_gauges_tell_what_was_done_to_values(worker: Reported) -> None:
    """Each figure of the section under its own name; of what is in force, how much."""
    values = {family.name: [sample.value for sample in family.samples] for family in gauges(build_report(worker))}

    for name in ("sealed", "opened", "damaged", "unwrapped", "purged", "raw_bytes", "stored_bytes"):
        assert values[f"respite_values_{name}"] == [worker.values[f"{name}_total"]]
    assert (values["respite_fences"], values["respite_dictionaries"]) == ([2], [1])
    assert values["respite_dependents"] == [worker.values["dependents_total"]]
    assert (values["respite_sweep_keys"], values["respite_ttl_decisions"]) == ([10, 11], [1, 2, 3])
    assert (values["respite_ttl_changed"], values["respite_ttl_would_change"]) == ([20], [21])


def test_gauges_tell_that_the_upstream_is_away(worker: Reported) -> None:
    """`respite_upstream_up` is 0 for every state but up."""
    report = build_report(worker)
    report["upstream"]["state"] = "unreachable"

    (up,) = [family for family in gauges(report) if family.name == "respite_upstream_up"]
    assert up.samples[0].value == 0.0


def test_gauges_and_counters_share_no_name(worker: Reported) -> None:
    """Prometheus refuses a page on which a family appears twice."""
    names = [family.name for family in [*worker.stats.families(), *gauges(build_report(worker))]]

    assert len(names) == len(set(names))
