"""How long a write that somebody made directly in Redis stays unseen through Respite, in numbers."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from .consistency.faults import Faults
from .raw import RawClient
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

pytestmark = pytest.mark.alone

BATCHES, BATCH = 5, 300
P99_S = 0.005
WORST_P99_S = 0.1
"""What a batch may come to while other processes have the cores: an invalidation is lost when it takes longer."""

MAX_STALENESS_S = 0.5
SLACK_S = 0.05


@pytest.fixture(params=["redirect", "broadcast"])
def tracking(request: pytest.FixtureRequest) -> str:
    """Each way to be told of changes."""
    return str(request.param)


@pytest.fixture
def server(kind: Kind) -> Iterator[Server]:
    """Run a server of its own for each test."""
    with Server(kind) as started:
        yield started


def test_staleness_of_foreign_writes_on_loopback_is_below_five_ms(server: Server, tracking: str) -> None:
    """The p99 of the time from a stranger's OK until Respite serves the new value is below 5 ms.

    Of five batches the best counts: on a machine that other work keeps busy a batch measures how long the scheduler
    makes three processes wait, and only a quiet one what Respite does. All must be below a bound that no scheduler
    excuses. Most of the values written over had been served from L1, or the figure would be one of Redis.
    """
    with (
        running_respite({"upstream": {"url": server.url}, "l1": {"tracking": tracking}}) as respite,
        respite.connect() as client,
        server.connect() as stranger,
    ):
        p99s = [_p99(client, stranger, str(batch)) for batch in range(BATCHES)]
        hits = respite.stats()["l1"]["hits_total"]

    print(f"{server.kind.name} {tracking}: p99 {', '.join(f'{1000 * p99:.2f}' for p99 in p99s)} ms, {hits} hits")
    assert min(p99s) < P99_S
    assert max(p99s) < WORST_P99_S
    assert hits >= BATCHES * BATCH


def _p99(client: RawClient, stranger: RawClient, batch: str) -> float:
    """Write and read until it is there, so many times; the value before is in L1 each time."""
    taken: list[float] = []
    for number in range(BATCH):
        for _ in range(3):
            client.command("GET", "k")
        value = f"{batch}.{number}".encode()
        assert stranger.command("SET", "k", value) == b"+OK\r\n"
        written = time.monotonic()
        wanted = b"$%d\r\n%b\r\n" % (len(value), value)
        while client.command("GET", "k") != wanted:
            assert time.monotonic() - written < 2.0, "the write is never seen"
        taken.append(time.monotonic() - written)
    taken.sort()
    return taken[int(0.99 * BATCH)]


def test_staleness_behind_a_frozen_invalidation_link_ends_at_the_bound(server: Server, tracking: str) -> None:
    """With an invalidation link that has gone silent nothing is served later than `max_staleness` after it changed.

    Measured from the stranger's OK to the moment at which the last stale reply had been asked for. That moment is what
    Respite decides upon; it may be handed its turn later, by no more than the 50 ms of slack.
    """
    relay = Faults(server, random.Random(1), Counter())
    try:
        with running_respite(
            {"upstream": {"url": relay.url}, "l1": {"tracking": tracking, "max_staleness": MAX_STALENESS_S}}
        ) as respite:
            worst = [_last_stale(respite, server, relay, number) for number in range(3)]
    finally:
        relay.close()

    print(f"{server.kind.name} {tracking}: stale for {', '.join(f'{stale:.3f}' for stale in worst)} s")
    assert max(worst) <= MAX_STALENESS_S + SLACK_S
    # The link was silent: without the bound they would have been served on, and with a live link not at all.
    assert max(worst) > MAX_STALENESS_S / 4


def _last_stale(respite: Respite, server: Server, relay: Faults, number: int) -> float:
    """Freeze the link, write, and return how long after the write the last stale value was asked for."""
    key = f"k{number}"
    with respite.connect() as client, server.connect() as stranger:
        wait_for(lambda: bool(respite.stats()["l1"]["serving"]), what="L1 is served")
        assert stranger.command("SET", key, "old") == b"+OK\r\n"
        wait_for(lambda: _is_hit(respite, client, key), what="the value is in L1")
        relay.order("freeze", 1)
        # A relay obeys in its own time: only when the pings go unanswered is it known to hold the link.
        time.sleep(0.05)
        assert stranger.command("SET", key, "new") == b"+OK\r\n"
        written = last = time.monotonic()
        while (asked := time.monotonic()) < written + 1.5 * MAX_STALENESS_S:
            if client.command("GET", key) == b"$3\r\nold\r\n":
                last = asked
        relay.order("calm")
    return last - written


def _is_hit(respite: Respite, client: RawClient, key: str) -> bool:
    before = respite.stats()["l1"]["hits_total"]
    client.command("GET", key)
    return int(respite.stats()["l1"]["hits_total"]) > int(before)
