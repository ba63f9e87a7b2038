"""Consistency over batch sizes: a finished run's records -> one verdict for each model.

Accuracy may not depend on the batch size. A single case cannot know; the run's predictions do.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.records import CaseLine, RunRecords
from harness.verdicts import Answer, BatchPass, Verdict, judge_batch_consistency


@dataclass(frozen=True)
class BatchSizes:
    """The verdict on the batch sizes of one model on one target."""

    model: str
    target: str
    verdict: Verdict
    without: tuple[int, ...]  # batch sizes that were run and left no predictions


def judge_batch_sizes(records: RunRecords) -> tuple[BatchSizes, ...]:
    """For each (model, target) whose accuracy cases left predictions, in the records' order.

    Without any, there is nothing to judge, and the cases themselves say why.

    Raises:
        RecordError: predictions that the records name cannot be read.
        ProvenanceError: one model's cases have several provenances.
    """
    groups: dict[tuple[str, str], list[CaseLine]] = {}
    for case in records.cases:
        if case.check == "accuracy":
            groups.setdefault((case.model, case.target), []).append(case)
    found = []
    for (model, target), cases in groups.items():
        passes = {}
        for case in cases:
            answers = _predictions(records.directory, case)
            if answers is not None:
                passes[case.batch_size] = BatchPass(case.provenance, answers, _excused(case))
        if not passes:
            continue
        without = sorted({case.batch_size for case in cases} - set(passes))
        found.append(BatchSizes(model, target, judge_batch_consistency(passes), tuple(without)))
    return tuple(found)


def _predictions(directory: Path, case: CaseLine) -> Mapping[str, Answer] | None:
    name = case.measurement.get("predictions_file")
    if not isinstance(name, str) or not name:
        return None
    path = directory / name
    # A NUL is in the name of no file; `resolve` would raise ValueError.
    if "\0" in name or not path.resolve().is_relative_to(directory.resolve()):
        raise RecordError(f"{case.case}: predictions outside of the run: {name!r}")
    return read_predictions(path)


def read_predictions(path: Path) -> dict[str, Answer]:
    """What `harness.accuracy.Tally.write` kept: of each image its label and the best class.

    Raises:
        RecordError: the file is absent, or not such a file.
    """
    found: dict[str, Answer] = {}
    remedy = "run the case again; its score is in the records"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream, strict=True):
                image = row["image"]
                if image is None or image in found:
                    raise RecordError(f"{path}: {image!r} is there twice", remedy=remedy)
                found[image] = Answer(int(row["label"]), int(row["top1"]), _score(row))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: {error}", remedy=remedy) from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        line = len(found) + 2
        raise RecordError(
            f"{path}: line {line} is no prediction: {error}", remedy=remedy
        ) from error
    return found


def _score(row: Mapping[str, Any]) -> float | None:
    score = float(row.get("logit1") or "nan")
    return score if math.isfinite(score) else None


def _excused(case: CaseLine) -> frozenset[str]:
    """Images whose flip against eager is within rounding, as the case's record lists them."""
    fidelity = case.measurement.get("fidelity")
    flips = fidelity.get("flips") if isinstance(fidelity, dict) else None
    return frozenset(
        str(flip.get("name"))
        for flip in (flips if isinstance(flips, list) else [])
        if isinstance(flip, dict) and flip.get("excused") is True
    )
