"""[push]: who may listen, and what their tokens and pages look like."""

from __future__ import annotations

import pytest

from proxy.config.load import default_settings, load_settings
from proxy.config.model import Push, PushToken, Settings
from proxy.errors import ConfigError

from .conftest import Fail

TOKENS = [{"token": "t1", "channels": ["ticket:*", "tag:x"]}, {"token": "t2", "channels": ["a"]}]


def load(**keys: object) -> Settings:
    """Return the settings with some keys of [push]."""
    return load_settings(None, env={}, overrides={f"push.{name}": value for name, value in keys.items()})


def test_load_push_defaults_are_those_of_the_contract() -> None:
    """A thousand subscribers, and polls that come every 10 to 60 seconds."""
    assert Push(1000, 15.0, 10.0, 60.0, 16 << 20, (), ()) == default_settings().push


def test_load_push_tokens_are_read_with_their_channels() -> None:
    """Each has patterns of channels of its own."""
    tokens = load(tokens=TOKENS).push.tokens

    assert (PushToken("t1", ("ticket:*", "tag:x")), PushToken("t2", ("a",))) == tokens
    assert "t1" not in repr(tokens)


@pytest.mark.parametrize(
    "tokens",
    [
        *("t1", [{"token": "t1"}], [{"token": "", "channels": ["a"]}], [{"token": "t 1", "channels": ["a"]}]),
        *([{"token": "t1", "channels": []}], [{"token": "t1", "channels": "a"}], [{"token": "t1", "channels": [1]}]),
        *([TOKENS[0], TOKENS[0]], [{"token": "t1", "channels": [""]}], [{"token": "t1", "channels": ["[z"]}]),
        [{"token": "t1", "channels": ["a"], "more": 1}],
    ],
)
def test_load_push_token_that_is_none_is_refused_without_being_shown(tokens: object) -> None:
    """A slip of the pen is said, but never what may be a secret."""
    with pytest.raises(ConfigError) as caught:
        load(tokens=tokens)

    (problem,) = caught.value.problems
    assert "push.tokens" == problem.path
    assert "t1" not in str(problem)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "app.example.org",
            "https://app.example.org/",
            "ftp://a",
            "https://",
            "HTTPS://a",
            "*",
            "http://[",
            "http://:81",
        ),
        *(
            "https://user:pw@host",
            "https://host:443",
            "http://host:80",
            "http://host:",
            "http://h:x",
            "https://bücher.de",
        ),
    ],
)
def test_load_push_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    """It would be compared with what browsers send, and never be the same."""
    with pytest.raises(ConfigError, match=r"origin|browsers") as caught:
        load(origins=[origin])

    assert "pw" not in str(caught.value)


def test_load_push_origins_are_read_as_they_are() -> None:
    """Scheme, host, and a port where it is not the usual one."""
    origins = ["https://app.example.org", "http://localhost:8080", "https://host:80", "http://[::1]:81"]

    assert tuple(origins) == load(origins=origins).push.origins


def test_load_poll_min_above_poll_max_is_refused(fail: Fail) -> None:
    """The least is not more than the most."""
    problems = fail("push.poll_min = '5m'")

    assert ["push.poll_min"] == list(problems)
    assert "push.poll_max (1m)" in problems["push.poll_min"].allowed


def test_load_push_token_that_is_the_admin_token_is_refused(fail: Fail) -> None:
    """Who may only listen would otherwise be let in for everything, or the other way round."""
    problems = fail("listen.admin_token = 't'\npush.tokens = [{ token = 't', channels = ['a'] }]")

    assert ["push.tokens"] == list(problems)
