"""Commands that look at bytes, on keys that others write as fast as they can: each sees a plain value, whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import redis

from .servers import Kind, Server
from .targets import running_respite

SETTINGS: Final[dict[str, Any]] = {
    "compression": {"min_bytes": "100B", "time_share": 1.0},
    "class": [
        {"name": "versioned", "match": ["v:*"], "version": True},
        {"name": "compressed", "match": ["c:*"], "compress": True, "version": True},
    ],
}
TIMES: Final = 150
LENGTHS: Final = (400, 401, 402)


@pytest.fixture(scope="module")
def port(redis7: Kind) -> Iterator[int]:
    """Run a server, and a proxy before it."""
    with Server(redis7) as server, running_respite({"upstream": {"url": server.url}, **SETTINGS}) as respite:
        yield respite.port


@contextmanager
def writing(port: int, key: str) -> Iterator[None]:
    """Have a key written without a pause, by a client of its own: text, of one of three lengths."""
    stop = threading.Event()

    def write() -> None:
        with redis.Redis(port=port) as client:
            number = 0
            while not stop.is_set():
                number += 1
                client.set(key, b"abcd " * 80 + b"x" * (number % len(LENGTHS)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def at_once(client: redis.Redis, key: str) -> list[Any]:
    """Ask for its length."""
    return [client.strlen(key)]


def in_multi(client: redis.Redis, key: str) -> list[Any]:
    """Ask for its length in a transaction."""
    with client.pipeline(transaction=True) as pipeline:
        return list(pipeline.strlen(key).getrange(key, 0, 3).execute())


def in_multi_that_watches(client: redis.Redis, key: str) -> list[Any]:
    """Change it in a transaction of a session that watches something else, and read it."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch("other")
        pipeline.multi()
        length, value = pipeline.append(key, "!").get(key).execute()
        assert len(value) == length, value
        assert value[-1:] == b"!"
        return [len(value.rstrip(b"!")), value[:4]]


def while_it_watches(client: redis.Redis, key: str) -> list[Any]:
    """Ask for its length in a session that watches something else."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch("other")
        return [pipeline.strlen(key), pipeline.getrange(key, 0, 3)]


def test_script_of_a_session_that_watches_runs_as_it_is(port: int) -> None:
    """A script can run no other: only commands are put into one of ours."""
    with redis.Redis(port=port) as client, client.pipeline(transaction=True) as pipeline:
        client.set("v:script", b"abcd")
        pipeline.watch("other")
        assert pipeline.eval("return redis.call('STRLEN', KEYS[1])", 1, "v:script") == 4
        assert pipeline.append("v:script", "e") == 5
        assert pipeline.rename("v:script", "plain") is True
    with redis.Redis(port=port) as client:
        assert client.get("plain") == b"abcde"


@pytest.mark.parametrize("look", [at_once, in_multi, in_multi_that_watches, while_it_watches])
@pytest.mark.parametrize("key", ["v:hot", "c:hot"])
def test_command_on_a_busy_key_sees_a_plain_value(
    port: int, key: str, look: Callable[[redis.Redis, str], list[Any]]
) -> None:
    """No length of an envelope, no piece of one, no value that is damaged by it, and no error."""
    with redis.Redis(port=port) as client:
        client.set(key, b"abcd " * 80)
        client.set("other", "x")
        with writing(port, key):
            seen = [look(client, key) for _ in range(TIMES)]
        whole = client.get(key)
    assert isinstance(whole, bytes)

    lengths = {one[0] for one in seen}
    assert lengths <= set(LENGTHS), lengths
    assert {one[1] for one in seen if len(one) > 1} <= {b"abcd"}
    assert whole.startswith(b"abcd ")
