"""How fast images come to a model, and what an accuracy pass costs beside its parts.

    python benchmarks/feed.py [--images 2000] [--rounds 3] [--only cold pass memory throughput]

Runs on generated JPEGs of ImageNet's size (`photos.py`), kept in `--photos`. Both sides of every
comparison run in this one call, in alternation, so that a machine that slows down slows both; the
table gives the median ratio and its range.

- cold: the feed with an empty store, beside the plain limit (Pillow's decode, resize and crop in
  as many threads as cores, nothing else); the feed with its crops in the store.
- pass: the accuracy pass of SqueezeNet 1.1 at batch 16, beside its parts measured alone, and
  beside the guides' own way (`guides_way.py`).
- memory: peak of a pass in a process of its own, at `--images` and at ten times as many; and of
  a pass over `--images` at 384 pixels and batch 64, beside 1 GiB.
- throughput: what the harness reports, beside a bare loop (`bare_loop.py`).

`--quick` is for a test of this script: a few images, figures without a meaning.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import onnxruntime as ort
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bare_loop, worker_overhead
from benchmarks.bare_loop import bare_session
from benchmarks.photos import write_photos
from harness.base.host import cores
from harness.base.store import Store
from harness.catalog.steps import CenterCrop, Normalize, Preprocessing, Resize
from harness.images.crops import Crops
from harness.images.dataset import ImageSet
from harness.images.feed import Feed
from harness.measure import accuracy
from harness.records.measurements import AccuracyMeasurement
from harness.stages.inference import Predictions, infer
from harness.targets.host import open_onnx
from harness.targets.protocol import Session

BATCH = 16
CLASSES = 1000
STEPS = Preprocessing(  # those of SqueezeNet in the catalog
    resize=Resize(op="resize_short", size=256, interpolation="bilinear"),
    crop=CenterCrop(size=224, offset="round"),
    normalize=Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
)
LARGE_BATCH = 64
LARGE_STEPS = Preprocessing(  # those of FixRes: the largest crops
    resize=Resize(op="resize_height", size=438, interpolation="bilinear"),
    crop=CenterCrop(size=384, offset="round"),
    normalize=STEPS.normalize,
)


def image_set(root: Path, paths: Sequence[Path]) -> ImageSet:
    """The images with labels that mean nothing."""
    return ImageSet(
        root=root,
        names=tuple(path.name for path in paths),
        paths=tuple(paths),
        labels=tuple(index % CLASSES for index in range(len(paths))),
        layout="flat folder",
        label_source="none",
    )


@dataclass
class Spent:
    """What a block took: seconds, and seconds of processors (its children's, once waited for)."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    spent = Spent()
    wall, cpu = time.perf_counter(), _core_seconds()
    yield spent
    spent.wall, spent.cpu = time.perf_counter() - wall, _core_seconds() - cpu


def _core_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


# What is measured ---------------------------------------------------------------------------


def plain_limit(paths: Sequence[Path]) -> Spent:
    """Decode, resize and crop with Pillow alone; the crops are thrown away."""

    def one(path: Path) -> int:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        width, height = rgb.size
        scale = 256 / min(width, height)
        small = rgb.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        left, top = (small.width - 224) // 2, (small.height - 224) // 2
        return np.asarray(small.crop((left, top, left + 224, top + 224))).nbytes

    with spending() as spent, ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(one, paths):
            pass
    return spent


def run_feed(feed: Feed) -> Spent:
    """Every batch written into a buffer, as a session would have it; nothing is inferred."""
    size = feed.crops.size
    slots = [np.zeros((feed.batch_size, 3, size, size), np.float32) for _ in range(3)]
    with spending() as spent, feed.running():
        for number, batch in enumerate(feed):
            batch.fill(slots[number % len(slots)])
    return spent


def bare_inference(model: Path, images: int) -> Spent:
    """ONNX Runtime's loop over as many batches, in this process."""
    session = bare_session(str(model), cores())
    name = session.get_inputs()[0].name
    batch = np.random.default_rng(1).random((BATCH, 3, 224, 224), np.float32)
    session.run(None, {name: batch})
    with spending() as spent:
        for _ in range(-(-images // BATCH)):
            session.run(None, {name: batch})
    return spent


def observed(
    session: Session, feed: Feed, images: ImageSet, reference: Predictions | None = None
) -> tuple[accuracy.Observation, AccuracyMeasurement]:
    """What a case sees of a pass over the feed, and the measurement that it makes of it."""
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=0.03)
    with feed.running():
        infer(session, feed, seen.add)
    return seen, seen.measurement(provenance="simulated", seconds=1.0)


def last_line(*command: object) -> str:
    """The last line that Python prints with these arguments, in a process of its own."""
    argv = [sys.executable, *map(str, command)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def accuracy_pass(store: Path, images: ImageSet, model: Path, log: Path) -> Spent:
    """A pass as a case runs it: wall time from the open session on, core-seconds with the worker's
    start and end.
    """
    session = open_onnx(model, log=log)
    wall, spent = 0.0, Spent()
    try:
        with spending() as spent:
            feed = Feed(Crops(Store(store), images, STEPS), STEPS.normalize, BATCH)
            _, measured = observed(session, feed, images)
            wall = time.perf_counter()
            session.close()
            wall = time.perf_counter() - wall
    finally:
        session.close()
    spent.wall -= wall
    assert measured.scores.images == len(images), measured.scores
    assert not measured.problems, measured.problems
    return spent


def guides_way(photos: Path, model: Path, count: int, work: Path) -> dict[str, Any]:
    """The guides' three steps in a process of their own: seconds of each, and bytes."""
    script = Path(__file__).with_name("guides_way.py")
    found: dict[str, Any] = json.loads(
        last_line(script, photos, model, work, f"--count={count}", f"--batch={BATCH}")
    )
    return found


# Memory -------------------------------------------------------------------------------------


def pooled_model(path: Path, batch: int, size: int) -> None:
    """A network that costs nothing, `float32[B, 3, S, S]` to `[B, CLASSES]`."""
    helper = onnx.helper
    weights = np.random.default_rng(0).normal(0, 1, (3, CLASSES)).astype(np.float32)
    bias = np.zeros(CLASSES, np.float32)
    bias[0] = 100  # always the best class, as in the reference: a sound model hardly flips
    tensors = {"weights": weights, "bias": bias}
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["class"]),
        ],
        "pooled",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (batch, 3, size, size))],
        [helper.make_tensor_value_info("class", onnx.TensorProto.FLOAT, (batch, CLASSES))],
        [onnx.numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def memory_child(folder: Path, *, large: bool) -> None:
    """One pass over `folder/images`, with a reference; peak memory in bytes on the last line."""
    steps, batch = (LARGE_STEPS, LARGE_BATCH) if large else (STEPS, BATCH)
    # What a case's process has loaded: the figure is of a pass in a run, not of a bare loop.
    importlib.import_module("harness.plugin")
    importlib.import_module("harness.stages.pipeline")
    root = folder / "images"
    images = image_set(root, [root / name for name in sorted(os.listdir(root))])
    reference = Predictions.stored(images.names, folder / "reference.npy")
    session = open_onnx(folder / "model.onnx", log=folder / "log")
    try:
        feed = Feed(Crops(Store(folder / "store"), images, steps), steps.normalize, batch)
        seen, measured = observed(session, feed, images, reference)
        seen.write(folder / "predictions.csv")
    finally:
        session.close()
    assert measured.scores.images == len(images), measured
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(1024 * peak)


def peak_memory(photos: Sequence[Path], count: int, work: Path, *, large: bool = False) -> float:
    """Peak memory of a cold pass over `count` images, in MiB; images repeat under new names."""
    steps, batch = (LARGE_STEPS, LARGE_BATCH) if large else (STEPS, BATCH)
    (work / "images").mkdir(parents=True)
    for index in range(count):
        name = f"ILSVRC2012_val_{index + 1:08d}.JPEG"
        (work / "images" / name).symlink_to(photos[index % len(photos)].absolute())
    pooled_model(work / "model.onnx", batch, steps.size)
    logits = np.lib.format.open_memmap(
        work / "reference.npy", mode="w+", dtype=np.float32, shape=(count, CLASSES)
    )
    logits[:, 0] = 1.0
    logits.flush()
    peak = last_line(__file__, "--memory-child", work, *(["--large"] if large else []))
    shutil.rmtree(work)
    return int(peak) / 2**20


# The table ----------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows of a Markdown table: what, this side, the other side, ratio with its range, goal."""

    rows: list[str] = field(default_factory=list)

    def add(
        self, what: str, pairs: Sequence[tuple[float, float]], unit: str, goal: str, digits: int = 0
    ) -> None:
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [a / b for a, b in pairs]
        self.row(
            f"{what} | {ours:,.{digits}f} {unit} | {theirs:,.{digits}f} {unit} "
            f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} | {goal}"
        )

    def row(self, text: str) -> None:
        self.rows.append(f"| {text} |")
        print(self.rows[-1], flush=True)


