"""What each user of the proxy may run: one `Rights` for everybody, or one for each of `listen.users`.

Owns them: they are made when the configuration says so, and follow the server's commands when those change. A client
holds the one of its user, and finds every command in its table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs

from proxy.config.command_words import CommandRule
from proxy.config.model import Listen
from proxy.config.users import ProxyUser
from proxy.core.rights.narrowing import Rules, may_run, narrow, strangers
from proxy.log import get_logger
from proxy.wire.commands import READ_KINDS, CommandSpec, CommandTable, Kind
from proxy.wire.encode import error

Level = Literal["none", "read", "all"]
NAME_SHOWN: Final = 64
CATEGORIES_UNTOLD: Final = b"-ERR respite: the server has not told the categories of its commands\r\n"
_CONFIG_GET: Final = CommandSpec(b"CONFIG|GET", Kind.READ, categories=frozenset([b"admin", b"slow", b"dangerous"]))
_CONFIG_SET: Final = attrs.evolve(_CONFIG_GET, name=b"CONFIG|SET")
_CONFIG: Final = attrs.evolve(_CONFIG_GET, name=b"CONFIG")
log = get_logger("rights")


@attrs.define(eq=False)
class Rights:
    """What somebody may run. `table` is replaced when the server's commands are learnt anew.

    `respite` is how much of RESPITE is his; `asks_redis` whether Redis must let him run CONFIG besides.
    """

    table: CommandTable
    user: str = ""  # "" is whoever comes, where there are no listen.users
    rules: Rules = ()  # of the user
    allow: Rules = ()  # listen.allow_commands
    deny: Rules = ()  # listen.deny_commands
    respite: Level = "all"
    asks_redis: bool = True
    is_told: bool = False  # the server has told the categories of its commands
    looks_at_reads: bool = False  # a command that L1 answers is denied: nothing may be answered from its bytes alone

    def learn(self, table: CommandTable) -> None:
        """Follow the server's commands."""
        found = table
        for rules in (self.allow, self.deny, self.rules):
            found = narrow(found, rules)
        self.table = found
        self.is_told = any(spec.categories is not None for spec in table)
        # Those whom no rule is about share the server's own table, and what it remembers of spellings.
        self.looks_at_reads = found is not table and any(
            _is_narrowed(found.find([spec.name])) for spec in table if spec.kind in READ_KINDS
        )

    def share(self, other: Rights) -> None:
        """Take what somebody with the same lists of commands has learnt."""
        self.table, self.is_told, self.looks_at_reads = other.table, other.is_told, other.looks_at_reads

    def refusal(self, spec: CommandSpec, args: list[bytes]) -> bytes:
        """Return the error for a command that is denied: what is denied, and which key of the configuration says so."""
        if not self.is_told and self._needs_categories:
            return CATEGORIES_UNTOLD
        name = (spec.name or bytes(args[0])[:NAME_SHOWN]).decode("utf-8", "backslashreplace").lower()
        by_listen = next(
            (key for key, rules in (("allow", self.allow), ("deny", self.deny)) if not self._lets(rules, spec)), ""
        )
        if by_listen:
            return error(f"NOPERM respite: this proxy does not let clients run '{name}' (listen.{by_listen}_commands)")
        return error(f"NOPERM respite: user '{self.user}' may not run '{name}' here (listen.users)")

    @property
    def _needs_categories(self) -> bool:
        rules = (*self.allow, *self.deny, *self.rules)
        return any(rule.word.startswith("@") and rule.word != "@all" for rule in rules)

    @staticmethod
    def _lets(rules: Rules, spec: CommandSpec) -> bool:
        container = attrs.evolve(spec, name=spec.name.partition(b"|")[0])
        return may_run(rules, spec, container)


class RightsBook:
    """The rights of all users. One a worker."""

    def __init__(self, table: CommandTable) -> None:
        self._table = table
        self._everybody = Rights(table)
        self._by_user: dict[bytes, Rights] = {}
        self._listen: tuple[object, ...] = ()

    def of(self, user: bytes) -> Rights:
        """Return the rights of one of listen.users, of everybody for b""; nobody knows: what everybody may."""
        return self._by_user.get(user, self._everybody)

    def take(self, listen: Listen) -> None:
        """Take what the configuration says."""
        said = (listen.users, listen.allow_commands, listen.deny_commands)
        if said == self._listen:
            return
        self._listen = said
        allow = _list(listen.allow_commands, allows=True)
        deny = _list(listen.deny_commands, allows=False)
        self._everybody = _rights(self._table, None, allow, deny)
        self._by_user = {user.name.encode(): _rights(self._table, user, allow, deny) for user in listen.users}
        self.learn(self._table)

    def learn(self, table: CommandTable) -> None:
        """Follow the server's commands."""
        self._table = table
        by_lists: dict[tuple[Rules, Rules, Rules], Rights] = {}
        for rights in (self._everybody, *self._by_user.values()):
            first = by_lists.setdefault((rights.allow, rights.deny, rights.rules), rights)
            if first is rights:
                rights.learn(table)  # some milliseconds each: done once for all of a role
            else:
                rights.share(first)
        self._warn()

    def _warn(self) -> None:
        """Say which words are about no command: they deny nothing."""
        if all(spec.categories is None for spec in self._table):
            return  # not told yet
        everybody = self._everybody
        lists: dict[Rules, str] = {(*everybody.allow, *everybody.deny): ""}
        for rights in self._by_user.values():
            lists.setdefault(rights.rules, rights.user)
        for rules, user in lists.items():
            words = strangers(self._table, rules)
            if words:
                log.warning("the server has no such command or category", user=user, words=", ".join(words))


def _list(words: Iterable[str], *, allows: bool) -> Rules:
    rules = tuple(CommandRule(allows, word) for word in words)
    return (CommandRule(allows=False, word="@all"), *rules) if rules and allows else rules


def _rights(table: CommandTable, user: ProxyUser | None, allow: Rules, deny: Rules) -> Rights:
    rules = () if user is None else user.commands
    rights = Rights(table, "" if user is None else user.name, rules, allow, deny)
    if user is not None and user.respite is not None:
        rights.respite, rights.asks_redis = user.respite, False
    else:
        rights.respite = _level((allow, deny, rules))
    return rights


def _level(lists: Sequence[Rules]) -> Level:
    """Return how much of RESPITE is for those who may run what these lists say: as much as of CONFIG, or as named."""
    named = [rule.allows for rules in lists for rule in rules if rule.word == "respite"]
    if named:
        return "all" if all(named) else "none"
    if not all(may_run(rules, _CONFIG_GET, _CONFIG) for rules in lists):
        return "none"
    return "all" if all(may_run(rules, _CONFIG_SET, _CONFIG) for rules in lists) else "read"


def _is_narrowed(spec: CommandSpec) -> bool:
    return spec.kind is Kind.DENIED or bool(spec.subcommands)
