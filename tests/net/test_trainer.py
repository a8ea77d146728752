"""Dictionaries are stored and announced before they are used, by one proxy, and a failure ends one round only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from proxy.core.session import Identity
from proxy.net.invalidation.announcements import DICTIONARIES_KEY
from proxy.net.values import trainer as trainer_module
from proxy.net.values.invalidator import Invalidator
from proxy.net.values.trainer import LEASE_KEY, Trainer
from proxy.values.changes import CHANNEL
from proxy.values.dictionary import ENOUGH_BYTES, ENOUGH_SAMPLES, SAMPLE_EVERY, id_of, stored
from proxy.values.envelope import Codec

from .peer import until
from .test_sweeper import World as SweptWorld

DATA = b"words that values have in common"
SAMPLE = b"x" * (ENOUGH_BYTES // ENOUGH_SAMPLES + 1)


class World:
    """A trainer whose Redis answers what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trained: bytes | Exception | None) -> None:
        swept = SweptWorld()
        self.redis = swept.redis
        self.redis.before = lambda _, words: self.answer(words)
        self.replies: dict[bytes, bytes] = {}
        self.now = 1_000.0
        self.redis.clock = lambda: self.now  # type: ignore[method-assign]
        self.dictionaries = swept.values.dictionaries
        self.trainings: list[tuple[int, Codec]] = []
        self.learned_when: list[bool] = []  # at each command: whether it is known here already
        links: Any = self.redis.links
        invalidator = Invalidator(links, swept.fencing, swept.values.sealer.clock, Identity(b"own", b"secret"))
        self.trainer = Trainer(self.dictionaries, invalidator, self.redis)  # type: ignore[arg-type]
        self.trained = trained
        monkeypatch.setattr(trainer_module, "LOOK_EVERY_S", 0.001)
        monkeypatch.setattr(trainer_module, "train", self.train)

    def train(self, samples: list[bytes], codec: Codec) -> bytes | None:
        """Stand for the training."""
        self.trainings.append((len(samples), codec))
        if isinstance(self.trained, Exception):
            raise self.trained
        return self.trained

    def answer(self, words: list[bytes]) -> bytes:
        """Answer a command."""
        if words[0] != b"HEXISTS":
            self.learned_when.append(bool(self.dictionaries.known))
        return self.replies.get(words[0], b"+OK\r\n" if words[0] == b"SET" else b":1\r\n")

    def sample(self, name: str = "small") -> None:
        """Write enough of a class."""
        for _ in range(ENOUGH_SAMPLES * SAMPLE_EVERY):
            self.dictionaries.sample(name, SAMPLE)

    @property
    def asked(self) -> list[list[bytes]]:
        """What Redis was asked, besides whether it still has what is in use."""
        return [words for _, _, words in self.redis.log if words[0] != b"HEXISTS"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the trainer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.trainer.run)
            yield
            nursery.cancel_scope.cancel()

    async def idle(self) -> None:
        """Let it look a few times."""
        await trio.sleep(0.02)


async def test_trainer_without_enough_samples_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few values say little."""
    world = World(monkeypatch, DATA)
    world.dictionaries.sample("small", SAMPLE)
    async with world.running():
        await world.idle()

    assert (world.trainings, world.asked) == ([], [])


async def test_trainer_stores_announces_then_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order, so that nobody meets a value whose dictionary nobody has; it is used a second later."""
    world = World(monkeypatch, DATA)
    world.sample()
    async with world.running():
        await until(lambda: world.dictionaries.known, "it is learnt")
        await world.idle()
    field, value = stored("small", Codec.LZ4, DATA)

    assert world.trainings == [(ENOUGH_SAMPLES, Codec.LZ4)]
    assert world.asked[0][:4] == [b"SET", LEASE_KEY + b"small", b"1", b"NX"]
    assert world.asked[1] == [b"HSET", DICTIONARIES_KEY, field, value]
    assert world.asked[2][:2] == [b"PUBLISH", CHANNEL]
    assert world.asked[3:] == []
    assert world.learned_when == [False, False, False]
    assert world.dictionaries.current("small", world.now) is None
    current = world.dictionaries.current("small", world.now + 1.0)
    assert current is not None
    assert current.id == id_of(DATA)


async def test_trainer_whose_dictionary_does_not_pay_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves the class alone for a while."""
    world = World(monkeypatch, None)
    world.sample()
    async with world.running():
        await until(lambda: world.trainings, "it is trained")
        await world.idle()
        world.sample()
        await world.idle()

    assert (len(world.trainings), len(world.asked), world.dictionaries.known) == (1, 1, {})


async def test_trainer_without_the_lease_leaves_it_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two proxies must not make two of the same; if none comes of it, it is tried again later."""
    world = World(monkeypatch, DATA)
    world.replies[b"SET"] = b"$-1\r\n"
    world.sample()
    async with world.running():
        await until(lambda: world.asked, "the lease was asked for")
        await world.idle()
        assert (world.trainings, len(world.asked), world.dictionaries.known) == ([], 1, {})
        world.replies.clear()
        world.now += 10_000
        await until(lambda: world.dictionaries.known, "it is made here")


@pytest.mark.parametrize("name", [b"SET", b"HSET", b"PUBLISH", b"away"])
async def test_trainer_that_cannot_tell_does_not_use_it(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    """Values would need what others cannot find; later it is tried again, and other classes have their turn."""
    world = World(monkeypatch, DATA)
    if name == b"away":
        world.redis.links.links[0] = None
    world.replies[name] = b"-NOPERM not for you\r\n"
    world.sample()
    async with world.running():
        await until(lambda: name == b"away" or world.asked, "Redis was asked")
        await world.idle()
        assert world.dictionaries.known == {}
        world.replies.clear()
        world.redis.links.links.clear()
        world.sample("other")
        await until(lambda: world.dictionaries.known, "the other class has one")
        assert world.dictionaries.current("small", world.now + 1) is None
        world.now += 10_000
        await until(lambda: world.dictionaries.current("small", world.now + 1), "it has one now")


async def test_trainer_is_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while Redis does not answer."""
    world = World(monkeypatch, DATA)
    monkeypatch.setattr(world.redis, "flush", lambda: None)
    world.sample()
    with trio.fail_after(5):
        async with world.running():
            await until(lambda: world.redis.links.links, "Redis was asked")

    assert world.dictionaries.known == {}


@pytest.mark.parametrize("answer", [b":0\r\n", b":1\r\n", b"-NOPERM not for you\r\n"])
async def test_dictionary_in_use_that_redis_has_lost_is_put_back(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """It was flushed or evicted, or this is another server: values go on being compressed with it."""
    world = World(monkeypatch, None)
    world.dictionaries.learn(id_of(DATA), "small", Codec.LZ4, DATA, world.now)
    world.replies[b"HEXISTS"] = answer
    async with world.running():
        await until(lambda: world.redis.log, "Redis was asked")
        await world.idle()
    field, value = stored("small", Codec.LZ4, DATA)
    look = [b"HEXISTS", DICTIONARIES_KEY, field]

    assert world.redis.log[0][1:] == (0, look)
    if answer != b":0\r\n":
        assert world.asked == []
        return
    assert world.asked[0] == [b"HSET", DICTIONARIES_KEY, field, value]
    assert world.asked[1][:2] == [b"PUBLISH", CHANNEL]
