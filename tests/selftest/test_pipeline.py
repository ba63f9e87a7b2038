"""The pipeline of a case: images first, refused once; notes and the clock; how to mend a load."""

from __future__ import annotations

import os

import pytest

from harness import settings
from harness.base.errors import DataError, LoadError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.catalog.load import load_catalog
from harness.images import crops, dataset
from harness.images.dataset import FIRST_LABELS
from harness.measure import attempt
from harness.plan import Case
from harness.records.observed import SetFindings
from harness.stages.pipeline import Prepared, Workbench
from tests.selftest.image_folders import lines, name, put_images, put_text
from tests.selftest.running import TINY

SHIFTED = tuple(label + 1 for label in FIRST_LABELS)


def workbench(root, tmp_path, **options):
    """Of a run on the CPU with images in `root`, and weights that are none."""
    weights = tmp_path / "weights"
    put_text(weights / "tiny.pth", "never read")
    chosen = settings.resolve(
        {
            "target": "cpu",
            "imagenet": str(root),
            "checkpoints": str(weights),
            "store": str(tmp_path / "store"),
            "leases": str(tmp_path / "leases"),
            "catalog": str(TINY),
            **options,
        },
        environment={},
    )
    return Workbench(chosen, load_catalog(TINY), tmp_path / "run")


def real_set(root, labels=FIRST_LABELS):
    put_images(root / "val", range(1, len(FIRST_LABELS) + 1))
    put_text(root / "val_label.txt", lines(labels))
    return root


@pytest.mark.parametrize("fault", ["labels", "file"])
def test_bad_images_are_found_before_anything_is_built(tmp_path, fault):
    root = real_set(tmp_path / "imagenet", SHIFTED if fault == "labels" else FIRST_LABELS)
    if fault == "file":
        os.truncate(root / "val" / name(3), 0)
    bench = workbench(root, tmp_path)
    case = bench.for_case(Case("tiny", 4, "cpu", "accuracy"))
    with pytest.raises(DataError, match="class order" if fault == "labels" else "empty, 0 bytes"):
        case.prepare()
    # Not even the weights, which would be refused.
    assert [one.stage for one in case.observed.stages] == [Stage.DATA]
    assert case.observed.artifacts == []
    assert list(Store(bench.settings.store).entries()) == []


def test_throughput_asks_for_no_images(tmp_path):
    bench = workbench(tmp_path / "absent", tmp_path)
    case = bench.for_case(Case("tiny", 4, "cpu", "throughput"))
    with pytest.raises(Exception, match=r"tiny\.pth"):
        case.prepare()
    assert Stage.DATA not in [one.stage for one in case.observed.stages]


def test_refused_images_are_looked_through_once(tmp_path, monkeypatch):
    looks = []
    find = dataset.find_image_set

    def look(*arguments):
        looks.append(arguments)
        return find(*arguments)

    monkeypatch.setattr(dataset, "find_image_set", look)
    bench = workbench(real_set(tmp_path / "imagenet", SHIFTED), tmp_path)
    said = []
    for batch_size in (1, 4, 8):
        with pytest.raises(DataError) as caught:
            bench.for_case(Case("tiny", batch_size, "cpu", "accuracy")).prepare()
        said.append(str(caught.value))
    assert len(looks) == 1
    assert len(set(said)) == 1


def test_what_was_counted_is_in_the_record(tmp_path):
    """Of the whole set, where a part is chosen: it is there that a label has no image."""
    root = real_set(tmp_path / "imagenet", (*FIRST_LABELS, 3, 4))
    put_images(root / "val", [16])
    case = workbench(root, tmp_path, limit="2").for_case(Case("tiny", 4, "cpu", "accuracy"))
    case.images()
    images = case.observed.images
    assert images is not None
    assert (images.source, images.count) == ("folder", 2)
    assert images.checked == SetFindings(
        images=16, classes=16, fewest=1, most=1, known=15, labels_without_image=1
    )


def test_a_compiled_model_that_does_not_load_says_how_to_be_rid_of_it(tmp_path, monkeypatch):
    bench = workbench(tmp_path / "images", tmp_path, store=str(tmp_path / "a store"))
    case = bench.for_case(Case("tiny", 1, "cpu", "accuracy"))

    def build(staging):
        (staging / "model.om").write_bytes(os.urandom(100))
        return ""

    entry = bench.store.get_or_build(Stage.COMPILE, {"simplified": "x"}, build)

    def refuse(*arguments, **keywords):
        raise LoadError("no such model", remedy="see the log")

    monkeypatch.setattr(bench.target, "open", refuse)
    prepared = Prepared(compiled=entry.file(), simplified=entry.file())
    with pytest.raises(LoadError) as caught, attempt.opened(case, prepared):
        pass
    assert caught.value.remedy.startswith("see the log; ")
    assert f"harness cache gc --key={entry.key} '--store={tmp_path}/a store'" in str(caught.value)
    assert len(bench.store.gc(key=entry.key).removed) == 1
    assert not bench.store.get_or_build(Stage.COMPILE, {"simplified": "x"}, build).cached


def test_what_is_done_unrecorded_leaves_the_notes_as_they_were(tmp_path):
    case = workbench(real_set(tmp_path / "imagenet"), tmp_path).for_case(
        Case("tiny", 4, "cpu", "accuracy")
    )
    with case.stage(Stage.DIAGNOSE), case.unrecorded(), case.stage(Stage.LOAD) as note:
        note.cached = True
        case.images()
    assert case.observed.images is None
    assert [(one.stage, one.cached) for one in case.observed.stages] == [(Stage.DIAGNOSE, False)]


def test_times_of_one_stage_add_up_and_are_cached_where_all_were(tmp_path):
    case = workbench(tmp_path, tmp_path).for_case(Case("tiny", 4, "cpu", "accuracy"))
    for cached in (True, True, False):
        with case.stage(Stage.EXPORT) as note:
            note.cached = cached
        (time,) = case.observed.stages
        assert time.cached is cached


def test_every_image_that_cannot_be_used_is_named_at_once(tmp_path, monkeypatch):
    """Not those of the first chunk alone, of which a set of 50,000 has 49."""
    monkeypatch.setattr(crops, "CHUNK", 4)
    root = real_set(tmp_path / "imagenet")  # fifteen files that are no images
    case = workbench(root, tmp_path).for_case(Case("tiny", 4, "cpu", "accuracy"))
    with pytest.raises(DataError, match="images of 4 chunks of 4") as caught, case.all_unusable():
        case.crops().complete(case.decoding)
    with (
        pytest.raises(DataError, match="images of 4 chunks of 4") as caught,
        case.all_unusable(),
        case.feeding(case.feed(), case.decoding),
    ):
        case.crops().rows(0, 4)
    assert len(caught.value.log.splitlines()) == 4
    with pytest.raises(DataError, match="another reason"), case.all_unusable():
        monkeypatch.setattr(crops.Crops, "complete", lambda *_: None)
        raise DataError("another reason")
