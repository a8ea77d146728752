"""The files of `conf/` say the truth about the table of keys."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from proxy.config.alerts import ALERTS
from proxy.config.classes import CLASSES
from proxy.config.event_rules import EVENTS
from proxy.config.key import Tables
from proxy.config.keys import KEYS
from proxy.config.kinds import Kind
from proxy.config.load import default_settings, load_settings
from proxy.config.model import ClassSettings
from proxy.config.units import parse_seconds
from proxy.errors import ConfigError
from proxy.values.advice import warnings
from proxy.values.rules import Rules
from proxy.values.ttl import Thresholds, decide

CONF = Path(__file__).parents[2] / "conf"
SAMPLE = (CONF / "respite.toml").read_text(encoding="utf-8")
PLAIN = [key for key in KEYS if not isinstance(key.kind, Tables)]
README = (CONF / "README.md").read_text(encoding="utf-8")
_EVENTS_BEGIN = "# Any number of rules for events"
_ALERTS_BEGIN = "# Any number of alerts"
EXAMPLES = re.findall(r"```toml\n(.+?)```", README, re.DOTALL)


def _leaf(document: dict[str, Any], path: str) -> object:
    node: Any = document
    for name in path.split("."):
        node = node[name]
    return node


def _commented(paragraph: str, array: str = "class") -> list[str]:
    """Return the lines of tables that are commented out, without their #."""
    lines = paragraph.splitlines()
    return [line.removeprefix("#").removeprefix(" ") for line in lines[lines.index(f"# [[{array}]]") :]]


def _sample_class() -> list[str]:
    """Return the class that shows every key."""
    return _commented(SAMPLE[SAMPLE.index("# Any number of classes") : SAMPLE.index("\n\n# The choice of TTLs")])


def _sample_event() -> list[str]:
    """Return the event rule that shows every key."""
    return _commented(SAMPLE[SAMPLE.index(_EVENTS_BEGIN) : SAMPLE.index(f"\n{_ALERTS_BEGIN}")], "event")


def _sample_alert() -> list[str]:
    """Return the alert that shows every key."""
    return _commented(SAMPLE[SAMPLE.index(_ALERTS_BEGIN) :], "alert")


def _chosen_ttls(text: str) -> list[tuple[str, list[str], ClassSettings]]:
    """Return what a page says about its classes with adaptive TTLs: name, hot, warm, cold as written, and the class."""
    classes = {one.name: one for one in (CLASSES.build(**_fields(one)) for one in tomllib.loads(text)["class"])}
    said = re.findall(
        r'^name = "([a-z-]+)" +# (?:hot )?(\d+\w),? +(?:warm )?(\d+\w),? +(?:cold )?(\d+\w)', text, re.MULTILINE
    )
    return [(name, times, classes[name]) for name, *times in said]


def _fields(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key.field: key.kind.read(table[key.path])
        for key in CLASSES.keys
        if isinstance(key.kind, Kind) and key.path in table
    }


def _comments(lines: list[str]) -> dict[str, str]:
    """Return what stands above each key of a table that was commented out."""
    return {line.partition(" = ")[0]: above for above, line in itertools.pairwise(lines) if " = " in line}


def _count_leaves(node: object) -> int:
    return sum(map(_count_leaves, node.values())) if isinstance(node, dict) and node else 1


def test_sample_file_parses_to_exactly_the_defaults() -> None:
    """Running with the sample is running with no file."""
    assert default_settings() == load_settings(CONF / "respite.toml", env={}, overrides={})


def test_sample_file_names_every_key_with_its_default() -> None:
    """Each key stands in the sample, written as the table writes its default, and no other does."""
    document = tomllib.loads(SAMPLE)

    assert {key.path: key.default for key in PLAIN} == {key.path: _leaf(document, key.path) for key in PLAIN}
    assert len(PLAIN) == _count_leaves(document)


def test_sample_file_says_above_each_key_when_to_change_it() -> None:
    """The comment above a key is the help of the table, so that the two cannot drift apart."""
    table = ""
    comments = {}
    lines = SAMPLE.splitlines()
    for above, line in itertools.pairwise(lines):
        if header := re.fullmatch(r"\[(.+)\]", line):
            table = header[1]
        elif (assignment := re.match(r"([a-z0-9_.]+) = ", line)) and above.startswith("# "):
            comments[f"{table}.{assignment[1]}"] = above.removeprefix("# ")

    assert {key.path: key.help for key in PLAIN} == comments


def test_sample_file_shows_a_class_with_every_key() -> None:
    """The class that is commented out has each key once, its default where it has one, below the help of the table."""
    lines = _sample_class()
    (shown,) = tomllib.loads("\n".join(lines))["class"]

    assert [key.path for key in CLASSES.keys] == list(shown)
    assert {key.path: f"# {key.help}" for key in CLASSES.keys} == _comments(lines)
    for key in CLASSES.keys:
        assert key.default is None or key.default == shown[key.path], key.path


