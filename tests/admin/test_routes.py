"""What the admin port answers, asked without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.admin.answers import Request, Response
from proxy.admin.routes import ROUTES, Site, respond
from proxy.errors import RemoteError
from proxy.events.event import Event

from .fakes import STATS, FakeSource

_TOKEN = "s3cret"


async def _ask(
    line: str, source: FakeSource | None = None, token: str = "", headers: dict[str, str] | None = None
) -> Response:
    method, _, target = line.partition(" ")
    return await respond(Request(method, target, headers or {}), Site(source or FakeSource(), token))


def _json(response: Response) -> Any:
    assert response.content_type == "application/json"
    return json.loads(response.body)


async def test_respond_index_lists_every_path() -> None:
    """The page for somebody who opens the port in a browser names all there is."""
    response = await _ask("GET /help")

    assert response.status == 200
    assert response.content_type.startswith("text/plain")
    assert all(route.path in response.body.decode() for route in ROUTES)


async def test_respond_healthz_says_alive_though_not_ready() -> None:
    """Alive is not ready: a proxy whose Redis is away must not be restarted for it."""
    response = await _ask("GET /healthz", FakeSource(is_ready=False))

    assert (response.status, _json(response)) == (200, {"alive": True})


@pytest.mark.parametrize(
    ("is_ready", "status", "reason"), [(True, 200, "serving"), (False, 503, "upstream unavailable")]
)
async def test_respond_readyz_says_whether_and_why(is_ready: bool, status: int, reason: str) -> None:
    """Readiness is a status for probes and a reason for people."""
    response = await _ask("GET /readyz", FakeSource(is_ready=is_ready))

    assert (response.status, _json(response)) == (status, {"ready": is_ready, "reason": reason})


async def test_respond_stats_is_the_source_s_own() -> None:
    """/stats.json is what the proxy says, unchanged."""
    assert _json(await _ask("GET /stats.json")) == STATS


async def test_respond_stats_that_are_no_json_raise() -> None:
    """A figure that is NaN is a mistake to be seen, not sent."""
    with pytest.raises(ValueError, match="JSON"):
        await _ask("GET /stats.json", FakeSource(answers={"hit_rate": float("nan")}))


async def test_respond_metrics_is_prometheus_text() -> None:
    """/metrics says which format it is in."""
    response = await _ask("GET /metrics")

    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"respite_commands_total 3.0\n" in response.body


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("key=user%3A1", b"user:1"),
        ("key=user:1", b"user:1"),
        ("key=a+b", b"a+b"),
        ("key=%00%ff%0A", b"\x00\xff\n"),
        ("key=a%26b%3Dc", b"a&b=c"),
        ("key=a=b", b"a=b"),
        ("key=", b""),
        ("key", b""),
        ("other=1&key=k", b"k"),
    ],
)
async def test_respond_explain_takes_a_key_of_any_bytes(query: str, key: bytes) -> None:
    """Every byte of a key can be asked for, and + stands for itself."""
    source = FakeSource()

    response = await _ask(f"GET /explain.json?{query}", source)

    assert response.status == 200
    assert source.asked == [key]


@pytest.mark.parametrize("query", ["", "?", "?k=1", "?key=a&key=b", "?key=%zz", "?key=%f", "?key=%"])
async def test_respond_explain_without_one_whole_key_says_how(query: str) -> None:
    """A key that is missing, doubled or badly encoded is refused with an example, and nothing is looked up."""
    source = FakeSource()

    response = await _ask(f"GET /explain.json{query}", source)

    assert (response.status, source.asked) == (400, [])
    assert "/explain.json?key=" in _json(response)["help"]


@pytest.mark.parametrize(("problems", "status"), [([], 200), (["listen.prt: no such key"], 422)])
async def test_respond_reload_says_what_was_done_or_wrong(problems: list[str], status: int) -> None:
    """A reload answers with its outcome; a file with problems is an error to scripts, with the same body."""
    outcome = {"applied": ["l1.max_bytes"], "needs_restart": [], "problems": problems}

    response = await _ask("POST /reload", FakeSource(reloaded=outcome))

    assert (response.status, _json(response)) == (status, outcome)


async def test_respond_drain_is_answered_before_it_begins() -> None:
    """The drain itself is left for after the answer, which it would otherwise cut off."""
    source = FakeSource()

    response = await _ask("POST /drain", source)

    assert (response.status, source.asked) == (202, [])
    assert response.after is not None
    response.after()
    assert source.asked == ["drain"]


@pytest.mark.parametrize("target", ["/nope", "/stats", "/stats.json/", "//", "*", "/%2e%2e/etc/passwd", ""])
async def test_respond_unknown_path_lists_what_exists(target: str) -> None:
    """A wrong path is answered with the right ones."""
    response = await _ask(f"GET {target}")

    assert response.status == 404
    assert "GET /stats.json" in _json(response)["paths"]
    assert "POST /drain" in _json(response)["paths"]


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("POST /stats.json", "GET, HEAD"),
        ("DELETE /healthz", "GET, HEAD"),
        ("OPTIONS /metrics", "GET, HEAD"),
        ("CONNECT /metrics", "GET, HEAD"),
        ("GET /drain", "POST"),
        ("HEAD /reload", "POST"),
        ("get /metrics", "GET, HEAD"),
    ],
)
async def test_respond_wrong_method_names_the_right_ones(line: str, allow: str) -> None:
    """A wrong method is refused and does nothing."""
    source = FakeSource()

    response = await _ask(line, source)

    assert (response.status, dict(response.headers), source.asked) == (405, {"Allow": allow}, [])
    assert "GET /stats.json" in _json(response)["paths"]


async def test_respond_head_is_answered_as_get() -> None:
    """HEAD gets what GET gets; leaving out the body is the sender's work."""
    assert await _ask("HEAD /stats.json") == await _ask("GET /stats.json")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1:6390/readyz", 200),
        ("http://127.0.0.1:6390?x", 200),
        ("http://[bad/readyz", 400),
    ],
)
async def test_respond_absolute_target_is_read_as_its_path(target: str, status: int) -> None:
    """The absolute form, which proxies send, is understood; one that is no URL is refused."""
    assert (await _ask(f"GET {target}")).status == status


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {_TOKEN}", _TOKEN, f"Bearer {_TOKEN}x", "Bearer \xe9\xff"],
)
@pytest.mark.parametrize(
    "line", ["GET /help", "GET /stats.json", "POST /drain", "GET /nope", "PUT /metrics", "GET /readyz"]
)
async def test_respond_without_the_token_is_refused(line: str, given: str | None) -> None:
    """Where a token is set nobody without it learns anything, not even which paths exist."""
    source = FakeSource()

    response = await _ask(line, source, _TOKEN, {} if given is None else {"authorization": given})

    assert (response.status, source.asked) == (401, [])
    assert ("WWW-Authenticate", 'Bearer realm="respite"') in response.headers
    assert _TOKEN.encode() not in response.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_respond_with_the_token_is_served_to_any_host(scheme: str) -> None:
    """The token opens the port, whatever name it was reached by; RFC 9110 11.1: the scheme's case does not matter."""
    headers = {"authorization": f"{scheme} {_TOKEN}", "host": "metrics.example.com", "origin": "https://example.com"}

    assert (await _ask("GET /stats.json", token=_TOKEN, headers=headers)).status == 200


