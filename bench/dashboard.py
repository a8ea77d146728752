"""What does it cost the proxy that somebody has the dashboard open? Run as `python -m bench.dashboard`.

    headless Chromium --- / /respite.js /ws?channels=respite:figures /stats.json --- Respite --- Redis

Rounds of two windows each, one with the page open and one without, in turns, on a proxy that holds `--keys` in L1 and
is asked nothing else. What counts is the processor time of the proxy in a window: the difference, as a share of one
core, is the share of its throughput that an open page takes. The loading of the page comes before the window.

With `--pictures FOLDER` it measures nothing: it takes pictures of the page, wide and narrow, light and dark, after
`--minutes` of an app's traffic and a broker's events.
"""

import argparse
import itertools
import math
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import redis

from bench._lib import (
    BenchError,
    Disturbance,
    ZipfKeys,
    machine,
    markdown_table,
    need_programs,
    run_main,
    say,
    spread,
    write_result,
)
from bench._servers import Rig, Server, versions
from bench._values import Writer, document
from tests.amqp.broker import RabbitMq
from tests.e2e.chromium import Browser, Scheme, find_chromium

GOAL = 0.01
SETTLE_S = 2.0
LIVE = "document.getElementById('connection')?.dataset.state === 'live'"
NAMES = ("ticket", "page", "session")
CLASSES = "".join(
    f'[[class]]\nname = "{name}s"\nmatch = ["{name}:*"]\nttl = "10m"\ncompress = true\nversion = true\n'
    for name in NAMES
)
# The app of the pictures: keys, clients, commands a second of all of them together, and how many of those are reads.
KEYS, CLIENTS, RATE, READ_SHARE = 1200, 8, 700, 0.96
SHOTS: tuple[tuple[str, tuple[int, int], Scheme, float], ...] = (
    ("desktop-light", (1440, 900), "light", 1.0),
    ("desktop-dark", (1440, 900), "dark", 1.0),
    ("phone", (360, 740), "light", 2.0),
)
EVENTS_A_SECOND = 25


def window(proxy: Server, browser: Browser, seconds: float, *, is_open: bool) -> float:
    """Return the share of a core that the proxy used in one window."""
    if not is_open:
        time.sleep(SETTLE_S)
        return used(proxy, seconds)
    with browser.page() as page:
        page.go(f"http://127.0.0.1:{proxy.admin_port}/")
        page.wait(LIVE)
        time.sleep(SETTLE_S)
        share = used(proxy, seconds)
        if not page.evaluate(LIVE):
            raise BenchError("the page is not live any more")
    return share


def used(proxy: Server, seconds: float) -> float:
    """Return the share of a core that a process uses over some seconds."""
    before, begun = proxy.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return (proxy.cpu_s() - before) / (time.monotonic() - begun)


def fill(proxy: Server, keys: int) -> None:
    """Write keys and read them until L1 has them."""
    with proxy.client() as client:
        for turn in range(3):
            pipe = client.pipeline(transaction=False)
            for number in range(keys):
                if turn == 0:
                    pipe.set(f"key:{number}", "x" * 200)
                else:
                    pipe.get(f"key:{number}")
            pipe.execute()
    held = proxy.stats()["l1"]["entries"]
    if held < keys // 2:
        raise BenchError(f"L1 holds {held} of {keys} keys")


def measure(browser: Browser, options: argparse.Namespace) -> None:
    """Measure, print and write the result."""
    about = {**machine(), "versions": versions(["redis-server"])}
    watch = Disturbance()
    shares: dict[bool, list[float]] = {True: [], False: []}
    with Rig() as rig:
        proxy = rig.respite("respite", rig.redis("redis"))
        fill(proxy, options.keys)
        for number in range(options.rounds):
            for is_open in (True, False) if number % 2 else (False, True):
                shares[is_open].append(window(proxy, browser, options.seconds, is_open=is_open))
                say(f"round {number + 1}, {'open' if is_open else 'closed'}: {shares[is_open][-1]:.2%} of a core")
    costs = [with_page - without for with_page, without in zip(shares[True], shares[False], strict=True)]
    rows = [
        [name, f"{found.median:.2%}", f"{found.low:.2%} to {found.high:.2%}"]
        for name, found in (
            ("page open", spread(shares[True])),
            ("closed", spread(shares[False])),
            ("difference", spread(costs)),
        )
    ]
    print(markdown_table(["proxy, share of one core", "median", "spread"], rows))
    print(f"\nAn open dashboard is to cost less than {GOAL:.0%}: {'yes' if spread(costs).median < GOAL else 'NO'}")
    path = write_result(
        "dashboard",
        {"script": "dashboard", "machine": about, "open": shares[True], "closed": shares[False], "costs": costs}
        | {"disturbance": watch.report()},
        options.out,
    )
    say(f"written to {path}")


