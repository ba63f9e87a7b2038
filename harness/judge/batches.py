"""Consistency over batch sizes: the records of a model's finished cases -> a verdict.

Accuracy may not depend on the batch size. A single case cannot know; the run's predictions do.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import RecordError
from harness.judge.verdicts import Answer, BatchPass, judge_batch_consistency, sizes_of
from harness.records.lines import CaseLine
from harness.records.values import Verdict


def judge_batch_sizes(directory: Path, cases: Sequence[CaseLine]) -> Verdict | None:
    """The accuracy cases of one model on one target, whose predictions lie in a run's directory.

    None where they left none: there is nothing to judge, and the cases themselves say why. What
    the catalog declares to fail is left out, and named: a known failure fails no run.

    Raises:
        RecordError: predictions that the records name cannot be read.
        ProvenanceError: the cases have several provenances.
    """
    known = {case.batch_size for case in cases if case.outcome == "known_failure"}
    passes = {}
    for case in cases:
        if case.batch_size in known:
            continue
        answers = _predictions(directory, case)
        if answers is not None:
            passes[case.batch_size] = BatchPass(case.provenance, answers, _excused(case))
    if not passes:
        return None
    note = f"left out as known to fail: {sizes_of(known)}" if known else ""
    return judge_batch_consistency(passes, note=note)


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
    """What `harness.measure.accuracy.Tally.write` kept: of each image its label and the best class.

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
