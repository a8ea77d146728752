"""Links that meet a value whose dictionary is not known: they wait, in order, and go on whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable

import lz4.block
import pytest

from proxy.core.session import Identity
from proxy.core.slots import Slot
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.net.links.link import Link
from proxy.net.links.openers import Openers
from proxy.net.links.pinned import PinnedLink, Place
from proxy.net.reactor import READ
from proxy.values.dictionary import Dictionaries, id_of
from proxy.values.envelope import Codec, Header, wrap
from proxy.values.stream import Lookalikes
from proxy.wire.encode import bulk

from ..core.scripted_slots import ScriptedClient
from .conftest import Bugs
from .scripted import Harness, ScriptedStream

WORDS = b'{"state": "open", "owner": "somebody"}'
OTHER = b"another dictionary altogether"
VALUE = b'{"state": "open", "owner": "somebody", "id": 1}'
pytestmark = pytest.mark.usefixtures("bugs")


def sealed(value: bytes = VALUE, dictionary: bytes = WORDS) -> bytes:
    """Write the frame of a value that needs a dictionary."""
    body = lz4.block.compress(value, store_size=False, dict=dictionary)
    return bulk(wrap(value, 0, codec=Codec.LZ4, body=body, dictionary=id_of(dictionary)))


class Numbered(ScriptedStream):
    """A socket with a descriptor of its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def fileno(self) -> int:
        """Give it."""
        return self.number


class World(Harness):
    """Links whose openers share dictionaries; `asked` are those that Redis is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.dictionaries = Dictionaries()
        self.opened: list[Header] = []
        self.openers = Openers(self.dictionaries, lambda header, _: self.opened.append(header), Lookalikes())
        self.asked: list[int] = []
        self.openers.ask = self.asked.append
        self.reactor.openers = self.openers
        self.link = self.make(lambda _, why: self.lost.append(why))
        self.attached()
        self.others = 0

    def another(self) -> Other:
        """Make a second link."""
        self.others += 1
        return Other(self, 100 + self.others)

    def learn(self, dictionary: bytes = WORDS) -> None:
        """Have Redis answer with a dictionary."""
        self.dictionaries.learn(id_of(dictionary), "c", Codec.LZ4, dictionary, 0.0)
        self.openers.learned(id_of(dictionary))

    def ask_many(self, number: int) -> None:
        """Have the client ask for so many replies."""
        for _ in range(number):
            self.ask(b"x")
        self.reactor.flush()

    @property
    def is_read(self) -> bool:
        """Return whether the link's socket is watched for what comes."""
        return bool(self.poller.masks.get(7, 0) & READ)


class Other:
    """A second link with its stream and client."""

    def __init__(self, world: World, number: int) -> None:
        self.link: Link = world.make(lambda *_: None)
        self.stream = Numbered(number)
        self.link.attach(self.stream)
        self.client = ScriptedClient()
        self.slot = Slot(self.client)
        self.client.owe(self.slot)
        self.link.submit(b"x", self.slot)

    def receive(self, data: bytes) -> None:
        """Let data come."""
        self.stream.incoming.append(data)
        self.link.on_event(READ)


def test_openers_known_dictionary_opens_at_once() -> None:
    """Nobody is asked, nothing waits."""
    world = World()
    world.learn()
    world.ask_many(1)
    world.turn(sealed())

    assert (world.client.received, world.asked) == (bulk(VALUE), [])
    assert [header.dictionary for header in world.opened] == [id_of(WORDS)]


def test_link_waits_for_an_unknown_dictionary() -> None:
    """What came before it is landed, the link is read no further; then the rest follows in order."""
    world = World()
    world.ask_many(4)
    world.turn(b":1\r\n" + sealed() + b":2\r\n" + bulk(b"x"))
    assert (world.client.received, world.asked) == (b":1\r\n", [id_of(WORDS)])
    assert world.link.paused
    assert not world.is_read
    world.learn()

    assert world.client.received == b":1\r\n" + bulk(VALUE) + b":2\r\n" + bulk(b"x")
    assert not world.link.paused
    assert world.is_read
    assert world.lost == []


