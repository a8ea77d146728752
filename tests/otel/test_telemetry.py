"""What a collector gets, and what one that is away, slow or wrong costs: its own figures, and nothing else."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio

from proxy import __version__
from proxy.config.model import Otel
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.events.event import Event
from proxy.log import configure
from proxy.otel import telemetry as module
from proxy.otel.telemetry import Telemetry

from ..amqp.eventing import FakeSink
from ..e2e.servers import free_port
from .collector import Collector, collecting

DEADLINE_S = 10.0


class FakeSource:
    """Counts how often it is asked; `fault` is raised once."""

    def __init__(self) -> None:
        self.asked = 0
        self.fault: Exception | None = None

    async def families(self) -> Iterable[MetricFamily]:
        """Return one counter."""
        self.asked += 1
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return [MetricFamily("respite_asked", "counter", "", (Sample("_total", {}, float(self.asked)),))]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SERVICE_NAME", "RESOURCE_ATTRIBUTES", "EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    configure("info", "text")
    theirs = logging.getLogger("opentelemetry")
    before = theirs.handlers, theirs.propagate
    yield
    theirs.handlers, theirs.propagate = before
    structlog.reset_defaults()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector that takes everything."""
    with collecting() as made:
        yield made


@asynccontextmanager
async def _running(url: str, source: FakeSource, traces: float = 1.0) -> AsyncIterator[Telemetry]:
    telemetry = Telemetry(Otel(url, 0.02, traces))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(telemetry.run, source)
        yield telemetry
        nursery.cancel_scope.cancel()
    await telemetry.close()


async def _until(is_so: object, what: str) -> None:
    assert callable(is_so)
    with trio.move_on_after(DEADLINE_S):
        while not is_so():
            await trio.sleep(0.005)
        return
    raise AssertionError(what)


async def test_figures_are_sent_every_interval(collector: Collector) -> None:
    """Each export has all figures as they are then, under the name of the service and its version."""
    async with _running(collector.url, FakeSource()):
        await _until(lambda: len(collector.figures()) >= 3, "three exports")

    values = [one["respite.asked"].sum.data_points[0].as_double for one in collector.figures()]
    assert values[:3] == [1.0, 2.0, 3.0]
    resource = collector.resource()
    assert (resource["service.name"], resource["service.version"]) == ("respite", __version__)
    assert resource["service.instance.id"]


async def test_standard_variables_stand_above_ours(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, attributes and headers are said as for any other service."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tickets-cache")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=staging,service.version=9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret")
    async with _running(collector.url, FakeSource()):
        await _until(collector.figures, "an export")

    resource = collector.resource()
    assert (resource["service.name"], resource["service.version"]) == ("tickets-cache", "9")
    assert resource["deployment.environment"] == "staging"
    assert collector.posts[0][1]["authorization"] == "Bearer s3cret"


async def test_close_sends_what_waits(collector: Collector) -> None:
    """Spans that no batch was full for, and the figures of the last moment."""
    telemetry = Telemetry(Otel(collector.url, 3600.0, 1.0))
    source = FakeSource()
    await telemetry.traced(FakeSink()).apply([Event((b"a",)), Event((b"b",))])

    await telemetry.close(source)

    assert (len(collector.spans()), len(collector.figures())) == (2, 1)


async def test_collector_that_hangs_holds_up_nobody(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it keeps every request waiting the loop goes on, and the end waits for it no longer than it is told."""
    monkeypatch.setattr(module, "_LAST_S", 0.2)
    collector.may_answer.clear()
    source = FakeSource()
    telemetry = Telemetry(Otel(collector.url, 0.01, 1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(telemetry.run, source)
        await _until(lambda: source.asked, "the first export")
        sink = telemetry.traced(FakeSink())
        with trio.fail_after(DEADLINE_S):
            for _ in range(5000):  # more than the queue of spans takes
                await sink.apply([Event((b"a",))])
        nursery.cancel_scope.cancel()
    assert source.asked == 1

    with trio.fail_after(2):
        await telemetry.close(source)


async def test_collector_away_is_said_once_and_figures_come_when_it_is_back(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line when it goes, with the reason, one when it comes; the SDK's own paragraphs are not in the log."""
    monkeypatch.setattr(module, "_EXPORT_S", 0.2)
    port, source = free_port(), FakeSource()
    async with _running(f"http://127.0.0.1:{port}", source):
        await _until(lambda: source.asked >= 3, "three tries")
        with collecting(port) as collector:
            await _until(collector.figures, "an export")
            await _until(lambda: source.asked >= 6, "more of them")

    lines = [line for line in capfd.readouterr().err.splitlines() if "what=figures" in line]
    assert [line.split(" otel: ")[1].split(" what=")[0] for line in lines] == [
        "the collector does not get it",
        "the collector is there again",
    ]
    assert "why=" in lines[0]


async def test_figure_that_breaks_costs_one_export(collector: Collector, capfd: pytest.CaptureFixture[str]) -> None:
    """A mistake of ours is logged, and the next figures are sent."""
    source = FakeSource()
    source.fault = ValueError("a mistake")
    async with _running(collector.url, source):
        await _until(collector.figures, "an export")

    assert "figures cannot be sent" in capfd.readouterr().err


async def test_figure_that_breaks_at_the_end_keeps_no_span_from_being_sent(
    collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last figures are no reason to end otherwise than in order."""
    telemetry = Telemetry(Otel(collector.url, 3600.0, 1.0))
    source = FakeSource()
    source.fault = ValueError("a mistake")
    await telemetry.traced(FakeSink()).apply([Event((b"a",))])

    await telemetry.close(source)

    assert (len(collector.spans()), len(collector.figures())) == (1, 0)
    assert "figures cannot be sent" in capfd.readouterr().err


async def test_spans_that_break_at_the_end_are_said(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the SDK raises is not the proxy's exit code."""
    telemetry = Telemetry(Otel(collector.url, 3600.0, 1.0))
    shutdown = telemetry._provider.shutdown

    def broken() -> None:
        shutdown()
        raise RuntimeError("a mistake")

    monkeypatch.setattr(telemetry._provider, "shutdown", broken)

    await telemetry.close()

    assert "spans cannot be sent" in capfd.readouterr().err


def test_nothing_of_it_is_imported_where_it_is_not_configured() -> None:
    """The extra may be missing: what runs the proxy comes up without it. Nor is the broker's protocol waited for."""
    script = (
        "import sys, proxy.app, proxy.supervisor.parent, proxy.supervisor.child, proxy.cli.main; "
        "from proxy.config.load import default_settings; "
        "assert proxy.app.telemetry_of(default_settings()) is None; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests', 'google', 'pamqp'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30, text=True)

    assert done.stdout.strip() == "[]"
