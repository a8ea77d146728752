"""The session's own commands: HELLO, AUTH, SELECT, CLIENT, RESET, QUIT.

They change or tell what a connection is, so they never travel on a link that others share. What we know for certain
is answered here; the rest is asked on a pinned link, so that Redis judges and words it, and followed when it agrees.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Final

from proxy.cache.entry import Scope
from proxy.core.client_commands import ClientCommands
from proxy.core.downstream import Downstream, PinnedConnection, Services
from proxy.core.session import Identity
from proxy.core.slots import Pending
from proxy.wire.encode import OK, RESET, command, count
from proxy.wire.request import Raw

Then = Callable[[bytes], bytes | Pending]
_ID: Final = re.compile(rb"(\$2\r\nid\r\n):\d+\r\n")
WRONGPASS: Final = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
HELLO_NOAUTH: Final = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
    b"<pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n"
)


class SessionCommands:
    """Answer or ask."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._client_commands = ClientCommands(services)

    def answer(self, client: Downstream, args: list[bytes], raw: Raw) -> bool:
        """Answer a command here if that is certain; False = ask. Nothing has changed then."""
        name = bytes(args[0]).upper()
        if name == b"CLIENT":
            if client.session.authenticated:
                return self._client_commands.answer(client, args)
            client.reply(b"-NOAUTH Authentication required.\r\n")
            return True
        if name == b"QUIT":
            client.reply(OK)
            client.quit()
            return True
        if name == b"RESET":
            return len(args) == 1 and self._reset(client)
        if name == b"SELECT":
            return self._select(client, args)
        if name == b"AUTH":
            return self._auth(client, args)
        return self._hello(client, args)

    def ask(self, client: Downstream, link: PinnedConnection, args: list[bytes], raw: Raw) -> tuple[Raw, Then]:
        """Return what to send on the pinned link, and what to do with its reply (which may then be another)."""
        name = bytes(args[0]).upper()
        session = client.session
        if name == b"CLIENT":
            return self._client_commands.ask(client, link, args, raw)
        if name == b"SELECT":

            def selected(reply: bytes) -> bytes:
                if reply == OK:
                    session.db = count(bytes(args[1])) or 0
                    link.move(session)
                return reply

            return raw, selected
        if name == b"RESET":
            return raw, lambda reply: reply  # with arguments: Redis has the words
        if name == b"AUTH":

            def authenticated(reply: bytes) -> bytes:
                if reply == OK:
                    self._become(client, args[1:])
                    link.move(session)
                return reply

            return raw, authenticated
        return self._ask_hello(client, link, args)

    def _reset(self, client: Downstream) -> bool:
        if client.queue:
            return False
        session = client.session
        client.unpin()
        session.identity = self._services.initial_identity
        session.authenticated = not self._services.proxy_users
        session.db, session.protocol, session.name = self._services.initial_db, 2, b""
        session.muted = session.no_evict = session.no_touch = False
        session.skips, session.multi = 0, -1
        session.subscriptions = session.patterns = 0
        client.muting = False
        client.rescope()
        client.reply(RESET)
        return True

    def _select(self, client: Downstream, args: list[bytes]) -> bool:
        session = client.session
        if not session.authenticated:
            client.reply(b"-NOAUTH Authentication required.\r\n")
            return True
        db = count(bytes(args[1])) if len(args) == 2 else None
        if client.pin is not None or db is None:
            return False
        scope = Scope(session.identity.user, db, session.protocol)
        if scope.db != session.db and (client.queue or not self._services.is_known_good(scope)):
            return False  # what is owed comes first: the next command goes out on another link
        session.db = scope.db
        client.rescope()
        client.reply(OK)
        return True

    def _auth(self, client: Downstream, args: list[bytes]) -> bool:
        if not self._services.proxy_users or len(args) not in (2, 3):
            return False
        if self._admit(client, args[1:]):
            client.reply(OK)
        else:
            client.reply(WRONGPASS)
        return True

    def _admit(self, client: Downstream, words: list[bytes]) -> bool:
        """Check against listen.users; such clients are to Redis who the upstream URL says."""
        if not self._is_ours(words):
            return False
        client.session.authenticated = True
        client.rescope()
        return True

    def _is_ours(self, words: list[bytes]) -> bool:
        """Return whether a name and a password, or a password alone, stand in listen.users."""
        username, password = (words[0], words[1]) if len(words) == 2 else (b"default", words[0])
        expected = self._services.proxy_users.get(bytes(username))
        return expected is not None and hmac.compare_digest(expected, bytes(password))

    def _become(self, client: Downstream, words: list[bytes]) -> None:
        """Take the identity Redis has just accepted."""
        username, password = (words[0], words[1]) if len(words) == 2 else (b"", words[0])
        identity = Identity(bytes(username), bytes(password))
        client.session.identity = identity
        self._services.adopt(identity)

    def _hello(self, client: Downstream, args: list[bytes]) -> bool:
        """Answer HELLO from what Redis said last to the same question; HELLO with options is always asked."""
        session = client.session
        if not session.authenticated and not any(bytes(word).upper() == b"AUTH" for word in args[1:]):
            client.reply(HELLO_NOAUTH)
            return True
        if client.pin is not None or len(args) > 2 or (len(args) == 2 and bytes(args[1]) not in (b"2", b"3")):
            return False
        protocol = int(args[1]) if len(args) == 2 else session.protocol
        template = self._services.hellos.get((session.identity.user, protocol))
        if template is None or (client.queue and protocol != session.protocol):
            return False
        session.protocol = protocol
        client.rescope()
        client.reply(self._own(template, session.id))
        return True

    def _ask_hello(self, client: Downstream, link: PinnedConnection, args: list[bytes]) -> tuple[Raw, Then]:
        session = client.session
        auth, name, others = _hello_options([bytes(word) for word in args[2:]])
        ours = bool(self._services.proxy_users)
        if ours and auth and not self._is_ours(auth[-1]):
            return command("PING"), lambda _: WRONGPASS
        forwarded = [*args[:2], *others] if ours else args

        def greeted(reply: bytes) -> bytes:
            if reply[:1] in b"-!":
                return reply
            if len(args) > 1:
                session.protocol = int(args[1])
            if auth and ours:
                session.authenticated = True
            elif auth:
                self._become(client, auth[-1])
            if name is not None:
                session.name = name
            link.move(session)
            self._services.hellos[(session.identity.user, session.protocol)] = reply
            return self._own(reply, session.id)

        return command(*forwarded), greeted

    @staticmethod
    def _own(reply: bytes, session_id: int) -> bytes:
        """Put the session's id into a HELLO reply."""
        return _ID.sub(rb"\g<1>:%d\r\n" % session_id, reply, count=1)


def _hello_options(words: list[bytes]) -> tuple[list[list[bytes]], bytes | None, list[bytes]]:
    """Return every AUTH's name and password, the SETNAME name, and all words but the AUTHs; Redis judges the rest."""
    auths: list[list[bytes]] = []
    others: list[bytes] = []
    name: bytes | None = None
    at = 0
    while at < len(words):
        option = words[at].upper()
        if option == b"AUTH" and at + 2 < len(words):
            auths.append(words[at + 1 : at + 3])
            at += 3
            continue
        width = 2 if option == b"SETNAME" and at + 1 < len(words) else 1
        if width == 2:
            name = words[at + 1]
        others += words[at : at + width]
        at += width
    return auths, name, others
