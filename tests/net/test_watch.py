"""What a server is asked again and again, and what its answers bear."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from proxy.cache.entry import Scope
from proxy.core.tracking import Tracking
from proxy.net.invalidation.watch import (
    ACL_LIST,
    CONFIG_MAX_KEYS,
    DISTRUST_EVERY_S,
    GOVERN_EVERY_S,
    INFO_KEYSPACE,
    INFO_STATS,
    Watch,
)
from proxy.wire.encode import bulk

from ..core.scripted_values import make_engine
from .test_announcements import Control

DENIED = hiredis.ReplyError("NOPERM not for you")


class World:
    """A watch with what it acts on."""

    def __init__(self, *, wanted: Any = "redirect") -> None:
        self.engine = make_engine()
        self.tracking = Tracking(self.engine, wanted=wanted, max_staleness_s=1.0)
        self.tracking.choose(resp3=True, version=(7, 0, 0))
        self.control = Control()
        self.lost: list[str] = []
        self.control.lose = self.lost.append  # type: ignore[attr-defined]
        self.watch = Watch(self.control, self.engine, self.tracking)  # type: ignore[arg-type]
        self.users: list[set[bytes]] = []
        self.watch.on_users = self.users.append
        self.space = self.engine.l1.namespace(Scope(b"u", 0, 2))

    def hold(self) -> None:
        """Have L1 hold something."""
        self.engine.l1.put(self.space, bulk(b"k"), b"$1\r\nv\r\n", 1e9, 0.0)

    def acls(self, reply: Any) -> int:
        """Answer ACL LIST; return how many entries are left."""
        self.hold()
        self.watch.check_acl()
        self.control.answer(ACL_LIST, reply)
        return len(self.engine.l1)


def test_acls_that_change_drop_l1_and_say_which_users_there_are() -> None:
    """So does the first answer, of what was read before it; a refusal says nothing of who there is."""
    world = World()
    one, two = [b"user default on"], [b"user default on", b"user alice on"]

    assert [world.acls(reply) for reply in (one, one, DENIED, one, two, two)] == [0, 1, 0, 1, 0, 1]
    assert world.users == [{b"default", b"alice"}]


def test_acls_that_cannot_be_read_drop_what_users_have_read_now_and_then() -> None:
    """Not what the user of the link itself has read, and not where the server has no users at all."""
    world = World()
    now = world.engine.now
    left = []
    for after_s in (0.0, 1.0, DISTRUST_EVERY_S - 0.1, DISTRUST_EVERY_S, DISTRUST_EVERY_S + 1):
        world.engine.now = now + after_s
        left.append(world.acls(DENIED))
    assert left == [0, 1, 1, 0, 1]

    world.control.own_user = b"u"
    world.engine.now += DISTRUST_EVERY_S
    assert world.acls(DENIED) == 1
    world = World()
    assert world.acls(hiredis.ReplyError("ERR unknown command 'ACL'")) == 1


def test_acls_of_another_link_drop_l1_and_close_nobody() -> None:
    """It may lead to another server; what was read on it before the first look may be what has been taken since."""
    world = World()
    world.acls([b"user default on"])
    world.watch.begin()

    assert world.acls([b"user alice on"]) == 0
    assert world.users == []
    world.watch.begin()
    assert world.acls([b"user alice on"]) == 1


@pytest.mark.parametrize(
    ("reply", "expire"),
    [
        (b"db0:keys=3,expires=0,avg_ttl=0,subexpiry=0\r\n", False),
        (b"db0:keys=3,expires=0,avg_ttl=0,subexpiry=2\r\n", True),
        (b"db0:keys=3,expires=0,keys_with_volatile_items=12\r\n", True),
        (b"", False),
        (DENIED, True),
    ],
)
def test_fields_that_expire_are_not_kept(reply: Any, expire: bool) -> None:
    """Who may not ask knows nothing."""
    world = World()
    world.watch.has_field_expiry = True
    world.watch.begin()
    assert world.engine.fields_expire
    world.watch.turn()
    world.control.answer(INFO_KEYSPACE, reply)

    assert world.engine.fields_expire is expire


def test_fields_are_not_asked_for_where_they_cannot_expire() -> None:
    """An older server."""
    world = World()
    world.watch.begin()
    world.watch.turn()

    assert [raw for raw, _ in world.control.asked] == [ACL_LIST]
    assert not world.engine.fields_expire


def begun(world: World, limit: Any = (b"tracking-table-max-keys", b"1000")) -> World:
    """Begin to govern a table of that size."""
    world.watch.begin_governing()
    world.control.answer(CONFIG_MAX_KEYS, list(limit) if isinstance(limit, tuple) else limit)
    return world


def test_governor_is_asked_when_it_is_due() -> None:
    """Not with each PING."""
    world = begun(World())
    world.watch.turn_governor()
    assert world.control.asked == []
    world.engine.now += GOVERN_EVERY_S
    world.watch.turn_governor()
    world.watch.turn_governor()

    assert [raw for raw, _ in world.control.asked] == [INFO_STATS]


def test_governor_narrows_what_is_tracked_once() -> None:
    """A full table: what is read once is not kept, and the link begins anew."""
    world = begun(World())
    full = b"tracking_total_keys:1000\r\ntracking_clients:1\r\n"
    for _ in range(10):
        world.engine.now += GOVERN_EVERY_S
        world.watch.turn_governor()
        world.control.answer(INFO_STATS, full)

    assert (world.tracking.narrowed, world.engine.l1.admit, len(world.lost)) == (True, "second_read", 1)


@pytest.mark.parametrize("reply", [DENIED, None, b"", b"tracking_total_keys:1\r\n"])
def test_governor_leaves_a_table_that_is_not_full(reply: Any) -> None:
    """And one that it may not ask about."""
    world = begun(World(), DENIED if isinstance(reply, hiredis.ReplyError) else (b"tracking-table-max-keys", b"1000"))
    for _ in range(5):
        world.engine.now += GOVERN_EVERY_S
        world.watch.turn_governor()
        world.control.answer(INFO_STATS, reply)

    assert (world.tracking.narrowed, world.lost) == (False, [])


def test_governor_asks_nothing_where_redis_keeps_no_table_for_us() -> None:
    """Broadcast mode, or none."""
    world = World(wanted="broadcast")
    world.watch.begin_governing()
    world.engine.now += 10 * GOVERN_EVERY_S
    world.watch.turn_governor()

    assert world.control.asked == []
