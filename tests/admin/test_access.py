"""Who may listen to what: tokens of the port and of push, where they may stand, and pages from elsewhere."""

from __future__ import annotations

import attrs
import pytest
import trio

from proxy.admin.access import Visitor
from proxy.config.model import PushToken

from .fakes import Answer, FakeSource, Port, running
from .listening import HANDSHAKE, change, events, make_push, websocket

_SHOP = PushToken("sh0p", ("ticket:*", "tag:queue-?", "news"))


@pytest.mark.parametrize(
    ("patterns", "channel", "may"),
    [
        (("ticket:*",), "ticket:7", True),
        (("ticket:*",), "ticket:", True),
        (("ticket:*",), "ticket", False),
        (("ticket:*",), "ticket:7*", True),
        (("ticket:*",), "ticket:*:x", True),
        (("ticket:*",), "ticket*", False),
        (("ticket:*",), "*", False),
        (("ticket:?",), "ticket:[0-9]", True),
        (("ticket:[0-8]",), "ticket:[0-9]", False),
        (("ticket:[0-4]", "ticket:[5-9]"), "ticket:[0-9]", True),
        (("news",), "news", True),
        (("news",), "news2", False),
        (("news",), "n[e]ws", True),
        (("*",), "anything", True),
        (("*",), "*", True),
        # A tag and what Respite tells of itself are no keys.
        (("*",), "tag:x", False),
        (("*",), "respite:figures", False),
        (("tag:*",), "tag:x", True),
        (("tag:*",), "x", False),
        (("tag:q-?",), "tag:q-1", True),
        (("tag:q-?",), "tag:q-12", False),
        (("tag:a\\*",), "tag:a\\*", False),  # a tag is no glob: this one has a backslash in its name
        (("tag:a\\*",), "tag:a*", True),
        (("respite:*",), "respite:figures", True),
        (("respite:figures",), "respite:alerts", False),
        ((), "k", False),
    ],
)
def test_visitor_hears_what_the_patterns_cover(patterns: tuple[str, ...], channel: str, may: bool) -> None:
    """A key that a pattern takes; a glob, all of whose keys the patterns take together."""
    assert Visitor(PushToken("t", patterns)).may_hear(channel) is may


def test_visitor_with_the_port_s_token_hears_everything() -> None:
    """Who may ask for everything may listen to everything."""
    assert Visitor().may_hear("respite:alerts")


@pytest.mark.parametrize("token", ["", "t0k"])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /changes?channels=ticket%3A7", 200),
        ("GET /changes?channels=tag%3Aqueue-1,news", 200),
        ("GET /changes?channels=ticket%3A7,user%3A1", 403),
        ("GET /changes?channels=*", 403),
        ("GET /events?channels=user%3A1", 403),
        ("GET /ws?channels=user%3A1", 403),
        ("GET /changes?channels=", 400),
    ],
)
async def test_push_token_opens_its_channels_only(token: str, line: str, status: int) -> None:
    """One channel that is not covered, and nothing is told; which one, is said."""
    async with running(token=token, push=make_push(tokens=[_SHOP])) as port:
        answer = await port.ask(line, "Authorization: Bearer sh0p", *HANDSHAKE)

    assert answer.status == status
    if status == 403:
        assert "does not cover" in answer.json["error"]


@pytest.mark.parametrize("line", ["GET /stats.json", "GET /metrics", "GET /help", "POST /drain", "POST /invalidate"])
async def test_push_token_opens_nothing_else(line: str) -> None:
    """Who may listen may do no more."""
    source = FakeSource()
    async with running(source, token="t0k", push=make_push(tokens=[_SHOP])) as port:
        answer = await port.ask(line, "Authorization: Bearer sh0p")

    assert (answer.status, source.asked) == (403, [])


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", ["Authorization: Bearer {}"]),
        ("&access_token={}", []),
        ("", ["Sec-WebSocket-Protocol: respite, respite.token.{}"]),
        ("", ["Sec-WebSocket-Protocol: respite.token.{}"]),
    ],
)
@pytest.mark.parametrize(("token", "written"), [("sh0p", "sh0p"), ("a/b+c%", "a%2Fb%2Bc%25")])
async def test_token_may_stand_where_a_browser_can_put_it(
    query: str, headers: list[str], token: str, written: str
) -> None:
    """A page can set no header on a WebSocket: it has the query, and the list of subprotocols."""
    push = make_push(tokens=[PushToken(token, ("k",))])
    given = [header.format(token if "Bearer" in header else written) for header in headers]
    async with (
        running(token="t0k", push=push) as port,
        websocket(port, "?channels=k" + query.format(written), *given) as client,
    ):
        hello = await client.message()

    assert hello["type"] == "hello"
    if headers and "Protocol" in headers[0]:
        expected = "respite" if "respite," in headers[0] else f"respite.token.{written}"
        assert client.head.headers["sec-websocket-protocol"] == expected
    else:
        assert "sec-websocket-protocol" not in client.head.headers


