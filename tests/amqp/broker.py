"""A real RabbitMQ for the tests: one node, a child of the test run, apart from everything else on the machine.

    tests ── guard (sh) reads a pipe; when the tests are gone, however they went, it kills both and cleans up
       ├── epmd                   own port
       └── beam.smp, the broker   own directory, cookie and data; own ports, all on 127.0.0.1

The node keeps its data over `kill`, `stop` and `restart`, as a broker does. A start takes about five seconds, most of
it for loading code. Nothing here knows Respite.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from ..e2e.servers import TlsFiles, free_port, wait_for

START_TIMEOUT_S = 90.0
"""A start takes seconds of processor time; ten of them at once on a small machine take a minute."""

STOP_TIMEOUT_S = 30.0
CTL_TIMEOUT_S = 30

NODE = "respite@localhost"
"""The name is the same for all brokers: each has its own epmd, which knows no other."""

CLIENT_NAME = "respite-client"
"""The user that EXTERNAL logs in: what the client certificate of the tests has as its common name."""

SCRIPTS = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/sbin")
"""Where packages keep the scripts themselves: those of the PATH change the user to rabbitmq, and refuse other users."""

APPLICATIONS = ("rabbit", "rabbitmq_prelaunch", "rabbitmq_auth_mechanism_ssl", "cuttlefish")
"""What a node of the tests runs: the broker, what starts it, the one plugin, what reads its configuration."""

GUARD = 'while read -r line; do pids=$line; done; [ -z "$pids" ] || kill -9 $pids; exec rm -rf "$1"'
"""The last line it reads names the processes that run now. It kills by these ids and deletes the directory."""


class MissingBrokerError(Exception):
    """RabbitMQ is not installed; the text says what brings it."""


@attrs.define
class BrokerOptions:
    """What a broker is started with besides the defaults; `tls` adds a TLS listener on which EXTERNAL works."""

    tls: TlsFiles | None = None
    heartbeat_s: int = 60


@functools.cache
def find_script(name: str) -> Path:
    """Find `rabbitmq-server` or `rabbitmqctl`. Raises: MissingBrokerError."""
    path = os.pathsep.join((*SCRIPTS, os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))
    found = shutil.which(name, path=path)
    if found is None or shutil.which("epmd") is None:
        raise MissingBrokerError(f"no {name}: run tests/install-servers.sh, or install rabbitmq-server")
    return Path(found)


def needed_applications(files: dict[str, Path], roots: Sequence[str]) -> set[str]:
    """Return which of these applications `roots` run with, themselves included, as their `.app` files say."""
    needed: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in needed or name not in files or not files[name].is_file():
            continue  # Erlang's own are elsewhere
        needed.add(name)
        for one in re.findall(r"applications,\s*\[(.*?)\]", files[name].read_text(encoding="utf-8"), re.DOTALL):
            todo += re.findall(r"\w+", one)
    return needed


def _binary(text: str) -> str:
    """Write a text as Erlang's binary."""
    return f"<<{','.join(map(str, text.encode()))}>>"


