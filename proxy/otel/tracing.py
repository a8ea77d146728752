"""Traces: one span for each event that is made true, and only for those; reads and writes of clients have none.

    traceparent of the message (or of POST /invalidate) --> parent of the span, which follows its sampled flag
    none                                                --> a trace of its own, for a share of the events

Stands before the sink and is one. A span costs a part of what its event does, and many times what a read does.
Source: W3C Trace Context; OpenTelemetry, "Semantic conventions for messaging".
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.events.event import Event
from proxy.events.sink import Applied, Gap, Outcome, Sink

_SPAN = "respite invalidate"


class TracedSink:
    """A sink that does what another does, and has each event that is sampled as a span of its own."""

    def __init__(self, sink: Sink, tracer: Tracer) -> None:
        self.sink = sink
        self._tracer = tracer
        self._contexts = TraceContextTextMapPropagator()

    async def apply(self, events: Sequence[Event]) -> list[Outcome]:
        """Make a batch true. Its spans end when all of it is done; cancelled, they end as failed."""
        spans = [self._begin(event) for event in events]
        outcomes: Sequence[Outcome] = ()
        try:
            outcomes = found = await self.sink.apply(events)
            return found
        finally:
            for number, span in enumerate(spans):
                _end(span, outcomes[number] if number < len(outcomes) else None)

    def breathe(self) -> None:
        """Do as the sink does."""
        self.sink.breathe()

    async def wait_up(self) -> None:
        """Do as the sink does."""
        await self.sink.wait_up()

    async def note(self, events: Sequence[Event]) -> None:
        """Do as the sink does."""
        await self.sink.note(events)

    async def take_holes(self) -> list[Gap]:
        """Do as the sink does."""
        return await self.sink.take_holes()

    async def flush(self, globs: Sequence[str] | None, reason: str) -> bool:
        """Do as the sink does."""
        return await self.sink.flush(globs, reason)

    async def queue_is_gone(self, queue: str) -> bool:
        """Do as the sink does."""
        return await self.sink.queue_is_gone(queue)

    async def queue_owes(self, queue: str) -> bool | None:
        """Do as the sink does."""
        return await self.sink.queue_owes(queue)

    async def queue_is_flushed(self, queue: str) -> None:
        """Do as the sink does."""
        await self.sink.queue_is_flushed(queue)

    def _begin(self, event: Event) -> Span:
        # One that is no traceparent is as good as none.
        context = self._contexts.extract({"traceparent": event.trace}) if event.trace else None
        span = self._tracer.start_span(_SPAN, context, SpanKind.CONSUMER)
        if span.is_recording():
            # No key, glob or tag is named: they may be people's, and traces go to other places than events.
            span.set_attribute("messaging.operation.type", "process")
            for name, value in (
                ("messaging.message.id", event.id),
                ("respite.publisher", event.publisher),
                ("respite.seq", event.seq),
                ("respite.published_at_ms", event.at_ms),
            ):
                if value not in {None, ""}:
                    span.set_attribute(name, value)
        return span


def _end(span: Span, outcome: Outcome | None) -> None:
    """End a span with what became of its event; None: nobody knows."""
    if isinstance(outcome, Applied):
        span.set_attribute("respite.keys", outcome.keys)
        span.set_attribute("respite.entries", outcome.entries)
        span.set_attribute("respite.fences", outcome.fences)
        span.set_attribute("respite.is_old", outcome.is_old)
    else:
        span.set_status(Status(StatusCode.ERROR, "ended before it was known" if outcome is None else outcome.reason))
    span.end()
