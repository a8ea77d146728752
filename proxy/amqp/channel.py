"""A channel: one line of questions and answers with the broker, in order, beside others on the same connection.

    call --> FIFO of calls --> writer            Deliver, header, body... --> Content --> Consumer | the call (get)
    reply <-- head of FIFO <-- take_method       Ack, Nack, Return --> Confirms --> Batch

A call that is cancelled keeps its place in the FIFO, so that its late reply goes to nobody else; what that reply
brings (a message, a consumer) is given back. What the broker refuses ends the channel, never the connection.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs
import trio
from pamqp import base, commands

from proxy.amqp import frames
from proxy.amqp.calls import Call, Calls
from proxy.amqp.confirms import Batch, Confirms
from proxy.amqp.deliveries import MAX_BODY_BYTES, Consumer, Content, Delivery, Waiting
from proxy.amqp.frames import Deliver, FrameFaultError, GetOk, Outgoing, Returned
from proxy.amqp.writer import Writer
from proxy.errors import AmqpError, ChannelClosedError, ConnectionLostError, ConsumerCancelledError, PublishRefusedError

__all__ = ["Channel", "Consumer", "Delivery", "Outgoing", "QueueState"]

CALL_S: Final = 30.0  # a broker that is alive answers in a second, one that recovers its queues in a few
CONFIRM_S: Final = 60.0  # it confirms what is on its disk, of a batch that may be large
PUBLISHED_A_TURN: Final = 32  # messages written before others get their turn


@attrs.frozen
class QueueState:
    """A queue as the broker knows it: messages that nobody has yet, and consumers."""

    name: str
    messages: int
    consumers: int


class Channel:
    """One channel. Every method raises ChannelClosedError once it is closed, ConnectionLostError once that is lost.

    Any call may be cancelled at any time; whether the broker has done it is then unknown.
    """

    def __init__(
        self, number: int, writer: Writer, waiting: Waiting, *, frame_max: int, on_gone: Callable[[int], None]
    ) -> None:
        self.number = number
        self._writer = writer
        self._waiting = waiting
        self._frame_max = frame_max
        self._on_gone = on_gone
        self._calls = Calls()
        self._content: Content | None = None
        self._get: Call | None = None
        self._consumers: dict[str, Consumer] = {}
        self._consumer_number = 0
        self._confirms = Confirms()
        self._is_confirming = False
        self._error: AmqpError | None = None
        self._is_closing = False
        self._gone = trio.Event()

    # Exchanges and queues

    async def declare_exchange(
        self, name: str, *, kind: str = "topic", durable: bool = True, passive: bool = False
    ) -> None:
        """Make sure that an exchange is there; with `passive` only ask (404 if it is not)."""
        declare = frames.ExchangeDeclare(exchange=name, exchange_type=kind, passive=passive, durable=durable)
        await self._call(declare, commands.Exchange.DeclareOk)

    async def declare_queue(
        self,
        name: str,
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        passive: bool = False,
    ) -> QueueState:
        """Make sure that a queue is there, "" for a name from the broker; with `passive` only ask (404 if it is not).

        ChannelClosedError 406 when there is one with other arguments, 405 when it is another connection's own.
        """
        declare = frames.QueueDeclare(
            queue=name,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=dict(arguments or {}),
        )
        reply = await self._call(declare, commands.Queue.DeclareOk)
        return QueueState(reply.queue, reply.message_count or 0, reply.consumer_count or 0)

    async def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Let an exchange put messages into a queue."""
        bind = frames.QueueBind(queue=queue, exchange=exchange, routing_key=routing_key)
        await self._call(bind, commands.Queue.BindOk)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with what is in it; none of that name is no error."""
        await self._call(frames.QueueDelete(queue=name), commands.Queue.DeleteOk)

    async def purge(self, name: str) -> int:
        """Drop the messages of a queue that nobody has yet; return how many."""
        return (await self._call(frames.QueuePurge(queue=name), commands.Queue.PurgeOk)).message_count or 0

    # Taking messages

    async def qos(self, prefetch: int) -> None:
        """Let each consumer that comes after have so many messages unacknowledged, 0 any number."""
        await self._call(commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)

    async def consume(self, queue: str, *, exclusive: bool = False) -> Consumer:
        """Begin to take messages. ChannelClosedError 404 when there is no queue, 403 when it is another's alone."""
        self._consumer_number += 1
        tag = f"respite-{self._consumer_number}"
        consumer = Consumer(tag, self._waiting, self._cancel)
        self._consumers[tag] = consumer  # deliveries may come in the same read as the reply
        consume = frames.Consume(queue=queue, consumer_tag=tag, exclusive=exclusive)
        try:
            await self._call(consume, commands.Basic.ConsumeOk, unwanted=lambda _: self._cancel_nowait(consumer))
        except BaseException:
            self._put_back(self._consumers.pop(tag, None))
            raise
        return consumer

    async def get(self, queue: str) -> Delivery | None:
        """Take one message; None when there is none. One whose content cannot be taken comes with a `fault`."""
        reply = await self._call(
            frames.Get(queue=queue), GetOk, commands.Basic.GetEmpty, unwanted=self._give_back_unwanted
        )
        return reply if isinstance(reply, Delivery) else None

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, with `multiple` all before it as well; goes out with the next write."""
        self._check()
        self._writer.append(frames.write_ack(self.number, tag, multiple=multiple))

    def nack(self, tag: int, *, requeue: bool, multiple: bool = False) -> None:
        """Reject a delivery, with `multiple` all before it as well. Without `requeue` it goes to the dead letters."""
        self._check()
        self._writer.append(frames.write_nack(self.number, tag, multiple=multiple, requeue=requeue))

    # Publishing

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: commands.Basic.Properties,
        *,
        mandatory: bool = False,
    ) -> None:
        """Publish a message and return when the broker has it safe. Raises PublishRefusedError."""
        (refused,) = await self.publish_all([Outgoing(exchange, routing_key, body, properties, mandatory)])
        if refused is not None:
            raise refused

    async def publish_all(self, messages: Iterable[Outgoing]) -> list[PublishRefusedError | None]:
        """Publish messages and return when the broker has said of each whether it has it safe (None) or not.

        Waits while the broker takes no messages. Where the connection or channel ends first, what became of those
        under way is unknown. Cancelled, what is written already is still published.
        """
        messages = list(messages)
        await self._confirm()
        batch = Batch(len(messages))
        for index, message in enumerate(messages):
            if index % PUBLISHED_A_TURN == PUBLISHED_A_TURN - 1:
                await trio.lowlevel.checkpoint()
            try:
                written = self._written(message)
            except ValueError as exc:
                batch.settle(index, PublishRefusedError(f"the message cannot be sent: {exc}"))
                continue
            await self._writer.room()
            await self._confirms.room()
            self._check()
            self._confirms.add(batch, index, message)
            self._writer.append(written)
        await self._confirmed(batch)
        if batch.error is not None:
            raise copy.copy(batch.error)
        return batch.results

    async def _confirmed(self, batch: Batch) -> None:
        """Return when all is settled; time in which the broker takes nothing does not count."""
        while True:
            with trio.move_on_after(CONFIRM_S):
                await batch.done.wait()
                return
            if self._writer.blocked_reason is None:
                raise ConnectionLostError(f"the broker lives, and has confirmed nothing within {CONFIRM_S:g} s")

    def _written(self, message: Outgoing) -> bytes:
        if len(message.body) > MAX_BODY_BYTES:
            raise ValueError(f"it has {len(message.body)} bytes, and {MAX_BODY_BYTES} is the most")
        return frames.write_message(message, self.number, self._frame_max)

    async def _confirm(self) -> None:
        self._check()
        if not self._is_confirming:
            await self._call(commands.Confirm.Select(), commands.Confirm.SelectOk)
            self._is_confirming = True

    # Opening and closing

    async def open(self) -> None:
        """Open it: the first call. A cancellation closes it again."""
        try:
            await self._call(commands.Channel.Open(), commands.Channel.OpenOk)
        except trio.Cancelled:
            self._close_nowait()
            raise

    async def close(self) -> None:
        """Close it; what is not acknowledged goes back to its queue. Does nothing when it is closed already."""
        self._close_nowait()
        await self._gone.wait()

    def _close_nowait(self) -> None:
        if self._error is None:
            self._is_closing = True
            self._writer.append(self._frame(commands.Channel.Close(200, "done", 0, 0)))
            self._end(ChannelClosedError(0, "the channel was closed"))

    def fail(self, error: AmqpError) -> None:
        """End it: the connection is lost."""
        self._end(error)
        self._gone.set()

    def _end(self, error: AmqpError) -> None:
        if self._error is None or isinstance(error, ConnectionLostError):
            self._error = error
        self._calls.fail(error)
        if self._get is not None:
            self._get.settle(error)
        self._get = self._content = None
        for consumer in self._consumers.values():
            consumer.end(error, and_drop=True)
        self._consumers.clear()
        self._confirms.fail(error)

    def _check(self) -> None:
        if self._error is not None:
            raise copy.copy(self._error)

    # Calls

    def _frame(self, method: base.Frame) -> bytes:
        try:
            return frames.write_method(method, self.number)
        except (TypeError, ValueError) as exc:
            raise AmqpError(f"{method.name} cannot be written: {exc}") from exc

    async def _call(self, method: base.Frame, *accepts: type, unwanted: Callable[[Any], None] | None = None) -> Any:
        self._check()
        self._writer.append(self._frame(method))
        return await self._calls.add(accepts, unwanted).wait(CALL_S)

    async def _cancel(self, consumer: Consumer) -> None:
        if self._consumers.pop(consumer.tag, None) is None:
            return
        self._put_back(consumer)
        await self._call(commands.Basic.Cancel(consumer.tag), commands.Basic.CancelOk)

    def _cancel_nowait(self, consumer: Consumer) -> None:
        if self._error is None:
            self._writer.append(self._frame(commands.Basic.Cancel(consumer.tag, nowait=True)))

    def _put_back(self, consumer: Consumer | None) -> None:
        if consumer is None:
            return
        for delivery in consumer.end(ConsumerCancelledError("the consumer was cancelled"), and_drop=True):
            self.nack(delivery.tag, requeue=True)

    def _give_back_unwanted(self, reply: object) -> None:
        if isinstance(reply, Delivery) and self._error is None:
            self.nack(reply.tag, requeue=True)

    # What comes (called by the reader of the connection; raises FrameFaultError for what may not come)

    def take_method(self, method: frames.Method) -> None:
        """Take a method of the broker."""
        if isinstance(method, commands.Channel.CloseOk):
            self._take_close_ok()
            return
        if isinstance(method, commands.Channel.Close):
            self._take_close(method)
            return
        if self._is_closing:
            return  # sent before the broker saw that we close
        if self._content is not None:
            raise FrameFaultError(505, "the broker began something else within a message")
        match method:
            case Deliver() | Returned():
                self._content = Content(method)
            case GetOk():
                self._get = self._calls.take(GetOk, "Basic.GetOk")
                self._content = Content(method)
            case commands.Basic.Ack(delivery_tag=number, multiple=multiple):
                self._confirms.confirm(number or 0, multiple=bool(multiple), is_taken=True)
            case commands.Basic.Nack(delivery_tag=number, multiple=multiple):
                self._confirms.confirm(number or 0, multiple=bool(multiple), is_taken=False)
            case commands.Basic.Cancel():
                self._take_cancel(method)
            case commands.Channel.Flow(active=active):
                # RabbitMQ has none of it since 2.0; whoever has, is taken at its word for the whole connection.
                self._writer.block(None if active else "the broker stopped the flow")
                self._writer.append(self._frame(commands.Channel.FlowOk(active)))
            case _:
                self._calls.take(type(method), method.name).settle(method)

    def take_header(self, payload: bytes) -> None:
        """Take a content header."""
        if (content := self._pending()) and content.take_header(payload, self._waiting):
            self._land(content)

    def take_body(self, payload: bytes) -> None:
        """Take a piece of a body."""
        if (content := self._pending()) and content.take_body(payload):
            self._land(content)

    def _pending(self) -> Content | None:
        if self._content is None and not self._is_closing:
            raise FrameFaultError(505, "the broker sent content that belongs to no message")
        return self._content

    def _land(self, content: Content) -> None:
        self._content = None
        match content.method:
            case Deliver() as deliver:
                self._deliver(deliver, content)
            case GetOk() as got:
                call, self._get = self._get, None
                if call is not None:
                    call.settle(content.delivery(got))
            case returned:
                self._confirms.give_back(returned, content.body())

    def _deliver(self, deliver: Deliver, content: Content) -> None:
        consumer = self._consumers.get(deliver.consumer_tag)
        if consumer is None or content.is_put_back:
            self.nack(deliver.tag, requeue=True)
        elif content.fault:
            consumer.refuse(content.fault)
            self.nack(deliver.tag, requeue=False)
        else:
            consumer.put(content.delivery(deliver))

    def _take_cancel(self, cancel: commands.Basic.Cancel) -> None:
        tag = cancel.consumer_tag or ""
        if (consumer := self._consumers.pop(tag, None)) is not None:
            consumer.end(ConsumerCancelledError("the broker ended the consumer: its queue is gone"), and_drop=False)
        if not cancel.nowait:
            self._writer.append(self._frame(commands.Basic.CancelOk(tag)))

    def _take_close(self, close: commands.Channel.Close) -> None:
        self._writer.append(self._frame(commands.Channel.CloseOk()))
        self._end(ChannelClosedError(close.reply_code or 0, close.reply_text or ""))
        if not self._is_closing:  # else the answer to our own is still to come, and the number is taken until then
            self._leave()

    def _take_close_ok(self) -> None:
        if not self._is_closing:
            raise FrameFaultError(503, "the broker sent Channel.CloseOk, which nobody asked for")
        self._leave()

    def _leave(self) -> None:
        self._gone.set()
        self._on_gone(self.number)
