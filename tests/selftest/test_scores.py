"""Accuracy: scores, joins by name, padding, fidelity."""

import csv
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure import accuracy
from harness.records.measurements import NO_CLASS, ProblemCode
from harness.stages.inference import Predictions
from tests.selftest import fakes
from tests.selftest.fakes import predictions
from tests.selftest.image_folders import image_set


def tally(predicted, images, offset=0):
    return accuracy.tally(predicted, images, offset)


def measured(predicted, images, reference, bound=3e-2):
    return fakes.measured(
        predicted, images, 0, provenance="rehearsal", reference=reference, fidelity_bound=bound
    )


def compare(predicted, reference, images, bound=3e-2):
    fidelity = measured(predicted, images, reference, bound).fidelity
    assert fidelity is not None
    return fidelity


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# Scores ------------------------------------------------------------------------------------


@given(st.data())
def test_scores_equal_counting_by_hand(data):
    classes = data.draw(st.integers(2, 12))
    n = data.draw(st.integers(1, 20))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    # Few values, so that ties occur: the lower index wins.
    row = st.lists(st.integers(-2, 2), min_size=classes, max_size=classes)
    values = data.draw(st.lists(row, min_size=n, max_size=n))
    images = image_set(labels)
    scores = tally(Predictions(images.names, np.array(values, np.float32)), images).scores
    for k in range(1, 6):
        by_hand = 0
        for row, label in zip(values, labels, strict=True):
            order = sorted(range(classes), key=lambda c: (-row[c], c))
            by_hand += label in order[:k]
        assert scores.correct[k - 1] == by_hand
    assert scores.images == n


@pytest.mark.parametrize(("label", "index"), [(0, 1), (999, 1000)])
def test_the_offset_of_a_background_class_holds_at_both_ends(label, index):
    images = image_set([label])
    assert tally(predictions([index], 1001), images, 1).scores.correct[0] == 1
    assert tally(predictions([label], 1001), images, 1).scores.correct[0] == 0


@pytest.mark.parametrize(
    ("change", "code", "count"),
    [
        (lambda names: names[:-1], ProblemCode.NO_OUTPUT, "images"),
        (lambda names: [*names, names[0]], ProblemCode.COUNTED_TWICE, "images"),
        (lambda names: [*names, "stranger.JPEG"], ProblemCode.FOREIGN_OUTPUT, "outputs"),
    ],
)
def test_rows_that_are_not_the_images_are_problems_of_their_pass(change, code, count):
    images = image_set([1, 2, 3])
    names = change(list(images.names))
    predicted = predictions([1] * len(names), names=names)
    (problem,) = tally(predicted, images).problems()
    assert problem.code is code
    assert problem.data[count] == 1
    assert problem.data["names"] == tuple(set(names) ^ set(images.names) or {names[0]})
    (problem,) = measured(predictions([1, 2, 3]), images, predicted).problems
    assert (problem.code, problem.data["eager"]) == (code, True)


def test_a_problem_counts_all_images_and_names_a_few():
    images = image_set([1] * 50)
    (problem,) = tally(predictions([1], names=images.names[:1]), images).problems()
    assert problem.data["images"] == 49
    assert problem.data["names"] == images.names[1:11]


# Fidelity ----------------------------------------------------------------------------------


def test_logits_of_other_classes_are_close_to_nothing():
    images = image_set([1, 2, 3])
    wider = compare(predictions([1, 2, 3], 1001), predictions([1, 2, 3], 1000), images)
    assert wider.relative_l2 == float("inf")


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 0.2))
def test_an_error_within_the_bound_flips_no_image_that_is_not_excused(seed, bound):
    rng = np.random.default_rng(seed)
    theirs = rng.standard_normal((20, 10)).astype(np.float32)
    noise = rng.standard_normal((20, 10))
    norms = [np.linalg.norm(one, axis=1, keepdims=True) for one in (theirs, noise)]
    noise *= 0.999 * bound * norms[0] / norms[1]
    images = image_set([0] * 20)
    ours = Predictions(images.names, (theirs + noise).astype(np.float32))
    fidelity = compare(ours, Predictions(images.names, theirs), images, bound)
    assert all(flip.excused for flip in fidelity.flips)


