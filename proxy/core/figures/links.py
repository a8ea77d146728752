"""What is counted of connections to Redis: of one while it stands, of all of a kind since the start."""

from __future__ import annotations

import attrs

from proxy.core.figures.stats import Histogram


@attrs.define(eq=False)
class LinkFigures:
    """Of one link, or of several. `latency` is sampled: one a read of the link, its oldest command."""

    commands: int = 0
    failed: int = 0
    """Of these, those whose link was lost before the reply."""
    sent_bytes: int = 0
    received_bytes: int = 0
    latency: Histogram = attrs.field(factory=Histogram)

    def add(self, other: LinkFigures) -> None:
        """Count what another has counted."""
        self.commands += other.commands
        self.failed += other.failed
        self.sent_bytes += other.sent_bytes
        self.received_bytes += other.received_bytes
        self.latency.merge(other.latency)
