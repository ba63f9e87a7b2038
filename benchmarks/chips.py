"""The whole matrix on one simulated chip and on eight: how much sooner eight are done.

Five small networks stand for the guides' five, at their six batch sizes. A simulated host of four
cards with two chips each takes `--ms` for an execution, whatever the batch size. That is long on
purpose: what the host does for an execution (it feeds and computes) has to fit
eight times into two cores. `--ms=3000` takes half an hour and next to no processor.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.environment import ROOT
from harness.records import reader
from harness.records.lines import CaseLine
from harness.records.observed import HeldLease

NETWORKS = ("seresnext101", "fixres", "resnest50", "squeezenet1_1", "inceptionv4")
BATCH_SIZES = "1,4,8,16,32,64"
GOAL = 7.0


def held_twice(cases: Sequence[CaseLine]) -> list[str]:
    """Return a line for each device that two held at once, of whom one held it alone."""
    held: dict[str, list[tuple[HeldLease, str]]] = {}
    for case in cases:
        for lease in case.leases:
            for device in lease.devices:
                held.setdefault(device, []).append((lease, f"{case.check} {case.case}"))
    return [
        f"{device}: {one} and {other}"
        for device, leases in held.items()
        for (a, one), (b, other) in itertools.combinations(leases, 2)
        if (a.alone or b.alone) and a.since < b.until and b.since < a.until
    ]


def write_catalog(folder: Path, names: Sequence[str]) -> Path:
    """Write a catalog of several small networks; return its path."""
    text = (ROOT / "tests" / "selftest" / "tiny.yaml").read_text(encoding="utf-8")
    head, block = text.split("models:\n")
    blocks = (block.replace("  tiny:\n", f"  {name}:\n", 1) for name in names)
    path = folder / "matrix.yaml"
    path.write_text(head + "models:\n" + "".join(blocks), encoding="utf-8")
    return path


def _run(work: Path, ms: float, *arguments: str) -> tuple[float, tuple[CaseLine, ...]]:
    """Run pytest; return its seconds by the wall, and its cases."""
    began = time.monotonic()
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--simulate-ascend"),
        *(f"--simulator=chips_per_card=2,cards=4,time=spin:{ms:g}", "--rehearsal-images=64"),
        *(f"--catalog={work / 'matrix.yaml'}", f"--batch-sizes={BATCH_SIZES}", "--budget=0.1"),
        *("--timing-precision=100", f"--store={work / 'store'}", f"--runs={work / 'runs'}"),
        *arguments,
    ]
    with (work / "log").open("ab") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log)
    if done.returncode:
        raise SystemExit(f"pytest ended with {done.returncode}: see {work / 'log'}")
    return time.monotonic() - began, reader.read(work / "runs" / "latest").cases


def _span(cases: Sequence[CaseLine]) -> float:
    """Return seconds from the first lease to the end of the last one."""
    leases = [lease for case in cases for lease in case.leases]
    return max(one.until for one in leases) - min(one.since for one in leases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ms", type=float, default=3000.0, help="milliseconds of an execution")
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="how many of the five")
    parser.add_argument("--work", type=Path, help="folder for store and runs (default: a new one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chips-") as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        write_catalog(work, NETWORKS[: args.networks])
        _run(work, 1.0, "-n", "auto")  # builds everything, and is no figure
        one_s, one = _run(work, args.ms, "-m", "accuracy", "--device=0")
        many_s, many = _run(work, args.ms, "-m", "accuracy", "-n", "auto")
        _, both = _run(work, 100.0, "-n", "auto")
    longest = max(case.seconds for case in one)
    print(f"| {len(one)} accuracy cases, {args.ms:g} ms an execution | one chip | eight | times |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| the command, s | {one_s:.1f} | {many_s:.1f} | {one_s / many_s:.2f} |")
    spans = _span(one), _span(many)
    print(f"| first to last device use, s | {spans[0]:.1f} | {spans[1]:.1f} |", end="")
    print(f" {spans[0] / spans[1]:.2f} |")
    print(f"| the longest case, which bounds it, s | | {longest:.1f} | {one_s / longest:.2f} |")
    speeds = [case for case in both if case.check == "throughput"]
    cards = sum(len(lease.devices) == 2 and lease.alone for one in speeds for lease in one.leases)
    print(f"\n{cards} of {len(speeds)} throughput cases held both chips of a card alone.")
    twice = [line for cases in (one, many, both) for line in held_twice(cases)]
    print(f"Devices held twice: {len(twice)}. Goal: {GOAL:g} times.", *twice, sep="\n")
    if twice or cards < len(speeds) or spans[0] / spans[1] < GOAL:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
