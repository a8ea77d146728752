"""How many files this process may open: as many as the system lets it, and whether that is enough for the settings.

Each client is a file, each link to Redis, each stream of the admin port.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

from proxy.config.model import Settings
from proxy.log import get_logger

FILES_MAX: Final = 1 << 20  # as many as Linux gives a process that asks for no limit
_OTHERS: Final = 256  # links, the admin port and its streams, the broker, what Python has open
log = get_logger("files")


def check_file_limit(settings: Settings) -> bool:
    """Raise the limit of this process and its children, and say so when it is too low; return whether it is enough.

    A shell's 1024 is for programs that use select(). What is allowed already is never lowered.
    """
    listen = settings.listen
    workers = listen.workers
    each = (listen.max_clients + settings.upstream.pinned_connections) // workers
    needed = each + _OTHERS + (settings.push.max_subscribers if listen.admin else 0)
    allowed = _raise_limit()
    if allowed < needed:
        log.warning(
            "too few files may be open for listen.max_clients", needed=needed, allowed=allowed, see="ulimit -Hn"
        )
    return allowed >= needed


def _raise_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # macOS names a limit that it then refuses
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_MAX if soft == resource.RLIM_INFINITY else soft
