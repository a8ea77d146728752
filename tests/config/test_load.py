"""Where a setting comes from, and how each key is read."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from proxy.config.endpoint import Endpoint
from proxy.config.event_templates import parse_key
from proxy.config.keys import KEYS
from proxy.config.load import default_settings, find_config, load_settings
from proxy.config.model import (
    L1,
    AmqpEndpoint,
    ClassSettings,
    Compression,
    EventRule,
    ProxyUser,
    Retry,
    Rollout,
    Settings,
    TlsClient,
    TlsServer,
    Ttl,
)

from .conftest import Fail, Load


def test_load_empty_file_gives_the_defaults(load: Load) -> None:
    """A file that says nothing is as good as none."""
    assert default_settings() == load("")


def test_load_full_file_sets_every_field(load: Load, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of the table reaches the field it names: none of the settings keeps its default."""
    monkeypatch.setattr("proxy.config.rules.find_spec", lambda name: name)
    settings = load(f"""
        [listen]
        url = ["rediss://0.0.0.0", "unix:///run/r.sock"]
        admin = ""
        admin_token = "t"
        workers = 64
        max_clients = 1
        idle_timeout = 3
        auth_timeout = 3
        drain_delay = 3
        max_pipeline = 2
        output_buffer_limit = "64KiB"
        output_buffer_total = "1MiB"
        max_bulk = "1KiB"
        max_request = "2KiB"
        tls = {{ cert = "{pem}", key = "{pem}", ca = "{pem}", require_client_cert = true }}
        users = [{{ name = "app", password = "pw" }}]
        allow_commands = ["GET", "@read"]
        deny_commands = ["Config|Set"]
        rate_limit = 10
        rate_burst = 20
        rate_per = "user"
        max_clients_per_address = 3
        max_pinned_per_address = 2
        max_subscriptions = 0
        [upstream]
        url = "rediss://app:pw@10.0.0.1/2"
        connect_timeout = 0.5
        response_timeout = "1m"
        soft_timeout = "40ms"
        max_waiting = 5
        pinned_connections = 4
        tls = {{ ca = "{pem}", cert = "{pem}", key = "{pem}", verify = false }}
        [amqp]
        url = ["amqps://app:pw@10.0.0.2/v", "amqps://10.0.0.3:1/v"]
        exchange = "x"
        queue = "q"
        queue_type = "quorum"
        binding_keys = ["a.*", "b.#"]
        delivery = "broadcast"
        prefetch = 1
        retry = {{ attempts = 0, first = "10ms", max = 2 }}
        dead_letter_queue = "d"
        publish_changes = true
        scopes = {{ "api-*" = ["a*", "b"], "*" = ["c"] }}
        tls = {{ ca = "{pem}", cert = "{pem}", key = "{pem}", verify = false }}
        [l1]
        enabled = false
        max_bytes = "2MiB"
        max_value_bytes = 10
        max_age = "1h"
        max_staleness = "250ms"
        admit = "second_read"
        scope = "classes"
        cache_commands = ["json.get", "JSON.MGET"]
        tracking = "broadcast"
        fence_scripts = false
        verify = 1
        touch_rate = 0
        early_refresh = 0.5
        [rollout]
        mode = "shadow"
        percent = 2.5
        write_envelopes = false
        [ttl]
        window = "30s"
        warm_above = 3
        hot_above = 4
        hot = "1m"
        cold = "2h"
        jitter = 0
        [compression]
        min_bytes = "1KiB"
        min_saving = 0.2
        time_share = 0.3
        codec = "zstd"
        [outage]
        stale_bytes = 0
        memory_bytes = "1MiB"
        [log]
        level = "debug"
        format = "json"
        [[class]]
        name = "tickets"
        match = ["ticket:*"]
        [[event]]
        routing_key = "ticket.*"
        keys = ["ticket:{{body.id}}"]
        """)

    defaults = default_settings()
    assert settings.listen.urls == (Endpoint("tls", "0.0.0.0", 6380), Endpoint("unix", path="/run/r.sock"))
    assert settings.listen.tls == TlsServer(str(pem), str(pem), str(pem), True, "1.2")
    assert settings.listen.users == (ProxyUser("app", "pw"),)
    assert settings.listen.allow_commands == ("get", "@read")
    assert settings.listen.deny_commands == ("config|set",)
    assert settings.listen.max_request_bytes == 2048
    assert settings.upstream.endpoint == Endpoint("tls", "10.0.0.1", 6379, username="app", password="pw", db=2)
    assert settings.upstream.tls == TlsClient(str(pem), str(pem), str(pem), False, "1.2")
    assert settings.amqp.urls == (
        AmqpEndpoint("10.0.0.2", 5671, True, "app", "pw", "v"),
        AmqpEndpoint("10.0.0.3", 1, True, "", "", "v"),
    )
    assert settings.amqp.retry == Retry(0, 0.01, 2.0)
    assert settings.amqp.scopes == (("api-*", ("a*", "b")), ("*", ("c",)))
    assert settings.amqp.tls == TlsClient(str(pem), str(pem), str(pem), False, "1.2")
    commands = ("JSON.GET", "JSON.MGET")
    assert settings.l1 == L1(
        False, 2 << 20, 10, 3600.0, 0.25, "second_read", "classes", commands, "broadcast", False, 1.0, 0, 0.5
    )
    assert settings.rollout == Rollout("shadow", 2.5, False)
    assert settings.ttl == Ttl(30.0, 3, 4, 60.0, 7200.0, 0.0)
    assert settings.compression == Compression(1024, 0.2, 0.3, "zstd")
    assert settings.classes == (ClassSettings("tickets", ("ticket:*",)),)
    assert settings.events == (EventRule("ticket.*", keys=(parse_key("ticket:{body.id}"),)),)
    for section in ("listen", "upstream", "amqp", "l1", "rollout", "ttl", "compression", "outage", "log"):
        for field in attrs.fields(type(getattr(settings, section))):
            changed = getattr(getattr(settings, section), field.name)
            assert changed != getattr(getattr(defaults, section), field.name), field.name


