"""The dashboard in a real browser, with a real proxy, a real Redis and traffic: what a person sees of it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .chromium import Browser, Page, Scheme
from .raw import ClosedError, RawClient
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

LIVE = "document.getElementById('connection')?.dataset.state === 'live'"
HIT_RATE = "document.querySelector('#tile-hit_rate .number').textContent"
NUMBERS = "[...document.querySelectorAll('.tile .number')].map((one) => one.textContent).join(' ')"
LONG_KEY = "session:<b>" + "0123456789abcdef" * 8  # as long as keys get, and no markup
HITS, MISSES = 17, 3
WIDE = """[...document.querySelectorAll('main *, header *, footer *')]
    .filter((one) => !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth + 1)
    .map((one) => one.outerHTML.slice(0, 80))"""
CLASSES = [{"name": "tickets", "match": ["ticket:*"]}, {"name": "sessions", "match": ["session:*"]}]


class Traffic:
    """A client that reads at a steady rate: `HITS` keys that L1 holds, then `MISSES` new ones, again and again."""

    def __init__(self, respite: Respite) -> None:
        self._respite = respite
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._is_over.is_set():
            try:
                with self._respite.connect() as client:
                    while not self._is_over.wait(0.1):
                        number += 1
                        self._round(client, number)
            except (OSError, ClosedError):  # the proxy is being restarted
                self._is_over.wait(0.05)

    def _round(self, client: RawClient, number: int) -> None:
        if number % 10 == 1:
            client.command("SET", f"ticket:{number}", "an open ticket")
        for read in range(HITS):
            client.command("GET", LONG_KEY if read % 2 else f"ticket:hot:{read}")
        for read in range(MISSES):
            client.command("GET", f"ticket:{number}:{read}")


@contextmanager
def busy_respite(server: Server, **settings: Any) -> Iterator[Respite]:
    """Run a proxy with traffic through it."""
    with running_respite({"upstream": {"url": server.url}, "class": CLASSES, **settings}) as respite:
        traffic = Traffic(respite)
        try:
            yield respite
        finally:
            traffic.stop()


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run a Redis."""
    with Server(redis7) as server:
        yield server


@pytest.fixture(scope="module")
def respite(server: Server) -> Iterator[Respite]:
    """Run a busy proxy that asks for no token."""
    with busy_respite(server) as respite:
        yield respite


@contextmanager
def dashboard(browser: Browser, respite: Respite, **options: Any) -> Iterator[Page]:
    """Open the dashboard and wait until it is live and shows figures."""
    with browser.page(**options) as page:
        page.go(f"http://127.0.0.1:{respite.admin_port}/")
        page.wait(LIVE)
        page.wait(f"/^[0-9.]+$/.test({HIT_RATE})")
        yield page


def test_figures_move_and_are_those_of_stats_json(browser: Browser, respite: Respite) -> None:
    """What the page shows as hit rate is what the counters say; the figures are new each second; no error is logged."""
    with dashboard(browser, respite) as page:
        before = respite.stats()["l1"]
        seen: set[str] = set()
        ends = time.monotonic() + 10
        while len(seen) < 3:
            assert time.monotonic() < ends, f"nothing but {seen}"
            seen.add(page.evaluate(NUMBERS))
            time.sleep(0.2)
        shown = float(page.evaluate(HIT_RATE))
        after = respite.stats()["l1"]
        hits, misses = (after[name] - before[name] for name in ("hits_total", "misses_total"))

        assert abs(shown - 100 * hits / (hits + misses)) < 1.5
        assert abs(shown - 100 * HITS / (HITS + MISSES)) < 1.5
        assert page.text("#connection") == "Live · WebSocket"
        assert page.errors == []


