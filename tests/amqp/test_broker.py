"""The broker of the tests is a real one, does what its name says, and leaves nothing behind."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from ..e2e.servers import TlsFiles, wait_for
from .broker import CLIENT_NAME, RabbitMq, needed_applications
from .conftest import Names
from .plain_client import ClosedByBrokerError, PlainClient

ROOT = Path(__file__).parents[2]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead but not reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Trust the authority of the tests and show the client's certificate."""
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.client_cert, files.client_key)
    return context


def test_broker_routes_a_message(rabbitmq: RabbitMq, names: Names) -> None:
    """What is published to a topic exchange is in the queue bound to it, with its properties."""
    with PlainClient(rabbitmq.address) as client:
        client.declare_exchange(names.exchange)
        client.declare_queue(names.queue)
        client.bind(names.queue, names.exchange, "product.#")

        client.publish(names.exchange, "product.price.changed", b'{"keys": []}', headers={"n": 1})
        got = client.get(names.queue)

        assert got is not None
        assert (b'{"keys": []}', {"n": 1}) == (got[0], got[1].headers)
        assert client.get(names.queue) is None


def test_broker_carries_a_message_of_many_frames(rabbitmq: RabbitMq, names: Names) -> None:
    """A body larger than a frame comes back whole."""
    payload = os.urandom(700_000)
    with PlainClient(rabbitmq.address) as client:
        client.declare_queue(names.queue)
        client.publish("", names.queue, payload)
        got = client.get(names.queue)

    assert got is not None
    assert payload == got[0]


def test_broker_refuses_a_wrong_password(rabbitmq: RabbitMq) -> None:
    """A wrong password is answered with 403, as in production."""
    with pytest.raises(ClosedByBrokerError, match="403 ACCESS_REFUSED"):
        PlainClient(rabbitmq.address, user=("guest", "wrong"))


def test_broker_over_tls_greets(rabbitmq: RabbitMq, broker_tls: TlsFiles) -> None:
    """The TLS listener shows a certificate that the authority of the tests vouches for."""
    context = ssl.create_default_context(cafile=broker_tls.ca)
    with PlainClient(("127.0.0.1", rabbitmq.tls_port), context=context) as client:
        assert "RabbitMQ" == client.server["product"]


def test_broker_external_logs_in_by_certificate(rabbitmq: RabbitMq, broker_tls: TlsFiles) -> None:
    """With a client certificate no password is needed: its common name is the user."""
    rabbitmq.allow_external()
    with PlainClient(("127.0.0.1", rabbitmq.tls_port), user=None, context=client_context(broker_tls)):
        assert CLIENT_NAME in rabbitmq.ctl("list_connections", "user").split()


def test_broker_user_and_vhost_can_be_added(rabbitmq: RabbitMq, names: Names) -> None:
    """A user of one vhost gets into that and into no other."""
    rabbitmq.add_vhost(names.exchange)
    rabbitmq.add_user(names.queue, "secret", vhost=names.exchange)

    with PlainClient(rabbitmq.address, user=(names.queue, "secret"), vhost=names.exchange):
        pass
    with pytest.raises(ClosedByBrokerError, match="530 NOT_ALLOWED"):
        PlainClient(rabbitmq.address, user=(names.queue, "secret"))


def test_broker_life(rabbitmq_own: RabbitMq, names: Names) -> None:
    """Frozen it is silent, blocked it says so, killed and started it has what was durable: one test for one start."""
    broker = rabbitmq_own
    with PlainClient(broker.address, timeout_s=0.5) as client:
        client.declare_queue(names.queue)
        broker.freeze()
        with pytest.raises(TimeoutError):
            client.declare_queue(names.queue, passive=True)
        broker.thaw()

    with PlainClient(broker.address) as publisher, PlainClient(broker.address) as reader:

        def has(count: int) -> bool:
            return reader.declare_queue(names.queue, passive=True)[0] == count

        broker.block()
        publisher.publish_nowait("", names.queue, b"waits at the door")
        publisher.wait_blocked(expected=True)
        publisher.publish_nowait("", names.queue, b"behind it")
        with pytest.raises(AssertionError, match="not within"):
            wait_for(lambda: not has(0), what="a message in the queue", timeout_s=0.3)
        broker.unblock()
        publisher.wait_blocked(expected=False)
        publisher.wait_confirmed()
        assert has(2)

        broker.kill()
        with pytest.raises(OSError):  # noqa: PT011 - reset or closed, as it comes
            publisher.publish("", names.queue, b"nobody is there")

    broker.start()
    with PlainClient(broker.address) as client:
        assert (2, 0) == client.declare_queue(names.queue, passive=True)
        client.delete_queue(names.queue)
        broker.close_connections()
        with pytest.raises((ClosedByBrokerError, ConnectionResetError)):
            client.declare_queue(names.queue)

    with PlainClient(broker.address) as client:
        broker.stop()
        assert not broker.is_running
        with pytest.raises((ClosedByBrokerError, OSError)):
            client.declare_queue(names.queue)


def test_broker_dies_with_the_tests_that_started_it() -> None:
    """A test run that is killed leaves no broker, no epmd and no directory behind."""
    script = (
        "import sys\n"
        "from tests.amqp.broker import RabbitMq\n"
        "RabbitMq.is_answering = lambda self: True\n"  # killed in the middle of a start
        "broker = RabbitMq()\n"
        "print(broker.directory, broker.process.pid, broker._epmd.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        directory, *numbers = tests.stdout.readline().split()
        pids = [int(number) for number in numbers]
        assert [True, True] == [is_alive(pid) for pid in pids]
        tests.kill()

    wait_for(lambda: not any(is_alive(pid) for pid in pids), what="both processes are dead")
    wait_for(lambda: not Path(directory).exists(), what="the directory is gone")


def test_needed_applications_follow_what_the_files_say(tmp_path: Path) -> None:
    """An application comes with those it names, and those they name; what lies elsewhere is left out."""
    said = {"rabbit": "kernel, ra", "ra": "aten", "aten": "", "management": "rabbit"}
    files = {name: tmp_path / f"{name}.app" for name in said}
    for name, others in said.items():
        files[name].write_text(f"{{application, {name}, [{{applications, [{others}]}}]}}.")

    assert {"rabbit", "ra", "aten"} == needed_applications(files, ["rabbit"])
