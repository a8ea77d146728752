"""The dashboard's files: read once, sent with what lets a browser keep them and what keeps it on this port.

Owns which files there are, their types and their headers. They hold no figure and no secret: a page asks for those by
itself, with a token where one is set. So the files are given to anybody who reaches the port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Final

import attrs

from proxy.admin.answers import Response

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX: Final = "index.html"
# Nothing but this port is loaded, connected to or posted to, no page frames this one, and none is told its address,
# which may hold a token. 'self' covers WebSockets to the same host and port: CSP level 3, 6.7.2.8.
_HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)


@attrs.frozen
class Page:
    """One file, and the tag that changes with it."""

    content_type: str
    body: bytes
    tag: str

    def answer(self, if_none_match: str) -> Response:
        """Answer with the file, or with 304 to who has it already. Source: RFC 9110 13.1.2."""
        headers = (("ETag", self.tag), *_HEADERS)
        known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        if self.tag in known or "*" in known:
            return Response(304, self.content_type, b"", headers, cache_control="no-cache")
        return Response(200, self.content_type, self.body, headers, cache_control="no-cache")


def read_pages() -> Mapping[str, Page]:
    """Read the files that came with the package, by their paths."""
    pages = {}
    for file in resources.files("proxy.admin").joinpath("static").iterdir():
        content_type = _TYPES.get(PurePath(file.name).suffix)
        if content_type is not None:
            body = file.read_bytes()
            path = "/" if file.name == _INDEX else f"/{file.name}"
            pages[path] = Page(content_type, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return pages
