"""Every key that says who may do what, and how much of it, as `keys.py` has the others."""

from __future__ import annotations

from typing import Final

from proxy.config import kinds
from proxy.config.command_words import command_list
from proxy.config.key import Key
from proxy.config.kinds import Kind
from proxy.config.users import users


def _key(path: str, kind: Kind, default: object, when: str) -> Key:
    return Key(path, path, kind, default, live=True, help=when, secret=path == "listen.users")


RIGHTS: Final[tuple[Key, ...]] = (
    _key(
        "listen.users",
        users(),
        [],
        'Set to let in only [{ name = "..", password_hash = ".." }] (respite hash-password); empty: as Redis does.',
    ),
    _key(
        "listen.allow_commands",
        command_list(),
        [],
        'Set to let clients run nothing but these: ["get", "set", "@hash"]; empty: whatever is not denied.',
    ),
    _key(
        "listen.deny_commands",
        command_list(),
        [],
        'Set to what no client may run here, whoever it is: ["flushall", "config|set", "@dangerous"].',
    ),
    _key(
        "listen.rate_limit",
        kinds.count(0, 10_000_000),
        0,
        "Set to hold back clients that ask too much: beyond so many commands a second they wait to be read; 0 never.",
    ),
    _key(
        "listen.rate_burst",
        kinds.count(0, 100_000_000),
        0,
        "Set with rate_limit to what may come at once after a quiet time; 0 is what one second brings.",
    ),
    _key(
        "listen.rate_per",
        kinds.choice("connection", "address", "user"),
        "connection",
        'Set to "address" or "user" to have all connections of one share a rate_limit; each worker counts by itself.',
    ),
    _key(
        "listen.max_clients_per_address",
        kinds.count(0, 1_000_000),
        0,
        "Set where one host must not take all of max_clients; 0 is no limit, an IPv6 network of 64 bits one address.",
    ),
    _key(
        "listen.max_pinned_per_address",
        kinds.count(0, 65_535),
        0,
        "Set where one host must not take all of upstream.pinned_connections by blocking or subscribing; 0: no limit.",
    ),
    _key(
        "listen.max_subscriptions",
        kinds.count(0, 10_000_000),
        100_000,
        "Lower to bound what one client may subscribe to, channels and patterns together; 0 is no limit.",
    ),
)
