"""What a reload may change."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from proxy.config.load import default_settings, load_settings
from proxy.config.reload import Changes, compare, merge_live


def _with(overrides: Mapping[str, object]) -> Changes:
    return compare(default_settings(), load_settings(None, env={}, overrides=overrides))


def test_compare_same_settings_names_nothing() -> None:
    """A file that was saved without a change changes nothing."""
    assert Changes((), ()) == compare(default_settings(), default_settings())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("listen.max_clients", 5), ("listen.idle_timeout", "1m"), ("listen.max_pipeline", 5)),
        ("listen.output_buffer_limit", "1MiB"),
        ("listen.output_buffer_total", "2MiB"),
        ("listen.users", [{"name": "a", "password": "p"}]),
        *(("listen.allow_commands", ["get"]), ("listen.deny_commands", ["keys"]), ("listen.rate_limit", 5)),
        *(("listen.rate_burst", 5), ("listen.rate_per", "user"), ("listen.max_clients_per_address", 5)),
        *(("listen.max_pinned_per_address", 5), ("listen.max_subscriptions", 5)),
        *(("l1.enabled", False), ("l1.max_bytes", "1GiB"), ("l1.max_staleness", 1), ("rollout.mode", "off")),
        *(("l1.admit", "always"), ("l1.scope", "classes"), ("l1.cache_commands", ["JSON.GET"]), ("l1.verify", 1)),
        *(("l1.touch_rate", 0), ("l1.early_refresh", 0.1), ("rollout.mode", "shadow"), ("rollout.percent", 5)),
        *(("rollout.write_envelopes", False), ("ttl.window", 5), ("ttl.hot_above", 99), ("ttl.cold", "2h")),
        *(("ttl.jitter", 0), ("compression.min_bytes", 100), ("compression.min_saving", 0.5)),
        ("class", [{"name": "a", "match": ["a*"]}]),
        ("event", [{"routing_key": "a", "keys": ["{body.id}"]}]),
        *(("metrics.history", "2h"), ("metrics.queue_full_at", 5), ("metrics.notify", ["log", "http://h/x"])),
        ("alert", [{"name": "a", "when": "clients > 5"}]),
        ("log.level", "debug"),
    ],
)
def test_compare_live_key_is_named_as_live(path: str, value: object) -> None:
    """These keys apply to a running proxy, under the name they have in the file."""
    assert Changes((path,), ()) == _with({path: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("listen.url", "redis://:1"), ("listen.admin", ""), ("listen.admin_token", "t")),
        *(("upstream.url", "redis://h"), ("upstream.connect_timeout", 1), ("upstream.pinned_connections", 1)),
        *(("amqp.url", "amqp://h"), ("amqp.prefetch", 9), ("amqp.retry.first", 2), ("amqp.scopes", {"a": ["b"]})),
        *(("amqp.exchange", "x"), ("amqp.queue", "q"), ("amqp.binding_keys", ["a"]), ("amqp.delivery", "broadcast")),
        ("log.format", "json"),
        ("listen.workers", 2),
    ],
)
def test_compare_fixed_key_is_named_for_restart(path: str, value: object) -> None:
    """These keys are bound at the start; a reload says so instead of pretending."""
    assert Changes((), (path,)) == _with({path: value})


def test_compare_new_password_of_the_upstream_is_a_change() -> None:
    """A password is compared although it is never shown."""
    old = load_settings(None, env={"REDIS_URL": "redis://:old@h"}, overrides={})
    new = load_settings(None, env={"REDIS_URL": "redis://:new@h"}, overrides={})

    assert Changes((), ("upstream.url",)) == compare(old, new)


def test_merge_live_both_kinds_changed_takes_the_live_ones() -> None:
    """After a reload the proxy runs with the new live values and the old fixed ones."""
    old = default_settings()
    new = load_settings(
        None,
        env={},
        overrides={"l1.max_bytes": "1GiB", "log.level": "debug", "listen.url": "redis://:1", "log.format": "json"},
    )

    merged = merge_live(old, new)

    assert Changes(("l1.max_bytes", "log.level"), ()) == compare(old, merged)
    assert Changes((), ("listen.url", "log.format")) == compare(merged, new)


@pytest.mark.parametrize(
    "changed",
    [
        [{"name": "a", "match": ["a*"], "max_staleness": "1s"}, {"name": "b", "match": ["b*"]}],
        [{"name": "b", "match": ["b*"]}, {"name": "a", "match": ["a*"]}],
        [{"name": "a", "match": ["a*"]}],
    ],
)
def test_compare_class_changed_moved_or_gone_is_one_live_change(changed: list[dict[str, object]]) -> None:
    """The order of classes is what they mean, so moving one is a change; a reload takes all of them."""
    before = [{"name": "a", "match": ["a*"]}, {"name": "b", "match": ["b*"]}]
    old = load_settings(None, env={}, overrides={"class": before, "listen.url": "redis://:1"})
    new = load_settings(None, env={}, overrides={"class": changed, "listen.url": "redis://:2"})

    merged = merge_live(old, new)

    assert Changes(("class",), ("listen.url",)) == compare(old, new)
    assert merged.classes == new.classes
    assert merged.listen == old.listen
