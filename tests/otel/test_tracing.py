"""Spans of events: whose trace they are part of, which have one, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from proxy.events.event import Event
from proxy.events.sink import Applied, Failed, Gap
from proxy.otel.tracing import TracedSink

from ..amqp.eventing import FakeSink

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
NOT_SAMPLED = f"00-{TRACE}-{PARENT}-00"


def _traced(sink: FakeSink, share: float) -> tuple[TracedSink, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return TracedSink(sink, provider.get_tracer("test")), exporter


def _parents(spans: Sequence[ReadableSpan]) -> list[tuple[str, str] | None]:
    return [
        None if one.parent is None else (f"{one.parent.trace_id:032x}", f"{one.parent.span_id:016x}") for one in spans
    ]


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_event_with_a_traceparent_is_part_of_that_trace_if_it_is_sampled(share: float) -> None:
    """Its publisher has decided, whatever the share for others is."""
    sink, exporter = _traced(FakeSink(), share)

    await sink.apply([Event((b"a",), trace=SAMPLED), Event((b"b",), trace=NOT_SAMPLED)])

    assert _parents(exporter.get_finished_spans()) == [(TRACE, PARENT)]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 20)])
async def test_event_without_one_begins_a_trace_for_a_share_of_them(share: float, count: int) -> None:
    """One that is no traceparent is as good as none."""
    sink, exporter = _traced(FakeSink(), share)

    await sink.apply([Event((b"a",), trace=trace) for trace in ("", "00-nonsense") * 10])

    assert _parents(exporter.get_finished_spans()) == [None] * count


async def test_span_says_what_became_of_the_event_and_names_no_key() -> None:
    """Counts, the id and the publisher; keys may be people's."""
    fake = FakeSink()
    fake.decide = lambda _: Applied(keys=2, entries=1, fences=3, is_old=True)
    sink, exporter = _traced(fake, 1.0)
    event = Event((b"secret:1",), tags=(b"secret",), id="m1", publisher="api", seq=0, at_ms=5)

    assert await sink.apply([event]) == [Applied(2, 1, 3, is_old=True)]

    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "respite invalidate",
        SpanKind.CONSUMER,
        StatusCode.UNSET,
    )
    assert span.attributes == {
        "messaging.operation.type": "process",
        "messaging.message.id": "m1",
        "respite.publisher": "api",
        "respite.seq": 0,
        "respite.published_at_ms": 5,
        "respite.keys": 2,
        "respite.entries": 1,
        "respite.fences": 3,
        "respite.is_old": True,
    }


async def test_span_of_an_event_that_failed_has_the_reason() -> None:
    """In a batch each has its own end."""
    fake = FakeSink()
    fake.decide = lambda event: Failed("no room") if event.keys == (b"bad",) else Applied()
    sink, exporter = _traced(fake, 1.0)

    await sink.apply([Event((b"bad",)), Event((b"good",))])

    assert [(one.status.status_code, one.status.description) for one in exporter.get_finished_spans()] == [
        (StatusCode.ERROR, "no room"),
        (StatusCode.UNSET, None),
    ]


async def test_span_of_a_cancelled_event_ends(autojump_clock: trio.testing.MockClock) -> None:
    """No span is left open, and the cancellation goes its way."""
    fake = FakeSink()
    fake.delay_s = 60.0
    sink, exporter = _traced(fake, 1.0)

    with trio.move_on_after(1) as scope:
        await sink.apply([Event((b"a",))])

    assert scope.cancelled_caught
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


async def test_everything_else_is_the_sinks_own() -> None:
    """Whoever holds the traced sink can do all that the sink can."""
    fake = FakeSink()
    fake.holes = [Gap("api", 1, 2)]
    sink, _ = _traced(fake, 1.0)

    sink.breathe()
    await sink.wait_up()
    await sink.note([Event((b"a",), publisher="api", seq=1)])
    assert fake.noted == [("api", 1)]
    assert await sink.take_holes() == [Gap("api", 1, 2)]
    assert await sink.flush(["a:*"], "why") is True
    assert fake.flushed == [(("a:*",), "why")]
    assert await sink.queue_owes("q") is False
    assert await sink.queue_is_gone("q") is True
    assert fake.lost == {"q"}
    await sink.queue_is_flushed("q")
    assert fake.lost == set()
