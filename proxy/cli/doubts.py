"""What is allowed and can hardly be meant, of a whole configuration: what it says, who can read it, what ends soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy.config.exposure import exposures
from proxy.config.model import Settings
from proxy.errors import Problem
from proxy.tls.certificate import ending_soon
from proxy.values.advice import warnings


def doubts(path: Path | None, settings: Settings) -> Iterator[str]:
    """Yield a sentence for each, for `respite check`; `path` is the file that was read, None for none."""
    yield from warnings(settings)
    yield from dangers(path, settings)


def unusable(settings: Settings) -> Iterator[Problem]:
    """Yield one for each side whose TLS files nothing can be made of, for `respite check`: `run` tries them itself.

    A reload does not ask: files that are just being replaced may not fit, and are used once they do.
    """
    listen, upstream, amqp = settings.listen, settings.upstream, settings.amqp
    sides = {
        "listen.tls": any(url.scheme == "tls" for url in listen.urls),
        "upstream.tls": upstream.endpoint is not None and upstream.endpoint.scheme == "tls",
        "amqp.tls": any(url.is_tls for url in amqp.urls),
    }
    if not any(sides.values()):
        return
    from proxy.tls.contexts import client_side, server_side  # noqa: PLC0415 - brings the log along

    tries: dict[str, Callable[[], object]] = {
        "listen.tls": lambda: server_side("listen.tls", listen.tls),
        "upstream.tls": lambda: client_side("upstream.tls", upstream.tls),
        "amqp.tls": lambda: client_side("amqp.tls", amqp.tls),
    }
    for name in (name for name, is_used in sides.items() if is_used):
        try:
            tries[name]()
        except OSError as exc:
            yield Problem(
                name, "{...}", f"PEM: a certificate and the private key that belongs to it, authorities ({exc})"
            )


def dangers(path: Path | None, settings: Settings, upstream_flag: str = "") -> Iterator[str]:
    """Yield those that `respite run` says too: what lies open to others, and certificates that end soon."""
    if "@" in upstream_flag and settings.upstream.endpoint is not None and settings.upstream.endpoint.password:
        yield "--upstream holds a password, and everybody sees the flags of a process: say RESPITE_UPSTREAM instead"
    yield from exposures(path, settings)
    yield from ending_soon(settings, time.time())
