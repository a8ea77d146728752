"""Addresses: redis://, rediss:// and unix:// URLs of apps and Redis, amqp:// of a broker, http:// of the admin port.

Owns what such a URL may say and how it is shown. An error here never repeats the URL: it may hold a password, and
a password with an unescaped `#` or `/` is what makes a URL wrong in the first place.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import attrs

DEFAULT_UPSTREAM_PORT: Final = 6379
DEFAULT_LISTEN_PORT: Final = 6380
DEFAULT_ADMIN_PORT: Final = 6390
DEFAULT_AMQP_PORT: Final = 5672
DEFAULT_AMQPS_PORT: Final = 5671
DEFAULT_VHOST: Final = "/"

_KIND_OF_SCHEME: Final[dict[str, Literal["tcp", "tls", "unix"]]] = {"redis": "tcp", "rediss": "tls", "unix": "unix"}

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included; the smaller one travels.
_MAX_SOCKET_PATH_BYTES = 103
_MAX_PORT = 65535
# A short string of AMQP has at most 255 bytes.
_MAX_VHOST_BYTES = 255
# Who a broker lets in that was just installed, from its own machine only.
_GUEST = "guest"
_NO_HOST = "the host is no name and no address; an IPv6 address stands in [brackets]"
_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)


@attrs.frozen
class Endpoint:
    """Where a Redis is, or where clients find us, with the credentials and database that belong to it.

    `host` and `port` are for "tcp" and "tls", `path` is for "unix"; what does not apply is "" or 0. Port 0 asks the
    system for a free one (listening only). `username` and `password` are "" where the URL names none.
    """

    scheme: Literal["tcp", "tls", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    db: int = 0
    mode: int | None = None
    """The rights of the file of a unix socket that we listen on; None: as the umask has it."""

    @property
    def display(self) -> str:
        """The URL without its password, fit for logs and screens."""
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        if self.scheme == "unix":
            return f"unix://{user}{self.path}" + (f"?db={self.db}" if self.db else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        name = "rediss" if self.scheme == "tls" else "redis"
        return f"{name}://{user}{host}:{self.port}" + (f"/{self.db}" if self.db else "")


@attrs.frozen
class AmqpEndpoint:
    """One broker of a cluster. A user "" means that the client certificate says who we are (SASL EXTERNAL)."""

    host: str
    port: int
    is_tls: bool
    username: str
    password: str = attrs.field(repr=False)
    vhost: str

    @property
    def display(self) -> str:
        """The URL without credentials, fit for logs and screens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == DEFAULT_VHOST else f"/{quote(self.vhost, safe='')}"
        return f"{'amqps' if self.is_tls else 'amqp'}://{host}:{self.port}{vhost}"


def parse_endpoint(url: str, *, default_port: int = DEFAULT_UPSTREAM_PORT) -> Endpoint:
    """Read a redis://, rediss:// or unix:// URL; a missing host is 127.0.0.1.

    Raises ValueError with the reason, which never holds a part of the URL that may be secret.
    """
    parts = _split(url)
    scheme = _KIND_OF_SCHEME.get(parts.scheme)
    if scheme is None:
        raise ValueError("the URL begins with redis://, rediss:// or unix://")
    query = _query(parts)
    username, password = _decode(parts.username), _decode(parts.password)
    if scheme == "unix":
        if parts.hostname or not parts.path.startswith("/") or not parts.path.strip("/"):
            raise ValueError("a socket is an absolute path after three slashes: unix:///run/redis.sock")
        path = _decode(parts.path)
        if len(path.encode()) > _MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"a socket path has at most {_MAX_SOCKET_PATH_BYTES} bytes")
        db, mode = _database(query.get("db", "")), _mode(query.get("mode", ""))
        return Endpoint("unix", path=path, username=username, password=password, db=db, mode=mode)
    if "mode" in query:
        raise ValueError("mode= is for unix sockets")
    in_path = parts.path.strip("/")
    if in_path and "db" in query:
        raise ValueError("the database is named twice")
    return Endpoint(
        scheme,
        host=_host(parts),
        port=_port(parts, default_port),
        username=username,
        password=password,
        db=_database(in_path or query.get("db", "")),
    )


