"""One kind of picture: panels of grouped bars with the spread of their rounds as error bars, written as PNG.

matplotlib comes with the extra `bench`; it is imported when a picture is drawn, so everything else works without it.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from bench._lib import BenchError, Spread

# Of one hue each for the reference, the other proxies and ours; told apart in grey too.
COLOURS = ("#4d4d4d", "#9e9e9e", "#c9c9c9", "#f2a65a", "#d1495b", "#2e86ab", "#5fb49c")


@attrs.frozen
class Panel:
    """One set of axes: `series` maps a name to one spread a group; None leaves a gap."""

    title: str
    y_label: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[Spread | None]]
    line_at: float | None = None
    """Where a dashed line is drawn across, for instance at the ratio 1."""


def need_matplotlib() -> None:
    """Raise BenchError now rather than after minutes of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("matplotlib is not installed: pip install '.[bench]', or run with --no-chart")


def draw(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Draw the panels below each other into the PNG file `path`."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, rows = pyplot.subplots(len(panels), 1, figsize=(11, 4.2 * len(panels)), squeeze=False)
    for axes, panel in zip(rows[:, 0], panels, strict=True):
        width = 0.84 / max(1, len(panel.series))
        for index, (name, spreads) in enumerate(panel.series.items()):
            drawn = [(group, each) for group, each in enumerate(spreads) if each is not None]
            places = [group - 0.42 + width * (index + 0.5) for group, _ in drawn]
            heights = [each.median for _, each in drawn]
            errors = [[each.median - each.low for _, each in drawn], [each.high - each.median for _, each in drawn]]
            colour = COLOURS[index % len(COLOURS)]
            bars = axes.bar(places, heights, width * 0.94, yerr=errors, label=name, color=colour, capsize=2)
            labels = [f"{height:,.0f}" if height >= 100 else f"{height:.2f}" for height in heights]
            axes.bar_label(bars, labels=labels, fontsize=7, padding=2)
        if panel.line_at is not None:
            axes.axhline(panel.line_at, color="#4d4d4d", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(panel.groups)), panel.groups)
        axes.set_ylabel(panel.y_label)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, ncols=4, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.08))
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
