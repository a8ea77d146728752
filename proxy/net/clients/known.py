"""The hit path for pipelines: what a chunk starts with and L1 knows is answered without a parser.

Owns only that; the single hit is `client`'s, everything else goes through the parser.
"""

from __future__ import annotations

from random import choice, randrange
from typing import Final

from proxy.cache.entry import Entry, Namespace
from proxy.net.clients.placement import PlacedClient
from proxy.wire.request import is_bulk

ANSWER_MAX: Final = 512  # a longer request is not looked up before it is parsed: hashing what is a write costs time
GETS: Final = (b"*2\r\n$3\r\nGET\r\n", b"*2\r\n$3\r\nget\r\n")
GET_LENGTH: Final = 13


class KnowingClient(PlacedClient):
    """A client whose pipelined hits are answered from the bytes of the requests."""

    __slots__ = ()

    def gets(self, namespace: Namespace, data: bytes) -> bytes:
        """Answer the GETs a chunk starts with, without a parser; return the bytes from the first other command on.

        Between two heads lies exactly one bulk string, or something else: what is found in L1 was framed as a parser
        would have framed it, for the keys of L1 are well formed; what is not found is looked at.
        """
        worker = self.worker
        engine = worker.engine
        now = engine.now
        find = namespace.entries.get
        out: list[bytes] = []
        missed: list[bytes] = []
        taken = hits = waiting = answered = 0
        served: Entry | None = None
        for key in data.split(data[:GET_LENGTH])[1:]:
            entry = find(key)
            if entry is not None and entry.deadline > now:
                entry.uses += 1
                entry.used_at = now
                out.append(entry.reply)
                served = entry
                hits += 1
            elif is_bulk(key):
                if out:
                    self.replies(out)
                    out = []
                if not missed:
                    waiting, answered = len(self.queue), len(self._out)
                worker.pipeline.reads.miss(self, namespace, key)  # type: ignore[arg-type]  # of the whole client
                missed.append(key)
            else:
                break
            taken += GET_LENGTH + len(key)
        stats = worker.stats
        stats.commands += hits + len(missed)
        stats.hits += hits
        if out:
            self.replies(out)
            if served is not None and stats.hits >= stats.look_at:
                keys = data[:taken].split(data[:GET_LENGTH])
                engine.tally.look(find(choice(keys)) or served, waits=bool(missed))
        if missed:
            self.session.last_words = [b"get"]
            tally = engine.tally
            tally.asked += len(missed)
            if tally.asked >= tally.asked_at:
                self.see_off(tally.watch_gets(missed), waiting, answered)
        return b"" if taken == len(data) else data[taken:]

    def known(self, namespace: Namespace, data: bytes) -> bytes:
        """Answer the reads of any sort that a chunk starts with and L1 holds; return the bytes from another one on.

        What lies between two `*` at the start of a line need not be a request. But no request is the beginning of
        another: bytes at a request's place that equal one that L1 knows are that request.
        """
        engine = self.worker.engine
        now = engine.now
        find = data.find
        answers = namespace.answers.get
        entries = namespace.entries.get
        out: list[bytes] = []
        start = 0
        size = len(data)
        served: Entry | None = None
        while start < size:
            end = find(b"\r\n*", start, start + ANSWER_MAX) + 2
            if end < 2:
                end = size
                if size - start > ANSWER_MAX:
                    break
            request = data[start:end]
            entry: Entry | None = answers(request)
            if entry is None and request.startswith(GETS):
                entry = entries(request[GET_LENGTH:])
            if entry is None or entry.deadline <= now:
                break
            entry.uses += 1
            entry.used_at = now
            out.append(entry.reply)
            served = entry
            start = end
        if served is not None:
            stats = self.worker.stats
            stats.commands += len(out)
            stats.hits += len(out)
            count = len(out)
            self.replies(out)
            if stats.hits >= stats.look_at:
                engine.tally.look(one_of(namespace, data[:start], randrange(count)) or served)
        return data[start:] if start else data


def one_of(namespace: Namespace, data: bytes, number: int) -> Entry | None:
    """Return the entry of one of the requests that `known` has answered: the last stands for no other."""
    start = 0
    for _ in range(number):
        start = data.find(b"\r\n*", start) + 2
    end = data.find(b"\r\n*", start) + 2
    request = data[start : end if end >= 2 else len(data)]
    return namespace.answers.get(request) or namespace.entries.get(request[GET_LENGTH:])