def test_link_waits_inside_an_array() -> None:
    """At any depth, at any cut."""
    frame = b"*3\r\n" + bulk(b"a") + sealed() + b"*2\r\n:1\r\n" + sealed() + b"+OK\r\n"
    plain = b"*3\r\n" + bulk(b"a") + bulk(VALUE) + b"*2\r\n:1\r\n" + bulk(VALUE) + b"+OK\r\n"
    for at in range(1, len(frame)):
        world = World()
        world.ask_many(2)
        world.turn(frame[:at])
        if not world.link.paused:
            world.turn(frame[at:])
            world.learn()
        else:
            world.learn()
            world.turn(frame[at:])
        assert world.client.received == plain, at
        assert world.lost == []


def test_links_that_wait_for_the_same_dictionary_ask_once() -> None:
    """All go on when it comes."""
    world = World()
    others = [world.another(), world.another()]
    world.ask_many(1)
    world.turn(sealed())
    for other in others:
        other.receive(sealed())
    assert world.asked == [id_of(WORDS)]
    world.learn()

    assert [world.client.received, *(other.client.received for other in others)] == [bulk(VALUE)] * 3
    assert not any(other.link.paused for other in others)


def test_link_that_needs_two_dictionaries_waits_for_each() -> None:
    """One after the other, in the order of its replies."""
    world = World()
    world.ask_many(3)
    world.turn(sealed() + b":1\r\n" + sealed(OTHER, OTHER))
    assert world.asked == [id_of(WORDS)]
    world.learn()
    assert (world.client.received, world.asked) == (bulk(VALUE) + b":1\r\n", [id_of(WORDS), id_of(OTHER)])
    assert not world.is_read
    world.learn(OTHER)

    assert world.client.received == bulk(VALUE) + b":1\r\n" + bulk(OTHER)
    assert world.is_read


def test_link_whose_dictionary_is_lost_hands_on_what_is_stored() -> None:
    """Who knows the key says that the value is damaged; the same dictionary is not waited for again."""
    world = World()
    world.ask_many(3)
    world.turn(sealed() + b":1\r\n")
    world.dictionaries.lost(id_of(WORDS))
    world.openers.learned(id_of(WORDS))
    world.turn(sealed())

    assert world.client.received == sealed() + b":1\r\n" + sealed()
    assert (world.asked, world.opened, world.lost) == ([id_of(WORDS)], [], [])


def test_link_goes_on_when_whoever_was_asked_dies() -> None:
    """The invalidation link is gone: all waits end, of all dictionaries."""
    world = World()
    other = world.another()
    world.ask_many(2)
    world.turn(sealed() + b":1\r\n")
    other.receive(sealed(OTHER, OTHER))
    world.openers.lost()

    assert world.client.received == sealed() + b":1\r\n"
    assert other.client.received == sealed(OTHER, OTHER)
    assert world.is_read


def test_link_answered_at_once_keeps_the_order_of_its_replies() -> None:
    """Nobody can be asked: what came before the value is landed before it all the same."""
    world = World()
    world.openers.ask = world.openers.learned
    world.ask_many(4)
    world.turn(b":1\r\n" + sealed() + b":2\r\n" + sealed(OTHER, OTHER))

    assert world.client.received == b":1\r\n" + sealed() + b":2\r\n" + sealed(OTHER, OTHER)
    assert world.is_read


def test_link_answered_at_once_with_the_dictionary_keeps_the_order() -> None:
    """In the middle of an array, too."""
    world = World()

    def ask(dictionary: int) -> None:
        world.learn()

    world.openers.ask = ask
    world.ask_many(2)
    world.turn(b"*2\r\n:1\r\n" + sealed() + b":2\r\n")

    assert world.client.received == b"*2\r\n:1\r\n" + bulk(VALUE) + b":2\r\n"


def test_dictionary_that_arrives_does_not_wake_a_link_that_a_slow_client_holds_up() -> None:
    """It is read again when the client has taken what it was sent."""
    world = World()
    world.ask_many(2)
    world.turn(sealed() + b":1\r\n")
    world.link.pause()
    world.learn()
    assert world.client.received == bulk(VALUE) + b":1\r\n"
    assert world.link.paused
    assert not world.is_read
    world.link.resume()

    assert not world.link.paused
    assert world.is_read


