"""The fuzzer finds what is planted, says how to find it again, and never finds anything in what is fine."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from . import corpus, planted
from .__main__ import main
from .fuzzer import FINDINGS_MAX, fuzz, minimise, try_once
from .lines import Lines
from .mutator import Mutator
from .target import Target, cuts
from .targets import TARGETS
from .watch import HangError, TooMuchMemoryError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    planted.forget()


def test_fuzz_what_chance_alone_does_not_reach_is_found_by_lines() -> None:
    """An input that takes one more step is kept, and changed further: three bytes are found one after the other."""
    found = fuzz(planted.DEEP, seed=2, inputs=12_000).findings

    assert [(b"bug", "RuntimeError")] == [(one.data, one.place.partition(" ")[0]) for one in found]
    assert not fuzz(attrs.evolve(planted.DEEP, modules=[random]), seed=2, inputs=12_000).findings


def test_fuzz_finding_is_made_short() -> None:
    """What is left of an input is what it takes to fail."""
    (found,) = fuzz(planted.PAIRS, seed=1, inputs=10).findings

    assert len(found.data) == 1
    assert "IndexError at tests/fuzz/planted.py:" in found.place


@pytest.mark.parametrize("target", [planted.ENDLESS, planted.WAITING])
def test_fuzz_input_that_hangs_is_found(target: Target) -> None:
    """A second of work, and a wait without end, are findings like any other."""
    (found,) = fuzz(target, seed=1, inputs=1).findings

    assert isinstance(found.error, HangError)
    assert b"~" in found.data


def apart(lines: str) -> str:
    """Return what these lines print in a process of their own: what one once had of memory hides what comes later.

    A shell stands between: the peak of a process begins with that of the one that it was forked from.
    """
    code = f"from tests.fuzz import planted\nfrom tests.fuzz.fuzzer import GROWTH_BYTES, fuzz\n{lines}"
    words = ["/bin/sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def test_fuzz_input_that_hoards_is_found() -> None:
    """64 MiB for five bytes are a finding."""
    assert (
        apart(
            "(found,) = fuzz(planted.HOARDING, seed=1, inputs=1).findings\n"
            "print(type(found.error).__name__, b'~' in found.data)"
        )
        == f"{TooMuchMemoryError.__name__} True"
    )


def test_fuzz_memory_that_is_never_given_back_is_told() -> None:
    """A little of each input is a lot after a million; a reader that holds nothing is flat."""
    assert (
        apart(
            "inputs = 3 * GROWTH_BYTES // (16 * 1024)\n"
            "fine = fuzz(planted.FINE, seed=1, inputs=inputs)\n"
            "print(fine.is_flat, fine.growth_bytes is not None, fuzz(planted.GROWING, seed=1, inputs=inputs).is_flat)"
        )
        == "True True False"
    )


def test_fuzz_same_seed_makes_the_same_inputs() -> None:
    """A run can be repeated, and another seed is another run."""
    seen: list[bytes] = []

    def note(data: bytes) -> None:
        seen.append(data)

    def run(seed: int) -> list[bytes]:
        seen.clear()
        fuzz(attrs.evolve(TARGETS["requests"], run=note), seed=seed, inputs=300)
        return list(seen)

    first = run(1)
    assert first == run(1)
    assert first != run(2)


def test_fuzz_ends_where_enough_is_found() -> None:
    """Nobody reads a thousand findings."""

    def fail(data: bytes) -> None:
        raise {n: type(f"Number{n}Error", (Exception,), {}) for n in range(256)}[sum(data) % 256]

    outcome = fuzz(Target("all", fail, [], [b"x"], [b"y"]), seed=1, inputs=10_000)

    assert len(outcome.findings) == FINDINGS_MAX
    assert outcome.inputs < 100


def test_finding_shows_a_test_that_fails_and_a_file_that_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it need not copy bytes by hand."""
    (found,) = fuzz(planted.PAIRS, seed=1, inputs=10).findings
    shown = found.show(tmp_path)
    (saved,) = tmp_path.iterdir()

    assert found.data == saved.read_bytes()
    assert str(saved) in shown
    assert "seed 1" in shown
    source = found.test()
    names: dict[str, Any] = {}
    monkeypatch.setitem(TARGETS, "pairs", planted.PAIRS)
    exec(compile(source, "found", "exec"), names)
    (test,) = [one for name, one in names.items() if name.startswith("test_")]
    with pytest.raises(IndexError):
        test()


