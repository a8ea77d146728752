"""As many files as the system allows, and a word when that is too few."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from proxy.net.files import check_file_limit

from .driver import make_settings


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Return the limits of this process, and put the soft one back in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_limit_of_a_shell_is_raised_and_nobody_is_bothered(limits: tuple[int, int]) -> None:
    """A soft limit of 256 files does not keep a proxy from serving more clients than that."""
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    with capture_logs() as logs:
        assert check_file_limit(make_settings(listen={"max_clients": 300}, push={"max_subscribers": 0}))

    soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (soft > 800, after, logs) == (True, hard, [])


def test_limit_that_is_too_low_is_said(limits: tuple[int, int]) -> None:
    """With more clients allowed than the system allows files, the log names both numbers."""
    with capture_logs() as logs:
        assert not check_file_limit(make_settings(listen={"max_clients": 100_000_000}))

    assert [(line["log_level"], line["needed"] > line["allowed"]) for line in logs] == [("warning", True)]