class RabbitMq:
    """One running broker. `restart` keeps its addresses and what it stored durably."""

    def __init__(self, options: BrokerOptions | None = None) -> None:
        self.options = options or BrokerOptions()
        self._server = find_script("rabbitmq-server")
        self.directory = Path(tempfile.mkdtemp(prefix="respite-broker-"))
        self.port = free_port()
        self.tls_port = free_port() if self.options.tls else 0
        self._node_port = free_port()
        self._epmd_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to the whole group of the tests must not reach it
        )
        try:
            self._write_files()
            self._write_home()
            self.start()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> RabbitMq:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens without TLS."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """The same as a URL of the vhost /, with the user guest, who has all rights."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """Its TLS listener, with the user guest."""
        return f"amqps://guest:guest@127.0.0.1:{self.tls_port}"

    @property
    def external_url(self) -> str:
        """Its TLS listener, without a user: the client certificate says who it is. `allow_external` comes first."""
        return f"amqps://127.0.0.1:{self.tls_port}"

    @property
    def is_running(self) -> bool:
        """Tell whether the process is there; a frozen one is."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it speaks AMQP. Raises: AssertionError with its last words when it dies."""
        assert not self.is_running
        if self._epmd is None:
            self._epmd = self._spawn(["epmd"], {})
        self.process = self._spawn([str(self._server)], self._node_environment())
        self._tell_guard(self._epmd, self.process)
        wait_for(self.is_answering, what="RabbitMQ answers", timeout_s=START_TIMEOUT_S)

    def is_answering(self) -> bool:
        """Tell whether it greets an AMQP client; a process that has already died is an error at once."""
        assert self.is_running, (self.directory / "out").read_text(errors="replace")[-3000:]
        try:
            with socket.create_connection(self.address, timeout=2.0) as client:
                client.sendall(b"AMQP\0\0\x09\x01")
                return client.recv(1) == b"\x01"  # a method frame: Connection.Start
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the process as a crash would; a second call does nothing. What was stored durably stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in an orderly way: it closes every connection with a reason, and keeps what is durable."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it and start it again on the same addresses."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop the process where it stands: sockets stay open, nothing is answered, the kernel still accepts."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # The signal stops one thread after the other; this returns when the last one stands.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def block(self) -> None:
        """Raise the memory alarm: whoever publishes from now on is told connection.blocked, and no longer read from.

        A connection that never publishes is not told: RabbitMQ stops reading at the first publish, before its body.
        """
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0)")

    def unblock(self) -> None:
        """Clear the memory alarm: connection.unblocked, and what was published meanwhile is read."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")

    def mend(self) -> None:
        """Undo whatever a test has left: what is durable stays, connections that still stand are closed."""
        if not self.is_running:
            self.start()
        self.thaw()
        self.unblock()
        self.close_connections()

    def add_user(self, name: str, password: str, *, vhost: str = "/", write: str = ".*") -> None:
        """Add a user with all rights (`write` takes what may be written to), or change the one that is there."""
        self.evaluate(
            f"rabbit_auth_backend_internal:put_user(#{{name => {_binary(name)}, password => {_binary(password)},"
            ' tags => []}, <<"tests">>)'
        )
        self._permit(name, vhost, write)

    def add_vhost(self, name: str) -> None:
        """Add a vhost in which guest has all rights."""
        self.evaluate(f'rabbit_vhost:add({_binary(name)}, <<"tests">>)')
        self._permit("guest", name)

    def allow_external(self) -> None:
        """Let the client certificate of the tests log in by EXTERNAL, as the user `CLIENT_NAME`; again does nothing."""
        self.add_user(CLIENT_NAME, "unused")

    def close_connections(self, reason: str = "closed by the test") -> None:
        """Close every client's connection with the error 320 CONNECTION_FORCED."""
        self.evaluate(
            f"[rabbit_networking:close_connection(One, {_binary(reason)}) || One <- rabbit_networking:connections()]"
        )

    def _permit(self, user: str, vhost: str, write: str = ".*") -> None:
        words = ", ".join(map(_binary, (user, vhost, ".*", write, ".*", "tests")))
        self.evaluate(f"rabbit_auth_backend_internal:set_permissions({words})")

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression in the node and return its result: milliseconds, where `ctl` takes a second.

        Raises: AssertionError when it fails.
        """
        caller = shutil.which("erl_call")
        if caller is None:
            return self.ctl("eval", f"{expression}.").strip()
        cookie = (self.directory / ".erlang.cookie").read_text(encoding="ascii")
        done = self._run(
            [caller, "-sname", NODE, "-c", cookie, "-timeout", str(CTL_TIMEOUT_S), "-e"], f"{expression}.\n"
        )
        found = re.fullmatch(r"\{ok, (.*)\}", done.strip(), re.DOTALL)
        assert found, f"{expression}: {done}"
        return found[1]

    def ctl(self, *words: str) -> str:
        """Run `rabbitmqctl`, about a second, and return what it prints. Raises: AssertionError with what it says."""
        return self._run([str(find_script("rabbitmqctl")), "--quiet", *words])

    def _run(self, command: list[str], given: str = "") -> str:
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self.directory,
            input=given,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=CTL_TIMEOUT_S,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def remove(self) -> None:
        """Kill it and delete its directory; a second call does nothing."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._tell_guard()
            self._epmd.wait()
            self._epmd = None
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        assert self._epmd is not None
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._tell_guard(self._epmd)
        self.process = None

    def _tell_guard(self, *running: subprocess.Popen[bytes]) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(" ".join(str(process.pid) for process in running).encode() + b"\n")
        self._guard.stdin.flush()

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.directory / "out").open("ab") as out:
            return subprocess.Popen(
                command,
                env=self._environment() | environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the tests
            )

    def _environment(self) -> dict[str, str]:
        """Return the environment of the node and its tools; nothing of RabbitMQ's comes from outside."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        files = self.directory
        return ours | {
            "HOME": str(files),  # the cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_CONF_ENV_FILE": str(files / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(files / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(files / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(files / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(files / "data"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(files / "feature-flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(files / "generated"),
            "RABBITMQ_PID_FILE": str(files / "pid"),
            "RABBITMQ_LOG_BASE": str(files / "log"),
            "RABBITMQ_LOGS": str(files / "log" / "broker.log"),
        }

    def _node_environment(self) -> dict[str, str]:
        """Return what only the node itself gets."""
        words = [
            *("+S", "1:1"),  # a small machine is shared with the tests
            *("-noinput", "-start_epmd", "false"),
            # Named from the beginning, so that RabbitMQ does not start a second machine only to start epmd.
            *("-sname", NODE, "-kernel", "inet_dist_use_interface", "{127,0,0,1}"),
            *("inet_dist_listen_min", str(self._node_port), "inet_dist_listen_max", str(self._node_port)),
        ]
        environment = {
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the Erlang machine, instead of waiting for it as a parent
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(words),
            # A node for a million processes reserves memory for a million.
            "RABBITMQ_MAX_NUMBER_OF_PROCESSES": "65536",
            "RABBITMQ_MAX_NUMBER_OF_ATOMS": "1048576",
        }
        home = self.directory / "home"
        if home.exists():
            environment |= {"RABBITMQ_SCRIPTS_DIR": str(home / "sbin"), "RABBITMQ_PLUGINS_DIR": str(home / "plugins")}
        return environment

    def _write_home(self) -> None:
        """Mirror RabbitMQ's directory with only those applications that this node runs.

        Erlang looks for each of a thousand modules in one directory after the other: 25 instead of 70 of them make a
        start three seconds shorter. Where RabbitMQ is laid out in another way, it is left as it is.
        """
        real = self._server.resolve().parent.parent
        paths = {path.name.split("-")[0]: path for path in (real / "plugins").glob("*-*") if path.is_dir()}
        wanted = needed_applications(
            {name: path / "ebin" / f"{name}.app" for name, path in paths.items()}, APPLICATIONS
        )
        if "rabbit" not in wanted or not (real / "sbin").is_dir():
            return
        home = self.directory / "home"
        (home / "plugins").mkdir(parents=True)
        for name in ("sbin", "escript"):
            (home / name).symlink_to(real / name)
        for name in wanted:
            (home / "plugins" / paths[name].name).symlink_to(paths[name])

    def _write_files(self) -> None:
        (self.directory / "env.conf").touch()
        (self.directory / "rabbitmq.conf").touch()
        plugins = "[rabbitmq_auth_mechanism_ssl]" if self.options.tls else "[]"
        (self.directory / "plugins").write_text(f"{plugins}.\n")
        rabbit = [
            f'{{tcp_listeners, [{{"127.0.0.1", {self.port}}}]}}',
            "{num_tcp_acceptors, 1}",
            "{num_ssl_acceptors, 1}",
            f"{{heartbeat, {self.options.heartbeat_s}}}",
            "{disk_free_limit, 1000000}",  # a full disk of a small machine is no alarm of the tests
        ]
        if self.options.tls:
            files = self.options.tls
            rabbit += [
                f'{{ssl_listeners, [{{"127.0.0.1", {self.tls_port}}}]}}',
                f'{{ssl_options, [{{cacertfile, "{files.ca}"}}, {{certfile, "{files.cert}"}},'
                f' {{keyfile, "{files.key}"}}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, false}}]}}',
                "{auth_mechanisms, ['PLAIN', 'AMQPLAIN', 'EXTERNAL']}",
                "{ssl_cert_login_from, common_name}",
            ]
        (self.directory / "advanced.config").write_text(f"[{{rabbit, [{', '.join(rabbit)}]}}].\n")
