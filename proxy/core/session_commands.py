"""The session's own commands: HELLO, AUTH, SELECT, CLIENT, RESET, QUIT.

They change or tell what a connection is, so they never travel on a link that others share. What we know for certain
is answered here; the rest is asked on a pinned link, so that Redis judges and words it, and followed when it agrees.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from proxy.cache.entry import Scope
from proxy.core.client_commands import ClientCommands
from proxy.core.downstream import Downstream, PinnedConnection, Services
from proxy.core.session import Identity
from proxy.core.slots import Pending
from proxy.wire.encode import OK, RESET, command, count, error
from proxy.wire.request import Raw

Then = Callable[[bytes], bytes | Pending]
_ID: Final = re.compile(rb"(\$2\r\nid\r\n):\d+\r\n")
AUTH_ARITY: Final = b"-ERR wrong number of arguments for 'auth' command\r\n"
RESET_ARITY: Final = b"-ERR wrong number of arguments for 'reset' command\r\n"
SYNTAX_ERROR: Final = b"-ERR syntax error\r\n"
NOPROTO: Final = b"-NOPROTO unsupported protocol version\r\n"
BAD_PROTOCOL: Final = b"-ERR Protocol version is not an integer or out of range\r\n"
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
            if len(args) > 1 and not client.session.authenticated:
                client.reply(RESET_ARITY)  # whoever it is, it gets no connection of its own for that
                return True
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
        is_skipped = client.muting and not session.muted
        client.unpin()
        session.identity = self._services.initial_identity
        session.authenticated, session.proxy_user = not self._services.has_users, b""
        session.db, session.protocol, session.name = self._services.initial_db, 2, b""
        session.muted = session.no_evict = session.no_touch = False
        session.skips, session.multi = 0, -1
        session.subscriptions = session.patterns = 0
        client.muting = is_skipped  # CLIENT REPLY SKIP holds for this reply, OFF has ended with it
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
        if not self._services.has_users:
            return False
        if len(args) not in (2, 3):
            client.reply(AUTH_ARITY if len(args) == 1 else SYNTAX_ERROR)
            return True
        refusal = self._log_in(client, args[1:])
        if refusal is None:
            return False
        client.reply(refusal or OK)
        return True

    def _log_in(self, client: Downstream, words: list[bytes]) -> bytes | None:
        """Try a name and a password, or a password alone, against listen.users: b"" = in, an error, None = parked.

        Such clients are to Redis who the upstream URL says.
        """
        name, password = (words[0], words[1]) if len(words) == 2 else (b"default", words[0])
        refusal = self._services.log_in(client, bytes(name), bytes(password))
        if refusal is None:
            client.parked = "login"
        elif not refusal:
            client.session.authenticated, client.session.proxy_user = True, bytes(name)
            client.rescope()
        return refusal

    def _become(self, client: Downstream, words: list[bytes]) -> None:
        """Take the identity Redis has just accepted."""
        username, password = (words[0], words[1]) if len(words) == 2 else (b"", words[0])
        identity = Identity(bytes(username), bytes(password))
        client.session.identity = identity
        self._services.adopt(identity)

    def _hello(self, client: Downstream, args: list[bytes]) -> bool:
        """Answer HELLO from what Redis said last to the same question; HELLO with options is always asked."""
        session = client.session
        if not session.authenticated and len(args) < 3:
            client.reply(HELLO_NOAUTH)
            return True
        if self._services.has_users and len(args) > 2:
            refusal = self._log_in_by_hello(client, [bytes(word) for word in args[1:]])
            if refusal:
                client.reply(refusal)
            if refusal or refusal is None:
                return bool(refusal)
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

    def _log_in_by_hello(self, client: Downstream, words: list[bytes]) -> bytes | None:
        """Take the AUTH of a HELLO, where there is one: b"" = go on, an error, None = parked.

        What Redis would refuse without a look at the password is not given one. Source: Redis documentation, HELLO.
        """
        auths, _, _ = _hello_options(words[1:])
        if words[0] not in (b"2", b"3"):
            return NOPROTO if count(words[0]) is not None else BAD_PROTOCOL
        if flaw := _hello_flaw(words[1:]):
            return flaw
        if auths:
            return self._log_in(client, auths[-1])
        return b"" if client.session.authenticated else HELLO_NOAUTH

    def _ask_hello(self, client: Downstream, link: PinnedConnection, args: list[bytes]) -> tuple[Raw, Then]:
        session = client.session
        auth, name, others = _hello_options([bytes(word) for word in args[2:]])
        ours = self._services.has_users  # whom they let in is known by now
        forwarded = [*args[:2], *others] if ours else args

        def greeted(reply: bytes) -> bytes:
            if reply[:1] in b"-!":
                # Servers before 7.2 let somebody in, and name the connection, before they refuse what stands behind it.
                link.state.used = True
                return reply
            if len(args) > 1:
                session.protocol = int(args[1])
            if auth and not ours:
                self._become(client, auth[-1])
            if name is not None:
                session.name = link.name = name
            link.move(session)
            self._services.hellos[(session.identity.user, session.protocol)] = reply
            return self._own(reply, session.id)

        return command(*forwarded), greeted

    @staticmethod
    def _own(reply: bytes, session_id: int) -> bytes:
        """Put the session's id into a HELLO reply."""
        return _ID.sub(rb"\g<1>:%d\r\n" % session_id, reply, count=1)


def is_login(args: list[bytes]) -> bool:
    """Return whether a command of a session brings a password: AUTH, and HELLO with it."""
    name = bytes(args[0]).upper()
    return name == b"AUTH" or (name == b"HELLO" and any(bytes(word).upper() == b"AUTH" for word in args[2:]))


def _hello_flaw(words: list[bytes]) -> bytes:
    """Return what Redis says of options that it does not understand, b"" when there are none."""
    at = 0
    while at < len(words):
        width = {b"AUTH": 3, b"SETNAME": 2}.get(words[at].upper(), 0)
        if not width or at + width > len(words):
            return error(f"ERR Syntax error in HELLO option '{words[at][:128].decode('utf-8', 'backslashreplace')}'")
        at += width
    return b""


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
