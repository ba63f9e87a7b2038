"""Measurements made up for the rules of judgement, and the catalog's figures to judge them by."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.catalog.load import load_catalog
from harness.catalog.schema import Baseline
from harness.judge.statistics import half_width_percent, trimmed_mean
from harness.records.measurements import (
    AccuracyMeasurement,
    EagerSpeed,
    Fidelity,
    Flip,
    OutputsCheck,
    Problem,
    ProblemCode,
    Scores,
    ThroughputMeasurement,
    Timing,
)
from harness.records.verdicts import FigureName, Verdict

CATALOG = load_catalog(Path(__file__).resolve().parents[2] / "baselines.yaml")
BOTH = CATALOG.models["seresnext101"].stated.rule
DROP = CATALOG.models["squeezenet1_1"].stated.rule
PUBLISHED = CATALOG.models["seresnext101"].stated.published  # 78.26
BOUND = 3e-2
NAN = Problem(ProblemCode.NOT_FINITE, {"images": 1, "names": ("a",)})


def codes(verdict: Verdict) -> list[ProblemCode]:
    return [problem.code for problem in verdict.problems]


def figures(verdict: Verdict | None) -> Mapping[FigureName, Any]:
    assert verdict is not None
    return verdict.figures


def scores(images: int, correct: int) -> Scores:
    return Scores(images, (correct,) * 5)


def whole(correct: int, images: int = 50_000, **changes: Any) -> AccuracyMeasurement:
    """A real pass without an eager one."""
    found = AccuracyMeasurement("real", images, scores(images, correct), (), None, None, 1.0)
    return dataclasses.replace(found, **changes)


def flip(name: str, reference: int, compiled: int, *, excused: bool = True) -> Flip:
    """A flip of an image whose label is 7."""
    return Flip(name, 7, reference, compiled, 9.5, 9.4, 0.1, 0.2 if excused else 0.0)


def part(
    n: int, eager_right: int, lost: int = 0, gained: int = 0, l2: float = 7e-3, **changes: Any
) -> AccuracyMeasurement:
    """A real pass over `n` images: eager right on so many, of which the compiled model loses
    `lost`; it gains others.
    """
    flips = (
        *(flip(f"lost{i}", 7, 8) for i in range(lost)),
        *(flip(f"gained{i}", 8, 7) for i in range(gained)),
        *(flip(f"both-wrong{i}", 5, 6) for i in range(3)),
    )
    found = whole(
        eager_right - lost + gained,
        n,
        fidelity=Fidelity(l2, 0.1, 1 - (lost + gained) / n, flips),
        reference_scores=scores(n, eager_right),
    )
    return dataclasses.replace(found, **changes)


def rehearsed(
    flips: Sequence[Flip] = (), right: int = 3, l2: float = 5e-3, **changes: Any
) -> AccuracyMeasurement:
    """A rehearsed pass over four images, of which eager is right on three."""
    found = AccuracyMeasurement(
        "rehearsal",
        4,
        scores(4, right),
        (),
        Fidelity(l2, 0.1, 1.0, tuple(flips)),
        scores(4, 3),
        1.0,
    )
    return dataclasses.replace(found, **changes)


def put_predictions(directory: Path, batch_size: int, best: Sequence[int]) -> str:
    """Write the best classes of a pass over images 0, 1, 2, ...; returns its file's name."""
    file = f"predictions/bs{batch_size}.csv"
    rows = [f"i{n},{n % 3},,{one},1.0" for n, one in enumerate(best)]
    (directory / file).parent.mkdir(exist_ok=True)
    (directory / file).write_text("\n".join(["image,label,eager,top1,logit1", *rows]) + "\n")
    return file


def timing(*means: float, batch_size: int = 4) -> Timing:
    """Rounds of such mean execution times in ms."""
    mean = statistics.fmean(means)
    return Timing(batch_size, 2, len(means), means, mean, half_width_percent(means))


def steady(ms: float, spread: float = 0.0, batch_size: int = 4) -> Timing:
    return timing(*(ms * (1 + spread * (i % 2)) for i in range(6)), batch_size=batch_size)


def timed(ours: Timing, eager: Timing | None = None, **changes: Any) -> ThroughputMeasurement:
    """A rehearsed timing beside eager's where there is one, else a real one."""
    width, speed = half_width_percent(ours.round_means), None
    if eager is not None:
        pairs = zip(ours.round_means, eager.round_means, strict=True)
        ratio, width = trimmed_mean([theirs / own for own, theirs in pairs])
        speed = EagerSpeed("channels-last", eager, ours.round_means, eager.round_means, ratio)
    found = ThroughputMeasurement(
        provenance="real" if eager is None else "rehearsal",
        timing=ours,
        precision_percent=10.0,
        budget_s=20.0,
        seconds=12.0,
        half_width_percent=width,
        eager=speed,
        outputs=OutputsCheck(1e-6, BOUND),
    )
    return dataclasses.replace(found, **changes)


def real(fps: float, **changes: Any) -> ThroughputMeasurement:
    return timed(steady(4000.0 / fps), **changes)


def baseline(model: str, target: str, batch_size: int, **changes: Any) -> Baseline:
    found = CATALOG.models[model].baseline(target, batch_size)
    assert found is not None
    return found.model_copy(update=changes)


def floor_of(fps: float = 903.506, **changes: Any) -> Baseline:
    """The figure of one chip at batch size 4."""
    return baseline("seresnext101", "ascend310p3", 4, fps=fps, **changes)
