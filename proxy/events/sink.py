"""What makes events true: the contract between who receives them and who drops what they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from proxy.events.event import Event


@attrs.frozen
class Applied:
    """It is in force in both tiers: no reader here is given what is older any more, the others hear of it by push.

    Of keys, whatever is stored. Of globs and tags, what bears a version; the sweeper removes the rest in its time.
    """

    keys: int = 0
    """Exact keys that were there in Redis and are gone; one that several events of a batch name counts for one."""
    entries: int = 0
    """Entries that went from this worker's L1."""
    fences: int = 0
    """Fences put in force, one a glob and tag."""
    is_old: bool = False
    """Everything it names is newer than it: nothing was changed."""


@attrs.frozen
class Failed:
    """It could not be made true."""

    reason: str
    is_away: bool = False
    """Redis cannot be reached: nothing about the event is wrong, and it should be held until `wait_up` returns."""
    is_final: bool = False
    """Trying again cannot help."""
    is_short: bool = False
    """Redis has no memory for it, and does what frees some: it is put aside and tried again, however often."""


Outcome = Applied | Failed


@attrs.frozen
class Gap:
    """Events of a publisher that have not come, from one number to another, both missing."""

    publisher: str
    first: int
    last: int


class Sink(Protocol):
    """Makes events true in both tiers. Called on the trio thread; a cancelled call leaves nothing half marked."""

    async def apply(self, events: Sequence[Event]) -> list[Outcome]:
        """Make a batch true; one outcome an event, in their order. Never raises for what Redis does."""
        ...

    def breathe(self) -> None:
        """Serve those who wait for the loop that the caller holds; microseconds when nobody does."""
        ...

    async def wait_up(self) -> None:
        """Return once Redis answers."""
        ...

    async def note(self, events: Sequence[Event]) -> None:
        """Take note of their numbers, whatever becomes of them."""
        ...

    async def take_holes(self) -> list[Gap]:
        """Return the gaps that have stood for too long; each is given to one of all sidecars.

        It is to be flushed before the next call, which closes it unless a flush has failed since; one that is not
        closed is given to somebody again.
        """
        ...

    async def flush(self, globs: Sequence[str] | None, reason: str) -> bool:
        """Drop what may be out of date: what the globs take, None for every key of every class. False: not done.

        Keys of no class stay in Redis unless a glob takes them: nothing says that they are a cache.
        """
        ...

    async def queue_is_gone(self, queue: str) -> bool:
        """Note, before it is made, that a queue is not there; False: nobody could be told."""
        ...

    async def queue_owes(self, queue: str) -> bool | None:
        """Remember a queue that is there; return whether one of that name was lost, and nothing flushed for it yet.

        On any sidecar. None: it cannot be known.
        """
        ...

    async def queue_is_flushed(self, queue: str) -> None:
        """Take note that what may have been lost with a queue is flushed."""
        ...
