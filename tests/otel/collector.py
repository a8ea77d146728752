"""A collector of OpenTelemetry, as far as a test needs one: takes what is posted, and does as it is told."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@attrs.define(eq=False)
class Collector:
    """What came. `status` is what it answers; while `may_answer` is not set it holds every request."""

    url: str = ""
    status: int = 200
    may_answer: threading.Event = attrs.field(factory=threading.Event)
    posts: list[tuple[str, dict[str, str], bytes]] = attrs.field(factory=list)

    def figures(self) -> list[dict[str, Any]]:
        """Return each export of figures, its metrics by name."""
        found = []
        for path, _, body in self.posts:
            if path == "/v1/metrics":
                request = ExportMetricsServiceRequest.FromString(body)
                found.append({one.name: one for one in request.resource_metrics[0].scope_metrics[0].metrics})
        return found

    def resource(self) -> dict[str, str]:
        """Return the attributes of whoever sent the first figures."""
        body = next(body for path, _, body in self.posts if path == "/v1/metrics")
        attributes = ExportMetricsServiceRequest.FromString(body).resource_metrics[0].resource.attributes
        return {one.key: one.value.string_value for one in attributes}

    def spans(self) -> list[Any]:
        """Return all spans that came."""
        requests = [ExportTraceServiceRequest.FromString(body) for path, _, body in self.posts if path == "/v1/traces"]
        return [
            span
            for request in requests
            for of_one in request.resource_spans
            for scope in of_one.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Run a collector on a port of loopback."""
    collector = Collector()
    collector.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.may_answer.wait(10) and collector.status == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.posts.append((self.path, headers, body))
            try:
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:  # whoever asked has given up
                return

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield collector
        finally:
            collector.may_answer.set()
            server.shutdown()
            thread.join()