def test_everything_it_needs_comes_from_the_proxy(browser: Browser, respite: Respite) -> None:
    """No request goes anywhere else, so it works without the internet, and the tables and charts are filled."""
    with dashboard(browser, respite) as page:
        page.wait("document.querySelectorAll('.chart path.line').length >= 6")
        for what in ("tbody td.key", "#facts"):
            page.wait(f"document.querySelector({what!r})?.textContent.trim().length > 3")
        page.wait("document.body.innerText.includes('tickets')")
        page.wait(f"document.body.innerText.includes({LONG_KEY[:12]!r})")
        own = re.compile(rf"(http|ws)://127\.0\.0\.1:{respite.admin_port}/")

        assert [url for url in page.requested if not own.match(url) and not url.startswith("data:")] == []
        assert page.errors == []


def test_lost_connection_is_said_and_healed(browser: Browser, respite: Respite) -> None:
    """When the proxy goes the page says so and stops looking fresh; when it is back the page is live by itself."""
    with dashboard(browser, respite) as page:
        respite.process.kill()
        respite.process.wait()
        page.wait("document.getElementById('connection').dataset.state === 'waiting'")
        page.wait("!document.getElementById('lost').hidden")
        assert "lost" in page.text("#lost")
        assert page.evaluate("document.body.classList.contains('stale')")

        respite.restart()
        page.wait(LIVE, timeout_s=40)
        page.wait("document.getElementById('lost').hidden && !document.body.classList.contains('stale')")
        page.wait(f"/^[0-9.]+$/.test({HIT_RATE})")


def test_token_is_asked_for_until_it_is_right(browser: Browser, server: Server) -> None:
    """A port with a token shows the empty page and asks, until the token is right; that one stays in the tab."""
    with busy_respite(server, listen={"admin_token": "open(sesame)/="}) as respite, browser.page() as page:
        page.go(f"http://127.0.0.1:{respite.admin_port}/")
        for given in ("wrong", "open(sesame)/="):
            page.wait("document.getElementById('token-dialog')?.open && document.activeElement.id === 'token'")
            page.write(given)
            page.press("Enter")
        page.wait(LIVE)
        page.wait(f"/^[0-9.]+$/.test({HIT_RATE})")
        page.wait("document.querySelector('#facts').textContent.includes('redis')")
        page.go(f"http://127.0.0.1:{respite.admin_port}/")
        page.wait(LIVE)

        assert not page.evaluate("document.getElementById('token-dialog').open")
        assert page.evaluate("localStorage.getItem('respite-token')") is None


def test_light_and_dark_follow_the_system_until_somebody_chooses(browser: Browser, respite: Respite) -> None:
    """The page is as bright as the system prefers; the button overrides that, and the choice is kept."""
    bright = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0) > 380"
    with dashboard(browser, respite, scheme="dark") as page:
        assert not page.evaluate(bright)
        page.prefer("light")
        page.wait(bright)
        for chosen in ("light", "dark"):
            page.evaluate("document.getElementById('theme').click()")
            assert page.text("#theme") == f"Theme: {chosen}"
        assert not page.evaluate(bright)
        page.go(f"http://127.0.0.1:{respite.admin_port}/")
        page.wait(LIVE)

        assert not page.evaluate(bright)


def test_phone_shows_it_all_in_one_column(browser: Browser, respite: Respite) -> None:
    """At 360 px nothing is wider than the screen, whatever keys are called; what is wide scrolls for itself."""
    with dashboard(browser, respite, size=(360, 740)) as page:
        page.wait(f"document.body.innerText.includes({LONG_KEY[:12]!r})")

        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate(WIDE) == []


def test_nothing_to_tell_is_no_card(browser: Browser, respite: Respite) -> None:
    """A proxy that is well and has turned nobody away shows nothing of outages and doors."""
    with dashboard(browser, respite) as page:
        page.wait("document.body.innerText.includes('tickets')")

        assert page.evaluate("document.querySelectorAll('.trouble').length") == 0
        assert page.evaluate("document.getElementById('trouble-now').hidden")


