"""The load of the realistic run: real redis-py clients in processes of their own, told what to run through pipes.

    parent --Job--> each process: T threads, a redis-py client each --Report--> parent

The processes are forked once, before anything else runs, so that no round pays for importing redis-py twenty times.
CLOCK_MONOTONIC is one clock for the whole machine: all clients start and stop on the same instants without a word.
"""

import math
import multiprocessing
import random
import signal
import threading
import time
from array import array
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

import attrs
import redis

from bench._lib import BenchError, ZipfKeys

# Operations are drawn before the clock starts and gone through in a circle.
DRAWN_OPERATIONS = 20_000
MIN_VALUE_BYTES, MAX_VALUE_BYTES = 32, 65_536
ANSWER_TIMEOUT_S = 30.0


@attrs.frozen
class Workload:
    """What is read and written."""

    key_count: int
    theta: float
    read_share: float
    mean_log_bytes: float = math.log(1024)
    sigma_log_bytes: float = 0.8

    def sizes(self) -> list[int]:
        """Return the size of each key's value: log-normal, the same in every process and run."""
        draw = random.Random(7)
        logs = (draw.gauss(self.mean_log_bytes, self.sigma_log_bytes) for _ in range(self.key_count))
        return [min(MAX_VALUE_BYTES, max(MIN_VALUE_BYTES, round(math.exp(each)))) for each in logs]


def key_name(number: int) -> str:
    """Name a key as an app would."""
    return f"ticket:{number}"


def draw_operations(workload: Workload, sizes: Sequence[int], seed: int) -> list[tuple[str, int, bool]]:
    """Draw (key, bytes of its value, is it read) for one client; every key is read and written in the same shares."""
    numbers = ZipfKeys(workload.key_count, workload.theta, seed).take(DRAWN_OPERATIONS)
    # A stream of its own: from the stream that the keys came from, all writes would go to the coldest keys.
    draw = random.Random(f"reads {seed}")
    return [(key_name(number), sizes[number], draw.random() < workload.read_share) for number in numbers]


@attrs.frozen
class Job:
    """One run, the same for every client; times are on CLOCK_MONOTONIC."""

    port: int
    start_at: float
    measure_from: float
    end_at: float
    seed: int
    interval_s: float
    """Mean time from one call to the next of a client; 0: as fast as it can."""


@attrs.frozen
class Report:
    """What the clients of one process saw within the measured time."""

    read_s: "array[float]"
    write_s: "array[float]"
    cpu_s: float
    missing: int
    """Reads that found no value: 0, or the run is not what it claims to be."""
    error: str = ""


class Clients:
    """Owns the load processes; enter it before any thread is started, leave it to end them."""

    def __init__(self, workload: Workload, *, processes: int, threads: int) -> None:
        self.count = processes * threads
        self._links: list[tuple[BaseProcess, Connection]] = []
        context = multiprocessing.get_context("fork")
        sizes = workload.sizes()
        for index in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, workload, sizes, index, threads)
            self._links.append((context.Process(target=_serve, args=arguments, daemon=True), ours))

    def __enter__(self) -> Self:
        for process, _ in self._links:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, _ in self._links:
            if process.pid is not None:
                process.terminate()
        for process, link in self._links:
            if process.pid is not None:
                process.join()
            link.close()

    def begin(self, job: Job) -> None:
        """Hand the job to every process; they run it by themselves."""
        for _, link in self._links:
            link.send(job)

    def collect(self) -> list[Report]:
        """Wait for every process's report. Raises BenchError if one failed, ended, or has not answered in time."""
        reports = []
        for _, link in self._links:
            if not link.poll(ANSWER_TIMEOUT_S):
                raise BenchError("a load process does not answer")
            report: Report = link.recv()
            if report.error:
                raise BenchError(f"a client failed: {report.error}")
            reports.append(report)
        return reports


def _serve(link: Connection, workload: Workload, sizes: Sequence[int], index: int, threads: int) -> None:
    """Run jobs until the parent ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    payload = random.Random(index).randbytes(MAX_VALUE_BYTES)
    while True:
        try:
            job: Job = link.recv()
        except EOFError:
            return
        link.send(_run(job, workload, sizes, payload, [index * threads + each for each in range(threads)]))


def _run(job: Job, workload: Workload, sizes: Sequence[int], payload: bytes, clients: Sequence[int]) -> Report:
    reports: list[Report] = []
    workers = [
        threading.Thread(target=lambda who=who: reports.append(_client(job, workload, sizes, payload, who)))
        for who in clients
    ]
    for worker in workers:
        worker.start()
    time.sleep(max(0.0, job.measure_from - time.monotonic()))
    cpu_s = time.process_time()
    time.sleep(max(0.0, job.end_at - time.monotonic()))
    cpu_s = time.process_time() - cpu_s
    for worker in workers:
        worker.join()
    merged = Report(array("d"), array("d"), cpu_s, sum(each.missing for each in reports))
    for each in reports:
        merged.read_s.extend(each.read_s)
        merged.write_s.extend(each.write_s)
    return attrs.evolve(merged, error=next((each.error for each in reports if each.error), ""))


def _client(job: Job, workload: Workload, sizes: Sequence[int], payload: bytes, who: int) -> Report:
    """Be one client of an app: one connection, one call after the other."""
    seed = job.seed * 1000 + who
    operations = draw_operations(workload, sizes, seed)
    draw = random.Random(f"pace {seed}")
    report = Report(array("d"), array("d"), 0.0, 0)
    missing = 0
    try:
        with redis.Redis(host="127.0.0.1", port=job.port, socket_timeout=10, single_connection_client=True) as client:
            client.ping()
            next_at = job.start_at + draw.random() * job.interval_s
            turn = 0
            while next_at < job.end_at:
                wait_s = next_at - time.monotonic()
                if wait_s > 0:
                    time.sleep(wait_s)
                key, size_bytes, is_read = operations[turn % DRAWN_OPERATIONS]
                turn += 1
                start = time.monotonic()
                if is_read:
                    missing += client.get(key) is None
                else:
                    client.set(key, payload[:size_bytes])
                end = time.monotonic()
                if start >= job.measure_from and end < job.end_at:
                    (report.read_s if is_read else report.write_s).append(end - start)
                # A late client does not catch up in a burst; jitter keeps the clients from marching in step.
                next_at = max(end, next_at + job.interval_s * (0.5 + draw.random()))
    except (redis.RedisError, OSError) as error:
        return attrs.evolve(report, error=f"{type(error).__name__}: {error}")
    return attrs.evolve(report, missing=missing)
