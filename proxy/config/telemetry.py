"""The keys of [otel]: where figures and traces go by OpenTelemetry's protocol, how often, and how many traces.

What the standard has variables for is said by those, in the environment: OTEL_EXPORTER_OTLP_HEADERS, which may hold a
secret, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_CERTIFICATE.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from proxy.config import kinds
from proxy.config.key import Key
from proxy.config.kinds import Kind, is_text

_HOUR: Final = 3600.0


def otlp_url() -> Kind:
    """Accept the URL of a receiver of OTLP over HTTP, without the path of a signal, or "" for none."""

    def read(value: object) -> str:
        if not is_text(value):
            raise ValueError
        if not value:
            return ""
        try:
            parts = urlsplit(value)
            host, port, user = parts.hostname, parts.port, parts.username
        except ValueError:
            raise ValueError("the host is no name and no address, or the port no number up to 65535") from None
        if any(character.isspace() or not character.isprintable() for character in value):
            raise ValueError("a URL holds no blanks and no control characters")
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError
        if user is not None or parts.query or parts.fragment:
            raise ValueError("credentials go into OTEL_EXPORTER_OTLP_HEADERS, and there are no parameters")
        if port is not None and port == 0:
            raise ValueError("port 0 is no receiver")
        if parts.path.rstrip("/").endswith(("/v1/metrics", "/v1/traces")):
            raise ValueError("leave out /v1/metrics and /v1/traces: they are added")
        return value.rstrip("/")

    return Kind('an http:// or https:// URL such as "http://127.0.0.1:4318", or "" for none', read)


def _key(name: str, kind: Kind, default: object, when: str, *, field: str = "") -> Key:
    path = f"otel.{name}"
    return Key(path, f"otel.{field or name}", kind, default, live=False, help=when)


OTEL: Final[tuple[Key, ...]] = (
    _key(
        "endpoint",
        otlp_url(),
        "",
        "Set to a collector (OTLP over HTTP) to send it figures and traces; needs pip install 'respite-proxy[otel]'.",
    ),
    _key(
        "interval",
        kinds.seconds(0.1, _HOUR),
        "60s",
        "Lower to have figures there sooner; so often all of them are sent.",
        field="interval_s",
    ),
    _key(
        "traces",
        kinds.share(0, 1),
        0.01,
        "Raise to trace more invalidations; for one that carries a traceparent that alone decides.",
    ),
)
