"""What one of several workers gets of a limit that is set for the whole host."""

from __future__ import annotations

import attrs

from proxy.config.model import Settings


def share_of(settings: Settings, index: int, count: int) -> Settings:
    """Return the settings of worker `index` of `count`: its part of clients, pinned links and L1 memory.

    That is of what L1 has, and of what tuning may give it.
    The parts add up to the whole; what does not divide evenly goes to the first workers. A limit smaller than the
    number of workers leaves each its one: a worker that takes nothing would turn away what the kernel deals to it.
    """
    listen, upstream, l1, tuning = settings.listen, settings.upstream, settings.l1, settings.tuning
    return attrs.evolve(
        settings,
        listen=attrs.evolve(listen, max_clients=_part(listen.max_clients, index, count)),
        upstream=attrs.evolve(upstream, pinned_connections=_part(upstream.pinned_connections, index, count)),
        l1=attrs.evolve(l1, max_bytes=_part(l1.max_bytes, index, count)),
        tuning=attrs.evolve(tuning, max_l1_bytes=_part(tuning.max_l1_bytes, index, count)),
    )


def _part(whole: int, index: int, count: int) -> int:
    return max(whole // count + (index < whole % count), min(whole, 1))
