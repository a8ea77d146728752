"""The client of the admin port, against a real one and against whatever else may listen there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from proxy.cli import client as client_module
from proxy.cli.client import AdminClient, AdminError
from proxy.events.event import Event

from ..admin.fakes import STATS, FakeSource
from .conftest import Serve


@contextmanager
def _listener(answer: bytes | None) -> Iterator[str]:
    """Listen, and to the first connection say `answer` and close; None says nothing and stays."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is None:
                    done.wait(10)
                else:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join(10)


def _free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def _why(url: str, token: str = "", ask: Callable[[AdminClient], object] = AdminClient.stats) -> str:
    """Ask, and return the one line that says why it failed."""
    with pytest.raises(AdminError) as caught:
        ask(AdminClient.at(url, token))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_client_stats_returns_what_the_proxy_says(serve: Serve) -> None:
    """The figures arrive as they were given."""
    assert AdminClient.at(serve(FakeSource()), "").stats() == STATS


@pytest.mark.parametrize("key", [b"user:1", b"a b+c&d=e%", b"\x00\xff\r\n", "schlüssel".encode(), b""])
def test_client_explain_asks_for_the_very_bytes(serve: Serve, key: bytes) -> None:
    """A key of any bytes reaches the proxy unchanged."""
    source = FakeSource()

    AdminClient.at(serve(source), "").explain(key)

    assert source.asked == [key]


def test_client_invalidate_of_more_than_one_request_holds_goes_in_parts(serve: Serve) -> None:
    """A command line has room for more than the admin port takes at once: all of it arrives, once, and is counted."""
    source = FakeSource()
    names = [f"some:long:key:{number:06}" for number in range(5_000)]
    event = {"keys": [*names, "\udcff"], "patterns": ["l:*"], "tags": names[:3_000], "db": 3}

    dropped = AdminClient.at(serve(source), "").invalidate(event)

    events = [asked for asked in source.asked if isinstance(asked, Event)]
    assert len(events) > 3
    assert {one.db for one in events} == {3}
    assert [key for one in events for key in one.keys] == [*(name.encode() for name in names), b"\xff"]
    assert [glob for one in events for glob in one.patterns] == [b"l:*"]
    assert [tag for one in events for tag in one.tags] == [name.encode() for name in names[:3_000]]
    assert dropped == {"keys": 2 * len(events), "entries": 3 * len(events), "fences": len(events)}


@pytest.mark.parametrize(
    "ask", [lambda client: client.explain(b"k"), lambda client: client.invalidate({"keys": ["k"]})]
)
def test_client_waits_longer_for_what_redis_is_asked(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[AdminClient], object]
) -> None:
    """That Redis is late the proxy knows after upstream.response_timeout, which is as long as others are waited for."""
    monkeypatch.setattr(client_module, "_REDIS_TIMEOUT_S", 0.1)
    with _listener(None) as url:
        assert "did not answer within 0.1 s" in _why(url, ask=ask)


def test_client_reload_with_problems_is_an_answer(serve: Serve) -> None:
    """That a file has problems is what was asked, not a failure to ask."""
    outcome = {"applied": [], "needs_restart": [], "problems": ["listen.prt: no such key"]}

    assert AdminClient.at(serve(FakeSource(reloaded=outcome)), "").reload() == outcome


def test_client_with_the_token_is_let_in(serve: Serve) -> None:
    """The token travels."""
    assert AdminClient.at(serve(FakeSource(), "t0k"), "t0k").stats() == STATS


@pytest.mark.parametrize(("token", "words"), [("", "a token is wanted"), ("wrong", "the token was not accepted")])
def test_client_without_the_token_says_how_to_give_it(serve: Serve, token: str, words: str) -> None:
    """A refusal names the flag and the variable, and does not repeat the token."""
    text = _why(serve(FakeSource(), "t0k"), token)

    assert words in text
    assert "--token" in text
    assert "RESPITE_ADMIN_TOKEN" in text
    assert "wrong" not in text


def test_client_where_nobody_listens_says_what_was_tried_and_what_to_do() -> None:
    """The commonest mistake of all gets the most helpful line."""
    url = _free_url()

    text = _why(url)

    for words in (url, "connection refused", "respite run", "--admin", "RESPITE_ADMIN"):
        assert words in text


def test_client_of_a_silent_port_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who takes the connection and says nothing does not hold a command for ever."""
    monkeypatch.setattr(client_module, "_TIMEOUT_S", 0.1)
    with _listener(None) as url:
        assert "did not answer within 0.1 s" in _why(url)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"-ERR unknown command 'GET'\r\n", "speaks no HTTP"),
        (b"", "speaks no HTTP|cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html", "no Respite admin port"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no Respite admin port"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", "no Respite admin port"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "speaks no HTTP|no Respite admin port"),
        (b'HTTP/1.1 503 No\r\nContent-Length: 33\r\n\r\n{"error": "full", "help": "wait"}', "full; wait"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}", "status 500"),
    ],
)
def test_client_of_something_else_says_so(answer: bytes, words: str) -> None:
    """A Redis, a web server or a broken proxy at that address is told apart, never a traceback."""
    with _listener(answer) as url:
        text = _why(url)

    assert any(word in text for word in words.split("|"))
    assert url in text


def test_client_of_a_name_that_does_not_exist_says_so() -> None:
    """A wrong host is an address problem."""
    assert "cannot be reached" in _why("http://no-such-host.invalid:6390")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6390", "http://h:99999", "127.0.0.1:6390", "http://h/path", ""])
def test_client_at_wrong_url_raises_value_error(url: str) -> None:
    """What is no address of an admin port is wrong usage."""
    with pytest.raises(ValueError, match=r"URL|port"):
        AdminClient.at(url, "")


def test_client_token_that_cannot_be_a_header_raises_value_error() -> None:
    """A token with a newline, pasted by mistake, is refused before it is sent."""
    with pytest.raises(ValueError, match="token"):
        AdminClient.at("http://127.0.0.1:1", "a\nb")
