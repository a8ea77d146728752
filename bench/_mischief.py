"""Clients who misbehave, each kind in its own way, for as long as they are let. A process of its own: `bench.crowd`.

None of them needs a password or a right of its own; each acts about once in `pace_s`, so that what they cost is the
server's doing and not the sheer number of their bytes. Aims at a port of 127.0.0.1 only. For each line on stdin, says
on stdout as JSON how often each kind has acted, and how often its connections ended.
"""

import argparse
import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import trio

BIG_KEY = b"crowd:big"
LARGEST = 500_000_000
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(189))
HTTP = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello"
PATIENCE_S = 20.0


def words(*parts: bytes) -> bytes:
    """Return one command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Mischief:
    """One who misbehaves: where, how often, and with which dice."""

    def __init__(self, port: int, pace_s: float, seed: int) -> None:
        self.port = port
        self.dice = random.Random(seed)
        self.acted = 0
        self.closed = 0
        self._pace_s = pace_s

    async def rest(self, times: float = 1.0) -> None:
        """Wait until the next turn."""
        self.acted += 1
        await trio.sleep(self._pace_s * times * (0.5 + self.dice.random()))

    async def connect(self) -> trio.SocketStream:
        """Open one more connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def drain(self, stream: trio.SocketStream) -> None:
        """Read whatever comes until the server closes, or for a while."""
        with trio.move_on_after(PATIENCE_S):
            while await stream.receive_some(65536):
                pass

    def noise(self, size: int) -> bytes:
        """Return bytes that mean nothing."""
        return self.dice.randbytes(size)


async def silent(one: Mischief, stream: trio.SocketStream) -> None:
    """Connect, and say nothing at all."""
    await one.drain(stream)


async def half_request(one: Mischief, stream: trio.SocketStream) -> None:
    """Stop in the middle of a command."""
    await stream.send_all(words(b"SET", b"crowd:x", b"v" * 1000)[: one.dice.randrange(1, 1000)])
    await one.drain(stream)


async def byte_by_byte(one: Mischief, stream: trio.SocketStream) -> None:
    """Send commands a byte at a time."""
    while True:
        for byte in words(b"GET", b"crowd:%d" % one.dice.randrange(100)):
            await stream.send_all(bytes([byte]))
            await one.rest(0.2)


async def garbage(one: Mischief, stream: trio.SocketStream) -> None:
    """Send what is no command, and come again when closed."""
    await stream.send_all(one.noise(one.dice.randrange(1, 4000)) + b"\r\n")
    await one.drain(stream)


async def huge_array(one: Mischief, stream: trio.SocketStream) -> None:
    """Announce a command of a billion words."""
    await stream.send_all(b"*%d\r\n" % one.dice.choice([1_000_000, 1_000_000_000, 2**63]) + words(b"GET")[4:] * 3)
    await one.drain(stream)


async def huge_bulk(one: Mischief, stream: trio.SocketStream) -> None:
    """Announce a value of half a gigabyte, and send a little of it now and then."""
    await stream.send_all(b"*3\r\n$3\r\nSET\r\n$7\r\ncrowd:h\r\n$%d\r\n" % LARGEST)
    for _ in range(100):
        await stream.send_all(b"x" * 4096)
        await one.rest(2)


async def never_reads(one: Mischief, stream: trio.SocketStream) -> None:
    """Ask for a large value again and again, and read none."""
    while True:
        await stream.send_all(words(b"GET", BIG_KEY) * 10)
        await one.rest()


async def deep_pipeline(one: Mischief, stream: trio.SocketStream) -> None:
    """Send a thousand commands in one go."""
    while True:
        count = 1000
        await stream.send_all(words(b"PING") * count)
        wanted = len(b"+PONG\r\n") * count
        while wanted > 0:
            data = await stream.receive_some(65536)
            if not data:
                return
            wanted -= len(data)
        await one.rest(2)


async def reconnects(one: Mischief, stream: trio.SocketStream) -> None:
    """Connect, ask once, and leave, as fast as the others do anything."""
    await stream.send_all(words(b"PING"))
    await stream.receive_some(100)


