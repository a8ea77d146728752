"""WebSocket: one message a text frame, pings now and then, and a client that may change what it listens to.

    client  {"subscribe": ["ticket:7"]}   {"unsubscribe": ["ticket:7"]}
    server  {"type": "hello", ..}  {"type": "update", ..}  {"type": "heartbeat", "cursor": ".."}
            {"type": "subscribed", "channels": [..]}  {"type": "error", "error": ".."}

Messages to clients are framed here: a server's frames are not masked, so they are the same bytes for every subscriber.
Whatever a client sends is read by wsproto. Source: RFC 6455.
"""

from __future__ import annotations

import json
import struct
from itertools import chain
from typing import Any, Final

import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from proxy.admin.access import denial
from proxy.admin.answers import Streaming
from proxy.admin.pushing import GOING, Push, Stream, watched
from proxy.core.feed.feed import FeedError

_READ_BYTES: Final = 4096
_TEXT: Final = 0x81  # a text frame, and the last of its message
# Enough to name every channel that one subscription may have.
_MESSAGE_BYTES: Final = 512 * 1024
_LINGER_S: Final = 1.0
_SILENT_BEATS: Final = 2  # pings that may go unanswered


class FrameFraming:
    """A message as a text frame."""

    def frame(self, message: bytes, _cursor: str) -> bytes:
        """Frame one message."""
        size = len(message)
        if size < 126:
            return b"%c%c%b" % (_TEXT, size, message)
        if size < 1 << 16:
            return struct.pack("!BBH", _TEXT, 126, size) + message
        return struct.pack("!BBQ", _TEXT, 127, size) + message


FRAMING: Final = FrameFraming()


async def serve_websocket(socket: trio.SocketStream, streaming: Streaming, push: Push, early: bytes) -> None:
    """Serve one stream until either side closes it; `early` is what its peer has sent behind the handshake.

    A peer that can still hear learns why it is closed. A cancellation sends that word, and does not wait.
    """
    with push.stream(socket, streaming, FRAMING) as stream:
        talk = _Talk(socket, streaming, push, stream)
        try:
            with stream.scope:
                stream.outlet.write(streaming.head)
                await push.greet(stream)
                await talk.listen(early)
            if stream.last_words:
                code = CloseReason.GOING_AWAY if push.is_stopping else CloseReason.POLICY_VIOLATION
                talk.close(code, stream.last_words)
        except trio.Cancelled:
            talk.close(CloseReason.GOING_AWAY, GOING)
            raise
    if not stream.is_gone:
        await _linger(socket)


class _Talk:
    """What is said with one client, besides the messages it subscribed to."""

    def __init__(self, socket: trio.SocketStream, streaming: Streaming, push: Push, stream: Stream) -> None:
        self._socket = socket
        self._may_hear = streaming.may_hear
        self._push = push
        self._stream = stream
        self._protocol = Connection(ConnectionType.SERVER)
        self._text = ""

    async def listen(self, early: bytes) -> None:
        """Do what the client says until it leaves, closes, or breaks the protocol, which it is told."""
        heard_at = beaten_at = trio.current_time()
        data: bytes | None = early
        while True:
            if data is not None:
                heard_at = trio.current_time()
                try:
                    if not await self._take(data):
                        return
                except RemoteProtocolError as exc:
                    hint = exc.event_hint
                    code = hint.code if isinstance(hint, CloseConnection) else CloseReason.PROTOCOL_ERROR
                    self.close(code, str(exc))
                    return
            heartbeat_s = self._push.settings.heartbeat_s
            # However much a client says, it waits for its heartbeat.
            if trio.current_time() >= beaten_at + heartbeat_s:
                if trio.current_time() - heard_at > _SILENT_BEATS * heartbeat_s:
                    self.close(CloseReason.POLICY_VIOLATION, "pings were not answered")
                    return
                self._beat()
                beaten_at = trio.current_time()
            data = None
            with trio.move_on_at(beaten_at + heartbeat_s):
                data = await self._socket.receive_some(_READ_BYTES)
                if not data:
                    return

    def close(self, code: int, reason: str) -> None:
        """Say that we close, and why; nothing, where that has been said."""
        try:
            # A control frame holds 125 bytes, two of which are the code.
            self._stream.outlet.write_aside(
                self._protocol.send(CloseConnection(code, reason.encode()[:123].decode(errors="ignore")))
            )
        except LocalProtocolError:
            return

    def _beat(self) -> None:
        # A page never sees a ping, and must know that it is not alone.
        beat = json.dumps({"type": "heartbeat", "cursor": self._stream.subscription.cursor})
        self._stream.outlet.write_aside(self._protocol.send(Ping()) + FRAMING.frame(beat.encode(), ""))

    async def _take(self, data: bytes) -> bool:
        """Take what the client sent; return whether it goes on."""
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case Ping():
                    self._stream.outlet.write_aside(self._protocol.send(event.response()))
                case TextMessage():
                    self._text += event.data
                    if len(self._text) > _MESSAGE_BYTES:
                        self.close(CloseReason.MESSAGE_TOO_BIG, f"a message has at most {_MESSAGE_BYTES} bytes")
                        return False
                    if event.message_finished:
                        text, self._text = self._text, ""
                        await self._obey(text)
                case BytesMessage():
                    self.close(CloseReason.UNSUPPORTED_DATA, "messages are JSON in text frames")
                    return False
                case CloseConnection():
                    self._stream.outlet.write_aside(self._protocol.send(event.response()))
                    return False
                case _:  # a pong
                    pass
        return True

    async def _obey(self, text: str) -> None:
        try:
            wanted, unwanted = _read(text)
            if refused := await self._push.weigh(wanted, self._may_hear):
                raise FeedError(denial(refused))
            subscription = self._stream.subscription
            subscription.remove(unwanted)
            if wanted:
                subscription.add(wanted)
                await watched(subscription)
        except FeedError as exc:
            answer: dict[str, Any] = {"type": "error", "error": str(exc)}
        else:
            answer = {"type": "subscribed", "channels": list(subscription.channels)}
        # Nothing more is heard of a client that asks and does not read.
        await self._stream.outlet.wait_taken()
        self._stream.outlet.write_aside(FRAMING.frame(json.dumps(answer).encode(), ""))


async def _linger(socket: trio.SocketStream) -> None:
    """Let the last word arrive: closing on unread bytes resets the connection, and the word is lost."""
    with trio.move_on_after(_LINGER_S):
        await socket.send_eof()
        while await socket.receive_some(_READ_BYTES):
            pass


def _read(text: str) -> tuple[list[str], list[str]]:
    """Return what to listen to and what no more. Raises FeedError."""
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or not asked.keys() <= {"subscribe", "unsubscribe"}:
        raise FeedError('send {"subscribe": ["CHANNEL"]} or {"unsubscribe": ["CHANNEL"]}')
    lists = [asked.get(name, []) for name in ("subscribe", "unsubscribe")]
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise FeedError("channels are a list of strings")
    try:
        "".join(chain(*lists)).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise FeedError("the name of a channel is no text") from None
    return lists[0], lists[1]
