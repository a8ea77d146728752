"""The figures of bench/: ratios are taken inside a round, the load is what it claims to be, the relay only delays."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from bench._cases import Case, Figures, Sample, filtered, goal_rows, planned_cases
from bench._lib import (
    BenchError,
    Spread,
    ZipfKeys,
    markdown_table,
    paired_ratios,
    quantile,
    rotated,
    spread,
    verdict,
)
from bench._load import Clients, Job, Workload, draw_operations, key_name
from bench._servers import Rig, Server
from bench.relay import MAX_HELD_BYTES, Relay, measure_rtt_s

DELAY_MS = 2.0


def sample(number: int, target: str, rps: float, case: Case) -> Sample:
    """Make a sample that differs in what the ratios look at."""
    return Sample(number, target, case, 1000, rps, p50_ms=1.0, p99_ms=2.0, proxy_cpu_us=None, redis_cpu_us=1.0)


def test_spread_of_rounds_is_median_lowest_and_highest() -> None:
    """One outlier widens the spread and leaves the median alone."""
    assert Spread(3.0, 1.0, 100.0) == spread([100.0, 2.0, 3.0, 4.0, 1.0])
    assert Spread(2.5, 1.0, 4.0) == spread([1.0, 2.0, 3.0, 4.0])
    assert "3.00 (1.00..100.00)" == spread([100.0, 3.0, 1.0]).text()


def test_spread_of_nothing_is_an_error() -> None:
    """No rounds is no figure."""
    with pytest.raises(BenchError, match="no rounds"):
        spread([])


def test_quantile_between_two_values_is_interpolated() -> None:
    """The ends are the extremes; between two values it moves in proportion."""
    values = [40.0, 10.0, 20.0, 30.0]

    assert [10.0, 40.0, 25.0] == [quantile(values, share) for share in (0.0, 1.0, 0.5)]
    assert 39.7 == pytest.approx(quantile(values, 0.99))


def test_ratios_are_taken_inside_a_round() -> None:
    """A machine that is twice as fast in one round changes no ratio; medians over all rounds would differ."""
    subject = {1: 50.0, 2: 100.0, 3: 10.0}
    base = {1: 100.0, 2: 200.0, 3: 20.0}

    assert [0.5, 0.5, 0.5] == paired_ratios(subject, base)


def test_ratios_leave_out_rounds_that_one_side_lacks() -> None:
    """Only a round that has both sides gives a ratio."""
    assert [2.0] == paired_ratios({1: 4.0, 2: 8.0}, {2: 4.0, 3: 1.0})


def test_ratios_without_a_common_round_or_with_a_zero_base_are_errors() -> None:
    """Nothing is divided by nothing."""
    with pytest.raises(BenchError, match="no round in common"):
        paired_ratios({1: 1.0}, {2: 1.0})
    with pytest.raises(BenchError, match="zero"):
        paired_ratios({1: 1.0}, {1: 0.0})


def test_rotation_gives_every_target_every_place() -> None:
    """After as many rounds as targets each has been first once."""
    targets = ["a", "b", "c"]

    assert [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]] == [
        rotated(targets, n) for n in range(4)
    ]


@pytest.mark.parametrize(
    ("measured", "floor", "goal", "less_is_better", "expected"),
    [
        (1.1, 0.9, 1.1, None, "goal"),
        (0.9, 0.9, 1.1, None, "floor"),
        (0.89, 0.9, 1.1, None, "MISSED"),
        (0.3, 0.6, 0.3, None, "goal"),
        (0.6, 0.6, 0.3, None, "floor"),
        (0.61, 0.6, 0.3, None, "MISSED"),
        (4.9, 5.0, None, True, "floor"),
        (5.1, 5.0, None, True, "MISSED"),
    ],
)
def test_verdict_follows_the_direction_of_the_goal(
    measured: float, floor: float, goal: float | None, less_is_better: bool | None, expected: str
) -> None:
    """Throughput must not be below its floor, latency and memory not above theirs; the limit itself still counts."""
    assert expected == verdict(measured, floor, goal, less_is_better=less_is_better)


def test_goal_rows_judge_the_median_of_ratios() -> None:
    """The fast round of one side is compared with the fast round of the other."""
    case = Case("GET", "hot", 1, 100)
    rates = {"l1-hit": (90.0, 200.0, 50.0), "direct": (100.0, 100.0, 50.0)}
    samples = [sample(n, target, rps, case) for target, each in rates.items() for n, rps in enumerate(each)]

    rows = goal_rows(Figures(samples))

    assert [("L1-hit GET / direct P=1", "floor")] == [(row["measure"], row["verdict"]) for row in rows]
    assert {"median": 1.0, "low": 0.9, "high": 2.0} == rows[0]["ratio"]


def test_only_narrows_by_kind_and_refuses_other_words() -> None:
    """Two targets and one command leave the cases of that command with those targets."""
    kept = filtered(planned_cases([100, 10_240]), ["get", "p16", "100", "l1-hit", "direct"])

    assert [("GET hot P=16", ("direct", "l1-hit")), ("GET wide P=16", ("direct",))] == [
        (case.label, targets) for case, targets in kept
    ]
    with pytest.raises(BenchError, match="does not know hits; it knows direct"):
        filtered(planned_cases([100]), ["hits"])


def test_table_columns_line_up() -> None:
    """Every line is as long as the longest cell of each column asks for."""
    lines = markdown_table(["a", "long header"], [["much longer", "b"]]).splitlines()

    assert ["| a           | long header |", "| ----------- | ----------- |", "| much longer | b           |"] == lines


def test_zipf_draws_each_key_in_proportion_to_its_rank() -> None:
    """Among 1,000 keys at 0.99 the first ranks are drawn as often as the formula says, and nothing outside them."""
    count, theta, draws = 1000, 0.99, 200_000
    total = sum((rank + 1) ** -theta for rank in range(count))

    drawn = ZipfKeys(count, theta, seed=1).take(draws)

    assert set(drawn) <= set(range(count))
    for rank in (0, 1, 9, 99):
        expected = (rank + 1) ** -theta / total * draws
        # Five standard deviations of a count.
        assert expected == pytest.approx(drawn.count(rank), abs=5 * expected**0.5)


def test_zipf_repeats_itself_for_a_seed_only() -> None:
    """Both sides of a round see the same keys, another client sees others."""
    assert ZipfKeys(1000, 0.99, 3).take(50) == ZipfKeys(1000, 0.99, 3).take(50)
    assert ZipfKeys(1000, 0.99, 3).take(50) != ZipfKeys(1000, 0.99, 4).take(50)


def test_workload_sizes_are_log_normal_around_a_kibibyte() -> None:
    """The median is 1 KiB, half lies within 0.54 sigma of it, and every run has the same sizes."""
    workload = Workload(key_count=20_000, theta=0.99, read_share=0.9)
    sizes = workload.sizes()

    assert sizes == workload.sizes()
    assert [600, 1024, 1757] == pytest.approx([quantile(sizes, share) for share in (0.25, 0.5, 0.75)], rel=0.05)


def test_operations_read_and_write_every_key_in_the_same_shares() -> None:
    """Hot keys are written like cold ones, else nothing that is read would ever be invalidated."""
    workload = Workload(key_count=1000, theta=0.99, read_share=0.9)
    operations = draw_operations(workload, workload.sizes(), seed=1001)
    hot = {key_name(number) for number in range(10)}

    for is_hot in (True, False):
        chosen = [is_read for key, _, is_read in operations if (key in hot) is is_hot]
        assert sum(chosen) / len(chosen) == pytest.approx(0.9, abs=0.02)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Give a rig whose processes end with the test."""
    with Rig() as rig:
        yield rig


