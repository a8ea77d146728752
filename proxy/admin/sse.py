r"""Server-sent events: one message an event, a comment now and then, and an id to come back with.

    retry: 1000\n\n                          how long a browser waits before it comes back
    data: {"type":"hello",..}\nid: E-7\n\n   the id goes back in Last-Event-ID
    data: {"type":"update",..}\n\n
    :\nid: E-9\n\n                           nothing has happened for `push.heartbeat`; no event for a page

The answer has no length: it ends with the connection. Source: WHATWG HTML 9.2.
"""

from __future__ import annotations

from typing import Final

import trio

from proxy.admin.answers import Streaming
from proxy.admin.pushing import Push

_RETRY: Final = b"retry: 1000\n\n"
_READ_BYTES: Final = 4096
# A peer has said all when it asked. What it says besides is dropped, and so is a peer that goes on and on.
_SAID_BYTES: Final = 64 * 1024


class EventFraming:
    """A message as an event. JSON in one line has no line break that would have to be doubled."""

    def frame(self, message: bytes, cursor: str) -> bytes:
        """Frame one message, with its id where there is one."""
        if cursor:
            return b"data: %b\nid: %b\n\n" % (message, cursor.encode())
        return b"data: %b\n\n" % message


FRAMING: Final = EventFraming()


async def serve_events(socket: trio.SocketStream, streaming: Streaming, push: Push) -> None:
    """Serve one stream until its peer leaves or it is ended. A cancellation ends it where it is."""
    with push.stream(socket, streaming, FRAMING) as stream, stream.scope:
        stream.outlet.write(streaming.head + _RETRY)
        await push.greet(stream)
        left_bytes = _SAID_BYTES
        while True:
            with trio.move_on_after(push.settings.heartbeat_s):
                while left_bytes > 0 and (said := await socket.receive_some(_READ_BYTES)):
                    left_bytes -= len(said)
                return
            stream.outlet.write_aside(b":\nid: %b\n\n" % stream.subscription.cursor.encode())
