"""/changes: for clients that cannot be told and must ask."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from proxy.admin.http import Limits
from proxy.admin.polling import read_channels
from proxy.core.feed.feed import CHANNELS_MAX, FeedError

from .fakes import Answer, Port, read_all, running
from .listening import change, make_push


async def test_changes_are_told_from_a_cursor_on() -> None:
    """The first answer is a cursor; the next ones are what came after it, each once, and when to ask again."""
    push = make_push()
    async with running(push=push) as port:
        first = (await port.ask("GET /changes?channels=a,b")).json
        start = push.feed.cursor
        change(push.feed, "a")
        change(push.feed, "b")
        second = (await port.ask(f"GET /changes?channels=a,b&since={first['cursor']}")).json
        third = (await port.ask(f"GET /changes?channels=a,b&since={second['cursor']}")).json

    assert first == {"cursor": start, "complete": True, "poll_after_ms": 10_000, "changes": []}
    assert [update["keys"] for update in second["changes"]] == [["a"], ["b"]]
    assert (third["cursor"], third["changes"], third["complete"]) == (push.feed.cursor, [], True)


async def test_changes_of_a_stale_cursor_are_told_to_be_incomplete() -> None:
    """Who comes with a cursor of another life fetches anew."""
    push = make_push()
    async with running(push=push) as port:
        answer = (await port.ask("GET /changes?channels=a&since=other-3")).json

    assert answer["complete"] is False
    assert [message["type"] for message in answer["changes"]] == ["lost"]
    assert answer["cursor"] == push.feed.cursor


async def test_changes_of_as_many_channels_as_may_be_are_told() -> None:
    """As long as keys often are: who took them up over a WebSocket comes back with all of them in the address."""
    channels = [f"tenant%3A{number:036d}%3Aticket%3A{number:036d}" for number in range(CHANNELS_MAX)]
    async with running(push=make_push()) as port:
        answer = await port.ask(f"GET /changes?channels={','.join(channels)}")

    assert (answer.status, answer.json["changes"]) == (200, [])


async def test_changes_are_answered_once_they_will_be_heard_of() -> None:
    """The first cursor is a promise: it is given when changes are listened for."""
    push = make_push()
    push.feed.watched(None)
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await port.ask("GET /changes?channels=a"))

    async with running(push=push) as port, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with trio.fail_after(10):
            while not push.feed.subscribers:
                await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        early = list(answers)
        push.feed.watched([b""])

    assert early == []
    assert answers[0].json["complete"] is True


async def test_changes_that_are_many_come_in_parts() -> None:
    """An answer is bounded; who has more to hear is told to ask again at once."""
    push = make_push()
    async with running(push=push) as port:
        cursor = (await port.ask("GET /changes?channels=a")).json["cursor"]
        for _ in range(1500):
            change(push.feed, "a")
        counts, waits = [], []
        for _ in range(3):
            answer = (await port.ask(f"GET /changes?channels=a&since={cursor}")).json
            cursor = answer["cursor"]
            counts.append(len(answer["changes"]))
            waits.append(answer["poll_after_ms"])

    assert counts == [1000, 500, 0]
    assert waits[0] == 0
    assert min(waits[1:]) > 0


async def _wait(port: Port, answers: list[Answer], seconds: float) -> None:
    cursor = (await port.ask("GET /changes?channels=a")).json["cursor"]
    answers.append(await port.ask(f"GET /changes?channels=a&since={cursor}&wait={seconds}"))


async def test_changes_with_wait_come_when_they_happen() -> None:
    """A poll may wait for the first change, and takes no place of other connections meanwhile."""
    push = make_push()
    answers: list[Answer] = []
    async with running(push=push, limits=Limits(max_connections=1)) as port, trio.open_nursery() as nursery:
        for count in (1, 2):
            nursery.start_soon(_wait, port, answers, 30)
            while push.feed.subscribers < count:
                await trio.sleep(0.001)
        serves = await port.still_serves()
        change(push.feed, "a")

    assert serves
    assert [[update["keys"] for update in answer.json["changes"]] for answer in answers] == [[["a"]], [["a"]]]


async def test_changes_with_wait_that_see_none_say_so() -> None:
    """The wait ends; what it did not hear is no error."""
    answers: list[Answer] = []
    async with running(push=make_push()) as port:
        await _wait(port, answers, 0.05)

    assert (answers[0].status, answers[0].json["changes"]) == (200, [])


async def test_changes_with_wait_end_with_their_client() -> None:
    """Nobody is waited for who has gone."""
    push = make_push()
    async with running(push=push) as port:
        await port.ask("GET /changes?channels=a")
        async with await port.connect() as socket:
            await socket.send_all(b"GET /changes?channels=a&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(10):
                while not push.feed.subscribers:
                    await trio.sleep(0.001)
        with trio.fail_after(10):
            while push.feed.subscribers:
                await trio.sleep(0.001)


async def test_changes_with_wait_are_answered_when_the_proxy_goes() -> None:
    """A wait ends with an answer, at once; what has not changed is no error."""
    push = make_push()
    answers: list[Answer] = []
    async with running(push=push) as port:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait, port, answers, 30)
                while not push.feed.subscribers:
                    await trio.sleep(0.001)
                push.stop()

    assert [(answer.status, answer.json["changes"]) for answer in answers] == [(200, [])]


async def test_changes_that_are_not_heard_of_yet_are_answered_when_the_proxy_goes() -> None:
    """The wait for what will be heard of ends, too."""
    push = make_push()
    push.feed.watched(None)
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await port.ask("GET /changes?channels=a"))

    async with running(push=push) as port:
        with trio.fail_after(1):  # and not after the 2 s that it may take
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                while not push.feed.subscribers:
                    await trio.sleep(0.001)
                push.stop()

    assert [answer.status for answer in answers] == [200]


@pytest.mark.parametrize("wait", ["", "&wait=30"])
async def test_changes_are_answered_to_who_says_no_more(wait: str) -> None:
    """A peer that closes its half behind its request reads its answer, and is not waited with."""
    push = make_push()
    async with running(push=push) as port, await port.connect() as socket:
        push.feed.watched(None)
        await socket.send_all(f"GET /changes?channels=a{wait} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await socket.send_eof()
        with trio.fail_after(10):
            while not push.feed.subscribers:
                await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        push.feed.watched([b""])
        answer = Answer.of(await read_all(socket))

    assert (answer.status, answer.json["changes"]) == (200, [])


async def test_changes_asked_for_by_a_whole_url_may_take_long() -> None:
    """The form of the target changes nothing: the wait takes no place of other connections."""
    push = make_push()
    async with running(push=push, limits=Limits(max_connections=1)) as port:
        async with await port.connect() as socket:
            await socket.send_all(
                b"GET http://localhost/changes?channels=a&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            with trio.fail_after(10):
                while not push.feed.subscribers:
                    await trio.sleep(0.001)
            serves = await port.still_serves()
        with trio.fail_after(10):
            while push.feed.subscribers:
                await trio.sleep(0.001)

    assert serves


@pytest.mark.parametrize("wait", ["soon", "nan", "-1"])
async def test_changes_with_a_wait_that_is_none(wait: str) -> None:
    """A wait is a number of seconds."""
    async with running(push=make_push()) as port:
        answer = await port.ask(f"GET /changes?channels=a&wait={wait}")

    assert answer.status == 400
    assert "seconds" in answer.json["error"]


def test_read_channels_takes_each_once() -> None:
    """Channels come from all values, in their order."""
    assert read_channels(["b,a", "a,,%61", "%2C"]) == ["b", "a", ","]


@pytest.mark.parametrize("value", ["%", "a%2", "%gg"])
def test_read_channels_badly_encoded_raises(value: str) -> None:
    """A broken escape is no byte."""
    with pytest.raises(FeedError, match="badly encoded"):
        read_channels([value])
