"""How long our own certificates hold, and whether the files that changed could be used: looked at once a minute.

A certificate that ends soon is told of in the log once a day, in the figures all the time. New files are taken by
whoever connects next (`proxy.tls.renewal`); looking here only makes that so, and known, also while nobody connects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs

from proxy.config.model import Settings
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.log import get_logger
from proxy.tls.certificate import SOON_S, own_certificates, read_end_of, shown
from proxy.tls.renewal import Renewable

LOOK_S: Final = 60.0
_WARN_S: Final = 86400.0
log = get_logger("tls")


@attrs.define
class _Certificate:
    """One of ours: of a side, in a file. `ends_at` is in seconds since 1970, None while the file says nothing."""

    name: str
    path: Path
    context: Renewable | None
    ends_at: float | None = None
    warned_at: float = -_WARN_S


class Certificates:
    """The certificates that the settings name. `contexts` are those that were made of them, by side."""

    def __init__(
        self,
        settings: Settings,
        contexts: Callable[[], dict[str, Renewable]] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._contexts = contexts
        self._look_at = 0.0
        self._own = [_Certificate(name, path, None) for name, path in own_certificates(settings)]

    def tick(self, now: float) -> None:
        """Look at the files once a minute; `now` is of the monotonic clock."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self.look(now)

    def look(self, now: float) -> None:
        """Look at the files now: take what has changed, and say what ends soon."""
        contexts = self._contexts()
        for context in contexts.values():
            context.current()
        for one in self._own:
            one.context = contexts.get(one.name)
            one.ends_at = read_end_of(one.path)
            if one.ends_at is None:
                continue
            left_s = one.ends_at - self._clock()
            if left_s < SOON_S and now - one.warned_at >= _WARN_S:
                one.warned_at = now
                what = "a certificate ends soon" if left_s > 0 else "a certificate has ended"
                log.warning(what, of=f"{one.name}.tls.cert", ends_at=shown(one.ends_at), days=round(left_s / 86400, 1))

    def report(self) -> dict[str, Any]:
        """Return the rows of stats.json: when each ends, and why what its files hold now is not used."""
        return {"certificates": [self._row(one) for one in self._own]}

    def families(self) -> Iterable[MetricFamily]:
        """Return the metrics: nothing where we have no certificate."""
        rows = [row for row in self.report()["certificates"] if row["ends_in_s"] is not None]
        if rows:
            yield MetricFamily(
                "respite_tls_certificate_expires_seconds",
                "gauge",
                "Seconds until a certificate of ours ends; negative once it has.",
                tuple(Sample("", {"certificate": row["name"]}, row["ends_in_s"]) for row in rows),
            )
        if self._own:
            yield MetricFamily(
                "respite_tls_files_unusable",
                "gauge",
                "1 while changed TLS files cannot be used and the old ones still are.",
                tuple(
                    Sample("", {"certificate": row["name"]}, float(bool(row["problem"])))
                    for row in self.report()["certificates"]
                ),
            )

    def _row(self, one: _Certificate) -> dict[str, Any]:
        ends_at = one.ends_at
        return {
            "name": one.name,
            "ends_at": "" if ends_at is None else shown(ends_at),
            "ends_in_s": None if ends_at is None else round(ends_at - self._clock()),
            "problem": one.context.problem if one.context is not None else "",
            "renewed_total": one.context.renewed if one.context is not None else 0,
        }
