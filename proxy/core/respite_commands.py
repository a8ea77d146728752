"""RESPITE: what a user with a Redis client can ask the proxy itself.

Allowed to users who may run CONFIG: before anything is told, Redis is asked to let them read a setting; before
anything is changed, to let them change one that does not exist. Figures name keys to those whom it lets SCAN. Where
listen.users says how much of RESPITE is somebody's, that counts instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from proxy.core.downstream import Downstream, Host, Services
from proxy.core.plain import StepSlot
from proxy.core.respite_values import ask_value, invalidate, set_versioned, version
from proxy.core.session import Filters
from proxy.core.slots import Pending
from proxy.errors import HOST_SILENT
from proxy.wire.encode import command, error, integer, strings, verbatim
from proxy.wire.request import Raw

HELP: Final = (
    "RESPITE <subcommand> [<arg> [value] ...]. Subcommands are:",
    "CLIENTS",
    "    Return the client connections, one line each, as CLIENT LIST does.",
    "EXPLAIN <key>",
    "    Return what L1 and Redis hold for a key, which class it has, and what becomes of its TTL.",
    "HELP",
    "    Print this help.",
    "INFO [<section>]",
    "    Return figures as INFO does, one a line. Sections are those of RESPITE STATS: upstream, outage, offline, l1,",
    "    clients, commands, values, events .., and with a line a name: classes, commands_by_name, link_kinds, hot.",
    "INVALIDATE KEY <key> [<key> ...] | MATCH <glob> | TAG <tag>",
    "    Drop keys, what matches a glob, or what carries a tag, in both tiers; return how many keys and fences.",
    "L1 CLEAR",
    "    Drop everything in L1; return how many entries went.",
    "LINKS",
    "    Return the connections to Redis, one line each.",
    "RELOAD",
    "    Read the configuration again and apply what can be applied; a wrong one changes nothing.",
    "SETV <key> <version> <value> [EX <seconds> | PX <milliseconds>]",
    "    Write a value over one with an older version, or none; return 1 if it was written, 0 if a newer one is there.",
    "STATS",
    "    Return all figures as JSON, as /stats.json of the admin port does.",
    "VERSION <key>",
    "    Return the version of a key's value, nil where it has none.",
)
CHANGING: Final = frozenset([b"INVALIDATE", b"L1", b"RELOAD", b"SETV"])  # the others only tell
PROBE_GET: Final = command("CONFIG", "GET", "respite-may-i")
PROBE_SET: Final = command("CONFIG", "SET", "respite-may-i", "")
PROBE_SCAN: Final = command("SCAN", 0, "COUNT", 1)
NAMING: Final = ("hot", "recent")  # the parts of a report that name keys
PING: Final = command("PING")


class RespiteCommands:
    """Answer RESPITE subcommands."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def ask(self, client: Downstream, args: list[bytes]) -> tuple[Raw, Callable[[bytes], bytes | Pending]]:
        """Return the question whether the user may, and the answer if so."""
        words = [bytes(word) for word in args[1:]]
        rights = client.rights
        changes = bool(words) and words[0].upper() in CHANGING

        def then(reply: bytes) -> bytes | Pending:
            if rights.respite == "none" or (changes and rights.respite == "read"):
                self._services.count_denied(rights.user)
                return _denied(rights.user, words)
            if rights.asks_redis and reply[:1] in b"-!" and not (changes and _may_set(reply)):
                return reply
            host = self._services.host
            match [word.upper() for word in words]:
                case [b"RELOAD"]:
                    return self._reload(host, client.session.protocol)
                case [b"STATS"] | [b"INFO"] | [b"INFO", b"HOT"] if rights.asks_redis:
                    return self._naming(host, client, words)
                case [b"EXPLAIN", _]:
                    return self._explain(host, client, words[1])
                case [b"VERSION", _]:
                    return version(client, self._services, words[1])
                case [b"SETV", _, _, _, *_]:
                    return set_versioned(client, self._services, words[1:])
                case [b"INVALIDATE", b"KEY", _, *_] | [b"INVALIDATE", b"MATCH" | b"TAG", _]:
                    return invalidate(client, self._services, words[1].upper(), words[2:])
            pending = None if host is None else self._ask_host(host, client.session.protocol, words)
            return self._answer(client, words) if pending is None else pending

        if not rights.asks_redis:
            return PING, then
        return (PROBE_SET if changes else PROBE_GET), then

    def _reload(self, host: Host | None, protocol: int) -> Pending:
        pending = Pending()

        def then(answer: Any) -> None:
            if answer is None:
                pending.settle(HOST_SILENT)
            elif answer["problems"]:
                what = "the file is applied, but not everywhere" if answer.get("partly") else "the old settings stay"
                pending.settle(error(f"ERR respite: {what}: " + "; ".join(answer["problems"])))
            else:
                pending.settle(verbatim(json.dumps(answer), protocol))

        if host is None:
            self._services.reload(then)
        else:
            host.ask("reload", then=then)
        return pending

    def _explain(self, host: Host | None, client: Downstream, key: bytes) -> Pending:
        """Join what all workers know of a key with what Redis holds, and lets this user read."""
        pending = Pending()
        protocol = client.session.protocol

        def valued(value: dict[str, Any]) -> None:
            refusal = value.get("error", "")
            if refusal.startswith("NOPERM"):  # who may not read the key is told nothing else of it, either
                pending.settle(error(refusal))
                return

            def known(facts: dict[str, Any] | None) -> None:
                told = HOST_SILENT if facts is None else verbatim(json.dumps({**facts, "value": value}), protocol)
                pending.settle(told)

            if host is None:
                known(self._services.explain(key))
            else:
                host.ask("explain", key, then=known)

        ask_value(client, self._services, key, valued)
        return pending

    def _naming(self, host: Host | None, client: Downstream, words: list[bytes]) -> Pending:
        """Answer with figures that name keys; without these names for a user whom Redis does not let list its keys."""
        pending = Pending()
        protocol = client.session.protocol

        def listed(reply: bytes) -> None:
            hidden = () if reply[:1] == b"*" else NAMING

            def told(report: dict[str, Any] | None) -> None:
                shown = {name: [] if name in hidden else part for name, part in (report or {}).items()}
                pending.settle(HOST_SILENT if report is None else _figures(words, shown, protocol))

            if host is None:
                told(self._services.report(""))
            else:
                host.ask("stats", then=told)

        link = client.route()
        if link is None:
            listed(client.why_not())
        else:
            link.submit(PROBE_SCAN, StepSlot(1, lambda replies: listed(replies[0]), listed))
        return pending

    def _ask_host(self, host: Host, protocol: int, words: list[bytes]) -> Pending | None:
        """Ask all workers what one of them cannot say; None for what is the same in all."""
        pending = Pending()

        def ask(question: str, *arguments: object, form: Callable[[Any], bytes]) -> Pending:
            host.ask(
                question,
                *arguments,
                then=lambda answer: pending.settle(HOST_SILENT if answer is None else form(answer)),
            )
            return pending

        match [word.upper() for word in words]:
            case [b"INFO"] | [b"INFO", _] | [b"STATS"]:
                return ask("stats", form=lambda report: _figures(words, report, protocol))
            case [b"CLIENTS"]:
                return ask("lines", Filters(), form=lambda lines: verbatim("".join(f"{x}\n" for x in lines), protocol))
            case [b"LINKS"]:
                return ask("stats", form=lambda report: verbatim(_rows(report["links"]), protocol))
            case [b"L1", b"CLEAR"]:
                return ask("clear_l1", form=integer)
            case _:
                return None

    def _answer(self, client: Downstream, words: list[bytes]) -> bytes:
        services = self._services
        protocol = client.session.protocol
        match [word.upper() for word in words]:
            case [b"HELP"]:
                return strings(HELP)
            case [b"INFO"] | [b"INFO", _] | [b"STATS"]:
                return _figures(words, services.report(""), protocol)
            case [b"CLIENTS"]:
                return verbatim("".join(services.line_of(session) + "\n" for session in services.sessions), protocol)
            case [b"LINKS"]:
                return verbatim(_rows(services.report("")["links"]), protocol)
            case [b"L1", b"CLEAR"]:
                return integer(services.clear_l1())
            case []:
                return error("ERR wrong number of arguments for 'respite' command")
            case _:
                name = b" ".join(words[:2])[:128].decode("utf-8", "replace")
                return error(
                    f"ERR unknown RESPITE subcommand or wrong number of arguments for '{name}'. Try RESPITE HELP."
                )


