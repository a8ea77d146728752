"""The running proxy and a collector: all figures, the trace of an invalidation, and nothing lost at the end."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from proxy.config import rules
from proxy.config.load import load_settings
from proxy.errors import ConfigError
from proxy.otel.figures import name_and_unit

from ..e2e.servers import Server, find_kind, wait_for
from ..e2e.targets import Respite, running_respite
from .collector import collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(find_kind("redis7")) as started:
        yield started


def _names(respite: Respite) -> set[str]:
    """Return the families of /metrics, as OpenTelemetry calls them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}/metrics", timeout=5) as answer:
        kinds: dict[str, str] = dict(re.findall(r"^# TYPE (\S+) (\S+)$", answer.read().decode(), re.MULTILINE))
    families = [name.removesuffix("_total") if kind == "counter" else name for name, kind in kinds.items()]
    return {name_and_unit(name)[0] for name in families}


def _invalidate(respite: Respite) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{respite.admin_port}/invalidate"
    request = urllib.request.Request(url, b'{"keys": ["k"], "id": "e1"}', headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_collector_gets_all_figures_and_the_trace(server: Server, workers: int) -> None:
    """What /metrics has is sent, of all workers once; whoever invalidates with a traceparent finds the span in it."""
    with collecting() as collector:
        settings = {
            "upstream": {"url": server.url},
            "listen": {"workers": workers},
            "otel": {"endpoint": collector.url, "interval": "300ms", "traces": 0},
        }
        with running_respite(settings) as respite:
            with respite.connect() as client:
                assert client.command("SET", "k", "v") == b"+OK\r\n"
                assert client.command("GET", "k") == b"$1\r\nv\r\n"
            wait_for(lambda: len(collector.figures()) >= 2, what="two exports")
            assert _names(respite) <= collector.figures()[-1].keys()
            _invalidate(respite)

        (span,) = collector.spans()
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert {one.key: one.value.int_value for one in span.attributes}["respite.keys"] == 1
        commands = collector.figures()[-1]["respite.commands"].sum.data_points
        assert [one.as_double for one in commands] == [2.0]


@pytest.mark.parametrize(
    ("name", "value", "workers"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", 1),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", 2),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-3", 1),  # read when the SDK is imported
    ],
)
def test_variable_that_opentelemetry_refuses_is_said_in_a_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str, workers: int
) -> None:
    """As a wrong configuration: exit code 2, which a service manager does not try again."""
    monkeypatch.setenv(name, value)
    respite = Respite(
        {
            "upstream": {"url": server.url},
            "listen": {"workers": workers},
            "otel": {"endpoint": "http://127.0.0.1:1"},
        }
    )
    try:
        assert respite.process.wait(20) == 2
        (line,) = respite.errors.splitlines()
        assert line.startswith("respite: OpenTelemetry cannot be set up, look at the variables OTEL_..: ")
        assert respite.output == ""
    finally:
        respite.discard()


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
@pytest.mark.parametrize("has_parent", [True, False])
def test_endpoint_without_the_packages_is_a_problem_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str, has_parent: bool
) -> None:
    """It is found before anything is started; without an endpoint nothing is missed."""

    def find(name: str) -> object:
        if name != missing:
            return find_spec(name)
        if not has_parent:
            raise ModuleNotFoundError(name)
        return None

    monkeypatch.setattr(rules, "find_spec", find)

    with pytest.raises(ConfigError, match=re.escape("pip install 'respite-proxy[otel]'")) as caught:
        load_settings(None, env={}, overrides={"otel.endpoint": "http://127.0.0.1:4318"})

    assert [problem.path for problem in caught.value.problems] == ["otel.endpoint"]
    assert load_settings(None, env={}, overrides={}).otel.endpoint == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("127.0.0.1:4318", "an http:// or https:// URL"),
        ("http://", "an http:// or https:// URL"),
        ("http://user:pw@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://collector:4318?x=y", "no parameters"),
        ("http://collector:4318/v1/traces", "leave out"),
        ("http://collector:99999", "port"),
        ("http://collector:0", "port 0"),
        ("http://coll ector", "no blanks"),
    ],
)
def test_endpoint_that_is_none_is_a_problem(url: str, reason: str) -> None:
    """Each with its reason."""
    with pytest.raises(ConfigError, match=re.escape(reason)):
        load_settings(None, env={}, overrides={"otel.endpoint": url})


def test_endpoint_may_have_a_path() -> None:
    """Collectors behind a gateway have one; what is sent goes below it."""
    settings = load_settings(None, env={}, overrides={"otel.endpoint": "https://gateway/otlp/"})

    assert settings.otel.endpoint == "https://gateway/otlp"
