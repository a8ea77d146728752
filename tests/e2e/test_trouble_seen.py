"""What a person sees of an outage, and of who is turned away: a real proxy, a Redis that goes, `respite stats`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proxy.wire.encode import bulk

from .raw import RawClient
from .servers import Kind, Server, wait_for
from .targets import ROOT, Respite, running_respite

CLASSES = [
    {"name": "news", "match": ["news:*"], "stale_if_error": "60s"},
    {"name": "carts", "match": ["cart:*"], "offline": "memory", "version": True},
    {"name": "rest", "match": ["rest:*"]},
]
VALUE = bulk(b"old")


def _stats(respite: Respite, width: int = 100) -> str:
    """Return what `respite stats` prints."""
    words = [sys.executable, "-m", "proxy", "stats", "--admin", f"http://127.0.0.1:{respite.admin_port}"]
    environment = {**os.environ, "COLUMNS": str(width), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def _line(drawn: str, name: str) -> str:
    """Return what stands beside a name in a panel."""
    (line,) = [line for line in drawn.splitlines() if line.startswith(f"│ {name}  ")]
    return line.strip("│ ").removeprefix(name).strip()


def _has_state(respite: Respite, state: str) -> bool:
    return bool(respite.stats()["outage"]["state"] == state)


def _outage(respite: Respite, client: RawClient, server: Server) -> None:
    """Let Redis go, and have three reads and two writes answered without it, and one write refused."""
    for key in ("news:1", "cart:1"):
        assert client.command("SET", key, "old") == b"+OK\r\n"
    for _ in range(3):
        assert client.command("GET", "news:1") == VALUE
    server.kill()
    wait_for(lambda: _has_state(respite, "away"), what="Redis counts as away")
    for _ in range(3):
        assert client.command("GET", "news:1") == VALUE
    assert client.command("SET", "cart:1", "new") == b"+OK\r\n"
    assert client.command("SET", "cart:2", "new") == b"+OK\r\n"
    assert client.command("SET", "rest:1", "new").startswith(b"-ERR respite")


@pytest.mark.parametrize("workers", [1, 2])
def test_outage_is_seen_in_the_terminal_while_it_lasts_and_afterwards(redis7: Kind, workers: int) -> None:
    """What is served stale, what memory holds, what Redis was told: the figures of what was really done."""
    with Server(redis7) as server:
        settings = {"upstream": {"url": server.url}, "listen": {"workers": workers}, "class": CLASSES}
        with running_respite(settings) as respite, respite.connect() as client:
            before = _stats(respite)
            assert "Outages · none so far" in before
            assert _line(before, "fallbacks") == "news stale 1m 0s · carts in memory"
            assert "Doors" not in before

            _outage(respite, client, server)
            during = _stats(respite)

            assert "Outages · Redis is away for " in during
            assert _line(during, "served stale") == "3 · news 3"
            assert _line(during, "held writes").startswith("keys 2 · ")
            assert _line(during, "in memory") == "writes 2"
            assert _line(during, "breaker").split()[0] in ("open", "half-open")
            assert "refused" in _line(during, "why") or "closed" in _line(during, "why")
            assert during.index("Outages") < during.index("─ Now")
            assert max(map(len, _stats(respite, 50).splitlines())) == 50

            server.restart()
            wait_for(lambda: _has_state(respite, "up"), what="Redis is back", timeout_s=30)
            wait_for(lambda: respite.stats()["offline"]["keys"] == 0, what="Redis was told", timeout_s=30)
            after = _stats(respite)

            assert "Outages · Redis is back for " in after
            told = respite.stats()["offline"]["reconciled_total"]
            assert sum(told.values()) == 2
            assert _line(after, "Redis told") == " · ".join(f"{name} {n}" for name, n in told.items() if n)
            assert _line(after, "the last one").startswith("lasted ")
            assert "held writes" not in after
            assert after.index("─ Now") < after.index("Outages")
            info = client.command("RESPITE", "INFO", "outage").decode()
            assert "\r\nstale_served:news=3\r\n" in info
            assert "\r\nfallbacks:news,carts\r\n" in info


def test_who_is_turned_away_is_seen_in_the_terminal(server: Server) -> None:
    """One client too many, a wrong password, commands that a user may not run, bytes that are no RESP."""
    users = [
        {"name": "web", "password": "pw", "commands": ["-set"]},
        {"name": "jobs", "password": "pw", "commands": ["-del"]},
    ]
    listen = {"users": users, "max_clients_per_address": 3}
    with running_respite({"upstream": {"url": server.url}, "listen": listen}) as respite:
        with respite.connect() as web, respite.connect() as jobs, respite.connect() as third:
            with respite.connect() as fourth:
                assert b"max number of clients" in fourth.frame()
            assert b"WRONGPASS" in web.command("AUTH", "web", "wrong")
            assert web.command("AUTH", "web", "pw") == jobs.command("AUTH", "jobs", "pw") == b"+OK\r\n"
            for _ in range(3):
                assert b"NOPERM" in web.command("SET", "k", "v")
            assert b"NOPERM" in jobs.command("DEL", "k")
            third.send(b"*x\r\n")
            assert b"Protocol error" in third.frame()
        drawn = _stats(respite)

        assert _line(drawn, "refused") == "by max_clients_per_address 1"
        assert _line(drawn, "logins") == "failed 1"
        assert _line(drawn, "closed") == "for what is no RESP 1"
        assert _line(drawn, "denied") == "4 · web 3 · jobs 1"
        assert "Outages" not in drawn
