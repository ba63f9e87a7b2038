"""Accuracy: scores, joins by name, padding, fidelity."""

from __future__ import annotations

import csv
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InferError
from harness.measure import accuracy
from harness.records.measurements import NO_CLASS, ProblemCode
from harness.stages import inference
from harness.stages.inference import Predictions
from tests.selftest import fakes
from tests.selftest.fakes import FakeSession, image_set, predictions


class FakeBatch:
    """A batch of the numbers `start, start + 1, ...`, one image a row."""

    def __init__(self, start, names, width):
        self.start, self.names, self.width = start, names, width

    def fill(self, out):
        out[:] = 0
        for row in range(len(self.names)):
            out[row] = self.start + row


def batches(names, size):
    return [FakeBatch(i, names[i : i + size], size) for i in range(0, len(names), size)]


def echo(batch):
    logits = np.zeros((len(batch), 10), np.float32)
    for row, value in enumerate(batch[:, 0, 0, 0]):
        logits[row, int(value) % 10] = 1.0
    return logits


def problems(found, images):
    return accuracy.tally(found, images, 0).problems()


def measured(found, images, reference, bound=3e-2, offset=0):
    return fakes.measured(
        found, images, offset, provenance="rehearsal", reference=reference, fidelity_bound=bound
    )


def compare(found, reference, images, offset, bound):
    return measured(found, images, reference, bound, offset).fidelity


class Kept:
    """What `infer` hands out, put together."""

    def __init__(self):
        self.names, self.logits = (), []

    def __call__(self, names, logits):
        self.names += names
        self.logits.append(logits.copy())

    @property
    def best(self):
        return inference.best(np.concatenate(self.logits), 1)[:, 0].tolist()


def test_outputs_are_joined_to_names_and_padding_is_cut_off():
    names = image_set(range(10)).names
    found = Kept()
    done: list[int] = []
    count = inference.infer(FakeSession(echo), batches(names, 4), found, progress=done.append)
    assert found.names == names
    assert found.best == list(range(10))
    assert (count, done) == (10, [4, 8, 10])


def test_a_session_that_swallows_a_batch_is_an_error():
    class Swallowing(FakeSession):
        def stream_into(self, fillers):
            for i, logits in enumerate(super().stream_into(fillers)):
                if i != 1:
                    yield logits

    with pytest.raises(InferError, match="2 batches of 3"):
        inference.infer(Swallowing(echo), batches(image_set(range(10)).names, 4), Kept())


def test_a_session_that_repeats_a_batch_is_an_error():
    class Repeating(FakeSession):
        def stream_into(self, fillers):
            for logits in super().stream_into(fillers):
                yield logits
                yield logits

    with pytest.raises(InferError, match="more batches"):
        inference.infer(Repeating(echo), batches(image_set(range(10)).names, 4), Kept())


def test_no_image_at_all_is_an_error():
    with pytest.raises(InferError, match="no image"):
        inference.infer(FakeSession(echo), [], Kept())


@given(st.data())
def test_scores_equal_counting_by_hand(data):
    classes = data.draw(st.integers(2, 12))
    n = data.draw(st.integers(1, 20))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    # Few values, so that ties occur: the lower index wins.
    values = data.draw(
        st.lists(
            st.lists(st.integers(-2, 2), min_size=classes, max_size=classes),
            min_size=n,
            max_size=n,
        )
    )
    images = image_set(labels)
    given_logits = Predictions(images.names, np.array(values, np.float32))
    found = accuracy.tally(given_logits, images, 0).scores
    for k in range(1, 6):
        by_hand = 0
        for row, label in zip(values, labels, strict=True):
            order = sorted(range(classes), key=lambda c: (-row[c], c))
            by_hand += label in order[:k]
        assert found.correct[k - 1] == by_hand
    assert found.images == n


def test_scores_join_by_name_and_not_by_position():
    images = image_set([1, 2, 3])
    shuffled = predictions([3, 1, 2], names=[images.names[2], images.names[0], images.names[1]])
    assert accuracy.tally(shuffled, images, 0).scores.correct[0] == 3


@pytest.mark.parametrize(("label", "index"), [(0, 1), (999, 1000)])
def test_the_offset_of_a_background_class_holds_at_both_ends(label, index):
    images = image_set([label])
    assert accuracy.tally(predictions([index], 1001), images, 1).scores.correct[0] == 1
    assert accuracy.tally(predictions([label], 1001), images, 1).scores.correct[0] == 0


