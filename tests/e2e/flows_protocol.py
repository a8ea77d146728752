"""Flows of raw bytes: inline commands, requests that are no RESP, commands nobody knows, replies of every type."""

from __future__ import annotations

from .flows import CLOSED, QUIET, Flow
from .raw import encode, encode_all

GET = b"*2\r\n$3\r\nGET\r\n$3\r\nstr\r\n"

WAITING = encode_all([("GET", "str"), ("SELECT", "1"), ("SET", "k", "v"), ("MULTI",), ("GET", "k"), ("EXEC",)])

GARBAGE: dict[str, bytes] = {
    "count is no number": b"*abc\r\n",
    "count with a sign": b"*+1\r\n$4\r\nPING\r\n",
    "count with a leading zero": b"*01\r\n$4\r\nPING\r\n",
    "count with a space": b"*1 \r\n$4\r\nPING\r\n",
    "count is nothing": b"*\r\n",
    "count beyond 32 bits": b"*2147483648\r\n",
    "count beyond 64 bits": b"*99999999999999999999\r\n",
    "count line without end": b"*" + b"1" * 70_000,
    "element is a status": b"*1\r\n+PING\r\n",
    "element is an integer": b"*2\r\n$3\r\nGET\r\n:1\r\n",
    "element is an array": b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\na\r\n",
    "element is nothing": b"*1\r\n\r\n",
    "size is no number": b"*1\r\n$abc\r\n",
    "size is negative": b"*1\r\n$-1\r\n",
    "size of an argument is negative": b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-1\r\n",
    "size with a leading zero": b"*1\r\n$04\r\nPING\r\n",
    "size with a sign": b"*1\r\n$+4\r\nPING\r\n",
    "size is nothing": b"*1\r\n$\r\n",
    "size beyond the limit": b"*1\r\n$600000000\r\n",
    "size line without end": b"*1\r\n$" + b"1" * 70_000,
    "inline without end": b"x" * 70_000,
    "unbalanced double quotes": b'SET "abc\r\n',
    "unbalanced single quotes": b"SET 'abc\r\n",
    "http post": b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http host": b"Host: localhost\r\n",
}

ACCEPTED: dict[str, tuple[bytes, int]] = {
    "inline": (b"PING\r\n", 1),
    "inline with a line feed only": (b"PING\n", 1),
    "inline with spaces": (b"   get    str   \r\n", 1),
    "inline with tabs": (b"get\tstr\r\n", 1),
    "inline quotes": (b"SET str \"a b\\x41\\n\\t\\\"\"\r\nGET str\r\nSET str 'it\\'s \\x41'\r\nGET str\r\n", 4),
    "inline empty argument": (b'SET str ""\r\nGET str\r\n', 2),
    "inline empty lines": (b"\r\n\r\n\nPING\r\n", 1),
    "inline blanks only": (b"   \r\nPING\r\n", 1),
    "inline bytes": (b"SET str \x01\xfe\xee\r\nGET str\r\n", 2),
    "inline between arrays": (GET + b"PING\r\n" + GET + b"ECHO hi\r\nPING\r\n" + GET, 6),
    "inline long": (b"SET str " + b"v" * 60_000 + b"\r\nGET str\r\n", 2),
    "inline unknown": (b"NOSUCH a b\r\n", 1),
    "inline wrong arity": (b"GET\r\n", 1),
    "http get": (b"GET / HTTP/1.1\r\n", 1),
    "count zero": (b"*0\r\nPING\r\n", 1),
    "count negative": (b"*-1\r\n*-5\r\nPING\r\n", 1),
    "empty name": (b"*1\r\n$0\r\n\r\n", 1),
    "empty name with arguments": (b"*2\r\n$0\r\n\r\n$1\r\na\r\n", 1),
    "large count": (encode("MGET", *(["str"] * 5000)), 1),
    "large argument": (encode("SET", "str", b"v" * 3_000_000) + GET, 2),
}

UNKNOWN: tuple[tuple[bytes | str, ...], ...] = (
    ("NOSUCH",),
    ("NOSUCH", "a", "b"),
    ("nosuch", "x" * 200, "y"),
    ("NOSUCH", *(f"arg{index}" for index in range(60))),
    ("N" * 300, "a"),
    ("NO\r\nSUCH", "a\r\nb"),
    (b"\x00\xff", b"\x00"),
    ("GET ", "str"),
    ("RESPITEX", "HELP"),
    ("'GET'", "'a'"),
)

