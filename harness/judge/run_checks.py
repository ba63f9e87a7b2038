"""What no single case can know, judged over a run's records when it ends.

Accuracy may not depend on the batch size, one chip's throughput must reach a multiple of
another's where a guide says so, and both checks of a case must have run one compiled file. The
results are lines of the records, beside those of the cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.base.terms import VerdictKind
from harness.catalog.schema import Baseline, Catalog, Model, RatioRule
from harness.judge import wording
from harness.judge.batch_sizes import BatchPass, judge_batch_sizes
from harness.judge.cases import judge_ratio, judge_same_artifact
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.predictions import read_predictions
from harness.records.reader import RunRecords
from harness.records.verdicts import Verdict

CheckOutcome = Literal["passed", "failed", "inconclusive", "recorded"]
OUTCOME_OF: dict[VerdictKind, CheckOutcome] = {
    "PASS": "passed",
    "FAIL": "failed",
    "INCONCLUSIVE": "inconclusive",
    "RECORDED": "recorded",
}


def run_checks(records: RunRecords, catalog: Catalog | None) -> tuple[RunCheckLine, ...]:
    """Judge what spans the cases of a run that has ended; without a catalog, no ratios.

    A check that cannot be judged (predictions that cannot be read) is a failed one without a
    verdict, and costs no other.
    """
    run = records.run.run if records.run is not None else ""
    return (
        *_batch_sizes(records, run),
        *_same_artifact(records, run),
        *(_ratios(records, catalog, run) if catalog is not None else ()),
    )


def _batch_sizes(records: RunRecords, run: str) -> Iterator[RunCheckLine]:
    asked: dict[tuple[str, str], set[int]] = {}
    for planned in records.plan:
        if planned.check == "accuracy":
            asked.setdefault((planned.model, planned.target), set()).add(planned.batch_size)
    groups: dict[tuple[str, str], list[CaseLine]] = {}
    for case in records.cases:
        if case.check == "accuracy":
            groups.setdefault((case.model, case.target), []).append(case)
    for key, cases in groups.items():
        if len(asked.get(key, ())) < 2:
            continue  # one batch size was asked for: there is nothing that could differ
        try:
            verdict = compare_batch_sizes(records.directory, cases)
        except HarnessError as error:
            why = f"could not be judged: {error.message}"
            yield _line(run, CheckName.BATCH_SIZES, cases[0], None, why=why)
            continue
        if verdict is not None:
            yield _line(run, CheckName.BATCH_SIZES, cases[0], verdict)


def compare_batch_sizes(directory: Path, cases: Sequence[CaseLine]) -> Verdict | None:
    """Judge the accuracy cases of one model on one target, by the predictions in a run's directory.

    None where they left none: there is nothing to judge, and the cases themselves say why. What
    the catalog declares to fail is left out, and named: a known failure fails no run.

    Raises:
        RecordError: predictions that the records name cannot be read.
        ProvenanceError: the cases have several provenances.
    """
    known = {case.batch_size for case in cases if case.outcome == "known_failure"}
    passes = {}
    for case in cases:
        measured = case.accuracy
        if case.batch_size in known or measured is None or not measured.predictions_file:
            continue
        flips = () if measured.fidelity is None else measured.fidelity.flips
        passes[case.batch_size] = BatchPass(
            case.provenance,
            read_predictions(directory, measured.predictions_file),
            frozenset(flip.name for flip in flips if flip.excused),
        )
    if not passes:
        return None
    note = f"left out as known to fail: {wording.sizes_of(known)}" if known else ""
    return judge_batch_sizes(passes, note=note)


def _same_artifact(records: RunRecords, run: str) -> Iterator[RunCheckLine]:
    cases: dict[str, dict[str, CaseLine]] = {}
    for case in records.cases:
        if _compiled(case):
            cases.setdefault(case.case, {})[case.check] = case
    for checks in cases.values():
        if len(checks) == 2:
            digests = {check: _compiled(case) for check, case in checks.items()}
            verdict = judge_same_artifact(digests, checks["accuracy"].provenance)
            if verdict.kind != "PASS":  # what goes without saying is said when it fails
                yield _line(run, CheckName.SAME_ARTIFACT, checks["accuracy"], verdict)


def _compiled(case: CaseLine) -> str:
    """Return the digest of the compiled model that a case ran last; empty where it had none."""
    digests = [ref.digest for ref in case.artifacts if ref.stage is Stage.COMPILE]
    return digests[-1] if digests else ""


def _ratios(records: RunRecords, catalog: Catalog, run: str) -> Iterator[RunCheckLine]:
    for name, target in dict.fromkeys((case.model, case.target) for case in records.cases):
        model = catalog.models.get(name)
        cases = [
            case
            for case in records.cases
            if (case.model, case.target, case.check) == (name, target, "throughput")
            # What is declared to fail fails no run.
            and case.outcome != "known_failure"
        ]
        # A published figure is held against real measurements alone. Where there is none, the
        # cases themselves say why.
        real = [case for case in cases if case.provenance == "real" and case.measured is not None]
        if model is None or not real:
            continue
        for rule in model.ratios:
            if rule.target == target:
                verdict = _ratio(model, cases, real, rule)
                yield _line(run, CheckName.RATIO, real[0], verdict, to=rule.to)


def _ratio(
    model: Model, cases: Sequence[CaseLine], real: Sequence[CaseLine], rule: RatioRule
) -> Verdict:
    sizes = {case.batch_size for case in cases}
    figures = model.figures(rule.to)
    why = next((one.not_comparable for one in figures), f"no figure of {rule.to} is published")
    if len(sizes) == 1:
        figures = tuple(one for one in figures if one.batch_size in sizes)
        if not figures:
            why = f"no figure of {rule.to} is published at batch size {min(sizes)}"
    other: Baseline | None = max(
        (one for one in figures if one.comparable), key=lambda one: one.fps, default=None
    )
    measured: dict[int, float | None] = dict.fromkeys(sizes)
    if other is not None:
        measured |= {case.batch_size: _speed(case, other.unit) for case in real}
    return judge_ratio(measured, other, rule, provenance=real[0].provenance, why_none=why)


def _speed(case: CaseLine, unit: str) -> float | None:
    """Return the fps of a chip or a card; None where they do not count (see
    `ThroughputMeasurement.counts`), or are of a card whose chips nobody counted. What a case is
    judged by is a card's where its own figure is: this is not.
    """
    measured = case.throughput
    if measured is None or not measured.counts:
        return None
    if case.outcome not in ("passed", "failed", "recorded"):
        return None
    chips = measured.setup.chips if unit == "card" else 1
    return None if chips is None else measured.timing.fps * chips


def _line(
    run: str,
    name: CheckName,
    case: CaseLine,
    verdict: Verdict | None,
    *,
    to: str = "",
    why: str = "",
) -> RunCheckLine:
    """Make a check's line; `why` says what failed where there is no verdict."""
    subject = f"{case.model} on {case.target}" + (f" to {to}" if to else "")
    return RunCheckLine(
        run=run,
        name=name,
        subject=case.case if name is CheckName.SAME_ARTIFACT else subject,
        model=case.model,
        target=case.target,
        provenance=case.provenance,
        outcome="failed" if verdict is None else OUTCOME_OF[verdict.kind],
        sentence=why if verdict is None else verdict.sentence,
        verdict=verdict,
    )
