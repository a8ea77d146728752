"""Clients that wait: for jobs, for a stream, for messages. Each is told everything once, or has lost its connection."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import attrs

from .claims import Claim
from .clients import FailedError, NotConnectedError, RawSocket
from .ledger import PLAIN
from .traffic import AFTER_ERROR_S, Ask, Stage

WAIT_S = 1.0
STREAM = "feed"
CHANNEL = "news"
GRACE_S = 2.0  # a message that is under way is there after it


@attrs.define(eq=False)
class Popper:
    """Takes jobs with BLPOP."""

    stage: Stage
    ask: Ask

    def run(self) -> None:
        """Take them until the end of the run."""
        claims = self.stage.claims
        while not self.stage.stop.is_set():
            try:
                popped = self.ask("BLPOP", "jobs", WAIT_S, wait_s=WAIT_S)
            except FailedError as error:
                claims.lost_pops += error.how != "refused"
                time.sleep(AFTER_ERROR_S)
            except NotConnectedError:
                time.sleep(AFTER_ERROR_S)
            else:
                if popped:
                    claims.popped.append(popped[1])
        self.ask.client.close()


@attrs.define(eq=False)
class Feeder:
    """Adds to a stream and publishes, one number after the other."""

    stage: Stage
    ask: Ask
    rng: random.Random
    published: dict[int, tuple[float, float, bool]] = attrs.field(factory=dict)  # from, to, acknowledged
    _serial: int = 0

    def run(self) -> None:
        """Go on until the end of the run."""
        feed = self.stage.claims.of(self.stage.claims.streams, STREAM)
        while not self.stage.stop.is_set():
            self._serial += 1
            try:
                self._add(feed)
                self._publish()
            except (FailedError, NotConnectedError):
                time.sleep(AFTER_ERROR_S)
            time.sleep(self.stage.pause_s * self.rng.random())
        self.ask.client.close()

    def _add(self, feed: Claim) -> None:
        ident = f"feed-{self._serial}"
        try:
            self.ask("XADD", STREAM, "*", "id", ident)
        except FailedError as error:
            feed.note(ident, error.how)
            raise
        except NotConnectedError:
            feed.note(ident, "refused")
            raise
        feed.note(ident, "")

    def _publish(self) -> None:
        began, is_acked = time.monotonic(), False
        try:
            self.ask("PUBLISH", CHANNEL, self._serial)
            is_acked = True
        finally:
            self.published[self._serial] = (began, time.monotonic(), is_acked)


@attrs.define(eq=False)
class Follower:
    """Reads a stream with XREAD BLOCK, from where it was."""

    stage: Stage
    ask: Ask
    seen: list[str] = attrs.field(factory=list)
    _last: str = "0-0"

    def run(self) -> None:
        """Read until the end of the run, and then what is left."""
        while not self.stage.stop.is_set():
            self._read()
        self.ask.client.close()

    def _read(self) -> None:
        try:
            found = self.ask(
                "XREAD", "COUNT", 100, "BLOCK", int(WAIT_S * 1000), "STREAMS", STREAM, self._last, wait_s=WAIT_S
            )
        except (FailedError, NotConnectedError):
            time.sleep(AFTER_ERROR_S)
            return
        for at, (_, ident) in entries_of(found):
            self._last = at
            self.seen.append(ident)


def entries_of(found: Any) -> list[Any]:
    """Return the entries of one stream from a reply in either protocol."""
    if not found:
        return []
    return list((found if isinstance(found, dict) else dict(found))[STREAM])


@attrs.define(eq=False)
class Subscriber:
    """Hears what is published, on a raw connection: nothing is subscribed again behind its back."""

    stage: Stage
    ask: Ask
    heard: list[tuple[float, int]] = attrs.field(factory=list)
    spans: list[tuple[float, float]] = attrs.field(factory=list)  # from when to when a connection was subscribed

    def run(self) -> None:
        """Listen until the end of the run."""
        client = self.ask.client
        assert isinstance(client, RawSocket)
        while not self.stage.stop.is_set():
            began = time.monotonic()
            try:
                client.call("SUBSCRIBE", CHANNEL)
            except (FailedError, NotConnectedError):
                client.drop()
                time.sleep(AFTER_ERROR_S)
                continue
            self.ask.enter(("SUBSCRIBE", CHANNEL), (PLAIN, 0.0), began, None)
            since = time.monotonic()
            self._listen(client)
            self.spans.append((since, time.monotonic()))
            client.drop()

    def _listen(self, client: RawSocket) -> None:
        client.set_patience(0.5)
        while not self.stage.stop.is_set():
            try:
                frame = client.receive()
            except TimeoutError:
                continue
            except OSError:
                return
            if frame[0] == "message":
                self.heard.append((time.monotonic(), int(frame[2])))

    def judge(self, feeder: Feeder) -> list[str]:
        """Return what is wrong with what was heard: twice, out of order, or not, while the connection stood."""
        numbers = [number for _, number in self.heard]
        wrong = [f"message {after} was heard after {before}" for before, after in pairwise(numbers) if after <= before]
        heard = set(numbers)
        for number, (began, ended, is_acked) in feeder.published.items():
            stood = any(since < began and ended + GRACE_S < until for since, until in self.spans)
            if is_acked and stood and number not in heard:
                wrong.append(f"message {number} was published and not heard, on a connection that stood")
        return wrong
