"""What subscribers of a real proxy hear of real changes, in each way to listen."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .servers import Kind, Server
from .targets import Respite, running_respite

CLASSES = [{"name": "tickets", "match": ["ticket:*"], "tags": ["queue-{1}"]}]


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run a server."""
    with Server(redis7) as started:
        yield started


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def respite(server: Server, request: pytest.FixtureRequest) -> Iterator[Respite]:
    """Run a proxy in front of it."""
    settings: dict[str, Any] = {"upstream": {"url": server.url}, "listen": {"workers": request.param}, "class": CLASSES}
    with running_respite(settings) as running:
        yield running


@contextmanager
def listening(respite: Respite, channels: str, since: str = "") -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """Open a WebSocket; yield it with its greeting."""
    url = f"ws://127.0.0.1:{respite.admin_port}/ws?channels={channels}&since={since}"
    with connect(url, open_timeout=10) as client:
        yield client, json.loads(client.recv(10))


def ask(respite: Respite, query: str) -> dict[str, Any]:
    """Poll."""
    with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}/changes?{query}", timeout=40) as answer:
        body: dict[str, Any] = json.load(answer)
    return body


def test_push_tells_a_websocket_of_writes_from_anywhere(server: Server, respite: Respite) -> None:
    """A write through the proxy and a stranger's are told alike, by key, glob and tag."""
    with listening(respite, "ticket%3A1,ticket%3A%2A,tag%3Aqueue-1") as (client, hello):
        with respite.connect() as app:
            app.command("SET", "ticket:1", "a")
        first = [json.loads(client.recv(10)) for _ in range(3)]
        with server.connect() as stranger:
            stranger.command("SET", "ticket:1", "b")
        second = [json.loads(client.recv(10)) for _ in range(3)]

    assert (hello["type"], hello["complete"]) == ("hello", True)
    for messages in (first, second):
        assert {message["channel"] for message in messages} == {"ticket:1", "ticket:*", "tag:queue-1"}
        assert {(*message["keys"], message["cause"]) for message in messages} == {("ticket:1", "write")}


def test_push_resumes_after_a_cut(respite: Respite) -> None:
    """Who comes back with the newest cursor it has seen hears what it missed, and nothing twice."""
    with respite.connect() as app:
        with listening(respite, "cut%3A%2A") as (client, _):
            app.command("SET", "cut:1", "x")
            cursor = json.loads(client.recv(10))["cursor"]
        app.command("SET", "cut:2", "x")
        with listening(respite, "cut%3A%2A", cursor) as (client, hello):
            missed = json.loads(client.recv(10))
            app.command("SET", "cut:3", "x")
            following = json.loads(client.recv(10))
        polled = ask(respite, f"channels=cut%3A%2A&since={cursor}")

    assert hello["complete"] is True
    assert [missed["keys"], following["keys"]] == [["cut:2"], ["cut:3"]]
    assert [message["keys"] for message in polled["changes"]] == [["cut:2"], ["cut:3"]]
    assert polled["cursor"] == following["cursor"]


def test_push_tells_events_of_an_invalidation(respite: Respite) -> None:
    """What somebody invalidates is told to a page that listens by server-sent events, with what it was."""
    url = f"http://127.0.0.1:{respite.admin_port}"
    with (
        urllib.request.urlopen(f"{url}/events?channels=gone%3A%2A", timeout=10) as stream,
        respite.connect() as app,
    ):
        lines = (line for line in iter(stream.readline, b"") if line.startswith(b"data: "))
        hello = json.loads(next(lines)[6:])
        app.command("SET", "gone:1", "x")
        written = json.loads(next(lines)[6:])
        body = json.dumps({"keys": ["gone:1"]}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{url}/invalidate", body, method="POST"), timeout=10).close()
        invalidated = json.loads(next(lines)[6:])

    assert hello["type"] == "hello"
    assert (written["keys"], written["cause"]) == (["gone:1"], "write")
    assert (invalidated["keys"], invalidated["cause"]) == (["gone:1"], "event")


def test_push_tells_of_a_swap_of_databases_as_of_a_flush(respite: Respite) -> None:
    """Redis says nothing of it; the proxy that it goes through does."""
    with listening(respite, "swap%3A1") as (client, _), respite.connect() as app:
        app.command("SWAPDB", 0, 1)
        message = json.loads(client.recv(10))

    assert (message["type"], message["keys"], message["cause"]) == ("update", ["swap:1"], "flush")


def test_push_waits_for_who_polls(respite: Respite) -> None:
    """A poll that may wait is answered by the change, and says when to come again."""
    cursor = ask(respite, "channels=wait%3A1")["cursor"]
    with respite.connect() as app:
        app.command("SET", "wait:1", "x")
        answer = ask(respite, f"channels=wait%3A1&since={cursor}&wait=20")

    assert [message["keys"] for message in answer["changes"]] == [["wait:1"]]
    assert answer["complete"] is True
    assert 0 < answer["poll_after_ms"] <= 60_000


def test_push_says_that_the_proxy_goes(respite: Respite) -> None:
    """At the begin of a drain every subscriber is told, while clients finish. The last of the module."""
    url = f"http://127.0.0.1:{respite.admin_port}/drain"
    with listening(respite, "a") as (client, _), respite.connect() as app:
        app.command("MULTI")  # a client that the drain waits for
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        queued = app.command("PING")

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert queued == b"+QUEUED\r\n"


def test_push_token_narrows_and_reload_takes_it_away(server: Server) -> None:
    """A push token opens its channels only; the file without it ends what it had opened."""
    settings: dict[str, Any] = {
        "upstream": {"url": server.url},
        "push": {"tokens": [{"token": "sh0p", "channels": ["ticket:*"]}]},
    }
    with (
        running_respite(settings) as respite,
        listening(respite, "ticket%3A1&access_token=sh0p") as (client, hello),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(respite, "channels=user%3A1&access_token=sh0p")
        assert refused.value.code == 403
        refused.value.close()
        respite.settings["push"] = {}
        respite.write_config()
        respite.signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)

    assert hello["type"] == "hello"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