def test_keys_table_fills_every_field_of_the_model_once() -> None:
    """Table and model belong together: a field without a key, or a key without a field, is a mistake."""
    settings = default_settings()
    arrays = ["classes", "events", "alerts"]
    fields = list(arrays)
    for section in attrs.fields(Settings):
        if section.name in arrays:
            continue
        for field in attrs.fields(type(getattr(settings, section.name))):
            value = getattr(getattr(settings, section.name), field.name)
            inner = [f".{one.name}" for one in attrs.fields(type(value))] if field.name in {"tls", "retry"} else [""]
            fields += [f"{section.name}.{field.name}{name}" for name in inner]

    assert sorted(fields) == sorted(key.field for key in KEYS)


def test_load_flag_environment_and_file_flag_wins(load: Load) -> None:
    """Flags stand above the environment, the environment above the file, RESPITE_UPSTREAM above REDIS_URL."""
    text = '[listen]\nurl = "redis://:1"\n[upstream]\nurl = "redis://:10"\n'
    env = {"RESPITE_LISTEN": "redis://:2", "RESPITE_UPSTREAM": "redis://:20", "REDIS_URL": "redis://:30"}
    redis_url = {"RESPITE_UPSTREAM": "", "REDIS_URL": "redis://:30"}
    flags = {"listen.url": "redis://:3", "upstream.url": "redis://:40", "log.level": None}

    def ports(settings: Settings) -> tuple[int, int]:
        assert settings.upstream.endpoint is not None
        return settings.listen.urls[0].port, settings.upstream.endpoint.port

    assert ports(load(text)) == (1, 10)
    assert ports(load(text, env)) == (2, 20)
    assert ports(load(text, redis_url)) == (1, 30)
    assert ports(load(text, env, flags)) == (3, 40)


def test_load_broker_of_the_environment_stands_above_that_of_the_file(load: Load) -> None:
    """RESPITE_AMQP names the broker, so that a password need not be in a file; set to nothing, it is not set."""
    text = 'amqp.url = "amqp://file"'

    assert [url.host for url in load(text, {"RESPITE_AMQP": "amqp://env"}).amqp.urls] == ["env"]
    assert [url.host for url in load(text, {"RESPITE_AMQP": ""}).amqp.urls] == ["file"]


def test_load_embedded_flag_beats_every_upstream_url(load: Load) -> None:
    """`--embedded` arrives as an empty upstream.url and is a word, not a gap."""
    settings = load('[upstream]\nurl = "redis://h"', {"REDIS_URL": "redis://g"}, {"upstream.url": ""})

    assert settings.upstream.endpoint is None


def test_load_flag_given_several_times_is_a_list(load: Load) -> None:
    """A tuple of URLs is several listening addresses, an empty one a flag that was not given."""
    assert [url.port for url in load("", {}, {"listen.url": ("redis://:1", "redis://:2")}).listen.urls] == [1, 2]
    assert default_settings() == load("", {}, {"listen.url": ()})


