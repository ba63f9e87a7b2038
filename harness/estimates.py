"""How long cases take on this host: from the records of earlier runs, and from what was built.

A case's seconds are split into what it built (artifacts that the store keeps) and what it does each
time (load, measure). Builds are counted once for all cases that share them, so that a total can be
given for a full store and for an empty one. Medians; what nobody has run is unknown.
"""

from __future__ import annotations

import os
import socket
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import WHOLE_SET, Check, Outcome
from harness.plan import Case
from harness.records import reader
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.settings import Settings

MOST_RUNS = 60  # the newest: `plan` answers at once, however many there are
# Stages that make an artifact, or that decode images into the store.
BUILDS = frozenset(
    {
        *(Stage.CHECKPOINT, Stage.DATA, Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY),
        *(Stage.COMPILE, Stage.EAGER, Stage.PROBE, Stage.CROPS, Stage.FEED),
    }
)
_BY_BATCH = (Stage.SIMPLIFY, Stage.COMPILE, Stage.PROBE)
_BY_IMAGES = (Stage.EAGER, Stage.FEED, Stage.INFER)
_MEASURED: tuple[Outcome, ...] = ("passed", "failed", "inconclusive", "recorded")


@dataclass(frozen=True, order=True)
class Build:
    """One artifact that cases share: every case of a model, or those of one batch size."""

    stage: Stage
    model: str
    batch_size: int = 0  # 0: shared by all batch sizes
    target: str = ""  # of compiled models alone


@dataclass(frozen=True)
class Estimate:
    """Seconds that a case is expected to take on this host.

    `work_s`: with everything in the store; None when nothing is known. `runs`: how many earlier
    cases it is the median of; 0 when it is taken from the model's other batch sizes. `builds`:
    seconds of each artifact that the case needs; None where nobody made it yet.
    """

    work_s: float | None
    runs: int
    builds: Mapping[Build, float | None]


@dataclass(frozen=True)
class Total:
    """Seconds of all cases, one after another. `unknown` cases are not in them."""

    with_store_s: float
    without_store_s: float
    unknown: int
    unknown_builds: int


_CaseKey = tuple[str, int, str, Check]


@dataclass(frozen=True)
class _Past:
    """Seconds of earlier runs: of cases, scaled to the images of now, and of builds."""

    work: dict[_CaseKey, list[float]] = field(default_factory=dict)
    builds: dict[Build, list[float]] = field(default_factory=dict)


def estimates(
    cases: Sequence[Case],
    settings: Settings,
    *,
    images: int | None,
    stored: Mapping[Build, Sequence[float]] | None = None,
) -> dict[Case, Estimate]:
    """Estimate each case.

    Args:
        images: how many this run uses; None: not known.
        stored: seconds that building the artifacts of the store took.
    """
    past = _Past()
    for records in _newest(settings.runs):
        for case in records.cases:
            if _is_like(case, settings):
                _take(past, case, images, comparable=_times_alike(records, case, settings))
    each = {}
    for one in cases:
        exact = past.work.get((one.model, one.batch_size, one.target, one.check), [])
        near = exact or [
            seconds
            for (model, _, target, check), values in past.work.items()
            if (model, target, check) == (one.model, one.target, one.check)
            for seconds in values
        ]
        builds = {
            build: _median(past.builds.get(build) or (stored or {}).get(build, ()))
            for build in _needed(one, settings, images)
        }
        each[one] = Estimate(_median(near), len(exact), builds)
    return each


def total(each: Iterable[Estimate]) -> Total:
    """Add all cases, each shared artifact once."""
    work, unknown = 0.0, 0
    builds: dict[Build, float | None] = {}
    for one in each:
        work += one.work_s or 0.0
        unknown += one.work_s is None
        builds.update(one.builds)
    built = sum(seconds or 0.0 for seconds in builds.values())
    # Crops are shared between models, and whoever comes second never waits for them.
    absent = [b for b, seconds in builds.items() if seconds is None and b.stage != Stage.FEED]
    return Total(work, work + built, unknown, len(absent))


def duration(seconds: float) -> str:
    """`8 s`, `3.4 min`, `2.1 h`."""
    if seconds < 1:
        return "<1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def build_of(stage: Stage, model: str, batch_size: int, target: str) -> Build:
    """The build that a stage of a case is: shared by batch sizes and targets where it is."""
    return Build(
        stage,
        model,
        batch_size if stage in _BY_BATCH else 0,
        target if stage is Stage.COMPILE else "",
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _needed(case: Case, settings: Settings, images: int | None) -> list[Build]:
    stages = [Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE]
    if settings.stand_ins:
        stages.append(Stage.STANDIN)
    if case.check == "throughput":
        stages.append(Stage.PROBE)
    else:
        stages.append(Stage.FEED)
        # Eager PyTorch answers for stand-ins and for a part of the set.
        part = images is not None and images != WHOLE_SET
        if settings.stand_ins or (part and case.model not in dict(settings.onnx)):
            stages.append(Stage.EAGER)
    return [build_of(stage, case.model, case.batch_size, case.target) for stage in stages]


# Records -----------------------------------------------------------------------------------------


def _newest(runs: Path) -> Iterator[RunRecords]:
    """Read the newest runs, by name, which begins with the time; links are not followed."""
    try:
        names = [entry.name for entry in os.scandir(runs) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(names, reverse=True)[:MOST_RUNS]:
        try:
            yield reader.read(runs / name)
        except RecordError:
            continue


def _is_like(case: CaseLine, settings: Settings) -> bool:
    return (
        case.provenance == settings.provenance
        and case.outcome in _MEASURED
        and case.machine.hostname == socket.gethostname()
    )


def _times_alike(records: RunRecords, case: CaseLine, settings: Settings) -> bool:
    """Whether a case measured for as long as one of now would: by budget and precision."""
    if case.check == "accuracy":
        return True
    given = records.run.settings if records.run else {}
    timing = (settings.budget, settings.precision)
    return (given.get("budget"), given.get("precision")) == timing


def _take(past: _Past, case: CaseLine, images: int | None, *, comparable: bool) -> None:
    count = case.images.count if case.images else 0
    scale = images / count if images and count > 0 else 1.0
    work = case.seconds
    for one in case.stages:
        scaled = one.seconds * scale if one.stage in _BY_IMAGES else one.seconds
        if one.stage is Stage.DEVICE:
            work -= one.seconds  # waiting for others
        elif one.stage in BUILDS:
            work -= one.seconds
            if not one.cached:
                build = build_of(one.stage, case.model, case.batch_size, case.target)
                past.builds.setdefault(build, []).append(scaled)
        else:
            work += scaled - one.seconds
    if comparable:
        key = (case.model, case.batch_size, case.target, case.check)
        past.work.setdefault(key, []).append(max(0.0, work))
