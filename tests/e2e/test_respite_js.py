"""respite.js, the client for web pages and Node: with a scripted proxy, and with a real one in each of its ways."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .chromium import Browser, Page
from .servers import Kind, Server
from .targets import Respite, running_respite

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[1] / "proxy" / "admin" / "static" / "respite.js"
TIMEOUT_S = 60
PUSH_TOKEN = "p(ush)token/="
ADMIN_TOKEN = "admin,token"

# What a page finds missing, for each way that is left.
WITHOUT = {
    "websocket": "",
    "events": "globalThis.WebSocket = undefined;",
    "polling": """
        globalThis.WebSocket = undefined;
        const whole = globalThis.fetch;
        globalThis.fetch = (url, more) =>
            String(url).includes("/events") ? Promise.reject(new TypeError("cut")) : whole(url, more);
    """,
}
LISTEN = """
    import("/respite.js").then(({ Respite }) => {
        globalThis.heard = [];
        globalThis.states = [];
        globalThis.client = new Respite({ url: URL, token: TOKEN });
        client.onstate = ({ state, transport }) => states.push([state, transport].join(" ").trim());
        globalThis.stop = client.subscribe(CHANNELS, (message) => heard.push(message));
    })
"""


def node() -> str:
    """Find node, and fail in words when it is not installed."""
    path = shutil.which("node")
    assert path, "node is not on the PATH: install Debian's nodejs, or run `make test`, which does"
    return path


def listen(page: Page, channels: list[str], token: str = "", url: str | None = None) -> None:
    """Subscribe in a page, by default where it came from; `heard` and `states` grow there."""
    values = {"URL": "undefined" if url is None else json.dumps(url), "TOKEN": json.dumps(token)}
    script = LISTEN.replace("CHANNELS", json.dumps(channels))
    for name, value in values.items():
        script = script.replace(name, value)
    page.evaluate(script)


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run a Redis."""
    with Server(redis7) as server:
        yield server


@pytest.fixture(scope="module")
def respite(server: Server) -> Iterator[Respite]:
    """Run a proxy that may be polled often."""
    settings = {"upstream": {"url": server.url}, "push": {"poll_min": "200ms", "poll_max": "1s"}}
    with running_respite(settings) as respite:
        yield respite