def test_nan_is_a_problem_and_never_a_hit():
    images = image_set([3])
    found = predictions([3])
    found.logits[0, 7] = np.nan
    (problem,) = problems(found, images)
    assert problem.code is ProblemCode.NOT_FINITE
    assert problem.data == {"images": 1, "names": (images.names[0],)}
    assert accuracy.tally(found, images, 0).scores.correct == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "code", "count"),
    [
        (lambda names: names[:-1], ProblemCode.NO_OUTPUT, "images"),
        (lambda names: [*names, names[0]], ProblemCode.COUNTED_TWICE, "images"),
        (lambda names: [*names, "stranger.JPEG"], ProblemCode.FOREIGN_OUTPUT, "outputs"),
    ],
)
def test_rows_that_are_not_the_images_are_problems(change, code, count):
    images = image_set([1, 2, 3])
    names = change(list(images.names))
    (problem,) = problems(predictions([1] * len(names), names=names), images)
    assert problem.code is code
    assert problem.data[count] == 1
    other = set(names) ^ set(images.names) or {names[0]}
    assert problem.data["names"] == tuple(other)


def test_a_problem_counts_all_images_and_names_a_few():
    images = image_set([1] * 50)
    found = predictions([1], names=images.names[:1])
    (problem,) = problems(found, images)
    assert problem.data["images"] == 49
    assert problem.data["names"] == images.names[1:11]


def test_bad_rows_of_the_eager_pass_are_problems_of_that_pass():
    images = image_set([1, 2, 3])
    reference = predictions([1, 2], names=images.names[:2])
    (problem,) = measured(predictions([1, 2, 3]), images, reference).problems
    assert problem.code is ProblemCode.NO_OUTPUT
    assert problem.data["eager"] is True


def test_padding_that_is_counted_is_a_problem():
    images = image_set([1, 2, 3])
    found = Predictions(images.names, predictions([1, 2, 3, 0]).logits)
    (problem,) = problems(found, images)
    assert (problem.code, dict(problem.data)) == (ProblemCode.ROWS, {"outputs": 4, "images": 3})


def test_fidelity_of_equal_and_of_other_logits():
    images = image_set([1, 2, 3])
    reference = predictions([1, 2, 3])
    same = compare(reference, reference, images, 0, 3e-2)
    assert (same.relative_l2, same.agreement, same.flips) == (0.0, 1.0, ())
    other = compare(predictions([1, 2, 4]), reference, images, 0, 3e-2)
    assert other.relative_l2 > 0.1
    assert [(flip.reference, flip.compiled) for flip in other.flips] == [(3, 4)]
    assert not other.flips[0].excused
    assert other.agreement == pytest.approx(2 / 3)


def test_a_flip_has_both_scores():
    images = image_set([1, 2])
    reference, found = predictions([1, 2]), predictions([1, 4])
    reference.logits[1, 2], found.logits[1, 4] = 8.5, 7.25
    (flip,) = compare(found, reference, images, 0, 3e-2).flips
    assert flip.name == images.names[1]
    assert (flip.reference, flip.reference_score) == (2, 8.5)
    assert (flip.compiled, flip.compiled_score) == (4, 7.25)


def test_a_flip_within_rounding_is_excused():
    images = image_set([0])
    logits = np.zeros((1, 10), np.float32)
    logits[0, :2] = (1.0, 0.999)
    flipped = logits.copy()
    flipped[0, :2] = (0.999, 1.0)
    found = compare(
        Predictions(images.names, flipped), Predictions(images.names, logits), images, 0, 3e-2
    )
    assert found.flips[0].excused
    assert found.flips[0].allowed == pytest.approx(np.sqrt(2) * 3e-2 * np.hypot(1, 0.999), rel=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 0.2))
def test_an_error_within_the_bound_flips_no_image_that_is_not_excused(seed, bound):
    rng = np.random.default_rng(seed)
    theirs = rng.standard_normal((20, 10)).astype(np.float32)
    noise = rng.standard_normal((20, 10))
    noise *= (
        0.999
        * bound
        * np.linalg.norm(theirs, axis=1, keepdims=True)
        / np.linalg.norm(noise, axis=1, keepdims=True)
    )
    images = image_set([0] * 20)
    found = compare(
        Predictions(images.names, (theirs + noise).astype(np.float32)),
        Predictions(images.names, theirs),
        images,
        0,
        bound,
    )
    assert all(flip.excused for flip in found.flips)


def test_another_number_of_classes_has_no_fidelity():
    images = image_set([1])
    found = compare(predictions([1], 1001), predictions([1], 1000), images, 0, 3e-2)
    assert found.relative_l2 == float("inf")


