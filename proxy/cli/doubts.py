"""What is allowed and can hardly be meant, of a whole configuration: what it says, who can read it, what ends soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from proxy.config.exposure import exposures
from proxy.config.model import Settings
from proxy.tls.certificate import ending_soon
from proxy.values.advice import warnings


def doubts(path: Path | None, settings: Settings) -> Iterator[str]:
    """Yield a sentence for each, for `respite check`; `path` is the file that was read, None for none."""
    yield from warnings(settings)
    yield from dangers(path, settings)


def dangers(path: Path | None, settings: Settings, upstream_flag: str = "") -> Iterator[str]:
    """Yield those that `respite run` says too: what lies open to others, and certificates that end soon."""
    if "@" in upstream_flag and settings.upstream.endpoint is not None and settings.upstream.endpoint.password:
        yield "--upstream holds a password, and everybody sees the flags of a process: say RESPITE_UPSTREAM instead"
    yield from exposures(path, settings)
    yield from ending_soon(settings, time.time())
