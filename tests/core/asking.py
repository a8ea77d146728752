"""RESPITE, asked by a scripted client: first Redis is asked whether it may, then whatever the answer needs."""

from __future__ import annotations

from proxy.core.respite_commands import RespiteCommands
from proxy.core.slots import CallSlot
from proxy.wire.encode import command

from .scripted import ScriptedLink, ScriptedServices, words_of

MAY = b"*0\r\n"
MAY_SET = b"-ERR Unknown option or number of arguments for CONFIG SET - 'respite-may-i'\r\n"
CHANGING = (b"INVALIDATE", b"L1", b"RELOAD", b"SETV")
NOT_THERE = b"*1\r\n$4\r\nnone\r\n"


def talk(
    services: ScriptedServices,
    line: str | tuple[str | bytes, ...],
    *,
    may: bytes = b"",
    protocol: int = 2,
    redis: bytes = NOT_THERE,
) -> tuple[bytes, list[bytes]]:
    """Send a RESPITE command; return what the client reads, and what Redis was asked for it.

    Redis answers with `may` whether the user may (b"" = yes), and with `redis` what it is asked besides (b"" = away).
    """
    words = words_of(line)
    changes = len(words) > 1 and words[1].upper() in CHANGING
    client = services.client(protocol=protocol)
    if redis:
        client.shared = ScriptedLink()
    else:
        client.away = b"-ERR respite: away\r\n"
    raw, then = RespiteCommands(services).ask(client, words)
    probe = ("CONFIG", "SET", "respite-may-i", "") if changes else ("CONFIG", "GET", "respite-may-i")
    assert raw == command(*probe)
    slot = CallSlot(client, then)
    client.owe(slot)
    assert services.asked == [], "nothing is looked at before Redis has answered"
    slot.land(may or (MAY_SET if changes else MAY))
    submitted = [] if client.shared is None else client.shared.submitted
    for _, step in submitted:
        step.land(redis)
    (reply,) = client.replies
    return reply, [asked for asked, _ in submitted]


def ask(
    services: ScriptedServices, line: str | tuple[str | bytes, ...], *, may: bytes = b"", protocol: int = 2
) -> bytes:
    """Send a RESPITE command of a client whose rights Redis answers with `may`; return what it reads."""
    return talk(services, line, may=may, protocol=protocol)[0]
