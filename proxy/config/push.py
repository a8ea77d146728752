"""Every key of [push], as `keys.py` has the others, and the kinds of value that only they have."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from proxy.config import kinds
from proxy.config.key import Key
from proxy.config.kinds import Kind, glob_flaws, is_list, read_texts
from proxy.config.model import PushToken

_KIB = 1 << 10
_GIB = 1 << 30
_HOUR = 3600.0
_PORTS: Final = {"http": 80, "https": 443}


def push_tokens() -> Kind:
    """Accept a list of { token, channels } tables, each with both and no token twice."""

    def read(value: object) -> tuple[PushToken, ...]:
        if not is_list(value):
            raise ValueError
        found = tuple(_token(item, number) for number, item in enumerate(value, start=1))
        if len({one.token for one in found}) != len(found):
            raise ValueError("a token stands twice")
        return found

    return Kind('a list of { token = "...", channels = ["ticket:*", "tag:x"] }, both given', read)


def _token(item: object, number: int) -> PushToken:
    if not isinstance(item, dict) or item.keys() != {"token", "channels"}:
        raise ValueError(f"token {number} has other keys than token and channels")
    try:
        token = kinds.token().read(item["token"])
        channels = read_texts(item["channels"])
    except ValueError:
        token, channels = "", ()
    if not token or not channels:
        # Its value stays out of the message: it may be a secret with a slip of the pen.
        raise ValueError(f"token {number}: a token of printable ASCII without blanks, and a list of channels")
    for channel in channels:
        if flaws := list(glob_flaws(channel)):
            raise ValueError(f"token {number}: " + "; ".join(flaws))
    return PushToken(token, channels)


def origins() -> Kind:
    """Accept a list of origins, as browsers write them: scheme, host, and the port where it is not the usual one."""

    def read(value: object) -> tuple[str, ...]:
        found = read_texts(value)
        for text in found:
            if flaw := _flaw_of_origin(text):
                raise ValueError(flaw)
        return found

    return Kind('a list of origins, such as ["https://app.example.org"]', read)


def _flaw_of_origin(text: str) -> str:
    """Return why no browser sends this as its origin, else ""."""
    flaw = f"{text!r} is no origin, such as https://app.example.org"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return flaw
    if "@" in url.netloc:
        return "an origin names no user: what stands before the @ goes"  # and is not shown: it may be a password
    if url.scheme not in _PORTS or not url.hostname or text != f"{url.scheme}://{url.netloc}".lower():
        return flaw
    if not text.isascii():
        return f"{text!r}: browsers send such a host in ASCII, as xn--..."
    if port == _PORTS[url.scheme] or url.netloc.endswith(":"):
        return f"{text!r}: browsers leave out the usual port; so does the origin here"
    return ""


def _key(path: str, kind: Kind, default: object, when: str, *, field: str = "") -> Key:
    return Key(path, field or path, kind, default, live=True, help=when, secret=path == "push.tokens")


PUSH: Final[tuple[Key, ...]] = (
    _key(
        "push.max_subscribers",
        kinds.count(0, 1_000_000),
        1_000,
        "Raise for more browsers and apps that listen (and raise the open-files limit with it); 0 turns push off.",
    ),
    _key(
        "push.heartbeat",
        kinds.seconds(1, _HOUR),
        "15s",
        "Lower where something between cuts quiet connections; a stream hears of us at least so often.",
        field="push.heartbeat_s",
    ),
    _key(
        "push.poll_min",
        kinds.seconds(0.1, _HOUR),
        "10s",
        "Lower to have clients that poll ask more often while their channels move.",
        field="push.poll_min_s",
    ),
    _key(
        "push.poll_max",
        kinds.seconds(0.1, 24 * _HOUR),
        "60s",
        "Raise to have them ask less often while nothing moves; at least push.poll_min.",
        field="push.poll_max_s",
    ),
    _key(
        "push.buffer",
        kinds.size(64 * _KIB, _GIB),
        "16MiB",
        "Raise to let slow clients lag more, and those that come back later catch up; messages kept for all of them.",
        field="push.buffer_bytes",
    ),
    _key(
        "push.tokens",
        push_tokens(),
        [],
        'Set to [{ token = "..", channels = ["ticket:*"] }] for those who may listen to some channels and do no more.',
    ),
    _key(
        "push.origins",
        origins(),
        [],
        'Set to ["https://app.example.org"] to let pages from there listen with a token; empty: only our own page.',
    ),
)
