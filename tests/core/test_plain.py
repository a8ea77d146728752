"""Commands that look at bytes: the rounds of unwrapping, and their end, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.core.plain import ROUNDS_MAX, PlainRun, Unwrapping
from proxy.core.slots import Failure
from proxy.core.value_slots import DependentSlot
from proxy.core.values import Values
from proxy.errors import CROWDED, UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE, damaged_value
from proxy.values.dependencies import Dependents
from proxy.wire.encode import array, bulk, command

from .scripted_slots import ScriptedClient
from .scripted_values import DAMAGED, Asked, ScriptedLink, commands_in, make_values, peeked

KEYS = [b"v:1", b"v:2"]
OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
WATCHED, NIL = OK, b"*-1\r\n"
BARE = (WATCHED, peeked(None, None))
SEALED = (WATCHED, peeked(b"plain", None))
SWAPPED = (QUEUED, QUEUED, array([b":1\r\n", b":6\r\n"]))  # one of them, and the command
WHAT = Dependents((b"v:9",))
EMPTY = b"*0\r\n"
NOPERM = b"-NOPERM not for you\r\n"


class Run:
    """A command `APPEND v:1 x` that is run on plain values."""

    def __init__(self, what: Dependents | None = None) -> None:
        self.values, self.asked = make_values()
        self.client = ScriptedClient()
        self.link = ScriptedLink()
        keys = [bulk(b"v:1")]
        self.values.engine.begin_write(keys)
        self.slot = DependentSlot(self.client, self.values.engine, keys, self.values, {} if what is None else {0: what})
        self.client.owe(self.slot)
        self.raw = command("APPEND", "v:1", "x")
        self.begin()

    def begin(self) -> None:
        """Begin."""
        PlainRun(self.values, self.link, (KEYS, 0), (self.raw, self.slot)).begin()

    def ended(self, expected: bytes) -> bool:
        """Return whether the client has this reply and nothing is left over."""
        return (self.client.received, self.values.engine.writing, len(self.link.fifo)) == (expected, {}, 0)


class Unwrap:
    """Keys that are unwrapped; `heard` is what came of it."""

    def __init__(self) -> None:
        self.values, _ = make_values()
        self.link = ScriptedLink()
        self.heard: list[bytes] = []
        Unwrapping(self.values, self.link, (KEYS, 0), self.heard.append).begin()


# -- one command -------------------------------------------------------------------------------------------------------


def test_plain_run_on_bare_values_is_a_watched_transaction() -> None:
    """Nothing is wrapped: the command runs, if nobody writes before it does."""
    run = Run()
    assert [one[0] for one in run.link.asked()] == [b"WATCH", b"EVAL", b"MULTI"]
    run.link.answer(*BARE, OK)
    assert run.link.asked() == [[b"APPEND", b"v:1", b"x"], [b"EXEC"]]
    assert run.client.received == b""
    run.link.answer(QUEUED, array([b":6\r\n"]))

    assert run.ended(b":6\r\n")
    assert run.values.figures.unwrapped == 0


def test_plain_run_unwraps_in_its_transaction() -> None:
    """Each wrapped key is swapped, and the command runs, if nobody has written since they were read."""
    run = Run()
    run.link.asked()
    run.link.answer(WATCHED, peeked(b"one", b"two"), OK)
    *swaps, append, execute = run.link.asked()
    assert (append, execute) == ([b"APPEND", b"v:1", b"x"], [b"EXEC"])
    assert [swap[2:] for swap in swaps] == [
        [b"1", b"v:1", b"digest of one", b"one"],
        [b"1", b"v:2", b"digest of two", b"two"],
    ]
    assert run.values.figures.unwrapped == 0
    run.link.answer(QUEUED, QUEUED, QUEUED, array([b":1\r\n", b":1\r\n", b":6\r\n"]))

    assert run.ended(b":6\r\n")
    assert run.values.figures.unwrapped == 2


def test_plain_run_that_others_write_into_begins_anew() -> None:
    """EXEC says nil: what was read is of no use any more, and nothing was unwrapped."""
    run = Run()
    run.link.answer(*SEALED, OK, QUEUED, QUEUED, NIL)
    assert run.values.figures.unwrapped == 0
    run.link.asked()
    run.link.answer(WATCHED, peeked(None, b"other"), OK)
    assert run.link.asked()[0][2:] == [b"1", b"v:2", b"digest of other", b"other"]
    run.link.answer(*SWAPPED)

    assert run.ended(b":6\r\n")
    assert run.values.figures.unwrapped == 1


@pytest.mark.parametrize("nil", [b"*-1\r\n", b"_\r\n"])
def test_plain_run_that_others_write_into_gives_up_in_the_end(nil: bytes) -> None:
    """EXEC says nil again and again: the client is told, and has not waited for ever."""
    run = Run()
    rounds = 0
    while run.link.fifo:
        rounds += 1
        assert rounds <= ROUNDS_MAX + 1
        run.link.answer(*BARE, OK, QUEUED, nil)

    assert rounds == ROUNDS_MAX + 1
    assert run.ended(CROWDED)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        *(([NOPERM, peeked(None, None), OK, EMPTY], NOPERM), ([OK, NOPERM, OK, EMPTY], NOPERM)),
        ([*BARE, NOPERM, OK], NOPERM),
        ([WATCHED, peeked(DAMAGED, None), OK, EMPTY], damaged_value(b"v:1")),
        ([*SEALED, OK, NOPERM, QUEUED, b"-EXECABORT discarded\r\n"], NOPERM),
        ([*SEALED, OK, QUEUED, NOPERM, b"-EXECABORT discarded\r\n"], NOPERM),
        ([*SEALED, OK, b"!9\r\nERR wrong\r\n", QUEUED, b"-EXECABORT no\r\n"], b"!9\r\nERR wrong\r\n"),
        ([*SEALED, OK, QUEUED, QUEUED, array([b":1\r\n", b"-WRONGTYPE no\r\n"])], b"-WRONGTYPE no\r\n"),
        ([*SEALED, OK, QUEUED, QUEUED, b"-OOM no\r\n"], b"-OOM no\r\n"),
        ([*BARE, OK, NOPERM, b"-EXECABORT discarded\r\n"], NOPERM),
        ([*BARE, OK, QUEUED, array([b"-WRONGTYPE no\r\n"])], b"-WRONGTYPE no\r\n"),
        ([*BARE, OK, QUEUED, b"-OOM no\r\n"], b"-OOM no\r\n"),
    ],
)
def test_plain_run_error_at_any_step_is_the_clients(answers: list[bytes], expected: bytes) -> None:
    """Redis' own words, or what is wrong with the value; the write is over, and nothing depends on it."""
    run = Run(WHAT)
    run.link.answer(*answers)

    assert run.ended(expected)
    assert run.asked.calls == []


