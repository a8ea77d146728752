"""Where does Respite spend its time? Run as `python -m bench.profile`.

One case of redis-benchmark against Respite, watched by py-spy where that is installed (a flame graph, hardly any
slowdown), else run under cProfile (a table of functions; Python calls cost several times what they do alone, so read
the counts and the order, not the microseconds).
"""

import argparse
import pstats
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench._cases import HOT_KEYS, Case
from bench._lib import RESULTS, BenchError, find_program, need_programs, run_main, say
from bench._servers import Rig, Server, end
from bench.compare import MISS_L1, fill, redis_benchmark

MODES = ("pass-through", "l1-hit", "l1-miss")
SHOWN_FUNCTIONS = 45
WARM_REQUESTS = 20_000


def start_respite(rig: Rig, options: argparse.Namespace, case: Case, dump: Path | None) -> Server:
    """Start a filled Redis and a Respite before it, under cProfile if `dump` says where its figures go."""
    redis = rig.redis("redis")
    fill(redis, case.key_count, case.size_bytes)
    l1 = MISS_L1 if options.mode == "l1-miss" else {"max_bytes": "256MiB"}
    rollout = "off" if options.mode == "pass-through" else "on"
    flags = ["-m", "cProfile", "-o", str(dump)] if dump else []
    return rig.respite("respite", redis, rollout=rollout, l1=l1, interpreter_flags=flags)


def with_py_spy(program: str, respite: Server, case: Case, requests: int, path: Path) -> Path:
    """Record a flame graph of the run."""
    picture = path.with_suffix(".svg")
    command = [program, "record", "--pid", str(respite.process.pid), "--rate", "500"]
    watcher = subprocess.Popen([*command, "--output", str(picture), "--duration", "3600"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1.0)  # py-spy has no other way to say that it has begun than to be given a moment
        if watcher.poll() is not None:
            raise BenchError("py-spy could not attach; it may need root")
        print(redis_benchmark(respite.port, case, requests))
    finally:
        # py-spy writes its picture on SIGINT only.
        watcher.send_signal(signal.SIGINT)
        try:
            watcher.wait(30)
        except subprocess.TimeoutExpired:
            end(watcher)
    return picture


def with_c_profile(respite: Server, case: Case, requests: int, dump: Path) -> None:
    """Run the case, let Respite end in good order so that it writes its figures, print the dearest functions."""
    print(redis_benchmark(respite.port, case, requests))
    respite.process.terminate()
    try:
        respite.process.wait(30)
    except subprocess.TimeoutExpired:
        raise BenchError("Respite did not end, so there is no profile") from None
    if not dump.exists():
        raise BenchError("Respite ended without writing its profile")
    stats = pstats.Stats(str(dump), stream=sys.stdout)
    stats.strip_dirs().sort_stats("tottime").print_stats(SHOWN_FUNCTIONS)


def main() -> None:
    """Profile one case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mode", choices=MODES, default="l1-hit")
    parser.add_argument("--command", choices=("GET", "SET"), default="GET")
    parser.add_argument("--pipeline", type=int, default=16)
    parser.add_argument("--size", type=int, choices=sorted(HOT_KEYS), default=100, help="bytes of a value")
    parser.add_argument("--requests", type=int, default=400_000)
    parser.add_argument("--tool", choices=("auto", "py-spy", "cprofile"), default="auto")
    options = parser.parse_args()
    need_programs(["redis-server", "redis-benchmark"])
    case = Case(options.command, "wide" if options.mode == "l1-miss" else "hot", options.pipeline, options.size)
    py_spy = None if options.tool == "cprofile" else find_program("py-spy")
    if options.tool == "py-spy" and py_spy is None:
        raise BenchError("py-spy is not installed: pip install py-spy")
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"profile-{options.mode}-{options.command.lower()}-p{options.pipeline}-{time.strftime('%H%M%S')}"
    dump = None if py_spy else path.with_suffix(".pstats")
    with Rig() as rig:
        respite = start_respite(rig, options, case, dump)
        redis_benchmark(respite.port, case, WARM_REQUESTS)
        if py_spy:
            say(f"flame graph: {with_py_spy(py_spy, respite, case, options.requests, path)}")
        elif dump:
            with_c_profile(respite, case, options.requests, dump)
            say(f"for snakeviz and the like: {dump}")


if __name__ == "__main__":
    run_main(main)