@given(st.data())
def test_any_division_into_batches_gives_what_the_whole_gives(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n, classes = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 8))
    images = image_set(rng.integers(0, classes, n).tolist())
    theirs = rng.standard_normal((n, classes)).astype(np.float32)
    ours = (theirs + rng.normal(0, 0.3, theirs.shape)).astype(np.float32)
    orders = [rng.permutation(n) for _ in range(2)]  # of the pass and of the reference
    reference = Predictions(tuple(images.names[i] for i in orders[1]), theirs[orders[1]])
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    start = 0
    while start < n:
        batch = orders[0][start : start + data.draw(st.integers(1, 7))]
        seen.add(tuple(images.names[i] for i in batch), ours[batch])
        start += len(batch)
    found = seen.measurement(provenance="rehearsal", seconds=1.0)
    assert found.fidelity is not None
    assert found.reference_scores is not None
    # By hand, from all rows at once.
    delta = ours.astype(np.float64) - theirs
    flips = [i for i in orders[0] if ours[i].argmax() != theirs[i].argmax()]
    assert found.fidelity.relative_l2 == pytest.approx(
        np.linalg.norm(delta) / np.linalg.norm(theirs.astype(np.float64))
    )
    assert found.fidelity.max_abs == np.abs(delta).max()
    assert [flip.name for flip in found.fidelity.flips] == [images.names[i] for i in flips]
    assert found.fidelity.agreement == pytest.approx(1 - len(flips) / n)
    for flip, i in zip(found.fidelity.flips, flips, strict=True):
        assert (flip.reference_score, flip.compiled_score) == (theirs[i].max(), ours[i].max())
        ranked = np.sort(theirs[i].astype(np.float64))
        assert flip.margin == pytest.approx(ranked[-1] - ranked[-2], abs=1e-12)
        assert flip.allowed == pytest.approx(2**0.5 * 3e-2 * np.linalg.norm(theirs[i]), rel=1e-5)
    assert found.scores.correct[0] == (ours.argmax(axis=1) == images.labels).sum()
    assert found.reference_scores.correct[0] == (theirs.argmax(axis=1) == images.labels).sum()
    assert found.problems == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_stays_in_the_sums_and_is_never_excused(tmp_path, value):
    images = image_set(range(8))
    reference, predicted = predictions(range(8)), predictions(range(8))
    reference.logits[1, 0] = reference.logits[1, 1]  # a tie: any rounding would explain another
    predicted.logits[1, 0] = value
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    for start in range(0, 8, 2):
        seen.add(predicted.names[start : start + 2], predicted.logits[start : start + 2])
    result = seen.measurement(provenance="rehearsal", seconds=1.0)
    assert result.fidelity is not None
    assert not result.fidelity.relative_l2 <= 1e9
    assert not result.fidelity.max_abs <= 1e9
    assert result.scores.correct[0] == 7
    (problem,) = result.problems
    assert problem.code is ProblemCode.NOT_FINITE
    assert problem.data == {"images": 1, "names": (images.names[1],)}
    (flip,) = result.fidelity.flips
    assert (flip.name, flip.compiled, flip.excused) == (images.names[1], NO_CLASS, False)
    # The same class in the table of flips and in the file that batch sizes are compared by.
    (tmp_path / "precious").write_text("ours")
    (tmp_path / "predictions.csv").symlink_to(
        tmp_path / "precious"
    )  # a link is not written through
    seen.write(tmp_path / "predictions.csv")
    assert int(rows_of(tmp_path / "predictions.csv")[1]["top1"]) == NO_CLASS
    assert (tmp_path / "precious").read_text() == "ours"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reference_that_is_not_finite_excuses_nothing(value):
    images = image_set([1])
    reference = predictions([1])
    reference.logits[0, 5] = value
    assert not any(flip.excused for flip in compare(predictions([2]), reference, images).flips)


# What is kept ------------------------------------------------------------------------------


def test_predictions_are_kept_for_each_image(tmp_path):
    images = image_set([1, 2, 3, 4])
    reference = predictions([1, 2, 3, 4], names=["other.JPEG", *images.names[1:]])
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    predicted = predictions([1, 2, 4])
    for row in (2, 0, 1):  # written in the order of the set, whatever came first
        seen.add(predicted.names[row : row + 1], predicted.logits[row : row + 1])
    seen.write(tmp_path / "a" / "b.csv")
    rows = rows_of(tmp_path / "a" / "b.csv")
    assert [(r["image"], r["label"], r["eager"], r["top1"]) for r in rows] == [
        (images.names[0], "1", "", "1"),  # the reference has it not
        (images.names[1], "2", "2", "2"),
        (images.names[2], "3", "3", "4"),
    ]
    by_hand = np.argsort(-predicted.logits[2], kind="stable")[:5]
    assert [int(rows[2][f"top{k}"]) for k in range(1, 6)] == by_hand.tolist()
    assert [rows[2][f"logit{k}"] for k in range(1, 6)] == [
        f"{value:.6g}" for value in predicted.logits[2, by_hand]
    ]


def test_memory_does_not_grow_with_the_logits():
    n, classes = 8000, 1000
    images = image_set([0] * n)
    row = np.random.default_rng(0).standard_normal((1, classes)).astype(np.float32)
    batch = np.repeat(row, 50, axis=0)
    reference = Predictions(images.names, np.broadcast_to(row, (n, classes)))
    tracemalloc.start()
    try:
        seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
        for start in range(0, n, len(batch)):
            seen.add(images.names[start : start + 50], batch)
        seen.measurement(provenance="rehearsal", seconds=1.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n * classes * 4 / 4
