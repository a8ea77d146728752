"""CLIENT: about sessions, not about the links they share.

ID, GETNAME, SETNAME, SETINFO, NO-EVICT, NO-TOUCH and REPLY are answered from the session when they are well formed;
LIST, INFO and KILL too, once Redis has let the user do so. Everything else, and whatever is malformed, goes to Redis.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from proxy.core.downstream import Downstream, PinnedConnection, Services
from proxy.core.session import FilterError, Filters, Session
from proxy.core.slots import CallSlot, Pending
from proxy.errors import HOST_SILENT
from proxy.wire.encode import OK, bulk_or_nil, command, count, error, integer, verbatim
from proxy.wire.request import Raw

_NAME: Final = re.compile(rb"[!-~]*")
_NOBODY: Final = 2**63 - 1  # a client id Redis will never give


class ClientCommands:
    """Answer or ask, as SessionCommands does."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def answer(self, client: Downstream, args: list[bytes]) -> bool:
        """Answer a CLIENT command here if that is certain; False = ask."""
        words = [bytes(word) for word in args[1:4]]
        if not words or len(args) > 4 or client.unproven:
            return False
        if words[0].upper() == b"REPLY" and len(words) == 2 and words[1].upper() in (b"ON", b"OFF", b"SKIP"):
            self._mute(client, words[1].upper())
            return True
        if client.session.identity != self._services.initial_identity:
            return False  # a user who logged in may have fewer rights: Redis is asked first
        reply = self._own(client.session, words)
        if reply is None:
            return False
        client.reply(reply)
        return True

    def _own(self, session: Session, words: list[bytes]) -> bytes | None:
        """Do what concerns the session alone; None for what does not, or is malformed."""
        subcommand = words[0].upper()
        match [subcommand, *words[1:]]:
            case [b"ID"]:
                return integer(session.id)
            case [b"GETNAME"]:
                return bulk_or_nil(session.name or None, session.protocol)
            case [b"SETNAME", name] if _NAME.fullmatch(name):
                session.name = name
            case [b"SETINFO", option, value] if self._knows(subcommand) and _NAME.fullmatch(value):
                if option.upper() == b"LIB-NAME":
                    session.lib_name = value
                elif option.upper() == b"LIB-VER":
                    session.lib_version = value
                else:
                    return None
            case [b"NO-EVICT", word] if word.upper() in (b"ON", b"OFF") and self._knows(subcommand):
                session.no_evict = word.upper() == b"ON"
            case [b"NO-TOUCH", word] if word.upper() in (b"ON", b"OFF") and self._knows(subcommand):
                session.no_touch = word.upper() == b"ON"
            case _:
                return None
        return OK

    @staticmethod
    def _mute(client: Downstream, word: bytes) -> None:
        """Switch replies. Source: Redis documentation, CLIENT REPLY."""
        session = client.session
        if word == b"ON":
            session.muted = client.muting = False
            session.skips = 0
            client.rescope()
            client.reply(OK)
        elif word == b"OFF":
            session.muted = True
            client.rescope()
        elif not session.muted:
            session.skips = 1
            client.rescope()

    def ask(
        self, client: Downstream, link: PinnedConnection, args: list[bytes], raw: Raw
    ) -> tuple[Raw, Callable[[bytes], bytes | Pending]]:
        """Return what to send on the pinned link, and what to make of its reply."""
        words = [bytes(word) for word in args[1:]]
        subcommand = words[0].upper() if words else b""
        state = link.state
        session = client.session
        if subcommand == b"LIST":
            return raw, lambda reply: reply if reply[:1] in b"-!" else self._list(client, words[1:])
        if subcommand == b"INFO" and len(words) == 1:
            line = self._services.line_of(session) + "\n"
            return raw, lambda reply: reply if reply[:1] in b"-!" else verbatim(line, session.protocol)
        if subcommand == b"KILL" and len(words) > 1:
            return self._probe(
                words
            ), lambda reply: reply if self._is_final(words, reply) else self._kill(client, words)
        number = count(words[1]) if len(words) > 1 else None
        if subcommand == b"UNBLOCK" and number is not None:
            target = self._services.sessions.get(number)
            unblocked = target.upstream_id if target is not None and target.upstream_id else _NOBODY

            def again(upstream_id: int) -> bytes:
                return command("CLIENT", "UNBLOCK", upstream_id, *words[2:])

            def tried(reply: bytes) -> bytes | Pending:
                if reply != integer(0) or target is not None:
                    return reply
                return self._elsewhere(client, link, number, again, lambda reply: reply) or reply

            return again(unblocked), tried
        if subcommand in (b"PAUSE", b"UNPAUSE"):
            seconds = (number or 0) / 1000 if subcommand == b"PAUSE" else 0.0

            def paused(reply: bytes) -> bytes:
                if reply == OK:
                    self._services.pause(seconds)
                    if self._services.host is not None:
                        self._services.host.ask("pause", seconds, then=lambda _: None)
                return reply

            return raw, paused
        if subcommand == b"TRACKING":
            return self._tracking(client, link, words)

        def noted(reply: bytes) -> bytes:
            if reply[:1] in b"-!":
                return reply
            if subcommand in (b"CACHING", b"IMPORT-SOURCE", b"CAPA"):
                state.used = state.sticky = True
            elif subcommand in (b"NO-EVICT", b"NO-TOUCH"):
                state.used = True
            elif subcommand == b"SETNAME":
                link.name = words[1]
            own = self._own(session, words)
            if own is None:
                state.used = True  # who knows what it did to the connection
            return reply if own is None else own

        return raw, noted

    def _tracking(
        self, client: Downstream, link: PinnedConnection, words: list[bytes]
    ) -> tuple[Raw, Callable[[bytes], bytes | Pending]]:
        """Forward the app's own CLIENT TRACKING; a REDIRECT to a session means the link that session holds."""
        state = link.state
        upper = [word.upper() for word in words]
        at = upper.index(b"REDIRECT") + 1 if b"REDIRECT" in upper[:-1] else 0
        number = count(words[at]) if at else None
        target = self._services.sessions.get(number) if number else None
        turns_on = len(upper) > 1 and upper[1] == b"ON"

        def redirected(upstream_id: int) -> bytes:
            return command("CLIENT", *words[:at], upstream_id, *words[at + 1 :])

        def tracked(reply: bytes) -> bytes:
            if reply == OK:
                state.tracking = turns_on
                state.used = True
            return reply

        def tried(reply: bytes) -> bytes | Pending:
            if number and target is None and reply.startswith(b"-ERR The client ID"):
                return self._elsewhere(client, link, number, redirected, tracked) or reply
            return tracked(reply)

        if not number:
            return command("CLIENT", *words), tracked
        return redirected(target.upstream_id if target is not None and target.upstream_id else _NOBODY), tried

    def _elsewhere(
        self,
        client: Downstream,
        link: PinnedConnection,
        session_id: int,
        make: Callable[[int], bytes],
        then: Callable[[bytes], bytes],
    ) -> Pending | None:
        """Do what names a session that is not here, with the link it holds in another worker; None if there is none.

        The client keeps its own link meanwhile; if it loses it, it is closed.
        """
        host = self._services.host
        if host is None:
            return None
        pending = Pending()
        kept = link.state.sticky
        link.state.sticky = True

        def found(upstream_id: int | None) -> None:
            link.state.sticky = kept
            if client.pin is link:
                link.submit(make(upstream_id or _NOBODY), CallSlot(None, done, lambda: pending.settle(HOST_SILENT)))

        def done(reply: bytes) -> bytes:
            pending.settle(then(reply))
            return b""

        host.ask("upstream_id", session_id, then=found)
        return pending

    @staticmethod
    def _probe(words: list[bytes]) -> bytes:
        """Return the same KILL with an id nobody has: Redis judges rights and filters, and kills none."""
        if len(words) == 2:
            return command("CLIENT", "KILL", "0.0.0.0:0")
        probe: list[bytes] = []
        is_id = False
        for at, word in enumerate(words):
            is_id = (word.upper() == b"ID" and at % 2 == 1) or (is_id and word.isdigit())
            probe.append(b"%d" % _NOBODY if is_id and word.isdigit() and word != b"0" else word)
        return command("CLIENT", *probe, "ID", _NOBODY)

    @staticmethod
    def _is_final(words: list[bytes], reply: bytes) -> bool:
        """Return whether Redis' answer to the probe is the client's: any refusal but that nobody has that address."""
        return reply[:1] == b"-" and not (len(words) == 2 and reply.startswith(b"-ERR No such client"))

    def _list(self, client: Downstream, words: list[bytes]) -> bytes | Pending:
        now = self._services.now()
        try:
            filters = Filters.parse(words, skip_me=False)
        except FilterError as exc:
            return error(str(exc))
        protocol = client.session.protocol
        if self._services.host is not None:
            pending = Pending()

            def listed(lines: list[str] | None) -> None:
                told = HOST_SILENT if lines is None else verbatim("".join(line + "\n" for line in lines), protocol)
                pending.settle(told)

            self._services.host.ask("lines", filters, then=listed)
            return pending
        matching = self._services.sessions.matching(filters, client.session, now)
        lines = "".join(self._services.line_of(session) + "\n" for session in matching)
        return verbatim(lines, protocol)

    def _kill(self, client: Downstream, words: list[bytes]) -> bytes | Pending:
        """End sessions. The old form names one address, and wants one; the new one filters, and counts."""
        now = self._services.now()
        session = client.session
        by_address = len(words) == 2
        try:
            if by_address:
                filters = Filters(address=words[1].decode("utf-8", "replace"))
            else:
                filters = Filters.parse(words[1:], skip_me=True)
        except FilterError as exc:
            return error(str(exc))
        killed = self._services.sessions.matching(filters, session, now)
        for target in killed:
            if target is session:
                client.quit()
            else:
                target.close()

        def killed_in_all(number: int) -> bytes:
            if by_address:
                return OK if number else b"-ERR No such client\r\n"
            return integer(number)

        if self._services.host is None:
            return killed_in_all(len(killed))
        pending = Pending()

        def killed_elsewhere(number: int | None) -> None:
            pending.settle(HOST_SILENT if number is None else killed_in_all(len(killed) + number))

        self._services.host.ask("kill", filters, session.id, then=killed_elsewhere)
        return pending

    def _knows(self, subcommand: bytes) -> bool:
        """Return whether the server has the subcommand: SETINFO came with 7.2, NO-TOUCH too."""
        return bool(self._services.table.find([b"CLIENT", subcommand]).name == b"CLIENT|" + subcommand)
