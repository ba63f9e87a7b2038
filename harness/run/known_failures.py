"""Known failures of the catalog: what one excuses, and how strictly.

A known failure names a case and a stage. The case is excused when it fails at that stage; when it
fails at another, or passes, it fails the run. An error that says nothing of the model (no device,
no images) leaves the declaration open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from harness.base.errors import REMEMBERED
from harness.base.stages import Stage
from harness.base.terms import Outcome
from harness.catalog.schema import Catalog, KnownFailure
from harness.judge.causes import says_nothing_of_the_model
from harness.judge.run_checks import OUTCOME_OF
from harness.plan import Case
from harness.records.observed import ErrorInfo
from harness.records.verdicts import Verdict


@dataclass(frozen=True)
class Declared:
    """What the catalog declares of one case: an excuse, or the one that ended last."""

    excuse: KnownFailure | None = None
    ended: KnownFailure | None = None


@dataclass(frozen=True)
class CaseEnd:
    """How a case ended. `excused`: at the declared stage; `broken`: against the declaration."""

    outcome: Outcome
    sentence: str
    excused: bool = False
    broken: bool = False


def declared(catalog: Catalog, case: Case, today: date | None = None) -> Declared:
    """Return what the catalog declares of a case on a day (UTC)."""
    today = today or datetime.now(UTC).date()
    matching = [known for known in catalog.known_failures if known.matches(case.id, case.check)]
    for known in matching:
        if not known.expired(today):
            return Declared(excuse=known)
    return Declared(ended=max(matching, key=lambda known: known.expires or today, default=None))


def ending(error: ErrorInfo | None, verdict: Verdict | None, known: Declared) -> CaseEnd:
    """Return how a case ended, with what is declared of it applied."""
    plain = _plain(error, verdict)
    excuse, ended = known.excuse, known.ended
    if excuse is None:
        if ended is not None and plain.outcome in ("failed", "error"):
            sentence = f"{plain.sentence}; its excuse ({ended.link}) ended on {ended.expires}"
            return CaseEnd(plain.outcome, sentence)
        return plain
    stage = error.stage if error is not None else None
    if plain.outcome == "failed":
        stage = Stage.VERDICT
    elif error is None and verdict is None:
        return plain
    if stage == excuse.stage:
        sentence = f"failed as declared ({excuse.link}): {plain.sentence}"
        return CaseEnd("known_failure", sentence, excused=True)
    before_the_model = error is not None and says_nothing_of_the_model(error)
    undecided = plain.outcome == "inconclusive" and excuse.stage == Stage.VERDICT
    if before_the_model or undecided:
        open_ = f"declared to fail at {excuse.stage} ({excuse.link}), which stays open"
        return CaseEnd(plain.outcome, f"{plain.sentence}; {open_}")
    happened = f"it failed at {stage}" if stage else "it did not fail"
    sentence = (
        f"declared to fail at {excuse.stage} ({excuse.link}), but {happened}: {plain.sentence}. "
        "Change known_failures in the catalog"
    )
    return CaseEnd("failed", sentence, broken=True)


def _plain(error: ErrorInfo | None, verdict: Verdict | None) -> CaseEnd:
    if error is not None:
        again = REMEMBERED if error.remembered else ""
        return CaseEnd("error", f"[{error.stage}] {error.message}{again}")
    if verdict is None:
        return CaseEnd("error", "the case ended without a verdict")
    return CaseEnd(OUTCOME_OF[verdict.kind], verdict.sentence)
