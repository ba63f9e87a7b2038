"""What a session is fed is compared with the catalog's preprocessing on a few images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from harness.base.store import Store
from harness.catalog.load import load_catalog
from harness.images.crops import Crops
from harness.images.feed import Feed
from harness.measure.input_check import InputCheck
from harness.records.measurements import ProblemCode
from harness.stages.inference import infer
from tests.selftest.fakes import FakeSession
from tests.selftest.image_folders import image_set
from tests.selftest.running import TINY

STEPS = load_catalog(TINY).models["tiny"].preprocessing
BATCH = 3


@pytest.fixture
def images(tmp_path):
    """Eight images of noise; batches of three leave the last one padded."""
    random = np.random.default_rng(7)
    found = image_set(range(8))
    paths = tuple(tmp_path / "images" / name for name in found.names)
    paths[0].parent.mkdir()
    for path in paths:
        pixels = random.integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
    return dataclasses.replace(found, root=paths[0].parent, paths=paths)


def look(images, tmp_path, steps=STEPS, change=None):
    """The problems of a pass over a feed of these steps; `change` alters each filled batch."""
    check = InputCheck(images, STEPS)
    crops = Crops(Store(tmp_path / "store"), images, steps)
    feed = Feed(crops, steps.normalize, BATCH)
    session = FakeSession(lambda b: np.zeros((BATCH, 10), np.float32),
                          shape=(BATCH, 3, STEPS.size, STEPS.size))  # fmt: skip

    def seen(names, batch):
        if change is not None:
            change(names, batch)
        check.look(names, batch)

    infer(session, feed, lambda *_: None, look=seen)
    return check.problems()


def one_value(names, batch):
    if "ILSVRC2012_val_00000008.JPEG" in names:
        batch[names.index("ILSVRC2012_val_00000008.JPEG"), 0, 0, 0] += np.float32(1e-6)


def two_places(names, batch):
    batch[:2] = batch[1::-1].copy()


ODD_STD = STEPS.normalize.model_copy(update={"std": (0.229, 0.224, 0.2251)})


@pytest.mark.parametrize(
    ("changed", "change", "images_wrong"),
    [
        ({}, None, []),
        ({"normalize": ODD_STD}, None, [0, 2, 4, 7]),
        ({}, one_value, [7]),
        ({}, two_places, [0, 4, 7]),
    ],
    ids=["none", "std", "one value", "two places"],
)
def test_another_input_is_found_however_little_it_moves(
    images, tmp_path, changed, change, images_wrong
):
    problems = look(images, tmp_path, STEPS.model_copy(update=changed), change)
    names = [tuple(images.names[i] for i in images_wrong)] if images_wrong else []
    assert [one.code for one in problems] == [ProblemCode.OTHER_INPUT] * len(names)
    assert [sorted(one.data["names"]) for one in problems] == [list(one) for one in names]
    assert [one.data["images"] for one in problems] == [len(one) for one in names]


@pytest.mark.parametrize("change", [None, lambda batch: batch[..., ::-1], lambda batch: batch // 2])
def test_crops_are_compared_as_they_lie(images, tmp_path, change):
    check = InputCheck(images, STEPS)
    feed = Feed(Crops(Store(tmp_path / "store"), images, STEPS), STEPS.normalize, BATCH)
    with feed.running():
        for batch in feed:
            out = np.full((BATCH, STEPS.size, STEPS.size, 3), 7, np.uint8)
            batch.fill(out)
            assert not out[len(batch.names) :].any()
            check.look(batch.names, out if change is None else change(out))
    problems = [one.code for one in check.problems()]
    assert problems == ([] if change is None else [ProblemCode.OTHER_INPUT])
    with pytest.raises(ValueError, match="crops of"):
        next(iter(feed)).fill(np.zeros((BATCH, 3, STEPS.size, STEPS.size), np.uint8))
