"""Redis' own tools work through Respite: redis-cli in its special modes, and redis-benchmark."""

from __future__ import annotations

import csv
import shutil
import subprocess

from .raw import encode
from .targets import Target


def run(target: Target, tool: str, *arguments: str, feed: bytes = b"") -> str:
    """Run a tool against a target and give what it prints."""
    path = shutil.which(tool)
    assert path, f"{tool} is not on the PATH: install Debian's redis-tools, or run `make test`, which does"
    command = [path, "-p", str(target.port), *arguments]
    done = subprocess.run(command, input=feed, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_redis_cli_commands_and_protocols(target: Target) -> None:
    """Single commands in RESP2 and RESP3, from the command line and from a pipe."""
    assert run(target, "redis-cli", "SET", "cli", "x") == "OK\n"
    assert run(target, "redis-cli", "-3", "HSET", "cli-hash", "f", "v") == "1\n"
    assert run(target, "redis-cli", "-3", "--json", "HGETALL", "cli-hash") == '{"f":"v"}\n'
    assert run(target, "redis-cli", "-r", "5", "GET", "cli") == "x\n" * 5
    assert run(target, "redis-cli", feed=b"GET cli\nMULTI\nSET cli y\nEXEC\nGET cli\n").split() == [
        *("x", "OK", "QUEUED", "OK", "y"),
    ]


def test_redis_cli_mass_insertion_and_scan(target: Target) -> None:
    """`--pipe` feeds ten thousand commands and counts as many replies; `--scan` and `--bigkeys` see them."""
    run(target, "redis-cli", "FLUSHALL")
    feed = b"".join(encode("SET", f"mass:{index}", index) for index in range(10_000))

    printed = run(target, "redis-cli", "--pipe", feed=feed)

    assert "errors: 0, replies: 10000" in printed
    assert len(run(target, "redis-cli", "--scan", "--pattern", "mass:*").split()) == 10_000
    assert "Sampled 10000 keys" in run(target, "redis-cli", "--bigkeys")


def test_redis_benchmark_runs_its_tests(target: Target) -> None:
    """Each test of redis-benchmark that an app would know comes to its end."""
    tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"

    printed = run(target, "redis-benchmark", "-t", tests, "-n", "2000", "-c", "20", "-P", "8", "--csv")
    rates = {row[0]: float(row[1]) for row in csv.reader(printed.splitlines()) if row[1] != "rps"}

    assert len(rates) >= 14
    assert min(rates.values()) > 0
