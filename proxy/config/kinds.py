"""The kinds of value a key may have: how each is read from TOML, and the words that say what is allowed.

    TOML value ---- Kind.read ----> setting          or ValueError(reason)
                    Kind.allowed: "a time from 10ms to 1h"

Knows no key and no other value: what two keys must agree on is in `rules.py`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

import attrs

from proxy.config.endpoint import DEFAULT_LISTEN_PORT, Endpoint, parse_admin_url, parse_endpoint
from proxy.config.globs import parse_glob
from proxy.config.templates import parse_dependency, parse_template
from proxy.config.units import format_bytes, format_seconds, is_whole, parse_bytes, parse_seconds

_CLASS_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MODULE_COMMAND: Final = re.compile(r"[A-Z0-9_-]+(\.[A-Z0-9_-]+)+")
# Redis itself gives up on globs with a thousand stars; nobody's keys need half of that.
_GLOB_BYTES_MAX: Final = 512


@attrs.frozen
class Kind:
    """One kind of value. `read` raises ValueError, its text the reason or "" where `allowed` says it all."""

    allowed: str
    read: Callable[[object], Any]


def is_text(value: object) -> TypeGuard[str]:
    """Say whether a TOML value is a text."""
    return isinstance(value, str)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Say whether a value is a list in TOML, or a tuple, as which a flag given several times arrives."""
    return isinstance(value, list | tuple)


def read_texts(value: object) -> tuple[str, ...]:
    """Return a list of texts as a tuple; raise ValueError for anything else."""
    if not is_list(value):
        raise ValueError
    found = tuple(item for item in value if is_text(item))
    if len(found) != len(value):
        raise ValueError
    return found


def flag() -> Kind:
    """Accept true or false."""

    def read(value: object) -> bool:
        if value is not True and value is not False:
            raise ValueError
        return value

    return Kind("true or false", read)


def count(low: int, high: int) -> Kind:
    """Accept a whole number in a range, both ends included."""

    def read(value: object) -> int:
        if not is_whole(value) or not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", read)


def seconds(low: float, high: float, *, or_zero: str = "") -> Kind:
    """Accept a time in a range; `or_zero` says what 0 means where 0 is allowed besides."""

    def read(value: object) -> float:
        parsed = parse_seconds(value)
        if not low <= parsed <= high and not (or_zero and parsed == 0):
            raise ValueError
        return parsed

    zero = f", or 0 ({or_zero})" if or_zero else ""
    return Kind(f"a time from {format_seconds(low)} to {format_seconds(high)}{zero}", read)


def size(low: int, high: int) -> Kind:
    """Accept a size in bytes in a range, both ends included."""

    def read(value: object) -> int:
        parsed = parse_bytes(value)
        if not low <= parsed <= high:
            raise ValueError
        return parsed

    return Kind(f"a size from {format_bytes(low)} to {format_bytes(high)}", read)


def share(low: float, high: float) -> Kind:
    """Accept a number in a range, whole or not, both ends included."""

    def read(value: object) -> float:
        if not (is_whole(value) or isinstance(value, float)) or not low <= value <= high:
            raise ValueError
        return float(value)

    return Kind(f"a number from {low:g} to {high:g}", read)


def choice(*names: str) -> Kind:
    """Accept one of a few words."""

    def read(value: object) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(repr(name) for name in names), read)


def switch(*others: str) -> Kind:
    """Accept true, false or one of a few words; read as "on", "off" or the word."""

    def read(value: object) -> str:
        if value is True or value is False:
            return "on" if value else "off"
        if value not in others:
            raise ValueError
        return str(value)

    return Kind("one of true, false, " + ", ".join(repr(name) for name in others), read)


def module_commands() -> Kind:
    """Accept a list of names of module commands, in any case; read as upper case."""

    def read(value: object) -> tuple[str, ...]:
        names = tuple(name.upper() for name in read_texts(value))
        for name in names:
            if not _MODULE_COMMAND.fullmatch(name):
                # One without a dot would be Redis' own: those are known, and cached where they can be.
                raise ValueError(f"{name!r} is no command of a module, which has a dot in its name")
        if len(set(names)) != len(names):
            raise ValueError("a command stands twice")
        return names

    return Kind('a list of names of module commands, such as ["JSON.GET"]', read)


def class_name() -> Kind:
    """Accept a short word that can stand in a log, a metric and a dotted path."""

    def read(value: object) -> str:
        if not is_text(value) or not _CLASS_NAME.fullmatch(value):
            raise ValueError
        return value

    return Kind("1 to 64 letters, digits, - and _", read)