def test_slow_client_that_has_taken_its_reply_does_not_end_the_wait() -> None:
    """Nothing is read before the dictionary has come."""
    world = World()
    world.ask_many(1)
    world.link.pause()
    world.turn(sealed())
    world.link.resume()
    assert world.link.paused
    assert not world.is_read
    world.learn()

    assert world.client.received == bulk(VALUE)
    assert world.is_read


def test_link_woken_while_it_waits_keeps_what_comes() -> None:
    """Readiness that was told of before the pause."""
    world = World()
    world.ask_many(3)
    world.turn(sealed())
    world.turn(b":1\r\n", sealed())
    assert world.client.received == b""
    world.learn()

    assert world.client.received == bulk(VALUE) + b":1\r\n" + bulk(VALUE)
    assert world.is_read


def test_link_lost_while_it_waits_answers_everybody_once() -> None:
    """The dictionary that comes later finds nobody, and those who wait with it go on."""
    world = World()
    other = world.another()
    world.ask_many(2)
    world.turn(sealed())
    other.receive(sealed())
    world.link.on_event(0x10)  # the peer has hung up
    assert world.client.received == UPSTREAM_UNAVAILABLE * 2
    assert len(world.lost) == 1
    world.learn()

    assert world.client.received == UPSTREAM_UNAVAILABLE * 2
    assert other.client.received == bulk(VALUE)


def test_link_lost_by_what_came_before_its_value_asks_nobody() -> None:
    """It has nothing to wait for any more."""
    world = World()

    class Last(Slot):
        def fill(self, reply: bytes) -> None:
            world.link.lose("enough")

    world.link.submit(b"x", Last(None))
    world.ask_many(1)
    world.turn(b":1\r\n" + sealed())

    assert (world.asked, world.link.paused, world.lost) == ([], False, ["enough"])


def test_link_that_finds_nonsense_behind_its_wait_is_lost() -> None:
    """As if it had come at once."""
    world = World()
    world.ask_many(2)
    world.turn(sealed() + b"nonsense\r\n")
    world.learn()

    assert world.client.received == bulk(VALUE) + UPSTREAM_UNAVAILABLE
    assert len(world.lost) == 1


def test_link_that_stumbles_over_its_value_takes_nobody_with_it(bugs: Bugs) -> None:
    """A mistake of ours in one link's reply: the others who waited are served."""

    class Broken(Slot):
        def fill(self, reply: bytes) -> None:
            raise RuntimeError(reply)

    world = World()
    other = world.another()
    world.link.submit(b"x", Broken(None))
    world.reactor.flush()
    world.turn(sealed())
    other.receive(sealed())
    world.learn()

    assert world.lost == ["internal error"]
    assert other.client.received == bulk(VALUE)
    assert len(bugs.seen) == 1
    bugs.seen.clear()


def test_fetch_again_while_all_go_on_asks_anew() -> None:
    """Who comes back from a wait may need the same again."""
    world = World()
    heard: list[int] = []

    def again() -> None:
        heard.append(1)
        if len(heard) < 3:
            world.openers.fetch(5, again)

    world.openers.fetch(5, again)
    for _ in range(4):
        world.openers.learned(5)

    assert (world.asked, len(heard)) == ([5, 5, 5], 3)


class Holder:
    """Takes what is out of band."""

    def __init__(self) -> None:
        self.seen = b""
        self.acknowledged: Callable[[], None] = lambda: None
        self.pin_quiet: Callable[[], None] = lambda: None
        self.pin_lost: Callable[[str], None] = lambda _: None

    def out_of_band(self, frame: bytes, before: Slot | None) -> None:
        """Keep it."""
        self.seen += frame


def test_pinned_link_in_stream_mode_opens_nothing() -> None:
    """What MONITOR or a dump says is no reply; before and in other modes values are opened as anywhere."""
    world = World()
    link = PinnedLink(world.reactor, world.stats, Place(Identity(b"", b""), 0, 2), lambda *_: None)
    stream, holder, slot = Numbered(50), Holder(), Slot(None)
    link.holder = holder
    link.attach(stream)
    world.learn()
    link.submit(b"x", slot)
    stream.incoming.append(sealed())
    link.on_event(READ)
    link.state.stream = True
    stream.incoming.append(sealed() + sealed(OTHER, OTHER))
    link.on_event(READ)

    assert slot.reply == bulk(VALUE)
    assert holder.seen == sealed() + sealed(OTHER, OTHER)
    assert not link.paused
