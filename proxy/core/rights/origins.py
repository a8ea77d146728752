"""Where clients come from: what one address holds and has done, so that it cannot take what is there for all.

Owns the counts; an address is known as long as a client of it is here, a login of it is under way, or a failed one is
remembered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from proxy.core.rights.meter import Bucket

FORGIVEN_S: Final = 60.0  # after so long without another, failed logins are forgotten
DELAY_S: Final = 0.25  # before the first failed login is answered; it doubles with each further one ..
DELAY_MAX_S: Final = 4.0  # .. up to this
IDLE_MAX: Final = 4096  # addresses with no client that are remembered
_NETWORK_BITS: Final = 64  # an IPv6 host has, and may come from, all addresses of such a network


@attrs.define(eq=False)
class Origin:
    """One address. `logins` are those under way, `meter` what its clients share when the rate is that of addresses."""

    name: str
    clients: int = 0
    pinned: int = 0
    logins: int = 0
    failures: int = 0
    failed_at: float = 0.0
    meter: Bucket | None = None

    def fail(self, now: float) -> float:
        """Note that a login has failed; return after how many seconds it may be answered."""
        self.failures = 1 if self.is_forgiven(now) else self.failures + 1
        self.failed_at = now
        return min(DELAY_S * 2.0 ** min(self.failures - 1, 10), DELAY_MAX_S)

    def is_forgiven(self, now: float) -> bool:
        """Return whether no failed login is remembered."""
        return not self.failures or now - self.failed_at > FORGIVEN_S


class Origins:
    """All addresses. One a worker."""

    __slots__ = ("_by_name", "_idle")

    def __init__(self) -> None:
        self._by_name: dict[str, Origin] = {}
        self._idle: dict[str, Origin] = {}  # no client is here; the oldest first

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Origin]:
        return iter(self._by_name.values())

    @property
    def remembered(self) -> Sequence[Origin]:
        """Those of which no client is here, the one longest known first."""
        return tuple(self._idle.values())

    def find(self, address: str) -> Origin:
        """Return the origin of an address as sessions have it, "10.0.0.1:4711"; `enter` makes it known."""
        name = network_of(address)
        return self._by_name.get(name) or self._idle.get(name) or Origin(name)

    def forget_meters(self) -> None:
        """Begin anew with counting commands."""
        for origin in (*self._by_name.values(), *self._idle.values()):
            origin.meter = None

    def enter(self, origin: Origin) -> None:
        """Count one more client."""
        origin.clients += 1
        self._by_name[origin.name] = origin
        self._idle.pop(origin.name, None)

    def leave(self, origin: Origin, now: float) -> None:
        """Count one client less. What is owed for logins, or for commands, is not forgotten by leaving."""
        origin.clients -= 1
        if origin.clients:
            return
        del self._by_name[origin.name]
        owes = origin.meter is not None and origin.meter.is_dry(now)
        if owes or origin.logins or not origin.is_forgiven(now):
            self._idle[origin.name] = origin
            while len(self._idle) > IDLE_MAX:
                del self._idle[next(iter(self._idle))]


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, an IPv6 network of 64 bits, all of a unix socket."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unix"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> _NETWORK_BITS << _NETWORK_BITS, _NETWORK_BITS)))
