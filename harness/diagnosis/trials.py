"""The usual mistakes, tried one by one: in the input, in the order of results, in the labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from harness.base.errors import HarnessError
from harness.diagnosis import pairing
from harness.diagnosis.agreement import CELLS, agree
from harness.diagnosis.evidence import Evidence, best_class, spread
from harness.diagnosis.pairing import CERTAIN, RESTORED, Index, Predicted
from harness.diagnosis.suspects import Pictures, suspects
from harness.diagnosis.words import COMPILED, RIGHT, SIMPLIFIED, About, Restored
from harness.stages.inference import outputs_of
from harness.targets.protocol import Float32, Images, Session

MORE_FOR_LABELS = 4  # times as many images where only labels can tell: they tell less of each
LABELS_RESTORED = 0.8  # of the score that was expected
NEARLY_ALL = 0.9  # of the images, where padding took the results of a few
LABELS_TELL = 0.95  # of that score: nearer to it a few dozen images say nothing
ORDERS_SHOWN = 3

Bools = npt.NDArray[np.bool_]


class Trials:
    """A table of suspects with a first row that is none; `best` restores the result best."""

    def __init__(self, *cells: str) -> None:
        self.rows = [["as it was run", *cells, ""]]
        self.best: Restored | None = None
        self._score = -math.inf

    def add(
        self, suspect: Restored, score: float, cells: Sequence[str], restores: bool | str
    ) -> None:
        """Note what came of a suspect; one that `restores` something counts by its score."""
        word = restores if isinstance(restores, str) else "yes" if restores else ""
        self.rows.append([suspect.name, *cells, word])
        if restores and score > self._score:
            self.best, self._score = suspect, score


# On the compiled model ----------------------------------------------------------------------


def input_suspects(
    evidence: Evidence, session: Session, as_fed: Float32, reference: Float32
) -> None:
    """Try mistakes in the input, and outputs of other classes, against the reference's logits."""
    before, findings, pictures = agree(as_fed, reference), evidence.findings, evidence.pictures
    first = next(iter(evidence.logits))
    trials = Trials(*before.cells())

    def hold(name: str, about: About, logits: Float32) -> None:
        after = agree(logits, reference)
        gained = after.equal - before.equal >= max(4, len(evidence.index) // 4)
        restores, what = "yes", f"restores agreement with {first}"
        if not after.within(evidence.bound):
            restores = "nearly" if after.share >= RESTORED and gained else ""
            what = (
                f"gives {after.equal} of {after.images} predictions of {first} back, but not the "
                "logits"
            )
        trials.add(Restored(name, what, about), -after.relative_l2, after.cells(), restores)

    for shift in (1, -1):
        name = f"outputs shifted by one class ({shift:+d})"
        hold(name, About.LABELS, np.roll(as_fed, shift, axis=1))
    if not evidence.right_is_fed:
        findings.fed = ""  # until a mistake is found that makes it
        hold(RIGHT, About.INPUT, evidence.logits[COMPILED])
    for name, images in _inputs_of_suspects(evidence, pictures, evidence.right, trials):
        if np.array_equal(images, pictures.fed):
            findings.fed = name
        elif images.dtype == pictures.fed.dtype:
            hold(name, About.INPUT, outputs_of(session, images))
        else:
            # The compiled model normalises, perhaps with this mistake: fed with it, the ONNX file
            # gives what the compiled model gave.
            made = agree(as_fed, _simplified_outputs(evidence, images))
            what = f"makes the {SIMPLIFIED} give the same outputs: the compiled model normalises so"
            restores = "compiled in" if made.within(evidence.bound) else ""
            suspect = Restored(name, what, About.INPUT)
            trials.add(suspect, -made.relative_l2, made.cells(), restores)
    evidence.section(
        f"Usual suspects on the compiled model, {len(evidence.index)} images against {first}",
        ["suspect", *CELLS, "restores it"],
        trials.rows,
    )
    findings.restored = trials.best


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
    before = best_class(outputs_of(session, pictures.fed)) == labels
    trials = Trials(f"{np.count_nonzero(before)} of {count}")
    for name, images in _inputs_of_suspects(evidence, pictures, pictures.fed, trials):
        crops = images.dtype == pictures.fed.dtype
        # Where the compiled model normalises by itself: the file of which it was compiled.
        logits = outputs_of(session, images) if crops else _simplified_outputs(evidence, images)
        after = best_class(logits) == labels
        correct = int(np.count_nonzero(after))
        restores = _restores_score(before, after, expected)
        suspect = Restored(name, "restores the score", About.INPUT)
        trials.add(suspect, correct, [f"{correct} of {count}"], restores)
    evidence.section(
        f"Usual suspects on the compiled model, {count} images against their labels",
        ["suspect", "top-1", "restores it"],
        trials.rows,
    )
    evidence.findings.restored = trials.best


def _inputs_of_suspects(
    evidence: Evidence, pictures: Pictures, known: Images, trials: Trials
) -> Iterator[tuple[str, Images]]:
    """Yield each suspect's input, those left out that change nothing; failures become rows."""
    seen = [known]
    spare = [""] * (len(trials.rows[0]) - 2)
    model, catalog = evidence.case.model, evidence.case.bench.catalog
    for name, make in suspects(model, catalog, crops=evidence.takes_crops):
        try:
            evidence.check_time()
            images = make(pictures)
        except HarnessError as error:
            trials.rows.append([name, f"could not be tried: {error.message}", *spare])
            continue
        if not any(np.array_equal(images, one) for one in seen):
            seen.append(images)
            yield name, images


def _simplified_outputs(evidence: Evidence, images: Images) -> Float32:
    return evidence.graph_outputs(evidence.case.simplified(), np.asarray(images, np.float32))


# On the predictions that the run kept ------------------------------------------------------


def paired(evidence: Evidence) -> None:
    """Try labels shifted by one, and images in another order, on what the run predicted."""
    pairs, expected = _pairs(evidence), evidence.expected_score
    if pairs is None or not len(pairs.compiled):
        raise HarnessError("there are no predictions to pair")
    known = pairs.eager >= 0

    def cells(compiled: Index) -> list[str]:
        eager = np.count_nonzero((compiled == pairs.eager) & known)
        return [
            f"{np.count_nonzero(compiled == pairs.label)} of {len(compiled)}",
            f"{eager} of {np.count_nonzero(known)}" if known.any() else "",
        ]

    trials = Trials(*cells(pairs.compiled))
    for name, compiled in _shifts(pairs):
        suspect = Restored(name, "restores the score", About.LABELS)
        restores = _score_restored(pairs, compiled, expected)
        trials.add(suspect, np.mean(compiled == pairs.label), cells(compiled), restores)
    shifts = len(trials.rows)
    scores = []
    for name, order in pairing.orders(pairs.names, pairs.label, evidence.case.case.batch_size):
        compiled = pairs.compiled[order]
        if known.any():
            before, after = ((one == pairs.eager)[known] for one in (pairs.compiled, compiled))
            what = "restores agreement with eager PyTorch"
            restored = np.mean(after) >= RESTORED or _nearly(order, after, known)
            restored = restored and pairing.gained(before, after) <= CERTAIN
        else:
            after, what = compiled == pairs.label, "restores the score"
            restored = _score_restored(pairs, compiled, expected)
        suspect = Restored(name, what, About.ORDER)
        scores.append(float(np.mean(after)))
        trials.add(suspect, scores[-1], cells(compiled), bool(restored))
    best = sorted(range(len(scores)), key=lambda order: -scores[order])[:ORDERS_SHOWN]
    evidence.section(
        f"Labels and order over {len(pairs.compiled)} images: the best {ORDERS_SHOWN} of "
        f"{len(scores)} orders",
        ["suspect", "equal to the label", "equal to eager", "restores it"],
        trials.rows[:shifts] + [trials.rows[shifts + order] for order in best],
    )
    if evidence.findings.restored is None:
        evidence.findings.restored = trials.best


def count_unrepeatable(evidence: Evidence) -> None:
    """Count images that are classified otherwise now than in the run: it cannot be repeated."""
    recorded = evidence.predicted
    if recorded is None or COMPILED not in evidence.logits:
        return
    if not evidence.right_is_fed:
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
    eager = evidence.logits.get(evidence.reference)
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
    """Return whether all is restored but the rows of a partial batch's padding."""
    possible = (order != np.arange(len(order)))[known]
    enough = np.mean(after) >= NEARLY_ALL
    return bool(enough and possible.any() and np.mean(after[possible]) >= RESTORED)
