"""Those whom Respite itself lets in, `listen.users`: who they are, how they prove it, what they may run.

Knows the form only; passwords are tried in `net.door.logins`, commands judged in `core.rights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

import attrs

from proxy.config.command_words import CommandRule, read_command_rules
from proxy.config.kinds import Kind, is_list
from proxy.config.passwords import PasswordHash

RESPITE_RIGHTS: Final = ("none", "read", "all")
_KEYS: Final = frozenset(["name", "password", "password_hash", "commands", "respite"])


@attrs.frozen
class ProxyUser:
    """Somebody whom Respite itself lets in, whatever Redis would say.

    Either `password` or `password_hash` is there. `commands` are rules in their order, the last that takes a command
    has it; none of them: all. `respite` None: RESPITE is for those who may run CONFIG.
    """

    name: str
    password: str = attrs.field(default="", repr=False)
    password_hash: PasswordHash | None = None
    commands: tuple[CommandRule, ...] = ()
    respite: Literal["none", "read", "all"] | None = None


def users() -> Kind:
    """Accept a list of tables of users, each with a name and a password, and no name twice."""

    def read(value: object) -> tuple[ProxyUser, ...]:
        if not is_list(value):
            raise ValueError
        found = tuple(_user(item, number) for number, item in enumerate(value, start=1))
        if len({user.name for user in found}) != len(found):
            raise ValueError("a name stands twice")
        return found

    return Kind(
        'a list of { name = "...", password_hash = "..." } (or password), with commands = ["+@read"] and '
        'respite = "none", "read" or "all" where wanted',
        read,
    )


def _user(item: object, number: int) -> ProxyUser:
    """Read one. What is wrong is said without any value of it: it may be a password with a slip of the pen."""
    if not isinstance(item, dict) or not item.keys() <= _KEYS:
        raise ValueError(f"user {number} has other keys than {', '.join(sorted(_KEYS))}")
    name, password, hashed = (_text(item, key, number) for key in ("name", "password", "password_hash"))
    if not name or bool(password) == bool(hashed):
        raise ValueError(f"user {number} needs a name, and either password or password_hash")
    respite = item.get("respite")
    if respite is not None and respite not in RESPITE_RIGHTS:
        raise ValueError(f"respite of user {number} is one of {', '.join(RESPITE_RIGHTS)}")
    try:
        commands = read_command_rules(item.get("commands", []))
    except ValueError as exc:
        raise ValueError(f"commands of user {number}: {str(exc) or 'a list of texts'}") from exc
    return ProxyUser(
        name,
        password,
        PasswordHash.parse(hashed) if hashed else None,
        commands,
        cast("Literal['none', 'read', 'all'] | None", respite),
    )


def _text(item: Mapping[str, object], key: str, number: int) -> str:
    value = item.get(key, "")
    if not isinstance(value, str) or (key in item and not value):
        raise ValueError(f"{key} of user {number} is a text that is not empty")
    return value