async def test_respond_healthz_wants_no_token() -> None:
    """A probe needs no secret."""
    assert (await _ask("GET /healthz", token=_TOKEN, headers={"host": "pod-7.example.com"})).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1:6390", "localhost", "localhost:9", "[::1]:6390", "127.9.9.9", "LOCALHOST"])
async def test_respond_own_names_are_served_without_a_token(host: str) -> None:
    """Whoever asks by one of this machine's own names is served."""
    assert (await _ask("GET /stats.json", headers={"host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:6390", "127.0.0.1.evil.example", "10.0.0.1", "[bad", ":"]
)
async def test_respond_foreign_host_without_a_token_is_refused(host: str) -> None:
    """A page whose name was rebound to 127.0.0.1 reads nothing and changes nothing."""
    source = FakeSource()

    response = await _ask("POST /drain", source, headers={"host": host})

    assert (response.status, response.after) == (403, None)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[bad"])
async def test_respond_foreign_origin_without_a_token_is_refused(origin: str) -> None:
    """A form on a foreign page cannot drain the proxy of whoever opens that page."""
    response = await _ask("POST /drain", headers={"host": "127.0.0.1:6390", "origin": origin})

    assert (response.status, response.after) == (403, None)


async def _post(body: bytes, source: FakeSource) -> Response:
    return await respond(Request("POST", "/invalidate", {}, body), Site(source))


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (b'{"keys": ["a", "b", "a"]}', Event((b"a", b"b"))),
        (b'{"patterns": ["l:*"], "tags": ["t"], "db": 3}', Event((), (b"l:*",), (b"t",), 3)),
        (b'{"keys": [""], "db": 0}', Event((b"",), db=0)),
        (b'{"keys": ["\\udcff\\u00e4"]}', Event((b"\xff\xc3\xa4",))),
        (
            b'{"keys": ["k"], "id": "1", "version": 1732272000000, "publisher": "api-1", "seq": 42}',
            Event((b"k",), version=1732272000000 << 16 | 0xFFFF, id="1", publisher="api-1", seq=42),
        ),
        (b'{"keys": ["k"], "traceparent": "00-1"}', Event((b"k",))),
    ],
)
async def test_respond_invalidate_reads_an_event(body: bytes, event: Event) -> None:
    """Keys of any bytes, globs, tags and the database are handed over, and what was dropped is the answer."""
    source = FakeSource()

    response = await _post(body, source)

    assert (response.status, source.asked) == (200, [event])
    assert _json(response) == {"keys": 2, "entries": 3, "fences": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "there is no body"),
        (b"keys=a", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b'["a"]', "no JSON object"),
        (b"{}", "names nothing"),
        (b'{"keys": [], "version": 1}', "names nothing"),
        (b'{"keys": "a"}', "`keys` is a list of strings"),
        (b'{"keys": ["a", 1]}', "`keys` is a list of strings"),
        (b'{"tags": null}', "`tags` is a list of strings"),
        (b'{"keys": ["\\ud800"]}', "surrogate"),
        (b'{"patterns": [""]}', "takes nothing"),
        (b'{"keys": ["a"], "tags": [""]}', "takes nothing"),
        (b'{"keys": ["a"], "tag": ["t"]}', "did you mean `tags`?"),
        (b'{"key": ["a"]}', "did you mean `keys`?"),
        (b'{"keys": ["a"], "db": -1}', "`db` is a whole number"),
        (b'{"keys": ["a"], "db": true}', "`db` is a whole number"),
        (b'{"keys": ["a"], "version": 1.5}', "`version` is a whole number"),
        (b'{"keys": ["a"], "seq": "1"}', "`seq` is a whole number"),
        (b'{"keys": ["a"], "id": 7}', "`id` is a string"),
    ],
)
async def test_respond_invalidate_of_no_event_says_what_is_wrong(body: bytes, words: str) -> None:
    """What is posted wrongly is refused with the reason and an example, and nothing is dropped."""
    source = FakeSource()

    response = await _post(body, source)

    assert (response.status, source.asked) == (400, [])
    assert words in _json(response)["error"]
    assert '{"keys":' in _json(response)["help"]


async def test_respond_invalidate_that_failed_says_why() -> None:
    """A Redis that is away is no success."""
    response = await _post(b'{"keys": ["k"]}', FakeSource(dropped=RemoteError("upstream unavailable")))

    assert response.status == 503
    assert "upstream unavailable" in _json(response)["error"]