def test_sample_file_shows_an_event_rule_with_every_key() -> None:
    """The rule that is commented out has each key once, below the help of the table."""
    lines = _sample_event()
    (shown,) = tomllib.loads("\n".join(lines))["event"]

    assert [key.path for key in EVENTS.keys] == list(shown)
    assert {key.path: f"# {key.help}" for key in EVENTS.keys} == _comments(lines)


def test_sample_file_shows_an_alert_with_every_key() -> None:
    """The alert that is commented out has each key once, below the help of the table."""
    lines = _sample_alert()
    (shown,) = tomllib.loads("\n".join(lines))["alert"]

    assert [key.path for key in ALERTS.keys] == list(shown)
    assert {key.path: f"# {key.help}" for key in ALERTS.keys} == _comments(lines)


def test_sample_file_says_above_each_array_when_to_add_to_it() -> None:
    """An array of tables is a key, too, and has its line."""
    for key in KEYS:
        if isinstance(key.kind, Tables):
            assert f"\n# {key.help}\n# [[{key.path}]]\n" in SAMPLE, key.path


def test_sample_file_with_its_class_event_rule_and_alert_is_valid(tmp_path: Path) -> None:
    """Taking the # away gives a class, a rule and an alert, and nothing else changes."""
    path = tmp_path / "respite.toml"
    path.write_text(SAMPLE + "\n".join(_sample_class() + _sample_event() + _sample_alert()), encoding="utf-8")

    settings = load_settings(path, env={}, overrides={})

    assert [one.name for one in settings.classes] == ["tickets"]
    assert [one.routing_key for one in settings.events] == ["ticket.*"]
    assert [one.name for one in settings.alerts] == ["hit rate low"]
    assert default_settings() == attrs.evolve(settings, classes=(), events=(), alerts=())


@pytest.mark.parametrize("page", ["sample", "readme"])
def test_ttls_that_a_page_names_are_those_that_are_decided(page: str) -> None:
    """Next to each of four classes stands how long its hot, warm and cold keys live: by default, that is so."""
    text = (
        "\n".join(_commented(SAMPLE.partition("# The choice of TTLs")[2].partition(_EVENTS_BEGIN)[0]))
        if page == "sample"
        else next(example for example in EXAMPLES if "adaptive_ttl" in example)
    )
    ttl = attrs.evolve(default_settings().ttl, jitter=0.0)
    bases = []
    for name, times, one in _chosen_ttls(text):
        (rules,) = Rules((one,)).classes
        decided = [
            decide(rules.ttl, Thresholds(**attrs.asdict(ttl)), asked_ms=7_000_000, reads=reads, random=0.0).would_be_ms
            for reads in (ttl.hot_above + 1, ttl.warm_above + 1, ttl.warm_above)
        ]
        assert decided == [1000 * parse_seconds(time) for time in times], name
        bases.append(one.ttl_s)
    assert bases == [1800.0, 600.0, 60.0, 30.0]


def test_minimal_file_needs_nothing_but_the_upstream() -> None:
    """The smallest file is the defaults and an upstream."""
    settings = load_settings(CONF / "minimal.toml", env={}, overrides={})

    assert settings.upstream.endpoint is not None
    assert settings == load_settings(None, env={}, overrides={"upstream.url": settings.upstream.endpoint.display})


def test_container_file_listens_on_every_address() -> None:
    """The configuration inside the image is valid, and other containers reach the proxy."""
    settings = load_settings(CONF.parent / "docker" / "respite.toml", env={}, overrides={})

    assert [(url.host, url.port) for url in settings.listen.urls] == [("0.0.0.0", 6380)]


def test_readme_table_of_live_keys_is_the_one_of_the_code() -> None:
    """What the page promises to apply at once is what a reload applies."""
    rows = README.partition("| at once | after a restart |\n| --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    cells = [[set(re.findall(r"`(.+?)`", cell)) for cell in row.strip("|").split("|")] for row in rows]

    assert {key.path for key in KEYS if key.live} == set().union(*(cell[0] for cell in cells))
    assert {key.path for key in KEYS if not key.live} == set().union(*(cell[1] for cell in cells))


@pytest.mark.parametrize("example", EXAMPLES)
def test_readme_examples_are_valid(example: str, tmp_path: Path) -> None:
    """An example can be copied: once its certificates are there, nothing is wrong with it, and nothing doubtful."""
    path = tmp_path / "respite.toml"
    pem = tmp_path / "x.pem"
    pem.write_text("")
    path.write_text(re.sub(r'"/etc/respite/\w+\.pem"', f'"{pem}"', example), encoding="utf-8")

    try:
        settings = load_settings(path, env={}, overrides={})
    except ConfigError as exc:
        pytest.fail(str(exc))
    assert warnings(settings) == ()