def cold_child(side: str, photos: Path, count: int, store: Path) -> None:
    """One side of the cold feed, in a process that has decoded nothing yet; JSON on the last line.

    Memory that a process has once used makes the next images quicker: a run is cold once.
    """
    images = image_set(photos, write_photos(photos, count))
    if side == "plain":
        spent = plain_limit(images.paths)
    else:
        spent = run_feed(Feed(Crops(Store(store), images, STEPS), STEPS.normalize, BATCH))
    print(json.dumps([spent.wall, spent.cpu]))


def measure_cold(table: Table, images: ImageSet, work: Path, rounds: int) -> None:
    count = len(images)
    sides: dict[str, list[Spent]] = {"plain": [], "feed": []}
    firsts: list[Spent] = []
    warms: list[Spent] = []
    for number in range(rounds):
        store = work / f"cold-{number}"
        for side in ("feed", "plain") if number % 2 else ("plain", "feed"):
            places = (f"--photos={images.root}", f"--work={store}", f"--images={count}")
            spent = last_line(__file__, "--cold-child", side, *places)
            sides[side].append(Spent(*json.loads(spent)))
        feed = Feed(Crops(Store(store), images, STEPS), STEPS.normalize, BATCH)
        firsts.append(run_feed(feed))
        # Once verified, they are read as often as there are batch sizes: by the same process.
        warms.extend(run_feed(feed) for _ in range(3))
        shutil.rmtree(store)
    limits, colds = sides["plain"], sides["feed"]

    # By core-seconds a busy machine shows, too, what a quiet one would reach.
    def by_wall(ours: Sequence[Spent]) -> list[float]:
        return [count / one.wall for one in ours]

    def by_cpu(ours: Sequence[Spent]) -> list[float]:
        return [count * cores() / one.cpu for one in ours]

    for rate, words in ((by_wall, ""), (by_cpu, ", by core-seconds")):
        pairs = list(zip(rate(colds), rate(limits), strict=True))
        table.add(f"cold feed; plain limit{words}", pairs, "images/s", "≥ 0.9")
    for mine, words, goal in (
        (warms, "warm feed; 10,000", "≥ 1"),
        (firsts, "warm feed that also verifies; 10,000", ""),
    ):
        for rate, how in ((by_wall, ""), (by_cpu, ", by core-seconds")):
            pairs = [(one, 10_000.0) for one in rate(mine)]
            table.add(f"{words}{how}", pairs, "images/s", goal)


