"""One opinion of all links of a worker on whether Redis can be reached.

    closed --a connect failed, a reply was late, Redis is loading--> open --it is time--> half-open: one link knocks
       ^                                                              ^                         |
       '------------------------- it was let in ----------------------|-------------------------'
                                                                      '--------- it failed -----'

Owns the state and since when it holds; when to knock again is said by whoever asks (`net.links`). A link that merely
ends says nothing: the next one is opened at once, and that one's fate is what counts.
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "half-open", "open"]


class Breaker:
    """Open while Redis cannot be reached. All times are seconds of the caller's clock."""

    __slots__ = ("failures", "lasted_s", "opened_total", "since", "state", "why")

    def __init__(self) -> None:
        self.state: State = "closed"
        self.since = 0.0  # when it was opened, or closed; closed at first, when Redis has answered
        self.why = ""  # what opened it last
        self.lasted_s = 0.0  # how long it was open the last time
        self.failures = 0  # since it was opened
        self.opened_total = 0

    @property
    def is_open(self) -> bool:
        """Return whether commands fail at once; half-open counts, as nobody has been let in yet."""
        return self.state != "closed"

    def fail(self, now: float, why: str) -> bool:
        """Note that Redis could not be reached, or did not answer; return whether this opened it."""
        was_closed = self.state == "closed"
        self.state = "open"
        self.failures += 1
        if was_closed:
            self.since, self.why = now, why
            self.opened_total += 1
        return was_closed

    def probe(self) -> None:
        """Note that one link knocks."""
        if self.state == "open":
            self.state = "half-open"

    def give_up(self) -> None:
        """Note that the one that knocked was called off: nothing is known."""
        if self.state == "half-open":
            self.state = "open"

    def succeed(self, now: float) -> bool:
        """Note that Redis has answered; return whether this closed it."""
        if self.state == "closed":
            self.since = self.since or now
            return False
        self.lasted_s = now - self.since
        self.state, self.since, self.failures = "closed", now, 0
        return True
