"""`cache ls`: what each artifact is; the width of what the commands print."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from harness.__main__ import app
from harness.base.store import MANIFEST, Entry, Store
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.cli import cache as cache_commands
from harness.cli import options
from harness.stages.inventory import Item, inventory
from tests.selftest.running import ROOT, TINY


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    # Two models share a network or a cropping only where a test says so, whatever is added.
    whole = load_catalog(ROOT / "baselines.yaml")
    names = ("seresnext101", "squeezenet1_1", "inceptionv4")
    return whole.model_copy(update={"models": {name: whole.models[name] for name in names}})


def put(store: Store, kind: str, text: str = "", **inputs: Any) -> Entry:
    """An artifact whose bytes are `text` or, as those of real ones, its inputs."""

    def build(staging: Path) -> str:
        (staging / "file").write_text(text or f"{kind} {sorted(inputs.items())}")
        return ""

    return store.get_or_build(kind, inputs, build)


def fill(store: Store) -> None:
    """Everything that two cases of a rehearsal make, on cpu and on a simulated and a real NPU."""
    common: dict[str, Any] = {"network": "torchvision:squeezenet1_1", "arguments": {}}
    standin = put(store, "standin", **common)
    onnx = put(store, "onnx", checkpoint=standin.digest, **common)
    for size in (1, 4):
        simplified = put(store, "simplified", onnx=onnx.digest, batch_size=size)
        mine = {"simplified": simplified.digest}
        put(store, "probe", seed=22, **mine)
        put(store, "compiled", target="cpu", batch_size=size, **mine)
        npu: dict[str, Any] = {
            "target": "ascend310p3",
            "chip": "Ascend310P3",
            "batch_size": size,
            **mine,
        }
        for simulated in (True, False):
            put(store, "compiled", simulated=simulated, cann="8.0.RC2", **npu)
    crops = put(
        store,
        "crops",
        count=46,
        geometry={
            "resize": {"op": "resize_short", "size": 256, "interpolation": "bilinear"},
            "crop": {"op": "center_crop", "size": 224, "offset": "round"},
        },
    )
    put(store, "eager", crops=[crops.key], checkpoint=standin.digest, batch_size=8, **common)


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
        ("standin", name, None, "generated weights"),
        ("onnx", name, None, "stand-in"),
        ("eager", name, None, "46 images, stand-in"),
        ("crops", "seresnext101, squeezenet1_1", None, "46 images, 256 to 224"),
        *(
            row
            for size in (1, 4)
            for row in (
                ("simplified", name, size, "stand-in"),
                ("probe", name, size, "outputs for seeds, stand-in"),
                ("compiled", name, size, "cpu, stand-in"),
                ("compiled", name, size, "Ascend310P3, SIMULATED, stand-in"),
                ("compiled", name, size, "Ascend310P3, CANN 8.0.RC2, stand-in"),
            )
        ),
    }
    assert len(rows(items)) == len(items) == len(list(store.entries()))
    assert not any(one.older for one in items)


def test_real_weights_and_given_files_are_told_from_stand_ins(
    tmp_path: Path, catalog: Catalog
) -> None:
    store = Store(tmp_path)
    put(store, "onnx", network="timm:inception_v4", arguments={"num_classes": 1001},
        checkpoint="0123456789abcdef")  # fmt: skip
    given = put(store, "onnx", given="fedcba9876543210")
    put(store, "simplified", onnx=given.digest, batch_size=8)
    assert rows(inventory(store.entries(), catalog)) == {
        ("onnx", "inceptionv4", None, "weights 01234567"),
        ("onnx", "", None, "given file fedcba98"),
        ("simplified", "", 8, "given file fedcba98"),
    }


def test_a_network_of_no_model_is_named_itself(tmp_path: Path, catalog: Catalog) -> None:
    store = Store(tmp_path)
    put(store, "onnx", network="timm:other", checkpoint="1")
    put(store, "onnx", network="timm:inception_v4", arguments={"num_classes": 7}, checkpoint="2")
    assert {one.model for one in inventory(store.entries(), catalog)} == {
        "timm:other",
        "timm:inception_v4",
    }
    assert {one.model for one in inventory(store.entries(), None)} == {
        "timm:other",
        "timm:inception_v4",
    }


def test_what_another_version_made_is_older(tmp_path: Path, catalog: Catalog) -> None:
    store = Store(tmp_path)
    fill(store)
    held = list(store.entries())
    newer = [
        Entry(**{**vars(one), "key": one.key[::-1], "created": "2999-01-01T00:00:00+00:00"})
        for one in held
        if one.kind == "compiled"
    ]
    items = inventory([*held, *newer], catalog)
    assert {one.entry.key for one in items if one.older} == {
        one.key for one in held if one.kind == "compiled"
    }


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"geometry": "odd", "crops": 3, "network": 7, "arguments": None},
        {"geometry": {"resize": 3}, "count": "many", "crops": ["absent"], "simulated": "odd"},
        {"onnx": "itself", "simplified": None, "checkpoint": None, "batch_size": "1"},
        {"onnx": [], "given": {}, "geometry": [], "network": [], "crops": {}},
        {"checkpoint": [1], "chip": {}, "simulated": [], "cann": [], "count": {}},
    ],
)
def test_any_manifest_is_listed(
    inputs: Mapping[str, Any], tmp_path: Path, catalog: Catalog
) -> None:
    store = Store(tmp_path)
    kinds = ("images", "crops", "standin", "onnx", "simplified", "compiled", "probe", "eager", "x")
    for kind in kinds:
        put(store, kind, **inputs)
    assert len(inventory(store.entries(), catalog)) == len(kinds)


def test_artifacts_that_name_each_other_do_not_go_round(tmp_path: Path, catalog: Catalog) -> None:
    store = Store(tmp_path)
    one = put(store, "onnx", text="same", simplified="of the next")
    again = Entry(**{**vars(one), "inputs": {"onnx": one.digest}})
    (item,) = inventory([again], catalog)
    assert (item.model, item.batch_size) == ("", None)


# The command ------------------------------------------------------------------------------


@pytest.fixture
def ls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in os.environ:
        if name.startswith(("HARNESS_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")

    def ls(*words: str, **environment: str) -> str:
        done = CliRunner().invoke(
            app, ["cache", "ls", f"--store={tmp_path / 'store'}", *words], env=environment
        )
        assert done.exit_code == 0, done.output
        return done.output

    return ls


def test_the_list_names_model_batch_chip_and_key(ls, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store)
    lines = ls(COLUMNS="140").splitlines()
    (real,) = [line for line in lines if "Ascend310P3, CANN 8.0.RC2" in line and " 4  " in line]
    assert real.split()[:3] == ["compiled", "squeezenet1_1", "4"]
    keys = {entry.key[: cache_commands.KEY_SHOWN] for entry in store.entries()}
    assert all(any(line.endswith(key) for line in lines) for key in keys)
    assert "14 artifacts, 0.0 MB in " in lines[-1]
    assert "torchvision:squeezenet1_1" in ls(f"--catalog={TINY}")
    assert "torchvision:squeezenet1_1" in ls(f"--catalog={tmp_path / 'absent.yaml'}")


def test_an_empty_store_is_one_line(ls) -> None:
    (line,) = ls().splitlines()
    assert line.startswith("0 artifacts, 0.0 MB in ")


@pytest.mark.parametrize(
    ("columns", "width"),
    [("80", 80), ("132", 132), ("", 100), ("wide", 100), ("0", 100), ("-5", 100), ("1", 40),
     ("9999", 500), ("9" * 50, 100)],
)  # fmt: skip
def test_a_pipe_is_as_wide_as_columns_says(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert options.console().width == width
    monkeypatch.delenv("COLUMNS")
    assert options.console().width == options.PIPED_WIDTH


def test_ages_are_said_in_one_unit() -> None:
    ages = [-5, 0, 3600, 7200, 3 * 86400, 40 * 86400]
    assert [cache_commands._ago(age) for age in ages] == [
        "0 min", "0 min", "60 min", "2 h", "3 d", "40 d"
    ]  # fmt: skip


def test_a_store_that_is_no_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")
    for command in ("ls", "gc"):
        done = CliRunner().invoke(app, ["cache", command, "--store=/dev/null"])
        assert done.exit_code == 4
        assert "--store=/dev/null is no folder" in done.output


def test_sizes_and_counts_are_said_in_fit_words() -> None:
    assert [cache_commands._size(size) for size in (0, 40_000_000, 2_500_000_000)] == [
        "0.0 MB", "40.0 MB", "2.5 GB"
    ]  # fmt: skip
    assert [cache_commands._count(number, "case") for number in (0, 1, 2)] == [
        "0 cases", "1 case", "2 cases"
    ]  # fmt: skip


def test_a_manifest_without_inputs_is_not_listed(ls, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store)
    manifest = next(store.entries()).directory / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "inputs": None}))
    assert "13 artifacts, " in ls()


@pytest.fixture
def gc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in os.environ:
        if name.startswith("HARNESS_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")

    def gc(*words: str) -> Result:
        return CliRunner().invoke(app, ["cache", "gc", f"--store={tmp_path / 'store'}", *words])

    return gc


def test_what_was_used_within_the_hour_stays_and_is_told(gc, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    one, other = put(store, "onnx", "a", number=1), put(store, "onnx", "b", number=2)
    os.utime(other.directory / MANIFEST, (0, 0))
    done = gc("--older-than-days=0")
    assert done.exit_code == 0
    assert "1 artifact, 0.0 MB removed; 1 used within the last hour stay" in done.output
    assert [entry.key for entry in store.entries()] == [one.key]
    assert "1 artifact, 0.0 MB removed" in gc(f"--key={one.key[:8]}").output
    assert list(store.entries()) == []


@pytest.mark.parametrize("key", ["", "12", "*", "../../../x", "0" * 33, "ABCDEF01"])
def test_a_key_that_is_none_is_refused(gc, key: str) -> None:
    done = gc(f"--key={key}")
    assert done.exit_code == 4
    assert "is no key" in done.output


def test_what_cannot_be_removed_is_the_machine(
    gc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_ = put(Store(tmp_path / "store"), "onnx", "a", number=1)
    os.utime(put_.directory / MANIFEST, (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    done = gc("--older-than-days=1")
    assert done.exit_code == 7
    assert "0 artifacts, 0.0 MB removed" in done.output
    assert "1 thing could not be removed" in done.output
    assert "Permission denied" in done.output
