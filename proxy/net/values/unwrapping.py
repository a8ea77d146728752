"""Take the envelopes off what Redis holds: `respite unwrap`, the way back to a Redis without Respite.

    SCAN --keys--> STRLEN: batches of a bounded size --> peek --envelopes--> open --> swap, if nobody has written since
      |                                                    ^------------- written meanwhile --------------'
      '--cursor--> hash respite:unwrapping, once a second and when stopped: the next run goes on from there

Owns its two connections to Redis itself, one in the database that is unwrapped, one in database 0, where Respite keeps
its dictionaries and this its place. Safe while clients write: a value is replaced only if it is still the one that was
opened. What cannot be opened is named and left as it is.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import attrs
import hiredis
import trio

from proxy.config import model
from proxy.core.session import Identity
from proxy.errors import DamagedValueError, RemoteError, UnknownDictionaryError
from proxy.net.links.dial import Stream, Upstream, open_stream
from proxy.net.tls import client_context
from proxy.values.dictionary import parse_stored
from proxy.values.envelope import MAGIC, DictionaryBytes, open_value
from proxy.values.scripts import peek, swap
from proxy.wire.encode import command

PLACES: Final = b"respite:unwrapping"  # the hash: DB:GLOB -> {"cursor", "run_id"}
DICTIONARIES: Final = b"respite:dictionaries"
BATCH_KEYS: Final = 100
BATCH_BYTES: Final = 1 << 20  # one script reads and digests so much, and Redis does nothing else for 3 ms
SCAN_COUNT: Final = 1000
ROUNDS: Final = 10  # how often a value is tried that a client keeps writing
NAMED: Final = 10  # of the values that are left
SAVE_EVERY_S: Final = 1.0
_READ_BYTES: Final = 256 * 1024
_PROXY_REFUSES: Final = re.compile(r"^NOPERM |^ERR respite: |\bconfig\b", re.IGNORECASE)


@attrs.frozen
class Job:
    """What is to be unwrapped: the string values of one database whose keys a glob takes."""

    glob: bytes
    db: int
    rate: int = 10_000
    """Keys looked at a second, at most; of all keys, for SCAN passes over those that the glob does not take, too."""
    is_dry: bool = False
    """Change nothing, not even the place; only count."""
    from_start: bool = False


@attrs.define
class Progress:
    """How far it is, and what has been found by this run."""

    share: float = 0.0  # of the database
    keys: int = 0  # strings that the glob takes; one that SCAN names twice counts twice
    unwrapped: int = 0  # on a dry run: that would be
    stored_bytes: int = 0  # of the unwrapped ones, before ..
    raw_bytes: int = 0  # .. and after
    contended: int = 0  # in an envelope still, because a client kept writing it
    damaged: int = 0
    ambiguous: int = 0  # plain, they would begin as an envelope does: no proxy could tell
    left: list[tuple[bytes, str]] = attrs.field(factory=list)  # the first of those three kinds, and why
    has_resumed: bool = False
    is_finished: bool = False

    def leave(self, key: bytes, why: str) -> None:
        """Name a value that stays as it is, if it is one of the first."""
        if len(self.left) < NAMED:
            self.left.append((key, why))


def unwrap(settings: model.Upstream, job: Job, show: Callable[[Progress], None]) -> Progress:
    """Unwrap to the end, or until SIGINT or SIGTERM; return how far it came. `show` is called after each step.

    A second signal stops at once. Raises RemoteError; whatever ends it, what is unwrapped stays so, and the next run
    of the same job on the same server goes on from about there.
    """
    assert settings.endpoint is not None  # the caller has seen to it
    context = client_context(settings.tls) if settings.endpoint.scheme == "tls" else None
    upstream = Upstream(settings.endpoint, context, settings.connect_timeout_s, settings.response_timeout_s)
    progress = Progress()

    async def main() -> None:
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(_signals, stopping, nursery.cancel_scope)
            async with await Redis.open(upstream, 0) as home, await Redis.open(upstream, job.db) as redis:
                await _Unwrapping(job, progress, home, redis, stopping).run(show)
            nursery.cancel_scope.cancel()

    with _mapped():
        trio.run(main, strict_exception_groups=True)
    return progress


@attrs.define
class Redis:
    """A connection on which nothing but the answers to what was asked arrives."""

    _stream: Stream
    _timeout_s: float
    _reader: Any = attrs.field(factory=hiredis.Reader)

    @classmethod
    async def open(cls, upstream: Upstream, db: int) -> Self:
        """Connect, with the credentials of the URL. Raises RemoteError."""
        identity = Identity(upstream.endpoint.username.encode(), upstream.endpoint.password.encode())
        stream, _ = await open_stream(upstream, identity, db, 2, "respite-unwrap")
        return cls(stream, upstream.response_timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.close()

    async def ask(self, *commands: bytes) -> list[Any]:
        """Send commands in one go; return one decoded reply each, an error as `hiredis.ReplyError`.

        Raises RemoteError. A cancellation leaves the connection unusable.
        """
        try:
            with trio.fail_after(self._timeout_s):
                await self._send(b"".join(commands))
                return [await self._next() for _ in commands]
        except trio.TooSlowError as exc:
            raise RemoteError(f"Redis has not answered within {self._timeout_s:g} s") from exc
        except (OSError, hiredis.ProtocolError) as exc:
            raise RemoteError(str(exc)) from exc

    async def get(self, request: bytes) -> Any:
        """Return the reply to one command. Raises RemoteError for an error, too."""
        (reply,) = await self.ask(request)
        return _good(reply)

    async def _send(self, data: bytes) -> None:
        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[self._stream.send(unsent) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._stream.fileno())

    async def _next(self) -> Any:
        while (reply := self._reader.gets()) is False:
            try:
                data = self._stream.recv(_READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._stream.fileno())
                continue
            if not data:
                raise RemoteError("Redis closed the connection")
            self._reader.feed(data)
        return reply


@attrs.define
class _Unwrapping:
    """One run."""

    job: Job
    progress: Progress
    home: Redis
    redis: Redis
    stopping: trio.Event
    _dictionaries: dict[int, bytes] = attrs.field(factory=dict)
    _run_id: str = ""

    async def run(self, show: Callable[[Progress], None]) -> None:
        """Go through the database from where the last run stopped."""
        job = self.job
        await self._refuse_proxy()
        self._run_id = _run_id(await self.home.get(command("INFO", "server")))
        cursor = b"0" if job.from_start or job.is_dry else await self._place()
        self.progress.has_resumed = cursor != b"0"
        count = max(10, min(SCAN_COUNT, job.rate // 10))
        due = saved_at = trio.current_time()
        while not self.stopping.is_set():
            self.progress.share = max(self.progress.share, share_of(int(cursor)))
            show(self.progress)
            cursor, keys = await self.redis.get(
                command("SCAN", cursor, "MATCH", job.glob, "COUNT", count, "TYPE", "string")
            )
            await self._unwrap(keys)
            if cursor == b"0":
                await self._forget_place()
                self.progress.share, self.progress.is_finished = 1.0, True
                show(self.progress)
                return
            now = trio.current_time()
            if now >= saved_at + SAVE_EVERY_S:
                await self._save_place(cursor)
                saved_at = now
            due = max(due + max(count, len(keys)) / job.rate, now)
            with trio.move_on_at(due):
                await self.stopping.wait()
        await self._save_place(cursor)

    async def _unwrap(self, keys: Sequence[bytes]) -> None:
        keys = list(dict.fromkeys(keys))
        self.progress.keys += len(keys)
        sizes = await self.redis.ask(*(command("STRLEN", key) for key in keys)) if keys else []
        for batch in batches(keys, sizes):
            again: Sequence[bytes] = batch
            for _ in range(ROUNDS):
                again = await self._unwrap_batch(again)
                if not again:
                    break
            for key in again:
                self.progress.contended += 1
                self.progress.leave(key, "a client kept writing it, with envelopes")

    async def _unwrap_batch(self, keys: Sequence[bytes]) -> list[bytes]:
        """Unwrap those of the keys that hold an envelope; return those that were written meanwhile."""
        swaps: list[bytes] = []
        swapped: list[tuple[bytes, int, int]] = []
        for key, found in zip(keys, await self.redis.get(peek(keys)), strict=True):
            if found is None:
                continue
            stored, digest = found
            value = await self._open(key, stored)
            if value is not None:
                swapped.append((key, len(stored), len(value)))
                swaps.append(swap(key, digest, value))
        outcomes = [1] * len(swaps) if self.job.is_dry else await self.redis.ask(*swaps) if swaps else []
        lost: list[bytes] = []
        for (key, stored_bytes, raw_bytes), outcome in zip(swapped, outcomes, strict=True):
            if not _good(outcome):
                lost.append(key)
                continue
            self.progress.unwrapped += 1
            self.progress.stored_bytes += stored_bytes
            self.progress.raw_bytes += raw_bytes
        return lost

    async def _open(self, key: bytes, stored: bytes) -> bytes | None:
        """Return what an envelope holds; None for one that is to be left as it is."""
        while True:
            try:
                value, _ = open_value(stored, self._dictionaries)
            except UnknownDictionaryError as exc:
                await self._fetch(exc.id)
                continue
            except DamagedValueError as exc:
                self.progress.damaged += 1
                self.progress.leave(key, f"damaged: {exc}")
                return None
            if value.startswith(MAGIC):
                self.progress.ambiguous += 1
                self.progress.leave(key, "the value itself begins as an envelope does")
                return None
            return value

    async def _fetch(self, dictionary: int) -> None:
        field = b"%d" % dictionary
        value = await self.home.get(command("HGET", DICTIONARIES, field))
        found = parse_stored(field, value) if value is not None else None
        self._dictionaries[dictionary] = DictionaryBytes(found.data) if found is not None else b""

    # -- the place ---------------------------------------------------------------------------------------------------

    @property
    def _field(self) -> bytes:
        return b"%d:%b" % (self.job.db, self.job.glob)

    async def _place(self) -> bytes:
        """Return the cursor of the last run; of another server, or one started anew, it would mean another place."""
        saved = await self.home.get(command("HGET", PLACES, self._field))
        try:
            place = json.loads(saved or b"{}")
            return b"%d" % int(place["cursor"]) if self._run_id and place["run_id"] == self._run_id else b"0"
        except (ValueError, LookupError, TypeError):
            return b"0"

    async def _save_place(self, cursor: bytes) -> None:
        if not self.job.is_dry:
            place = json.dumps({"cursor": cursor.decode(), "run_id": self._run_id})
            await self.home.get(command("HSET", PLACES, self._field, place))

    async def _forget_place(self) -> None:
        if not self.job.is_dry:
            await self.home.get(command("HDEL", PLACES, self._field))

    async def _refuse_proxy(self) -> None:
        """Refuse to work through a proxy: it opens what passes, and there would be nothing to take off.

        A Redis does not know the command, whoever asks; a proxy may have other reasons not to answer: it looks at the
        rights first, to RESPITE or to CONFIG.
        """
        (reply,) = await self.redis.ask(command("RESPITE", "HELP"))
        if not isinstance(reply, hiredis.ReplyError) or _PROXY_REFUSES.search(str(reply)):
            raise RemoteError("that is a Respite proxy; name the Redis behind it")


def batches(keys: Sequence[bytes], sizes: Sequence[object]) -> Iterator[list[bytes]]:
    """Cut keys into batches that one script may look at; what has no size is no string any more, and left out."""
    batch: list[bytes] = []
    total = 0
    for key, size in zip(keys, sizes, strict=True):
        if not isinstance(size, int):
            continue
        if batch and (len(batch) >= BATCH_KEYS or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(key)
        total += size
    if batch:
        yield batch


def share_of(cursor: int) -> float:
    """Return how much of the database lies behind a cursor of SCAN: it counts up with its bits in reverse order.

    Source: Redis, dict.c, dictScan. It holds for Valkey's hashtable.c, too.
    """
    return int(f"{cursor & (1 << 64) - 1:064b}"[::-1], 2) / (1 << 64)


def _good(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise RemoteError(f"Redis says: {reply}")
    return reply


def _run_id(info: bytes) -> str:
    _, _, rest = info.partition(b"run_id:")
    return rest.split(b"\r\n", 1)[0].decode("ascii", "replace")


@contextmanager
def _mapped() -> Iterator[None]:
    """Raise the one error inside of groups by itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors, others = group.split(RemoteError)
        if errors is None or others is not None:
            raise
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def _signals(
    stopping: trio.Event, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Stop after the step that runs; at the second signal at once."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if stopping.is_set():
                scope.cancel()
                return
            stopping.set()
