"""The dashboard in a real browser, with a real proxy, a real Redis and traffic: what a person sees of it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .chromium import Browser, Page
from .raw import ClosedError, RawClient
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

LIVE = "document.getElementById('connection')?.dataset.state === 'live'"
HIT_RATE = "document.querySelector('#tile-hit_rate .number').textContent"
NUMBERS = "[...document.querySelectorAll('.tile .number')].map((one) => one.textContent).join(' ')"
LONG_KEY = "session:<b>" + "0123456789abcdef" * 8  # as long as keys get, and no markup
HITS, MISSES = 17, 3
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
        wide = """[...document.querySelectorAll('main *, header *, footer *')]
            .filter((one) => !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth + 1)
            .map((one) => one.outerHTML.slice(0, 80))"""

        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate(wide) == []


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
