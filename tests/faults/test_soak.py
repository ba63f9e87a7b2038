"""Run after run in one process: nothing grows."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.started import PATIENCE_S
from tests.selftest.running import ROOT, TINY, last_json

# What grows in the first runs: imports, caches of a fixed size.
FIRST = 3
MINUTES = 20
MOST_GROWTH = 1.10  # of memory, over all runs after those


def held(folder: Path) -> dict[str, int]:
    """What this process has at this moment, but for what nobody has any more."""
    gc.collect()
    with open("/proc/self/status") as status:
        memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    tasks = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(tasks),
        "shared memory": len([one for one in os.listdir("/dev/shm") if "harness" in one]),
        "temporary files": len(list((folder / "tmp").glob("npu-accept-*"))),
        "store": sum(one.stat().st_size for one in (folder / "store").rglob("*") if one.is_file()),
        "memory": memory,
    }


def main(folder: Path, minutes: int) -> None:
    """Run the small network's cases again and again; print what is held after each."""
    from harness import Run, resolve

    found: list[dict[str, int]] = []
    limit = time.monotonic() + 60 * minutes
    while len(found) <= FIRST or time.monotonic() < limit:
        options = {
            "simulate_ascend": True,
            "catalog": str(TINY),
            "batch_sizes": "4",
            "budget": "0.1",
            "timing_precision": "100",
            "allow_inconclusive": True,
            **{name: str(folder / name) for name in ("store", "runs", "leases")},
        }
        settings = resolve(options, {})
        records = Run(settings).execute()
        assert records.exit_status == 0
        found.append(held(folder))
    print(json.dumps(found))


@pytest.mark.fault(
    f"run after run in one process, for {MINUTES} minutes in the whole",
    sees="nothing",
    keeps="descriptors, processes, shared memory, temporary files, memory and store do not grow",
)
def test_nothing_grows(place, request, record_property):
    minutes = MINUTES if request.config.getoption("faults") == "whole" else 0
    (place.folder / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, str(place.folder), str(minutes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place.folder / "tmp")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * FIRST + 120 * minutes,
    )
    assert done.returncode == 0, done.stderr
    found = last_json(done.stdout)
    record_property("tries", len(found))
    first, last = found[FIRST - 1], found[-1]
    assert last.pop("memory") < MOST_GROWTH * first.pop("memory")
    assert last == first


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
