"""What becomes of an event that could not be applied: a copy of it goes to another queue, then it is acknowledged.

    failed      --> QUEUE.retry.1000ms, then .2000ms, ..   with the number of the retry, and when it is due
    no use      --> the dead letter queue                  with the reason
                        |
                        copy confirmed by the broker --> done(), which acknowledges the original
                        |
                        it closes the channel over it --> once more, bare --> refused(), which rejects the original

Owns copies and their headers, and the outbox that publishes them. It has a connection of its own: a broker short of
memory reads no further from a connection that publishes, and acknowledgements must go on. A stop at any point leaves
the original, the copy, or both; never neither. Copies last (delivery mode 2) whatever the original said, and do not
expire as it would have. An original whose copy the broker takes by no means is rejected, for others wait behind it: the
broker moves it to the dead letters, from a retry queue by way of QUEUE.
Source: RabbitMQ, "Publisher Confirms", "Memory and Disk Alarms", "Sender-selected Distribution".
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs
import trio
from pamqp.commands import Basic

from proxy.amqp.channel import Channel, Delivery, Outgoing
from proxy.amqp.connection import Connection
from proxy.amqp.fields import write_properties
from proxy.amqp.frames import FRAME_MIN
from proxy.amqp.letters import ATTEMPT, EXCHANGE, REASON, ROUTING_KEY, message_of, name_in
from proxy.amqp.topology import PRECONDITION_FAILED, explained
from proxy.errors import AmqpError, ChannelClosedError, PublishRefusedError
from proxy.events.message import Message
from proxy.log import get_logger

DUE: Final = "respite-due-at-ms"
_OURS: Final = frozenset({ATTEMPT, DUE, REASON, ROUTING_KEY, EXCHANGE})

_LASTING: Final = 2
# Sent on, these would have the broker deliver copies to more queues, or take the message for one that runs in circles.
_NOT_SENT_ON: Final = frozenset({"CC", "BCC", "x-delivery-count", "x-acquired-count", ATTEMPT, DUE})
_DEATHS: Final = ("x-death", "x-first-death-", "x-last-death-")
_UNCLAIMED_MS: Final = 60_000  # nobody has taken it for so long beyond its time: back to QUEUE with it
_MOST_REASON: Final = 500  # characters; a reason quotes what it complains of
_MOST_PROPERTIES: Final = 64 << 10  # bytes; all of them have to fit into one frame
_BARE_AFTER: Final = 3  # refusals in a row
_BATCH: Final = 100
_BATCH_BYTES: Final = 4 << 20
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
log = get_logger("events")


@attrs.frozen
class Origin:
    """Where a message was published, and how often it has been tried again since."""

    exchange: str
    routing_key: str
    attempt: int = 0


def origin_of(delivery: Delivery) -> Origin:
    """Return where a delivery comes from. What comes through the default exchange may be a copy, and says so itself."""
    headers = delivery.properties.headers or {}
    attempt = headers.get(ATTEMPT)
    attempt = attempt if type(attempt) is int and attempt > 0 else 0
    routing_key, exchange = headers.get(ROUTING_KEY), headers.get(EXCHANGE, "")
    if delivery.exchange or not isinstance(routing_key, str | bytes) or not isinstance(exchange, str | bytes):
        return Origin(delivery.exchange, delivery.routing_key)
    return Origin(name_in(exchange), name_in(routing_key), attempt)


def published(delivery: Delivery) -> Message:
    """Return the message as it was published, whatever queues it has been through."""
    message = message_of(delivery)
    if delivery.exchange:
        return message
    return attrs.evolve(message, routing_key=origin_of(delivery).routing_key)


def due_at_ms(delivery: Delivery) -> int:
    """Return when it is to be tried again, in ms since 1970; 0 (at once) where it does not say."""
    due = (delivery.properties.headers or {}).get(DUE)
    return due if type(due) is int else 0


def retry_copy(delivery: Delivery, queue: str, *, reason: str, delay_ms: int, now_ms: int) -> Outgoing:
    """Return what to publish so that it is tried once more after `delay_ms`."""
    origin = origin_of(delivery)
    ours = {ATTEMPT: origin.attempt + 1, DUE: now_ms + delay_ms}
    return _copy(delivery, origin, queue, reason=reason, ours=ours, expiration=str(delay_ms + _UNCLAIMED_MS))


def dead_copy(delivery: Delivery, queue: str, *, reason: str) -> Outgoing:
    """Return what to publish so that people find it among the dead letters."""
    origin = origin_of(delivery)
    ours = {ATTEMPT: origin.attempt} if origin.attempt else {}
    return _copy(delivery, origin, queue, reason=reason, ours=ours, expiration=None)


def _copy(
    delivery: Delivery, origin: Origin, queue: str, *, reason: str, ours: dict[str, Any], expiration: str | None
) -> Outgoing:
    properties = copy.copy(delivery.properties)
    properties.delivery_mode = _LASTING
    properties.expiration = expiration
    # The broker refuses, and closes the channel, where it is not the user of the connection.
    properties.user_id = None
    properties.cluster_id = ""
    ours |= {REASON: reason[:_MOST_REASON], ROUTING_KEY: origin.routing_key, EXCHANGE: origin.exchange}
    theirs = {
        name: value
        for name, value in (delivery.properties.headers or {}).items()
        if name not in _NOT_SENT_ON and not name.startswith(_DEATHS)
    }
    properties.headers = theirs | ours
    outgoing = Outgoing("", queue, delivery.body, properties, mandatory=True)
    return outgoing if _size(properties) <= _MOST_PROPERTIES else bare(outgoing)


def bare(outgoing: Outgoing) -> Outgoing:
    """Return the same message with our headers only, for properties that are too large or cannot be written."""
    given = outgoing.properties
    headers = {name: value for name, value in (given.headers or {}).items() if name in _OURS}
    properties = Basic.Properties(
        content_type=given.content_type,
        content_encoding=given.content_encoding,
        headers=headers,
        delivery_mode=_LASTING,
        expiration=given.expiration,
    )
    return attrs.evolve(outgoing, properties=properties)


def _size(properties: Basic.Properties) -> int:
    """Return their size in bytes; of those that cannot be written, more than any broker takes."""
    try:
        return len(write_properties(properties))
    except ValueError:
        return _MOST_PROPERTIES + 1


@attrs.define
class _Item:
    outgoing: Outgoing
    done: Callable[[], None]
    refused: Callable[[str], None]
    refusals: int = 0
    is_bare: bool = False

    def strip(self) -> None:
        """Send it with our headers only from now on."""
        self.outgoing, self.is_bare = bare(self.outgoing), True


class Outbox:
    """Publishes copies, each until it is confirmed. Bounded by the prefetch: originals stay unacknowledged."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
        mend: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Connect by `connect` once there is something to publish; `mend` declares the queues anew."""
        self._connection: Connection | None = None
        self._connect = connect
        self._mend = mend
        self._items: deque[_Item] = deque()
        self._filled = trio.Event()
        self._failures = 0
        self.trouble = ""
        """Why failed events cannot be put aside, for a person; "" while they can, as far as is known."""
        self._doubtful = 0  # so many at the front are published one by one: the broker closes the channel over one

    def __len__(self) -> int:
        return len(self._items)

    @property
    def blocked_reason(self) -> str:
        """Why the broker takes nothing now, "" while it does."""
        return "" if self._connection is None else self._connection.blocked_reason

    def put(self, outgoing: Outgoing, done: Callable[[], None], refused: Callable[[str], None]) -> None:
        """Have it published; `done` is called once the broker has confirmed it.

        `refused` is called instead, with its reason, where the broker closes the channel over this very message:
        it is larger than a broker takes that was configured anew, say.
        """
        self._items.append(_Item(outgoing, done, refused))
        self._filled.set()

    async def run(self) -> None:
        """Serve until cancelled; what is not confirmed then has not been acknowledged either."""
        while True:
            await self._wait_filled()
            why: AmqpError | None = None
            try:
                async with self._connect() as self._connection:
                    await self._serve(self._connection)
            except* AmqpError as group:
                why = first_of(group)
            finally:
                self._connection = None
            if isinstance(why, ChannelClosedError):
                why = explained(why)
            self._show(why)
            await self._pause()

    async def _serve(self, connection: Connection) -> None:
        channel = await connection.channel()
        while True:
            await self._wait_filled()
            batch = self._take()
            try:
                refused = await self._publish(channel, batch)
            except ChannelClosedError as exc:
                if exc.code != PRECONDITION_FAILED:
                    raise
                self._doubt(batch, exc.text)
                channel = await connection.channel()
                continue
            finally:
                # Whatever ended it: what is not confirmed is still to be done.
                self._items.extendleft(reversed(batch))
            if refused is None:
                if self._failures:
                    log.info("failed events are put aside again")
                self._failures, self.trouble = 0, ""
                continue
            self._show(refused)
            await self._pause()
            await self._mend(connection)

    def _show(self, why: AmqpError | None) -> None:
        """Show why it does not go on; log it the first time."""
        self.trouble = f"failed events cannot be put aside: {why}"
        if not self._failures:
            log.warning("failed events cannot be put aside", why=str(why))

    async def _publish(self, channel: Channel, batch: list[_Item]) -> PublishRefusedError | None:
        """Publish; takes what is confirmed out of `batch`. Returns why the first of the rest was refused."""
        results = await channel.publish_all([item.outgoing for item in batch])
        why = None
        left = []
        for item, refused in zip(batch, results, strict=True):
            if refused is None:
                item.done()
                continue
            why = why or refused
            item.refusals += 1
            if item.refusals == _BARE_AFTER and _size(item.outgoing.properties) > FRAME_MIN // 2:
                item.strip()  # a broker whose frames are smaller than others'
            left.append(item)
        batch[:] = left
        return why

    def _doubt(self, batch: list[_Item], why: str) -> None:
        """Find which of a batch the broker closes the channel over, and do without its copy."""
        if len(batch) > 1:
            self._doubtful = len(batch)
        elif not batch[0].is_bare:
            self._doubtful += 1
            batch[0].strip()
        else:
            batch.pop().refused(why)

    def _take(self) -> list[_Item]:
        batch = [self._items.popleft()]
        if self._doubtful:
            self._doubtful -= 1
            return batch
        size = len(batch[0].outgoing.body)
        while (
            self._items and len(batch) < _BATCH and (size := size + len(self._items[0].outgoing.body)) <= _BATCH_BYTES
        ):
            batch.append(self._items.popleft())
        return batch

    async def _wait_filled(self) -> None:
        if not self._items:
            self._filled = trio.Event()
            await self._filled.wait()

    async def _pause(self) -> None:
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE_S)
        self._failures += 1
        await trio.sleep(pause_s)


def first_of(group: BaseExceptionGroup[AmqpError]) -> AmqpError:
    """Return one of the errors in a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AmqpError)
    return error
