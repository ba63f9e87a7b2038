"""The usual mistakes, tried one by one: in the input, in the order of results, in the labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.base.errors import HarnessError
from harness.diagnosis import pairing
from harness.diagnosis.agreement import CELLS, Agreement, agree, outputs
from harness.diagnosis.evidence import Evidence, best_class, spread
from harness.diagnosis.pairing import CERTAIN, RESTORED, Index, Predicted
from harness.diagnosis.suspects import Pictures, Suspect, suspects
from harness.diagnosis.words import COMPILED, EAGER, RIGHT, About, Restored
from harness.targets.protocol import Float32, Session

MORE_FOR_LABELS = 4  # times as many images where only labels can tell: they tell less of each
LABELS_RESTORED = 0.8  # of the score that was expected
NEARLY_ALL = 0.9  # of the images, where padding took the results of a few
LABELS_TELL = 0.95  # of that score: nearer to it a few dozen images say nothing
ORDERS_SHOWN = 3
# A rearranged output is looked for among the reference's within at least this relative L2.
_ROW_BOUND = 1e-3

Bools = npt.NDArray[np.bool_]


# On the compiled model, against the logits of the reference --------------------------------


@dataclass
class _Comparison:
    """Suspects held against the reference's logits; `best` is the one that comes nearest."""

    evidence: Evidence
    reference: Float32
    before: Agreement
    rows: list[list[str]]
    best: Restored | None = None
    _nearest: float = float("inf")

    def hold(self, name: str, agreement: Agreement, about: About) -> None:
        """Note what a suspect restores."""
        first = next(iter(self.evidence.logits))
        within = agreement.within(self.evidence.bound)
        gained = agreement.equal - self.before.equal >= max(4, len(self.evidence.index) // 4)
        nearly = agreement.share >= RESTORED and gained
        self.rows.append(
            [name, *agreement.cells(), "yes" if within else "nearly" if nearly else ""]
        )
        if not (within or nearly) or agreement.relative_l2 >= self._nearest:
            return
        what = f"restores agreement with {first}"
        if not within:
            what = (
                f"gives {agreement.equal} of {agreement.images} predictions of {first} back, "
                "but not the logits"
            )
        self.best, self._nearest = Restored(name, what, about), agreement.relative_l2


def input_suspects(
    evidence: Evidence, session: Session, as_fed: Float32, reference: Float32, *, same: bool
) -> None:
    """Try mistakes in the input, and orders of the output, against the reference's logits.

    `same`: whether what is fed is what the catalog asks for.
    """
    before, findings = agree(as_fed, reference), evidence.findings
    trial = _Comparison(evidence, reference, before, [["as it was run", *before.cells(), ""]])
    mapping = pairing.matched(as_fed, reference, max(evidence.bound, _ROW_BOUND))
    if mapping is not None:
        known = np.flatnonzero(mapping >= 0)
        labels = evidence.labels[evidence.index]
        name = pairing.describe(mapping, evidence.names, labels, evidence.case.case.batch_size)
        trial.hold(name, agree(as_fed[known], reference[mapping[known]]), About.ORDER)
    for shift in (1, -1):
        name = f"outputs shifted by one class ({shift:+d})"
        trial.hold(name, agree(np.roll(as_fed, shift, axis=1), reference), About.LABELS)
    if not same:
        findings.fed = ""  # until a mistake is found that makes it
        trial.hold(RIGHT, agree(evidence.logits[COMPILED], reference), About.INPUT)
    for suspect, images in _inputs_of_suspects(evidence, evidence.pictures, trial.rows):
        if np.array_equal(images, evidence.pictures.fed):
            findings.fed = suspect.name
        elif trial.best is None or trial.best.about is not About.ORDER:
            # Where the order is at fault, what was fed is right: the rest would be in vain.
            trial.hold(suspect.name, agree(outputs(session, images), reference), About.INPUT)
    evidence.section(
        f"Usual suspects on the compiled model, {len(evidence.index)} images against "
        f"{next(iter(evidence.logits))}",
        ["suspect", *CELLS, "restores it"],
        trial.rows,
    )
    findings.restored = trial.best


def _inputs_of_suspects(
    evidence: Evidence, pictures: Pictures, rows: list[list[str]]
) -> Iterator[tuple[Suspect, Float32]]:
    """Yield each suspect's input, those left out that change nothing; failures become rows."""
    seen = [evidence.input] if pictures is evidence.pictures else [pictures.fed]
    spare = [""] * (len(rows[0]) - 2)
    for suspect in suspects(evidence.case.model, evidence.case.bench.catalog):
        try:
            evidence.deadline.check()
            images = suspect.make(pictures)
        except HarnessError as error:
            rows.append([suspect.name, f"could not be tried: {error.message}", *spare])
            continue
        if any(np.array_equal(images, one) for one in seen):
            continue
        seen.append(images)
        yield suspect, images


# On the compiled model, against the labels --------------------------------------------------


def label_suspects(evidence: Evidence, session: Session) -> None:
    """Try mistakes in the input against the labels: compiled model and reference agree, so that
    the same mistake was made before or in both.
    """
    pairs, expected = _pairs(evidence), evidence.expected_score
    if pairs is None or any(_score_restored(pairs, c, expected) for _, c in _shifts(pairs)):
        return
    known = pairs.eager >= 0
    if known.any() and np.mean((pairs.compiled == pairs.eager)[known]) < RESTORED:
        return  # the run's own predictions are not those of now: see `paired`
    if np.mean(pairs.compiled == pairs.label) >= LABELS_TELL * expected:
        text = "not tried: the score is too near what is expected for a few images to tell"
        if not expected:
            text = "not tried: nothing says which score to expect"
        evidence.failed.append(("input suspects against the labels", text))
        return
    count = min(len(evidence.images), MORE_FOR_LABELS * evidence.count)
    index = np.array(spread(len(evidence.images), count, set()), np.int64)
    pictures, _ = evidence.load(index)
    labels = evidence.labels[index]
    before = best_class(outputs(session, pictures.fed)) == labels
    rows = [["as it was run", f"{np.count_nonzero(before)} of {count}", ""]]
    best: tuple[int, str] | None = None
    for suspect, images in _inputs_of_suspects(evidence, pictures, rows):
        after = best_class(outputs(session, images)) == labels
        restores = _restores_score(before, after, expected)
        correct = int(np.count_nonzero(after))
        rows.append([suspect.name, f"{correct} of {count}", "yes" if restores else ""])
        if restores and (best is None or correct > best[0]):
            best = (correct, suspect.name)
    evidence.section(
        f"Usual suspects on the compiled model, {count} images against their labels",
        ["suspect", "top-1", "restores it"],
        rows,
    )
    if best is not None:
        evidence.findings.restored = Restored(best[1], "restores the score", About.INPUT)


# On the predictions that the run kept ------------------------------------------------------


def paired(evidence: Evidence) -> None:
    """Try labels shifted by one, and images in another order, on what the run predicted."""
    pairs, expected = _pairs(evidence), evidence.expected_score
    if pairs is None or not len(pairs.compiled):
        raise HarnessError("there are no predictions to pair")
    known = pairs.eager >= 0

    def row(name: str, compiled: Index, restores: bool) -> list[str]:
        eager = np.count_nonzero((compiled == pairs.eager) & known)
        return [
            name,
            f"{np.count_nonzero(compiled == pairs.label)} of {len(compiled)}",
            f"{eager} of {np.count_nonzero(known)}" if known.any() else "",
            "yes" if restores else "",
        ]

    rows = [row("as it was run", pairs.compiled, False)]
    restoring: list[tuple[float, Restored]] = []
    for name, compiled in _shifts(pairs):
        restores = _score_restored(pairs, compiled, expected)
        rows.append(row(name, compiled, restores))
        if restores:
            score = float(np.mean(compiled == pairs.label))
            restoring.append((score, Restored(name, "restores the score", About.LABELS)))
    orders = []
    for name, order in pairing.orders(pairs.names, pairs.label, evidence.case.case.batch_size):
        compiled = pairs.compiled[order]
        if known.any():
            before, after = (
                ((one == pairs.eager) & known)[known] for one in (pairs.compiled, compiled)
            )
            score, what = float(np.mean(after)), "restores agreement with eager PyTorch"
            restores = score >= RESTORED or _nearly(order, after, known)
            restores = restores and pairing.gained(before, after) <= CERTAIN
        else:
            score, what = float(np.mean(compiled == pairs.label)), "restores the score"
            restores = _score_restored(pairs, compiled, expected)
        orders.append((score, row(name, compiled, restores)))
        if restores:
            restoring.append((score, Restored(name, what, About.ORDER)))
    orders.sort(key=lambda one: -one[0])
    evidence.section(
        f"Labels and order over {len(pairs.compiled)} images: the best {ORDERS_SHOWN} of "
        f"{len(orders)} orders",
        ["suspect", "equal to the label", "equal to eager", "restores it"],
        rows + [one for _, one in orders[:ORDERS_SHOWN]],
    )
    if restoring and evidence.findings.restored is None:
        evidence.findings.restored = max(restoring, key=lambda one: one[0])[1]


def count_unrepeatable(evidence: Evidence) -> None:
    """Count images that are classified otherwise now than in the run: it cannot be repeated."""
    recorded = evidence.predicted
    if recorded is None or COMPILED not in evidence.logits:
        return
    if not np.array_equal(evidence.pictures.fed, evidence.input):
        return  # the stages were given something else than the run
    then = dict(zip(recorded.names, recorded.compiled.tolist(), strict=True))
    now = best_class(evidence.logits[COMPILED]).tolist()
    evidence.findings.unrepeatable = sum(
        then.get(name, -1) != best for name, best in zip(evidence.names, now, strict=True)
    )


def _pairs(evidence: Evidence) -> Predicted | None:
    """Return the predictions of the run, or of the few images where the run kept none."""
    if evidence.predicted is not None:
        return evidence.predicted
    if COMPILED not in evidence.logits:
        return None
    eager = evidence.logits.get(EAGER)
    count = len(evidence.index)
    return Predicted(
        tuple(evidence.names),
        evidence.labels[evidence.index],
        best_class(evidence.logits[COMPILED]),
        np.full(count, -1) if eager is None else best_class(eager),
    )


def _shifts(pairs: Predicted) -> Iterator[tuple[str, Index]]:
    for shift in (1, -1):
        yield f"labels shifted by one ({-shift:+d})", pairs.compiled + shift


def _score_restored(pairs: Predicted, compiled: Index, expected: float) -> bool:
    return _restores_score(pairs.compiled == pairs.label, compiled == pairs.label, expected)


def _restores_score(before: Bools, after: Bools, expected: float) -> bool:
    enough = np.count_nonzero(after) >= LABELS_RESTORED * expected * len(after)
    return bool(enough and pairing.gained(before, after) <= CERTAIN)


def _nearly(order: Index, after: Bools, known: Bools) -> bool:
    """Whether all is restored but the rows of a partial batch's padding, which no order can."""
    possible = (order != np.arange(len(order)))[known]
    enough = np.mean(after) >= NEARLY_ALL
    return bool(enough and possible.any() and np.mean(after[possible]) >= RESTORED)
