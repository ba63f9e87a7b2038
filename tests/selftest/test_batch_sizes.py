"""The rule over batch sizes, and the predictions that it reads."""

import pytest

from harness.base.errors import ProvenanceError, RecordError
from harness.judge import batch_sizes
from harness.judge.batch_sizes import BatchPass, judge_batch_sizes
from harness.records.measurements import ProblemCode
from harness.records.predictions import Prediction, read_predictions
from harness.records.verdicts import BatchAnswer, FigureName
from tests.selftest.judge_samples import codes, figures


def a_pass(best, provenance="rehearsal", excused=(), label=1, first=0):
    predictions = {f"image{first + i}": Prediction(label, b, 9.5) for i, b in enumerate(best)}
    return BatchPass(provenance, predictions, frozenset(excused))


def wrong(lost, images, provenance="real", **options):
    """A pass that is wrong on the first `lost` images."""
    return a_pass([2] * lost + [1] * (images - lost), provenance, **options)


@pytest.mark.parametrize("provenance", ["real", "rehearsal", "simulated"])
@pytest.mark.parametrize(("lost", "kind"), [(0, "PASS"), (2, "PASS"), (3, "FAIL")])
def test_a_tenth_of_a_point_between_batch_sizes(monkeypatch, provenance, lost, kind):
    monkeypatch.setattr(batch_sizes, "WHOLE_SET", 2000)
    verdict = judge_batch_sizes({16: wrong(lost, 2000, provenance), 1: wrong(0, 2000, provenance)})
    assert (verdict.kind, verdict.rule) == (kind, "batch-sizes")
    assert verdict.reference.provenance == provenance
    assert verdict.measured == lost / 20 == verdict.figures[FigureName.SMALLEST_POINTS]
    assert [flip.name for flip in verdict.batch_flips] == [f"image{i}" for i in range(lost)]
    assert verdict.top1_by_batch_size == {1: 100.0, 16: 100 - lost / 20}
    for flip in verdict.batch_flips:
        assert flip.answers == {1: BatchAnswer(1, 9.5), 16: BatchAnswer(2, 9.5)}


def test_all_sizes_are_compared_with_each_other_and_flips_that_cancel_out_are_listed():
    # Batch 4 loses two images of which batch 1 is right, batch 8 gains two others.
    first = [1] * 1998 + [2, 2]
    sizes = {1: a_pass(first), 4: a_pass([2, 2, *first[2:]]), 8: a_pass([1] * 2000)}
    verdict = judge_batch_sizes(sizes)
    assert (verdict.kind, verdict.measured) == ("FAIL", 0.2)
    verdict = judge_batch_sizes({1: a_pass([2] + [1] * 1999), 4: a_pass([1] * 1999 + [2])})
    assert (verdict.kind, verdict.measured) == ("PASS", 0.0)
    assert [flip.name for flip in verdict.batch_flips] == ["image0", "image1999"]


@pytest.mark.parametrize(
    ("provenance", "excused", "kind"),
    [("rehearsal", "image0", "PASS"), ("real", "image0", "FAIL"), ("rehearsal", "other", "FAIL")],
)
def test_rounding_is_no_difference_of_a_few_rehearsed_images(
    monkeypatch, provenance, excused, kind
):
    monkeypatch.setattr(batch_sizes, "WHOLE_SET", 46)
    verdict = judge_batch_sizes(
        {1: wrong(0, 46, provenance), 4: wrong(1, 46, provenance, excused=[excused])}
    )
    assert verdict.kind == kind
    assert verdict.top1_by_batch_size[4] < 100  # as they were predicted, with what is excused
    assert verdict.figures[FigureName.FLIPS_EXCUSED] == (kind == "PASS")


