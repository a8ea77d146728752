"""A real admin port, on a thread of its own, for commands that block."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest
import trio

from proxy.admin.http import serve_admin
from proxy.admin.routes import MonitorSource

from ..admin.fakes import FakeSource

Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them, and every drawing at 80 columns without colours."""
    for name in ("ADMIN", "ADMIN_TOKEN", "CONFIG", "LISTEN", "UPSTREAM"):
        monkeypatch.delenv(f"RESPITE_{name}", raising=False)
    for name in ("REDIS_URL", "FORCE_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that serves a source, with a token or not, and returns the URL; all end with the test."""
    stops: list[Callable[[], None]] = []

    def start(source: FakeSource, token: str = "", monitor: MonitorSource | None = None) -> str:
        started: queue.Queue[tuple[str, trio.lowlevel.TrioToken, trio.CancelScope]] = queue.Queue()

        async def main() -> None:
            async with trio.open_nursery() as nursery:

                async def run(task_status: trio.TaskStatus[str]) -> None:
                    await serve_admin("http://127.0.0.1:0", token, source, monitor=monitor, task_status=task_status)

                url = await nursery.start(run)
                started.put((url, trio.lowlevel.current_trio_token(), nursery.cancel_scope))

        thread = threading.Thread(target=trio.run, args=(main,))
        thread.start()
        url, trio_token, scope = started.get(timeout=10)

        def stop() -> None:
            trio.from_thread.run_sync(scope.cancel, trio_token=trio_token)
            thread.join(10)

        stops.append(stop)
        return url

    yield start
    for stop in stops:
        stop()
