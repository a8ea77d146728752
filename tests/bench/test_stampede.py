"""The figures of bench.stampede: every reply is looked at, and one read is one read."""

from contextlib import ExitStack

import pytest

from bench._lib import BenchError
from bench.connections import open_connection
from bench.stampede import COMMANDS, MOMENTS, Case, Run, Side, expected_reply, is_whole, run_case, summary
from bench.warming import TunedRig

CLIENTS = 20
CASES = [Case(command, moment) for command in COMMANDS for moment in MOMENTS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_reply_is_whole_at_its_last_byte_only(case: Case) -> None:
    """Whatever a client has received of a reply, it waits for the rest."""
    reply = expected_reply(case, 1, 600)

    assert [False] * len(reply) + [True] == [is_whole(reply[:at]) for at in range(len(reply) + 1)]


def test_summary_judges_the_worst_round() -> None:
    """One stampede that lets two reads through is missed, whatever the others did."""
    case = Case("GET", "expired")
    runs = [Run(n, case.label, side, reads, 10.0) for n, reads in ((1, 1), (2, 2), (3, 1)) for side in ("respite",)]
    runs += [Run(n, case.label, "direct", 1000, 20.0) for n in (1, 2, 3)]

    rows = summary(runs, [case])

    assert ["MISSED"] == [row["verdict"] for row in rows]
    assert {"median": 0.5, "low": 0.5, "high": 0.5} == rows[0]["ratio"]


def test_stampede_sends_one_read_of_many_to_redis() -> None:
    """Direct, all readers reach Redis; through Respite one does, in every case, and all are told what is true."""
    with TunedRig() as rig, ExitStack() as stack:
        sides = []
        for name in ("direct", "respite"):
            redis = rig.redis(f"redis-{name}")
            respite = rig.tuned("respite", redis, {"verify": 0}) if name == "respite" else None
            clients = [stack.enter_context(open_connection(respite or redis)) for _ in range(CLIENTS)]
            sides.append(Side(name, redis, respite, clients))
        reads = {case.label: [run_case(side, case, 1, 600).reads for side in sides] for case in CASES}

    assert {case.label: [CLIENTS, 1] for case in CASES} == reads


def test_wrong_reply_is_an_error() -> None:
    """A case that does not hold ends the run: here the hash is longer than it is expected to be."""
    with TunedRig() as rig, ExitStack() as stack:
        redis = rig.redis("redis")
        side = Side("direct", redis, None, [stack.enter_context(open_connection(redis)) for _ in range(3)])

        with pytest.raises(BenchError, match="3 wrong replies"):
            # Redis keeps no order of the fields of so large a hash.
            run_case(side, Case("HGETALL", "changed"), 1, 100_000)
