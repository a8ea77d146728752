"""The URLs of Redis, of the listening side, of the broker and of the admin port."""

from __future__ import annotations

import pytest

from proxy.config.endpoint import (
    AmqpEndpoint,
    Endpoint,
    hide_credentials,
    is_loopback,
    parse_admin_url,
    parse_amqp_url,
    parse_endpoint,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Endpoint("tcp", "h", 6379)),
        ("redis://", Endpoint("tcp", "127.0.0.1", 6379)),
        ("redis://:7000/", Endpoint("tcp", "127.0.0.1", 7000)),
        ("redis://h:0", Endpoint("tcp", "h", 0)),
        ("rediss://h:1/3", Endpoint("tls", "h", 1, db=3)),
        ("redis://h?db=4", Endpoint("tcp", "h", 6379, db=4)),
        ("REDIS://h", Endpoint("tcp", "h", 6379)),
        ("redis://:pw@h", Endpoint("tcp", "h", 6379, password="pw")),
        ("redis://app@h", Endpoint("tcp", "h", 6379, username="app")),
        ("redis://a%40b:p%2Fw%23%3A%25@h", Endpoint("tcp", "h", 6379, username="a@b", password="p/w#:%")),
        ("redis://u:p@w@h", Endpoint("tcp", "h", 6379, username="u", password="p@w")),
        ("redis://[::1]:6400/2", Endpoint("tcp", "::1", 6400, db=2)),
        ("redis://u:p@[fe80::1%25eth0]", Endpoint("tcp", "fe80::1%eth0", 6379, username="u", password="p")),
        ("unix:///run/redis.sock", Endpoint("unix", path="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=2", Endpoint("unix", path="/run/a b.sock", db=2)),
        ("unix://u:p@/run/r.sock", Endpoint("unix", path="/run/r.sock", username="u", password="p")),
    ],
)
def test_parse_endpoint_valid_url_gives_every_part(url: str, expected: Endpoint) -> None:
    """Host, port, path, database and percent-decoded credentials are read from all three schemes."""
    assert expected == parse_endpoint(url)


def test_parse_endpoint_default_port_is_the_callers() -> None:
    """The listening side has another default port than the upstream."""
    assert Endpoint("tcp", "h", 6380) == parse_endpoint("redis://h", default_port=6380)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with redis://"),
        ("localhost:6379", "begins with redis://"),
        ("http://h", "begins with redis://"),
        ("valkey://h", "begins with redis://"),
        ("redis://h:x", "the port is"),
        ("redis://h:65536", "the port is"),
        ("redis://h:-1", "the port is"),
        ("redis://h/x", "the database is"),
        ("redis://h/-1", "the database is"),
        ("redis://h/1/2", "the database is"),
        ("redis://h/1?db=1", "named twice"),
        ("redis://h?ssl=true", "only parameter"),
        ("redis://h?db=1&x", "only parameter"),
        ("redis://h#x", "written %23"),
        ("redis://a b", "no blanks"),
        ("redis://a\tb", "no blanks"),
        ("redis://a\0b", "no blanks"),
        ("redis://[::1", "in \\[brackets\\]"),
        ("redis://:%ff@h", "UTF-8"),
        ("unix://", "three slashes"),
        ("unix:///", "three slashes"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///" + "x" * 103, "at most 103 bytes"),
        ("unix:///r?db=x", "the database is"),
    ],
)
def test_parse_endpoint_invalid_url_names_the_fault(url: str, reason: str) -> None:
    """Each way to get a URL wrong has its own words."""
    with pytest.raises(ValueError, match=reason):
        parse_endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:hun/ter2@h", "redis://:hun#ter2@h", "redis://:hun?ter2@h", "redis://:hun ter2@h"),
        *("rdis://:hunter2@h", "redis://:hunter2@h:x", "redis://:hunter2@[h", "redis://h?password=hunter2"),
    ],
)
def test_parse_endpoint_invalid_url_keeps_its_password(url: str) -> None:
    """No reason repeats a part of a password, least of all of one that broke the URL."""
    with pytest.raises(ValueError, match=r"\bthe\b|\ba\b") as caught:
        parse_endpoint(url)

    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:pw@h", "redis://h:6379"),
        ("rediss://a%40b:pw@h:1/2", "rediss://a%40b@h:1/2"),
        ("redis://[::1]", "redis://[::1]:6379"),
        ("unix://u:pw@/run/r.sock?db=2", "unix://u@/run/r.sock?db=2"),
        ("unix:///run/r.sock", "unix:///run/r.sock"),
    ],
)
def test_display_any_endpoint_leaves_the_password_out(url: str, expected: str) -> None:
    """What goes to logs and screens is the URL, without its password and without a database of 0."""
    assert expected == parse_endpoint(url).display


