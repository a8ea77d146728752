"""Commands that look at bytes in a session that watches keys of its own: unwrapped beside, and run by one script."""

from __future__ import annotations

import pytest

from proxy.core.plain import ROUNDS_MAX, WatchedRun
from proxy.errors import CROWDED, UPSTREAM_LOST, damaged_value

from .scripted_values import DAMAGED, commands_in, peeked
from .test_plain import KEYS, NOPERM, WHAT, Run


class Watched(Run):
    """The same in a session that watches keys of its own."""

    def begin(self) -> None:
        """Begin."""
        WatchedRun(self.values, self.link, (KEYS, 0), (b"the script", self.slot), None).begin()


def test_watched_run_unwraps_and_then_runs_a_script_that_looks_again() -> None:
    """No WATCH, no EXEC and no UNWATCH of ours: they would end the session's."""
    run = Watched()
    run.link.answer(peeked(b"one", None), b":1\r\n", peeked(None, None))

    assert run.link.raws[-1] == b"the script"
    assert not {b"WATCH", b"EXEC", b"UNWATCH"} & {name for raw in run.link.raws[:-1] for (name, *_) in commands_in(raw)}
    run.link.answer(b":6\r\n")
    assert run.ended(b":6\r\n")


def test_watched_run_begins_anew_where_the_script_met_what_it_cannot_open() -> None:
    """Written since, and compressed in another way; so many rounds and no more."""
    run = Watched()
    run.link.answer(peeked(None, None), CROWDED, peeked(b"other", None), b":1\r\n", peeked(None, None), b":6\r\n")
    assert run.ended(b":6\r\n")

    run = Watched()
    rounds = 0
    while run.link.fifo:
        rounds += 1
        assert rounds <= ROUNDS_MAX
        run.link.answer(peeked(None, None), CROWDED)
    assert run.ended(CROWDED)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([NOPERM], NOPERM),
        ([peeked(DAMAGED, None)], damaged_value(b"v:1")),
        ([peeked(None, None), b"-WRONGTYPE no\r\n"], b"-WRONGTYPE no\r\n"),
    ],
)
def test_watched_run_error_at_any_step_is_the_clients(answers: list[bytes], expected: bytes) -> None:
    """Redis' own words, or what is wrong with the value."""
    run = Watched(WHAT)
    run.link.answer(*answers)

    assert run.ended(expected)
    assert run.asked.calls == []


@pytest.mark.parametrize("answers", [[], [peeked(b"one", None)], [peeked(None, None)]])
def test_watched_run_link_lost_at_any_step_answers(answers: list[bytes]) -> None:
    """Once; behind the script itself, what depends on the key is dropped."""
    run = Watched(WHAT)
    run.link.answer(*answers)
    run.link.lose()

    assert run.ended(UPSTREAM_LOST)
    assert len(run.asked.calls) == (answers == [peeked(None, None)])