@pytest.mark.parametrize("given", ["", "&access_token=", "&access_token=wrong", "&access_token=sh0p2"])
async def test_wrong_token_is_refused(given: str) -> None:
    """Without a token of any sort nobody listens, and no token comes back in an answer."""
    async with running(token="t0k", push=make_push(tokens=[_SHOP])) as port:
        answers = [
            await port.ask(f"GET {path}?channels=ticket%3A7{given}", *HANDSHAKE)
            for path in ("/ws", "/events", "/changes")
        ]

    assert [answer.status for answer in answers] == [401] * 3
    assert all("www-authenticate" in answer.headers for answer in answers)
    assert all(b"sh0p" not in answer.body for answer in answers)


async def test_token_in_the_query_opens_streams_only() -> None:
    """An address with a token in it is written to many a log: it opens no more than it must."""
    async with running(token="t0k", push=make_push()) as port:
        figures = await port.ask("GET /stats.json?access_token=t0k")
        async with events(port, "?channels=k&access_token=t0k") as client:
            assert (await client.message())["type"] == "hello"

    assert figures.status == 401


async def test_port_without_a_token_serves_this_machine_and_push_tokens() -> None:
    """On loopback without a token, a push token narrows whom it is given to; a wrong one is no token at all."""
    async with running(push=make_push(tokens=[_SHOP])) as port:
        statuses = [
            (await port.ask("GET /changes?channels=user%3A1", *headers)).status
            for headers in ([], ["Authorization: Bearer sh0p"], ["Authorization: Bearer x"])
        ]

    assert statuses == [200, 403, 401]


async def test_token_that_is_taken_away_ends_its_streams() -> None:
    """A reload without a token ends what it had opened, and nothing else."""
    push = make_push(tokens=[_SHOP, PushToken("other", ("news",))])
    async with (
        running(token="t0k", push=push) as port,
        websocket(port, "?channels=news&access_token=sh0p") as client,
        websocket(port, "?channels=news&access_token=other") as other,
        websocket(port, "?channels=news&access_token=t0k") as owner,
    ):
        for one in (client, other, owner):
            await one.message()
        push.take(attrs.evolve(push.settings, tokens=push.settings.tokens[1:]))
        closed = await client.end()
        change(push.feed, "news")
        heard = [(await one.message())["keys"] for one in (other, owner)]

    assert closed == (1008, "your token is not known any more")
    assert heard == [["news"], ["news"]]


async def test_token_that_is_taken_away_ends_its_polls() -> None:
    """Who waits with it is answered at once, and hears nothing that came after; others come again."""
    push = make_push(tokens=[_SHOP, PushToken("other", ("news",))])
    answers: dict[str, Answer] = {}

    async def wait(port: Port, token: str) -> None:
        answers[token] = await port.ask(f"GET /changes?channels=news&wait=30&access_token={token}")

    with trio.fail_after(10):
        async with running(token="t0k", push=push) as port, trio.open_nursery() as nursery:
            for token in ("sh0p", "other", "t0k"):
                nursery.start_soon(wait, port, token)
            while push.feed.subscribers < 3:
                await trio.sleep(0.001)
            push.take(attrs.evolve(push.settings, tokens=push.settings.tokens[1:]))
            change(push.feed, "news")

    assert {token: answer.status for token, answer in answers.items()} == {"sh0p": 401, "other": 200, "t0k": 200}
    assert "changes" not in answers["sh0p"].json


async def test_websocket_may_not_subscribe_to_more_than_its_token_covers() -> None:
    """What the address may not ask for, a message may not either."""
    async with (
        running(push=make_push(tokens=[_SHOP])) as port,
        websocket(port, "?channels=news", "Authorization: Bearer sh0p") as client,
    ):
        await client.message()
        await client.say({"subscribe": ["ticket:7", "user:1"]})
        refused = await client.message()
        await client.say({"subscribe": ["ticket:7"]})
        taken = await client.message()

    assert refused["type"] == "error"
    assert "user:1" in refused["error"]
    assert taken["channels"] == ["news", "ticket:7"]


