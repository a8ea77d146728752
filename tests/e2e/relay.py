"""A TCP relay to Redis that can cut a connection right after a command has gone through and before its reply has.

One thread a connection. The command reaches Redis and is applied; what the client side gets is a closed connection.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

from .servers import free_port

CHUNK_BYTES = 65_536


class Relay:
    """Listens on a free port and carries every connection to 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.cuts = 0
        self._target = port
        self._marker = b""
        self._is_closing = False
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def cut_after(self, marker: bytes) -> None:
        """Cut the connection on which the next request containing `marker` goes through; once."""
        self._marker = marker

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=[client])
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._is_closing:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if client in ready and not self._request(client, server):
                    return
                if server in ready:
                    reply = server.recv(CHUNK_BYTES)
                    if not reply:
                        return
                    client.sendall(reply)

    def _request(self, client: socket.socket, server: socket.socket) -> bool:
        request = client.recv(CHUNK_BYTES)
        server.sendall(request)
        if self._marker and self._marker in request:
            self._marker = b""
            # The reply proves that the command was applied; it is thrown away.
            server.recv(CHUNK_BYTES)
            self.cuts += 1
            return False
        return bool(request)