def traffic(port: int, seconds: float) -> None:
    """Be an app for some seconds: a few clients that mostly read JSON documents, some of them much more than others."""
    writer = Writer(1)
    documents = [document(writer, writer.size(1_000, 40_000)) for _ in range(KEYS)]
    names = [f"{NAMES[number % len(NAMES)]}:{number}" for number in range(KEYS)]
    ends_at = time.monotonic() + seconds
    with redis.Redis(port=port, protocol=3) as client:
        for name, body in zip(names, documents, strict=True):
            client.set(name, body)

    def be_client(who: int) -> None:
        draw = random.Random(who)
        numbers = ZipfKeys(KEYS, 0.99, who).take(20_000)
        with redis.Redis(port=port, protocol=3) as client:
            for turn in itertools.count():
                begun = time.monotonic()
                if begun > ends_at:
                    return
                number = numbers[turn % len(numbers)]
                if draw.random() < READ_SHARE:
                    client.get(names[number])
                else:
                    client.set(names[number], documents[number])
                rate = RATE * (1 + 0.3 * math.sin(begun / 20)) / CLIENTS
                time.sleep(max(0.0, draw.expovariate(rate) - (time.monotonic() - begun)))

    clients = [threading.Thread(target=be_client, args=(who,)) for who in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()


def take_pictures(browser: Browser, options: argparse.Namespace) -> None:
    """Run an app and a broker for some minutes and take the pictures."""
    seconds = options.minutes * 60
    with Rig() as rig, RabbitMq() as broker:
        proxy = rig.respite("respite", rig.redis("redis"), more=f'{CLASSES}[amqp]\nurl = "{broker.url}"\n')
        others = [
            ["bench.dashboard", "--traffic", str(proxy.port), str(seconds + 20)],
            ["bench.events", "--publish-steadily", broker.url, str(EVENTS_A_SECOND), str(seconds + 20)],
        ]
        running = [
            subprocess.Popen([sys.executable, "-m", *one], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for one in others
        ]
        try:
            time.sleep(seconds)
            shoot(browser, proxy, options.pictures)
        finally:
            for process in running:
                process.terminate()
                process.wait()


def shoot(browser: Browser, proxy: Server, folder: Path) -> None:
    """Take every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size, scheme, scale in SHOTS:
        with browser.page(size=size, scheme=scheme, scale=scale) as page:
            page.go(f"http://127.0.0.1:{proxy.admin_port}/")
            page.wait(LIVE)
            page.wait("document.querySelectorAll('tbody tr').length > 12")
            time.sleep(1.5)
            page.picture(folder / f"dashboard-{name}.png", whole=name != "phone")
            say(f"{folder / f'dashboard-{name}.png'}, console: {page.errors or 'no error'}")


def main() -> None:
    """Measure, or take pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="rounds (6)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a window (10)")
    parser.add_argument("--keys", type=int, default=10_000, help="in L1 (10,000)")
    parser.add_argument("--pictures", type=Path, help="take pictures instead, into this folder")
    parser.add_argument("--minutes", type=float, default=5.5, help="of traffic before the pictures (5.5)")
    parser.add_argument("--out", type=Path, help="where the result goes, as JSON")
    parser.add_argument("--traffic", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.traffic:
        traffic(int(options.traffic[0]), float(options.traffic[1]))
        return
    need_programs(["redis-server"])
    path = find_chromium()
    if path is None:
        raise BenchError("not installed: chromium; run tests/install-servers.sh")
    with Browser(path) as browser:
        if options.pictures:
            take_pictures(browser, options)
        else:
            measure(browser, options)


if __name__ == "__main__":
    run_main(main)
