"""Random commands while Redis is away: afterwards Redis holds what was read here, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from proxy.config.model import ClassSettings
from proxy.core.outage.offline.store import Item, Standing
from proxy.wire.encode import bulk

from ..core.offline.sequences import KEYS, commands
from ..e2e.servers import Server
from .conftest import Serve
from .offline_parts import Scene, scene, settings

CLASS = ClassSettings("all", ("[abc]", "*odd*"), version=True, offline="memory")
COUNT = 60
SLACK_MS = 5000


@pytest.mark.parametrize("seed", range(4))
async def test_redis_ends_with_what_was_read_here_or_with_nothing(
    redis: Server, serve: Serve, nursery: trio.Nursery, seed: int
) -> None:
    """What is certain is there, with its TTL; what is not, and each hash, is gone; other keys are as before."""
    made = await scene(redis, serve, nursery, settings(CLASS))
    await _fill(made)
    await made.away()
    asked = [words for words in commands(seed, COUNT) if words[0].upper() not in (b"PERSIST", b"TTL")]
    for words in asked:
        await made.client.command(*words)
    place = next(iter(made.proxy.worker.reconciler.memory.places.values()))
    held = dict(place.store.items)
    now_ms = made.proxy.worker.reconciler.memory.now_ms()
    for key in held:
        place.store.find(key)
    expected = {key: _expected(item) for key, item in held.items()}
    await made.back()

    for key, (value, ends_ms) in expected.items():
        found = await made.client.command("GET", key)
        assert found == (b"$-1\r\n" if value is None else bulk(value)), (seed, key, asked)
        if value is not None and ends_ms is not None:
            left_ms = int((await made.client.command("PTTL", key))[1:])
            assert abs(left_ms - (ends_ms - now_ms)) < SLACK_MS
    for key in set(KEYS) - set(expected):
        assert await made.client.command("GET", key) == (bulk(b"7") if key in KEYS[:2] else b"$-1\r\n")
    assert made.figures["reconciled_total"]["lost"] == made.figures["keys"] == made.figures["bytes"] == 0


async def _fill(made: Scene) -> None:
    """Let L1 know of two keys, and of a third that there is none."""
    for key in KEYS[:2]:
        await made.client.command("SET", key, "7", "EX", 20_000)
    for _ in range(2):
        for key in KEYS[:3]:
            await made.client.command("GET", key)


def _expected(item: Item) -> tuple[Any, int | None]:
    is_told = isinstance(item.value, bytes) and item.standing is not Standing.GUESSED
    return (item.value, item.ends_ms) if is_told else (None, None)
