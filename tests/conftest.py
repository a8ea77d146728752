"""What holds for all tests."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# The proxies that tests start keep what they compile: without it each start takes half as long again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: run in the background, a shell has it ignored for all children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the long ones to `make soak`: `make test` is to be done in minutes.

    A marker with words holds for the parameters whose ids have one of them.
    """
    if not os.environ.get("RESPITE_ALL_SERVERS"):
        for item in items:
            markers = list(item.iter_markers("long"))
            if any(not marker.args or any(word in item.name for word in marker.args) for marker in markers):
                item.add_marker(pytest.mark.skip(reason="for make soak, or RESPITE_ALL_SERVERS=1"))


@pytest.fixture(autouse=True)
def take_turns(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run beside the tests of other processes (`pytest -n`), but for a test that is marked `alone`."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        yield
        return
    is_alone = request.node.get_closest_marker("alone") is not None
    with Path(tempfile.gettempdir(), f"respite-tests-{run}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        yield


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take away the lock of this run: the process that deals out the tests is the last one to end."""
    run = getattr(config, "workerinput", None)
    if run is None and (dealer := config.pluginmanager.get_plugin("dsession")) is not None:
        uid = getattr(getattr(dealer, "nodemanager", None), "testrunuid", "")
        Path(tempfile.gettempdir(), f"respite-tests-{uid}.lock").unlink(missing_ok=True)
