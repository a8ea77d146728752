"""What came of an invalidation, whoever asked for it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Invalidated:
    """What was dropped in each tier. With an `error` it is what had been dropped before."""

    keys: int = 0
    """Exact keys that were there in Redis and are unlinked."""
    entries: int = 0
    """Entries that went from this worker's L1; other workers hear of it through Redis."""
    fences: int = 0
    """Fences put in force, one a glob and tag: the values behind them are gone for every reader at once."""
    error: str = ""
    """Why not all of it was done; "" = all was."""

    @property
    def dropped(self) -> int:
        """Return one number for it, as DEL does: what is gone from Redis, a fence counted as one."""
        return self.keys + self.fences
