"""Every command of COMMAND, with sensible and with wrong arguments, answers through Respite as it does directly.

Two servers of a kind start empty, one reached directly, one through Respite; both get the same commands in the same
order, so their data stay equal, which is checked too. Replies are compared byte for byte, but for `exceptions.MASKED`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import attrs
import pytest

from . import corpus
from .corpus import Case, Command
from .exceptions import MASKED, NOT_SENT
from .flow_list import spoken_commands
from .raw import ClosedError, NoFrameError, RawClient, encode, encode_all, tree
from .targets import Target
from .words import Words, words

SEED = 20_240_229
SETUP = [words(line) for line in corpus.SETUP]
SEPARATOR = b" <then MGET> "
Pair = tuple[Target, Target]


def ask_commands(target: Target) -> dict[str, Command]:
    """Read the server's own command list, sub-commands included."""
    with target.server.connect() as client:
        rows = list(tree(client.command("COMMAND")).children)
    found = {}
    while rows:
        row = rows.pop()
        name, arity, _, first_key = (node.own.split(b"\r\n") for node in row.children[:4])
        spoken = name[1].decode().lower()
        found[spoken] = Command(spoken, int(arity[0][1:]), int(first_key[0][1:]))
        rows += row.children[9].children if len(row.children) > 9 else ()
    return found


def send_whole(client: RawClient, probe: RawClient, commands: Sequence[Words]) -> list[bytes]:
    """One command at a time, each answered before the next; another connection looks at the data in between."""
    read = encode("MGET", *corpus.PROBED_KEYS)
    replies = []
    for command in commands:
        reply = client.command(*command)
        probe.send(read)
        replies.append(reply + SEPARATOR + probe.frame())
    return replies


def send_pipelined(client: RawClient, probe: RawClient, commands: Sequence[Words]) -> list[bytes]:
    """All commands in one piece."""
    client.send(encode_all(commands))
    return client.frames(len(commands))


def send_split(client: RawClient, probe: RawClient, commands: Sequence[Words]) -> list[bytes]:
    """All commands, cut at random bytes."""
    client.send_split(encode_all(commands), random.Random(SEED))
    return client.frames(len(commands))


Delivery = Callable[[RawClient, RawClient, Sequence[Words]], list[bytes]]
DELIVERIES: dict[str, Delivery] = {"whole": send_whole, "pipelined": send_pipelined, "split": send_split}


@attrs.define
class Side:
    """One of the two ways in: its connections, opened again after every failure."""

    target: Target
    protocol: int
    clients: list[RawClient] = attrs.field(factory=list)

    def run(self, commands: Sequence[Words], deliver: Delivery) -> list[bytes]:
        """Send the setup and the commands of a case; the replies stop where a connection failed."""
        try:
            while len(self.clients) < 2:
                self.clients.append(self.target.connect(timeout_s=5.0))
                self.clients[-1].command("HELLO", self.protocol)
            client, probe = self.clients
            send_pipelined(client, probe, SETUP)
            return deliver(client, probe, commands)
        except (ClosedError, NoFrameError, OSError) as error:
            self.close()
            return [f"<{type(error).__name__}: {error}>".encode()]

    def close(self) -> None:
        """Give the connections up."""
        while self.clients:
            self.clients.pop().close()


def compare(case: Case, direct: list[bytes], proxied: list[bytes]) -> list[str]:
    """List what differs, as a person wants to read it."""
    if len(direct) != len(case.commands) or len(proxied) != len(case.commands):
        return [f"{case.name}: direct gave {len(direct)} replies {direct[-1:]}, Respite {len(proxied)} {proxied[-1:]}"]
    return [
        f"{case.name}: {b' '.join(command)[:300]!r}\n    direct  {left[:400]!r}\n    respite {right[:400]!r}"
        for command, left, right in zip(case.commands, direct, proxied, strict=True)
        if not is_equal(command, left, right)
    ]


def is_equal(command: Words, left: bytes, right: bytes) -> bool:
    """Compare two replies to a command, masked when the command says so and neither is an error.

    What the other connection saw after the command is always compared byte for byte.
    """
    if left == right:
        return True
    (left, _, seen), (right, _, also_seen) = left.partition(SEPARATOR), right.partition(SEPARATOR)
    if seen != also_seen:
        return False
    masked = MASKED.get(name_of(command))
    if masked is None or b"-" in (left[:1], right[:1]):
        return False
    return masked.mask(left) == masked.mask(right)


def name_of(command: Words) -> str:
    """Give the row of the exceptions that a command falls under."""
    name = command[0].lower().decode("latin-1")
    inner = f"{name}|{command[1].lower().decode('latin-1')}" if len(command) > 1 else name
    return inner if inner in MASKED else name


def digest(target: Target) -> bytes:
    """Hash all data of a server."""
    with target.server.connect() as client:
        return client.command("DEBUG", "DIGEST")


def test_corpus_of_each_server_names_every_command(any_pair: Pair) -> None:
    """Each command and sub-command of COMMAND has samples, is driven by a flow, or is excused with a reason."""
    commands = ask_commands(any_pair[0])
    containers = {name.split("|")[0] for name in {*commands, *corpus.SAMPLES} if "|" in name}
    known = {*corpus.SAMPLES, *spoken_commands(), *NOT_SENT, *containers}

    missing = {name for name in commands if name not in known and not name.startswith("cluster|")}

    assert set() == missing


@pytest.mark.long("valkey9-2", "valkey9-3-pipelined", "redis7-3-split")
@pytest.mark.parametrize(("protocol", "delivery"), [(2, "whole"), (3, "split"), (3, "pipelined")])
def test_command_through_respite_answers_as_redis(pair: Pair, protocol: int, delivery: str) -> None:
    """Every command, sensible and wrong, is answered byte for byte as directly, and leaves the same data behind.

    `make soak` sends them in every way, in both protocols.
    """
    differences = walk(pair, protocol, DELIVERIES[delivery])

    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences[:60])


@pytest.mark.parametrize(("protocol", "delivery"), [(2, "whole"), (3, "split")])
def test_command_through_respite_answers_as_other_servers(other_pair: Pair, protocol: int, delivery: str) -> None:
    """The same holds on the other servers of the matrix, in fewer ways of sending."""
    differences = walk(other_pair, protocol, DELIVERIES[delivery])

    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences[:60])


def walk(pair: Pair, protocol: int, deliver: Delivery) -> list[str]:
    """Run all cases on both sides and list what differs."""
    direct, proxied = (Side(target, protocol) for target in pair)
    found: list[str] = []
    commands = {name: command for name, command in ask_commands(pair[0]).items() if name not in NOT_SENT}
    for case in corpus.build(commands, only_in_flows=spoken_commands() - corpus.SAMPLES.keys()):
        replies = [side.run(case.commands, deliver) for side in (direct, proxied)]
        new = compare(case, *replies)
        if not new and len({digest(target) for target in pair}) > 1:
            new = [f"{case.name}: equal replies, but the data differ"]
        if new:
            direct.close()
            proxied.close()
        found += new
    direct.close()
    proxied.close()
    return found
