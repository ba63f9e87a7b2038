"""Rules over several cases: ratios between chips, and one artifact for both checks."""

from __future__ import annotations

from collections.abc import Mapping

from harness.base.terms import Provenance
from harness.catalog.schema import Baseline, RatioRule
from harness.judge import statistics, wording
from harness.judge.shared import require
from harness.records.measurements import Problem, ProblemCode
from harness.records.verdicts import FigureName, Reference, Verdict


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
    them against the best figure; the caller chooses `other`. A size that gave no figure might have
    been the best: without it the rule may be reached, but is not missed.

    Args:
        measured: frames a second of one `other.unit` by batch size that was asked for; None where
            no figure counts.
        other: None where no comparable figure exists: then nothing is judged.
        why_none: why not.
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
    lost = [size for size in measured if size not in known]
    without = f"{wording.sizes_of(lost)} gave no figure that counts"
    if not known:
        return Verdict("INCONCLUSIVE", without, "ratio", "times", None, reference, allowed)
    fps = max(known.values())
    asked = statistics.exact(rule.at_least) * statistics.exact(other.fps)
    good = statistics.exact(fps) >= asked
    sentence = wording.ratio(known, len(measured), other, rule)
    if not good and lost:
        sentence += f", but this decides nothing: {without}"
    return Verdict(
        kind="PASS" if good else "INCONCLUSIVE" if lost else "FAIL",
        sentence=sentence,
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


def judge_same_artifact(digests: Mapping[str, str], provenance: Provenance) -> Verdict:
    """Judge whether accuracy and throughput of one case ran the same compiled file: a figure of
    one file says nothing about another. `digests`: sha256 of what each check ran.
    """
    same = len(set(digests.values())) == 1
    problems = () if same else (Problem(ProblemCode.OTHER_ARTIFACT, {**digests}),)
    allowed = "accuracy and throughput name the same compiled file"
    return Verdict(
        kind="PASS" if same else "FAIL",
        sentence=wording.problems_text(problems) or allowed,
        rule="same-artifact",
        unit="",
        measured=None,
        reference=Reference(kind="none", provenance=provenance),
        allowed=allowed,
        problems=problems,
    )
