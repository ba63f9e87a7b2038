"""What a case's process knows of the images: found once, first, and told in the record."""

from __future__ import annotations

import os

import pytest

from harness import settings
from harness.base.errors import DataError, InferError, LoadError
from harness.base.store import Store
from harness.catalog.load import load_catalog
from harness.images import crops, dataset
from harness.images.dataset import FIRST_LABELS
from harness.plan import Case
from harness.report import details
from harness.stages.pipeline import Workbench
from tests.selftest.image_folders import lines, name, put_images, put_sorted, put_text
from tests.selftest.report_samples import case as sample
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
    assert [stage.stage for stage in case.stages] == ["images"]
    assert case.artifacts == []
    assert list(Store(bench.settings.store).entries()) == []


def test_throughput_asks_for_no_images(tmp_path):
    bench = workbench(tmp_path / "absent", tmp_path)
    case = bench.for_case(Case("tiny", 4, "cpu", "throughput"))
    with pytest.raises(Exception, match=r"tiny\.pth"):
        case.prepare()
    assert "images" not in [stage.stage for stage in case.stages]


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


def test_what_was_counted_is_in_the_record_and_the_report(tmp_path):
    """Of the whole set, where a part is chosen: it is there that a label has no image."""
    root = real_set(tmp_path / "imagenet", (*FIRST_LABELS, 3, 4))
    put_images(root / "val", [16])
    case = workbench(root, tmp_path, limit="2").for_case(Case("tiny", 4, "cpu", "accuracy"))
    case.images()
    assert case.image_info["count"] == 2
    assert case.image_info["checked"] == {
        "images": 16,
        "classes": 16,
        "fewest": 1,
        "most": 1,
        "known": 15,
        "labels_without_image": 1,
    }
    rows = {row.label: row.value for row in details.image_rows(line(case.image_info))}
    assert rows["count"] == "2"
    assert rows["found in the folder"] == (
        "16 images, 16 classes, 1 of each; classes compared with those that are known: 15; "
        "labels without an image: 1"
    )


def test_images_of_unknown_class_and_uneven_classes_are_told(tmp_path):
    root = tmp_path / "imagenet"
    put_sorted(root, {101: 5, 102: 5, 103: 7})
    case = workbench(root, tmp_path).for_case(Case("tiny", 4, "cpu", "accuracy"))
    case.images()
    (row,) = (
        row
        for row in details.image_rows(line(case.image_info))
        if row.label == "found in the folder"
    )
    assert "3 images, 2 classes, 1 to 2 of each" in row.value
    assert "compared with those that are known: 0;" in row.value


@pytest.mark.parametrize("checked", [None, 7, {"images": "many"}, {"images": 3}, {}])
def test_a_record_without_the_counts_is_shown(checked):
    rows = details.image_rows(line({"count": 3, "checked": checked}))
    assert ("count", "3") in [(row.label, row.value) for row in rows]
    assert "found in the folder" not in [row.label for row in rows]


def line(images):
    return sample("tiny", 4).model_copy(update={"images": images})


def test_a_compiled_model_that_does_not_load_says_how_to_be_rid_of_it(tmp_path):
    case = Case("tiny", 1, "cpu", "throughput")
    bench = workbench(tmp_path / "images", tmp_path, store=str(tmp_path / "a store"))
    one = bench.for_case(case)
    with pytest.raises(LoadError) as caught, one.stage("open"):
        raise LoadError("no such model", remedy="see the log")
    assert caught.value.remedy == "see the log"  # nothing was compiled

    def build(staging):
        (staging / "model.om").write_bytes(os.urandom(100))
        return ""

    entry = one._build("compiled", {"simplified": "x"}, build)
    for remedy in ("see the log", ""):
        with pytest.raises(LoadError) as caught, one.stage("open"):
            raise LoadError("no such model", remedy=remedy)
        assert caught.value.remedy.startswith(remedy)
        assert f"harness cache gc --key={entry.key} '--store={tmp_path}/a store'" in str(
            caught.value
        )
    with pytest.raises(InferError) as other, one.stage("open"):
        raise InferError("it died")
    assert not other.value.remedy
    with pytest.raises(LoadError) as caught, one.stage("export"):
        raise LoadError("another file")
    assert not caught.value.remedy
    assert len(bench.store.gc(key=entry.key).removed) == 1
    assert not one._build("compiled", {"simplified": "x"}, build).cached


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
