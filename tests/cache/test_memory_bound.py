"""The bound of L1 is one of memory: measured as what the process grows by, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MAX_BYTES = 32 << 20
OVERHEAD_MAX = 350
SMALL_MAX = 300
"""One per cent of the growth is 4 bytes an entry of 10 bytes, and 15 of one of 1 KiB."""
BOUND_TOLERANCE = 0.05

SCRIPT = """
import gc, json, os, sys
from proxy.cache.entry import Scope
from proxy.cache.l1 import L1
from proxy.wire.encode import bulk

size, max_bytes = int(sys.argv[1]), int(sys.argv[2])

def resident():
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

l1 = L1(max_bytes)
namespace = l1.namespace(Scope(b"", 0, 2))
before = resident()
number = 0
figures = []
for evictions in (1, int(sys.argv[3])):
    while l1.evictions < evictions:
        number += 1
        l1.put(namespace, bulk(b"key:%08d" % number), bulk(b"x" * size), 1e6 + number, float(number))
    payload = sum(len(entry.key) + len(entry.reply) for entry in namespace.resident.values())
    grown = resident() - before
    figures.append({"share": grown / max_bytes, "overhead": (grown - payload) / len(l1)})
print(json.dumps(figures))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize("size", [10, pytest.param(100, marks=pytest.mark.long), 1024])
def test_bound_of_a_full_l1_is_kept_by_the_process(size: int) -> None:
    """When L1 has just become full, and after as many evictions again, the process has grown by `max_bytes`."""
    entries = MAX_BYTES // (size + 380)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(size), str(MAX_BYTES), str(2 * entries)],
        check=True,
        capture_output=True,
        text=True,
    )
    figures = json.loads(done.stdout)

    assert [round(each["share"], 3) for each in figures] == pytest.approx([1.0, 1.0], abs=BOUND_TOLERANCE)
    if size <= SMALL_MAX:
        assert max(each["overhead"] for each in figures) <= OVERHEAD_MAX