@pytest.fixture
def redis(rig: Rig) -> Server:
    """Start a Redis."""
    return rig.redis("redis")


@pytest.fixture
def relay(rig: Rig, redis: Server) -> Server:
    """Start a relay in front of it."""
    return rig.relay(redis, DELAY_MS)


def connect(server: Server) -> socket.socket:
    """Open a plain connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def receive(connection: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes, or what came before the end."""
    received = bytearray()
    while len(received) < size and (data := connection.recv(65536)):
        received += data
    return bytes(received)


def test_relay_holds_back_both_ways(redis: Server, relay: Server) -> None:
    """A PING takes twice the delay longer, and not many times that."""
    direct = quantile(measure_rtt_s(redis.port, 50), 0.5) * 1000
    relayed = quantile(measure_rtt_s(relay.port, 50), 0.5) * 1000

    assert 2 * DELAY_MS <= relayed
    assert relayed <= direct + 4 * DELAY_MS


def test_relay_delays_a_pipeline_once_and_keeps_its_order(relay: Server) -> None:
    """Many commands under way at once are late together, not one after the other."""
    count = 500
    with connect(relay) as connection:
        start = time.monotonic()
        for number in range(count):
            word = b"%06d" % number
            connection.sendall(b"*2\r\n$4\r\nECHO\r\n$6\r\n%s\r\n" % word)
        answer = receive(connection, count * 12)
        took_s = time.monotonic() - start

    assert b"".join(b"$6\r\n%06d\r\n" % number for number in range(count)) == answer
    assert took_s < count * DELAY_MS / 1000


