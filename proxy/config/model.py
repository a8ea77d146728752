"""What a configuration says once it has been read: frozen values, seconds and bytes, nothing left to parse.

No defaults here: the tables of keys declare them, once. `load.default_settings()` hands out the settings of an empty
file. Only a class and an event rule have them here too, for those that make one by hand; a test holds the two together.
"""

from __future__ import annotations

from typing import Literal

import attrs

from proxy.config.alert_conditions import Condition, Notify
from proxy.config.endpoint import AmqpEndpoint, Endpoint, parse_endpoint
from proxy.config.event_templates import EventTemplate
from proxy.config.users import ProxyUser

__all__ = [
    "L1",
    "AlertRule",
    "Amqp",
    "AmqpEndpoint",
    "ClassSettings",
    "Compression",
    "Condition",
    "Endpoint",
    "EventRule",
    "EventTemplate",
    "Listen",
    "Log",
    "Metrics",
    "Notify",
    "Otel",
    "Outage",
    "ProxyUser",
    "Push",
    "PushToken",
    "Retry",
    "Rollout",
    "Settings",
    "TlsClient",
    "TlsServer",
    "Ttl",
    "Tuning",
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
    min_version: Literal["1.2", "1.3"]


@attrs.frozen
class TlsClient:
    """TLS towards Redis or the broker: paths of PEM files. `ca` "" means the system's authorities."""

    ca: str
    cert: str
    key: str
    verify: bool
    min_version: Literal["1.2", "1.3"]


@attrs.frozen
class Listen:
    """The side of the clients. `admin` "" means no admin port; `idle_timeout_s` 0 means never; `workers` 1 to 64."""

    urls: tuple[Endpoint, ...]
    admin: str
    admin_token: str = attrs.field(repr=False)
    workers: int
    max_clients: int
    idle_timeout_s: float
    auth_timeout_s: float
    drain_delay_s: float
    max_pipeline: int
    output_buffer_limit_bytes: int
    output_buffer_total_bytes: int
    max_bulk_bytes: int
    max_request_bytes: int
    tls: TlsServer
    users: tuple[ProxyUser, ...]
    allow_commands: tuple[str, ...]
    deny_commands: tuple[str, ...]
    rate_limit: int
    rate_burst: int
    rate_per: Literal["connection", "address", "user"]
    max_clients_per_address: int
    max_pinned_per_address: int
    max_subscriptions: int


@attrs.frozen
class Upstream:
    """The side of Redis. `endpoint` None means an embedded Redis of our own.

    `soft_timeout_s` 0 means none: after it a read may be answered with what L1 held last. `max_waiting` is the most
    commands that wait for Redis on the links of one user, database and protocol.
    """

    endpoint: Endpoint | None
    connect_timeout_s: float
    response_timeout_s: float
    soft_timeout_s: float
    max_waiting: int
    pinned_connections: int
    tls: TlsClient


@attrs.frozen
class L1:
    """The cache in this process. `max_age_s` is a hard cap, `max_staleness_s` how long the link may be silent.

    `scope` "classes" keeps only keys of a class with l1. `cache_commands` are names of module commands in upper case.
    `verify` is the share of hits that are compared with Redis, 0 to 1; `touch_rate` the hot keys a second that are
    touched there, 0 for none; `early_refresh` the share of an entry's life, before its end, in which one reader goes to
    Redis while the others are still served: 0 to 0.5.
    """

    enabled: bool
    max_bytes: int
    max_value_bytes: int
    max_age_s: float
    max_staleness_s: float
    admit: Literal["auto", "always", "second_read"]
    scope: Literal["all", "classes"]
    cache_commands: tuple[str, ...]
    tracking: Literal["auto", "redirect", "broadcast", "off"]
    fence_scripts: bool
    verify: float
    touch_rate: int
    early_refresh: float


@attrs.frozen
class Rollout:
    """How much of Respite is in effect: "off" is pure pass-through, "shadow" compares L1 with Redis, never serves it.

    `percent` of client connections get `mode`, 0 to 100; the rest get "off". Without `write_envelopes` values are
    written as clients give them, while envelopes that are there are still opened.
    """

    mode: Literal["on", "off", "shadow"]
    percent: float
    write_envelopes: bool


@attrs.frozen
class Ttl:
    """From how many reads in the window a key is warm or hot, how long hot and cold data lives.

    `jitter` is the share by which a TTL may be longer or shorter, so that not all end at once.
    """

    window_s: float
    warm_above: int
    hot_above: int
    hot_s: float
    cold_s: float
    jitter: float


@attrs.frozen
class Compression:
    """What is worth compressing: from which size on, and if it saves which share, 0 to 1.

    `time_share` of a worker's time may go to it; what comes beyond is stored as it is.
    """

    min_bytes: int
    min_saving: float
    time_share: float
    codec: Literal["lz4", "zstd"]


@attrs.frozen
class Log:
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


@attrs.frozen
class ClassSettings:
    """Keys that are treated alike: those that one of the globs `match` takes and none of a class before.

    `l1` says whether L1 may hold them, `max_staleness_s` None that l1.max_staleness holds for them. `recompute_lease_s`
    is how long one of many readers, on all hosts, may take to make a missing value anew, 0 that nobody gets a lease;
    meanwhile the others "wait" or get what is "stale".

    `ttl_s` is the base of a TTL by access frequency, None that it is what the app asks for; `ttl_when_missing` "set"
    gives one to a write that has none. `min_ttl_s` and `max_ttl_s` bound every TTL, None that the class names no bound.
    `compress`, `dictionary` and `version` ask for envelopes. `tags` and `invalidates` are templates (config.templates).
    While Redis is away, what L1 held is served for `stale_if_error_s` past its end, 0 for not at all, and commands
    "fail" or are taken in "memory" (`offline`).
    """

    name: str
    match: tuple[str, ...]
    l1: bool = True
    max_staleness_s: float | None = None
    recompute_lease_s: float = 0
    while_recomputed: Literal["wait", "stale"] = "wait"
    ttl_s: float | None = None
    adaptive_ttl: Literal["off", "on", "report"] = "off"
    ttl_when_missing: Literal["leave", "set"] = "leave"
    min_ttl_s: float | None = None
    max_ttl_s: float | None = None
    compress: bool = False
    dictionary: bool = False
    version: bool = False
    tags: tuple[str, ...] = ()
    invalidates: tuple[str, ...] = ()
    stale_if_error_s: float = 0
    offline: Literal["fail", "memory"] = "fail"


@attrs.frozen
class Retry:
    """How an event that failed is tried again: `attempts` times, 0 for never, after delays that double up to a most."""

    attempts: int
    first_s: float
    max_s: float


@attrs.frozen
class Amqp:
    """The broker that tells of changes, `urls` being the nodes of one cluster; none of them: no broker is asked.

    `binding_keys` say which events of the exchange the queue gets. `delivery` "shared": one queue, of which each event
    goes to one sidecar; "broadcast": each sidecar has a queue of its own. `scopes` are (glob over publishers, globs
    over keys): what the lost events of a publisher may have been about. The first glob that takes a publisher has it;
    lost events of one that none takes may have been about any key of any class. `publish_changes`: writes of keys of a
    class are announced on the exchange respite.changes.
    """

    urls: tuple[AmqpEndpoint, ...]
    exchange: str
    queue: str
    queue_type: Literal["classic", "quorum"]
    binding_keys: tuple[str, ...]
    delivery: Literal["shared", "broadcast"]
    prefetch: int
    retry: Retry
    dead_letter_queue: str
    publish_changes: bool
    tls: TlsClient
    scopes: tuple[tuple[str, tuple[str, ...]], ...]


@attrs.frozen
class EventRule:
    """What a message that names no keys itself makes wrong, if its routing key is one that the topic pattern takes.

    One of `keys`, `patterns` and `tags` at least is there. `version` None: an event of the rule has no version;
    `then_publish` None: no push channel is told besides those of the keys.
    """

    routing_key: str
    keys: tuple[EventTemplate, ...] = ()
    patterns: tuple[EventTemplate, ...] = ()
    tags: tuple[EventTemplate, ...] = ()
    version: EventTemplate | None = None
    then_publish: EventTemplate | None = None


@attrs.frozen
class Metrics:
    """Figures over time: for how long they are kept, and who hears of alerts whose rule does not say so.

    `queue_full_at` is the most events that the queue holds, 0 where it has no bound or nobody knows.
    """

    history_s: float
    queue_full_at: int
    notify: tuple[Notify, ...]


@attrs.frozen
class AlertRule:
    """One [[alert]] as it was written; what it leaves open, a default of the same name or `config.alerts` says.

    `clear` is where it ends, as written; None is a margin beyond the bound. `notify` None is that of [metrics].
    """

    name: str
    when: Condition | None = None
    for_s: float | None = None
    clear: str | None = None
    notify: tuple[Notify, ...] | None = None
    enabled: bool = True


@attrs.frozen
class PushToken:
    """Somebody who may listen, and do nothing else, to channels that one of the globs `channels` takes."""

    token: str = attrs.field(repr=False)
    channels: tuple[str, ...]


@attrs.frozen
class Outage:
    """What is kept while Redis is away: of L1 for classes with stale_if_error, of writes for those taken in memory."""

    stale_bytes: int
    memory_bytes: int


@attrs.frozen
class Push:
    """Telling clients what has changed. `max_subscribers` 0 turns it off; `origins` are foreign pages that may listen.

    Clients that poll are told to come back between `poll_min_s` and `poll_max_s`; `buffer_bytes` of messages are kept
    for those who lag or come back.
    """

    max_subscribers: int
    heartbeat_s: float
    poll_min_s: float
    poll_max_s: float
    buffer_bytes: int
    tokens: tuple[PushToken, ...]
    origins: tuple[str, ...]


@attrs.frozen
class Tuning:
    """Whether settings are changed by what is measured, and how far.

    `mode` "suggest" only says what it would do. L1 gets at most `max_l1_bytes`, or l1.max_bytes where that is more.
    What is compressed begins between `min_compress_bytes` and `max_compress_bytes`. ttl.window, ttl.hot and ttl.cold
    become at most `max_ttl_factor` times, at least that part of, what they are set to.
    """

    mode: Literal["off", "suggest", "apply"]
    max_l1_bytes: int
    min_compress_bytes: int
    max_compress_bytes: int
    max_ttl_factor: float


@attrs.frozen
class Otel:
    """Where figures go by OpenTelemetry's protocol, "" for nowhere, and how often; `traces` is a share from 0 to 1."""

    endpoint: str
    interval_s: float
    traces: float


@attrs.frozen
class Settings:
    """The whole configuration. Of `classes`, the first that takes a key has it; so have `events` a routing key."""

    listen: Listen
    upstream: Upstream
    amqp: Amqp
    l1: L1
    rollout: Rollout
    ttl: Ttl
    compression: Compression
    outage: Outage
    push: Push
    log: Log
    classes: tuple[ClassSettings, ...]
    events: tuple[EventRule, ...]
    metrics: Metrics
    alerts: tuple[AlertRule, ...]
    tuning: Tuning
    otel: Otel
