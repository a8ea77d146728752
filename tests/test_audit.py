"""The audit of dependencies: what it must find, and that it is never green because nobody looked."""

from __future__ import annotations

import json
import sys
import tomllib
from email.message import Message
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from . import audit


class Installed(metadata.Distribution):
    """A distribution that says so of itself."""

    def __init__(self, name: str, version: str = "1.0", licence: str = "", needs: tuple[str, ...] = ()) -> None:
        self._about = Message()
        for key, value in (("Name", name), ("Version", version), *(("Requires-Dist", one) for one in needs)):
            self._about[key] = value
        if licence.startswith("License"):
            self._about["Classifier"] = licence
        elif licence:
            self._about["License-Expression" if " " in licence or licence.isupper() else "License"] = licence

    @property
    def metadata(self) -> Message:  # type: ignore[override]
        """What it says."""
        return self._about

    def read_text(self, filename: str) -> str | None:
        """Return no file."""
        return None

    def locate_file(self, path: object) -> None:  # type: ignore[override]
        """Find no file."""


def test_our_own_requirements_have_a_range_and_a_licence() -> None:
    """What `make check` looks at first, for what is installed here."""
    project = tomllib.loads((audit.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = list(audit.requirements(project))
    installed = audit.closure(needed)

    assert [*audit.range_faults(needed), *audit.licence_faults(installed.values())] == []
    assert {"trio", "outcome", "hiredis"} <= installed.keys()


@pytest.mark.parametrize(
    ("text", "installed", "wrong"),
    [
        ("a>=1,<2", "1.5", False),
        ("a~=1.4", "1.5", False),
        ("a==1.5", "1.5", False),
        ("a", "1.5", True),
        ("a>=1", "1.5", True),
        ("a<2", "1.5", True),
        ("a>=1,<2", "2.0", True),
    ],
)
def test_range_has_two_ends_and_holds_what_is_installed(text: str, installed: str, *, wrong: bool) -> None:
    """A requirement without a bound takes what somebody publishes tomorrow."""
    faults = list(audit.range_faults([Requirement(text)], lambda name: Installed(name, installed)))

    assert bool(faults) is wrong


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True),
        ("Apache-2.0 OR BSD-3-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("License :: OSI Approved :: BSD License", True),
        ("License :: OSI Approved :: GNU Affero General Public License v3", False),
        ("Proprietary", False),
        ("", False),
    ],
)
def test_licence_that_binds_others_or_is_not_said_is_a_fault(licence: str, *, free: bool) -> None:
    """Permissive ones pass; where there is a choice, one such is enough; silence is none."""
    assert (list(audit.licence_faults([Installed("a", licence=licence)])) == []) is free


def test_what_dependencies_need_is_looked_at_too() -> None:
    """The licence of what comes along counts as that of what was named."""
    known = {
        "a": Installed("a", licence="MIT", needs=("b>=1", "c; extra == 'x'")),
        "b": Installed("b", licence="GPL-3.0-only OR SSPL-1.0"),
        "c": Installed("c"),
    }

    found = audit.closure([Requirement("A")], known.get)

    assert sorted(found) == ["a", "b"]
    assert [fault.name for fault in audit.licence_faults(found.values())] == ["b"]


def _printing(text: str, code: int) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})")


def test_database_that_was_not_reached_is_never_green() -> None:
    """No pip-audit, no network, and a database that knows nothing: each is said, in capitals."""
    nothing_known = {
        "dependencies": [{"name": "a", "skip_reason": "not found on PyPI"}, {"name": "us", "skip_reason": "editable"}]
    }
    for command in (("/nowhere/pip-audit",), _printing("no network", 1), _printing(json.dumps(nothing_known), 0)):
        lines, has_hole = audit.report(audit.ask_advisories(command))

        assert (lines[0], has_hole) == (audit.NOT_REACHED, False)


def test_database_that_was_reached_says_what_it_found_and_whom_it_does_not_know() -> None:
    """A hole is named and fails the check; who is unknown is named beside it."""
    row = {"name": "a", "version": "1.0", "vulns": []}
    unknown = {"name": "b", "skip_reason": "not found"}
    hole = {"name": "c", "version": "2.0", "vulns": [{"id": "CVE-1"}]}

    fine = audit.report(audit.ask_advisories(_printing(json.dumps({"dependencies": [row, unknown]}), 0)))
    bad = audit.report(audit.ask_advisories(_printing(json.dumps({"dependencies": [row, hole]}), 1)))

    assert fine == (
        ["audit: no known hole in 1 distributions", "audit: nobody looked at b: the database does not know them"],
        False,
    )
    assert bad == (["audit: KNOWN HOLE: c 2.0: CVE-1"], True)