@pytest.mark.parametrize("path", ["/events", "/changes", "/ws"])
async def test_page_from_elsewhere_may_not_listen(path: str) -> None:
    """A foreign page in a browser of this machine hears nothing."""
    push = make_push(origins=("https://shop.example",))
    async with running(push=push) as port:
        answer = await port.ask(f"GET {path}?channels=k", "Origin: https://evil.example", *HANDSHAKE)

    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers
    assert push.feed.subscribers == 0


async def test_page_of_a_configured_origin_may_listen() -> None:
    """A page that the operator names may read what /events and /changes answer, refusals too, and nothing else."""
    origin = "Origin: https://shop.example"
    push = make_push(origins=("https://shop.example",), tokens=[_SHOP])
    async with running(token="t0k", push=push) as port:
        polled = await port.ask("GET /changes?channels=news&access_token=sh0p", origin)
        refused = await port.ask("GET /changes?channels=news", origin)
        figures = await port.ask("GET /stats.json", origin, "Authorization: Bearer t0k")
        async with events(port, "?channels=news&access_token=sh0p", origin) as client:
            await client.message()

    assert (polled.status, refused.status) == (200, 401)
    for answer in (polled, refused, client.head):
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in figures.headers


async def test_page_of_a_configured_origin_may_listen_without_a_token_where_none_is_set() -> None:
    """The name it is reached by must still be this machine's own."""
    origin = "Origin: https://shop.example"
    async with running(push=make_push(origins=("https://shop.example",))) as port:
        local = await port.ask("GET /changes?channels=k", origin)
        figures = await port.ask("GET /stats.json", origin)
        raw = await port.talk(b"GET /changes?channels=k HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n")

    assert (local.status, figures.status) == (200, 403)
    assert b" 403 " in raw.partition(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/events", "/changes", "/ws"])
async def test_page_of_a_configured_origin_wants_a_token_once_there_are_push_tokens(path: str) -> None:
    """Where tokens say who may hear what, no page hears all for having none; respite.js is told that one is wanted."""
    origin = "Origin: https://shop.example"
    push = make_push(origins=("https://shop.example",), tokens=[_SHOP])
    async with running(push=push) as port:
        without = await port.ask(f"GET {path}?channels=*", origin, *HANDSHAKE)
        narrow = await port.ask(f"GET {path}?channels=*", origin, "Authorization: Bearer sh0p", *HANDSHAKE)
        polled = await port.ask("GET /changes?channels=news&access_token=sh0p", origin)
        program = await port.ask("GET /changes?channels=*")
        evil = await port.ask(f"GET {path}?channels=*", "Origin: https://evil.example", *HANDSHAKE)

    assert (without.status, narrow.status, polled.status, program.status, evil.status) == (401, 403, 200, 200, 403)
    assert without.headers["access-control-allow-origin"] == "https://shop.example"


async def test_refusal_names_the_first_few_channels() -> None:
    """However many are asked for, and however long their names are, the answer is a line."""
    names = [f"{'x' * 300}{number}" for number in range(20)]
    async with running(push=make_push(tokens=[_SHOP])) as port:
        polled = await port.ask(f"GET /changes?channels={','.join(names)}", "Authorization: Bearer sh0p")
        async with websocket(port, "?channels=news", "Authorization: Bearer sh0p") as client:
            await client.message()
            await client.say({"subscribe": names})
            refused = await client.message()

    for answer in (polled.json, refused):
        assert answer["error"].startswith("your token does not cover xxx")
        assert answer["error"].endswith(" and 17 more")
        assert len(answer["error"]) < 400


@pytest.mark.parametrize(("origin", "status"), [("https://shop.example", 204), ("https://evil.example", 401)])
async def test_browser_that_asks_before_it_asks_is_answered(origin: str, status: int) -> None:
    """A browser asks, without a token, whether it may send one."""
    async with running(token="t0k", push=make_push(origins=("https://shop.example",))) as port:
        answer = await port.ask(
            "OPTIONS /events?channels=k", f"Origin: {origin}", "Access-Control-Request-Headers: authorization"
        )

    assert answer.status == status
    if status == 204:
        assert answer.headers["access-control-allow-headers"] == "Authorization, Last-Event-ID"
        assert answer.headers["access-control-allow-methods"] == "GET"
