"""What `respite stats` asks of a real admin port, and what it makes of one that cannot answer all of it."""

from __future__ import annotations

from typing import Any

from proxy.cli.client import AdminClient
from proxy.cli.overview import FIGURES, View
from proxy.cli.stats import look
from proxy.core.figures.history import WATCHED

from ..admin.fakes import STATS, FakeSource
from .conftest import Serve
from .typing_in import type_in
from .views import REPORT


class FakeMonitor:
    """A monitor made of constants."""

    def __init__(self, series: list[Any] | None = None) -> None:
        self.asked: list[tuple[str, float, float]] = []
        self._series = [{"figure": "hit_rate", "points": [[1000, 0.5], [4000, None]]}] if series is None else series

    def report(self) -> dict[str, Any]:
        """Return a report."""
        return REPORT

    def history(self, name: str, seconds: float, step: float) -> dict[str, Any]:
        """Note what is asked for."""
        self.asked.append((name, seconds, step))
        return {"series": self._series}


def asking(url: str) -> AdminClient:
    """Return a client of an admin port."""
    return AdminClient.at(url, "")


def test_look_has_figures_report_and_the_course_of_each_figure_that_is_known(serve: Serve) -> None:
    """One request each: the figures that the report knows are asked for together."""
    monitor = FakeMonitor()

    view = look(asking(serve(FakeSource(), monitor=monitor)))

    assert view == View(STATS, REPORT, {"hit_rate": [0.5, None]})
    ((names, seconds, step),) = monitor.asked
    assert names.split(",") == [name for name in FIGURES if name in view.figures]
    assert (seconds, step) == (300.0, 3.0)


def test_look_at_a_proxy_without_a_monitor_has_the_figures(serve: Serve) -> None:
    """One that has no report, of another version or still starting, is shown all the same."""
    assert look(asking(serve(FakeSource()))) == View(STATS)


def test_look_leaves_out_what_is_no_course(serve: Serve) -> None:
    """An answer of another form is no reason to show nothing."""
    view = look(asking(serve(FakeSource(), monitor=FakeMonitor([7, {"figure": "hit_rate"}, {"points": []}]))))

    assert view.series == {}


def test_stats_draws_what_the_monitor_says(serve: Serve) -> None:
    """Health, a reason, a trend: at the top of what is printed."""
    result = type_in("stats", "--admin", serve(FakeSource(), monitor=FakeMonitor()))

    assert result.exit_code == 0
    assert "● degraded" in result.stdout
    assert "falls 3 points an hour" in result.stdout
    assert "81.2 %" in result.stdout


def test_figures_that_are_drawn_are_figures_that_there_are() -> None:
    """A name that the monitor does not know would be a row that nobody ever sees, and no course for any."""
    assert set(FIGURES) <= set(WATCHED)