def _facts(page: Page, card: str) -> dict[str, str]:
    """Return what a card tells, by the names of its lines."""
    script = f"""Object.fromEntries([...document.querySelectorAll('#{card} dl > div')].map((line) =>
        [...line.children].map((cell) => [...cell.childNodes].map((part) => part.textContent).join(' · '))))"""
    return {str(name): str(text) for name, text in page.evaluate(script).items()}


@pytest.mark.parametrize(("size", "scheme"), [((1280, 800), "light"), ((360, 740), "dark")])
def test_outage_has_a_card_while_it_lasts_and_a_quiet_one_afterwards(
    browser: Browser, redis7: Kind, size: tuple[int, int], scheme: Scheme
) -> None:
    """Above the figures since when, why and what is served; below the charts what had been. Also on a phone."""
    classes = [
        {"name": "tickets", "match": ["ticket:*"], "stale_if_error": "60s"},
        {"name": "carts", "match": ["cart:*"], "offline": "memory", "version": True},
    ]
    title = "document.querySelector({!r})?.textContent"
    with (
        Server(redis7) as server,
        running_respite({"upstream": {"url": server.url}, "class": classes}) as respite,
        respite.connect() as client,
        browser.page(size=size, scheme=scheme) as page,
    ):
        client.command("SET", "ticket:1", "an open ticket")
        for _ in range(3):
            client.command("GET", "ticket:1")
        page.go(f"http://127.0.0.1:{respite.admin_port}/")
        page.wait(f"{title.format('#trouble-later #outage h2')} === 'Outages: none so far'")
        assert page.text("#outage .about").startswith("If Redis goes, reads of tickets get what L1 held")

        server.kill()
        wait_for(lambda: respite.stats()["outage"]["state"] == "away", what="Redis counts as away")
        for _ in range(3):
            client.command("GET", "ticket:1")
        client.command("SET", "cart:1", "a book")
        page.wait(f"{title.format('#trouble-now #outage h2')} === 'Redis is away'")
        page.wait("document.querySelectorAll('#outage dl > div').length >= 4")
        facts = _facts(page, "outage")
        before = page.text("#outage .lasts")
        page.wait(f"document.querySelector('#outage .lasts').textContent !== {before!r}")

        assert facts["Served stale"] == "3 · tickets 3"
        assert facts["To be told to Redis"].startswith("keys 1 · ")
        assert facts["Taken in memory"] == "writes 1"
        about = page.text("#outage .about")
        assert "Meanwhile reads of tickets get what L1 held, up to 1 min past its end" in about
        assert "commands of carts are taken in memory; everything else gets an error." in about
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.evaluate(WIDE) == []

        server.restart()
        page.wait(f"{title.format('#trouble-later #outage h2')} === 'Redis is back'", timeout_s=30)
        assert page.text("#outage .about").startswith("The last outage lasted ")
        page.wait("document.querySelector('#outage dl').textContent.includes('Redis was told')")
        assert page.evaluate("document.getElementById('trouble-now').hidden")
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.errors == []


def test_who_is_turned_away_has_a_card(browser: Browser, server: Server) -> None:
    """By reason, with who it was, and the names that people chose as text."""
    users = [{"name": "<b>web", "password": "pw", "commands": ["-set"]}]
    with (
        running_respite(
            {"upstream": {"url": server.url}, "listen": {"users": users}, "rollout": {"mode": "shadow", "percent": 50}}
        ) as respite,
        respite.connect() as client,
        browser.page() as page,
    ):
        client.command("AUTH", "<b>web", "wrong")
        client.command("AUTH", "<b>web", "pw")
        for _ in range(3):
            client.command("SET", "k", "v")
        page.go(f"http://127.0.0.1:{respite.admin_port}/")
        page.wait("document.querySelector('#trouble-later #doors h2')?.textContent === 'Turned away at the doors'")

        assert _facts(page, "doors") == {"Logins": "failed 1", "Commands denied": "3 · <b>web 3"}
        assert page.evaluate("document.querySelector('#outage')") is None
        assert page.evaluate("document.getElementById('version').textContent").endswith(
            "of memory · rollout shadow · 50 % of the clients"
        )
        page.wait("document.querySelector('#tile-hit_rate .about').textContent === 'of reads that memory would answer'")
        assert page.errors == []


