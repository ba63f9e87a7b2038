"""What no single case can know, judged over a run's records when it ends.

Accuracy may not depend on the batch size, one chip's throughput must reach a multiple of
another's where a guide says so, and both checks of a case must have run one compiled file. The
results are lines of the records, beside those of the cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.base.terms import Check, Provenance, VerdictKind
from harness.catalog.schema import Baseline, Catalog, Model, RatioRule
from harness.judge import statistics
from harness.judge.batch_sizes import BatchPass, judge_batch_sizes
from harness.judge.shared import require
from harness.judge.wording import apart, decimal, joined, problems_text, sizes_of
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.measurements import Problem, ProblemCode
from harness.records.observed import ArtifactRef
from harness.records.predictions import read_predictions
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName, Reference, Verdict

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
    ratios = () if catalog is None else _ratios(records, catalog)
    lines = (*_batch_sizes(records), *_same_artifact(records), *ratios)
    run = records.run.run if records.run is not None else ""
    return tuple(line.model_copy(update={"run": run}) for line in lines)  # merged cases keep theirs


def _groups(records: RunRecords, check: Check) -> list[list[CaseLine]]:
    """Return the cases of one check of each model on each target."""
    groups: dict[tuple[str, str], list[CaseLine]] = {}
    for case in records.cases:
        if case.check == check:
            groups.setdefault((case.model, case.target), []).append(case)
    return list(groups.values())


def _line(
    name: CheckName, case: CaseLine, verdict: Verdict | None, subject: str = "", why: str = ""
) -> RunCheckLine:
    """Make a check's line; `why` says what failed where there is no verdict."""
    return RunCheckLine(
        run=case.run,
        name=name,
        subject=subject or f"{case.model} on {case.target}",
        model=case.model,
        target=case.target,
        provenance=case.provenance,
        outcome="failed" if verdict is None else OUTCOME_OF[verdict.kind],
        sentence=why if verdict is None else verdict.sentence,
        verdict=verdict,
    )


# Batch sizes -------------------------------------------------------------------------------


def _batch_sizes(records: RunRecords) -> Iterator[RunCheckLine]:
    for cases in _groups(records, "accuracy"):
        asked = {
            one.batch_size
            for one in records.plan
            if (one.model, one.target, one.check) == (cases[0].model, cases[0].target, "accuracy")
        }
        if len(asked) < 2:
            continue  # there is nothing that could differ
        try:
            verdict = compare_batch_sizes(records.directory, cases)
        except HarnessError as error:
            why = f"could not be judged: {error.message}"
            yield _line(CheckName.BATCH_SIZES, cases[0], None, why=why)
        else:
            if verdict is not None:
                yield _line(CheckName.BATCH_SIZES, cases[0], verdict)


