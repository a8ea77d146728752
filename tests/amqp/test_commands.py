"""`respite dlq` and `respite events tail` at a real broker, as somebody types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import IO

import attrs
import pytest
import trio
from click.testing import CliRunner, Result
from pamqp.commands import Basic

from proxy.amqp.connection import connect
from proxy.cli.main import cli
from proxy.config.model import Amqp

from .broker import RabbitMq
from .conftest import Names
from .test_desk import bury, letter, settings_for, take_all

_DEADLINE_S = 60.0


@attrs.frozen
class Desk:
    """A broker with names of a test, and the commands at it."""

    amqp: Amqp
    config: str

    def type_in(self, *words: str, answer: str | None = None) -> Result:
        """Run `respite` with words, and answer its question."""
        result = CliRunner().invoke(cli, [*words, "-c", self.config], input=answer, prog_name="respite")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def numbers(self) -> list[int]:
        """Return the numbers of the letters that are there."""
        letters = json.loads(self.type_in("dlq", "list", "--json").stdout)["letters"]
        return [int(one["reason"].removeprefix("reason ")) for one in letters]


def make_desk(broker: RabbitMq, names: Names, directory: str, *letters: tuple[bytes, Basic.Properties]) -> Desk:
    """Declare everything, bury letters, and write the configuration that a person would name."""
    path = f"{directory}/respite.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'[amqp]\nurl = "{broker.url}"\nexchange = "{names.exchange}"\nqueue = "{names.queue}"\n'
            f'dead_letter_queue = "{names.dead}"\n'
            '[[event]]\nrouting_key = "ticket.#"\nkeys = ["ticket:{body.n}"]\n'
        )
    amqp = settings_for(broker, names)
    trio.run(partial(bury, amqp, *letters))
    return Desk(amqp, path)


@pytest.fixture
def desk(rabbitmq: RabbitMq, names: Names, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk with five letters."""
    for name in ("RESPITE_AMQP", "RESPITE_CONFIG", "RESPITE_UPSTREAM", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return make_desk(rabbitmq, names, os.fspath(tmp_path), *(letter(number) for number in range(5)))


def test_list_has_a_line_a_letter(desk: Desk) -> None:
    """Place, id, size, routing key and reason, and how many there are beyond the limit."""
    result = desk.type_in("dlq", "list", "--limit", "2")

    head, first, _, note = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert head.split() == ["no", "id", "size", "routing", "key", "reason"]
    assert first.split()[0] == "1"
    assert first.endswith("8 B  ticket.0     reason 0")
    assert note == f"2 of 5 in {desk.amqp.dead_letter_queue}; --limit N shows more"


def test_list_of_nothing_says_so(rabbitmq: RabbitMq, names: Names, tmp_path: os.PathLike[str]) -> None:
    """An empty queue is no error; a letter that is not there is."""
    desk = make_desk(rabbitmq, names, os.fspath(tmp_path))

    empty, none = desk.type_in("dlq", "list"), desk.type_in("dlq", "list", "3")

    assert (empty.exit_code, empty.stdout) == (0, f"no dead letters in {names.dead}\n")
    assert (none.exit_code, none.stdout) == (1, "")
    assert "there is no letter 3" in none.stderr
    assert desk.type_in("dlq", "replay", "--all").stdout == "replayed 0 letters, 0 letters left\n"
    assert desk.type_in("dlq", "drop", "--all").stdout == "dropped 0 letters, 0 letters left\n"


def test_show_tells_why_it_died_and_what_it_would_be_now(desk: Desk) -> None:
    """Facts, headers that are not ours, the event it would be by the rules of today, and the body."""
    result = desk.type_in("dlq", "show", "3")

    assert result.exit_code == 0
    for words in ("reason 2", "ticket.2", "attempts          5", "m2", "key        ticket:2  no class", '    "n": 2'):
        assert words in result.stdout
    assert "respite-attempt" not in result.stdout


def test_show_body_is_byte_for_byte(desk: Desk) -> None:
    """--body gives it to another program as it is, also where it is no text."""
    trio.run(bury, desk.amqp, letter(5, b"\xff\x00\x1b[2J"))

    assert desk.type_in("dlq", "show", "6", "--body").stdout_bytes == b"\xff\x00\x1b[2J"
    assert "0000  ff 00 1b 5b" in desk.type_in("dlq", "show", "6").stdout
    assert json.loads(desk.type_in("dlq", "show", "6", "--json").stdout)["body"] == "\udcff\x00\x1b[2J"


def test_show_of_a_letter_that_is_not_there_is_exit_code_1(desk: Desk) -> None:
    """By place or id, it says how to find those that are."""
    for word in ("6", "0123456789"):
        result = desk.type_in("dlq", "show", word)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"there is no letter {word}; `respite dlq list`" in result.stderr


def test_replay_sends_places_and_ids(desk: Desk) -> None:
    """A range and an id in one go; the rest stays in its order."""
    fifth = json.loads(desk.type_in("dlq", "show", "5", "--json").stdout)["id"]

    result = desk.type_in("dlq", "replay", "2-3", fifth)

    assert (result.exit_code, result.stdout) == (0, "replayed 3 letters, 2 letters left\n")
    assert desk.numbers() == [0, 3]
    assert len(trio.run(take_all, desk.amqp, desk.amqp.queue)) == 3


def test_replay_limit_is_the_oldest(desk: Desk) -> None:
    """--all with --limit goes through a backlog in pieces."""
    result = desk.type_in("dlq", "replay", "--all", "--limit", "2", "--json")

    assert json.loads(result.stdout) == {
        "finished": True, "total": 5, "replayed": 2, "refused": 0, "left": 3, "reasons": []
    }  # fmt: skip
    assert desk.numbers() == [2, 3, 4]


def test_replay_that_the_broker_refuses_is_exit_code_1(desk: Desk) -> None:
    """Somebody deleted the queue: nothing is lost, and each letter says why it stays."""

    async def delete() -> None:
        async with connect(desk.amqp.urls[0], context=None, name="test", timeout_s=20) as connection:
            await (await connection.channel()).delete_queue(desk.amqp.queue)

    trio.run(delete)

    result = desk.type_in("dlq", "replay", "--all")

    assert (result.exit_code, result.stdout) == (1, "replayed 0 letters, 5 letters left\n")
    assert "the broker did not take 5 letters; they stay" in result.stderr
    assert "no queue takes the message" in result.stderr
    assert desk.numbers() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_drop_asks_and_without_a_yes_does_nothing(desk: Desk, answer: str) -> None:
    """It shows what would go; no, nothing, and no terminal at all are a no."""
    result = desk.type_in("dlq", "drop", "1-2", answer=answer)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "ticket.1" in result.stderr
    assert f"Drop 2 letters of {desk.amqp.dead_letter_queue} for good?" in result.stderr
    assert desk.numbers() == [0, 1, 2, 3, 4]


def test_drop_takes_what_was_shown_whatever_went_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it asks, somebody replays the first letter: the places have changed, the letters that go have not."""

    def confirm(*_words: object, **_options: object) -> bool:
        assert desk.type_in("dlq", "replay", "1").exit_code == 0
        return True

    monkeypatch.setattr("click.confirm", confirm)

    result = desk.type_in("dlq", "drop", "1", "3")

    assert (result.exit_code, result.stdout) == (0, "dropped 1 letter, 3 letters left\n")
    assert desk.numbers() == [1, 3, 4]


def test_drop_yes_does_not_ask(desk: Desk) -> None:
    """For scripts."""
    result = desk.type_in("dlq", "drop", "--all", "--yes")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "dropped 5 letters, 0 letters left\n", "")
    assert desk.numbers() == []


@pytest.fixture
def watch() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return a list of processes that end with the test."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def _tail(running: list[subprocess.Popen[bytes]], desk: Desk, *words: str) -> subprocess.Popen[bytes]:
    """Start `respite events tail` and wait until it watches."""
    command = [sys.executable, "-m", "proxy", "events", "tail", "-c", desk.config, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.append(process)
    assert b"watching" in _next(process.stderr)
    return process


def _next(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(int(_DEADLINE_S))
    try:
        return stream.readline()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


async def _publish(amqp: Amqp, routing_key: str, body: bytes) -> None:
    async with connect(amqp.urls[0], context=None, name="test", timeout_s=20) as connection:
        channel = await connection.channel()
        await channel.publish(amqp.exchange, routing_key, body, Basic.Properties())


def test_tail_shows_events_beside_the_proxies_and_ends_quietly(
    rabbitmq: RabbitMq, desk: Desk, watch: list[subprocess.Popen[bytes]]
) -> None:
    """A line an event, what it is or why not; the proxies' queue gets each as well; Ctrl-C leaves no queue behind."""
    process = _tail(watch, desk)
    trio.run(_publish, desk.amqp, "ticket.new", b'{"n": 7}')
    trio.run(_publish, desk.amqp, "other\x1b[2J", b"\xff")

    first, second = _next(process.stdout).decode(), _next(process.stdout).decode()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=_DEADLINE_S)

    assert first.split()[1:] == ["ticket.new", "keys", "ticket:7"]
    assert second.split()[1:4] == ["other\\x1b[2J", "no", "event:"]
    assert (process.returncode, out, err) == (0, b"", b"")
    assert len(trio.run(take_all, desk.amqp, desk.amqp.queue)) == 2
    assert "amq.gen" not in rabbitmq.ctl("list_queues", "name")


