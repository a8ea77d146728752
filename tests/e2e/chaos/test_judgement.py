"""What judges a run of chaos notices what it is there for."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from .claims import Claim, Claims, Register
from .clients import RawSocket
from .consumers import Feeder, Subscriber
from .fallbacks import JUST_S, Keeper, Reader
from .ledger import MEMORY, PLAIN, Failure, Ledger
from .listeners import Page
from .run import judge_jobs
from .schedule import Plan, names_for, orders_of
from .traffic import Actor, Ask, Stage


def stage() -> Stage:
    """Return what clients share, for a run in which nothing has happened."""
    return Stage(Ledger(bound_s=4.0), Claims(), staleness_s=1.0)


def failure(began: float, ended: float, *, proxy: int = 0, how: str = "refused", group: str = PLAIN) -> Failure:
    """Return a request that got no result."""
    return Failure("somebody", proxy, group, "GET k", began, ended, how, "")


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (["a", "b"], []),
        (["a", "b", "perhaps"], []),
        (["a"], ["acknowledged and lost"]),
        (["a", "b", "b"], ["there twice"]),
        (["a", "b", "perhaps", "perhaps"], ["there twice"]),
        (["a", "b", "never"], ["refused and there"]),
        (["a", "b", "z"], ["never written"]),
    ],
)
def test_claim_judges_what_is_there(found: list[str], wrong: list[str]) -> None:
    """Acknowledged once, unknown once at most, refused never."""
    claim = Claim("list")
    for ident, how in (("a", ""), ("b", ""), ("perhaps", "unknown"), ("never", "refused")):
        claim.note(ident, how)

    judged = claim.judge(found)

    assert len(judged) == len(wrong)
    assert all(word in text for word, text in zip(wrong, judged, strict=True))


def test_claim_judges_a_counter() -> None:
    """What was acknowledged is counted, what is unknown may be."""
    claim = Claim("count")
    for ident, how in (("a", ""), ("b", "closed"), ("c", "refused")):
        claim.note(ident, how)

    assert [bool(claim.judge_count(count)) for count in (0, 1, 2, 3)] == [True, False, False, True]


def test_jobs_may_be_gone_by_lost_pops_only() -> None:
    """As many as there were pops without a reply, and none twice."""
    claims = Claims(popped=["a"], lost_pops=1)
    for ident in ("a", "b", "c"):
        claims.jobs.note(ident, "")

    assert judge_jobs(claims, ["c"]) == []
    assert judge_jobs(claims, []) != []
    assert judge_jobs(claims, ["a", "b", "c"]) != []


@pytest.mark.parametrize(("number", "is_stale", "count"), [(3, False, 0), (4, False, 0), (2, True, 1), (5, False, 1)])
def test_actor_judges_a_read(number: int, is_stale: bool, count: int) -> None:
    """Not older than what was acknowledged before, not newer than what was sent."""
    shared = stage()
    actor = Actor(shared, Ask(shared, RawSocket(1), "reader", 0), random.Random(1))
    register = Register("reg", 1, sent=4)
    register.raised(3)

    actor.judge(register, register.floor(time.monotonic()), str(number), "others'")

    assert (shared.claims.stale, len(shared.ledger.wrong)) == (int(is_stale), count)


def test_subscriber_judges_what_it_heard() -> None:
    """All of it while the connection stood, in order, none twice."""
    shared = stage()
    feeder = Feeder(shared, Ask(shared, RawSocket(1), "feeder", 0), random.Random(1))
    feeder.published = {1: (10.0, 10.1, True), 2: (11.0, 11.1, True), 3: (12.0, 12.1, False), 4: (19.9, 20.0, True)}

    def heard(*numbers: int) -> list[str]:
        subscriber = Subscriber(shared, Ask(shared, RawSocket(1), "subscriber", 0))
        subscriber.spans = [(9.0, 20.0)]
        subscriber.heard = [(0.0, number) for number in numbers]
        return subscriber.judge(feeder)

    assert heard(1, 2) == heard(1, 2, 3, 4) == []
    assert "2 was published and not heard" in heard(1)[0]
    assert "heard after" in heard(1, 2, 2)[0]
    assert "heard after" in heard(2, 1)[0]


def test_page_is_told_of_a_change_or_of_a_loss_soon() -> None:
    """A loss that was told of before the change, or long after it, excuses nothing."""
    shared = stage()
    shared.claims.told = {"told:1": (10.0, 10.1)}

    def judged(**seen: Any) -> list[str]:
        page = Page(shared, "")
        page.heard, page.losses = seen.get("heard", {}), seen.get("losses", [])
        return page.judge()

    assert judged(heard={"told:1": 10.2}) == judged(losses=[12.0]) == []
    assert all([judged(), judged(losses=[9.0]), judged(losses=[60.0])])


@pytest.mark.parametrize(("last", "is_known"), [({}, False), ({"stale:1": (2, 1)}, False), ({"stale:1": (2, 2)}, True)])
def test_reader_knows_when_a_proxy_must_have_a_value(last: dict[str, tuple[int, int]], is_known: bool) -> None:
    """Read twice since it changed: only then is an error one that the class promises not to give."""
    shared = stage()
    register = Register("stale:1", -1, sent=2)
    register.raised(1)
    register.raised(2)
    reader = Reader(shared, Ask(shared, RawSocket(1), "reader", 0), random.Random(1), [register])
    reader.last = last

    assert reader.is_known(register) is is_known


def test_keeper_is_out_of_reach_of_what_only_redis_has() -> None:
    """While Redis is away, and until it is found again: what was written since must be there all the same."""
    shared = stage()
    register = Register("memory:0:0", 0, sent=1)
    register.raised(1)
    keeper = Keeper(shared, Ask(shared, RawSocket(1), "keeper", 0), random.Random(1), [register])

    calm = keeper.is_out_of_reach(register)
    window = shared.ledger.begin("redis killed", "", frozenset())
    fallen = keeper.is_out_of_reach(register)
    window.began -= JUST_S + 0.1
    since = keeper.is_out_of_reach(register)

    assert (calm, fallen, since) == (False, True, False)


def test_ledger_tells_outage_recovery_and_calm_apart() -> None:
    """Recovery ends with the last request that failed before the next fault."""
    ledger = Ledger(bound_s=4.0)
    window = ledger.begin("redis killed", "", frozenset())
    window.began, window.ended, window.next_began = 100.0, 102.0, 110.0
    ledger.failures = [failure(100.5, 100.6), failure(101.5, 102.5), failure(102.7, 102.8), failure(111.0, 111.1)]

    assert [ledger.is_outside(one) for one in ledger.failures] == [False, False, True, True]
    assert ledger.recovery_s(window) == pytest.approx(0.8)


def test_ledger_excuses_clients_of_the_proxy_that_was_ended() -> None:
    """And nobody else's."""
    ledger = Ledger(bound_s=4.0)
    window = ledger.begin("proxy drained", "", frozenset({1}))
    window.began, window.ended = 100.0, 102.0

    assert ledger.is_excused(failure(101.0, 101.1, proxy=1, group=MEMORY))
    assert not ledger.is_excused(failure(101.0, 101.1, proxy=0, group=MEMORY))
    assert not ledger.is_excused(failure(104.0, 104.1, proxy=1, group=MEMORY))


def test_ledger_keeps_what_took_too_long() -> None:
    """Longer than the bound and what the request itself waits for."""
    ledger = Ledger(bound_s=4.0)
    for seconds, allowed_s in ((3.9, 0.0), (4.1, 0.0), (4.9, 1.0), (5.1, 1.0)):
        ledger.judge_time(failure(0.0, seconds, how=""), allowed_s)

    assert [one.ended for one in ledger.slow] == [4.1, 5.1]


def test_schedule_is_the_same_for_the_same_seed() -> None:
    """And another for another; every kind comes before one comes again; none begins before the last is undone."""
    plan = Plan(seconds=400.0, every_s=10.0, seed=3)
    names = names_for(plan, is_in_namespace=True)
    orders = list(orders_of(plan, names))

    assert orders == list(orders_of(plan, names))
    assert orders != list(orders_of(Plan(seconds=400.0, every_s=10.0, seed=4), names))
    assert {order.name for order in orders[: len(names)]} == set(names)
    assert all(order.seconds <= 4.0 for order in orders)
    assert str(plan) == "python -m tests.e2e.chaos --kind redis7 --seconds 400 --every 10 --seed 3"
