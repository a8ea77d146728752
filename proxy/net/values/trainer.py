"""The trainer: has dictionaries made of what classes have sampled, and tells all proxies of them.

    due --> who gets the lease trains, in a thread --> stored in Redis, announced --> learnt, used a second later
    in use, and not in Redis any more (flushed, evicted, another server) --> stored, announced

Owns the round and the lease; what pays is `values.training`'s, when one is due `values.dictionary`'s.
"""

from __future__ import annotations

from typing import Final

import trio

from proxy.errors import RemoteError
from proxy.log import get_logger
from proxy.net.invalidation.announcements import DICTIONARIES_KEY
from proxy.net.reactor import Reactor
from proxy.net.values.invalidator import Invalidator, ask
from proxy.values.changes import announce_dictionary
from proxy.values.dictionary import Dictionaries, id_of, stored
from proxy.values.envelope import Codec
from proxy.values.training import train
from proxy.wire.encode import command

LEASE_KEY: Final = b"respite:training:"
LEASE_MS: Final = 60_000
LOOK_EVERY_S: Final = 1.0
log = get_logger("trainer")


class Trainer:
    """Make dictionaries. One a worker."""

    def __init__(self, dictionaries: Dictionaries, invalidator: Invalidator, reactor: Reactor) -> None:
        self._dictionaries = dictionaries
        self._invalidator = invalidator
        self._reactor = reactor

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            try:
                await self._put_back()
            except RemoteError as exc:
                log.debug("dictionaries not looked for", why=str(exc))
            due = self._dictionaries.due(self._reactor.clock())
            if due is None:
                continue
            try:
                await self._make(*due)
            except RemoteError as exc:
                log.warning("no dictionary", of=due[0], why=str(exc))

    async def _make(self, class_name: str, samples: list[bytes]) -> None:
        dictionaries = self._dictionaries
        codec = dictionaries.codec
        lease = command("SET", LEASE_KEY + class_name.encode(), "1", "NX", "PX", LEASE_MS)
        if (await ask(self._reactor, self._invalidator, 0, lease))[:1] != b"+":
            return  # another proxy makes one, and will tell
        data = await trio.to_thread.run_sync(train, samples, codec, abandon_on_cancel=True)
        dictionaries.trained(class_name, data, self._reactor.clock())
        if data is None:
            log.info("no dictionary pays", of=class_name)
            return
        await self._store(class_name, codec, data)
        dictionaries.learn(id_of(data), class_name, codec, data, self._reactor.clock())
        log.info("dictionary", of=class_name, id=id_of(data), bytes=len(data))

    async def _put_back(self) -> None:
        """Store again what is in use and is in Redis no more: nobody else could read what is written from now on."""
        for class_name, one in self._dictionaries.in_use():
            look = command("HEXISTS", DICTIONARIES_KEY, b"%d" % one.id)
            if await ask(self._reactor, self._invalidator, 0, look) == b":0\r\n":
                await self._store(class_name, one.codec, one.data)
                log.warning("a dictionary was gone and is put back", of=class_name, id=one.id)

    async def _store(self, class_name: str, codec: Codec, data: bytes) -> None:
        field, value = stored(class_name, codec, data)
        await ask(self._reactor, self._invalidator, 0, command("HSET", DICTIONARIES_KEY, field, value))
        await ask(self._reactor, self._invalidator, 0, announce_dictionary(id_of(data), class_name))
