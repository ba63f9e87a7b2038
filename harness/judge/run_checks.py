"""What no single case can know, judged over a run's records when it ends.

Accuracy may not depend on the batch size (guides 000 and 003), and one chip's throughput must
reach a multiple of another's where a guide says so (guide 001). The results are lines of the
records, beside those of the cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal

from harness.base.errors import HarnessError
from harness.catalog.schema import Baseline, Catalog, Model, RatioRule
from harness.judge import batches, verdicts
from harness.judge.causes import strange_times, wrong_outputs
from harness.records.lines import CaseLine, RunCheckLine
from harness.records.reader import RunRecords
from harness.records.values import Verdict

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
                yield _line(run, RATIO, real[0], _ratio(model, cases, real, rule), to=rule.to)


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
    return verdicts.judge_ratio(measured, other, rule, provenance=real[0].provenance, why_none=why)


def _speed(case: CaseLine, unit: str) -> float | None:
    """Frames a second of a chip or a card; None where they do not count: not as precise as was
    asked for, on a device that was not its own, of a wrong model, with times that cannot be right,
    or of a card whose chips nobody counted. What a case is judged by is a card's where its own
    figure is: this is not.
    """
    data = case.measurement
    fps, setup = data.get("fps"), data.get("setup")
    chips = setup.get("chips") if unit == "card" and isinstance(setup, dict) else 1
    counts = (
        case.outcome in ("passed", "failed", "recorded")
        and data.get("precision_reached") is True
        and not (wrong_outputs(case) or strange_times(case))
    )
    if not counts or not isinstance(fps, int | float) or type(chips) is not int:
        return None
    return fps * chips


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
            "verdict": Verdict(
                kind=verdict.kind,
                sentence=verdict.sentence,
                rule=verdict.rule,
                figures=dict(verdict.figures),
            ),
        }
    )