@pytest.mark.parametrize(
    ("answers", "last"),
    [
        *(([NOPERM, peeked(None, None), OK], b"EXEC"), ([OK, NOPERM, OK], b"EXEC")),
        *(([OK, peeked(DAMAGED, None), OK], b"EXEC"), ([*BARE, NOPERM], b"UNWATCH")),
    ],
)
def test_plain_run_never_leaves_a_watch_behind(answers: list[bytes], last: bytes) -> None:
    """The link is clean for whoever has it next, and nothing was done."""
    run = Run()
    run.link.asked()
    run.link.answer(*answers)

    assert run.link.names() == [last]


STEPS = [
    *([], [WATCHED], [*BARE], [*BARE, OK], [*BARE, OK, QUEUED], [*SEALED], [*SEALED, OK]),
    *([*SEALED, OK, QUEUED], [*SEALED, OK, QUEUED, QUEUED], [*BARE, OK, QUEUED, NIL]),
    [*SEALED, OK, QUEUED, QUEUED, NIL],
]


@pytest.mark.parametrize("answers", STEPS)
@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (Failure.LOST, UPSTREAM_LOST),
        (Failure.TIMED_OUT, UPSTREAM_TIMED_OUT),
        (Failure.UNAVAILABLE, UPSTREAM_UNAVAILABLE),
    ],
)
def test_plain_run_link_lost_at_any_step_answers(answers: list[bytes], failure: Failure, line: bytes) -> None:
    """The client is told once, and the key is not left marked as being written."""
    run = Run()
    run.link.answer(*answers)
    run.link.lose(failure)

    assert run.ended(line)


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_plain_run_lost_while_it_may_have_run_drops_its_dependents(step: int) -> None:
    """Only behind the bare peek had the command itself been sent."""
    run = Run(WHAT)
    run.link.answer(*STEPS[step])
    sent = command("EXEC") in b"".join(run.link.raws) and NIL not in STEPS[step]
    run.link.lose()

    assert len(run.asked.calls) == sent


@pytest.mark.parametrize("answers", STEPS)
def test_plain_run_goes_on_without_its_client(answers: list[bytes]) -> None:
    """A client that has gone is sent nothing; its command ends all the same."""
    run = Run()
    run.link.answer(*answers)
    run.client.queue.clear()
    run.slot.orphan()
    for _ in range(40):
        if run.link.fifo:
            run.link.answer(reply_to(run.link))

    assert run.ended(b"")


def reply_to(link: ScriptedLink) -> bytes:
    """Answer whatever the link is owed next: nothing is wrapped, nobody writes."""
    left = link.fifo[0].left
    if command("EXEC") not in link.raws[-1]:
        return peeked(None, None) if left == 2 else OK
    queued = len(commands_in(link.raws[-1])) - 1
    if left > 1:
        return QUEUED
    return array([b":1\r\n"] * (queued - 1) + [b":6\r\n"])


