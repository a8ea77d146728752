"""The table of a run, for people."""

from __future__ import annotations

from collections import Counter, defaultdict

from .checks import downs, inside_share, outside_share, percentile, requests, say
from .ledger import GROUPS
from .run import Cast


def table(cast: Cast, *, shown: int = 0) -> str:
    """Return what happened, a line a kind of fault, then the sums, then so many of the errors outside of outages."""
    outside = [failure for failure in cast.stage.ledger.failures if cast.stage.ledger.is_outside(failure)]
    return "\n".join(
        [*_faults(cast), "", *_sums(cast), *(f"outside  {say(cast, failure)}" for failure in outside[:shown])]
    )


def _faults(cast: Cast) -> list[str]:
    ledger = cast.stage.ledger
    by_name = defaultdict(list)
    for window in ledger.windows:
        by_name[window.name].append(window)
    lines = [
        f"{'fault':<28}{'times':>6}{'away s':>8}{'errors in it':>14}{'after it':>10}{'recovery p50':>14}{'max':>7}"
    ]
    for name, windows in sorted(by_name.items()):
        inside = sum(
            any(window.overlaps(failure.began, failure.ended) for window in windows) for failure in ledger.failures
        )
        after = sum(
            any(window.ended <= failure.began and failure.ended < window.next_began for window in windows)
            for failure in ledger.failures
        )
        times = sorted(ledger.recovery_s(window) for window in windows)
        away_s = sum(window.ended - window.began for window in windows)
        lines.append(
            f"{name:<28}{len(windows):>6}{away_s:>8.1f}{inside:>14}{after:>10}"
            f"{percentile(times, 50):>12.2f} s{times[-1]:>5.2f} s"
        )
    return lines


def _sums(cast: Cast) -> list[str]:
    ledger, claims = cast.stage.ledger, cast.stage.claims
    times = sorted(ledger.recovery_s(window) for window in ledger.windows)
    acked, unknown, refused = claims.writes()
    hows = Counter(failure.how for failure in ledger.failures)
    groups = {
        group: (ledger.done(group), sum(failure.group == group for failure in ledger.failures)) for group in GROUPS
    }
    lines = [
        f"requests             {requests(cast)}, of which failed "
        + (", ".join(f"{count} {how}" for how, count in sorted(hows.items())) or "none"),
        *(f"  class {group:<12} {done} done, {failed} failed" for group, (done, failed) in groups.items() if done),
        f"errors               {inside_share(cast):.3%} of the requests while something was fallen,"
        f" {outside_share(cast):.3%} of the others",
        f"recovery             p50 {percentile(times, 50):.2f} s, p99 {percentile(times, 99):.2f} s,"
        f" max {max(times, default=0.0):.2f} s",
        f"uptime of proxies    {1 - len(downs(cast)) / max(ledger.probes, 1):.3%}: {ledger.probes} probes,"
        f" {len(downs(cast))} failed but while one was ended on purpose",
        f"unique writes        {acked} acknowledged, {unknown} of unknown outcome, {refused} refused",
        f"reads judged         {claims.reads}, {claims.stale} staler than they may be",
        f"changes told         {len(claims.told)}, {len(cast.page.losses)} losses told of,"
        f" {cast.page.connections} connections of the page",
        f"messages             {len(cast.feeder.published)} published, heard "
        + " and ".join(str(len(subscriber.heard)) for subscriber in cast.subscribers),
    ]
    if cast.publisher is not None:
        lines.append(
            f"events               {cast.publisher.published} published, {cast.documents} reads of what they name"
        )
    return lines + _sizes(cast)


def _sizes(cast: Cast) -> list[str]:
    lines = []
    for pid in sorted({size.pid for size in cast.scale.sizes}):
        sizes = [size for size in cast.scale.sizes if size.pid == pid]
        if len(sizes) < 5:
            continue
        first, last = sizes[min(len(sizes) // 4, 30)], sizes[-1]
        lines.append(
            f"process {pid:<12} proxy {first.proxy}, {last.at - sizes[0].at:.0f} s:"
            f" {first.rss_bytes / 1e6:.1f} to {last.rss_bytes / 1e6:.1f} MB, {first.fds} to {last.fds} descriptors"
        )
    return lines
