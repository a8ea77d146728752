"""What a configuration says once it has been read: frozen values, seconds and bytes, nothing left to parse.

No defaults here: `keys.py` declares them, once. `load.default_settings()` hands out the settings of an empty file.
"""

from __future__ import annotations

from typing import Literal

import attrs

from proxy.config.endpoint import Endpoint, parse_endpoint

__all__ = [
    "L1",
    "Endpoint",
    "Listen",
    "Log",
    "ProxyUser",
    "Rollout",
    "Settings",
    "TlsClient",
    "TlsServer",
    "Upstream",
    "parse_endpoint",
]


@attrs.frozen
class TlsServer:
    """TLS towards clients: paths of PEM files, "" where there is none. `ca` is what client certificates are held to."""

    cert: str
    key: str
    ca: str
    require_client_cert: bool


@attrs.frozen
class TlsClient:
    """TLS towards Redis: paths of PEM files. `ca` "" means the system's authorities."""

    ca: str
    cert: str
    key: str
    verify: bool


@attrs.frozen
class ProxyUser:
    """Somebody whom Respite itself lets in, whatever Redis would say."""

    name: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class Listen:
    """The side of the clients. `admin` "" means no admin port; `idle_timeout_s` 0 means never."""

    urls: tuple[Endpoint, ...]
    admin: str
    admin_token: str = attrs.field(repr=False)
    workers: int
    max_clients: int
    idle_timeout_s: float
    max_pipeline: int
    output_buffer_limit_bytes: int
    max_bulk_bytes: int
    max_request_bytes: int
    tls: TlsServer
    users: tuple[ProxyUser, ...]


@attrs.frozen
class Upstream:
    """The side of Redis. `endpoint` None means an embedded Redis of our own."""

    endpoint: Endpoint | None
    connect_timeout_s: float
    response_timeout_s: float
    pinned_connections: int
    tls: TlsClient


@attrs.frozen
class L1:
    """The cache in this process. `max_age_s` is a hard cap, `max_staleness_s` how long the link may be silent."""

    enabled: bool
    max_bytes: int
    max_value_bytes: int
    max_age_s: float
    max_staleness_s: float
    tracking: Literal["auto", "redirect", "broadcast", "off"]
    fence_scripts: bool


@attrs.frozen
class Rollout:
    """How much of Respite is in effect: "off" is pure pass-through."""

    mode: Literal["on", "off"]


@attrs.frozen
class Log:
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


@attrs.frozen
class Settings:
    """The whole configuration."""

    listen: Listen
    upstream: Upstream
    l1: L1
    rollout: Rollout
    log: Log
