"""What no single case can know, judged over a run's records when it ends.

Accuracy may not depend on the batch size (guides 000 and 003), and one chip's throughput must
reach a multiple of another's where a guide says so (guide 001). The results are lines of the
records, beside those of the cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from harness import batches, verdicts
from harness.catalog import Baseline, Catalog, Model, RatioRule
from harness.causes import strange_times, wrong_outputs
from harness.errors import HarnessError
from harness.records import CaseLine, RunCheckLine, RunRecords, VerdictInfo
from harness.verdicts import Verdict

BATCH_SIZES = "batch sizes"
RATIO = "ratio"
SAME_ARTIFACT = "same artifact"
CheckOutcome = Literal["passed", "failed", "inconclusive", "recorded"]
OUTCOME_OF: dict[str, CheckOutcome] = {
    "PASS": "passed",
    "FAIL": "failed",
    "INCONCLUSIVE": "inconclusive",
    "RECORDED": "recorded",
}


def run_checks(records: RunRecords, catalog: Catalog) -> tuple[RunCheckLine, ...]:
    """The checks of a run whose cases have ended.

    One that cannot be judged (predictions that cannot be read) is a failed check without a
    verdict, and costs no other.
    """
    run = records.run.run if records.run is not None else ""
    return (
        *_batch_sizes(records, run),
        *_same_artifact(records, run),
        *_ratios(records, catalog, run),
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
            verdict = batches.judge_batch_sizes(records.directory, cases)
        except HarnessError as error:
            why = error.message.replace(f"{records.directory}{os.sep}", "")
            yield _line(run, BATCH_SIZES, cases[0], None, why=f"could not be judged: {why}")
            continue
        if verdict is not None:
            yield _line(run, BATCH_SIZES, cases[0], verdict)


def _same_artifact(records: RunRecords, run: str) -> Iterator[RunCheckLine]:
    """Accuracy and throughput of a case must speak of the same compiled file."""
    digests: dict[str, dict[str, CaseLine]] = {}
    for case in records.cases:
        if any(ref.kind == "compiled" for ref in case.artifacts):
            digests.setdefault(case.case, {})[case.check] = case
    for found in digests.values():
        if len(found) == 2:
            verdict = verdicts.judge_same_artifact(
                {check: _compiled(case) for check, case in found.items()},
                found["accuracy"].provenance,
            )
            if verdict.kind != "PASS":  # what goes without saying is said when it fails
                yield _line(run, SAME_ARTIFACT, found["accuracy"], verdict)


def _compiled(case: CaseLine) -> str:
    return next(ref.digest for ref in reversed(case.artifacts) if ref.kind == "compiled")


def _ratios(records: RunRecords, catalog: Catalog, run: str) -> Iterator[RunCheckLine]:
    for name, target in dict.fromkeys((case.model, case.target) for case in records.cases):
        model = catalog.models.get(name)
        measured = [
            case
            for case in records.cases
            if (case.model, case.target, case.check) == (name, target, "throughput")
            and case.measured is not None
            and case.outcome in ("passed", "failed", "recorded")
            # The speed of a wrong model counts for nothing, and so does one that is told wrongly.
            and not (wrong_outputs(case) or strange_times(case))
        ]
        if model is None or not measured:
            continue
        for rule in model.ratios:
            # A published figure is held against real measurements alone.
            if rule.target != target or measured[0].provenance != "real":
                continue
            yield _line(run, RATIO, measured[0], _ratio(model, measured, rule), to=rule.to)


def _ratio(model: Model, measured: list[CaseLine], rule: RatioRule) -> Verdict:
    best = max(measured, key=lambda case: case.measured or 0.0)
    figures = model.figures(rule.to)
    other: Baseline | None = max(
        (one for one in figures if one.comparable), key=lambda one: one.fps, default=None
    )
    why = next((one.not_comparable for one in figures), f"no figure of {rule.to} is published")
    return verdicts.judge_ratio(
        best.measured or 0.0, best.batch_size, other, rule, provenance="real", why_none=why
    )


def _line(
    run: str, name: str, case: CaseLine, verdict: Verdict | None, *, to: str = "", why: str = ""
) -> RunCheckLine:
    """A check's line; `why` it failed where there is no verdict."""
    line = RunCheckLine(
        run=run,
        name=name,
        subject=(
            case.case
            if name == SAME_ARTIFACT
            else f"{case.model} on {case.target}" + (f" to {to}" if to else "")
        ),
        model=case.model,
        target=case.target,
        provenance=case.provenance,
        outcome="failed",
        sentence=why,
    )
    if verdict is None:
        return line
    return line.model_copy(
        update={
            "outcome": OUTCOME_OF[verdict.kind],
            "sentence": verdict.sentence,
            "unit": verdict.unit,
            "measured": verdict.measured,
            "reference": verdict.reference,
            "verdict": VerdictInfo(
                kind=verdict.kind,
                sentence=verdict.sentence,
                rule=verdict.rule,
                figures=dict(verdict.figures),
            ),
        }
    )
