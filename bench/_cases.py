"""What `compare.py` runs and how it judges it: cases, samples, the rows with a floor and a goal, tables and picture.

Measures nothing itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from bench._chart import Panel, draw
from bench._lib import BenchError, Spread, markdown_table, paired_ratios, quantile, size_text, spread, verdict

CLIENTS = 50
# Keys that all fit in L1, and keys of which L1 can hold hardly any; by size of value.
HOT_KEYS = {100: 10_000, 10_240: 1_000}
WIDE_KEYS = {100: 400_000, 10_240: 20_000}

GET_HOT = ("direct", "twemproxy", "haproxy", "pass-through", "l1-hit")
GET_WIDE = ("direct", "twemproxy", "l1-miss")
# SET with L1 on runs against the Respite of the hits, whose entries the writes drop.
SET_HOT = ("direct", "twemproxy", "haproxy", "pass-through", "l1-hit")
TARGETS = ("direct", "twemproxy", "haproxy", "pass-through", "l1-miss", "l1-hit")


@attrs.frozen
class Case:
    """What redis-benchmark is told to do."""

    command: str
    keys: str
    """`hot` or `wide`: which of the key spaces the keys are drawn from."""
    pipeline: int
    size_bytes: int

    @property
    def label(self) -> str:
        """Name it as the tables do."""
        return f"{self.command} {self.keys} P={self.pipeline}"

    @property
    def key_count(self) -> int:
        """Count the keys it draws from."""
        return (HOT_KEYS if self.keys == "hot" else WIDE_KEYS)[self.size_bytes]


@attrs.frozen
class Sample:
    """What one run of redis-benchmark showed."""

    round: int
    target: str
    case: Case
    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    proxy_cpu_us: float | None
    """Processor time of the proxy process a request; None where there is no proxy."""
    redis_cpu_us: float


@attrs.frozen
class Goal:
    """A row of the table that Respite must meet: the ratio of two targets' requests per second."""

    label: str
    target: str
    base: str
    command: str
    keys: str
    floors: dict[int, float]
    """By pipeline depth."""
    goals: dict[int, float]


GOALS = (
    Goal("L1-hit GET / direct", "l1-hit", "direct", "GET", "hot", {1: 0.9, 16: 0.7}, {1: 1.1, 16: 1.0}),
    Goal("pass-through GET / twemproxy", "pass-through", "twemproxy", "GET", "hot", {1: 0.8, 16: 0.75}, {1: 1, 16: 1}),
    Goal("pass-through SET / twemproxy", "pass-through", "twemproxy", "SET", "hot", {1: 0.8, 16: 0.75}, {1: 1, 16: 1}),
    Goal("L1-miss GET / twemproxy", "l1-miss", "twemproxy", "GET", "wide", {1: 0.6}, {1: 0.8}),
)


def planned_cases(sizes: Sequence[int]) -> list[tuple[Case, tuple[str, ...]]]:
    """List every case with the targets it is run against."""
    return [
        (Case(command, keys, pipeline, size), targets)
        for size in sizes
        for command, keys, targets in (("GET", "hot", GET_HOT), ("GET", "wide", GET_WIDE), ("SET", "hot", SET_HOT))
        for pipeline in (1, 16)
    ]


def filtered(cases: Sequence[tuple[Case, tuple[str, ...]]], only: Sequence[str]) -> list[tuple[Case, tuple[str, ...]]]:
    """Keep what `only` names: words of one kind widen, words of different kinds narrow. Raises BenchError on others."""
    kinds: tuple[tuple[str, ...], ...] = (TARGETS, ("get", "set"), ("hot", "wide"), ("p1", "p16"), ("100", "10240"))
    unknown = [word for word in only if not any(word in kind for kind in kinds)]
    if unknown:
        raise BenchError(f"--only does not know {', '.join(unknown)}; it knows {', '.join(sum(kinds, ()))}")
    chosen = [{word for word in only if word in kind} or set(kind) for kind in kinds]
    kept = []
    for case, targets in cases:
        words = (case.command.lower(), case.keys, f"p{case.pipeline}", str(case.size_bytes))
        left = tuple(target for target in targets if target in chosen[0])
        if left and all(word in kind for word, kind in zip(words, chosen[1:], strict=True)):
            kept.append((case, left))
    if not kept:
        raise BenchError("--only leaves nothing to run")
    return kept


