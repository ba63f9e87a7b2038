"""How a case ended, and what the catalog's known failures change of it.

A known failure names a case and a stage. The case is excused when it fails at that stage; when it
fails at another, or passes, it fails the run. An error that says nothing of the model (no device,
no images) leaves the declaration open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
class CaseEnd:
    """How a case ended. `broken`: against what the catalog declares of it."""

    outcome: Outcome
    sentence: str
    broken: bool = False


def today() -> date:
    return datetime.now(UTC).date()


def declared(catalog: Catalog, case: Case) -> KnownFailure | None:
    """Return what the catalog declares of a case: an excuse, or the one that ended last."""
    matching = [known for known in catalog.known_failures if known.matches(case.id, case.check)]
    holding = [known for known in matching if not known.expired(today())]
    return (
        holding[0] if holding else max(matching, key=lambda k: k.expires or today(), default=None)
    )


def case_end(
    error: ErrorInfo | None, verdict: Verdict | None, known: KnownFailure | None
) -> CaseEnd:
    """Return how a case ended, with what is declared of it applied."""
    plain = _undeclared(error, verdict)
    if known is None or (error is None and verdict is None):
        return plain
    if known.expired(today()):
        ended = f"{plain.sentence}; its excuse ({known.link}) ended on {known.expires}"
        return replace(plain, sentence=ended) if plain.outcome in ("failed", "error") else plain
    declaration = f"declared to fail at {known.stage} ({known.link})"
    stage = Stage.VERDICT if plain.outcome == "failed" else error.stage if error else None
    if stage == known.stage:
        sentence = f"failed as declared ({known.link}): {plain.sentence}"
        return CaseEnd("known_failure", sentence)
    undecided = plain.outcome == "inconclusive" and known.stage == Stage.VERDICT
    if undecided or (error is not None and says_nothing_of_the_model(error)):
        return replace(plain, sentence=f"{plain.sentence}; {declaration}, which stays open")
    happened = f"it failed at {stage}" if stage else "it did not fail"
    sentence = (
        f"{declaration}, but {happened}: {plain.sentence}. Change known_failures in the catalog"
    )
    return CaseEnd("failed", sentence, broken=True)


def _undeclared(error: ErrorInfo | None, verdict: Verdict | None) -> CaseEnd:
    if error is not None:
        again = REMEMBERED if error.remembered else ""
        outcome: Outcome = "crashed" if error.stage is Stage.WORKER else "error"
        return CaseEnd(outcome, f"[{error.stage}] {error.message}{again}")
    if verdict is None:
        return CaseEnd("error", "the case ended without a verdict")
    return CaseEnd(OUTCOME_OF[verdict.kind], verdict.sentence)