def test_plain_run_on_a_link_that_is_gone_already_answers() -> None:
    """The link went between the command's arrival and its first step."""
    run = Run()
    run.link.lose()
    again = ScriptedLink()
    again.open = False
    keys = [bulk(b"v:1")]
    run.values.engine.begin_write(keys)
    slot = DependentSlot(run.client, run.values.engine, keys, run.values, {})
    run.client.owe(slot)
    PlainRun(run.values, again, (KEYS, 0), (run.raw, slot)).begin()

    assert run.ended(UPSTREAM_LOST + UPSTREAM_UNAVAILABLE)


@pytest.mark.parametrize("make", [Run, Unwrap])
def test_unwrapping_purges_first_what_is_behind_a_fence(make: Callable[[], Run | Unwrap]) -> None:
    """An older value is gone before it is looked at."""
    made = make()
    values, link = made.values, ScriptedLink()
    values.fences.put(0, "glob", b"v:*", 7)
    if isinstance(made, Run):
        PlainRun(values, link, (KEYS, 0), (made.raw, made.slot)).begin()
    else:
        Unwrapping(values, link, (KEYS, 0), made.heard.append).begin()

    purge, *rest = link.asked()
    assert purge[:5] == [b"EVAL", purge[1], b"2", b"v:1", b"v:2"]
    assert b"UNLINK" in purge[1]
    assert b"EVAL" in [one[0] for one in rest][-2:]


# -- unwrapping alone --------------------------------------------------------------------------------------------------


def test_unwrapping_ends_when_nothing_is_wrapped() -> None:
    """Looked at, swapped, looked at again; no WATCH of ours disturbs the session's."""
    unwrap = Unwrap()
    unwrap.link.answer(peeked(b"one", b"two"), b":1\r\n", b":0\r\n")
    assert unwrap.heard == []
    unwrap.link.answer(peeked(None, None))

    assert unwrap.heard == [b""]
    assert set(unwrap.link.names()) == {b"EVAL"}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([NOPERM], NOPERM),
        ([peeked(None, DAMAGED)], damaged_value(b"v:2")),
        ([peeked(b"one", b"two"), b":1\r\n", NOPERM], NOPERM),
        ([peeked(b"one", b"two"), NOPERM, b":1\r\n"], NOPERM),
    ],
)
def test_unwrapping_tells_why_it_cannot(answers: list[bytes], expected: bytes) -> None:
    """Once."""
    unwrap = Unwrap()
    unwrap.link.answer(*answers)

    assert (unwrap.heard, len(unwrap.link.fifo)) == ([expected], 0)


@pytest.mark.parametrize("answers", [[], [peeked(b"one", b"two")], [peeked(b"one", b"two"), b":1\r\n"]])
def test_unwrapping_link_lost_at_any_step_is_told_once(answers: list[bytes]) -> None:
    """Whoever waits for it is answered."""
    unwrap = Unwrap()
    unwrap.link.answer(*answers)
    unwrap.link.lose()

    assert unwrap.heard == [UPSTREAM_LOST]


def test_unwrapping_refused_link_is_told_once() -> None:
    """Redis did not let the link in."""
    unwrap = Unwrap()
    unwrap.link.fifo.popleft().refuse(b"-WRONGPASS no\r\n")

    assert unwrap.heard == [b"-WRONGPASS no\r\n"]


def test_unwrapping_crowded_gives_up() -> None:
    """So many rounds and no more."""
    unwrap = Unwrap()
    for _ in range(ROUNDS_MAX):
        unwrap.link.answer(peeked(b"one", None), b":1\r\n")
    unwrap.link.answer(peeked(b"one", None))

    assert (unwrap.heard, len(unwrap.link.fifo)) == ([CROWDED], 0)


# -- both --------------------------------------------------------------------------------------------------------------


def test_unwrapping_counts_what_is_damaged() -> None:
    """A value that cannot be opened is counted wherever it is met."""
    unwrap = Unwrap()
    unwrap.link.answer(peeked(DAMAGED, None))

    assert unwrap.values.figures.damaged == 1


def test_unwrapping_a_value_that_must_be_wrapped_says_so() -> None:
    """A value that itself begins as an envelope does cannot lie there bare: it is no damage, and it is refused."""
    values: Values
    asked: Asked
    values, asked = make_values()
    values.lookalikes.add(DAMAGED)
    link = ScriptedLink()
    heard: list[bytes] = []
    Unwrapping(values, link, ([b"v:1"], 0), heard.append).begin()
    link.answer(peeked(DAMAGED))

    assert heard == [damaged_value(b"v:1", "it begins as an envelope does, and cannot be without one")]
    assert (values.figures.damaged, asked.calls) == (0, [])
