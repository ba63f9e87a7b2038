"""The rule over batch sizes, and the predictions that it reads."""

from __future__ import annotations

import dataclasses

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


def judge(**lost):
    """Real passes of so many images, of which each batch size loses so many."""
    images = lost.pop("images")
    return judge_batch_sizes({int(size[2:]): wrong(n, images) for size, n in lost.items()})


@pytest.mark.parametrize("provenance", ["real", "rehearsal", "simulated"])
@pytest.mark.parametrize(("lost", "kind"), [(0, "PASS"), (2, "PASS"), (3, "FAIL")])
def test_a_tenth_of_a_point_between_batch_sizes(monkeypatch, provenance, lost, kind):
    monkeypatch.setattr(batch_sizes, "WHOLE_SET", 2000)
    verdict = judge_batch_sizes({16: wrong(lost, 2000, provenance), 1: wrong(0, 2000, provenance)})
    assert (verdict.kind, verdict.rule) == (kind, "batch-sizes")
    assert verdict.reference.provenance == provenance
    assert verdict.measured == lost / 20
    assert [flip.name for flip in verdict.batch_flips] == [f"image{i}" for i in range(lost)]
    assert verdict.top1_by_batch_size == {1: 100.0, 16: 100 - lost / 20}
    assert verdict.figures[FigureName.SMALLEST_POINTS] == lost / 20
    for flip in verdict.batch_flips:
        assert flip.answers == {1: BatchAnswer(1, 9.5), 16: BatchAnswer(2, 9.5)}


def test_all_sizes_are_compared_with_each_other():
    # Batch 4 loses two images of which batch 1 is right, batch 8 gains two others.
    first = [1] * 1998 + [2, 2]
    verdict = judge_batch_sizes(
        {1: a_pass(first), 4: a_pass([2, 2, *first[2:]]), 8: a_pass([1] * 2000)}
    )
    assert (verdict.kind, verdict.measured) == ("FAIL", 0.2)


def test_flips_that_cancel_out_are_listed():
    verdict = judge_batch_sizes({1: a_pass([2] + [1] * 1999), 4: a_pass([1] * 1999 + [2])})
    assert (verdict.kind, verdict.measured) == ("PASS", 0.0)
    assert verdict.figures[FigureName.FLIPS] == 2
    assert [flip.name for flip in verdict.batch_flips] == ["image0", "image1999"]


@pytest.mark.parametrize(("provenance", "kind"), [("rehearsal", "PASS"), ("real", "FAIL")])
def test_rounding_is_no_difference_of_a_few_rehearsed_images(monkeypatch, provenance, kind):
    monkeypatch.setattr(batch_sizes, "WHOLE_SET", 46)
    one, other = wrong(0, 46, provenance), wrong(1, 46, provenance, excused=["image0"])
    verdict = judge_batch_sizes({1: one, 4: other})
    assert verdict.kind == kind
    assert verdict.top1_by_batch_size[4] < 100  # as they were predicted, with what is excused
    assert verdict.figures[FigureName.FLIPS_EXCUSED] == (kind == "PASS")
    # Without the excuse, one image of 46 is two points.
    bare = dataclasses.replace(other, excused=frozenset())
    assert judge_batch_sizes({1: one, 4: bare}).kind == "FAIL"


@pytest.mark.parametrize("images", [200, 999, 1000, 5000])
def test_a_few_flips_fail_no_part_of_the_set(images):
    """One image of fewer than 1,000 is more than 0.1 point, and says nothing about the set."""
    verdict = judge(images=images, bs1=0, bs4=5, bs8=1)
    assert verdict.kind == "RECORDED"
    assert len(verdict.batch_flips) == 5
    assert verdict.figures[FigureName.IMAGES_TO_DECIDE] >= images


@pytest.mark.parametrize(("lost", "kind"), [(0, "PASS"), (1, "RECORDED"), (60, "FAIL")])
def test_a_part_is_decided_where_the_whole_interval_is_on_one_side(lost, kind):
    # z^2 = 10.8 for 99.9 %: without a flip, 0.1 point needs 10,817 images.
    verdict = judge(images=11_000, bs1=0, bs4=0, bs8=lost)
    assert verdict.kind == kind
    low, high = verdict.figures[FigureName.DIFFERENCE_INTERVAL]
    assert low <= verdict.measured <= high <= verdict.figures[FigureName.SMALLEST_POINTS]
    assert judge(images=10_817, bs1=0, bs4=0).kind == "PASS"
    assert judge(images=10_816, bs1=0, bs4=0).kind == "RECORDED"


def test_on_a_part_flips_that_cancel_out_are_undecided_beside_sizes_that_agree():
    equal, images = wrong(0, 11_000), 11_000
    mixed = [2] * 20 + [1] * (images - 20)
    flipped = a_pass([1] * 20 + [2] * 20 + [1] * (images - 40), "real")
    assert judge_batch_sizes({1: equal, 8: equal}).kind == "PASS"
    verdict = judge_batch_sizes({1: a_pass(mixed, "real"), 8: a_pass(mixed, "real"), 4: flipped})
    assert (verdict.kind, verdict.measured) == ("RECORDED", 0.0)
    low, high = figures(verdict)[FigureName.DIFFERENCE_INTERVAL]
    assert low == -high


def test_on_a_part_two_sizes_that_differ_fail_beside_one_that_lies_between():
    assert judge(images=5000, bs1=25, bs4=0, bs8=10).kind == "FAIL"
    assert judge(images=5000, bs4=0, bs8=10).kind == "RECORDED"


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (a_pass([1] * 1999), [ProblemCode.BATCH_IMAGES]),
        (a_pass([1] * 2001), [ProblemCode.BATCH_IMAGES]),
        (
            a_pass([1] * 1999 + [1], label=2),
            [ProblemCode.BATCH_LABELS, ProblemCode.NO_COMMON_IMAGE],
        ),
        (
            a_pass([1], first=5000),
            [ProblemCode.BATCH_IMAGES] * 2 + [ProblemCode.NO_COMMON_IMAGE],
        ),
    ],
)
@pytest.mark.parametrize("provenance", ["real", "rehearsal"])
def test_other_images_or_other_labels_fail(other, found, provenance):
    passes = {
        1: a_pass([1] * 2000, provenance),
        4: dataclasses.replace(other, provenance=provenance),
    }
    verdict = judge_batch_sizes(passes)
    assert (verdict.kind, codes(verdict)) == ("FAIL", found)
    assert FigureName.SMALLEST_POINTS not in verdict.figures


def test_one_batch_size_has_nothing_to_agree_with():
    verdict = judge_batch_sizes({4: a_pass([1], "simulated")})
    assert (verdict.kind, verdict.reference.provenance) == ("RECORDED", "simulated")
    assert judge_batch_sizes({}).kind == "RECORDED"


def test_batch_sizes_of_several_provenances_are_refused():
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