DEBUG_TYPES = ("string", "integer", "double", "null", "array", "set", "map", "verbatim", "true", "false", "bignum")

FLOWS: tuple[Flow, ...] = (
    *(Flow(f"garbage: {name}", (("a", "GET str"), ("a", sent, CLOSED)), is_raw=True) for name, sent in GARBAGE.items()),
    *(
        Flow(f"garbage after commands: {name}", (("a", GET + GET + GARBAGE[name], CLOSED), ("b", "GET str")))
        for name in ("count is no number", "element is a status", "size is negative", "unbalanced double quotes")
    ),
    Flow("garbage after commands that wait for each other", (("a", WAITING + b"*abc\r\n", CLOSED), ("b", "GET str"))),
    Flow("garbage after the end", (("a", GET + encode("QUIT") + b"*abc\r\n", CLOSED),)),
    *(Flow(f"accepted: {name}", (("a", sent, frames), ("a", "ECHO end"))) for name, (sent, frames) in ACCEPTED.items()),
    Flow(
        "garbage: text after a quote",
        (("a", b'SET "a"b c\r\n', CLOSED),),
        is_raw=True,
        redis_only="Valkey reads the text on as a part of the word",
    ),
    Flow(
        "accepted: inline byte 255",
        (("a", b"SET str \x01\xff\r\nGET str\r\n", 2),),
        redis_only="Valkey takes the byte for a blank",
    ),
    Flow(
        "accepted: bulk without its line end",
        (("a", b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", 2),),
        redis_only="Valkey closes the connection without a word",
    ),
    Flow("the first words of HTTP as a command", (("a", "POST /", CLOSED), ("b", "HOST: x", CLOSED), ("c", "GET str"))),
    Flow("unknown commands", tuple(("a", command) for command in UNKNOWN)),
    Flow("unknown commands in a pipeline", (("a", encode_all([*UNKNOWN, ("GET", "str")]), len(UNKNOWN) + 1),)),
    Flow(
        "an array with line feeds only waits for more",
        (("a", b"*1\n$4\nPING\n", QUIET),),
        is_raw=True,
    ),
    Flow(
        "half a command waits for the rest",
        (
            ("a", b"*2\r\n$3\r\nGE", QUIET),
            ("a", b"T\r\n$3\r\nst", QUIET),
            ("a", b"r\r\n"),
            ("a", b"PI", QUIET),
            ("a", b"NG\r\n"),
        ),
    ),
    Flow("replies of every type", tuple(("a", f"DEBUG PROTOCOL {name}") for name in DEBUG_TYPES)),
    Flow(
        "replies of every type in a transaction",
        (
            ("a", "MULTI"),
            *(("a", f"DEBUG PROTOCOL {name}") for name in DEBUG_TYPES),
            ("a", "GET str"),
            ("a", "EXEC"),
        ),
    ),
    Flow(
        "attributes",
        (("a", "DEBUG PROTOCOL attrib"), ("a", "GET str"), ("a", encode_all([("DEBUG", "PROTOCOL", "attrib")] * 3), 3)),
    ),
    Flow(
        "pushes out of band",
        (
            ("a", "DEBUG PROTOCOL push", 2),
            ("a", "GET str"),
            ("a", encode_all([("GET", "str"), ("DEBUG", "PROTOCOL", "push"), ("GET", "str")]), 4),
        ),
        protocols=(3,),
    ),
    Flow("pushes are refused in RESP2", (("a", "DEBUG PROTOCOL push"), ("a", "GET str")), protocols=(2,), since=(7, 0)),
    Flow(
        "a pipeline of ten thousand",
        (
            (
                "a",
                encode_all([("GET", "str"), ("SET", "num", "1"), ("GET", "num"), ("MGET", "str", "num")] * 2500),
                10_000,
            ),
        ),
    ),
    Flow(
        "values of megabytes",
        (
            ("a", ("SET", "big", b"v" * 20_000_000)),
            ("a", "GET big"),
            ("a", "STRLEN big"),
            ("a", "MGET big str big"),
            ("a", encode_all([("GET", "str"), ("GET", "big"), ("GET", "str")]), 3),
        ),
        protocols=(3,),
    ),
)
