"""The exception tree, and the one table from an error to what the client reads.

A class per reaction, not per place. `Local` errors are ours or the operator's; `Remote` ones are the peer's.
Foreign exceptions (OSError, ssl.SSLError, hiredis.ProtocolError) are mapped to these once, at the border.
"""

from __future__ import annotations

import attrs


class RespiteError(Exception):
    """Root of everything Respite raises on purpose."""


@attrs.frozen
class Problem:
    """One thing wrong with a configuration.

    `path` is dotted (`listen.max_clients`), `value` the offending value as written, `allowed` a sentence saying what
    is, `nearest` the nearest known key for an unknown one, else "".
    """

    path: str
    value: str
    allowed: str
    nearest: str = ""

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.path} = {self.value}: {self.allowed}{hint}"


class ConfigError(RespiteError):
    """The configuration cannot be used; carries every problem found, not only the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class EmbeddedError(RespiteError):
    """No Redis could be found or started on this machine, or the one that was has died."""


class ListenError(RespiteError):
    """A listening address cannot be bound or its TLS material cannot be read."""


class TelemetryError(RespiteError):
    """What the environment says for OpenTelemetry cannot be used: as wrong as a wrong configuration."""


class RemoteError(RespiteError):
    """A peer broke, refused or left; the link to it is finished."""


class ProtocolError(RemoteError):
    """A peer sent bytes that are no RESP; the text is what Redis says in the same case, without `-ERR `."""


class HandshakeError(RemoteError):
    """The upstream refused the first commands of a link; `reply` is its error line, byte for byte.

    `has_no_db`: it is about the database alone, which the upstream does not have, and says nothing of the user.
    """

    def __init__(self, reply: bytes, *, has_no_db: bool = False) -> None:
        super().__init__(reply.decode("utf-8", "replace").strip())
        self.reply = reply
        self.has_no_db = has_no_db


class AmqpError(RespiteError):
    """Something about the message broker; what is affected says the subclass."""


class ConnectionLostError(AmqpError):
    """There is no connection to the broker, or not any more: it left, fell silent, or sent what is no AMQP."""


class BrokerRefusedError(AmqpError):
    """The broker answers and does not let us in: credentials, vhost, or a way to log in that it does not offer."""


class ChannelClosedError(AmqpError):
    """The broker refused something and closed the channel for it; the connection goes on.

    `code` is AMQP's (404 not found, 405 locked, 406 other arguments, 403 not allowed, 0 closed by us).
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


class ConsumerCancelledError(AmqpError):
    """The broker ended a consumer: its queue is gone, or its node."""


class PublishRefusedError(AmqpError):
    """A message was not taken: no queue for it, or the broker could not store it. Nothing of it is anywhere."""


class DamagedValueError(RespiteError):
    """A stored value begins as an envelope does and does not check out; in Redis it is left as it is."""


class UnknownDictionaryError(DamagedValueError):
    """A stored value was compressed with a dictionary that is not known here (yet): `id` is to be fetched."""

    def __init__(self, dictionary: int) -> None:
        super().__init__(f"dictionary {dictionary} is not known")
        self.id = dictionary


# What a client reads. Raw RESP error lines, the same in RESP2 and RESP3.
UPSTREAM_UNAVAILABLE = b"-ERR respite: upstream unavailable\r\n"
UPSTREAM_LOST = b"-ERR respite: upstream lost, the command may have been applied\r\n"
UPSTREAM_TIMED_OUT = b"-ERR respite: upstream timed out, the command may have been applied\r\n"
UPSTREAM_OVERLOADED = b"-ERR respite: upstream overloaded, too many commands wait for it (upstream.max_waiting)\r\n"
PINNED_EXHAUSTED = b"-ERR respite: no pinned connection is free (upstream.pinned_connections)\r\n"
HOST_SILENT = b"-ERR respite: the other workers do not answer\r\n"
LOGIN_IN_MULTI = b"-ERR respite: with listen.users nobody can log in inside MULTI\r\n"
TOO_MANY_SUBSCRIPTIONS = b"-ERR respite: no more subscriptions for one client (listen.max_subscriptions)\r\n"
PINNED_SHARE_USED = b"-ERR respite: no more pinned connections for one address (listen.max_pinned_per_address)\r\n"
TOO_MANY_CLIENTS = b"-ERR max number of clients reached\r\n"
CROWDED = b"-ERR respite: the keys are written faster than they can be unwrapped, try again\r\n"
DEPENDENTS_LEFT = b"-ERR respite: written, but what depends on it could not be invalidated\r\n"


def damaged_value(key: bytes, why: str = "its envelope does not check out") -> bytes:
    """Return the error for a value that cannot be opened; in Redis it stays as it is. A long key is cut short."""
    name = key[:128].decode("utf-8", "backslashreplace").replace("\r", "\\r").replace("\n", "\\n")
    return f"-ERR respite: value of '{name}' is damaged ({why})\r\n".encode()