def parse_amqp_url(url: str) -> AmqpEndpoint:
    """Read an amqp:// or amqps:// URL. A missing host is 127.0.0.1, a missing vhost /.

    Without a user, amqp:// is guest with the password guest, and amqps:// whoever the client certificate says. Raises
    ValueError with the reason, which never holds a part of the URL that may be secret.
    Source: RabbitMQ URI Specification.
    """
    parts = _split(url)
    if parts.scheme not in {"amqp", "amqps"}:
        raise ValueError("the URL begins with amqp:// or amqps://")
    if parts.query:
        raise ValueError("the URL has no parameters; in a password, ? is written %3F")
    is_tls = parts.scheme == "amqps"
    port = _port(parts, DEFAULT_AMQPS_PORT if is_tls else DEFAULT_AMQP_PORT)
    if port == 0:
        raise ValueError("port 0 is no broker")
    username, password = _decode(parts.username), _decode(parts.password)
    if not username and parts.username is not None:
        raise ValueError("what stands before the @ is user:password, and the user has a name")
    if "\0" in username + password:
        raise ValueError("a user name and a password hold no %00")
    if not username and not is_tls:
        username = password = _GUEST
    return AmqpEndpoint(_host(parts), port, is_tls, username, password, _vhost(parts.path))


def parse_admin_url(url: str) -> tuple[str, int]:
    """Read the http:// URL of the admin port; returns host and port. Raises ValueError with the reason."""
    parts = _split(url)
    if parts.scheme != "http":
        raise ValueError("the URL begins with http://")
    if parts.username is not None or parts.query or parts.path.strip("/"):
        raise ValueError("the URL holds a host and a port, nothing else")
    return _host(parts), _port(parts, DEFAULT_ADMIN_PORT)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`; a name other than localhost is taken as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hide_credentials(url: str) -> str:
    """Mask everything between :// and the last @, for a URL that may not parse."""
    return _CREDENTIALS.sub("***@", url)


def _split(url: str) -> SplitResult:
    # urlsplit drops tabs and newlines without a word; a password with one would silently be another password.
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError("a URL holds no blanks and no control characters")
    if "#" in url:
        raise ValueError("a # in a user name or password is written %23")
    try:
        parts = urlsplit(url)
        parts.hostname  # noqa: B018 - raises for a broken IPv6 address
    except ValueError:
        raise ValueError(_NO_HOST) from None
    return parts


def _host(parts: SplitResult) -> str:
    host = _decode(parts.hostname) or "127.0.0.1"
    try:
        host.encode("idna")  # as it is looked up: an empty label, or one of more than 63 bytes, has no address
    except UnicodeError:
        raise ValueError(_NO_HOST) from None
    return host


def _port(parts: SplitResult, default: int) -> int:
    try:
        port = parts.port
    except ValueError:
        # Its own text repeats what stands after the colon: half a password where the other half held a slash.
        raise ValueError(
            f"the port is a number up to {_MAX_PORT}; in a password, / is written %2F, : is %3A, ? is %3F"
        ) from None
    return default if port is None else port


def _query(parts: SplitResult) -> dict[str, str]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.keys() - {"db", "mode"}:
        raise ValueError(
            "the only parameter of the URL is ?db=, of a unix socket also ?mode=; in a password, ? is written %3F"
        )
    return query


def _vhost(path: str) -> str:
    # By the letter of its specification amqp://host/ is the vhost of no name, which nobody has.
    if path in {"", "/", "//"}:
        return DEFAULT_VHOST
    vhost = _decode(path.removeprefix("/"))
    # An @ here is most likely the end of a password with a slash in it, and this would then show half of it.
    if "/" in path.removeprefix("/") or "@" in path:
        raise ValueError("in the vhost and in a password / is written %2F, and @ is written %40")
    if len(vhost.encode()) > _MAX_VHOST_BYTES:
        raise ValueError(f"a vhost has at most {_MAX_VHOST_BYTES} bytes")
    return vhost


def _decode(text: str | None) -> str:
    try:
        return unquote(text or "", errors="strict")
    except UnicodeDecodeError:
        raise ValueError("what is percent-encoded is UTF-8") from None


def _mode(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError("the mode of a socket is three octal digits, such as ?mode=660")
    return int(text, 8)


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError("the database is a number from 0")
    return int(text)
