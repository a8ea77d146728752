"""What the tests of several workers ask of a proxy: which worker serves whom, and how all of them are."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .contract import is_alive
from .raw import Address, RawClient
from .servers import Server, wait_for
from .targets import Respite

WORKERS = 2
CLIENTS = 24  # so many connections that miss one of two workers come once in 8 million runs


def workers_on(server: Server, **listen: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of a proxy of several workers in front of a server; `listen` are further keys."""
    return {"upstream": {"url": server.url}, "listen": {"workers": WORKERS, **listen}}


@contextmanager
def connected(address: Address, tls: ssl.SSLContext | None = None, count: int = CLIENTS) -> Iterator[list[RawClient]]:
    """Open so many connections, and close them in the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(RawClient(address, tls=tls)) for _ in range(count)]


def client_id(client: RawClient) -> int:
    """Ask for the CLIENT ID of a connection."""
    reply = client.command("CLIENT", "ID")
    assert reply[:1] == b":", reply
    return int(reply[1:])


def worker_of(client: RawClient) -> int:
    """Tell which worker serves a client: worker i of n gives the ids i+1, i+1+n, ..."""
    return (client_id(client) - 1) % WORKERS


def one_of_each(clients: Sequence[RawClient]) -> tuple[RawClient, RawClient]:
    """Pick a client of each worker."""
    by_worker = {worker_of(client): client for client in clients}
    assert by_worker.keys() == {0, 1}
    return by_worker[0], by_worker[1]


def rows_of(respite: Respite) -> list[dict[str, Any]]:
    """Read the rows of /stats.json about the workers."""
    return list(respite.stats()["workers"])


def pids_of(respite: Respite) -> list[int]:
    """Read the process ids of the workers, in order."""
    return [row["pid"] for row in rows_of(respite)]


def post(respite: Respite, path: str) -> tuple[int, Any]:
    """POST to the admin port; return status and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{respite.admin_port}{path}", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=8) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def metric(respite: Respite, name: str) -> float:
    """Read one series without labels from /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}/metrics", timeout=8) as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that only waits to be reaped has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def children_of(pid: int) -> list[int]:
    """Find the child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_new_worker(respite: Respite, old: list[int], timeout_s: float = 10.0) -> None:
    """Wait until all workers serve, and one of them is new."""

    def is_new() -> bool:
        rows = rows_of(respite)
        return all(row["state"] == "serving" and row["pid"] for row in rows) and {row["pid"] for row in rows} != set(
            old
        )

    wait_for(is_new, what="the next worker", timeout_s=timeout_s)


def comes_back(address: Address) -> bool:
    """Connect anew and tell whether that is served; while a process is being ended, it may be the one that is met."""
    try:
        with RawClient(address) as client:
            return is_alive(client)
    except OSError:
        return False
