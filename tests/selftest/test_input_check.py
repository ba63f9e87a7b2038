"""What a session is fed is compared with the catalog's preprocessing on a few images."""

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