def test_repr_endpoint_leaves_the_password_out() -> None:
    """A traceback that prints an endpoint prints no password."""
    assert "hunter2" not in repr(parse_endpoint("redis://:hunter2@h"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://", AmqpEndpoint("127.0.0.1", 5672, False, "guest", "guest", "/")),
        ("amqp://h", AmqpEndpoint("h", 5672, False, "guest", "guest", "/")),
        ("amqp://h/", AmqpEndpoint("h", 5672, False, "guest", "guest", "/")),
        ("amqp://h//", AmqpEndpoint("h", 5672, False, "guest", "guest", "/")),
        ("amqp://h/%2f", AmqpEndpoint("h", 5672, False, "guest", "guest", "/")),
        ("amqp://h/v", AmqpEndpoint("h", 5672, False, "guest", "guest", "v")),
        ("amqp://u:p@h:1/a%2Fb%40", AmqpEndpoint("h", 1, False, "u", "p", "a/b@")),
        ("amqp://u@h", AmqpEndpoint("h", 5672, False, "u", "", "/")),
        ("amqp://a%40b:p%2Fw%23%3A%25@[::1]:7", AmqpEndpoint("::1", 7, False, "a@b", "p/w#:%", "/")),
        ("amqps://h", AmqpEndpoint("h", 5671, True, "", "", "/")),
        ("AMQPS://u:p@h/v", AmqpEndpoint("h", 5671, True, "u", "p", "v")),
    ],
)
def test_parse_amqp_url_valid_gives_every_part(url: str, expected: AmqpEndpoint) -> None:
    """Without a user it is guest, or with TLS the client certificate that says who we are."""
    assert expected == parse_amqp_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with amqp://"),
        ("h:5672", "begins with amqp://"),
        ("redis://h", "begins with amqp://"),
        ("amqp://h:0", "port 0"),
        ("amqp://h:x", "the port is"),
        ("amqp://h?heartbeat=5", "no parameters"),
        ("amqp://h/a/b", "written %2F"),
        ("amqp://h#x", "written %23"),
        ("amqp://h/a b", "no blanks"),
        ("amqp://:p@h", "the user has a name"),
        ("amqps://@h", "the user has a name"),
        ("amqp://u:p%00@h", "hold no %00"),
        ("amqp://h/%ff", "UTF-8"),
        ("amqp://h/" + "x" * 256, "at most 255 bytes"),
        ("amqp://[::1", "in \\[brackets\\]"),
    ],
)
def test_parse_amqp_url_invalid_names_the_fault(url: str, reason: str) -> None:
    """Each way to get a URL wrong has its own words."""
    with pytest.raises(ValueError, match=reason):
        parse_amqp_url(url)


@pytest.mark.parametrize(
    "url", ["amqp://u:hun/ter2@h", "amqp://u:12/hunter2@h", "amqp://u:1?hunter2@h", "amqp://u:hunter2#@h"]
)
def test_parse_amqp_url_with_a_password_that_breaks_it_is_refused_without_it(url: str) -> None:
    """Half a password is never taken for a vhost, nor repeated."""
    with pytest.raises(ValueError, match=r"password|no parameters") as caught:
        parse_amqp_url(url)

    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u:hunter2@h", "amqp://h:5672"),
        ("amqps://u:hunter2@[::1]:1/a%2Fb", "amqps://[::1]:1/a%2Fb"),
    ],
)
def test_display_broker_leaves_the_credentials_out(url: str, expected: str) -> None:
    """What goes to logs and screens is where it is, and its vhost where that is not the default."""
    assert expected == parse_amqp_url(url).display
    assert "hunter2" not in repr(parse_amqp_url(url))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:6390", ("127.0.0.1", 6390)),
        ("http://[::]:1/", ("::", 1)),
        ("http://h", ("h", 6390)),
        ("http://h:0", ("h", 0)),
    ],
)
def test_parse_admin_url_valid_gives_host_and_port(url: str, expected: tuple[str, int]) -> None:
    """The admin URL is a host and a port."""
    assert expected == parse_admin_url(url)


@pytest.mark.parametrize("url", ["h:1", "https://h", "http://u:p@h", "http://h/x", "http://h?x=1", "http://h:x"])
def test_parse_admin_url_anything_else_is_refused(url: str) -> None:
    """No TLS, no credentials and no path: what would be ignored is refused."""
    with pytest.raises(ValueError, match=r"the (URL|port)"):
        parse_admin_url(url)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.org", False)),
    ],
)
def test_is_loopback_address_says_who_reaches_it(host: str, expected: bool) -> None:
    """A wildcard address or an unknown name counts as reachable by others."""
    assert expected is is_loopback(host)


def test_hide_credentials_password_with_at_signs_is_masked_whole() -> None:
    """The mask ends at the last @, as a password may hold some."""
    expected = "redis://***@h"

    assert expected == hide_credentials("redis://u:p@ss@h")


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "%C3%BC" * 64])
def test_host_that_cannot_be_looked_up_is_refused(host: str) -> None:
    """Otherwise it would end what connects, each time anew."""
    for parse, scheme in ((parse_endpoint, "redis"), (parse_amqp_url, "amqp"), (parse_admin_url, "http")):
        with pytest.raises(ValueError, match="the host is no name and no address"):
            parse(f"{scheme}://{host}:1")


def test_host_of_any_script_is_read() -> None:
    """It is encoded when it is looked up."""
    assert parse_amqp_url("amqp://bücher.example").host == "bücher.example"
