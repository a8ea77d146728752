"""No secret is told to anybody: a proxy that knows one of each kind is provoked, and all it says is searched for them.

Two workers, everything logged, a Redis with a password, a broker and a webhook and a collector that are not there.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest

from ..cli.typing_in import type_in
from .raw import ClosedError, NoFrameError
from .servers import Kind, Server, ServerOptions, free_port, wait_for
from .targets import Respite, to_toml

SECRETS = {
    "upstream.url": "upstream/s3cret:1",
    "listen.users": "user-s3cret-2",
    "listen.admin_token": "admin-s3cret-3",
    "amqp.url": "broker/s3cret:4",
    "metrics.notify": "hook-s3cret-5",
    "push.tokens": "push-s3cret-6",
    "OTEL_EXPORTER_OTLP_HEADERS": "otel-s3cret-7",
    "what a client guesses": "guess-s3cret-8",
    "what a client is": "alice-s3cret-9",
    "a value": "value-s3cret-10",
}


@attrs.define
class Heard:
    """Everything the proxy has said, by where."""

    said: dict[str, str] = attrs.field(factory=dict)

    def add(self, where: str, text: str | bytes) -> None:
        """Take note of it."""
        self.said[where] = self.said.get(where, "") + (text if isinstance(text, str) else text.decode("latin-1"))

    def leaks(self) -> list[str]:
        """Name each secret that was said, and where; as it is, as a URL has it, and in base64."""
        found = []
        for what, secret in SECRETS.items():
            forms = {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")}
            found += [f"{what}: {where}" for where, text in self.said.items() if any(form in text for form in forms)]
        return found


@pytest.fixture(scope="module")
def proxy(redis7: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Respite]:
    """Run a proxy that knows a secret of each kind."""
    options = ServerOptions(
        password=SECRETS["upstream.url"], acl=[f"user alice on >{SECRETS['what a client is']} ~* &* +@all"]
    )
    nobody = free_port()
    os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer%20{SECRETS['OTEL_EXPORTER_OTLP_HEADERS']}"
    with Server(redis7, options) as server:
        respite = Respite(
            {
                "listen": {
                    "workers": 2,
                    "admin_token": SECRETS["listen.admin_token"],
                    "users": [{"name": "app", "password": SECRETS["listen.users"]}],
                },
                "upstream": {"url": f"redis://:{quote(SECRETS['upstream.url'], safe='')}@127.0.0.1:{server.port}"},
                "amqp": {
                    "url": f"amqp://app:{quote(SECRETS['amqp.url'], safe='')}@127.0.0.1:{nobody}/v",
                    "publish_changes": True,
                },
                "metrics": {"notify": ["log", f"http://127.0.0.1:{nobody}/{SECRETS['metrics.notify']}"]},
                "push": {"tokens": [{"token": SECRETS["push.tokens"], "channels": ["*"]}]},
                "otel": {"endpoint": f"http://127.0.0.1:{nobody}", "interval": "1s"},
                "log": {"level": "debug"},
                "class": [{"name": "all", "match": ["*"], "version": True, "compress": True}],
                "alert": [
                    {
                        "name": "always",
                        "when": "clients >= 0",
                        "for": "0s",
                        "notify": [f"http://127.0.0.1:{nobody}/alert-{SECRETS['metrics.notify']}"],
                    }
                ],
            }
        )
        try:
            respite.wait_until_started()
            yield respite
        except BaseException as error:
            error.add_note(f"standard error of Respite ended:\n{respite.errors[-3000:]}")
            raise
        finally:
            del os.environ["OTEL_EXPORTER_OTLP_HEADERS"]
            respite.discard()


def _provoke_clients(respite: Respite, heard: Heard) -> None:
    """Log in rightly, wrongly and not at all; ask for everything a client can ask for."""
    guess, alice, value = (SECRETS[name] for name in ("what a client guesses", "what a client is", "a value"))
    with respite.connect() as stranger:
        for words in (("AUTH", guess), ("AUTH", "app", guess), ("HELLO", "3", "AUTH", "root", guess), ("GET", guess)):
            heard.add("errors", stranger.command(*words))
        stranger.send(b"*2\r\n$4\r\nAUTH\r\n$99999999\r\n" + guess.encode())
        with contextlib.suppress(ClosedError, NoFrameError):
            heard.add("errors", stranger.until_closed())
    with respite.connect() as app:
        assert app.command("AUTH", "app", SECRETS["listen.users"]) == b"+OK\r\n"
        heard.add("errors", app.command("AUTH", "alice", alice))
        for line in (
            *(
                "INFO",
                "INFO everything",
                "CLIENT LIST",
                "CLIENT INFO",
                "COMMAND COUNT",
                "SLOWLOG GET",
                "LATENCY DOCTOR",
            ),
            *("RESPITE INFO", "RESPITE STATS", "RESPITE CLIENTS", "RESPITE LINKS", "RESPITE EXPLAIN k", "RESPITE HELP"),
            *("RESPITE RELOAD", "RESPITE INFO upstream", "NOSUCH", "RESPITE VERSION k", "ACL WHOAMI"),
        ):
            heard.add(f"reply to {line}", app.command(*line.split()))
        app.command("SET", "k", value)
        app.command("INCR", "k")
        app.command("EVAL", f"error('{value[:0]}no')", "0")
        app.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _provoke_admin(respite: Respite, heard: Heard) -> None:
    """Ask the admin port everything, with the right token, with a wrong one and without."""
    guess = SECRETS["what a client guesses"]
    for token in (SECRETS["listen.admin_token"], guess, ""):
        for path in (
            *("/", "/stats.json", "/report.json", "/metrics", "/healthz", "/readyz", f"/explain?key={guess[:0]}k"),
            *(
                f"/nowhere?access_token={token}",
                f"/changes?channels=a&access_token={token}",
                "/history.json",
                "/alerts.json",
            ),
        ):
            request = urllib.request.Request(f"http://127.0.0.1:{respite.admin_port}{path}")
            if token:
                request.add_header("Authorization", f"Bearer {token}")
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    heard.add(f"GET {path.partition('?')[0]}", answer.read())
            except urllib.error.HTTPError as exc:
                heard.add(f"GET {path.partition('?')[0]}", exc.read())
                exc.close()


def _provoke_commands(respite: Respite, heard: Heard, directory: Path) -> None:
    """Run the command line, on the configuration as it is and on some that are wrong next to each secret."""
    text = to_toml(respite.settings)
    wrong = [
        text.replace("127.0.0.1:", "127.0.0.1:x"),
        text.replace("publish_changes = true", 'publish_change = "x"'),
        text + '\n[upstream2]\nurl = "redis://:' + SECRETS["upstream.url"] + '@h"\n',
        text.replace("users = [", 'users = ["' + SECRETS["listen.users"] + '", '),
        text.replace('"channels"', '"chanels"').replace("channels =", "chanels ="),
        text.replace("admin_token =", "admin_tokn ="),
        text.replace("redis://:", "redis://:#"),
        text + "\n= broken",
    ]
    files = []
    for number, one in enumerate([text, *wrong]):
        files.append(directory / f"{number}.toml")
        files[-1].write_text(one)
    admin = ["--admin", f"http://127.0.0.1:{respite.admin_port}"]
    commands = [["check", "-c", str(path)] for path in files]
    commands += [["check", "--json", "-c", str(path)] for path in files]
    commands += [
        ["stats", "--json", *admin],
        ["explain", "k", *admin],
        ["reload", *admin],
        ["stats", "--admin", "http://:x"],
    ]
    for command in commands:
        done = type_in(*command)
        heard.add(f"respite {' '.join(command[:1])}", done.stdout + done.stderr)


def _provoke_reloads(respite: Respite) -> None:
    """Reload what is wrong beside each secret, and what is right but needs a restart."""
    right = respite.config.read_text()
    for text in (
        right.replace('"broker', '"bro ker').replace("amqp://", "amq://"),
        right.replace("redis://:", "redis://:#"),
        right.replace(SECRETS["listen.admin_token"], SECRETS["listen.admin_token"] + "-new"),
        right,
    ):
        respite.config.write_text(text)
        before = respite.errors.count("reload")
        respite.signal(signal.SIGHUP)
        wait_for(lambda before=before: respite.errors.count("reload") > before, what="a reload")  # type: ignore[misc]


def _look_at_processes(respite: Respite, heard: Heard) -> None:
    """Read what anybody on the machine can see of the processes."""
    for pid in _family(respite.process.pid):
        for name in ("cmdline", "comm", "status"):
            with contextlib.suppress(OSError):
                heard.add(f"/proc/../{name}", Path(f"/proc/{pid}/{name}").read_bytes())


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def test_no_secret_is_told_to_anybody(proxy: Respite, tmp_path: Path) -> None:
    """Logs at their most talkative, errors, figures, the command line, and the list of processes hold none of them."""
    heard = Heard()
    _look_at_processes(proxy, heard)
    _provoke_clients(proxy, heard)
    _provoke_admin(proxy, heard)
    _provoke_commands(proxy, heard, tmp_path)
    _provoke_reloads(proxy)
    workers = _family(proxy.process.pid)[1:]
    assert len(workers) >= 2
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: "worker ended" in proxy.errors, what="the death of a worker is noticed")
    wait_for(lambda: "given up" in proxy.errors or "posted again" in proxy.errors, what="the webhook was tried")
    _look_at_processes(proxy, heard)
    proxy.signal(signal.SIGTERM)
    proxy.wait_for_exit(40)
    heard.add("stdout", proxy.output)
    heard.add("stderr", proxy.errors)

    assert heard.leaks() == []
    assert {"errors", "stderr", "GET /stats.json", "respite check", "reply to CLIENT LIST"} <= heard.said.keys()
    assert "reload refused" in proxy.errors
