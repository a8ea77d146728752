"""Clients that come, ask for anything and vanish in the middle leave nothing behind and disturb nobody."""

from __future__ import annotations

import random
import socket
import threading
import time

import pytest

from .contract import is_alive
from .raw import encode, encode_all
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

WORK: tuple[bytes, ...] = (
    encode_all([("GET", "hot")] * 50),
    encode_all([("SET", "k", "v"), ("GET", "k"), ("MGET", "k", "hot", "none")]),
    encode_all([("MULTI",), ("SET", "k", "x"), ("GET", "hot")]),
    encode_all([("WATCH", "hot"), ("MULTI",), ("GET", "hot"), ("EXEC",)]),
    encode("BLPOP", "never", 0),
    encode_all([("BLPOP", "never", "0.05"), ("GET", "hot")]),
    encode_all([("SUBSCRIBE", "a", "b"), ("PING",), ("UNSUBSCRIBE", "a")]),
    encode_all([("PSUBSCRIBE", "*"), ("RESET",), ("GET", "hot")]),
    encode("MONITOR"),
    encode_all([("CLIENT", "REPLY", "OFF"), ("SET", "k", "muted"), ("CLIENT", "REPLY", "SKIP"), ("GET", "hot")]),
    encode_all([("HELLO", "3"), ("CLIENT", "TRACKING", "ON"), ("GET", "hot")]),
    encode_all([("SELECT", "3"), ("SET", "hot", "three"), ("SELECT", "0"), ("GET", "hot")]),
    encode_all([("GET", "large")] * 3),
    encode_all([("SET", "sink", b"v" * 300_000), ("GET", "large")]),
    encode_all([("EVAL", "return redis.call('GET', 'hot')", "0"), ("XREAD", "BLOCK", "0", "STREAMS", "s", "$")]),
    encode_all([("AUTH", "nobody", "x"), ("HELLO", "3", "AUTH", "nobody", "x"), ("QUIT",), ("GET", "hot")]),
    b"GET hot\r\nPING\r\n" * 20,
    b"*2\r\n$3\r\nGET\r\n$99999999\r\n" + b"x" * 5000,
    b"*1\r\n+OK\r\n",
    bytes(range(256)) * 8,
)


def vanish(respite: Respite, rng: random.Random) -> None:
    """Connect, send some of the work, perhaps read some of the replies, and leave, at times with a reset."""
    with socket.create_connection(("127.0.0.1", respite.port), timeout=5) as client:
        data = b"".join(rng.choices(WORK, k=rng.randint(1, 4)))
        try:
            client.sendall(data[: rng.randint(1, len(data))])
            if rng.random() < 0.5:
                client.settimeout(rng.choice((0.001, 0.01, 0.05)))
                client.recv(rng.choice((1, 100, 100_000)))
            if rng.random() < 0.2:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            return
        if rng.random() < 0.3:
            # Linger 0: closing sends a reset instead of an end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.long("valkey9")
def test_vanishing_clients_leave_nothing_behind(kind: Kind) -> None:
    """After a thousand of them: no client, no block, no subscription, no reply owed; a neighbour never noticed."""
    with (
        Server(kind) as server,
        running_respite({"upstream": {"url": server.url}}) as respite,
        respite.connect() as neighbour,
    ):
        neighbour.command("SET", "large", b"v" * 2_000_000)
        wrong: list[str] = []
        is_over = threading.Event()

        def live() -> None:
            while not is_over.is_set():
                started = time.monotonic()
                if not is_alive(neighbour, key="neighbour") or time.monotonic() - started > 3:
                    wrong.append(f"after {time.monotonic() - started:.2f} s")
                    return

        threads = [threading.Thread(target=live)]
        threads += [threading.Thread(target=_vanish_often, args=[respite, seed, 250]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads[1:]:
            thread.join()
        is_over.set()
        threads[0].join()

        assert wrong == []
        wait_for(lambda: respite.stats()["clients"]["connected"] == 1, what="only the neighbour is left")
        wait_for(lambda: server.info("blocked_clients") == "0", what="no blocked client")
        wait_for(lambda: not server.channels, what="no subscription")
        wait_for(lambda: sum(link["outstanding"] for link in respite.stats()["links"]) == 0, what="no reply owed")
        assert is_alive(neighbour)
        assert "Traceback" not in respite.errors


def _vanish_often(respite: Respite, seed: int, times: int) -> None:
    rng = random.Random(seed)
    for _ in range(times):
        vanish(respite, rng)


def test_killed_links_are_replaced_under_load(kind: Kind) -> None:
    """While every connection of Respite is killed again and again, replies are right or one of the promised errors."""
    with Server(kind) as server, running_respite({"upstream": {"url": server.url}}) as respite:
        is_over = threading.Event()
        wrong: list[bytes] = []

        def work(number: int) -> None:
            with respite.connect() as client:
                value = 0
                while not is_over.is_set():
                    value += 1
                    written = client.command("SET", f"w{number}", value)
                    read = client.command("GET", f"w{number}")
                    is_known = written == b"+OK\r\n"
                    if not is_known and not written.startswith(b"-ERR respite: upstream"):
                        wrong.append(written)
                    if read[:1] == b"$" and is_known and read != b"$%d\r\n%d\r\n" % (len(str(value)), value):
                        wrong.append(b"wrote %d, read %b" % (value, read))

        threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        with server.connect() as admin:
            for _ in range(25):
                time.sleep(0.06)
                admin.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        is_over.set()
        for thread in threads:
            thread.join(10)

        assert wrong == []
        with respite.connect() as client:
            wait_for(lambda: is_alive(client), what="service after the last kill")
            assert "Traceback" not in respite.errors
