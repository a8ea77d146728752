"""What two or more keys must agree on, among themselves or with what is installed, each rule declared once.

A rule names its keys, the first being the one that is reported, and gets the settings as they would be; it answers
with what is wrong, or "". The loader skips a rule when one of its keys is wrong by itself, so no fault shows twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Final

import attrs

from proxy.config.endpoint import Endpoint, is_loopback, parse_admin_url
from proxy.config.model import Notify, Settings
from proxy.config.topics import takes_all_of
from proxy.config.units import format_bytes, format_seconds

# `opentelemetry` itself is there with any part of it, and says nothing.
_OTEL_MODULES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_CHANGES: Final = "respite.changes"  # the exchange of events.notices; no layer below may ask it


@attrs.frozen
class Rule:
    """An agreement between keys; `fault` returns the sentence that says what is wrong, or ""."""

    paths: tuple[str, ...]
    fault: Callable[[Settings], str]


def _listen_cert_without_key(settings: Settings) -> str:
    tls = settings.listen.tls
    return "tls.cert needs tls.key" if tls.cert and not tls.key else ""


def _listen_key_without_cert(settings: Settings) -> str:
    tls = settings.listen.tls
    return "tls.key needs tls.cert" if tls.key and not tls.cert else ""


def _listen_tls_without_material(settings: Settings) -> str:
    listen = settings.listen
    if any(url.scheme == "tls" for url in listen.urls) and not (listen.tls.cert or listen.tls.key):
        return "rediss:// needs listen.tls.cert and listen.tls.key"
    return ""


def _listen_material_without_tls(settings: Settings) -> str:
    listen = settings.listen
    tls = listen.tls
    if (tls.cert or tls.key or tls.ca or tls.require_client_cert) and not any(u.scheme == "tls" for u in listen.urls):
        return "listen.tls is set, but no URL begins with rediss://: clients would come in without TLS"
    return ""


def _client_certificates_without_authority(settings: Settings) -> str:
    tls = settings.listen.tls
    return "needs listen.tls.ca to check them against" if tls.require_client_cert and not tls.ca else ""


def _admin_open_without_token(settings: Settings) -> str:
    listen = settings.listen
    if listen.admin and not listen.admin_token and not is_loopback(parse_admin_url(listen.admin)[0]):
        return "an admin port that other machines reach needs listen.admin_token (or a host of 127.0.0.1)"
    return ""


def _admin_on_a_listening_port(settings: Settings) -> str:
    if not settings.listen.admin:
        return ""
    host, port = parse_admin_url(settings.listen.admin)
    taken = any(port and (url.host, url.port) == (host, port) for url in settings.listen.urls)
    return "listen.url has that port already" if taken else ""


def _request_smaller_than_bulk(settings: Settings) -> str:
    bulk = settings.listen.max_bulk_bytes
    return f"at least listen.max_bulk ({format_bytes(bulk)})" if settings.listen.max_request_bytes < bulk else ""


def _upstream_cert_without_key(settings: Settings) -> str:
    tls = settings.upstream.tls
    return "tls.cert needs tls.key" if tls.cert and not tls.key else ""


def _upstream_key_without_cert(settings: Settings) -> str:
    tls = settings.upstream.tls
    return "tls.key needs tls.cert" if tls.key and not tls.cert else ""


def _upstream_material_without_tls(settings: Settings) -> str:
    tls, endpoint = settings.upstream.tls, settings.upstream.endpoint
    if not (tls.ca or tls.cert or tls.key or not tls.verify):
        return ""
    if endpoint is None:
        return "upstream.tls is set, but the embedded Redis has no TLS"
    return "" if endpoint.scheme == "tls" else "upstream.tls is set, but the URL does not begin with rediss://"


def _upstream_is_ourselves(settings: Settings) -> str:
    upstream = settings.upstream.endpoint
    if upstream is None or not any(_same_place(upstream, url) for url in settings.listen.urls):
        return ""
    return "that is where Respite itself listens (listen.url); name the Redis behind it"


def _same_place(upstream: Endpoint, listening: Endpoint) -> bool:
    if upstream.scheme == "unix" or listening.scheme == "unix":
        return upstream.path == listening.path != ""
    if upstream.port != listening.port:
        return False
    # 0.0.0.0 and :: are every address of this machine; a loopback upstream is one of them.
    return upstream.host == listening.host or (
        is_loopback(upstream.host) and (is_loopback(listening.host) or listening.host in {"0.0.0.0", "::"})
    )


def _amqp_cert_without_key(settings: Settings) -> str:
    tls = settings.amqp.tls
    return "tls.cert needs tls.key" if tls.cert and not tls.key else ""


def _amqp_key_without_cert(settings: Settings) -> str:
    tls = settings.amqp.tls
    return "tls.key needs tls.cert" if tls.key and not tls.cert else ""


def _amqp_material_without_tls(settings: Settings) -> str:
    # Without any broker it may stay: amqp.url = "" is how events are turned off for a while.
    tls, urls = settings.amqp.tls, settings.amqp.urls
    if urls and (tls.ca or tls.cert or tls.key or not tls.verify) and not any(url.is_tls for url in urls):
        return "amqp.tls is set, but no URL begins with amqps://"
    return ""


def _amqp_nobody_says_who_we_are(settings: Settings) -> str:
    if settings.amqp.tls.cert or all(url.username for url in settings.amqp.urls):
        return ""
    return "an amqps:// URL without a user needs amqp.tls.cert, which then says who we are"


def _dead_letters_in_the_queue(settings: Settings) -> str:
    amqp = settings.amqp
    if amqp.dead_letter_queue == amqp.queue:
        return "another one than amqp.queue: a dead letter would come back at once"
    if amqp.dead_letter_queue.startswith(f"{amqp.queue}.retry."):
        return "amqp.queue with .retry. behind it is what its retry queues are called"
    return ""


def _changes_without_broker(settings: Settings) -> str:
    amqp = settings.amqp
    return (
        "true needs amqp.url: the broker that changes are announced to"
        if amqp.publish_changes and not amqp.urls
        else ""
    )


def _changes_come_back(settings: Settings) -> str:
    amqp = settings.amqp
    return "another one: on respite.changes Respite announces its own writes" if amqp.exchange == _CHANGES else ""


def _first_retry_after_the_last(settings: Settings) -> str:
    retry = settings.amqp.retry
    return f"at most amqp.retry.max ({format_seconds(retry.max_s)})" if retry.first_s > retry.max_s else ""


def _alerts_without_broker(settings: Settings) -> str:
    return _without_broker(settings, [one for rule in settings.alerts for one in rule.notify or ()])


def _notices_without_broker(settings: Settings) -> str:
    return _without_broker(settings, settings.metrics.notify)


def _without_broker(settings: Settings, notify: Sequence[Notify]) -> str:
    keys = [one.target for one in notify if one.kind == "amqp"]
    if not keys or settings.amqp.urls:
        return ""
    return f"{keys[0]!r} is a routing key, and amqp.url names no broker to publish it at"


def _event_out_of_reach(settings: Settings) -> str:
    for number, rule in enumerate(settings.events):
        for above in settings.events[:number]:
            if takes_all_of(above.routing_key, rule.routing_key):
                return (
                    f"the rule for {rule.routing_key!r} is never asked: the one above it for {above.routing_key!r} "
                    "takes all of its events; what is special stands above what is general"
                )
    return ""


def _value_larger_than_l1(settings: Settings) -> str:
    workers = settings.listen.workers
    limit = settings.l1.max_bytes // workers
    words = "l1.max_bytes / listen.workers, the part of one worker" if workers > 1 else "l1.max_bytes"
    return f"at most {words} ({format_bytes(limit)})" if settings.l1.max_value_bytes > limit else ""


def _hot_before_warm(settings: Settings) -> str:
    hot = settings.ttl.hot_above
    return f"at most ttl.hot_above ({hot})" if settings.ttl.warm_above > hot else ""


def _poll_least_above_most(settings: Settings) -> str:
    push = settings.push
    return f"at most push.poll_max ({format_seconds(push.poll_max_s)})" if push.poll_min_s > push.poll_max_s else ""


def _push_token_is_the_admin_token(settings: Settings) -> str:
    admin = settings.listen.admin_token
    is_taken = admin and any(one.token == admin for one in settings.push.tokens)
    return "one of them is listen.admin_token, which may do everything" if is_taken else ""


def _compress_bounds_crossed(settings: Settings) -> str:
    most = settings.tuning.max_compress_bytes
    is_crossed = settings.tuning.min_compress_bytes > most
    return f"at most tuning.max_compress_bytes ({format_bytes(most)})" if is_crossed else ""


def _zstd_not_installed(settings: Settings) -> str:
    if settings.compression.codec != "zstd" or find_spec("zstandard") is not None:
        return ""
    return "'zstd' needs a package that is not installed: pip install 'respite-proxy[zstd]'"


def _otel_not_installed(settings: Settings) -> str:
    if not settings.otel.endpoint or all(map(_is_installed, _OTEL_MODULES)):
        return ""
    return "it needs packages that are not installed: pip install 'respite-proxy[otel]'"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


_LISTEN_TLS = ("listen.tls.cert", "listen.tls.key", "listen.tls.ca", "listen.tls.require_client_cert")
_UPSTREAM_TLS = ("upstream.tls.ca", "upstream.tls.cert", "upstream.tls.key", "upstream.tls.verify")
_AMQP_TLS = ("amqp.tls.ca", "amqp.tls.cert", "amqp.tls.key", "amqp.tls.verify")

RULES: Final[tuple[Rule, ...]] = (
    Rule(("listen.url", *_LISTEN_TLS), _listen_tls_without_material),
    Rule(("listen.url", *_LISTEN_TLS), _listen_material_without_tls),
    Rule(("listen.tls.cert", "listen.tls.key"), _listen_cert_without_key),
    Rule(("listen.tls.key", "listen.tls.cert"), _listen_key_without_cert),
    Rule(("listen.tls.require_client_cert", "listen.tls.ca"), _client_certificates_without_authority),
    Rule(("listen.admin", "listen.admin_token"), _admin_open_without_token),
    Rule(("listen.admin", "listen.url"), _admin_on_a_listening_port),
    Rule(("listen.max_request", "listen.max_bulk"), _request_smaller_than_bulk),
    Rule(("upstream.tls.cert", "upstream.tls.key"), _upstream_cert_without_key),
    Rule(("upstream.tls.key", "upstream.tls.cert"), _upstream_key_without_cert),
    Rule(("upstream.url", *_UPSTREAM_TLS), _upstream_material_without_tls),
    Rule(("upstream.url", "listen.url"), _upstream_is_ourselves),
    Rule(("amqp.tls.cert", "amqp.tls.key"), _amqp_cert_without_key),
    Rule(("amqp.tls.key", "amqp.tls.cert"), _amqp_key_without_cert),
    Rule(("amqp.url", *_AMQP_TLS), _amqp_material_without_tls),
    Rule(("amqp.url", "amqp.tls.cert"), _amqp_nobody_says_who_we_are),
    Rule(("amqp.dead_letter_queue", "amqp.queue"), _dead_letters_in_the_queue),
    Rule(("amqp.exchange",), _changes_come_back),
    Rule(("amqp.publish_changes", "amqp.url"), _changes_without_broker),
    Rule(("amqp.retry.first", "amqp.retry.max"), _first_retry_after_the_last),
    Rule(("event",), _event_out_of_reach),
    Rule(("metrics.notify", "amqp.url"), _notices_without_broker),
    Rule(("alert", "amqp.url"), _alerts_without_broker),
    Rule(("l1.max_value_bytes", "l1.max_bytes", "listen.workers"), _value_larger_than_l1),
    Rule(("ttl.warm_above", "ttl.hot_above"), _hot_before_warm),
    Rule(("push.poll_min", "push.poll_max"), _poll_least_above_most),
    Rule(("push.tokens", "listen.admin_token"), _push_token_is_the_admin_token),
    Rule(("compression.codec",), _zstd_not_installed),
    Rule(("tuning.min_compress_bytes", "tuning.max_compress_bytes"), _compress_bounds_crossed),
    Rule(("otel.endpoint",), _otel_not_installed),
)