def globs() -> Kind:
    """Accept a list of globs, at least one; a glob that can hardly mean what it says is refused with the reason."""

    def read(value: object) -> tuple[str, ...]:
        found = read_texts(value)
        flaws = [flaw for glob in found for flaw in glob_flaws(glob)]
        if not found:
            raise ValueError("without a glob a class has no keys")
        if flaws:
            raise ValueError("; ".join(dict.fromkeys(flaws)))
        if len(set(found)) != len(found):
            raise ValueError("a glob stands twice")
        return found

    return Kind('a list of globs, such as ["ticket:*"]', read)


def glob_flaws(glob: str) -> Iterator[str]:
    """Yield what is wrong with a glob, a sentence each."""
    raw = glob.encode()
    if not raw:
        yield "an empty glob takes only the key that is empty"
    elif len(raw) > _GLOB_BYTES_MAX:
        yield f"a glob has at most {_GLOB_BYTES_MAX} bytes"
    else:
        yield from (f"{glob!r}: {part.flaw}" for part in parse_glob(raw) if part.flaw)


def tags() -> Kind:
    """Accept a list of templates of tags."""
    return _templates('a list of tags, such as ["ticket-{1}"]', parse_template)


def dependencies() -> Kind:
    """Accept a list of templates of keys, globs and tags."""
    return _templates('a list of keys, globs and "tag:NAME", such as ["list:{1}:*"]', parse_dependency)


def _templates(allowed: str, parse: Callable[[str], object]) -> Kind:
    def read(value: object) -> tuple[str, ...]:
        found = read_texts(value)
        for text in found:
            if not text or len(text.encode()) > _GLOB_BYTES_MAX:
                raise ValueError(f"each has from 1 to {_GLOB_BYTES_MAX} bytes")
            parse(text)
        if len(set(found)) != len(found):
            raise ValueError("one stands twice")
        return found

    return Kind(allowed, read)


def readable_file() -> Kind:
    """Accept the path of a file that can be opened now, or "" for none."""

    def read(value: object) -> str:
        if not is_text(value):
            raise ValueError
        if value:
            try:
                # stat before open: opening a pipe would wait for its writer.
                if not stat.S_ISREG(Path(value).stat().st_mode):
                    raise ValueError("it is no file")
                Path(value).open("rb").close()
            except OSError as exc:
                raise ValueError(exc.strerror) from exc
        return value

    return Kind('the path of a readable PEM file, or "" for none', read)


def token() -> Kind:
    """Accept a text that can stand in an HTTP header, or "" for none."""

    def read(value: object) -> str:
        if not is_text(value) or not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
            raise ValueError
        return value

    return Kind('printable ASCII without blanks, or "" for none', read)


def listen_urls() -> Kind:
    """Accept one URL or a list of them, without credentials and without a database."""

    def read(value: object) -> tuple[Endpoint, ...]:
        written = value if is_list(value) else [value]
        urls = [url for url in written if is_text(url)]
        if not urls or len(urls) != len(written):
            raise ValueError
        endpoints = tuple(parse_endpoint(url, default_port=DEFAULT_LISTEN_PORT) for url in urls)
        for endpoint in endpoints:
            if endpoint.username or endpoint.password:
                raise ValueError("who may connect is said in listen.users, not in the URL")
            if endpoint.db:
                raise ValueError("clients choose their database themselves")
        bound = [endpoint for endpoint in endpoints if endpoint.port or endpoint.path]
        if len({(one.host, one.port, one.path) for one in bound}) != len(bound):
            raise ValueError("an address is named twice")
        return endpoints

    return Kind("a redis://, rediss:// or unix:// URL, or a list of them", read)


def upstream_url() -> Kind:
    """Accept the URL of a Redis, or "" for an embedded one."""

    def read(value: object) -> Endpoint | None:
        if not is_text(value):
            raise ValueError
        if not value:
            return None
        endpoint = parse_endpoint(value)
        if endpoint.mode is not None:
            raise ValueError("?mode= is for sockets that Respite listens on")
        if endpoint.scheme != "unix" and endpoint.port == 0:
            raise ValueError("port 0 is no Redis")
        return endpoint

    return Kind('a redis://, rediss:// or unix:// URL, or "" for an embedded Redis', read)


def admin_url() -> Kind:
    """Accept an http:// URL, or "" for no admin port."""

    def read(value: object) -> str:
        if not is_text(value):
            raise ValueError
        if value:
            parse_admin_url(value)
        return value

    return Kind('an http:// URL, or "" for none', read)