def test_predictions_are_kept_for_each_image(tmp_path):
    images = image_set([1, 2, 3])
    seen = accuracy.Observation(images, 0, reference=predictions([1, 2, 3]), fidelity_bound=3e-2)
    found = predictions([1, 2, 4])
    for row in (2, 0, 1):  # written in the order of the set, whatever came first
        seen.add(found.names[row : row + 1], found.logits[row : row + 1])
    seen.write(tmp_path / "a" / "b.csv")
    with (tmp_path / "a" / "b.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["image"], r["label"], r["eager"], r["top1"]) for r in rows] == [
        (images.names[0], "1", "1", "1"),
        (images.names[1], "2", "2", "2"),
        (images.names[2], "3", "3", "4"),
    ]
    by_hand = np.argsort(-found.logits[2], kind="stable")[:5]
    assert [int(rows[2][f"top{k}"]) for k in range(1, 6)] == by_hand.tolist()
    assert [rows[2][f"logit{k}"] for k in range(1, 6)] == [
        f"{value:.6g}" for value in found.logits[2, by_hand]
    ]


def test_images_without_output_and_without_reference_are_left_empty(tmp_path):
    images = image_set([1, 2, 3])
    reference = predictions([1, 2, 3], names=["other.JPEG", *images.names[1:]])
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    seen.add(images.names[:2], predictions([1, 2]).logits)
    seen.write(tmp_path / "b.csv")
    with (tmp_path / "b.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["image"], r["eager"]) for r in rows] == [
        (images.names[0], ""),
        (images.names[1], "2"),
    ]


# A pass is counted as it runs.


@given(st.data())
def test_any_division_into_batches_gives_what_the_whole_gives(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n, classes = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 8))
    images = image_set(rng.integers(0, classes, n).tolist())
    theirs = rng.standard_normal((n, classes)).astype(np.float32)
    ours = (theirs + rng.normal(0, 0.3, theirs.shape)).astype(np.float32)
    order = rng.permutation(n)  # the reference may have another one
    reference = Predictions(tuple(images.names[i] for i in order), theirs[order])
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    start = 0
    while start < n:
        stop = start + data.draw(st.integers(1, 7))
        seen.add(images.names[start:stop], ours[start:stop])
        start = stop
    found = seen.measurement(provenance="rehearsal", seconds=1.0)
    assert found.fidelity is not None
    assert found.reference_scores is not None
    # By hand, from all rows at once.
    delta = ours.astype(np.float64) - theirs
    flips = np.flatnonzero(ours.argmax(axis=1) != theirs.argmax(axis=1))
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
def test_one_bad_number_in_one_batch_stays_in_the_sums(value):
    images = image_set(range(8))
    reference = predictions(range(8))
    found = predictions(range(8))
    found.logits[1, 3] = value
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    for start in range(0, 8, 2):
        seen.add(found.names[start : start + 2], found.logits[start : start + 2])
    result = seen.measurement(provenance="rehearsal", seconds=1.0)
    assert result.fidelity is not None
    assert not result.fidelity.relative_l2 <= 1e9
    assert not result.fidelity.max_abs <= 1e9
    assert result.problems[0].data["names"] == (images.names[1],)
    assert result.scores.correct[0] == 7


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_logit_that_is_not_finite_differs_and_is_never_excused(tmp_path, value):
    images = image_set([0, 1, 2])
    reference, found = predictions([0, 1, 2]), predictions([0, 1, 2])
    reference.logits[1, 0] = reference.logits[1, 1]  # a tie: any rounding would explain another
    found.logits[:, 0] = value
    seen = accuracy.Observation(images, 0, reference=reference, fidelity_bound=3e-2)
    seen.add(found.names, found.logits)
    fidelity = seen.measurement(provenance="rehearsal", seconds=1.0).fidelity
    assert fidelity is not None
    assert [flip.name for flip in fidelity.flips] == list(images.names)
    assert not any(flip.excused for flip in fidelity.flips)
    assert fidelity.agreement == 0
    # The same class in the table of flips and in the file that batch sizes are compared by.
    seen.write(tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["top1"]) for row in rows] == [flip.compiled for flip in fidelity.flips]
    assert {flip.compiled for flip in fidelity.flips} == {NO_CLASS}


def test_rows_that_are_missing_in_a_batch_are_a_problem():
    images = image_set([1, 2, 3])
    seen = accuracy.Tally(images, 0)
    seen.add(images.names, predictions([1, 2]).logits)
    rows, missing = seen.problems()
    assert (rows.code, dict(rows.data)) == (ProblemCode.ROWS, {"outputs": 2, "images": 3})
    assert missing.code is ProblemCode.NO_OUTPUT
    assert missing.data["names"] == (images.names[2],)
    assert seen.scores.correct[0] == 2


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


def test_a_reference_may_lie_in_a_file(tmp_path):
    images = image_set(range(600))
    logits = np.random.default_rng(0).standard_normal((600, 10)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits)
    in_file = Predictions.stored(images.names, tmp_path / "logits.npy")
    in_memory = Predictions(images.names, logits)
    found = Predictions(images.names, logits + np.float32(0.01))
    assert measured(found, images, in_file) == measured(found, images, in_memory)
    assert accuracy.tally(in_file, images, 0).scores == accuracy.tally(in_memory, images, 0).scores
