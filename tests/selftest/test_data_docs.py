"""What the documents say of the disk that crops need, and of where weights come from."""

from __future__ import annotations

import re

import pytest

from harness import plan as cases
from harness import settings
from harness.base.errors import CheckpointError
from harness.base.terms import WHOLE_SET
from harness.catalog.load import load_catalog
from harness.stages import checkpoint as checkpoints
from harness.stages.pipeline import Workbench
from tests.selftest.running import ROOT, TINY


def text(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def crops_gb():
    """GB of the whole set's crops for each geometry of the guides, with the models it serves."""
    found: dict[object, tuple[int, list[str]]] = {}
    for model in load_catalog(ROOT / "baselines.yaml").models.values():
        if not model.guide.startswith("guide-"):
            continue  # the pages speak of the five guides' models; more may follow them
        steps = model.preprocessing
        entry = found.setdefault((steps.resize, steps.crop), (steps.size, []))
        entry[1].append(model.id)
    return [(WHOLE_SET * 3 * size**2 / 1e9, size, models) for size, models in found.values()]


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "docs/imagenet.md"])
def test_the_disk_of_the_crops_is_what_the_catalog_makes_it(name):
    wanted = sorted(
        [*(f"{gb:.1f}" for gb, *_ in crops_gb()), f"{sum(c[0] for c in crops_gb()):.1f}"]
    )
    (part,) = re.findall(
        {
            "README.md": r"Cropped images of the whole.*?in bounds",
            "README.zh.md": "整个数据集裁剪后的图片.*?的大小",
            "docs/imagenet.md": r"\| models \| crops .*?until the store is no larger",
        }[name],
        text(name),
    )
    assert sorted(re.findall(r"(\d+\.\d) GB", part)) == wanted
    assert "cache gc --max-gb" in part


def test_who_shares_crops_stands_in_one_row():
    table = (ROOT / "docs" / "imagenet.md").read_text(encoding="utf-8").splitlines()
    for gb, size, models in crops_gb():
        (row,) = (line for line in table if line.startswith(f"| `{models[0]}`"))
        assert f"{size} x {size} | {gb:.1f} GB |" in row
        assert all(f"`{model}`" in row for model in models)


def test_where_weights_are_taken_from_is_as_the_page_says(tmp_path, monkeypatch):
    page = text("docs/checkpoints.md")
    assert "With neither of the two options pytest ends with code 4" in page
    assert "with `--checkpoints` alone it is `checkpoints` in the artifact store" in page
    given = {"target": "cpu", "store": str(tmp_path / "store"), "catalog": str(TINY)}
    catalog = load_catalog(TINY)
    case = cases.Case("tiny", 4, "cpu", "throughput")
    neither = settings.resolve(given, environment={})
    (missing,) = cases.missing(neither, [case])
    assert "checkpoints" in missing.thing
    asked = []

    def obtain(spec, folders, *, cache, **others):
        asked.append((folders, cache))
        raise CheckpointError("planted")

    monkeypatch.setattr(checkpoints, "obtain_checkpoint", obtain)
    for name in ("checkpoints", "checkpoint_cache"):
        chosen = settings.resolve({**given, name: str(tmp_path)}, environment={})
        assert cases.missing(chosen, [case]) == ()
        bench = Workbench(chosen, catalog, tmp_path / "run")
        with pytest.raises(CheckpointError, match="planted"):
            bench.for_case(case).prepare()
    assert asked == [([tmp_path], tmp_path / "store" / "checkpoints"), ([], tmp_path)]
