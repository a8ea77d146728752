"""Fences: in force everywhere at once, the bodies swept behind them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from . import values_checker
from .conftest import kind_or_skip
from .raw import RawClient, encode_all, tree
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite
from .values_checker import (
    KEYS,
    OTHER_S,
    SLOW_KEYS_A_SECOND,
    SLOW_SWEEP,
    Event,
    History,
    LaunchedRespite,
    Outcome,
    Read,
    check,
    judge,
    running,
)

SEED = 20_260
SECONDS, SABOTAGED_SECONDS = 2.0, 1.0
TRIES = 4  # for a machine so busy that readers hardly come between a fence and the write after it
NIL, OK = b"$-1\r\n", b"+OK\r\n"
KEY = KEYS[0][1]
CLASSES: Sequence[Mapping[str, Any]] = (
    {"name": "items", "match": ["item:*:*"], "version": True, "tags": ["group-{1}"]},
    {"name": "plain", "match": ["plain:*:*"], "tags": ["group-{1}"]},
)


# -- the checker ------------------------------------------------------------------------------------------------------


@pytest.mark.long("valkey9")
@pytest.mark.parametrize(
    ("name", "dependencies", "ballast"), [("redis7", True, 0), ("redis7", False, 1_000), ("valkey9", False, 0)]
)
def test_fence_while_keys_are_written_and_read_at_full_speed_leaves_no_stale_read(
    name: str,
    dependencies: bool,
    ballast: int,
) -> None:
    """Through two proxies, fenced by glob, tag and dependency: no read gives what a fence or a write has ended.

    With ballast in L1 a fence takes effect while it is walked through.
    """
    found = check(kind_or_skip(name), seconds=SECONDS, seed=SEED, dependencies=dependencies, ballast=ballast)

    print(f"{name}, seed {SEED}, {ballast} others in L1: {described(found)}")
    assert found.verdict.broken == []
    assert sum(map(len, found.history.fences.values())) >= 10
    assert found.history.found >= len(found.history.reads) / 10  # not all nil: a fence does not end what comes after it
    assert sum(stats["l1"]["hits_total"] for stats in found.stats) >= 100
    assert all(stats["values"]["purged_total"] for stats in found.stats)


@pytest.mark.long
@pytest.mark.parametrize("rule", ["purge", "walk", "watch", "announcements", "dependents"])
def test_checker_with_a_rule_taken_out_finds_stale_reads(redis7: Kind, rule: str) -> None:
    """Without the purge ahead of a read, the walk through L1, the look at each hit, the other proxy, dependencies."""
    for seed in range(SEED, SEED + TRIES):
        found = check(redis7, seconds=SABOTAGED_SECONDS, seed=seed, dependencies=rule != "walk", sabotage=rule)
        print(f"without {rule}: {described(found)}")
        if found.verdict.broken:
            return

    pytest.fail("nothing was noticed")


def described(found: Outcome) -> str:
    """Sum up a run."""
    history, verdict = found.history, found.verdict
    hits = "+".join(str(stats["l1"]["hits_total"]) for stats in found.stats)
    purged = "+".join(str(stats["values"]["purged_total"]) for stats in found.stats)
    return (
        f"{len(history.reads)} reads ({history.found} values, {hits} hits), "
        f"{sum(map(len, history.writes.values()))} writes, {sum(map(len, history.fences.values()))} fences, "
        f"{purged} purged, {len(verdict.broken)} violations, {len(verdict.excused)} excused"
    )


OLD, NEW = Event(0, 1.0, 1.1, number=1), Event(0, 3.0, 3.1, number=2)
FENCE = Event(0, 2.0, 2.1)


def read_of(number: int | None, began: float, proxy: int = 0) -> Read:
    """Make a read of the key of these histories."""
    return Read(proxy, 0, KEY, began, began + 0.0001, number)


@pytest.mark.parametrize(
    ("read", "is_broken"),
    [
        (read_of(1, 2.05), False),  # the fence is not acknowledged yet
        (read_of(1, 2.11), True),
        (read_of(None, 2.11), False),
        (read_of(1, 2.1 + OTHER_S / 2, proxy=1), False),
        (read_of(1, 2.1 + OTHER_S * 2, proxy=1), True),
        (read_of(2, 3.05), False),
        (read_of(2, 3.2), False),
        (read_of(1, 3.2), True),
        (read_of(None, 3.2), False),
        (read_of(7, 3.2), False),  # a write that was never acknowledged
    ],
)
def test_judge_one_read(read: Read, is_broken: bool) -> None:
    """What was acknowledged before a fence is stale after it; what was written over is stale; nil never is."""
    history = History()
    history.writes[KEY] += [OLD, NEW]
    history.fences[0].append(FENCE)
    # The other proxy has answered somebody who asked after the fence: it was running.
    history.reads += [Read(1, 1, KEYS[-1][1], 2.1005, 2.102, None), read]

    assert bool(judge(history).broken) == is_broken


def test_judge_a_value_whose_write_the_fence_overtook_is_not_stale() -> None:
    """A write that was acknowledged once the fence had begun may be on either side of it."""
    history = History()
    history.writes[KEY].append(Event(0, 1.9, 2.05, number=1))
    history.fences[0].append(FENCE)
    history.reads.append(read_of(1, 5.0))

    assert judge(history).broken == []


def test_judge_excuses_a_proxy_that_did_not_run() -> None:
    """One that has answered nobody since the fence was acknowledged had no core."""
    history = History()
    history.writes[KEY].append(OLD)
    history.fences[0].append(FENCE)
    history.reads.append(read_of(1, 2.2, proxy=1))

    assert judge(history).broken == []
    assert len(judge(history).excused) == 1


# -- the sweep --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(redis7: Kind) -> Iterator[Server]:
    """Run a server of its own for each test."""
    with Server(redis7) as started:
        yield started


def respite_on(server: Server) -> Any:
    """Run Respite on it."""
    return running_respite({"upstream": {"url": server.url}, "class": list(CLASSES), "log": {"level": "error"}})


def send_all(client: RawClient, commands: Sequence[Sequence[str | int]]) -> list[bytes]:
    """Send a pipeline and read its replies."""
    client.send(encode_all(commands))
    return client.frames(len(commands))


def fences_of(client: RawClient) -> int:
    """Count the records in Redis."""
    return int(client.command("HLEN", "respite:fences")[1:])


def test_sweep_removes_what_is_behind_a_fence_and_lifts_it(server: Server) -> None:
    """Of each class and type and of no class, in its database only, and never a key of ours; then no record is left."""
    versioned, loose = 500, 20_000
    with respite_on(server) as respite, respite.connect() as client, server.connect() as direct:
        assert direct.command("DEBUG", "POPULATE", loose, "loose", 20) == OK
        send_all(client, [("SET", f"item:1:{number}", "x") for number in range(versioned)])
        send_all(client, [("SET", f"plain:1:{number}", "x") for number in range(versioned)])
        send_all(client, [("RPUSH", "item:1:list", "x"), ("SET", "item:1:counter", 7), ("SET", "respite:mine", "x")])
        send_all(direct, [("SELECT", 1), ("SET", "item:1:0", "x"), ("SET", "plain:1:0", "x"), ("SELECT", 0)])
        total = loose + 2 * versioned + 2
        assert total + 1 <= int(direct.command("DBSIZE")[1:]) <= total + 4  # and what Respite keeps there

        began = time.monotonic()
        assert client.command("RESPITE", "INVALIDATE", "MATCH", "*")[:1] == b":"
        assert fences_of(direct) == 1
        seen: list[float] = []

        def is_swept() -> bool:
            sweep = respite.stats()["values"]["sweep"]
            if sweep["running"]:
                seen.append(sweep["share"])
            return fences_of(direct) == 0 and not sweep["running"]

        wait_for(is_swept, what="the fence is lifted", timeout_s=30)
        took_s = time.monotonic() - began
        values = respite.stats()["values"]
        left = {node.own.split(b"\r\n")[1] for node in tree(direct.command("KEYS", "*")).children}
        elsewhere = send_all(direct, [("SELECT", 1), ("DBSIZE",)])[1]

    print(f"{total} keys swept in {took_s:.1f} s")
    assert b"respite:mine" in left
    assert [key for key in left if not key.startswith(b"respite:")] == []
    assert elsewhere == b":2\r\n"
    assert values["fences"] == 0
    assert values["sweep"]["unlinked_total"] == total
    assert values["sweep"]["scanned_total"] >= total
    assert values["sweep"]["passes_total"] == 1
    assert any(0 < share < 1 for share in seen), seen
    assert seen == sorted(seen)


def test_sweep_looks_at_no_more_keys_a_second_than_it_may(server: Server) -> None:
    """Where none of them is covered, which costs least, and with a rate that any machine could exceed."""
    total = 2 * SLOW_KEYS_A_SECOND
    settings = {"upstream": {"url": server.url}, "class": list(CLASSES)}
    with (
        running(LaunchedRespite(settings, module=(values_checker.__name__, SLOW_SWEEP))) as respite,
        respite.connect() as client,
        server.connect() as direct,
    ):
        assert direct.command("DEBUG", "POPULATE", total, "loose", 20) == OK
        began = time.monotonic()
        assert client.command("RESPITE", "INVALIDATE", "MATCH", "item:*")[:1] == b":"
        wait_for(lambda: fences_of(direct) == 0, what="the fence is lifted", timeout_s=30)
        took_s = time.monotonic() - began
        sweep = respite.stats()["values"]["sweep"]

    print(f"{total} keys looked at in {took_s:.1f} s")
    assert 0.9 * total / SLOW_KEYS_A_SECOND < took_s
    assert sweep["scanned_total"] >= total
    assert sweep["unlinked_total"] == 0


@pytest.mark.parametrize(("how", "name"), [("MATCH", "plain:1:*"), ("TAG", "group-1")])
def test_sweep_of_values_without_versions_removes_them_and_no_others(server: Server, how: str, name: str) -> None:
    """What a glob or a tag does not cover stays, whatever its class; so do newer values that bear a version."""
    with respite_on(server) as respite, respite.connect() as client, server.connect() as direct:
        send_all(client, [("SET", f"{kind}:{group}:k", "x") for kind in ("item", "plain") for group in (1, 2)])
        assert client.command("RESPITE", "INVALIDATE", how, name)[:1] == b":"
        assert client.command("SET", "item:1:new", "x") == OK
        wait_for(lambda: fences_of(direct) == 0, what="the fence is lifted")
        replies = send_all(client, [("EXISTS", key) for key in ("plain:1:k", "item:1:k", "plain:2:k", "item:2:k")])
        assert client.command("GET", "item:1:new") == b"$1\r\nx\r\n"

    assert replies == [b":0\r\n", b":1\r\n" if how == "MATCH" else b":0\r\n", b":1\r\n", b":1\r\n"]


def test_fences_in_force_are_known_to_a_proxy_that_starts_later(server: Server) -> None:
    """Whoever set them may be gone: from its first reply on, the next proxy gives nothing that they cover.

    That one writes above them from the start, too, also where they are ahead of the server's time.
    """
    first = Respite({"upstream": {"url": server.url}, "class": list(CLASSES)})
    first.wait_until_started()
    ahead = (time.time_ns() // 1_000_000 + 1_800_000) << 16
    with first.connect() as client:
        send_all(client, [("SET", f"item:{number % 2}:{number}", "old") for number in range(100)])
        assert client.command("RESPITE", "SETV", "item:1:ahead", ahead, "old") == b":1\r\n"
        assert client.command("RESPITE", "INVALIDATE", "TAG", "group-1")[:1] == b":"
        first.signal(signal.SIGKILL)
    first.wait_for_exit()
    first.discard()

    with server.connect() as direct, respite_on(server) as second, second.connect() as client:
        assert fences_of(direct) == 1
        replies = send_all(client, [("GET", f"item:{number % 2}:{number}") for number in range(100)])
        new = send_all(client, [("GET", "item:1:ahead"), ("SET", "item:1:1", "new"), ("GET", "item:1:1")])
        wait_for(lambda: fences_of(direct) == 0, what="the second proxy sweeps", timeout_s=30)
        assert client.command("GET", "item:1:1") == b"$3\r\nnew\r\n"

    assert replies == [b"$3\r\nold\r\n", NIL] * 50
    assert new == [NIL, OK, b"$3\r\nnew\r\n"]
