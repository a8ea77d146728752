"""Who else on this machine may read the secrets of a configuration, or change what it says: for `check` and `run`.

Nothing is refused: containers and their volumes show rights that are not theirs to change. What is wrong is said with
the command that makes it right.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from proxy.config.load import load_settings
from proxy.config.model import Settings
from proxy.errors import ConfigError


def exposures(path: Path | None, settings: Settings) -> Iterator[str]:
    """Yield a sentence for each file that others may read or change and should not; `path` None is no file."""
    if path is not None:
        yield from _judge(path, "holds passwords or tokens" if holds_secrets(_of_file(path, settings)) else "")
    tables = (settings.listen.tls, settings.upstream.tls, settings.amqp.tls)
    for key in dict.fromkeys(table.key for table in tables if table.key):
        yield from _judge(Path(key), "is a private key")


def _of_file(path: Path, settings: Settings) -> Settings:
    """Return what the file says by itself, as far as it can be read: a password of the environment is not in it."""
    try:
        return load_settings(path, env={}, overrides={})
    except ConfigError:
        return settings


def holds_secrets(settings: Settings) -> bool:
    """Say whether anything was configured that must stay among those who know it, wherever it was written."""
    listen, upstream = settings.listen, settings.upstream.endpoint
    notify = (*settings.metrics.notify, *(one for rule in settings.alerts for one in rule.notify or ()))
    return bool(
        listen.users
        or listen.admin_token
        or settings.push.tokens
        or (upstream is not None and upstream.password)
        or any(url.password not in ("", "guest") for url in settings.amqp.urls)
        or any(one.kind == "webhook" for one in notify)
    )


def _judge(path: Path, secret: str) -> Iterator[str]:
    try:
        found = path.stat()
    except OSError:
        return
    mode = found.st_mode
    # A group of one's own, as most systems make it, is nobody else; and of somebody else's file the group is how we
    # come to read it. Root looks at files that others run with.
    is_shared = found.st_uid == os.geteuid() != 0 and found.st_gid != found.st_uid
    if mode & stat.S_IWOTH:
        yield f"{path} can be changed by everybody on this machine: chmod o-w {path}"
    elif mode & stat.S_IWGRP and found.st_gid not in (0, found.st_uid):
        yield f"{path} can be changed by its whole group: chmod g-w {path}"
    if secret and mode & stat.S_IROTH:
        yield f"{path} {secret} and can be read by everybody on this machine: chmod o-rwx {path}"
    elif secret and mode & stat.S_IRGRP and is_shared:
        yield f"{path} {secret} and can be read by its whole group: chmod g-rwx {path}"
