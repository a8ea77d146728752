"""The small languages of a configuration: templates, topics, conditions, addresses, times and sizes.

What must hold: ValueError with a reason is all that comes of a text that is none; what was read can be used, and
written again where it is written anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from proxy.config import alert_conditions, endpoint, event_templates, templates, topics, units
from proxy.config.alert_conditions import FIGURES, Condition, parse_bound, parse_condition, parse_notify
from proxy.config.endpoint import Endpoint, parse_admin_url, parse_amqp_url, parse_endpoint
from proxy.config.event_templates import EventTemplate, parse_key, parse_pattern, parse_text
from proxy.config.templates import parse_dependency, parse_template
from proxy.config.topics import check_topic, takes_all_of
from proxy.config.units import format_bytes, format_seconds, parse_bytes, parse_seconds
from proxy.events import templates as expanding
from proxy.events import topics as matching
from proxy.events.event import EventError
from proxy.events.templates import Source, expand
from proxy.events.topics import takes
from proxy.values import dependencies
from proxy.values.dependencies import compile_dependency, compile_template

from ..target import Target, expect

_BODY: Final = {"id": 7, "items": [{"id": 1, "k": "x"}, {"id": 2, "k": "*"}], "a b": [[1], [2, 3]], "none": None}
_SOURCES: Final = (Source("ticket.7.new", {"tenant": "t"}, _BODY), Source("", {}, [1, 2]))
_CAPTURES: Final = (b"7", b"*x")


def _read(parse: Callable[[str], Any], text: str) -> Any:
    """Return what is read; None where it is refused, for which there must be a reason."""
    try:
        return parse(text)
    except ValueError as exc:
        expect(str(exc) and type(exc) is ValueError, "refused without a reason of ours", parse, text, exc)
        return None


def _run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")  # TOML is UTF-8
    for parse in (parse_text, parse_pattern, parse_key):
        template: EventTemplate | None = _read(parse, text)
        if template is not None:
            _expand(template, is_glob=parse is parse_pattern)
    if _read(parse_template, text) is not None:
        compile_template(text)
    if _read(parse_dependency, text) is not None:
        compile_dependency(text)
    _topics(*text.partition(" ")[::2])
    condition = _read(parse_condition, text)
    if condition is not None:
        _condition(condition)
    for figure in FIGURES:
        _read(lambda text, figure=figure: parse_bound(figure, text), text)  # type: ignore[misc]
    notify = _read(parse_notify, text)
    expect(notify is None or notify.display, "nowhere to go", notify)
    _addresses(text)
    seconds, size = _read(parse_seconds, text), _read(parse_bytes, text)
    if seconds is not None:
        expect(seconds >= 0 and math.isfinite(seconds), "a time that is none", seconds)
        format_seconds(seconds)
    if size is not None:
        expect(parse_bytes(format_bytes(size)) == size, "a size is written as another", size, format_bytes(size))


def _expand(template: EventTemplate, *, is_glob: bool) -> None:
    for source in _SOURCES:
        try:
            texts = expand(template, source, is_glob=is_glob)
        except EventError as exc:
            expect(str(exc).isprintable(), "a reason that is no line", str(exc))
        else:
            expect(all(texts) or not template.pieces, "a name of no characters", template)


def _topics(pattern: str, routing_key: str) -> None:
    found = takes(pattern, routing_key)
    words = [{"*": "[^.]*", "#": "#"}.get(word, re.escape(word)) for word in pattern.split(".")]
    if _read(check_topic, pattern) is not None and routing_key and pattern.count("#") <= 4:
        expect(found is _takes(words, routing_key), "a topic takes other keys", pattern, routing_key)
        if _read(check_topic, routing_key) is not None and takes_all_of(pattern, routing_key):
            expect(takes(pattern, routing_key.replace("*", "w").replace("#", "w")), "it covers it, and takes it not")


def _takes(words: list[str], routing_key: str) -> bool:
    """Decide by a regular expression over words that all end with a dot."""
    expression = "".join("(?:[^.]*\\.)*" if word == "#" else f"{word}\\." for word in words)
    return re.fullmatch(expression, f"{routing_key}.", re.DOTALL) is not None


def _condition(condition: Condition) -> None:
    expect(math.isfinite(condition.bound), "a bound without end", condition)
    again = parse_condition(condition.text)
    expect(math.isclose(again.bound, condition.bound, rel_tol=0.006, abs_tol=0.51), "written as another", condition)
    condition.holds(0.5)


def _addresses(text: str) -> None:
    found: Endpoint | None = _read(parse_endpoint, text)
    if found is not None:
        expect(found.scheme != "unix" or found.path.startswith("/"), "a socket anywhere", found.path)
        secret = found.password
        expect(
            len(secret) < 6 or secret in found.host + found.username + found.path or secret not in found.display, "told"
        )
    broker = _read(parse_amqp_url, text)
    expect(broker is None or broker.display, "a broker that cannot be shown")
    _read(parse_admin_url, text)


TEMPLATES: Final = Target(
    "templates",
    _run,
    [event_templates, templates, topics, alert_conditions, endpoint, units, expanding, matching, dependencies],
    [
        *(
            b"ticket:{body.id}:{headers.tenant}",
            b"{body.items[].id}:{body.items[].k}:*",
            b'{body["a b"][1][]}',
            b"{{}}",
        ),
        *(b"{routing_key.2}", b"list:{1}:{2}:*", b"tag:{1}", b"\\*\\tag:x", b"ticket.*.# ticket.7.new", b"#.a.# x.a.b"),
        *(b"hit_rate < 85%", b"latency_p99 >= 20ms", b"l1_bytes > 1.5GiB", b"log", b"https://h/x", b"a.b"),
        *(b"redis://u:p%23@h:6379/3", b"unix:///run/x.sock?db=1", b"amqps://u:p@h:5671/%2fv", b"http://[::1]:80"),
        *(b"1.5h", b"250ms", b"64MiB", b"1 d"),
    ],
    (
        *(
            b"{body",
            b"{headers.",
            b"{routing_key",
            b"}",
            b"[]",
            b"[0]",
            b'["',
            b'"]',
            b".",
            b"{{",
            b"}}",
            b"{1}",
            b"{9}",
        ),
        *(
            b"tag:",
            b"\\",
            b"*",
            b"[",
            b"]",
            b"?",
            b"#",
            b" ",
            b"hit_rate",
            b"staleness",
            b"<=",
            b">",
            b"%",
            b"ms",
            b"e9",
        ),
        *(
            b"redis://",
            b"rediss://",
            b"unix://",
            b"amqp://",
            b"http://",
            b"@",
            b":",
            b"/",
            b"?db=",
            b"%2F",
            b"%ff",
            b"[::1]",
        ),
        *(b"KiB", b"TiB", b"us", b"d", b"1e400", b"\xc3\xa9", b"\xe2\x80\x8b", b"\0", b"\n", b"log", b"..", b"xn--"),
    ),
    max_bytes=300,
)
