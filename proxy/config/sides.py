"""Every key of the three sides that Respite talks to, [listen], [upstream] and [amqp], as `keys.py` has the others."""

from __future__ import annotations

from typing import Final

from proxy.config import event_kinds, kinds
from proxy.config.key import Key
from proxy.config.kinds import Kind
from proxy.config.rights import RIGHTS

_KIB = 1 << 10
_TIB = 1 << 40
_HOUR = 3600.0
_DAY = 86400.0


def _key(path: str, kind: Kind, default: object, when: str, *, field: str = "", restart: bool = False) -> Key:
    secret = path == "listen.admin_token"
    return Key(path, field or path, kind, default, live=not restart, help=when, secret=secret)


SIDES: Final[tuple[Key, ...]] = (
    _key(
        "listen.url",
        kinds.listen_urls(),
        "redis://127.0.0.1:6380",
        "Change to listen elsewhere: redis://, rediss:// (TLS) or unix:///path; a list listens on several.",
        field="listen.urls",
        restart=True,
    ),
    _key(
        "listen.admin",
        kinds.admin_url(),
        "http://127.0.0.1:6390",
        'Change where health, metrics and reload are reached; "" turns the admin port off.',
        restart=True,
    ),
    _key(
        "listen.admin_token",
        kinds.token(),
        "",
        "Set when other machines reach listen.admin: all but /healthz and the bare page wants it as a bearer token.",
        restart=True,
    ),
    _key(
        "listen.workers",
        kinds.count(1, 64),
        1,
        "Raise when one core is not enough: so many processes share the port, the clients and l1.max_bytes.",
        restart=True,
    ),
    _key(
        "listen.max_clients",
        kinds.count(1, 1_000_000),
        10_000,
        "Raise for apps with more connections (and raise the open-files limit with it); above it, clients are refused.",
    ),
    _key(
        "listen.idle_timeout",
        kinds.seconds(1, 30 * _DAY, or_zero="never"),
        "0s",
        "Set to close clients that have been silent for so long; 0 keeps them, as Redis does by default.",
        field="listen.idle_timeout_s",
    ),
    _key(
        "listen.drain_delay",
        kinds.seconds(0, _HOUR),
        "0s",
        "Set to what a load balancer needs to notice that /readyz says no: so long clients still come before a stop.",
        field="listen.drain_delay_s",
    ),
    _key(
        "listen.auth_timeout",
        kinds.seconds(0.1, _HOUR, or_zero="never"),
        "10s",
        "Raise for clients that log in late; one that must, and has not within so long, is closed.",
        field="listen.auth_timeout_s",
    ),
    _key(
        "listen.max_pipeline",
        kinds.count(1, 1_000_000),
        10_000,
        "Lower to hold less for one client: with so many commands outstanding it is read no further for a while.",
    ),
    _key(
        "listen.output_buffer_limit",
        kinds.size(64 * _KIB, _TIB),
        "64MiB",
        "Raise for clients that read slowly; a client with more unread replies than this is closed.",
        field="listen.output_buffer_limit_bytes",
    ),
    _key(
        "listen.output_buffer_total",
        kinds.size(64 * _KIB, _TIB),
        "512MiB",
        "Lower where memory is short: with more unread replies of all clients, those who have the most are closed.",
        field="listen.output_buffer_total_bytes",
    ),
    _key(
        "listen.max_bulk",
        kinds.size(_KIB, _TIB),
        "512MiB",
        "Raise together with proto-max-bulk-len of Redis; the largest single argument of a command.",
        field="listen.max_bulk_bytes",
    ),
    _key(
        "listen.max_request",
        kinds.size(_KIB, _TIB),
        "1GiB",
        "Lower to bound what one command may make the proxy hold; the largest whole command.",
        field="listen.max_request_bytes",
    ),
    _key(
        "listen.tls.cert",
        kinds.readable_file(),
        "",
        "Set with tls.key to listen on rediss://: the certificate shown to clients, with its chain, as PEM.",
        restart=True,
    ),
    _key(
        "listen.tls.key",
        kinds.readable_file(),
        "",
        "Set with tls.cert: its private key, as PEM.",
        restart=True,
    ),
    _key(
        "listen.tls.ca",
        kinds.readable_file(),
        "",
        "Set to check client certificates: the authorities they must come from, as PEM.",
        restart=True,
    ),
    _key(
        "listen.tls.require_client_cert",
        kinds.flag(),
        False,
        "Set to refuse TLS clients that show no certificate of tls.ca.",
        restart=True,
    ),
    _key(
        "listen.tls.min_version",
        kinds.choice("1.2", "1.3"),
        "1.2",
        'Set to "1.3" when all clients speak it; older versions than "1.2" are never spoken.',
        restart=True,
    ),
    *RIGHTS,
    _key(
        "upstream.url",
        kinds.upstream_url(),
        "",
        'Set to your Redis: redis://user:pass@host:6379/0, rediss:// or unix:///path?db=0; "" runs an embedded one.',
        field="upstream.endpoint",
        restart=True,
    ),
    _key(
        "upstream.connect_timeout",
        kinds.seconds(0.01, _HOUR),
        "2s",
        "Raise for a Redis that is far away; after it an attempt to connect counts as failed.",
        field="upstream.connect_timeout_s",
        restart=True,
    ),
    _key(
        "upstream.response_timeout",
        kinds.seconds(0.01, _DAY),
        "5s",
        "Raise for slow scripts and big replies; a command without a reply for so long is answered with an error.",
        field="upstream.response_timeout_s",
        restart=True,
    ),
    _key(
        "upstream.soft_timeout",
        kinds.seconds(0.001, _HOUR, or_zero="off"),
        "0s",
        "Set for classes with stale_if_error: a read that takes longer gets the last value L1 held, if there is one.",
        field="upstream.soft_timeout_s",
    ),
    _key(
        "upstream.max_waiting",
        kinds.count(1, 100_000_000),
        200_000,
        "Lower to hold less for a slow Redis: with so many commands of a user and database waiting, more fail at once.",
    ),
    _key(
        "upstream.pinned_connections",
        kinds.count(1, 65_535),
        256,
        "Raise when many clients sit in MULTI, blocking commands or subscriptions at once: each needs a connection.",
        restart=True,
    ),
    _key(
        "upstream.tls.ca",
        kinds.readable_file(),
        "",
        "Set when a private authority signed the certificate of Redis, as PEM; empty: the authorities of the system.",
        restart=True,
    ),
    _key(
        "upstream.tls.cert",
        kinds.readable_file(),
        "",
        "Set with tls.key when Redis asks for a client certificate, as PEM.",
        restart=True,
    ),
    _key(
        "upstream.tls.key",
        kinds.readable_file(),
        "",
        "Set with tls.cert: its private key, as PEM.",
        restart=True,
    ),
    _key(
        "upstream.tls.verify",
        kinds.flag(),
        True,
        "Set to false only to test: the certificate of Redis is then not checked at all.",
        restart=True,
    ),
    _key(
        "upstream.tls.min_version",
        kinds.choice("1.2", "1.3"),
        "1.2",
        'Set to "1.3" when all servers behind it speak it; older versions than "1.2" are never spoken.',
        restart=True,
    ),
    _key(
        "amqp.url",
        event_kinds.broker_urls(),
        "",
        'Set to your broker: amqp://user:pass@host/vhost or amqps://; a list names the nodes of a cluster; "" is none.',
        field="amqp.urls",
        restart=True,
    ),
    _key(
        "amqp.exchange",
        event_kinds.exchange_name(),
        "respite.events",
        "Change to the topic exchange that your apps publish to; it is made, durable, when it is not there.",
        restart=True,
    ),
    _key(
        "amqp.queue",
        event_kinds.queue_name(),
        "respite.invalidation",
        "Change where several systems share a broker: events wait here, also while no Respite runs.",
        restart=True,
    ),
    _key(
        "amqp.queue_type",
        kinds.choice("classic", "quorum"),
        "classic",
        'Set to "quorum" on a cluster, so that the queue outlives the loss of a node; "classic" is quicker on one.',
        restart=True,
    ),
    _key(
        "amqp.binding_keys",
        event_kinds.topics(),
        ["#"],
        'Narrow to the events that matter here, ["ticket.*", "user.#"]; a queue that is there stays bound to the rest.',
        restart=True,
    ),
    _key(
        "amqp.delivery",
        kinds.choice("shared", "broadcast"),
        "shared",
        'Set to "broadcast" where l1.tracking is off: each Respite then hears each event, but none while it is away.',
        restart=True,
    ),
    _key(
        "amqp.prefetch",
        kinds.count(1, 65_535),
        200,
        "Raise to drain a backlog faster; so many events are under way at once, and come again after a crash.",
        restart=True,
    ),
    _key(
        "amqp.retry.attempts",
        kinds.count(0, 100),
        5,
        "Raise for faults that last; an event that failed is tried again so often, then it is a dead letter.",
        restart=True,
    ),
    _key(
        "amqp.retry.first",
        kinds.seconds(0.01, _HOUR),
        "1s",
        "Lower when faults are short; after so long it is tried again first, then after twice that, and so on.",
        field="amqp.retry.first_s",
        restart=True,
    ),
    _key(
        "amqp.retry.max",
        kinds.seconds(0.01, _DAY),
        "30s",
        "Raise to spread the attempts over a longer time; the longest that one waits for the next.",
        field="amqp.retry.max_s",
        restart=True,
    ),
    _key(
        "amqp.dead_letter_queue",
        event_kinds.queue_name(),
        "respite.dead",
        "Change with amqp.queue; what could not be understood or applied waits here, see respite dlq.",
        restart=True,
    ),
    _key(
        "amqp.publish_changes",
        kinds.flag(),
        False,
        "Set to announce each write of a key of a class on the exchange respite.changes: four commands instead of one.",
        restart=True,
    ),
    _key(
        "amqp.scopes",
        event_kinds.scopes(),
        {},
        'Set to { "orders-*" = ["order:*"] } to drop only such keys when events of such a publisher are lost.',
        restart=True,
    ),
    _key(
        "amqp.tls.ca",
        kinds.readable_file(),
        "",
        "Set when a private authority signed the certificate of the broker, as PEM; empty: those of the system.",
        restart=True,
    ),
    _key(
        "amqp.tls.cert",
        kinds.readable_file(),
        "",
        "Set with tls.key when the broker asks for a client certificate, as PEM; without a user it says who we are.",
        restart=True,
    ),
    _key(
        "amqp.tls.key",
        kinds.readable_file(),
        "",
        "Set with tls.cert: its private key, as PEM.",
        restart=True,
    ),
    _key(
        "amqp.tls.verify",
        kinds.flag(),
        True,
        "Set to false only to test: the certificate of the broker is then not checked at all.",
        restart=True,
    ),
    _key(
        "amqp.tls.min_version",
        kinds.choice("1.2", "1.3"),
        "1.2",
        'Set to "1.3" when all nodes of the broker speak it; older versions than "1.2" are never spoken.',
        restart=True,
    ),
)
