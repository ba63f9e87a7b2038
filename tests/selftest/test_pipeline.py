"""The pipeline of a case: images first, refused once; notes, the clock; builds that are killed."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from harness.base.errors import DataError, ExportError, HarnessError
from harness.base.stages import Stage
from harness.images import crops, dataset
from harness.images.dataset import FIRST_LABELS
from harness.plan import Case
from harness.records.observed import SetFindings
from harness.stages import probe
from harness.stages.pipeline import CasePipeline
from harness.targets.leases import NotFree
from tests.selftest.fakes import workbench
from tests.selftest.image_folders import lines, name, put_images, put_text

SHIFTED = tuple(label + 1 for label in FIRST_LABELS)


def case(tmp_path, root=None, batch_size=4, check="accuracy", **options):
    """Of a run on the CPU with images in `root`, and weights that are none."""
    weights = tmp_path / "weights"
    put_text(weights / "tiny.pth", "never read")
    places = {"imagenet": str(root or tmp_path / "absent"), "checkpoints": str(weights)}
    bench = workbench(tmp_path, **{"target": "cpu", **places, **options})
    return bench.for_case(Case("tiny", batch_size, "cpu", check))


def real_set(root, labels=FIRST_LABELS):
    put_images(root / "val", range(1, len(FIRST_LABELS) + 1))
    put_text(root / "val_label.txt", lines(labels))
    return root


@pytest.mark.parametrize("fault", ["labels", "file"])
def test_bad_images_are_found_once_before_anything_is_built(tmp_path, monkeypatch, fault):
    looks, find = [], dataset.find_image_set

    def look(*arguments):
        looks.append(arguments)
        return find(*arguments)

    monkeypatch.setattr(dataset, "find_image_set", look)
    root = real_set(tmp_path / "imagenet", SHIFTED if fault == "labels" else FIRST_LABELS)
    if fault == "file":
        os.truncate(root / "val" / name(3), 0)
    one = case(tmp_path, root)
    other = one.bench.for_case(Case("tiny", 8, "cpu", "accuracy"))
    for each in (one, other):
        with pytest.raises(DataError, match="class order" if fault == "labels" else "empty, 0"):
            each.prepare()
        # Not even the weights, which would be refused.
        assert [time.stage for time in each.observed.stages] == [Stage.DATA]
    assert len(looks) == 1
    assert one.observed.artifacts == []
    assert list(one.bench.store.entries()) == []


def test_throughput_asks_for_no_images(tmp_path):
    one = case(tmp_path, check="throughput")
    with pytest.raises(HarnessError, match=r"tiny\.pth"):
        one.prepare()
    assert Stage.DATA not in [time.stage for time in one.observed.stages]


@pytest.mark.parametrize(("batch_size", "count"), [(1, 2), (3, 3), (4, 4)])
def test_the_output_check_takes_images_that_a_network_tells_apart(tmp_path, batch_size, count):
    crops = probe.draw(case(tmp_path).model.preprocessing, batch_size)
    assert crops.shape == (count, 64, 64, 3)
    means = crops.mean((1, 2))
    for row, mean in enumerate(means):  # colours, and no two images of one
        assert np.ptp(mean) > 10
        assert np.abs(np.delete(means, row, axis=0) - mean).max() > 10


def test_whatever_makes_the_output_checks_images_is_in_its_key(tmp_path):
    simplified: Any = SimpleNamespace(digest="d")
    one = case(tmp_path)
    keys = [probe.Probe(one, simplified).inputs()]
    own = one.model.preprocessing
    other_crop = own.crop.model_copy(update={"offset": "floor"})
    other_mean = own.normalize.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    for part in ({"crop": other_crop}, {"normalize": other_mean}):
        one.model = one.model.model_copy(update={"preprocessing": own.model_copy(update=part)})
        keys.append(probe.Probe(one, simplified).inputs())
    keys.append(probe.Probe(case(tmp_path, batch_size=1), simplified).inputs())
    assert all(one not in keys[:at] for at, one in enumerate(keys))


def test_what_was_counted_is_in_the_record(tmp_path):
    """Of the whole set, where a part is chosen: it is there that a label has no image."""
    root = real_set(tmp_path / "imagenet", (*FIRST_LABELS, 3, 4))
    put_images(root / "val", [16])
    one = case(tmp_path, root, limit="2")
    one.images()
    images = one.observed.images
    assert images is not None
    assert (images.source, images.count) == ("folder", 2)
    assert images.checked == SetFindings(
        images=16, classes=16, fewest=1, most=1, known=15, labels_without_image=1
    )


@dataclass
class Killed:
    """A build whose first `times` tries are killed."""

    case: CasePipeline
    times: int
    error: HarnessError = field(
        default_factory=lambda: ExportError("was killed", signal=signal.SIGKILL)
    )
    beside: list[bool] = field(default_factory=list)  # whether others share the host meanwhile
    stage: ClassVar[Stage] = Stage.EXPORT

    def inputs(self):
        return {"x": 1}

    def build(self, staging):
        assert not list(staging.iterdir())
        (staging / "half").touch()
        bench = self.case.bench
        with self.case.share_host("export"), contextlib.ExitStack() as other:
            try:
                other.enter_context(bench.share_host("another build", 0.0))
                self.beside.append(True)
            except NotFree:
                self.beside.append(False)
        if len(self.beside) <= self.times:
            raise self.error
        return "log"


@pytest.mark.parametrize("times", [1, 2])
def test_a_build_that_the_machine_ended_is_tried_once_more_with_the_host_alone(tmp_path, times):
    one = case(tmp_path)
    build = Killed(one, times)
    if times == 1:
        assert one._made(build).log == "log"
        (attempt,) = one.observed.attempts
        assert (attempt.stage, attempt.error, attempt.aside) == (Stage.EXPORT, "was killed", False)
    else:
        with pytest.raises(ExportError, match="was killed"):
            one._made(build)
        one._made(build)  # it is not remembered, and tried anew
        assert len(build.beside) == 3
    assert build.beside[:2] == [True, False] and not one.alone
    assert not list((one.bench.store.root / "staging").iterdir())


def test_a_build_that_fails_by_itself_is_not_tried_again(tmp_path):
    one = case(tmp_path)
    build = Killed(one, 9, ExportError("crashed", signal=signal.SIGSEGV))
    for _ in range(2):
        with pytest.raises(ExportError):
            one._made(build)
    assert build.beside == [True]


def test_notes_and_the_clock_of_a_case(tmp_path):
    one = case(tmp_path, real_set(tmp_path / "imagenet"))
    with one.stage(Stage.DIAGNOSE), one.unrecorded(), one.stage(Stage.LOAD) as note:
        note.cached = True
        one.images()
    assert one.observed.images is None
    assert [(time.stage, time.cached) for time in one.observed.stages] == [(Stage.DIAGNOSE, False)]
    # Times of one stage add up, and are cached where all were.
    for cached, all_cached in ((True, True), (False, False), (True, False)):
        with one.stage(Stage.EXPORT) as note:
            note.cached = cached
        (_, time) = one.observed.stages
        assert time.cached is all_cached


def test_every_image_that_cannot_be_used_is_named_at_once(tmp_path, monkeypatch):
    """Not those of the first chunk alone, of which a set of 50,000 has 49."""
    monkeypatch.setattr(crops, "CHUNK", 4)
    one = case(tmp_path, real_set(tmp_path / "imagenet"))  # fifteen files that are no images
    with (
        pytest.raises(DataError, match=r"15 images cannot be used: .* and 12 more") as caught,
        one.all_unusable(),
        one.feeding(one.feed(), one.decoding),
    ):
        one.crops().rows(0, 4)
    assert all(name(n) in caught.value.files[n - 1] for n in range(1, 16))
    with pytest.raises(DataError, match="15 images"), one.all_unusable():
        pytest.fail("another case does not look again")
    one.bench.known.clear()
    with pytest.raises(DataError, match="another reason"), one.all_unusable():
        monkeypatch.setattr(crops.Crops, "complete", lambda *_: None)
        raise DataError("another reason")


def test_an_artifact_says_what_it_is(tmp_path, monkeypatch):
    one = case(tmp_path)
    assert one.about(Stage.EXPORT) == "tiny"
    assert one.about(Stage.PROBE) == "tiny, batch size 4"
    assert one.about(Stage.COMPILE) == "tiny, batch size 4, cpu"
    chip = {"chip": "Ascend310P3", "cann": "8.0.RC2"}
    monkeypatch.setattr(one.bench.target, "identity", lambda: chip)
    monkeypatch.setattr(one.bench, "provenance", "simulated")
    compiled = "tiny, batch size 4, Ascend310P3, CANN 8.0.RC2, simulated"
    assert one.about(Stage.COMPILE) == compiled
    given = case(tmp_path, onnx=[f"tiny={tmp_path / 'a.onnx'}"])
    assert given.about(Stage.SIMPLIFY) == "tiny, batch size 4, given ONNX file"
