"""Who may ask the admin port for what: tokens, names in Host and Origin, and the channels of push tokens.

    the admin token            everything
    a push token               /ws, /events, /changes; the channels that its patterns cover
    no token, where none is    everything, from programs and pages of this machine; from pages of `origins` the
    set for the port           last three paths, where there are no push tokens either

Owns the judgement, and says it as a `Visitor` or a refusal. A token is compared in constant time, and with all of those
that there are, so that neither how much of it is right nor which one it is can be timed.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from proxy.admin.answers import Request, Response, refusal
from proxy.config.endpoint import is_loopback
from proxy.config.globs import parse_glob
from proxy.config.model import PushToken
from proxy.log import short
from proxy.values.covering import is_covered
from proxy.values.globs import compile_glob

# A browser can set no header on a WebSocket; it names its token, percent-encoded, as one more subprotocol.
SUBPROTOCOL: Final = "respite"
_TOKEN_SUBPROTOCOL: Final = "respite.token."
# Channels of these prefixes are no keys, and no globs: only a pattern with the same prefix covers one of them.
_PREFIXES: Final = ("tag:", "respite:")
_NAMED: Final = 3  # channels in a refusal


@attrs.frozen
class Visitor:
    """Somebody who has been let in: with a push token, to hear what it covers; None, to ask for everything."""

    token: PushToken | None = None

    def may_hear(self, channel: str) -> bool:
        """Say whether a channel is covered: whatever keys it takes are taken by the patterns together."""
        if self.token is None:
            return True
        prefix, name = _split(channel)
        ours = [pattern for kind, pattern in map(_split, self.token.channels) if kind == prefix]
        if prefix:
            return any(compile_glob(pattern).matches(name) for pattern in ours)
        return is_covered(parse_glob(name), [parse_glob(pattern) for pattern in ours])


@attrs.frozen
class Gate:
    """What is asked of a visitor. `origins` are pages from elsewhere that may listen, such as `https://shop.example`."""

    token: str = attrs.field(repr=False, default="")
    push_tokens: tuple[PushToken, ...] = ()
    origins: tuple[str, ...] = ()

    def admit(self, request: Request, query: Mapping[str, str], *, is_push: bool) -> Visitor | Response:
        """Let somebody in, or say why not. `is_push`: a push token will do, and any token may stand in the query."""
        if not self.token and not (self.push_tokens and is_push):
            return _check_local(request, self.origins if is_push else ()) or Visitor()
        given = _given(request, query if is_push else {})
        if given is None and not self.token:
            if refused := _check_local(request, self.origins):
                return refused
            return unknown(is_push=is_push) if _check_local(request, ()) else Visitor()
        found = None
        for one in self.push_tokens:
            if hmac.compare_digest(given or b"", one.token.encode()):
                found = Visitor(one)
        if self.token and hmac.compare_digest(given or b"", self.token.encode()):
            return Visitor()
        if found is not None and not is_push:
            return refusal(403, "a push token opens /ws, /events and /changes only", "send the listen.admin_token")
        return found or unknown(is_push=is_push)

    def cors(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return the headers that let a page of one of `origins` read an answer; none for any other page."""
        origin = request.headers.get("origin", "")
        if origin not in self.origins:
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Vary", "Origin"),
            ("Access-Control-Expose-Headers", "Retry-After"),
        )


def denial(channels: Sequence[str]) -> str:
    """Say which channels a token does not cover, the first few by name."""
    names = ", ".join(short(name.encode("utf-8", "surrogateescape")) for name in channels[:_NAMED])
    return f"your token does not cover {names}" + (f" and {more} more" if (more := len(channels) - _NAMED) > 0 else "")


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols that a WebSocket's client offers, in its order."""
    return [name for one in request.headers.get("sec-websocket-protocol", "").split(",") if (name := one.strip())]


def _given(request: Request, query: Mapping[str, str]) -> bytes | None:
    """Return the token that somebody brings, None for nobody's."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip().encode("latin-1")
    if (in_query := query.get("access_token")) is not None:
        return unquote_to_bytes(in_query)
    for name in offered_subprotocols(request):
        if name.startswith(_TOKEN_SUBPROTOCOL):
            return unquote_to_bytes(name.removeprefix(_TOKEN_SUBPROTOCOL))
    return None


def unknown(*, is_push: bool) -> Response:
    """Refuse a token that is none here."""
    help_text = "send `Authorization: Bearer TOKEN`, the TOKEN of listen.admin_token"
    if is_push:
        help_text += " or of push.tokens; a browser says ?access_token=TOKEN"
    return attrs.evolve(
        refusal(401, "this admin port wants a token", help_text),
        headers=(("WWW-Authenticate", 'Bearer realm="respite"'),),
    )


def _check_local(request: Request, origins: Sequence[str]) -> Response | None:
    """Refuse web pages: a browser on this machine reaches loopback, and any site can make it ask.

    A name other than ours in Host is how DNS rebinding looks; a foreign Origin is how a form on a foreign page looks.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin", "")
    urls = [f"//{host}" if host else "", "" if origin in origins else origin]
    try:
        hosts = [urlsplit(url).hostname or "" for url in urls if url]
    except ValueError:
        hosts = [""]
    if all(is_loopback(name) for name in hosts):
        return None
    return refusal(
        403,
        f"without a token only this machine's own names are served, not {host!r} from {origin or 'no origin'!r}",
        "ask for 127.0.0.1 or localhost, or set listen.admin_token",
    )


def _split(channel: str) -> tuple[str, bytes]:
    prefix = next((prefix for prefix in _PREFIXES if channel.startswith(prefix)), "")
    return prefix, channel.removeprefix(prefix).encode("utf-8", "surrogateescape")
