"""How often the rules of judgement are wrong: simulated artifacts through the real rules.

Accuracy: a data set of 50,000 images, a reference model with the published top-1, and compiled
models that are healthy (they flip images, one way as likely as the other) or worse (one-directional
or mixed with such flips), or a reference that is wrong itself. Parts of 200 to 50,000 images are
drawn without replacement and judged; so are six batch sizes on the same images, which flip images
each for itself. Throughput: devices of a known sustained speed, whose rounds
are noisy, start fast or slow down, timed by `throughput.measure` on a clock of its own and judged
against a baseline.

    python benchmarks/judging.py              # the tables of docs/judging-tables.md; minutes
    python benchmarks/judging.py --quick      # a test of this script; its figures mean little
    python benchmarks/judging.py --only accuracy --samples 5000 --seed 7
    python benchmarks/judging.py --only batch-sizes

Every random number comes from `--seed`: the same command prints the same tables.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.terms import WHOLE_SET as WHOLE
from harness.base.terms import VerdictKind as Kind
from harness.catalog.load import load_catalog
from harness.catalog.schema import AccuracyRule, Baseline, Published
from harness.judge import accuracy
from harness.judge.batch_sizes import BatchPass, judge_batch_sizes
from harness.judge.statistics import Paired
from harness.judge.throughput import judge_baseline
from harness.measure import throughput
from harness.measure.throughput import TimingPlan
from harness.records.measurements import (
    AccuracyMeasurement,
    Fidelity,
    Flip,
    Scores,
    ThroughputMeasurement,
)
from harness.records.predictions import Prediction
from harness.targets.protocol import Filler, Float32, Images, SessionInfo, TensorSpec, Times

CATALOG = Path(__file__).resolve().parents[1] / "baselines.yaml"
SIZES = (200, 1_000, 5_000, WHOLE)
KINDS: tuple[Kind, ...] = ("PASS", "FAIL", "INCONCLUSIVE")
BATCH_KINDS: tuple[Kind, ...] = ("PASS", "FAIL", "RECORDED")
BATCH_SIZES = (1, 4, 8, 16, 32, 64)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def table(title: str, artifacts: Sequence[Artifact], cell: Callable[[int, int], str]) -> list[str]:
    """One row for each artifact, one column for each number of images."""
    rows = (
        [artifact.name, *(cell(row, column) for column in range(len(SIZES)))]
        for row, artifact in enumerate(artifacts)
    )
    return markdown([title, *(f"{size:,} images" for size in SIZES)], rows)


# Accuracy ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artifact:
    """A compiled model and its reference, in percent of all images."""

    name: str
    flips: float = 0.0  # right with one model alone; each image goes either way by chance
    drop: float = 0.0  # points: right with the reference alone, besides
    reference_off: float = 0.0  # points by which the reference itself is below the published


ARTIFACTS = (
    Artifact("healthy, no flips"),
    Artifact("healthy, 1 % of flips", flips=1),
    Artifact("healthy, 2 % of flips", flips=2),
    Artifact("drop of 0.5 points", drop=0.5),
    Artifact("drop of 0.5 points among 1 % of flips", drop=0.5, flips=1),
    Artifact("drop of 1 point", drop=1),
    Artifact("drop of 1 point among 1 % of flips", drop=1, flips=1),
    Artifact("drop of 2 points", drop=2),
    Artifact("drop of 2 points among 1 % of flips", drop=2, flips=1),
    Artifact("wrong on both sides, 5 points low", reference_off=5),
    Artifact("wrong on both sides, 20 points low", reference_off=20),
)


def draw(
    artifact: Artifact, top1: float, images: int, samples: int, random: np.random.Generator
) -> Iterator[Paired]:
    """Who was right on each of `samples` parts of `images`, each of a data set of its own."""
    right = round(WHOLE * (top1 - artifact.reference_off) / 100)
    flips, drop = round(WHOLE * artifact.flips / 100), round(WHOLE * artifact.drop / 100)
    for _ in range(samples):
        gained = int(random.binomial(flips, 0.5))
        lost = flips - gained + drop
        cells = [right - lost, lost, gained, WHOLE - right - gained]
        both, only_reference, only_compiled, _neither = (
            int(count) for count in random.multivariate_hypergeometric(cells, images)
        )
        yield Paired(images, both, only_reference, only_compiled)


_LOST = Flip("", 7, 7, 8, 9.5, 9.4, 0.1, 0.2)
_GAINED = Flip("", 7, 8, 7, 9.5, 9.4, 0.1, 0.2)


def measured(pairs: Paired) -> AccuracyMeasurement:
    """The measurement that these counts are of; its logits are healthy."""
    return AccuracyMeasurement(
        provenance="real",  # the judged numbers are drawn; nothing of them leaves this script
        expected_images=pairs.n,
        scores=Scores(pairs.n, (pairs.compiled_correct,) * 5),
        problems=(),
        fidelity=Fidelity(
            7e-3, 0.1, 1.0, (_LOST,) * pairs.only_reference + (_GAINED,) * pairs.only_compiled
        ),
        reference_scores=Scores(pairs.n, (pairs.reference_correct,) * 5),
        seconds=1.0,
    )


def outcomes(kinds: Iterable[Kind], named: Sequence[Kind] = KINDS) -> str:
    """`97.1 / 0.0 / 2.9`: percent of PASS, FAIL and INCONCLUSIVE."""
    counts = Counter(kinds)
    total = sum(counts.values())
    return " / ".join(share(counts[kind], total) for kind in named)


def share(count: int, total: int) -> str:
    """A percentage that is 0 or 100 only if it is exactly so."""
    percent = 100.0 * count / total
    if 0 < percent < 0.05:
        return "<0.1"
    if 99.95 <= percent < 100:
        return ">99.9"
    return f"{percent:.1f}" if 0 < percent < 100 else f"{percent:.0f}"


def accuracy_cell(
    published: Published, rule: AccuracyRule, row: int, column: int, *, samples: int, seed: int
) -> str:
    """The outcomes of artifact `row` on parts of `SIZES[column]` images."""
    random = np.random.default_rng((seed, 1, row, column))
    known: dict[Paired, Kind] = {}
    kinds = []
    for pairs in draw(ARTIFACTS[row], published.top1, SIZES[column], samples, random):
        if pairs not in known:
            known[pairs] = judge(pairs, published, rule)
        kinds.append(known[pairs])
    return outcomes(kinds)


def judge(pairs: Paired, published: Published, rule: AccuracyRule) -> Kind:
    """What the harness would say of these counts."""
    return accuracy.judge_accuracy(measured(pairs), published, rule, bound=3e-2).kind


def images_table(rows: Sequence[tuple[str, Published, AccuracyRule]]) -> list[str]:
    """From how many images on a PASS is possible."""
    shares = (0.0, 0.5, 1.0, 2.0)
    head = ["no difference" if not s else f"{s:g} % differ" for s in shares]
    lines = []
    for name, published, rule in rows:
        sign = "±" if rule.side == "both" else "-"
        points = accuracy.tolerance_points(published.top1, rule)
        least = [accuracy.images_to_pass(published, rule, discordant_percent=s) for s in shares]
        cells = [f"{n:,}" if n is not None else "all" for n in least]
        lines.append([name, f"{sign}{points:.2f} points", *cells])
    return markdown(["model", "tolerance", *head], lines)


# Batch sizes -------------------------------------------------------------------------------

BATCH_ARTIFACTS = (
    Artifact("no size flips an image"),
    Artifact("each size flips 0.1 %", flips=0.1),
    Artifact("each size flips 0.3 %", flips=0.3),
    Artifact("one size 0.5 points worse among 0.1 % of flips", drop=0.5, flips=0.1),
    Artifact("one size 1 point worse among 0.1 % of flips", drop=1, flips=0.1),
)


NAMES = tuple(str(i) for i in range(WHOLE))
_RIGHT, _WRONG = Prediction(1, 1), Prediction(1, 2)


def draw_passes(
    artifact: Artifact, top1: float, images: int, random: np.random.Generator
) -> dict[int, BatchPass]:
    """A model at six batch sizes on one part of `images`; the last size has the drop."""
    right = round(WHOLE * top1 / 100)
    good = int(random.hypergeometric(right, WHOLE - right, images))
    first = dict(zip(NAMES, [_RIGHT] * good + [_WRONG] * (images - good), strict=False))
    passes = {}
    for size in BATCH_SIZES:
        flips = round(WHOLE * artifact.flips / 100)
        gained = int(random.binomial(flips, 0.5))
        lost = flips - gained
        if size == BATCH_SIZES[-1]:
            lost += round(WHOLE * artifact.drop / 100)
        # Of the images that the part has on each side, those that this size flips.
        here_lost = int(random.hypergeometric(lost, right - lost, good))
        here_gained = int(random.hypergeometric(gained, WHOLE - right - gained, images - good))
        answers = dict(first)
        for i in random.choice(good, here_lost, replace=False):
            answers[NAMES[i]] = _WRONG
        for i in random.choice(images - good, here_gained, replace=False):
            answers[NAMES[good + i]] = _RIGHT
        passes[size] = BatchPass("real", answers)  # drawn; nothing of it leaves this script
    return passes


def whole_runs(samples: int) -> int:
    """Of the whole set fewer are drawn: each has 300,000 answers, and chance is small there."""
    return -(-samples // 10)


def batch_cell(published: Published, row: int, column: int, *, samples: int, seed: int) -> str:
    """The outcomes of six sizes of artifact `row` on parts of `SIZES[column]` images."""
    random = np.random.default_rng((seed, 3, row, column))
    kinds = []
    for _ in range(samples if SIZES[column] < WHOLE else whole_runs(samples)):
        passes = draw_passes(BATCH_ARTIFACTS[row], published.top1, SIZES[column], random)
        kinds.append(judge_batch_sizes(passes).kind)
    return outcomes(kinds, BATCH_KINDS)


# Throughput --------------------------------------------------------------------------------

SPEEDS = (-5.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 5.0)  # percent off the baseline
NOISES = (0.5, 1.0, 2.0, 5.0)  # percent, of the mean of a round
TOLERANCES = (0.0, 1.0)
ROUND_S = 0.25
BUDGET_S = 120.0


@dataclass(frozen=True)
class Course:
    """How a device gets to its sustained speed: execution times by the seconds passed."""

    name: str
    factor: Callable[[float], float]
    noises: tuple[float, ...]
    least_s: float = throughput.LEAST_S


def _step(seconds: float) -> float:
    return 0.97 if seconds < 5.0 else 1.0


COURSES = (
    Course("steady", lambda seconds: 1.0, NOISES),
    Course("3 % faster in the first 5 s", _step, (0.5, 2.0)),
    Course("3 % faster in the first 5 s, timed for no least time", _step, (0.5, 2.0), 0.0),
    Course(
        "slows by 3 % over 60 s",
        lambda seconds: 0.97 + 0.03 * min(1.0, seconds / 60.0),
        (0.5, 2.0),
    ),
)


class SimulatedDevice:
    """A session that tells the mean of a round, and the clock that its rounds move on."""

    inputs: Sequence[TensorSpec] = (TensorSpec("image", (4, 3, 2, 2), "float32"),)
    outputs: Sequence[TensorSpec] = (TensorSpec("class", (4, 10), "float32"),)
    about = SessionInfo(driver="simulated")

    def __init__(
        self, mean_ms: float, noise: float, course: Course, random: np.random.Generator
    ) -> None:
        self.seconds = 0.0
        self._mean_ms = mean_ms
        self._noise = noise / 100.0
        self._course = course
        self._random = random

    def clock(self) -> float:
        return self.seconds

    def time(self, loops: int, warmup: int) -> Times:
        course = self._course.factor(self.seconds)
        mean = self._mean_ms * course * (1.0 + self._noise * self._random.standard_normal())
        self.seconds += (loops + warmup) * mean / 1000.0
        return Times((float(mean),) * loops)

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        raise NotImplementedError("a simulated device has a speed, and no model")

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        raise NotImplementedError("a simulated device has a speed, and no model")

    def close(self) -> None:
        pass


def timed(
    baseline: Baseline, speed: float, noise: float, course: Course, random: np.random.Generator
) -> ThroughputMeasurement:
    """One measurement of a device whose sustained speed is `speed` percent off the baseline."""
    mean_ms = 1000.0 * 4 / (baseline.fps * (1.0 + speed / 100.0))
    device = SimulatedDevice(mean_ms, noise, course, random)
    plan = TimingPlan("simulated", budget_s=BUDGET_S, least_s=course.least_s, round_s=ROUND_S)
    measurement, _ = throughput.measure(device, plan, clock=device.clock)
    return measurement


def throughput_tables(baseline: Baseline, *, samples: int, seed: int) -> list[str]:
    """For each course of a device: percent of PASS by true speed, noise and tolerance."""
    # A simulated measurement is judged against a simulated figure, here as anywhere.
    figures = [
        baseline.model_copy(update={"tolerance_percent": t, "provenance": "simulated"})
        for t in TOLERANCES
    ]
    lines = []
    for number, course in enumerate(COURSES):
        rows = []
        for row, speed in enumerate(SPEEDS):
            cells = []
            for column, noise in enumerate(course.noises):
                random = np.random.default_rng((seed, 2, number, row, column))
                found = [timed(baseline, speed, noise, course, random) for _ in range(samples)]
                cells += [
                    outcomes(judge_baseline(one, figure).kind for one in found)
                    for figure in figures
                ]
            rows.append([f"{speed:+g} %", *cells])
        head = [f"noise {n:g} %, tolerance {t:g} %" for n in course.noises for t in TOLERANCES]
        lines += ["", f"Device: {course.name}.", "", *markdown(["true speed", *head], rows)]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000, help="parts drawn for each cell")
    parser.add_argument("--timings", type=int, default=1_000, help="timings for each cell")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--batches", type=int, default=500, help="runs of six batch sizes a cell")
    parser.add_argument("--only", choices=("accuracy", "batch-sizes", "throughput"))
    parser.add_argument("--quick", action="store_true", help="a test of this script")
    parser.add_argument("--output", type=Path, help="write the tables there, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options = argparse.Namespace(**{**vars(options), "samples": 20, "timings": 2, "batches": 2})
    catalog = load_catalog(CATALOG)
    lines: list[str] = []
    if options.only in (None, "accuracy"):
        rows = [(m.id, m.stated.published, m.stated.rule) for m in catalog.models.values()]
        lines += ["## Images from which a PASS is possible", "", *images_table(rows), ""]
        for name in ("seresnext101", "squeezenet1_1"):
            accuracy = catalog.models[name].stated
            side = "both sides" if accuracy.rule.side == "both" else "a drop alone"
            lines += [
                f"## Accuracy: {name}, {accuracy.published.top1:g} % published, {side}",
                "",
                f"PASS / FAIL / INCONCLUSIVE in percent of {options.samples:,} parts.",
                "",
                *table(
                    "artifact",
                    ARTIFACTS,
                    functools.partial(
                        accuracy_cell,
                        accuracy.published,
                        accuracy.rule,
                        samples=options.samples,
                        seed=options.seed,
                    ),
                ),
                "",
            ]
    if options.only in (None, "batch-sizes"):
        published = catalog.models["seresnext101"].stated.published
        lines += [
            f"## Accuracy over batch sizes: seresnext101, {published.top1:g} % published",
            "",
            f"PASS / FAIL / RECORDED in percent of {options.batches:,} runs of six batch sizes; of "
            f"{whole_runs(options.batches):,} on the whole set.",
            "",
            *table(
                "batch sizes",
                BATCH_ARTIFACTS,
                functools.partial(
                    batch_cell, published, samples=options.batches, seed=options.seed
                ),
            ),
            "",
        ]
    if options.only in (None, "throughput"):
        baseline = catalog.models["seresnext101"].baseline("ascend310p3", 4)
        if baseline is None:
            raise SystemExit("the catalog has no figure of seresnext101 at batch size 4")
        lines += [
            "## Throughput: percent of PASS / FAIL / INCONCLUSIVE",
            "",
            f"{options.timings:,} timings for each cell, precision 1 %, rounds of {ROUND_S:g} s, "
            f"at least {throughput.LEAST_S:g} s, budget {BUDGET_S:g} s.",
            *throughput_tables(baseline, samples=options.timings, seed=options.seed),
        ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