@pytest.mark.parametrize(
    ("images", "lost", "kind"),
    [
        # One image of fewer than 1,000 is more than 0.1 point, and says nothing about the set.
        (200, (0, 5, 1), "RECORDED"),
        (5000, (0, 5, 1), "RECORDED"),
        # z^2 = 10.8 for 99.9 %: without a flip, 0.1 point needs 10,817 images.
        (10_817, (0, 0), "PASS"),
        (10_816, (0, 0), "RECORDED"),
        (11_000, (0, 0, 1), "RECORDED"),
        (11_000, (0, 0, 60), "FAIL"),
        # Two sizes that differ fail beside one that lies between.
        (5000, (25, 0, 10), "FAIL"),
        (5000, (0, 10), "RECORDED"),
    ],
)
def test_a_part_is_decided_where_the_whole_interval_is_on_one_side(images, lost, kind):
    verdict = judge_batch_sizes({2**i: wrong(n, images) for i, n in enumerate(lost)})
    assert verdict.kind == kind
    low, high = figures(verdict)[FigureName.DIFFERENCE_INTERVAL]
    assert low <= verdict.measured <= high <= verdict.figures[FigureName.SMALLEST_POINTS]
    assert verdict.figures.get(FigureName.IMAGES_TO_DECIDE, 0) >= images * (kind == "RECORDED")


def test_on_a_part_flips_that_cancel_out_are_undecided_beside_sizes_that_agree():
    mixed = a_pass([2] * 20 + [1] * 10_980, "real")
    flipped = a_pass([1] * 20 + [2] * 20 + [1] * 10_960, "real")
    verdict = judge_batch_sizes({1: mixed, 8: mixed, 4: flipped})
    assert (verdict.kind, verdict.measured) == ("RECORDED", 0.0)
    low, high = figures(verdict)[FigureName.DIFFERENCE_INTERVAL]
    assert low == -high


def test_two_sizes_that_surely_differ_fail_beside_one_that_might_differ_by_more():
    most = [1] * 4905
    sizes = {
        1: a_pass([2] * 25 + most + [2] * 70, "real"),
        4: a_pass([1] * 25 + most + [2] * 70, "real"),
        8: a_pass([1] * 25 + [2] * 80 + most[80:] + [1] * 70, "real"),
    }
    assert judge_batch_sizes(sizes).kind == "FAIL"
    assert judge_batch_sizes({4: sizes[4], 8: sizes[8]}).kind == "RECORDED"


@pytest.mark.parametrize(
    ("other", "images"),
    [({"best": [1] * 1999}, 1), ({"best": [1] * 2001}, 1), ({"best": [1] * 2000, "label": 2}, 2000),
     ({"best": [1], "first": 5000}, 2001)],
)  # fmt: skip
@pytest.mark.parametrize("provenance", ["real", "rehearsal"])
def test_other_images_or_other_labels_fail(other, images, provenance):
    passes = {1: a_pass([1] * 2000, provenance), 4: a_pass(provenance=provenance, **other)}
    verdict = judge_batch_sizes(passes)
    assert (verdict.kind, codes(verdict)) == ("FAIL", [ProblemCode.BATCH_IMAGES])
    assert verdict.problems[0].data["images"] == images
    assert FigureName.SMALLEST_POINTS not in verdict.figures


def test_one_batch_size_has_nothing_to_agree_with_and_provenances_do_not_mix():
    verdict = judge_batch_sizes({4: a_pass([1], "simulated")})
    assert (verdict.kind, verdict.reference.provenance) == ("RECORDED", "simulated")
    with pytest.raises(ProvenanceError):
        judge_batch_sizes({1: a_pass([1], "real"), 4: a_pass([1], "simulated")})


# The file of predictions -------------------------------------------------------------------


def test_predictions_are_read(tmp_path):
    (tmp_path / "p.csv").write_text("image,label,eager,top1,logit1\na,1,1,2,8.5\nb,1,,1,nan\n")
    read = read_predictions(tmp_path, "p.csv")
    assert read == {"a": Prediction(1, 2, 8.5, eager=1), "b": Prediction(1, 1)}
    assert not read["a"].right


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"image,label\na,1\n",
        b"image,label,eager,top1\na,1,1,one\n",
        b"image,label,eager,top1\na,1,1,1\na,1,1,1\n",
        b"image,label,eager,top1\na\n",
        b'image,label,eager,top1\n"a,1,1,1\n',
        b"\xff\xfe",
    ],
)
def test_damaged_predictions_are_an_error_with_the_file(tmp_path, text):
    if text is not None:
        (tmp_path / "p.csv").write_bytes(text)
    with pytest.raises(RecordError, match=r"p\.csv") as caught:
        read_predictions(tmp_path, "p.csv")
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["../outside.csv", "/etc/hostname", "predictions/x\0.csv"])
def test_a_record_cannot_name_files_outside_of_its_run(tmp_path, name):
    with pytest.raises(RecordError, match="outside"):
        read_predictions(tmp_path, name)
