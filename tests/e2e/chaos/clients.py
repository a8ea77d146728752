"""Six kinds of clients, alike from outside: `call` sends one command and gives its reply as Python has it.

redis-py, redis-py of asyncio, valkey-py, node-redis, ioredis, and raw sockets that pipeline. None of them repeats a
command by itself: what is counted is what the proxy did.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import hiredis
import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.retry
import valkey
import valkey.backoff
import valkey.retry

from ..raw import encode_all

PATIENCE_S = 15.0
"""After so long a client takes a request for unanswered: far over any bound."""

HERE = Path(__file__).resolve().parent
NODE_MODULES = HERE.parent / "node_modules"
UNKNOWN = "may have been applied"
Word = str | int | float


class NotConnectedError(Exception):
    """There is no connection, and none could be opened: nothing was sent."""


class FailedError(Exception):
    """A request got no result. `how` as in `ledger.Failure`."""

    def __init__(self, how: str, text: str) -> None:
        super().__init__(text)
        self.how = how


def failed_by(reply: str) -> FailedError:
    """Return what an error reply means."""
    return FailedError("unknown" if UNKNOWN in reply else "refused", reply)


class Client(Protocol):
    """One connection to a proxy, opened again when it is gone."""

    kind: str

    def call(self, *words: Word) -> Any:
        """Send a command and return its reply. Raises: FailedError, NotConnectedError."""

    def drop(self) -> None:
        """Let go of the connection; the next command opens another."""

    def close(self) -> None:
        """Let go of everything."""


@attrs.define(eq=False)
class PythonClient:
    """redis-py or valkey-py with one connection."""

    kind: str
    port: int
    _client: Any = None

    def call(self, *words: Word) -> Any:
        """Send a command and return its reply."""
        package: Any = redis if self.kind == "redis-py" else valkey
        try:
            if self._client is None:
                self._client = self._open(package)
            if self._client.connection is None:
                # valkey-py still wants the name of a command here, which it does not use.
                words_of_pool = () if self.kind == "redis-py" else ("",)
                self._client.connection = self._client.connection_pool.get_connection(*words_of_pool)
            self._client.connection.connect()
        except (package.exceptions.ConnectionError, package.exceptions.TimeoutError, package.ResponseError) as exc:
            self.drop()
            raise NotConnectedError(str(exc)) from exc
        try:
            return self._client.execute_command(*words)
        except package.exceptions.TimeoutError as exc:
            self.drop()
            raise FailedError("unanswered", str(exc)) from exc
        except (package.exceptions.ResponseError, package.exceptions.BusyLoadingError) as exc:
            raise failed_by(str(exc)) from exc
        except package.exceptions.ConnectionError as exc:
            self.drop()
            raise FailedError("closed", str(exc)) from exc

    def _open(self, package: Any) -> Any:
        make = package.Redis if self.kind == "redis-py" else package.Valkey
        client = make(
            port=self.port,
            protocol=2 + self.port % 2,
            decode_responses=True,
            socket_timeout=PATIENCE_S,
            single_connection_client=False,
            retry=package.retry.Retry(package.backoff.NoBackoff(), 0),
        )
        client.response_callbacks.clear()
        return client

    def drop(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            if client.connection is not None:
                client.connection.disconnect()
                client.connection = None
            client.connection_pool.disconnect()

    close = drop


class AsyncClient:
    """redis-py of asyncio, in a loop of its own thread."""

    kind = "redis-py asyncio"

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client: Any = None  # redis.asyncio.Redis, whose types are half there

    def call(self, *words: Word) -> Any:
        """Send a command and return its reply."""
        return asyncio.run_coroutine_threadsafe(self._call(words), self._loop).result()

    async def _call(self, words: Sequence[Word]) -> Any:
        try:
            if self._client is None:
                self._client = redis.asyncio.Redis(
                    port=self._port,
                    decode_responses=True,
                    socket_timeout=PATIENCE_S,
                    single_connection_client=True,
                    retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
                )
                self._client.response_callbacks.clear()
            await self._client.initialize()
            await self._client.connection.connect()
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as exc:
            await self._drop()
            raise NotConnectedError(str(exc)) from exc
        try:
            return await self._client.execute_command(*words)
        except redis.TimeoutError as exc:
            await self._drop()
            raise FailedError("unanswered", str(exc)) from exc
        except (redis.ResponseError, redis.exceptions.BusyLoadingError) as exc:
            raise failed_by(str(exc)) from exc
        except redis.ConnectionError as exc:
            await self._drop()
            raise FailedError("closed", str(exc)) from exc

    def drop(self) -> None:
        """Let go of the connection."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(5)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def close(self) -> None:
        """Let go of it, and of its loop."""
        self.drop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class NodeClient:
    """ioredis or node-redis, in a process of its own that is told what to send."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        node = shutil.which("node")
        assert node is not None
        package = {"ioredis": "ioredis", "node-redis": "redis"}[kind]
        self._process = subprocess.Popen(
            [node, str(HERE / "node_client.mjs"), package, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._serial = 0

    def call(self, *words: Word) -> Any:
        """Send a command and return its reply."""
        answer = self._tell(words=[str(word) for word in words])
        if "error" not in answer:
            return answer.get("ok")
        if answer.get("unsent"):
            raise NotConnectedError(answer["error"])
        raise FailedError("closed", answer["error"]) if answer["closed"] else failed_by(answer["error"])

    def _tell(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._serial += 1
        self._process.stdin.write(json.dumps({"id": self._serial, **order}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["id"] == self._serial
        return answer

    def drop(self) -> None:
        """Let go of the connection."""
        self._tell(drop=True)

    def close(self) -> None:
        """End its process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@attrs.define(eq=False)
