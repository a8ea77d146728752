"""The commands of the model Redis, and the rows it answers COMMAND with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from proxy.wire.encode import bulk

from .model_redis import OK, WRONGTYPE, Connection, Handler, ModelRedis, Value

EPOCH_S: Final = 1_760_000_000  # what the hand clock counts from

ROWS: tuple[tuple[str, int, tuple[str, ...], int, int, int], ...] = (
    ("get", 2, ("readonly",), 1, 1, 1),
    ("mget", -2, ("readonly",), 1, -1, 1),
    ("set", -3, ("write",), 1, 1, 1),
    ("mset", -3, ("write",), 1, -1, 2),
    ("del", -2, ("write",), 1, -1, 1),
    ("incr", 2, ("write",), 1, 1, 1),
    ("rpush", -3, ("write",), 1, 1, 1),
    ("hset", -4, ("write",), 1, 1, 1),
    ("exists", -2, ("readonly",), 1, -1, 1),
    ("lrange", 4, ("readonly",), 1, 1, 1),
    ("llen", 2, ("readonly",), 1, 1, 1),
    ("hgetall", 2, ("readonly",), 1, 1, 1),
    ("pexpire", 3, ("write",), 1, 1, 1),
    ("pttl", 2, ("readonly",), 1, 1, 1),
    ("strlen", 2, ("readonly",), 1, 1, 1),
    ("ping", -1, (), 0, 0, 0),
    ("eval", -3, ("noscript", "movablekeys"), 0, 0, 0),
    ("sly", 3, ("readonly",), 0, 0, 0),
    ("scramble", 2, ("write",), 0, 0, 0),
    ("flushdb", -1, ("write",), 0, 0, 0),
    ("flushall", -1, ("write",), 0, 0, 0),
    ("swapdb", 3, ("write",), 0, 0, 0),
    ("multi", 1, (), 0, 0, 0),
    ("exec", 1, (), 0, 0, 0),
    ("discard", 1, (), 0, 0, 0),
    ("watch", -2, (), 1, -1, 1),
    ("unwatch", 1, (), 0, 0, 0),
    ("hello", -1, (), 0, 0, 0),
    ("auth", -2, (), 0, 0, 0),
    ("select", 2, (), 0, 0, 0),
    ("client", -2, (), 0, 0, 0),
    ("reset", 1, (), 0, 0, 0),
    ("quit", -1, (), 0, 0, 0),
)


def _get(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    if connection.user in redis.forbidden:
        return b"-NOPERM this user has no permissions to run the 'get' command\r\n"
    value = redis.look(connection.db, words[1])
    _track(connection, words[1])
    if value is None:
        return connection.nil
    return WRONGTYPE if value.is_list else bulk(value.data)


def _mget(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    frames = []
    for key in words[1:]:
        value = redis.look(connection.db, key)
        _track(connection, key)
        frames.append(connection.nil if value is None or value.is_list else bulk(value.data))
    return b"*%d\r\n%b" % (len(frames), b"".join(frames))


def _track(connection: Connection, key: bytes) -> None:
    if connection.redirect:
        connection.tracked.add(key)


def _pttl(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    value = redis.look(connection.db, words[1])
    _track(connection, words[1])
    if value is None:
        return b":-2\r\n"
    if value.expires_at == float("inf"):
        return b":-1\r\n"
    return b":%d\r\n" % int((value.expires_at - redis.clock()) * 1000)


def _strlen(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    value = redis.look(connection.db, words[1])
    _track(connection, words[1])
    return b":%d\r\n" % (0 if value is None else len(value.data))


def _exists(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    for key in words[1:]:
        _track(connection, key)
    return b":%d\r\n" % sum(redis.look(connection.db, key) is not None for key in words[1:])


def _llen(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    value = redis.look(connection.db, words[1])
    _track(connection, words[1])
    if value is None:
        return b":0\r\n"
    return b":1\r\n" if value.is_list else WRONGTYPE


def _lrange(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """Give the one element that a list of this model has."""
    value = redis.look(connection.db, words[1])
    _track(connection, words[1])
    if value is None:
        return b"*0\r\n"
    return b"*1\r\n" + bulk(value.data) if value.is_list else WRONGTYPE


def _hgetall(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """Give the one field that a hash of this model has: in RESP3 as a map."""
    value = redis.look(connection.db, words[1])
    _track(connection, words[1])
    if value is not None and not value.is_list:
        return WRONGTYPE
    head = b"*%d\r\n" if connection.protocol == 2 else b"%%%d\r\n"
    if value is None:
        return head % 0
    return head % (2 if connection.protocol == 2 else 1) + bulk(b"f") + bulk(value.data)


def _touch(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return b":%d\r\n" % sum(redis.look(connection.db, key) is not None for key in words[1:])


def _set(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    expires_at = redis.clock() + int(words[4]) / 1000 if len(words) > 4 else float("inf")
    redis.change(connection, connection.db, words[1], Value(words[2], expires_at))
    return OK


def _mset(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    for key, data in zip(words[1::2], words[2::2], strict=True):
        redis.change(connection, connection.db, key, Value(data))
    return OK


def _rpush(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    redis.change(connection, connection.db, words[1], Value(words[2], is_list=True))
    return b":1\r\n"


def _hset(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    redis.change(connection, connection.db, words[1], Value(words[3], is_list=True))
    return b":1\r\n"


def _incr(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    value = redis.look(connection.db, words[1])
    total = int(value.data if value else 0) + 1
    redis.change(connection, connection.db, words[1], Value(b"%d" % total))
    return b":%d\r\n" % total


def _del(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    found = [key for key in words[1:] if redis.look(connection.db, key) is not None]
    for key in found:
        redis.change(connection, connection.db, key, None)
    return b":%d\r\n" % len(found)


def _pexpire(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    value = redis.look(connection.db, words[1])
    if value is None:
        return b":0\r\n"
    expires_at = redis.clock() + int(words[2]) / 1000
    redis.change(connection, connection.db, words[1], attrs.evolve(value, expires_at=expires_at))
    return b":1\r\n"


def _eval(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """Run a script: it is `set KEY VALUE`, whatever keys it declares."""
    _, key, data = words[1].split(b" ")
    redis.change(connection, connection.db, key, Value(data))
    return OK


def _sly(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """Write, though the command calls itself a read, as a module's might."""
    redis.change(connection, connection.db, words[1], Value(words[2]))
    return OK


