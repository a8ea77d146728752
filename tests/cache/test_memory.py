"""Keys that went are remembered in a bounded table, the much read longest."""

from __future__ import annotations

from proxy.cache.memory import DROPPED, REFUSED, STEEP, USES_MAX, Memory


def test_recall_of_what_was_remembered_tells_uses_and_how_once() -> None:
    """A key that comes back brings its reads with it, and is then no longer remembered."""
    memory = Memory()
    memory.remember(b"k", 3, STEEP)

    assert memory.knows(b"k") == STEEP
    assert memory.recall(b"k") == (3, STEEP)
    assert memory.recall(b"k") is None
    assert memory.knows(b"k") is None


def test_recall_of_an_unknown_key_is_none() -> None:
    """An empty table knows nobody."""
    assert Memory().recall(b"k") is None


def test_remember_keeps_uses_within_their_bits() -> None:
    """However often a key was read, its cell stays its own."""
    memory = Memory()
    memory.remember(b"k", 1_000_000, DROPPED)

    assert memory.recall(b"k") == (USES_MAX, DROPPED)


def test_remember_of_the_same_key_replaces_it() -> None:
    """What happened last counts, if it is less."""
    memory = Memory()
    memory.remember(b"k", 7, STEEP)
    memory.remember(b"k", 1, REFUSED)

    assert memory.recall(b"k") == (1, REFUSED)


def rivals(memory: Memory) -> tuple[bytes, bytes]:
    """Return two keys that want the same cell."""
    places: dict[int, bytes] = {}
    for number in range(2 * len(memory) + 1):
        key = b"%d" % number
        other = places.setdefault(hash(key) & (len(memory) - 1), key)
        if other is not key:
            return other, key
    raise AssertionError("more keys than places, and no two share one")


def test_remember_in_a_taken_cell_wears_the_more_read_down() -> None:
    """Fame lasts, but not for ever: a key read eight times outlasts three that were read once, not the fourth."""
    memory = Memory()
    famous, other = rivals(memory)
    memory.remember(famous, 8, STEEP)
    kept = []
    for _ in range(5):
        memory.remember(other, 1, STEEP)
        kept.append(memory.knows(famous) is not None)

    assert kept == [True, True, True, True, False]
    assert memory.knows(other) == STEEP


def test_fit_grows_to_a_cell_an_entry_and_forgets_nobody() -> None:
    """Growing keeps what is remembered, and costs eight bytes an entry at most."""
    memory = Memory()
    memory.remember(b"k", 5, DROPPED)
    memory.fit(100_000)

    assert 100_000 <= len(memory) < 200_000
    assert memory.recall(b"k") == (5, DROPPED)


def test_shrink_keeps_what_its_cells_hold() -> None:
    """No more cells than are needed; what is still remembered is the same."""
    memory = Memory()
    assert memory.fit(100_000)
    assert not memory.fit(100_000)
    keys = [b"%d" % number for number in range(2_000)]
    for key in keys:
        memory.remember(key, 3, STEEP)
    memory.shrink(10_000)
    found = [memory.recall(key) for key in keys]

    assert len(memory) == 16_384
    assert set(found) <= {None, (3, STEEP)}
    assert found.count(None) < 1_950