def compare_batch_sizes(directory: Path, cases: Sequence[CaseLine]) -> Verdict | None:
    """Judge the accuracy cases of one model on one target, by the predictions in a run's directory.

    None where they left none: there is nothing to judge, and the cases themselves say why. What the
    catalog declares to fail is left out, and named: a known failure fails no run. Raises
    `RecordError`: predictions that the records name cannot be read; `ProvenanceError`: the cases
    have several provenances.
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
    note = f"left out as known to fail: {sizes_of(known)}" if known else ""
    return judge_batch_sizes(passes, note=note)


# The same artifact -------------------------------------------------------------------------


def _same_artifact(records: RunRecords) -> Iterator[RunCheckLine]:
    cases: dict[str, dict[str, CaseLine]] = {}
    for case in records.cases:
        cases.setdefault(case.case, {})[case.check] = case
    for checks in cases.values():
        compiled = {check: ref for check, case in checks.items() if (ref := _compiled(case))}
        if len(compiled) == 2:
            first = checks["accuracy"]
            verdict = judge_same_artifact(compiled, first.provenance)
            if verdict.kind != "PASS":  # what goes without saying is said when it fails
                yield _line(CheckName.SAME_ARTIFACT, first, verdict, first.case)


def _compiled(case: CaseLine) -> ArtifactRef | None:
    """Return the compiled model that a case ran last."""
    return next((ref for ref in reversed(case.artifacts) if ref.stage is Stage.COMPILE), None)


def judge_same_artifact(compiled: Mapping[str, ArtifactRef], provenance: Provenance) -> Verdict:
    """Judge whether accuracy and throughput of one case ran the same compiled file: a figure of
    one file says nothing about another. Undecided where one of them was compiled anew for the
    other's, which did not load. `compiled`: what each check ran.
    """
    digests = {check: ref.digest for check, ref in compiled.items()}
    same = len(set(digests.values())) == 1
    anew = any(ref.instead_of in digests.values() for ref in compiled.values())
    code = ProblemCode.COMPILED_ANEW if anew else ProblemCode.OTHER_ARTIFACT
    problems = () if same else (Problem(code, {**digests}),)
    allowed = "accuracy and throughput name the same compiled file"
    return Verdict(
        kind="PASS" if same else "INCONCLUSIVE" if anew else "FAIL",
        sentence=problems_text(problems) or allowed,
        rule="same-artifact",
        unit="",
        measured=None,
        reference=Reference(kind="none", provenance=provenance),
        allowed=allowed,
        problems=problems,
    )


# Ratios ------------------------------------------------------------------------------------


def _ratios(records: RunRecords, catalog: Catalog) -> Iterator[RunCheckLine]:
    for group in _groups(records, "throughput"):
        model = catalog.models.get(group[0].model)
        cases = [case for case in group if case.outcome != "known_failure"]
        # A published figure is held against real measurements alone. Where there is none, the
        # cases themselves say why.
        real = [case for case in cases if case.provenance == "real" and case.measured is not None]
        if model is None or not real:
            continue
        for rule in model.ratios:
            if rule.target == real[0].target:
                subject = f"{model.id} on {rule.target} to {rule.to}"
                yield _line(CheckName.RATIO, real[0], _ratio(model, cases, real, rule), subject)


def _ratio(
    model: Model, cases: Sequence[CaseLine], real: Sequence[CaseLine], rule: RatioRule
) -> Verdict:
    sizes = {case.batch_size for case in cases}
    chip = next((case.throughput.setup.chip for case in real if case.throughput), "")
    own = model.figures(rule.target)
    if own and not any(one.is_of(chip) for one in own):
        why = f"the rule is for a {own[0].chip}, this is a {chip}"
        return judge_ratio({}, None, rule, provenance=real[0].provenance, why_none=why)
    figures = model.figures(rule.to)
    why = next((one.not_comparable for one in figures), f"no figure of {rule.to} is published")
    if len(sizes) == 1:
        figures = tuple(one for one in figures if one.batch_size in sizes)
        if not figures:
            why = f"no figure of {rule.to} is published at batch size {min(sizes)}"
    other = max((one for one in figures if one.comparable), key=lambda one: one.fps, default=None)
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


def judge_ratio(
    measured: Mapping[int, float | None],
    other: Baseline | None,
    rule: RatioRule,
    *,
    provenance: Provenance,
    why_none: str = "",
) -> Verdict:
    """Judge what one chip reaches against another's published figure (guide 001, 7.4).

    Guide 000 tabulates such ratios at each batch size, and of the best size of each chip. So a run
    of one batch size is held against the figure at that size, and a run of several by the best of
    them against the best figure; the caller chooses `other`, None with `why_none` where no figure
    is comparable. `measured`: frames a second of one `other.unit` by batch size, None where no
    figure counts. Such a size might have been the best: without it the rule may be reached, but is
    not missed.
    """
    allowed = f"at least {rule.at_least:g} times the figure of {rule.to} ({rule.source})"
    if other is None:
        none = Reference(kind="none", note=why_none, provenance=provenance)
        sentence = f"not comparable: {why_none}"
        return Verdict("RECORDED", sentence, "ratio", "times", None, none, allowed)
    require(provenance, f"the figure of {other.source}", other.provenance)
    source = f"{rule.source}; {other.describe()}"
    reference = Reference("ratio", rule.at_least, "times", source, provenance=other.provenance)
    known = {size: fps for size, fps in measured.items() if fps is not None}
    without = f"{sizes_of(measured.keys() - known.keys())} gave no figure that counts"
    if not known:
        return Verdict("INCONCLUSIVE", without, "ratio", "times", None, reference, allowed)
    fps, size = max((fps, size) for size, fps in known.items())
    good = statistics.exact(fps) >= statistics.exact(rule.at_least) * statistics.exact(other.fps)
    undecided = not good and len(known) < len(measured)
    best = f", the best of {', '.join(map(str, sorted(known)))}," if len(measured) > 1 else ""
    sentence = (
        f"{apart(fps)} fps a {other.unit} at batch size {size}{best} are "
        f"{apart(fps / other.fps, rule.at_least, digits=3)} times the {decimal(other.fps)} of "
        f"{other.chip} at {other.batch_size}; {rule.at_least:g} times are asked for"
    )
    return Verdict(
        kind="PASS" if good else "INCONCLUSIVE" if undecided else "FAIL",
        sentence=joined(sentence, f"this decides nothing: {without}" if undecided else ""),
        rule="ratio",
        unit="times",
        measured=fps / other.fps,
        reference=reference,
        allowed=allowed,
        figures={
            FigureName.RATIO: round(fps / other.fps, 4),
            FigureName.UNIT_FPS: fps,
            FigureName.OTHER_FPS: other.fps,
        },
    )
