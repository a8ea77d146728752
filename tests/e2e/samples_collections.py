"""Samples of the differential test: lists, sets, hashes, blocking pops (with timeouts that are over at once).

Sets hold integers here: their order in Redis does not depend on a hash seed.
"""

from __future__ import annotations

from .words import Line

LISTS: dict[str, tuple[Line, ...]] = {
    "blmove": (
        "BLMOVE list list2 LEFT RIGHT 0.01",
        "BLMOVE none list2 LEFT LEFT 0.01",
        "BLMOVE list str LEFT LEFT 0.01",
    ),
    "blmpop": ("BLMPOP 0.01 2 none list LEFT COUNT 2", "BLMPOP 0.01 1 none RIGHT", "BLMPOP 0.01 0 list LEFT"),
    "blpop": ("BLPOP none list 0.01", "BLPOP none 0.01", "BLPOP list -1", "BLPOP list x", "BLPOP none str list 0.01"),
    "brpop": ("BRPOP none list 0.01", "BRPOP none 0.01", "BRPOP list -1", "BRPOP str 0.01"),
    "brpoplpush": ("BRPOPLPUSH list list2 0.01", "BRPOPLPUSH none list2 0.01", "BRPOPLPUSH list str 0.01"),
    "lindex": ("LINDEX list 0", "LINDEX list -1", "LINDEX list 99", "LINDEX none 0"),
    "linsert": ("LINSERT list BEFORE b x", "LINSERT list AFTER zz x", "LINSERT none BEFORE a b", "LINSERT list AT b x"),
    "llen": ("LLEN list", "LLEN none"),
    "lmove": (
        "LMOVE list list2 LEFT RIGHT",
        "LMOVE list list RIGHT LEFT",
        "LMOVE none x LEFT LEFT",
        "LMOVE list x UP LEFT",
    ),
    "lmpop": ("LMPOP 2 none list LEFT COUNT 2", "LMPOP 1 none LEFT", "LMPOP 0 list LEFT", "LMPOP 1 list LEFT COUNT 0"),
    "lpop": ("LPOP list", "LPOP list 2", "LPOP list 0", "LPOP none", "LPOP none 2", "LPOP list -1"),
    "lpos": ("LPOS list b", "LPOS list zz", "LPOS list b RANK -1", "LPOS list b COUNT 0", "LPOS list b RANK 0"),
    "lpush": ("LPUSH list x y", "LPUSH newlist 1", "LRANGE list 0 -1"),
    "lpushx": ("LPUSHX list x", "LPUSHX none x"),
    "lrange": ("LRANGE list 0 -1", "LRANGE list 1 2", "LRANGE list 5 1", "LRANGE none 0 -1"),
    "lrem": ("LREM list 0 a", "LREM list -1 b", "LREM none 0 a"),
    "lset": ("LSET list 0 x", "LSET list 99 x", "LSET none 0 x"),
    "ltrim": ("LTRIM list 1 2", "LRANGE list 0 -1", "LTRIM none 0 1", "LTRIM list 5 1", "EXISTS list"),
    "rpop": ("RPOP list", "RPOP list 2", "RPOP none", "RPOP list 0"),
    "rpoplpush": ("RPOPLPUSH list list2", "RPOPLPUSH none x", "RPOPLPUSH list str", "LRANGE list2 0 -1"),
    "rpush": ("RPUSH list x y", "RPUSH newlist 1", "LRANGE list 0 -1"),
    "rpushx": ("RPUSHX list x", "RPUSHX none x"),
}

SETS: dict[str, tuple[Line, ...]] = {
    "sadd": ("SADD iset 9 1", "SADD newset a", "SADD one m", "SMEMBERS newset"),
    "scard": ("SCARD iset", "SCARD none"),
    "sdiff": ("SDIFF iset iset2", "SDIFF none iset", "SDIFF iset str"),
    "sdiffstore": ("SDIFFSTORE dest iset iset2", "SMEMBERS dest", "SDIFFSTORE dest none", "EXISTS dest"),
    "sinter": ("SINTER iset iset2", "SINTER iset none", "SINTER iset"),
    "sintercard": (
        "SINTERCARD 2 iset iset2",
        "SINTERCARD 2 iset iset2 LIMIT 1",
        "SINTERCARD 0 iset",
        "SINTERCARD 3 iset",
    ),
    "sinterstore": ("SINTERSTORE dest iset iset2", "SMEMBERS dest", "SINTERSTORE str iset", "TYPE str"),
    "sismember": ("SISMEMBER iset 1", "SISMEMBER iset 99", "SISMEMBER none 1"),
    "smembers": ("SMEMBERS iset", "SMEMBERS one", "SMEMBERS none"),
    "smismember": ("SMISMEMBER iset 1 99", "SMISMEMBER none 1"),
    "smove": ("SMOVE iset iset2 1", "SMOVE iset iset2 99", "SMOVE none iset 1", "SMOVE iset str 2"),
    "spop": ("SPOP one", "SPOP one", "SPOP one 3", "SPOP iset 99", "SPOP none 0", "SPOP iset2 -1"),
    "srandmember": (
        "SRANDMEMBER one",
        "SRANDMEMBER one 2",
        "SRANDMEMBER one -2",
        "SRANDMEMBER none",
        "SRANDMEMBER none 2",
    ),
    "srem": ("SREM iset 1 99", "SREM none 1", "SREM one m", "EXISTS one"),
    "sscan": ("SSCAN iset 0", "SSCAN one 0 MATCH m* COUNT 5", "SSCAN none 0", "SSCAN iset x", "SSCAN iset 0 COUNT 0"),
    "sunion": ("SUNION iset iset2", "SUNION none", "SUNION iset str"),
    "sunionstore": ("SUNIONSTORE dest iset iset2", "SMEMBERS dest", "SUNIONSTORE dest none"),
}