def test_client_alone_keeps_its_rules() -> None:
    """One connection for all, resumed, watched, given up with the last subscription: node/respite_js.mjs."""
    command = [node(), str(HERE / "node" / "respite_js.mjs"), str(CLIENT)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stderr[-3000:]
    assert len(results) >= 19, done.stderr[-3000:]
    assert {result["name"]: result["error"] for result in results if result["error"]} == {}


@pytest.mark.parametrize("way", WITHOUT)
def test_page_hears_a_write_in_every_way(browser: Browser, respite: Respite, way: str) -> None:
    """A page hears of a write by the best way there is: a socket, else events, else by asking."""
    with browser.page(before=WITHOUT[way]) as page, respite.connect() as client:
        page.go(f"http://127.0.0.1:{respite.admin_port}/respite.js")
        listen(page, ["ticket:7", "list:*", "a,b"])
        page.wait(f"states.at(-1) === 'live {way}'")
        for key in ("ticket:7", "other", "list:1", "a,b"):
            assert client.command("SET", key, "1") == b"+OK\r\n"
        page.wait("heard.length >= 3")
        told = page.evaluate("heard.map(({ type, channel, keys, cause }) => [type, channel, keys.join(), cause])")

        assert sorted(told) == [
            ["update", "a,b", "a,b", "write"],
            ["update", "list:*", "list:1", "write"],
            ["update", "ticket:7", "ticket:7", "write"],
        ]
        assert page.evaluate("states") == ["connecting", f"live {way}"]


def test_page_hears_what_happened_while_it_was_cut_off(browser: Browser, respite: Respite) -> None:
    """A page that comes back is told what it missed, once and in order, and nothing is lost."""
    with browser.page() as page, respite.connect() as client:
        page.go(f"http://127.0.0.1:{respite.admin_port}/respite.js")
        listen(page, ["counter"])
        page.wait("states.at(-1) === 'live websocket'")
        client.command("SET", "counter", "1")
        page.wait("heard.length === 1")
        page.evaluate("client.token = 'ends the connection, and begins another'")
        for number in range(2, 6):
            client.command("SET", "counter", str(number))
        page.wait("states.length >= 3 && states.at(-1) === 'live websocket' && heard.length === 5")

        assert page.evaluate("heard.map(({ type }) => type)") == ["update"] * 5
        versions = page.evaluate("heard.map(({ version }) => version)")
        assert versions == sorted(versions)


def test_page_comes_back_after_a_restart_of_the_proxy(browser: Browser, respite: Respite) -> None:
    """A proxy that was restarted knows nothing of before: the page is told so, and hears what comes."""
    with browser.page() as page:
        page.go(f"http://127.0.0.1:{respite.admin_port}/respite.js")
        listen(page, ["ticket:7"])
        page.wait("states.at(-1) === 'live websocket'")
        with respite.connect() as client:
            client.command("SET", "ticket:7", "1")
        page.wait("heard.length === 1")
        respite.restart()
        page.wait("states.length > 2 && states.at(-1) === 'live websocket'", timeout_s=40)
        page.wait("heard.length === 2")
        with respite.connect() as client:
            client.command("SET", "ticket:7", "2")
        page.wait("heard.length === 3")

        assert page.evaluate("heard.map(({ type }) => type)") == ["update", "lost", "update"]
        assert page.evaluate("heard[1].count") is None


@pytest.fixture(scope="module")
def guarded(server: Server, respite: Respite) -> Iterator[Respite]:
    """Run a proxy that wants tokens, and lets pages of the other proxy listen."""
    push = {
        "poll_min": "200ms",
        "tokens": [{"token": PUSH_TOKEN, "channels": ["ticket:*"]}],
        "origins": [f"http://127.0.0.1:{respite.admin_port}"],
    }
    settings = {"listen": {"admin_token": ADMIN_TOKEN}, "push": push}
    with running_respite({"upstream": {"url": server.url}, **settings}) as guarded:
        yield guarded


@pytest.mark.parametrize("way", WITHOUT)
def test_page_shows_its_token_in_every_way(browser: Browser, guarded: Respite, way: str) -> None:
    """A push token opens the channels that it covers; another one is refused in words, and none is asked for."""
    with browser.page(before=WITHOUT[way]) as page, guarded.connect() as client:
        page.go(f"http://127.0.0.1:{guarded.admin_port}/respite.js")
        listen(page, ["ticket:7"])
        page.wait("states.at(-1) === 'unauthorized'")
        page.evaluate(f"client.token = {json.dumps(PUSH_TOKEN)}")
        page.wait(f"states.at(-1) === 'live {way}'")
        client.command("SET", "ticket:7", "1")
        page.wait("heard.length === 1")
        page.evaluate("client.close()")
        listen(page, ["secret:*"], PUSH_TOKEN)
        page.wait("states.at(-1) === 'refused'")

        assert "secret:*" in page.evaluate("client.state.why")


@pytest.mark.parametrize("way", WITHOUT)
def test_page_from_elsewhere_hears_what_it_may(browser: Browser, respite: Respite, guarded: Respite, way: str) -> None:
    """A page of another origin that the proxy names listens in every way, and is told when its token is wrong."""
    with browser.page(before=WITHOUT[way]) as page, guarded.connect() as client:
        page.go(f"http://127.0.0.1:{respite.admin_port}/healthz")  # whose policy lets it go elsewhere
        listen(page, ["ticket:8"], "wrong", f"http://127.0.0.1:{guarded.admin_port}")
        page.wait("states.at(-1) === 'unauthorized'")
        page.evaluate(f"client.token = {json.dumps(PUSH_TOKEN)}")
        page.wait(f"states.at(-1) === 'live {way}'")
        client.command("SET", "ticket:8", "1")
        page.wait("heard.length === 1")


def test_node_hears_a_write_without_a_websocket(respite: Respite) -> None:
    """Node needs nothing but the file: where it has no WebSocket of its own, it hears events."""
    script = f"""
        globalThis.WebSocket = undefined;
        const {{ readFileSync }} = await import("node:fs");
        const source = readFileSync({json.dumps(str(CLIENT))}, "utf-8");
        const {{ Respite }} = await import(`data:text/javascript,${{encodeURIComponent(source)}}`);
        const client = new Respite({{ url: "http://127.0.0.1:{respite.admin_port}" }});
        client.onstate = ({{ state, transport }}) => state === "idle" || console.log(state, transport);
        client.subscribe("from-node", (message) => {{
            console.log(message.keys.join());
            client.close();
        }});
    """
    process = subprocess.Popen(
        [node(), "--input-type=module", "--eval", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        greeted = [process.stdout.readline().strip() for _ in range(2)]
        with respite.connect() as client:
            client.command("SET", "from-node", "1")
        rest, errors = process.communicate(timeout=10)  # without a subscription nothing keeps the process
    finally:
        process.kill()

    assert [*greeted, rest.strip()] == ["connecting", "live events", "from-node"], errors