class RawSocket:
    """Bare bytes; the one kind that sends many commands at once."""

    port: int
    kind: str = "raw pipelines"
    _socket: socket.socket | None = None
    _reader: hiredis.Reader = attrs.field(factory=lambda: hiredis.Reader(encoding="utf-8"))

    def call(self, *words: Word) -> Any:
        """Send a command and return its reply."""
        [reply] = self.call_all([words])
        if isinstance(reply, FailedError):
            raise reply
        return reply

    def call_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send several at once; return replies, FailedError in place of those that got none."""
        replies: list[Any] = []
        opened = self._connected()
        try:
            opened.sendall(encode_all(commands))
            while len(replies) < len(commands):
                reply = self.receive()
                replies.append(failed_by(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
        except TimeoutError as exc:
            self.drop()
            replies += [FailedError("unanswered", str(exc))] * (len(commands) - len(replies))
        except OSError as exc:
            self.drop()
            replies += [FailedError("closed", str(exc))] * (len(commands) - len(replies))
        return replies

    def receive(self) -> Any:
        """Return the next frame. Raises: OSError when the connection has ended, TimeoutError."""
        opened = self._connected()
        while (reply := self._reader.gets()) is False:
            if not (data := opened.recv(65_536)):
                raise ConnectionResetError("closed by the proxy")
            self._reader.feed(data)
        return reply

    def _connected(self) -> socket.socket:
        if self._socket is None:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
            except OSError as exc:
                raise NotConnectedError(str(exc)) from exc
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._reader = hiredis.Reader(encoding="utf-8")
        return self._socket

    def set_patience(self, seconds: float) -> None:
        """Wait that long for what comes next on this connection."""
        self._connected().settimeout(seconds)

    def drop(self) -> None:
        """Let go of the connection."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    close = drop


def kinds() -> tuple[str, ...]:
    """Return the kinds of clients that are there: those of Node need their libraries."""
    found = ["redis-py", "redis-py asyncio", "valkey-py", "raw pipelines"]
    if shutil.which("node") and (NODE_MODULES / "ioredis").is_dir() and (NODE_MODULES / "redis").is_dir():
        found += ["node-redis", "ioredis"]
    return tuple(found)


def open_client(kind: str, port: int) -> Client:
    """Make a client of a kind; it connects with its first command."""
    if kind == "raw pipelines":
        return RawSocket(port)
    if kind == "redis-py asyncio":
        return AsyncClient(port)
    return NodeClient(kind, port) if kind in ("node-redis", "ioredis") else PythonClient(kind, port)
