"""How long cases take on this host, from the records of earlier runs.

A case's seconds are what it does each time (load, measure): without the artifacts that it built,
which the store keeps, and without waiting for a device. Medians; what nobody has run is unknown.
"""

from __future__ import annotations

import os
import socket
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import Outcome
from harness.plan import Case
from harness.records import reader
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.settings import Settings

MOST_RUNS = 60  # the newest: `plan` answers at once, however many there are
# What makes an artifact, decodes images into the store, or waits for others.
_NOT_WORK = frozenset(
    {
        *(Stage.CHECKPOINT, Stage.DATA, Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY),
        *(Stage.COMPILE, Stage.EAGER, Stage.PROBE, Stage.CROPS, Stage.FEED, Stage.DEVICE),
    }
)
_MEASURED: tuple[Outcome, ...] = ("passed", "failed", "inconclusive", "recorded")


@dataclass(frozen=True)
class Estimate:
    """Seconds that a case is expected to take with everything in the store; None: not known.

    `runs`: how many earlier cases it is the median of; 0 when it is taken from the model's other
    batch sizes.
    """

    work_s: float | None
    runs: int


def estimates(
    cases: Sequence[Case], settings: Settings, *, images: int | None
) -> dict[Case, Estimate]:
    """Estimate each case; `images`: how many this run uses, None when that is not known."""
    past: dict[Case, list[float]] = {}
    for records in _newest(settings.runs):
        for one in records.cases:
            if _is_like(records, one, settings):
                case = Case(one.model, one.batch_size, one.target, one.check)
                past.setdefault(case, []).append(work_s(one, images))
    each = {}
    for case in cases:
        exact = past.get(case, [])
        near = exact or [
            seconds
            for other, values in past.items()
            if (other.model, other.target, other.check) == (case.model, case.target, case.check)
            for seconds in values
        ]
        each[case] = Estimate(statistics.median(near) if near else None, len(exact))
    return each


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


def _is_like(records: RunRecords, case: CaseLine, settings: Settings) -> bool:
    """Return whether a case ran here as one of now would, with the same budget and precision."""
    if case.provenance != settings.provenance or case.outcome not in _MEASURED:
        return False
    if case.machine.hostname != socket.gethostname():
        return False
    given = records.run.settings if records.run else {}
    precision = given.get("timing_precision", given.get("precision"))  # its older name
    timing = (given.get("budget"), precision)
    return case.check == "accuracy" or timing == (settings.budget, settings.timing_precision)


def work_s(case: CaseLine, images: int | None) -> float:
    """Seconds of a case without what it built and waited for; inference scales with `images`."""
    count = case.images.count if case.images else 0
    scale = images / count if images and count > 0 else 1.0
    seconds = case.seconds
    for one in case.stages:
        if one.stage in _NOT_WORK:
            seconds -= one.seconds
        elif one.stage is Stage.INFER:
            seconds += one.seconds * (scale - 1.0)
    return max(0.0, seconds)
