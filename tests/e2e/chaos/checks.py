"""What a run must show, and what of it does not hold: an empty list of problems is a good run."""

from __future__ import annotations

import statistics

from .ledger import GROUPS, MEMORY, PLAIN, Failure
from .run import Cast

OUTSIDE_SHARE = 0.005
RECOVERY_S = 2.0
RSS_GROWTH = 0.10
RSS_SLACK_BYTES = 6 << 20  # a short run still fills caches of its own
FDS_SLACK = 24
ENOUGH_SIZES = 60


def problems(cast: Cast, *, recovery_s: float = RECOVERY_S, outside: float = OUTSIDE_SHARE) -> list[str]:
    """Return everything that may not be, in words."""
    ledger = cast.stage.ledger
    found = list(ledger.wrong)
    found += [f"unanswered: {say(cast, one)}" for one in ledger.failures if one.how == "unanswered"]
    found += [f"late: {say(cast, one)}" for one in ledger.slow if not ledger.is_excused(one)]
    found += [
        f"error in a class with a fallback: {say(cast, one)}"
        for one in ledger.failures
        if one.group != PLAIN and not ledger.is_excused(one) and not is_refused_by_redis(one)
    ]
    found += [f"proxy {proxy} let nobody in at {at:.2f} s" for at, proxy in downs(cast)]
    share = outside_share(cast)
    if share > outside:
        found.append(f"{share:.2%} errors outside the outages, at most {outside:.2%}")
    times = sorted(ledger.recovery_s(window) for window in ledger.windows)
    if times and percentile(times, 99) > recovery_s:
        found.append(f"recovery p99 {percentile(times, 99):.2f} s, at most {recovery_s} s")
    found += [f"did not end as it should: {text}" for text in cast.world.ended_badly]
    tracebacks = [proxy.port for proxy in cast.world.proxies if proxy.had_traceback]
    found += [f"a traceback in the log of proxy {port}" for port in tracebacks]
    return found + growth(cast)


def say(cast: Cast, one: Failure) -> str:
    """Describe one request."""
    at_s, took_s = one.began - cast.stage.ledger.began, one.ended - one.began
    return f"at {at_s:.2f} s for {took_s:.2f} s, {one.who} at proxy {one.proxy}: {one.what}: {one.how} {one.text}"


def is_refused_by_redis(one: Failure) -> bool:
    """Tell whether Redis is there and says no: no memory, no disk, no time. That is its answer, for writes."""
    return one.group == MEMORY and one.text.removeprefix("ERR ").startswith(("OOM", "MISCONF", "BUSY"))


def downs(cast: Cast) -> list[tuple[float, int]]:
    """Return when a proxy let nobody in though nobody had ended it."""
    ledger = cast.stage.ledger
    return [
        (began - ledger.began, proxy)
        for began, ended, proxy in ledger.down
        if not any(proxy in window.touches and window.overlaps(began - 1.0, ended) for window in ledger.windows)
    ]


def outside_share(cast: Cast) -> float:
    """Return the share of requests that failed while nothing was fallen."""
    ledger = cast.stage.ledger
    failed = sum(ledger.is_outside(failure) for failure in ledger.failures)
    return failed / max(failed + _done(cast, is_fallen=False), 1)


def inside_share(cast: Cast) -> float:
    """Return the share of requests that failed while something was fallen."""
    ledger = cast.stage.ledger
    failed = sum(not ledger.is_outside(failure) for failure in ledger.failures)
    return failed / max(failed + _done(cast, is_fallen=True), 1)


def _done(cast: Cast, *, is_fallen: bool) -> int:
    """Return how many requests got their result in the seconds in which something was fallen, or in the others."""
    ledger = cast.stage.ledger
    fallen = {
        second
        for window in ledger.windows
        for second in range(int(window.began - ledger.began), int(window.ended - ledger.began) + 1)
    }
    return sum(count for second, count in ledger.by_second().items() if (second in fallen) is is_fallen)


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which this share of them lies; of an empty list 0."""
    return ordered[min(int(len(ordered) * share / 100), len(ordered) - 1)] if ordered else 0.0


def growth(cast: Cast) -> list[str]:
    """Return which processes have grown: those that lived long enough to tell, first third against last."""
    found = []
    for pid in {size.pid for size in cast.scale.sizes}:
        sizes = [size for size in cast.scale.sizes if size.pid == pid]
        if len(sizes) < ENOUGH_SIZES:
            continue
        third = len(sizes) // 3
        first, last = sizes[third // 2 : third + third // 2], sizes[-third:]
        rss = [statistics.median(size.rss_bytes for size in part) for part in (first, last)]
        fds = [statistics.median(size.fds for size in part) for part in (first, last)]
        if rss[1] > rss[0] * (1 + RSS_GROWTH) + RSS_SLACK_BYTES:
            found.append(f"process {pid} grew from {rss[0] / 1e6:.1f} to {rss[1] / 1e6:.1f} MB")
        if fds[1] > fds[0] + FDS_SLACK:
            found.append(f"process {pid} had {fds[0]:.0f} descriptors, then {fds[1]:.0f}")
    return found


def requests(cast: Cast) -> int:
    """Return how many requests there were."""
    return sum(cast.stage.ledger.done(group) for group in GROUPS) + len(cast.stage.ledger.failures)
