"""Alerts, history and report of a real proxy, of one worker and of several, while its Redis comes and goes."""

from __future__ import annotations

import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from .servers import Server, find_kind, wait_for
from .targets import Respite, running_respite


@contextmanager
def _webhook() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Run a web server that keeps the JSON that is posted to it."""
    came: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hooks/s3cret", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _get(respite: Respite, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}{path}", timeout=5) as answer:
        return json.loads(answer.read())


def test_alert_of_redis_that_goes_and_comes_back_is_told_once_each() -> None:
    """On and off at the webhook and in the log; the report is unhealthy in between, with the reason."""
    with Server(find_kind("redis7")) as server, _webhook() as (url, came):
        settings = {
            "upstream": {"url": server.url},
            "alert": [{"name": "redis down", "for": "1s", "notify": ["log", url]}],
        }
        with running_respite(settings) as respite:
            with respite.connect() as client:
                client.command(b"SET", b"k", b"v")
                for _ in range(200):
                    client.command(b"GET", b"k")
            wait_for(
                lambda: _get(respite, "/report.json")["cache"]["figures"].get("hit_rate", 0) > 0.9, what="a hit rate"
            )
            report = _get(respite, "/report.json")
            assert list(report) == ["at", "cache", "queue", "polling", "overall"]
            assert report["overall"]["health"] == "healthy"

            server.kill()
            on = came.get(timeout=15)
            overall = _get(respite, "/report.json")["overall"]
            server.restart()
            off = came.get(timeout=15)

            assert (on["state"], on["name"], off["state"], off["name"]) == ("on", "redis down", "off", "redis down")
            assert on["text"] == "redis down: upstream_up is 0, below 1 for 1s"
            assert overall["health"] == "unhealthy"
            assert overall["reasons"][0].startswith("redis down: ")
            assert "redis down" in [alert["name"] for alert in overall["alerts"] if alert["state"] == "on"]
            wait_for(lambda: _get(respite, "/report.json")["overall"]["health"] != "unhealthy", what="health")
            assert came.empty()
            assert respite.errors.count(on["text"]) == respite.errors.count(off["text"]) == 1
            assert "s3cret" not in respite.errors

            points = _get(respite, "/history.json?figure=upstream_up&seconds=60&step=1")["series"][0]["points"]
            known = [value for _, value in points if value is not None]
            assert known[0] == known[-1] == 1.0
            assert 0.0 in known


def test_reload_changes_alerts_while_they_are_on() -> None:
    """A rule that is new begins, one that says the same goes on, one that is gone ends: at once, and of all workers."""
    rule = {"name": "idle", "when": "clients >= 0", "for": "0s"}
    with (
        Server(find_kind("redis7")) as server,
        running_respite({"upstream": {"url": server.url}, "listen": {"workers": 2}, "alert": [rule]}) as respite,
    ):

        def on() -> list[str]:
            rows = _get(respite, "/report.json")["overall"]["alerts"]
            return [row["name"] for row in rows if row["state"] == "on"]

        wait_for(lambda: on() == ["idle"], what="the alert")
        respite.settings["alert"] = [rule, {"name": "also", "when": "clients >= 0", "for": "0s"}]
        respite.write_config()
        _post(respite, "/reload")
        wait_for(lambda: on() == ["idle", "also"], what="the second alert")
        respite.settings["alert"] = [{"name": "none", "when": "clients > 1000"}]
        respite.write_config()
        _post(respite, "/reload")

        assert on() == []
        assert respite.errors.count("idle: clients is ") == 1
        assert respite.errors.count("it is no longer watched like this") == 2
        with pytest.raises(urllib.error.HTTPError) as refused:
            _get(respite, "/history.json?figure=hitrate")
        assert refused.value.code == 400
        assert "did you mean hit_rate?" in json.loads(refused.value.read())["error"]


def _post(respite: Respite, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{respite.admin_port}{path}", method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())