def test_load_file_of_the_environment_is_read_without_a_path(tmp_path: Path) -> None:
    """RESPITE_CONFIG names the file, a path given stands above it, and nothing else is searched."""
    path = tmp_path / "other.toml"
    path.write_text("listen.max_clients = 7")
    env = {"RESPITE_CONFIG": str(path)}

    assert load_settings(None, env=env, overrides={}).listen.max_clients == 7
    assert path == find_config(None, env)
    assert Path("given") == find_config(Path("given"), env)
    assert find_config(None, {"RESPITE_CONFIG": ""}) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("listen.url", "[]"), ("listen.url", "3"), ("listen.url", '["redis://h", 3]'), ("listen.url", '""')),
        *(
            ("listen.url", '"redis://u:p@h"'),
            ("listen.url", '"redis://h/1"'),
            ("listen.url", '["redis://", "redis://"]'),
        ),
        *(("listen.admin", "3"), ("listen.admin", '"https://h"'), ("listen.admin_token", '"a b"')),
        *(("listen.admin_token", "3"), ("listen.workers", "0"), ("listen.workers", "true"), ("listen.workers", '"1"')),
        *(("listen.max_clients", "0"), ("listen.max_clients", "1000001"), ("listen.max_clients", "1.0")),
        *(("listen.max_clients", "true"), ("listen.max_clients", '"1"'), ("listen.idle_timeout", '"1ms"')),
        *(("listen.idle_timeout", "nan"), ("listen.max_bulk", '"1B"'), ("listen.max_bulk", "1.5")),
        *(("listen.max_bulk", '"1MB"'), ("listen.tls.require_client_cert", "1"), ("listen.tls.cert", "1")),
        *(("listen.tls.cert", '"/does/not/exist"'), ("listen.tls.cert", '"/"'), ("listen.users", "{}")),
        *(("listen.users", '["app"]'), ("listen.users", '[{ name = "a" }]'), ("listen.users", "[[]]")),
        ("listen.users", '[{ name = "a", password = "" }]'),
        ("listen.users", '[{ name = "a", password = 3 }]'),
        ("listen.users", '[{ name = "a", password = "p", acl = "x" }]'),
        ("listen.users", '[{ name = "a", password = "p" }, { name = "a", password = "q" }]'),
        *(("upstream.url", "3"), ("upstream.url", '"redis://h:0"'), ("upstream.url", '["redis://h"]')),
        *(("upstream.connect_timeout", "0"), ("upstream.response_timeout", '"0s"'), ("l1.enabled", '"true"')),
        *(("l1.tracking", '"on"'), ("l1.tracking", "true"), ("l1.tracking", "[]"), ("rollout.mode", "false")),
        *(("listen.workers", "65"), ("listen.workers", "1.5"), ("rollout.mode", '"shade"'), ("rollout.percent", "101")),
        *(("rollout.percent", "-1"), ("rollout.percent", '"5%"'), ("rollout.percent", "true"), ("l1.verify", "1.1")),
        *(("l1.verify", "nan"), ("l1.early_refresh", "0.51"), ("l1.touch_rate", "0.5"), ("l1.touch_rate", "-1")),
        *(("l1.admit", '"never"'), ("l1.scope", "[]"), ("l1.cache_commands", '"JSON.GET"')),
        *(("l1.cache_commands", "[1]"), ("l1.cache_commands", '["GET"]'), ("l1.cache_commands", '["JSON. GET"]')),
        *(("l1.cache_commands", '["JSON.GET", "json.get"]'), ("class", "1"), ("class", "[1]"), ("class", "{}")),
        *(("log.level", '"loud"'), ("log.format", "1979-05-27"), ("l1.max_age", "07:32:00"), ("l1.max_bytes", "inf")),
    ],
)
def test_load_wrong_value_is_reported_with_what_is_allowed(fail: Fail, path: str, value: str) -> None:
    """A value of the wrong type, form or range is one problem, at its path, with the key's own words."""
    problems = fail(f"{path} = {value}")

    (allowed,) = [key.kind.allowed for key in KEYS if key.path == path]
    assert [path] == list(problems)
    assert problems[path].allowed.startswith(allowed)


def test_load_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """An editor that writes one does no harm."""
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbflisten.max_clients = 7\r\n")

    assert load_settings(path, env={}, overrides={}).listen.max_clients == 7


def test_load_pipe_for_a_certificate_is_refused_unopened(fail: Fail, tmp_path: Path) -> None:
    """Opening a pipe would wait for whoever writes into it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Held open at both ends: should the loader open it after all, this test fails instead of hanging.
    both_ends = os.open(pipe, os.O_RDWR)

    problems = fail(f"listen.tls.cert = '{pipe}'")
    os.close(both_ends)

    assert problems["listen.tls.cert"].allowed.endswith("(it is no file)")