def test_relay_passes_on_values_above_what_it_may_hold(relay: Server) -> None:
    """Reading pauses and goes on: nothing is lost or doubled either way."""
    value = bytes(range(256)) * (2 * MAX_HELD_BYTES // 256)
    with relay.client() as client:
        client.set("big", value)

        assert value == client.get("big")


def test_relay_reads_no_further_than_it_may_hold() -> None:
    """A receiver that does not read stops the sender; once it reads, every byte arrives."""
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        ExitStack() as stack,
    ):
        listener.setblocking(False)
        relay = Relay(listener, target.getsockname(), delay_s=0.0)
        stack.callback(relay.close)
        relay.step(1.0)
        receiver, _ = target.accept()
        with receiver:
            client.setblocking(False)
            receiver.setblocking(False)
            sent, refused = 0, 0
            # Refused often in a row, with a step of the relay after each: the relay has stopped reading.
            while refused < 100 and sent < 8 * MAX_HELD_BYTES:
                try:
                    sent += client.send(bytes(1 << 20))
                    refused = 0
                except BlockingIOError:
                    refused += 1
                relay.step(0.001)
            received = 0
            deadline = time.monotonic() + 20
            while received < sent and time.monotonic() < deadline:
                relay.step(0.001)
                with suppress(BlockingIOError):
                    received += len(receiver.recv(1 << 20))

    # What the kernel buffers of the four sockets comes on top.
    assert MAX_HELD_BYTES < sent < 4 * MAX_HELD_BYTES
    assert received == sent


def test_relay_passes_the_end_on_after_the_last_reply(relay: Server) -> None:
    """A client that shuts its sending side still gets what it had asked for, then the end."""
    with connect(relay) as connection:
        connection.sendall(b"*1\r\n$4\r\nPING\r\n")
        connection.shutdown(socket.SHUT_WR)

        assert b"+PONG\r\n" == receive(connection, 100)


def test_relay_closes_towards_redis_when_the_client_leaves(redis: Server, relay: Server) -> None:
    """No connection of a client that is gone stays open on Redis."""
    connections = [connect(relay) for _ in range(100)]
    with redis.client() as client:
        for connection in connections:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            receive(connection, 7)
        seen = client.info("clients")["connected_clients"]
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + 5
        while client.info("clients")["connected_clients"] > 1 and time.monotonic() < deadline:
            pass

        assert 101 == seen
        assert 1 == client.info("clients")["connected_clients"]


def test_relay_closes_the_client_when_redis_is_gone(redis: Server, relay: Server) -> None:
    """A client is not left waiting for a server that has ended."""
    with connect(relay) as open_before:
        open_before.sendall(b"*1\r\n$4\r\nPING\r\n")
        receive(open_before, 7)
        redis.process.kill()
        redis.process.wait()

        assert b"" == open_before.recv(10)
        with connect(relay) as opened_after:
            assert b"" == opened_after.recv(10)


def test_rig_ends_what_it_started() -> None:
    """After leaving, even by an error, no process and no file is left."""
    started: list[Server] = []

    def fail_in_a_rig() -> None:
        with Rig() as rig:
            started.append(rig.redis("redis"))
            started.append(rig.relay(started[0], DELAY_MS))
            raise BenchError("on purpose")

    with pytest.raises(BenchError, match="on purpose"):
        fail_in_a_rig()

    assert [server.process.poll() is None for server in started] == [False, False]
    assert not started[0].log.parent.exists()


# Newer Pythons warn of a fork beside threads; those are of earlier tests, and the children use none of them.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@forks
def test_clients_report_what_they_did_and_what_they_missed(redis: Server) -> None:
    """Reads and writes come in the asked shares; a read that finds nothing is counted."""
    workload = Workload(key_count=100, theta=0.99, read_share=0.5)
    with redis.client() as client:
        client.mset({key_name(number): b"x" for number in range(100)})
        with Clients(workload, processes=2, threads=2) as clients:
            reports = []
            for _ in range(2):
                now = time.monotonic() + 0.1
                clients.begin(Job(redis.port, now, now, now + 0.4, seed=1, interval_s=0.0))
                reports.append(clients.collect())
                client.flushall()

    reads, writes = (sum(len(getattr(each, name)) for each in reports[0]) for name in ("read_s", "write_s"))
    assert 0.5 == pytest.approx(reads / (reads + writes), abs=0.1)
    assert 0 == sum(each.missing for each in reports[0])
    assert 0 < sum(each.missing for each in reports[1])


@forks
def test_clients_that_cannot_connect_fail_the_run(redis: Server) -> None:
    """A side that is down is an error, never a run with fewer requests."""
    redis.process.kill()
    redis.process.wait()
    with Clients(Workload(100, 0.99, 0.5), processes=1, threads=1) as clients:
        now = time.monotonic()
        clients.begin(Job(redis.port, now, now, now + 0.2, seed=1, interval_s=0.0))

        with pytest.raises(BenchError, match="a client failed: ConnectionError"):
            clients.collect()
