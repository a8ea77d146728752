"""The dashboard's files: who gets them, and what a browser is told about them."""

from __future__ import annotations

import pytest

from proxy.admin.pages import read_pages

from .fakes import FakeSource, running

_PATHS = ["/", "/respite.js", "/dashboard.js", "/trouble.js", "/dashboard.css"]


@pytest.mark.parametrize("path", _PATHS)
async def test_page_is_served_to_anybody_with_what_keeps_it_here(path: str) -> None:
    """No token is wanted for files that hold nothing, and a page may load and reach this port alone."""
    async with running(token="t0k") as port:
        answer = await port.ask(f"GET {path}")

    kind = {"": "text/html", "js": "text/javascript", "css": "text/css"}[path.rpartition(".")[2].lstrip("/")]
    assert answer.status == 200
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert len(answer.body) > 0


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_page_that_a_browser_has_is_not_sent_again(form: str) -> None:
    """A browser asks whether its copy is still the one; 304 has no body, and no length of one."""
    async with running() as port:
        tag = (await port.ask("GET /")).headers["etag"]
        known = await port.ask("GET /", f"If-None-Match: {form.format(tag)}")
        other = await port.ask("GET /", 'If-None-Match: "other"')

    assert (known.status, known.body, known.headers["etag"]) == (304, b"", tag)
    assert "content-length" not in known.headers
    assert other.status == 200


async def test_page_takes_get_and_head_only() -> None:
    """A file cannot be changed from outside."""
    async with running() as port:
        posted = await port.ask("POST /dashboard.css")
        head = await port.ask("HEAD /dashboard.css")

    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/index.html", "/static/index.html", "/../http.py", "/%2e%2e/http.py", "/http.py"])
async def test_page_that_is_none_is_not_there(path: str) -> None:
    """There is what was read at the start, and no way to anything else."""
    async with running(FakeSource()) as port:
        assert (await port.ask(f"GET {path}")).status == 404


def test_pages_name_nothing_from_elsewhere() -> None:
    """The dashboard works on a machine that reaches nobody else."""
    for path, page in read_pages().items():
        for line in page.body.decode().splitlines():
            # The name of the SVG language is an address that nobody asks; an example asks this machine.
            found = line.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "")
            assert "http://" not in found, (path, line)
            assert "https://" not in found, (path, line)
