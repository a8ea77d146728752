"""A blocking AMQP client for the tests: one connection, one channel, one thing at a time.

It is for what happens around the code under test: publish an event, look what lies in a queue. It shares nothing but
the codec with `proxy/amqp`.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Self, TypeVar

from pamqp import body, commands, frame, header, heartbeat

Reply = TypeVar("Reply")


class ClosedByBrokerError(Exception):
    """The broker closed the channel or the connection: its code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class PlainClient:
    """Logs in on construction. Raises: ClosedByBrokerError, OSError (also for a broker that only closes the socket)."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        user: tuple[str, str] | None = ("guest", "guest"),
        vhost: str = "/",
        context: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """`user` None logs in by EXTERNAL, with the certificate of `context`."""
        self._buffer = b""
        self._published = 0
        self._unconfirmed: set[int] = set()
        self.blocked = False
        self._socket = socket.create_connection(address, timeout=timeout_s)
        try:
            if context is not None:
                self._socket = context.wrap_socket(self._socket, server_hostname=address[0])
            self._log_in(user, vhost)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _log_in(self, user: tuple[str, str] | None, vhost: str) -> None:
        self._socket.sendall(b"AMQP\0\0\x09\x01")
        self.server = self._expect(commands.Connection.Start).server_properties or {}
        mechanism, secret = ("EXTERNAL", "") if user is None else ("PLAIN", f"\0{user[0]}\0{user[1]}")
        told: dict[str, Any] = {"capabilities": {"connection.blocked": True, "authentication_failure_close": True}}
        self._send(commands.Connection.StartOk(told, mechanism, secret, "en_US"), channel=0)
        tune = self._expect(commands.Connection.Tune)
        self._send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), channel=0)
        self._send(commands.Connection.Open(vhost), channel=0)
        self._expect(commands.Connection.OpenOk)
        self._send(commands.Channel.Open())
        self._expect(commands.Channel.OpenOk)
        self._send(commands.Confirm.Select())
        self._expect(commands.Confirm.SelectOk)

    def declare_exchange(self, name: str, kind: str = "topic", *, durable: bool = True) -> None:
        """Declare an exchange."""
        self._send(commands.Exchange.Declare(exchange=name, exchange_type=kind, durable=durable))
        self._expect(commands.Exchange.DeclareOk)

    def declare_queue(
        self, name: str, *, durable: bool = True, passive: bool = False, arguments: dict[str, Any] | None = None
    ) -> tuple[int, int]:
        """Declare a queue, or ask for it with `passive`. Returns how many messages are ready, and its consumers."""
        self._send(commands.Queue.Declare(queue=name, durable=durable, passive=passive, arguments=arguments or {}))
        answer = self._expect(commands.Queue.DeclareOk)
        return answer.message_count or 0, answer.consumer_count or 0

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange."""
        self._send(commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=routing_key))
        self._expect(commands.Queue.BindOk)

    def delete_queue(self, name: str) -> None:
        """Delete a queue, whoever consumes from it."""
        self._send(commands.Queue.Delete(queue=name))
        self._expect(commands.Queue.DeleteOk)

    def publish(self, exchange: str, routing_key: str, payload: bytes, **properties: Any) -> None:
        """Publish a persistent message and wait for its confirm; `properties` are those of pamqp's Basic.Properties."""
        self.publish_nowait(exchange, routing_key, payload, **properties)
        self.wait_confirmed()

    def publish_nowait(self, exchange: str, routing_key: str, payload: bytes, **properties: Any) -> None:
        """Publish without waiting for the confirm; `wait_confirmed` does."""
        about = commands.Basic.Properties(**{"delivery_mode": 2} | properties)
        frames: list[Any] = [
            commands.Basic.Publish(exchange=exchange, routing_key=routing_key),
            header.ContentHeader(body_size=len(payload), properties=about),
        ]
        # No body frame for no body; 100,000 octets fit every frame_max that RabbitMQ offers.
        frames += [body.ContentBody(payload[at : at + 100_000]) for at in range(0, len(payload), 100_000)]
        self._socket.sendall(b"".join(frame.marshal(one, 1) for one in frames))
        self._published += 1
        self._unconfirmed.add(self._published)

    def wait_confirmed(self) -> None:
        """Wait until the broker has taken everything that was published."""
        while self._unconfirmed:
            self._note(self._receive())

    def get(self, queue: str) -> tuple[bytes, commands.Basic.Properties] | None:
        """Take one message out of a queue for good, with its properties; None when nothing is ready."""
        self._send(commands.Basic.Get(queue=queue, no_ack=True))
        if isinstance(self._expect(commands.Basic.GetOk, commands.Basic.GetEmpty), commands.Basic.GetEmpty):
            return None
        about = self._expect(header.ContentHeader)
        payload = b""
        while len(payload) < about.body_size:
            payload += self._expect(body.ContentBody).value
        return payload, about.properties

    def wait_blocked(self, *, expected: bool) -> None:
        """Wait until the broker says connection.blocked, or connection.unblocked. Raises: TimeoutError."""
        while self.blocked is not expected:
            self._note(self._receive())

    def _send(self, method: Any, *, channel: int = 1) -> None:
        self._socket.sendall(frame.marshal(method, channel))

    def _expect(self, *kinds: type[Reply]) -> Reply:
        while True:
            got = self._receive()
            if isinstance(got, kinds):
                return got
            self._note(got)

    def _note(self, got: object) -> None:
        match got:
            case commands.Basic.Ack():
                tags = {tag for tag in self._unconfirmed if tag < got.delivery_tag} if got.multiple else set()
                self._unconfirmed -= tags | {got.delivery_tag}
            case commands.Connection.Blocked():
                self.blocked = True
            case commands.Connection.Unblocked():
                self.blocked = False
            case commands.Channel.Close() | commands.Connection.Close():
                raise ClosedByBrokerError(got.reply_code or 0, got.reply_text)
            case heartbeat.Heartbeat():
                pass
            case _:
                raise AssertionError(f"the broker sent {got!r}")

    def _receive(self) -> object:
        while True:
            # Whole frames only: pamqp takes the size on trust.
            if len(self._buffer) >= 7 and len(self._buffer) >= (size := int.from_bytes(self._buffer[3:7]) + 8):
                _, _, got = frame.unmarshal(self._buffer[:size])
                self._buffer = self._buffer[size:]
                return got
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionResetError("the broker closed the socket")
            self._buffer += more