def test_tail_json_is_a_line_an_event_of_the_keys_asked_for(desk: Desk, watch: list[subprocess.Popen[bytes]]) -> None:
    """A script reads one object a line; only what --routing-key takes comes."""
    process = _tail(watch, desk, "--json", "--routing-key", "ticket.*")
    trio.run(_publish, desk.amqp, "other", b'{"keys": ["a"]}')
    trio.run(_publish, desk.amqp, "ticket.new", b'{"n": 7}')

    seen = json.loads(_next(process.stdout))

    assert (seen["routing_key"], seen["keys"], seen["reason"]) == ("ticket.new", ["ticket:7"], "")


def test_tail_goes_on_when_the_broker_is_back(
    rabbitmq_own: RabbitMq, names: Names, tmp_path: os.PathLike[str], watch: list[subprocess.Popen[bytes]]
) -> None:
    """A broker that is killed is told of once, so is its return; events after it are shown."""
    desk = make_desk(rabbitmq_own, names, os.fspath(tmp_path))
    process = _tail(watch, desk)
    rabbitmq_own.kill()
    lost = _next(process.stderr)
    rabbitmq_own.start()
    back = _next(process.stderr)
    trio.run(_publish, desk.amqp, "ticket.new", b'{"n": 7}')

    shown = _next(process.stdout)
    process.send_signal(signal.SIGTERM)

    assert lost.startswith(b"respite: the watch is interrupted")
    assert back == b"respite: the broker answers again; what was published meanwhile was not seen\n"
    assert b"keys ticket:7" in shown
    assert process.wait(_DEADLINE_S) == 0


def test_tail_into_a_pipe_that_closes_ends_without_a_traceback(
    desk: Desk, watch: list[subprocess.Popen[bytes]]
) -> None:
    """`respite events tail | head -1`."""
    process = _tail(watch, desk)
    assert process.stdout is not None
    process.stdout.close()
    trio.run(_publish, desk.amqp, "ticket.new", b'{"n": 7}')
    trio.run(_publish, desk.amqp, "ticket.new", b'{"n": 8}')

    assert process.wait(_DEADLINE_S) == 1
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stdout = None
