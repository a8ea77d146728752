"""What this project depends on: is each thing held to a range, free to use, and without a known hole? `make check`.

    pyproject.toml --> every distribution that is needed, directly or not, as installed here
        range      a lower and an upper bound, and what is installed lies between them          needs no network
        licence    one that lets anybody use the whole, by the metadata of the distribution     needs no network
        holes      pip-audit asks the advisory database                                         needs the network

What could not be asked is said in so many words: nothing here is green because nobody looked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_REACHED = "audit: NOT REACHED: the advisory database could not be asked, so nobody looked for known holes"
# Those whose text asks for no more than to be kept, and the MPL, whose terms end at its own files.
PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|MIT-CMU|BSD|0BSD|ISC|Apache|Apache-2\.0|PSF|PSF-2\.0|Python Software Foundation|Python-2\.0|Zlib"
    r"|CC0-1\.0|Unlicense|HPND|MPL|MPL-2\.0|Mozilla Public License)\b",
    re.IGNORECASE,
)
NEVER = re.compile(
    r"\b(AGPL|GPL|SSPL|BUSL|Commons Clause|Proprietary)\b|GNU (Affero|General)|non-?commercial", re.IGNORECASE
)
# Only the first words of a licence text name it; the rest may name others.
_NAMED_WITHIN = 200
PIP_AUDIT = (sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner=off", "--format=json")
_TIMEOUT_S = 120.0


@attrs.frozen
class Fault:
    """Something that is wrong with one dependency."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


Find = Callable[[str], metadata.Distribution | None]


def find(name: str) -> metadata.Distribution | None:
    """Return a distribution that is installed here."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def requirements(project: dict[str, Any]) -> Iterator[Requirement]:
    """Yield what a project names itself, and what its extras do, where it applies to this machine."""
    lists: list[Sequence[str]] = [project.get("dependencies", ())]
    lists += project.get("optional-dependencies", {}).values()
    for text in dict.fromkeys(line for one in lists for line in one):
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate():
            yield needed


def range_faults(needed: Iterable[Requirement], find: Find = find) -> Iterator[Fault]:
    """Yield those without both bounds, and those whose installed version lies outside."""
    for one in needed:
        operators = {specifier.operator for specifier in one.specifier}
        if "==" not in operators and not (operators & {">=", ">", "~="} and operators & {"<", "<=", "~="}):
            yield Fault(one.name, f"no range: {one}")
        found = find(one.name)
        if found is not None and not one.specifier.contains(found.version, prereleases=True):
            yield Fault(one.name, f"{found.version} is installed, {one.specifier} is wanted")


def closure(needed: Iterable[Requirement], find: Find = find) -> dict[str, metadata.Distribution]:
    """Return every distribution that is needed, directly or not, and installed here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [one.name for one in needed]
    while waiting:
        name = canonicalize_name(waiting.pop())
        distribution = find(name)
        if name in found or distribution is None:
            continue
        found[name] = distribution
        for text in distribution.requires or ():
            further = Requirement(text)
            if further.marker is None or further.marker.evaluate({"extra": ""}):
                waiting.append(further.name)
    return found


def licence_of(distribution: metadata.Distribution) -> str:
    """Return how a distribution names its licence: an expression, its classifiers, or the first words of the text."""
    about = distribution.metadata
    expression = about.get("License-Expression")
    if expression:
        return expression
    classifiers = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License")
    ]
    return ", ".join(classifiers) or " ".join((about.get("License") or "").split())[:_NAMED_WITHIN]


def licence_faults(distributions: Iterable[metadata.Distribution]) -> Iterator[Fault]:
    """Yield those that not everybody may use with everything, or that do not say."""
    for one in distributions:
        licence = licence_of(one)
        # "A or B" is ours to choose from; every part of an "and" must do.
        parts = [
            all(PERMISSIVE.search(term) and not NEVER.search(term) for term in re.split(r"\bAND\b", choice))
            for choice in re.split(r"\bOR\b", licence)
        ]
        if not any(parts):
            yield Fault(str(one.metadata["Name"]), f"its licence is {licence or 'nowhere said'!r}")


@attrs.frozen
class Advice:
    """What the advisory database said: of how many distributions it knew anything, and the holes, a line each."""

    asked: int
    unknown: tuple[str, ...]
    holes: tuple[str, ...]


def read_advice(text: str) -> Advice:
    """Read the JSON of pip-audit. Raises ValueError for what is none.

    A database that answers "no such package" to everything makes pip-audit leave with 0: only those it knew count.
    """
    try:
        rows = [row for row in json.loads(text)["dependencies"] if "editable" not in row.get("skip_reason", "")]
        holes = [f"{row['name']} {row['version']}: {hole['id']}" for row in rows for hole in row.get("vulns", ())]
    except (KeyError, TypeError) as exc:
        raise ValueError("no report of pip-audit") from exc
    unknown = tuple(row["name"] for row in rows if "skip_reason" in row)
    return Advice(len(rows) - len(unknown), unknown, tuple(holes))


def ask_advisories(command: Sequence[str] = PIP_AUDIT) -> Advice | str:
    """Run pip-audit; return what it found, or why nobody could be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"pip-audit has not answered: {type(exc).__name__}"
    try:
        advice = read_advice(done.stdout)
    except ValueError:
        return (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1][:200]
    return advice if advice.asked else "it knows none of the distributions that are installed"


def report(advice: Advice | str) -> tuple[list[str], bool]:
    """Return what is to be said of the holes, and whether there is one."""
    if isinstance(advice, str):
        return [NOT_REACHED, f"audit: {advice}"], False
    lines = [f"audit: KNOWN HOLE: {hole}" for hole in advice.holes]
    if not lines:
        lines = [f"audit: no known hole in {advice.asked} distributions"]
    if advice.unknown:
        lines.append(f"audit: nobody looked at {', '.join(advice.unknown)}: the database does not know them")
    return lines, bool(advice.holes)


def main() -> int:
    """Look at everything, say what was found; 1 when something is wrong, 0 also when the database was not reached."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = list(requirements(project))
    installed = closure(needed)
    faults = [*range_faults(needed), *licence_faults(installed.values())]
    for fault in faults:
        print(f"audit: {fault}")
    if not faults:
        print(f"audit: {len(needed)} requirements have a range, {len(installed)} distributions a permissive licence")
    lines, has_hole = report(ask_advisories())
    print("\n".join(lines))
    return 1 if faults or has_hole else 0


if __name__ == "__main__":
    sys.exit(main())