def _may_set(reply: bytes) -> bool:
    """Return whether Redis refused the setting, not the command: only those who may run it are told of its name."""
    return b"respite-may-i" in reply and not reply.lower().startswith((b"-err unknown command", b"-err unknown sub"))


def _denied(user: str, words: list[bytes]) -> bytes:
    name = b" ".join(words[:1])[:64].decode("utf-8", "backslashreplace").lower()
    if user:
        return error(f"NOPERM respite: user '{user}' may not run 'respite {name}' here (listen.users)")
    return error(
        f"NOPERM respite: this proxy does not let clients run 'respite {name}' (listen.deny_commands, allow_commands)"
    )


def _figures(words: list[bytes], report: dict[str, Any], protocol: int) -> bytes:
    """Return a report as STATS, INFO or INFO section shows it."""
    if len(words) == 2:
        report = _section(report, words[1].decode("utf-8", "replace").lower())
    return verbatim(json.dumps(report) if words[0].upper() == b"STATS" else _info(report), protocol)


def _section(report: dict[str, Any], name: str) -> dict[str, Any]:
    part = report.get(name)
    return {name: part} if isinstance(part, dict | list) else {}


def _rows(rows: list[dict[str, Any]]) -> str:
    lines = (" ".join(f"{key}={value}" for key, value in row.items()) for row in rows)
    return "".join(line + "\n" for line in lines)


def _shown(value: Any) -> str:
    """Return a figure on one line: what is counted by name as INFO has its own, of rows with a name these."""
    if isinstance(value, dict) and not any(isinstance(one, dict | list) for one in value.values()):
        return _fields(value)
    if isinstance(value, list) and all(isinstance(row, dict) and "name" in row for row in value):
        return ",".join(row["name"] for row in value)
    return str(value)


def _fields(row: dict[str, Any]) -> str:
    return ",".join(f"{field}={value}" for field, value in row.items() if field != "name")


def _info(report: dict[str, Any]) -> str:
    """Return figures in INFO's form, rows with a name in that of its commandstats; others are left to LINKS."""
    lines: list[str] = []
    loose = {name: value for name, value in report.items() if not isinstance(value, dict | list)}
    for section, values in {"respite": loose, **report}.items():
        if isinstance(values, dict) and values:
            lines.append(f"# {section.capitalize()}")
            lines += [f"{name}:{_shown(value)}" for name, value in values.items()]
            lines.append("")
        elif isinstance(values, list) and values and "name" in values[0]:
            lines.append(f"# {section.capitalize()}")
            lines += [f"{row['name']}:{_fields(row)}" for row in values]
            lines.append("")
    return "\r\n".join(lines)