@attrs.frozen
class Figures:
    """All samples, asked for by target and case."""

    samples: Sequence[Sample]

    def of(self, target: str, case: Case) -> list[Sample]:
        """Return the samples of one target in one case, a round each."""
        return [each for each in self.samples if each.target == target and each.case == case]

    def ratio(self, target: str, base: str, case: Case) -> Spread | None:
        """Return the spread of target's requests per second over base's; None if one of them was not run."""
        rates = [{each.round: each.rps for each in self.of(name, case)} for name in (target, base)]
        return spread(paired_ratios(*rates)) if all(rates) else None

    def cases(self) -> list[Case]:
        """Return the cases that were run, in order."""
        return list(dict.fromkeys(each.case for each in self.samples))


def goal_rows(figures: Figures) -> list[dict[str, Any]]:
    """Judge every row of GOALS that was measured, for each size of value."""
    rows = []
    for goal in GOALS:
        for case in figures.cases():
            floor = goal.floors.get(case.pipeline)
            ratio = figures.ratio(goal.target, goal.base, case)
            if floor is None or ratio is None or (case.command, case.keys) != (goal.command, goal.keys):
                continue
            aim = goal.goals[case.pipeline]
            rows.append(
                {
                    "measure": f"{goal.label} P={case.pipeline}",
                    "size_bytes": case.size_bytes,
                    "ratio": attrs.asdict(ratio),
                    "text": ratio.text(),
                    "floor": floor,
                    "goal": aim,
                    "verdict": verdict(ratio.median, floor, aim),
                }
            )
    return rows


def shown_name(target: str, case: Case) -> str:
    """Name a target; a SET hits nothing, what is measured is that L1 is on and holds the key."""
    return "l1-on" if (target, case.command) == ("l1-hit", "SET") else target


def print_tables(figures: Figures, goals: Sequence[dict[str, Any]]) -> None:
    """Print the judged ratios, then everything that was run."""
    headers = ["measure", "value", "ratio: median (min..max)", "floor", "goal", "verdict"]
    print(
        markdown_table(
            headers,
            [
                [
                    row["measure"],
                    size_text(row["size_bytes"]),
                    row["text"],
                    str(row["floor"]),
                    str(row["goal"]),
                    row["verdict"],
                ]
                for row in goals
            ],
        )
    )
    print()
    rows = []
    for case in figures.cases():
        for target in TARGETS:
            if runs := figures.of(target, case):
                versus = [figures.ratio(target, base, case) for base in ("direct", "twemproxy")]
                p50_ms, p99_ms = (
                    quantile([getattr(each, name) for each in runs], 0.5) for name in ("p50_ms", "p99_ms")
                )
                cpu = [each.proxy_cpu_us for each in runs if each.proxy_cpu_us is not None]
                rows.append(
                    [
                        size_text(case.size_bytes),
                        case.label,
                        shown_name(target, case),
                        spread([each.rps for each in runs]).text(0),
                        *(each.text() if each else "" for each in versus),
                        spread(cpu).text(1) if cpu else "",
                        f"{quantile([each.redis_cpu_us for each in runs], 0.5):.1f}",
                        f"{p50_ms:.2f} / {p99_ms:.2f}",
                    ]
                )
    headers = ["value", "case", "target", "requests/s", "vs direct", "vs twemproxy"]
    print(markdown_table([*headers, "proxy CPU us/request", "Redis CPU us", "p50 / p99 ms"], rows))


def draw_chart(path: Path, figures: Figures) -> None:
    """Draw requests per second as a ratio to direct Redis, a panel for each size of value; nothing without direct."""
    panels = []
    for size in dict.fromkeys(case.size_bytes for case in figures.cases()):
        cases = [case for case in figures.cases() if case.size_bytes == size]
        series = {target: [figures.ratio(target, "direct", case) for case in cases] for target in TARGETS}
        shown = {target: ratios for target, ratios in series.items() if any(ratios) and target != "direct"}
        if shown:
            title = f"{size_text(size)} values, {CLIENTS} connections"
            panels.append(Panel(title, "requests/s ÷ direct", [case.label for case in cases], shown, line_at=1.0))
    if panels:
        draw(path, "Requests per second against direct Redis, median and range of the rounds", panels)
