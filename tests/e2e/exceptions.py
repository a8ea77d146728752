"""Where two honest servers answer differently, for what reason, and how much is compared all the same.

But for the channel that Respite itself subscribes to, nothing stands here because Respite answers otherwise: every row
was needed with both sides direct (RESPITE_E2E_DIRECT=1). A row loosens only replies that are no errors; errors are
always compared byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from .raw import Node, tree

Mask = Callable[[bytes], bytes]


def digits(frame: bytes) -> bytes:
    """Compare everything but the numbers, and the length of what holds them."""
    return re.sub(rb"\d+", b"#", frame)


def shape(frame: bytes) -> bytes:
    """Compare the types and the sizes of aggregates."""
    return tree(frame).shape()


def kind(frame: bytes) -> bytes:
    """Compare the type of the reply."""
    return frame[:1]


def unordered(frame: bytes) -> bytes:
    """Compare what is in it, in any order, on every level."""
    return tree(frame).map(_sort_children).join()


def _sort_children(node: Node) -> Node:
    return attrs.evolve(node, children=tuple(sorted(node.children, key=lambda child: child.join())))


def unordered_digits(frame: bytes) -> bytes:
    """Compare what is in it but for the numbers, in any order."""
    return unordered(re.sub(rb"(?<![$=!*%~>|\d])\d+", _zeros, frame))


def _zeros(found: re.Match[bytes]) -> bytes:
    return b"0" * len(found[0])


def field_names(frame: bytes) -> bytes:
    """Compare the lines `name:value` (INFO) or words `name=value` (CLIENT INFO) by their names, in order."""
    return b" ".join(re.findall(rb"^#.*|\b[\w.-]+(?=[:=])", frame, re.MULTILINE))


def info_names(frame: bytes) -> bytes:
    """Compare the sections of INFO: what is in some of them depends on what ran so far."""
    return b" ".join(re.findall(rb"^# \w+", frame, re.MULTILINE))


def channels(frame: bytes) -> bytes:
    """Compare the channels but for the one in which proxies hear each other."""
    return re.sub(rb"^\*\d+", b"*#", frame.replace(b"$15\r\nrespite:changes\r\n", b""))


@attrs.frozen
class Masked:
    """How replies of a command are compared, and why not byte for byte."""

    mask: Mask
    reason: str


HASH_ORDER = "the order of a hash table depends on a seed that each server draws"
CLOCK = "depends on the clock"

MASKED: Mapping[str, Masked] = {
    "acl|genpass": Masked(shape, "random"),
    "acl|log": Masked(shape, "ages, ids and addresses"),
    "client|id": Masked(digits, "each connection has its own"),
    "client|info": Masked(field_names, "ids, addresses, ages and sizes"),
    "client|list": Masked(field_names, "ids, addresses, ages and sizes"),
    "command": Masked(unordered, HASH_ORDER),
    "command|list": Masked(unordered, HASH_ORDER),
    "config|get": Masked(unordered, HASH_ORDER),
    "function|list": Masked(unordered, HASH_ORDER),
    "hello": Masked(digits, "the id of the connection"),
    "hpttl": Masked(digits, CLOCK),
    "hrandfield": Masked(shape, "random"),
    "httl": Masked(digits, CLOCK),
    "info": Masked(info_names, "figures, ids, paths, and which commands were called"),
    "keys": Masked(unordered, HASH_ORDER),
    "lastsave": Masked(digits, CLOCK),
    "latency|doctor": Masked(kind, "what was slow"),
    "latency|histogram": Masked(kind, "how long commands took"),
    "latency|latest": Masked(kind, "what was slow"),
    "lolwut": Masked(kind, "random art"),
    "memory|doctor": Masked(kind, "what was measured"),
    "memory|malloc-stats": Masked(kind, "what was measured"),
    "memory|stats": Masked(kind, "what was measured; which rows depends on what ran so far"),
    "memory|usage": Masked(digits, "sizes of allocations"),
    "object|idletime": Masked(digits, CLOCK),
    "pttl": Masked(digits, CLOCK),
    "pubsub|channels": Masked(channels, "Respite itself subscribes to one"),
    "randomkey": Masked(kind, "random"),
    "scan": Masked(unordered, HASH_ORDER),
    "slowlog|get": Masked(kind, "what was slow"),
    "slowlog|len": Masked(kind, "what was slow"),
    "srandmember": Masked(shape, "random"),
    "time": Masked(shape, CLOCK),
    "ttl": Masked(digits, CLOCK),
    "vinfo": Masked(digits, "random layers"),
    "vlinks": Masked(kind, "random layers"),
    "xadd": Masked(digits, "ids made of the clock"),
    "xinfo|consumers": Masked(digits, CLOCK),
    "xinfo|stream": Masked(digits, "delivery times and sizes in memory"),
    "xpending": Masked(digits, "idle times"),
    "zrandmember": Masked(shape, "random"),
}

NOT_SENT: Mapping[str, str] = {
    "sync": "turns the connection into a replica's; a replica is attached to Redis itself",
}
