"""Logs of the admin port as a running proxy writes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from proxy.log import configure


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    configure("debug", "text")
    yield
    structlog.reset_defaults()