HASHES: dict[str, tuple[Line, ...]] = {
    "hdel": ("HDEL hash f nope", "HDEL none f", "HDEL hash n d", "EXISTS hash"),
    "hexists": ("HEXISTS hash f", "HEXISTS hash nope", "HEXISTS none f"),
    "hexpire": (
        "HEXPIRE hash 1000 FIELDS 2 f nope",
        "HEXPIRE none 10 FIELDS 1 f",
        "HEXPIRE hash 10 NX FIELDS 1 f",
        "HEXPIRE hash 0 FIELDS 1 n",
        "HGETALL hash",
        "HEXPIRE hash 10 FIELDS 3 f",
    ),
    "hexpireat": ("HEXPIREAT hash 4102444800 FIELDS 1 f", "HEXPIREAT hash 1 FIELDS 1 f", "HEXPIREAT none 1 FIELDS 1 f"),
    "hexpiretime": (
        "HEXPIRETIME hash FIELDS 1 f",
        "HEXPIREAT hash 4102444800 FIELDS 1 f",
        "HEXPIRETIME hash FIELDS 2 f z",
    ),
    "hget": ("HGET hash f", "HGET hash nope", "HGET none f"),
    "hgetall": ("HGETALL hash", "HGETALL none"),
    "hgetdel": ("HGETDEL hash FIELDS 2 f nope", "HGETDEL none FIELDS 1 f", "HGETALL hash", "HGETDEL hash FIELDS 0"),
    "hgetex": ("HGETEX hash FIELDS 1 f", "HGETEX hash EX 1000 FIELDS 2 f nope", "HGETEX hash PERSIST FIELDS 1 f"),
    "hincrby": ("HINCRBY hash n 2", "HINCRBY hash f 1", "HINCRBY newhash x 1", "HINCRBY hash n 9223372036854775807"),
    "hincrbyfloat": ("HINCRBYFLOAT hash d 0.25", "HINCRBYFLOAT hash f 1", "HINCRBYFLOAT newhash x 1.5"),
    "hkeys": ("HKEYS hash", "HKEYS none"),
    "hlen": ("HLEN hash", "HLEN none"),
    "hmget": ("HMGET hash f nope n", "HMGET none f"),
    "hmset": ("HMSET hash f 1 z 2", "HGETALL hash", "HMSET hash f"),
    "hpersist": ("HPERSIST hash FIELDS 1 f", "HEXPIRE hash 1000 FIELDS 1 f", "HPERSIST hash FIELDS 2 f z"),
    "hpexpire": ("HPEXPIRE hash 1000000 FIELDS 1 f", "HPEXPIRE hash 0 FIELDS 1 f", "HGETALL hash"),
    "hpexpireat": ("HPEXPIREAT hash 4102444800000 FIELDS 1 f", "HPEXPIREAT hash 1 FIELDS 1 f"),
    "hpexpiretime": (
        "HPEXPIRETIME hash FIELDS 1 f",
        "HPEXPIREAT hash 4102444800000 FIELDS 1 f",
        "HPEXPIRETIME hash FIELDS 1 f",
    ),
    "hpttl": (
        "HPTTL hash FIELDS 2 f nope",
        "HPTTL none FIELDS 1 f",
        "HPEXPIRE hash 99999 FIELDS 1 f",
        "HPTTL hash FIELDS 1 f",
    ),
    "hrandfield": ("HRANDFIELD hash1", "HRANDFIELD hash1 1", "HRANDFIELD hash1 -2 WITHVALUES", "HRANDFIELD none"),
    "hscan": ("HSCAN hash 0", "HSCAN hash 0 MATCH f*", "HSCAN none 0", "HSCAN hash 0 NOVALUES", "HSCAN hash x"),
    "hset": ("HSET hash f 2 z 3", "HSET newhash a 1", "HGETALL newhash", "HSET hash f"),
    "hsetex": (
        "HSETEX hash FIELDS 1 f 2",
        "HSETEX hash EX 1000 FIELDS 1 f 2",
        "HSETEX hash FNX FIELDS 1 f 9",
        "HGETALL hash",
    ),
    "hsetnx": ("HSETNX hash f 2", "HSETNX hash z 3"),
    "hstrlen": ("HSTRLEN hash f", "HSTRLEN hash nope", "HSTRLEN none f"),
    "httl": (
        "HTTL hash FIELDS 2 f nope",
        "HTTL none FIELDS 1 f",
        "HEXPIRE hash 99999 FIELDS 1 f",
        "HTTL hash FIELDS 1 f",
    ),
    "hvals": ("HVALS hash", "HVALS none"),
}