async def resets(one: Mischief, stream: trio.SocketStream) -> None:
    """Leave with a reset in the middle of everything."""
    await stream.send_all(words(b"GET", BIG_KEY) * 3 + b"*2\r\n$3\r\nGE")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def wrong_passwords(one: Mischief, stream: trio.SocketStream) -> None:
    """Guess."""
    while True:
        guess = b"%d" % one.dice.randrange(10**9)
        await stream.send_all(words(b"AUTH", b"admin", guess) + words(b"HELLO", b"3", b"AUTH", b"root", guess))
        if not await stream.receive_some(65536):
            return
        await one.rest()


async def subscribes(one: Mischief, stream: trio.SocketStream) -> None:
    """Subscribe to a hundred channels and patterns more, each time."""
    while True:
        names = [b"crowd:%d" % one.dice.randrange(10**9) for _ in range(100)]
        await stream.send_all(words(b"SUBSCRIBE", *names) + words(b"PSUBSCRIBE", *names[:10]))
        with trio.move_on_after(1):
            await stream.receive_some(65536)
        await one.rest(4)


async def other_protocols(one: Mischief, stream: trio.SocketStream) -> None:
    """Speak TLS or HTTP to a port that speaks neither."""
    await stream.send_all(one.dice.choice([TLS_HELLO, HTTP]))
    await one.drain(stream)


async def holds_a_link(one: Mischief, stream: trio.SocketStream) -> None:
    """Begin a transaction or wait for an event, and never come to an end."""
    await stream.send_all(one.dice.choice([words(b"MULTI"), words(b"BLPOP", b"crowd:never", b"0")]))
    await one.drain(stream)


async def unknown_commands(one: Mischief, stream: trio.SocketStream) -> None:
    """Call what does not exist, by names that never repeat, and keys that never repeat."""
    while True:
        name = b"X%d" % one.dice.randrange(10**12)
        await stream.send_all(words(name, b"a") + words(b"GET", b"crowd:" + name) + words(b"CLIENT", name))
        if not await stream.receive_some(65536):
            return
        await one.rest()


async def half_closes(one: Mischief, stream: trio.SocketStream) -> None:
    """Close the sending side behind a few commands, and keep the other open."""
    await stream.send_all(words(b"GET", b"crowd:1") * 5)
    await stream.send_eof()
    await one.drain(stream)


async def nests(one: Mischief, stream: trio.SocketStream) -> None:
    """Have Redis answer with arrays in arrays in arrays."""
    script = b"local t = {1} for i = 1, 100 do t = {t} end return t"
    while True:
        await stream.send_all(words(b"EVAL", script, b"0"))
        if not await stream.receive_some(65536):
            return
        await one.rest(4)


KINDS: dict[str, Callable[[Mischief, trio.SocketStream], Awaitable[None]]] = {
    kind.__name__: kind
    for kind in (
        silent,
        half_request,
        byte_by_byte,
        garbage,
        huge_array,
        huge_bulk,
        never_reads,
        deep_pipeline,
        reconnects,
        resets,
        wrong_passwords,
        subscribes,
        other_protocols,
        holds_a_link,
        unknown_commands,
        half_closes,
        nests,
    )
}


async def misbehave(one: Mischief, kind: Callable[[Mischief, trio.SocketStream], Awaitable[None]]) -> None:
    """Do it again and again, on one connection after the other."""
    await one.rest(one.dice.random())
    while True:
        try:
            async with await one.connect() as stream:
                await kind(one, stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        one.closed += 1
        await one.rest()


async def run(port: int, count: int, pace_s: float, seed: int, kinds: list[str]) -> None:
    """Misbehave until stdin ends; each line there is answered with what was done so far."""
    people = [(kinds[number % len(kinds)], Mischief(port, pace_s, seed + number)) for number in range(count)]
    async with trio.open_nursery() as nursery:
        for name, one in people:
            nursery.start_soon(misbehave, one, KINDS[name])
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            acted: Counter[str] = Counter()
            closed: Counter[str] = Counter()
            for name, one in people:
                acted[name] += one.acted
                closed[name] += one.closed
            print(json.dumps({"acted": acted, "closed": closed}), flush=True)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Read the flags and go."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--pace", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    options = parser.parse_args()
    trio.run(partial(run, options.port, options.count, options.pace, options.seed, options.kinds))


if __name__ == "__main__":
    main()
