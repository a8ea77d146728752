"""Each worker's part of what is limited for the whole host."""

from __future__ import annotations

import attrs
import pytest

from proxy.config.load import default_settings
from proxy.supervisor.shares import share_of


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_shares_add_up_to_the_whole(count: int) -> None:
    """No client, link or byte is lost or given twice, and no part is more than one larger than another."""
    settings = default_settings()
    shares = [share_of(settings, index, count) for index in range(count)]

    for whole, parts in (
        (settings.listen.max_clients, [share.listen.max_clients for share in shares]),
        (settings.upstream.pinned_connections, [share.upstream.pinned_connections for share in shares]),
        (settings.l1.max_bytes, [share.l1.max_bytes for share in shares]),
        (settings.tuning.max_l1_bytes, [share.tuning.max_l1_bytes for share in shares]),
    ):
        assert sum(parts) == whole
        assert max(parts) - min(parts) <= 1


def test_share_of_a_limit_below_the_number_of_workers_is_one() -> None:
    """A worker that may take no client would refuse everybody the kernel sends it."""
    settings = default_settings()
    small = attrs.evolve(
        settings,
        listen=attrs.evolve(settings.listen, max_clients=2),
        upstream=attrs.evolve(settings.upstream, pinned_connections=0),
    )
    shares = [share_of(small, index, 4) for index in range(4)]

    assert [share.listen.max_clients for share in shares] == [1, 1, 1, 1]
    assert [share.upstream.pinned_connections for share in shares] == [0, 0, 0, 0]


def test_share_changes_nothing_else() -> None:
    """Only what is for the whole host is divided; one worker has it all."""
    settings = default_settings()
    share = share_of(settings, 0, 3)

    assert share_of(settings, 0, 1) == settings
    assert (
        attrs.evolve(
            share,
            listen=attrs.evolve(share.listen, max_clients=settings.listen.max_clients),
            upstream=attrs.evolve(share.upstream, pinned_connections=settings.upstream.pinned_connections),
            l1=attrs.evolve(share.l1, max_bytes=settings.l1.max_bytes),
            tuning=settings.tuning,
        )
        == settings
    )