def measure_pass(table: Table, images: ImageSet, photos: Path, work: Path, rounds: int) -> None:
    source, model = work / "source.onnx", work / "compiled.onnx"
    worker_overhead.squeezenet(BATCH, source)
    worker_overhead.compile_offline(source, model)
    count = len(images)
    colds, warms, guides = [], [], []
    sums: list[tuple[Spent, Spent]] = []
    disk = (0, 0)
    for number in range(rounds):
        store, log = work / f"pass-{number}", work / "log"

        def ours(store: Path = store, log: Path = log) -> None:
            colds.append(accuracy_pass(store, images, model, log))
            warms.append(accuracy_pass(store, images, model, log))

        def parts() -> None:
            sums.append((plain_limit(images.paths), bare_inference(model, count)))

        for step in (parts, ours) if number % 2 else (ours, parts):
            step()
        with tempfile.TemporaryDirectory(dir=work) as folder:
            found = guides_way(photos, model, count, Path(folder))
            os.sync()  # the store's files are on the disk when a pass ends; these are not yet
        guides.append(sum(found["seconds"]))
        disk = (
            sum(file.stat().st_size for file in store.rglob("crops.npy")),
            int(found["bytes"]),
        )
        shutil.rmtree(store)

    for mine, words, decode in (
        (colds, "pass, cold; decode and inference alone", True),
        (warms, "pass, crops in the store; inference alone", False),
    ):
        parts_of = [(decode * one.wall + two.wall, decode * one.cpu + two.cpu) for one, two in sums]
        walls = [(one.wall, wall) for one, (wall, _) in zip(mine, parts_of, strict=True)]
        shares = [(one.wall, cpu / cores()) for one, (_, cpu) in zip(mine, parts_of, strict=True)]
        cpus = [(one.cpu, cpu) for one, (_, cpu) in zip(mine, parts_of, strict=True)]
        table.add(f"{words}, one after the other", walls, "s", "≤ 1.2", 1)
        table.add(f"{words}, core-seconds / cores", shares, "s", "≤ 1.2", 1)
        table.add(f"{words}, core-seconds of both sides", cpus, "s", "", 1)
    for mine, words in ((colds, "pass, cold"), (warms, "pass, crops in the store")):
        pairs = [(one.wall, two) for one, two in zip(mine, guides, strict=True)]
        table.add(f"{words}; the guides' way", pairs, "s", "published", 1)
    mb = [(disk[0] / 1e6, disk[1] / 1e6)]
    table.add("disk of the crops; of the guides' way", mb, "MB", "published")


