"""What each artifact of a store is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.base.stages import Stage
from harness.base.store import Entry, Store
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.stages.inventory import KINDS, Item, inventory
from tests.selftest.running import ROOT


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    # Two models share a network or a cropping only where a test says so, whatever is added.
    whole = load_catalog(ROOT / "baselines.yaml")
    names = ("seresnext101", "squeezenet1_1", "inceptionv4")
    return whole.model_copy(update={"models": {name: whole.models[name] for name in names}})


def put(store: Store, kind: Stage, text: str = "", **inputs: Any) -> Entry:
    """An artifact whose bytes are `text` or, as those of real ones, its inputs."""

    def build(staging: Path) -> str:
        (staging / "file").write_text(text or f"{kind} {sorted(inputs.items())}")
        return ""

    return store.get_or_build(kind, inputs, build)


def fill(store: Store) -> None:
    """Everything that two cases of a rehearsal make, on cpu and on a simulated and a real NPU."""
    common: dict[str, Any] = {"network": "torchvision:squeezenet1_1", "arguments": {}}
    standin = put(store, Stage.STANDIN, **common)
    onnx = put(store, Stage.EXPORT, checkpoint=standin.digest, **common)
    for size in (1, 4):
        simplified = put(store, Stage.SIMPLIFY, onnx=onnx.digest, batch_size=size)
        mine = {"simplified": simplified.digest}
        put(store, Stage.PROBE, seed=22, **mine)
        put(store, Stage.COMPILE, target="cpu", batch_size=size, **mine)
        npu: dict[str, Any] = {
            "target": "ascend310p3",
            "chip": "Ascend310P3",
            "batch_size": size,
            **mine,
        }
        for simulated in (True, False):
            put(store, Stage.COMPILE, simulated=simulated, cann="8.0.RC2", **npu)
    crops = put(
        store,
        Stage.CROPS,
        count=46,
        geometry={
            "resize": {"op": "resize_short", "size": 256, "interpolation": "bilinear"},
            "crop": {"size": 224, "offset": "round"},
        },
    )
    put(store, Stage.EAGER, crops=[crops.key], checkpoint=standin.digest, batch_size=8, **common)


def rows(items: list[Item]) -> set[tuple[str, str, int | None, str]]:
    return {(one.entry.kind, one.model, one.batch_size, one.what) for one in items}


def test_every_artifact_says_what_it_is_and_no_two_are_alike(
    tmp_path: Path, catalog: Catalog
) -> None:
    store = Store(tmp_path)
    fill(store)
    items = inventory(store.entries(), catalog)
    name = "squeezenet1_1"
    assert rows(items) == {
        (Stage.STANDIN, name, None, "generated weights"),
        (Stage.EXPORT, name, None, "stand-in"),
        (Stage.EAGER, name, None, "46 images, stand-in"),
        (Stage.CROPS, "seresnext101, squeezenet1_1", None, "46 images, 256 to 224"),
        *(
            row
            for size in (1, 4)
            for row in (
                (Stage.SIMPLIFY, name, size, "stand-in"),
                (Stage.PROBE, name, size, "outputs for seeds, stand-in"),
                (Stage.COMPILE, name, size, "cpu, stand-in"),
                (Stage.COMPILE, name, size, "Ascend310P3, SIMULATED, stand-in"),
                (Stage.COMPILE, name, size, "Ascend310P3, CANN 8.0.RC2, stand-in"),
            )
        ),
    }
    assert len(rows(items)) == len(items) == len(list(store.entries()))
    assert not any(one.older for one in items)


def test_real_weights_given_files_and_networks_of_no_model_are_told_apart(
    tmp_path: Path, catalog: Catalog
) -> None:
    store = Store(tmp_path)
    network = "timm:inception_v4"
    weights = "0123456789abcdef"
    put(store, Stage.EXPORT, network=network, arguments={"num_classes": 1001}, checkpoint=weights)
    put(store, Stage.EXPORT, network=network, arguments={"num_classes": 7}, checkpoint="1")
    put(store, Stage.EXPORT, network="timm:other", checkpoint="2")
    given = put(store, Stage.EXPORT, given="fedcba9876543210")
    put(store, Stage.SIMPLIFY, onnx=given.digest, batch_size=8)
    assert rows(inventory(store.entries(), catalog)) == {
        (Stage.EXPORT, "inceptionv4", None, "weights 01234567"),
        (Stage.EXPORT, network, None, "weights 1"),
        (Stage.EXPORT, "timm:other", None, "weights 2"),
        (Stage.EXPORT, "", None, "given file fedcba98"),
        (Stage.SIMPLIFY, "", 8, "given file fedcba98"),
    }
    named = {one.model for one in inventory(store.entries(), None)}
    assert named == {network, "timm:other", ""}


def test_what_another_version_made_is_older(tmp_path: Path, catalog: Catalog) -> None:
    store = Store(tmp_path)
    fill(store)
    held = list(store.entries())
    newer = [
        Entry(**{**vars(one), "key": one.key[::-1], "created": "2999-01-01T00:00:00+00:00"})
        for one in held
        if one.kind == Stage.COMPILE
    ]
    items = inventory([*held, *newer], catalog)
    assert {one.entry.key for one in items if one.older} == {
        one.key for one in held if one.kind == Stage.COMPILE
    }


def test_artifacts_of_another_version_are_listed(tmp_path: Path, catalog: Catalog) -> None:
    store = Store(tmp_path)
    for kind in (*KINDS, Stage.LOAD):
        put(store, kind, other="of its own")
    items = inventory(store.entries(), catalog)
    assert [item.entry.kind for item in items] == [*KINDS, Stage.LOAD]