def test_keyboard_and_screen_reader_get_along(browser: Browser, respite: Respite) -> None:
    """Tab reaches the figures, then every control; arrow keys look back in a chart, and what they find is said."""
    with dashboard(browser, respite) as page:
        reached = []
        for _ in range(12):
            page.press("Tab")
            reached.append(page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel"))
        assert reached[0] == "To the figures"
        assert [name for name in reached if not name] == []
        assert {"Theme: auto", "5 min", "30 min", "1 h"} <= set(reached)
        page.wait("document.querySelectorAll('.chart path.line').length >= 6")
        page.evaluate("document.querySelector('.chart').focus()")
        page.press("ArrowLeft")
        said = page.text(".chart [role=status]")
        assert re.search(r"hit rate \S+(\s%)?, Redis load saved", said), said

        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        nameless = [
            node["role"]["value"]
            for node in tree
            if not node.get("ignored")
            and node["role"]["value"] in ("button", "link", "table", "region", "textbox")
            and not node.get("name", {}).get("value")
        ]
        assert nameless == []


# Five hours of history, as seen by the page alone: what the proxy answers about a day is not there in a test.
FIVE_HOURS = """
    const whole = globalThis.fetch;
    globalThis.asked = [];
    globalThis.fetch = (url, more) => {
        const [, figures, seconds, step] = /history.json.figure=(.*)&seconds=(\\d+)&step=(\\d+)/.exec(url) ?? [];
        if (!(seconds > 3600)) return whole(url, more);
        asked.push([figures, seconds]);
        const count = seconds / step;
        const points = Array.from({ length: count }, (_, index) => {
            const backMs = (count - 1 - index) * step * 1000;
            return [Date.now() - backMs, backMs > 5 * 3600e3 ? null : 7];
        });
        return Promise.resolve(new Response(JSON.stringify({ series: [{ figure: figures, points }] })));
    };
"""


def test_past_goes_as_far_back_as_there_is_one(browser: Browser, respite: Respite) -> None:
    """A span of hours is offered once there is more than an hour, and asked for figure by figure."""
    offered = "[...document.querySelectorAll('#ranges button:not([hidden])')].map((one) => one.innerText).join()"
    with dashboard(browser, respite) as page:
        assert page.evaluate(offered) == "5 min,30 min,1 h"
    with dashboard(browser, respite, before=FIVE_HOURS) as page:
        page.wait(f"{offered} === '5 min,30 min,1 h,6 h'")
        page.evaluate("document.querySelectorAll('#ranges button')[3].click()")
        page.wait("document.querySelector('.chart text.tick:nth-last-of-type(3)')?.textContent.endsWith('6 h')")

        assert page.text("#range-text") == "6 hours"
        assert page.evaluate("asked.filter(([figures]) => figures.includes(',')).length") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []


def test_past_is_there_when_the_page_is_opened(browser: Browser, respite: Respite) -> None:
    """What was before the page was opened is drawn at once, in each span."""
    wait_for(lambda: respite.stats()["uptime_s"] > 8, what="the proxy has a past")
    points = "document.querySelector('.chart path.line').getAttribute('d').split(/[ML]/).length - 1"
    with dashboard(browser, respite) as page:
        page.wait("document.querySelectorAll('.chart path.line').length >= 6")
        page.wait(f"{points} > performance.now() / 1000 + 2")  # more than a point for each second it is open
        page.evaluate("document.querySelectorAll('#ranges button')[2].click()")

        page.wait("document.querySelector('.chart text.tick:nth-last-of-type(3)')?.textContent.endsWith('60 min')")
        assert page.errors == []
