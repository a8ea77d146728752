"""What goes to a collector: all figures every `otel.interval`, the spans of events as they end.

    trio thread:  source.families() --> values --> | a thread of ours | --> POST endpoint/v1/metrics
                  event applied --> span ends --> queue of 2,048 --> | the SDK's thread | --> POST endpoint/v1/traces

Threads are handed values and never call back. A collector that is away, slow or wrong costs its own figures and spans,
which are dropped, and a line in the log when that begins and when it ends. Headers, certificates and names come from
the standard's own variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, ..).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import trio
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from proxy import __version__
from proxy.config.model import Otel
from proxy.core.figures.stats import MetricFamily
from proxy.events.sink import Sink
from proxy.log import get_logger
from proxy.otel.figures import to_metrics
from proxy.otel.tracing import TracedSink

_EXPORT_S: Final = 10.0  # for one POST, with all its tries
_LAST_S: Final = 2.0  # for what is still to be sent when the proxy ends
_MOST_WORDS: Final = 300  # characters of a reason in the log
log = get_logger("otel")


class Source(Protocol):
    """Whoever has figures: one worker, or all of them joined."""

    async def families(self) -> Iterable[MetricFamily]:
        """Return every metric with its present value."""
        ...


class Telemetry:
    """Send what one process has to tell. Only figures of `run` and spans of `traced` go out."""

    def __init__(self, settings: Otel) -> None:
        self._interval_s = settings.interval_s
        self._words = _LastWords()
        self._began_ns = time.time_ns()
        self._scope = InstrumentationScope("respite", __version__)
        self._resource = _resource()
        self._state = _State("figures", self._words)
        self._figures = OTLPMetricExporter(f"{settings.endpoint}/v1/metrics", timeout=_EXPORT_S)
        spans = OTLPSpanExporter(f"{settings.endpoint}/v1/traces", timeout=_EXPORT_S)
        # Of our own, not the global one. Ended by `close`, not at the interpreter's exit.
        self._provider = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.traces)), self._resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(_WatchedExporter(spans, self._words)))

    def traced(self, sink: Sink) -> Sink:
        """Return a sink that does what the given one does, and leaves a span of each event that is sampled."""
        return TracedSink(sink, self._provider.get_tracer("respite", __version__))

    async def run(self, source: Source) -> None:
        """Send the figures of `source` until cancelled; what is under way then is left to its thread."""
        while True:
            await trio.sleep(self._interval_s)
            await self._send(source)

    async def close(self, source: Source | None = None) -> None:
        """Send the spans that wait, and the figures of `source` a last time, for seconds at most; then nothing more."""
        with trio.move_on_after(_LAST_S):
            if source is not None:
                await self._send(source)
            try:
                await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)
            except Exception:  # nor to end otherwise than in order
                log.exception("spans cannot be sent")

    async def _send(self, source: Source) -> None:
        try:
            await self._send_figures(source)
        except Exception:  # a mistake of ours in a figure is no reason to serve nobody
            log.exception("figures cannot be sent")

    async def _send_figures(self, source: Source) -> None:
        data = to_metrics(
            await source.families(), self._resource, self._scope, began_ns=self._began_ns, now_ns=time.time_ns()
        )
        self._state.note(is_sent=await trio.to_thread.run_sync(self._export, data, abandon_on_cancel=True))

    def _export(self, data: MetricsData) -> bool:
        try:
            return self._figures.export(data) is MetricExportResult.SUCCESS
        except OSError as exc:  # some versions let through what `requests` raises
            self._words.keep(exc)
            return False


class _State:
    """Whether something reaches the collector; says so in the log when that changes, and no more often."""

    def __init__(self, what: str, words: _LastWords) -> None:
        self._what = what
        self._words = words
        self._is_sent = True

    def note(self, *, is_sent: bool) -> None:
        if is_sent != self._is_sent:
            if is_sent:
                log.info("the collector is there again", what=self._what)
            else:
                log.warning("the collector does not get it", what=self._what, why=self._words.last)
        self._is_sent = is_sent


class _WatchedExporter(SpanExporter):
    """Notes what becomes of what it has sent. Called on the SDK's thread."""

    def __init__(self, exporter: SpanExporter, words: _LastWords) -> None:
        self._exporter = exporter
        self._words = words
        self._state = _State("traces", words)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except OSError as exc:
            self._words.keep(exc)
            result = SpanExportResult.FAILURE
        self._state.note(is_sent=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _LastWords(logging.Handler):
    """Takes what the SDK would write on standard error, a paragraph each time, and keeps the last of it for our log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        theirs = logging.getLogger("opentelemetry")
        theirs.handlers = [self]
        theirs.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:_MOST_WORDS]

    def keep(self, error: Exception) -> None:
        """Keep what an error says."""
        self.last = f"{type(error).__name__}: {error}"[:_MOST_WORDS]


def _resource() -> Resource:
    """Say who we are; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say stands above it."""
    ours = {
        "service.name": "respite",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    said = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in ours.items() if name not in said})
