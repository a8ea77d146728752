"""The dead letters as somebody at a terminal handles them: look through them, send them again, throw them away.

    get --letter--> is it meant? --yes--> a step: note it | publish it again, confirmed | nothing --> ack, or leave it
                              '---no---> held, and at the end given back, each to its place

Synchronous functions around a trio run of their own, for callers that block; each opens one connection and closes it.
Nothing is acknowledged before it is safe where it goes: whatever ends a command, a letter is in the dead letter queue,
or was sent, or (where the connection is lost between the two) both. A letter is got one by one and its body let go at
once, so that a long queue of large bodies fits into memory. The first SIGINT or SIGTERM stops between two letters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio
from pamqp.commands import Basic

from proxy.amqp.channel import Channel
from proxy.amqp.connection import Connection
from proxy.amqp.deliveries import Delivery
from proxy.amqp.errand import DeskError, Stop, connected, launch
from proxy.amqp.frames import Outgoing
from proxy.amqp.letters import Letter, Selection, fresh_headers, read_letter
from proxy.config.model import Amqp
from proxy.errors import AmqpError, ChannelClosedError

__all__ = ["DeskError", "Letter", "Listing", "Selection", "Tally", "drop", "fetch_letter", "list_letters", "replay"]

# Confirms of a healthy broker take milliseconds, of one with a slow disk a second.
_CONFIRM_TIMEOUT_S: Final = 15.0
_MOST_AT_ONCE: Final = 64
_ENOUGH_BYTES: Final = 4 << 20
_NAMED: Final = 10
_PERSISTENT: Final = 2
# Not the user: the broker refuses one that is not who publishes. Not the expiration, which is over.
_KEPT: Final = (
    *("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "timestamp"),
    *("message_type", "app_id"),
)
_NOT_FOUND: Final = 404


@attrs.frozen
class Listing:
    """Letters that were looked at and stay where they are, without their bodies; how many there are in all."""

    letters: tuple[Letter, ...]
    total: int


@attrs.define
class Tally:
    """What became of a selection so far."""

    total: int = 0
    """How many letters the queue held."""
    last: int = 0
    """The place after which none is meant."""
    seen: int = 0
    chosen: int = 0
    done: int = 0
    refused: int = 0
    """The broker would not take them; they are still in the queue."""
    reasons: list[tuple[Letter, str]] = attrs.field(factory=list)
    """The first of those, and why."""
    is_finished: bool = False
    """False: stopped by a signal; what is not done is in the queue."""


Show = Callable[[Tally], None]


def list_letters(amqp: Amqp, selection: Selection, show: Show) -> Listing:
    """Return the letters that are meant, oldest first. Raises DeskError; KeyboardInterrupt when stopped."""
    letters: list[Letter] = []
    tally = _run(amqp, selection, _noting(lambda letter: letters.append(_without_body(letter))), show)
    if not tally.is_finished:
        raise KeyboardInterrupt
    return Listing(tuple(letters), tally.total)


def fetch_letter(amqp: Amqp, selection: Selection, show: Show) -> Letter | None:
    """Return the first letter that is meant, with its body, None when none is. Raises as `list_letters` does."""
    letters: list[Letter] = []
    tally = _run(amqp, attrs.evolve(selection, most=1), _noting(letters.append), show)
    if not tally.is_finished:
        raise KeyboardInterrupt
    return letters[0] if letters else None


def replay(amqp: Amqp, selection: Selection, show: Show) -> Tally:
    """Publish letters again with a fresh count of attempts, and take them out of the queue once that is confirmed.

    Shared, they go to the queue they came from; broadcast, to the exchange, for every sidecar. Those that die while
    this runs are not taken again. Raises DeskError; its text says how many are done.
    """

    async def send(connection: Connection, channel: Channel, held: Sequence[_Held]) -> list[str]:
        outgoing = [_outgoing(amqp, letter, delivery) for letter, delivery in held if not letter.fault]
        with trio.move_on_after(_CONFIRM_TIMEOUT_S):
            results = iter(await channel.publish_all(outgoing))
            # A letter whose content did not come would be sent as an empty one.
            fates = [letter.fault or next(results) or _GONE for letter, _ in held]
            return [str(fate) for fate in fates]
        why = f": {connection.blocked_reason or 'it is blocked'}" if connection.is_blocked else ""
        raise DeskError(f"the broker has not confirmed within {_CONFIRM_TIMEOUT_S:g} s{why}")

    return _run(amqp, selection, send, show)


def drop(amqp: Amqp, selection: Selection, show: Show) -> Tally:
    """Take letters out of the queue for good. Raises DeskError; its text says how many are gone."""

    async def forget(_connection: Connection, _channel: Channel, held: Sequence[_Held]) -> list[str]:
        return [_GONE] * len(held)

    return _run(amqp, selection, forget, show)


_Held = tuple[Letter, Delivery]
# What a step says of a letter: it may go, or it stays; any other text is why it stays though it was meant to go.
_GONE: Final = "gone"
_STAYS: Final = "stays"
_Step = Callable[[Connection, Channel, Sequence[_Held]], Awaitable[list[str]]]


def _noting(note: Callable[[Letter], None]) -> _Step:
    async def step(_connection: Connection, _channel: Channel, held: Sequence[_Held]) -> list[str]:
        for letter, _ in held:
            note(letter)
        return [_STAYS] * len(held)

    return step


def _run(amqp: Amqp, selection: Selection, step: _Step, show: Show) -> Tally:
    tally = Tally()

    async def errand(stop: Stop) -> None:
        async with connected(amqp) as connection:
            stop.is_gentle = True
            await _Round(amqp.dead_letter_queue, selection, step, show, tally, stop).go(connection)

    try:
        launch(errand)
    except ChannelClosedError as exc:
        raise DeskError(_refusal(exc, amqp) + _so_far(tally)) from exc
    except (AmqpError, DeskError) as exc:
        raise DeskError(f"{exc}{_so_far(tally)}") from exc
    return tally


@attrs.define
class _Round:
    """Goes through a queue from its front, once, no further than it reached when it began."""

    _queue: str
    _selection: Selection
    _step: _Step
    _show: Show
    _tally: Tally
    _stop: Stop
    _at_once: int = 4
    """How many letters are asked for at a time: more as long as they are small."""

    async def go(self, connection: Connection) -> None:
        """Do it. Raises AmqpError, DeskError; what is held then goes back to the queue with the connection."""
        tally = self._tally
        channel = await connection.channel()
        queue = await channel.declare_queue(self._queue, passive=True)
        tally.total, tally.last = queue.messages, self._selection.last(queue.messages)
        while not self._is_at_end and not self._stop.is_asked:
            deliveries = await self._get(channel, min(self._at_once, tally.last - tally.seen))
            if not deliveries:  # somebody else took letters meanwhile
                break
            await self._settle(connection, channel, self._chosen(deliveries))
            self._show(tally)
        tally.is_finished = not self._stop.is_asked
        # Closing gives back what is held, all in one go. Rejected one by one, of letters that were got and not
        # consumed, RabbitMQ puts each back by itself: 10,000 of them take it a minute.
        await channel.close()

    @property
    def _is_at_end(self) -> bool:
        tally = self._tally
        return tally.seen >= tally.last or tally.chosen == self._selection.most

    async def _get(self, channel: Channel, count: int) -> list[Delivery]:
        """Get so many letters in one round trip, in the order of the queue; fewer at its end.

        Not by a consumer: that would throw away a letter whose content cannot be taken.
        """
        deliveries: list[Delivery] = []

        async def get() -> None:
            if delivery := await channel.get(self._queue):
                deliveries.append(delivery)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(get)
        size = sum(len(delivery.body) for delivery in deliveries)
        self._at_once = min(2 * self._at_once, _MOST_AT_ONCE) if size < _ENOUGH_BYTES else max(self._at_once // 4, 1)
        return sorted(deliveries, key=lambda delivery: delivery.tag)

    def _chosen(self, deliveries: Sequence[Delivery]) -> list[_Held]:
        tally, chosen = self._tally, []
        for delivery in deliveries:
            tally.seen += 1
            letter = read_letter(tally.seen, delivery)
            if tally.chosen != self._selection.most and self._selection.takes(letter):
                tally.chosen += 1
                chosen.append((letter, delivery))
        return chosen

    async def _settle(self, connection: Connection, channel: Channel, chosen: Sequence[_Held]) -> None:
        if not chosen:
            return
        for (letter, delivery), fate in zip(chosen, await self._step(connection, channel, chosen), strict=True):
            if fate == _GONE:
                channel.ack(delivery.tag)
                self._tally.done += 1
            elif fate != _STAYS:
                self._tally.refused += 1
                if len(self._tally.reasons) < _NAMED:
                    self._tally.reasons.append((_without_body(letter), fate))


def _outgoing(amqp: Amqp, letter: Letter, delivery: Delivery) -> Outgoing:
    """Address a letter to where it came from; the broker must find a queue for it, or it stays."""
    properties = _copied(delivery.properties, fresh_headers(letter))
    if amqp.delivery == "broadcast":
        return Outgoing(
            letter.exchange or amqp.exchange, letter.message.routing_key, delivery.body, properties, mandatory=True
        )
    return Outgoing("", amqp.queue, delivery.body, properties, mandatory=True)


def _copied(properties: Basic.Properties, headers: dict[str, Any]) -> Basic.Properties:
    """Copy all that the publisher said; persistent, for a queue that is durable, and without an end of its own."""
    copy = Basic.Properties(headers=headers, delivery_mode=_PERSISTENT)
    for name in _KEPT:
        setattr(copy, name, getattr(properties, name))
    return copy


def _without_body(letter: Letter) -> Letter:
    return attrs.evolve(letter, message=attrs.evolve(letter.message, body=b""))


def _refusal(error: ChannelClosedError, amqp: Amqp) -> str:
    if error.code == _NOT_FOUND and "no queue" in error.text:
        return (
            f"the broker has no queue {amqp.dead_letter_queue}: no proxy has connected to it yet, "
            f"or amqp.dead_letter_queue or the vhost of amqp.url is another"
        )
    return f"the broker refused: {error}"


def _so_far(tally: Tally) -> str:
    return f"; {tally.done:,} done before that, the rest is still in the queue" if tally.done else ""