def test_try_once_input_that_is_fine_is_fine() -> None:
    """A finding that is mended is a test that passes."""
    try_once(planted.PAIRS, b"ab")
    try_once(TARGETS["http"], b"GET / HTTP/1.1\r\n\r\n")


def test_minimise_keeps_the_shortest_inputs_that_take_all_steps() -> None:
    """Of ten inputs that do the same one is left, and of that no more than it needs."""
    inputs = [b"b" * size for size in range(1, 9)] + [b"buuuuuu", b"xxxxx", b"x" * 40]

    kept = trio.run(minimise, planted.DEEP, inputs, clock=MockClock(autojump_threshold=0))

    assert [b"", b"b", b"bu"] == sorted(kept, key=len)


def test_corpus_any_bytes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of JSON is any input, once, and the shortest is the first."""
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    every = bytes(range(256))

    corpus.save("x", [every, b"", b"\r\n", b"\r\n"])

    assert [b"", b"\r\n", every] == corpus.load("x")
    assert corpus.load("unknown") == []


def test_lines_of_other_modules_do_not_count() -> None:
    """The steps of what a target is about are of interest, not those of the libraries it uses."""
    lines = Lines([planted])
    with lines.trace():
        planted.PAIRS.run(b"abcd")
        random.Random(1).choices(b"abc", k=9)

    once = lines.last
    assert {planted.__file__} == lines.files
    with lines.trace():
        planted.PAIRS.run(b"abcd")
    assert once == lines.last == lines.seen
    with lines.trace():
        planted.PAIRS.run(b"ab" * 9)
    assert once != lines.last, "a loop that goes on for longer is another step"


def test_mutator_never_makes_more_than_it_may() -> None:
    """Repeating and inserting end at the bound, whatever goes in."""
    mutator = Mutator(random.Random(1), [b"token" * 10], 64)
    data = b""
    for _ in range(3000):
        data = mutator.mutate(data, b"other")
        assert len(data) <= 64


def test_cuts_are_the_whole_input() -> None:
    """However an input is cut, it is that input, and the same cuts each time."""
    for data in (b"x", b"abc" * 9, b"y" * 400):
        ways = list(cuts(data))
        assert all(b"".join(pieces) == data for pieces in ways)
        assert ways == list(cuts(data))


def test_command_line_runs_a_target_and_says_what_came_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`make fuzz` is a table, and 0 when nothing was found; else a line that is run to see it again, and 1."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["changes", "--inputs", "200", "--seed", "3"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["target", "inputs", "seconds"]
    assert row.split()[:2] == ["changes", "200"]
    assert not list(tmp_path.iterdir())

    monkeypatch.setitem(TARGETS, "pairs", planted.PAIRS)
    assert main(["pairs", "--inputs", "20", "--bare"]) == 1
    again = capsys.readouterr().out.partition("again: python -m tests.fuzz ")[2].splitlines()[0]
    with pytest.raises(IndexError):
        main(again.split())


def test_command_line_several_targets_have_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one holds is not counted for the next, they share the time, and the worst of them is the end of all."""
    started: list[list[str]] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(words[3:])
        return subprocess.CompletedProcess(words, 1 if "changes" in words else 0)

    monkeypatch.setattr(subprocess, "run", run)

    assert main(["changes", "notices", "--seconds", "60", "--seed", "3", "--grow"]) == 1
    rest = ["--seed", "3", "--bare", "--seconds", "30.000", "--grow"]
    assert [["changes", *rest], ["notices", *rest]] == started