def measure_memory(table: Table, images: ImageSet, work: Path, counts: tuple[int, int]) -> None:
    few, many = (
        peak_memory(images.paths, count, work / f"memory-{count}") for count in sorted(counts)
    )
    table.add(
        f"peak memory at {max(counts):,} images; at {min(counts):,}",
        [(many, few)],
        "MiB",
        "≤ 1.1",
    )
    # A bound in itself, for the largest crops and batch; that it holds for more images, too, is
    # what the row before says.
    large = peak_memory(images.paths, len(images), work / "memory-large", large=True)
    table.add(
        f"peak memory at {LARGE_STEPS.size} pixels, batch {LARGE_BATCH}, {len(images):,} images; "
        "1 GiB",
        [(large, 1024.0)],
        "MiB",
        "< 1",
    )


def measure_throughput(table: Table, work: Path, seconds: float, processes: int) -> None:
    """Both sides in processes of their own, several of each: where a process's memory happens to
    lie moves its speed by a few percent, for as long as it lives.
    """
    source, model = work / "timed.onnx", work / "timed-compiled.onnx"
    worker_overhead.squeezenet(BATCH, source)
    worker_overhead.compile_offline(source, model)
    fps = []
    for _ in range(processes):
        with (
            closing(worker_overhead.open_worker(model, cores(), work / "log")) as session,
            subprocess.Popen(
                [sys.executable, bare_loop.__file__, str(model), str(cores())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as child,
        ):
            asked, answered = child.stdin, child.stdout
            assert asked is not None and answered is not None

            def bare(count: int, to: IO[str] = asked, back: IO[str] = answered) -> float:
                print(count, file=to, flush=True)
                return float(back.readline())

            def worker(count: int, timed: Session = session) -> float:
                return statistics.fmean(timed.time(count, 0).ms)

            pairs = worker_overhead.in_turn(bare, worker, seconds, 4)
            asked.close()
        bare_ms, worker_ms = (statistics.fmean(side) for side in zip(*pairs, strict=True))
        fps.append((1000 * BATCH / worker_ms, 1000 * BATCH / bare_ms))
    table.add("reported throughput; a bare loop", fps, "images/s", "0.98 to 1.02")


PARTS = ("cold", "pass", "memory", "throughput")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path(tempfile.gettempdir()) / "photos")
    parser.add_argument("--work", type=Path, help="folder for what is written and removed again")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--quick", action="store_true", help="a few images: only a test")
    parser.add_argument("--memory-child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cold-child", choices=("plain", "feed"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cold_child is not None:
        cold_child(args.cold_child, args.photos, args.images, args.work)
        return
    if args.memory_child is not None:
        memory_child(args.memory_child, large=args.large)
        return
    count, rounds = (4, 1) if args.quick else (args.images, args.rounds)
    paths = write_photos(args.photos, count)
    images = image_set(args.photos, paths)
    table = Table()
    load = os.getloadavg()[0]
    for line in (
        "what; beside what | the harness | the other | ratio, median | range | goal",
        "--- | ---: | ---: | ---: | --- | ---",
    ):
        table.row(line)
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        work = Path(name)
        if "cold" in args.only:
            measure_cold(table, images, work, rounds)
        if "pass" in args.only:
            measure_pass(table, images, args.photos, work, rounds)
        if "memory" in args.only:
            measure_memory(table, images, work, (count, 2 * count if args.quick else 10 * count))
        if "throughput" in args.only:
            measure_throughput(table, work, 0.1 if args.quick else 1.0, 1 if args.quick else 9)
    about = (
        f"{count:,} images, {rounds} rounds, {cores()} cores, ONNX Runtime {ort.__version__}; "
        f"load of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after."
    )
    print(f"\n{about}")
    if args.output is not None:
        args.output.write_text("\n".join([*table.rows, "", about, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