def _scramble(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """Write without naming a key: every key of the database is given the value."""
    for key in list(redis.dbs[connection.db]):
        redis.change(connection, connection.db, key, Value(words[1]))
    return OK


def _flushdb(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    redis.flush([connection.db])
    return OK


def _flushall(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    redis.flush(list(range(16)))
    return OK


def _swapdb(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    redis.swap(int(words[1]), int(words[2]))
    return OK


def _multi(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    connection.queued = []
    return OK


def _exec(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    queued, connection.queued = connection.queued or [], None
    watched, connection.watched = connection.watched, {}
    if any(redis.states(db, key)[-1].number != number for (db, key), number in watched.items()):
        return b"*-1\r\n" if connection.protocol == 2 else b"_\r\n"
    return b"*%d\r\n%b" % (len(queued), b"".join(redis.run(connection, words) for words in queued))


def _discard(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    connection.queued = None
    connection.watched = {}
    return OK


def _watch(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    for key in words[1:]:
        connection.watched[(connection.db, key)] = redis.states(connection.db, key)[-1].number
    return OK


def _unwatch(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    connection.watched = {}
    return OK


def _ping(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return b"+PONG\r\n"


def _select(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    connection.db = int(words[1])
    return OK


def _auth(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    connection.user = words[1]
    return OK


def _hello(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    connection.protocol = int(words[1])
    if len(words) > 3:
        connection.user = words[3]
    if connection.protocol == 2:
        return b"*2\r\n$2\r\nid\r\n:%d\r\n" % connection.id
    return b"%%1\r\n$2\r\nid\r\n:%d\r\n" % connection.id


def _client(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    name = words[1].upper()
    if name == b"ID":
        return b":%d\r\n" % connection.id
    if name == b"SETNAME":
        connection.name = words[2].decode()
    if name == b"TRACKING":
        options = [word.upper() for word in words[3:]]
        connection.broadcast = b"BCAST" in options
        connection.noloop = b"NOLOOP" in options
        if b"REDIRECT" in options:
            connection.redirect = int(options[options.index(b"REDIRECT") + 1])
            if connection.redirect not in redis.connections:
                return b"-ERR The client ID you want redirect to does not exist\r\n"
    return bulk(b"") if name == b"INFO" else OK


def _config(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return b"*2\r\n%b%b" % (bulk(words[2]), bulk(b"1000000"))


def _scan(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return b"*2\r\n$1\r\n0\r\n*0\r\n"


def _info(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return bulk(b"# Server\r\nredis_version:7.0.15\r\n")


def _acl(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    users = (b"default", b"alice", b"bob")
    return b"*3\r\n" + b"".join(bulk(b"user %b on %d" % (user, redis.acl_version)) for user in users)


def _time(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    seconds, rest = divmod(round((EPOCH_S + redis.clock()) * 1e6), 1_000_000)
    return b"*2\r\n%b%b" % (bulk(b"%d" % seconds), bulk(b"%d" % rest))


def _subscribe(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return b">3\r\n%b%b:1\r\n" % (bulk(b"subscribe"), bulk(words[1]))


def _publish(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    return b":0\r\n"  # what a message does to those who hear it is seen elsewhere


def _command(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    rows = []
    for name, arity, flags, first, last, step in ROWS:
        words = [bulk(flag.encode()) for flag in flags]
        flag_frame = b"*%d\r\n%b" % (len(words), b"".join(words))
        rows.append(
            b"*6\r\n%b:%d\r\n%b:%d\r\n:%d\r\n:%d\r\n" % (bulk(name.encode()), arity, flag_frame, first, last, step)
        )
    return b"*%d\r\n%b" % (len(rows), b"".join(rows))


COMMANDS: Final[Mapping[bytes, Handler]] = {
    b"GET": _get,
    b"MGET": _mget,
    b"PTTL": _pttl,
    b"STRLEN": _strlen,
    b"EXISTS": _exists,
    b"LRANGE": _lrange,
    b"LLEN": _llen,
    b"HSET": _hset,
    b"HGETALL": _hgetall,
    b"TOUCH": _touch,
    b"SET": _set,
    b"MSET": _mset,
    b"RPUSH": _rpush,
    b"INCR": _incr,
    b"DEL": _del,
    b"PEXPIRE": _pexpire,
    b"EVAL": _eval,
    b"SLY": _sly,
    b"SCRAMBLE": _scramble,
    b"FLUSHDB": _flushdb,
    b"FLUSHALL": _flushall,
    b"SWAPDB": _swapdb,
    b"MULTI": _multi,
    b"EXEC": _exec,
    b"DISCARD": _discard,
    b"WATCH": _watch,
    b"UNWATCH": _unwatch,
    b"PING": _ping,
    b"SELECT": _select,
    b"AUTH": _auth,
    b"HELLO": _hello,
    b"CLIENT": _client,
    b"SCAN": _scan,
    b"INFO": _info,
    b"CONFIG": _config,
    b"ACL": _acl,
    b"TIME": _time,
    b"SUBSCRIBE": _subscribe,
    b"PUBLISH": _publish,
    b"COMMAND": _command,
}
