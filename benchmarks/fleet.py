"""What a fleet needs for a night of many models, simulated from measured builds.

How long exports and simplifications took, and how large their files are, is read from a store; what
a chip does in a second, from the catalog. What nobody has measured here is an argument: the seconds
of a compilation, and the time that a case spends on a device besides its images. The models are the
catalog's, in turn, each longer or shorter by a factor that is drawn (log-normal, `--spread`).

Builders are processes with a core of their own; devices are chips, of several kinds that are
equally many and equally fast. A model is built on one builder: exported, simplified at each batch
size, compiled for each kind. Its cases of one kind run one after another on one chip, once they
are built.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.environment import ROOT
from harness.base.stages import Stage
from harness.base.store import Store
from harness.catalog.load import load_catalog

SIZES = (1, 4, 8, 16, 32, 64)
TARGET = "ascend310p3"


@dataclass(frozen=True)
class Job:
    """A model on all kinds of chips: seconds of its builds, and of a chip for one kind's cases."""

    export_s: float
    simplify_s: float  # all batch sizes
    compile_s: float  # all batch sizes, one kind
    device_s: float
    megabytes: float


@dataclass(frozen=True)
class Night:
    """How a night went: hours until the last case, shares of time that both kinds were busy."""

    hours: float
    devices_busy: float
    builders_busy: float


def play(
    jobs: Sequence[Job], kinds: int, devices: int, builders: int, *, shared: bool, built: bool
) -> Night:
    """Run the jobs in their order: a free builder takes the next model, a free chip the first model
    in the order that is built for it.

    Args:
        devices: chips of each kind.
        shared: kinds share exports and simplified files; else each builds its own.
        built: everything is in the store.
    """
    free = [0.0] * builders
    ready: list[list[tuple[float, int]]] = [[] for _ in range(kinds)]  # (built at, its place)
    work = 0.0
    for place, job in enumerate(jobs):
        at = heapq.heappop(free)
        for kind in range(kinds):
            again = kind == 0 or not shared
            seconds = job.compile_s + (job.export_s + job.simplify_s if again else 0.0)
            at, work = (at, work) if built else (at + seconds, work + seconds)
            ready[kind].append((at, place))
        heapq.heappush(free, at)
    ends = [_devices(jobs, one, devices) for one in ready]
    end = max(ends)
    busy = kinds * sum(job.device_s for job in jobs) / (end * kinds * devices)
    return Night(end / 3600, busy, work / (end * builders))


def _devices(jobs: Sequence[Job], ready: Sequence[tuple[float, int]], devices: int) -> float:
    """Return when the last case of one kind ends."""
    coming, waiting = sorted(ready), list[int]()
    free = [0.0] * devices
    end = 0.0
    while coming or waiting:
        now = heapq.heappop(free)
        if not waiting:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            heapq.heappush(waiting, coming.pop(0)[1])
        now += jobs[heapq.heappop(waiting)].device_s
        heapq.heappush(free, now)
        end = max(end, now)
    return end


def measured(store: Path, images: int, compile_s: float, beside_s: float) -> list[Job]:
    """Return the catalog's models, by what the store and the catalog know of them."""
    entries = list(Store(store).entries())
    jobs = []
    for model in load_catalog(ROOT / "baselines.yaml").models.values():
        own = [entry for entry in entries if entry.about.split(",")[0] == model.id]
        exports = [one for one in own if one.kind == Stage.EXPORT]
        simplified = [one for one in own if one.kind == Stage.SIMPLIFY]
        figures = model.baselines(TARGET)
        if not (exports and simplified and figures):
            continue
        usual = statistics.median(one.seconds for one in simplified)
        size = statistics.median(one.bytes for one in simplified) / 1e6
        fps = [min(figures.values(), key=lambda f: abs(f.batch_size - n)).fps for n in SIZES]
        jobs.append(
            Job(
                export_s=exports[0].seconds,
                simplify_s=len(SIZES) * usual,
                compile_s=len(SIZES) * compile_s,
                device_s=sum(images / one + 2 * beside_s for one in fps),
                megabytes=size,
            )
        )
    if not jobs:
        raise SystemExit(
            f"{store} has no exports of the catalog's models: see benchmarks/README.md"
        )
    return jobs


def many(jobs: Sequence[Job], count: int, spread: float, seed: int) -> list[Job]:
    """Return so many models: the measured ones in turn, each by a factor of its own."""
    draw = random.Random(seed)
    made = []
    for index in range(count):
        one, factor = jobs[index % len(jobs)], math.exp(draw.gauss(0.0, spread))
        made.append(Job(*(factor * value for value in vars(one).values())))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="a store with the models' builds")
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--kinds", type=int, default=3, help="kinds of chips")
    parser.add_argument("--devices", type=int, default=8, help="chips of each kind")
    parser.add_argument("--builders", type=int, default=16)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--compile-s", type=float, default=60.0, help="seconds of one atc: assumed")
    parser.add_argument("--beside-s", type=float, default=20.0, help="of a case, load and timing")
    parser.add_argument(
        "--om-share", type=float, default=0.5, help="size of an OM to its ONNX file"
    )
    parser.add_argument("--crops", type=int, default=20, help="distinct preprocessings, at 224")
    parser.add_argument("--spread", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    base = measured(args.store, args.images, args.compile_s, args.beside_s)
    jobs = many(base, args.models, args.spread, args.seed)
    kinds, sizes = args.kinds, len(SIZES)
    built_h = sum(one.export_s + one.simplify_s + kinds * one.compile_s for one in jobs) / 3600
    npu_h = kinds * sum(one.device_s for one in jobs) / 3600
    onnx_gb = sum(one.megabytes for one in jobs) / 1000
    crops_gb = args.crops * args.images * 224 * 224 * 3 / 1e9
    rows = {
        "cases": f"{2 * args.models * sizes * kinds:,}",
        "exports, simplified files, compilations": f"{args.models:,}, {args.models * sizes:,}, "
        f"{args.models * sizes * kinds:,}",
        "images through a chip": f"{args.models * sizes * kinds * args.images / 1e6:,.0f} million",
        "hours of a core for builds": f"{built_h:,.0f}",
        "minutes of a chip": f"{60 * npu_h:,.0f} ({npu_h:,.0f} h)",
        "ONNX files, GB": f"{onnx_gb * (1 + sizes):,.0f}",
        "compiled models, GB": f"{onnx_gb * sizes * kinds * args.om_share:,.0f}",
        f"crops of {args.crops} preprocessings, GB": f"{crops_gb:,.0f}",
    }
    print("| | |\n| --- | ---: |", *(f"| {a} | {b} |" for a, b in rows.items()), sep="\n")
    fleet = f"{kinds} x {args.devices} chips, {args.builders} builders"
    print(f"\n| {fleet} | hours | chips busy | builders busy |\n| --- | ---: | ---: | ---: |")
    by_length = sorted(jobs, key=lambda job: -job.device_s)
    orders = {"in the catalog's order": jobs, "long cases first": by_length}
    for what, shared, built in (
        ("nothing built, each kind builds for itself", False, False),
        ("nothing built, builds shared", True, False),
        ("everything in the store", True, True),
    ):
        for order, chosen in orders.items():
            one = play(chosen, kinds, args.devices, args.builders, shared=shared, built=built)
            share = f"{one.devices_busy:.0%} | {one.builders_busy:.0%}"
            print(f"| {what}, {order} | {one.hours:.2f} | {share} |")


if __name__ == "__main__":
    main()
