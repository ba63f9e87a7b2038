"""Classifiers of one's own: a folder for each class and a model file, through the whole chain."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from harness import Run, resolve
from harness.__main__ import app
from harness.base.errors import ConfigError, DataError, HarnessError
from harness.catalog.load import load_catalog
from harness.images.dataset import find_image_set
from harness.measure import accuracy
from harness.networks import library
from harness.records.measurements import ProblemCode
from harness.run.own import draft
from tests.selftest.image_folders import image_set
from tests.selftest.own_model import COLOURS, NAMES, NETWORK, SIZE, put_images, trained

DYNAMIC = {name: {0: "batch"} for name in ("pixels", "logits")}


def export(module: Any, path: Path, axes: dict[str, dict[int, str]] = DYNAMIC) -> Path:
    torch = library.import_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, SIZE, SIZE),),
            str(path),
            dynamo=False,
            opset_version=11,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Images, and files of one network: as training scripts save it, as TorchScript, as ONNX."""
    root = tmp_path_factory.mktemp("own")
    torch, network = library.import_torch(), trained(NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {f"module.{name}": value for name, value in network.state_dict().items()}
        torch.save({"epoch": 3, "arch": "test_resnet", "state_dict": state}, root / "Net-v1.pth")
        script = torch.jit.trace(network, torch.zeros(1, 3, SIZE, SIZE))
        torch.jit.save(script, root / "script.pt")
        export(network, root / "net.onnx")
        swapped = torch.nn.Sequential(Swapped(), network)
        export(swapped, root / "swapped.onnx")
    return SimpleNamespace(root=root, data=put_images(root / "data"), network=network)


def Swapped() -> Any:
    torch: Any = library.import_torch()

    class Module(torch.nn.Module):  # type: ignore[misc]
        def forward(self, images: Any) -> Any:
            return images[:, [2, 1, 0]]

    return Module()


@pytest.fixture
def started(shared: Path, tmp_path: Path) -> Any:
    """A run of a model of one's own, at one batch size."""

    def start(**options: Any) -> Run:
        places = {"store": shared / "store", "leases": tmp_path / "leases", "runs": tmp_path / "r"}
        given = {"target": "cpu", "batch_sizes": "4", "budget": 0.1, "no_diagnosis": True}
        given = {**given, "timing_precision": 100, "image_size": SIZE, **places, **options}
        given["imagenet"] = given.pop("data")
        texts = {k: v if isinstance(v, bool) else str(v) for k, v in given.items() if v is not None}
        return Run(resolve(texts, environment={}))

    return start


@pytest.mark.parametrize(
    ("file", "kind"), [("Net-v1.pth", "eager"), ("script.pt", "eager"), ("net.onnx", "onnx")]
)
def test_a_file_and_class_folders_are_enough(own, started, file, kind):
    records = started(data=own.data, model_file=own.root / file).execute()
    assert records.exit_status == 0
    accuracy, throughput = records.cases
    assert (accuracy.outcome, throughput.outcome) == ("passed", "recorded")
    assert accuracy.verdict.rule == "accuracy-own-set"
    assert accuracy.reference.kind == kind
    assert "conversion agrees on all 12 images" in accuracy.sentence
    assert "accepted" not in accuracy.sentence
    assert accuracy.measured == 100.0  # the classes are the network's, whatever they are called
    assert accuracy.accuracy.fidelity.relative_l2 < 1e-4
    assert list(accuracy.class_names) == NAMES
    assert accuracy.assumed
    page = (records.directory / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in NAMES)


def test_a_simulated_card_takes_them(own, started):
    options = {"simulate_ascend": True, "target": None, "model_file": own.root / "Net-v1.pth"}
    records = started(data=own.data, **options).execute()
    assert [case.outcome for case in records.cases] == ["passed", "recorded"]
    assert records.cases[0].measured == 100.0


def test_exchanged_channels_of_an_onnx_file_are_caught_by_the_weights(own, started):
    given = f"net_v1={own.root / 'swapped.onnx'}"
    run = started(data=own.data, model_file=own.root / "Net-v1.pth", onnx=given)
    with pytest.raises(HarnessError, match="the catalog says"):  # other names than an export's
        run.execute([run.plan.cases[0]])
    onnx = pytest.importorskip("onnx")
    model = onnx.load(own.root / "swapped.onnx")
    for old, new in (("pixels", "image"), ("logits", "class")):
        rename(model.graph, old, new)
    onnx.save(model, str(own.root / "renamed.onnx"))
    given = f"net_v1={own.root / 'renamed.onnx'}"
    run = started(data=own.data, model_file=own.root / "Net-v1.pth", onnx=given)
    (case,) = run.execute([run.plan.cases[0]]).cases
    assert case.outcome == "failed"
    assert ProblemCode.LOGITS_DIFFER in {one.code for one in case.verdict.problems}


@pytest.mark.parametrize(
    ("file", "output"), [("网络 (1).onnx", "495"), ("Net (1).onnx", "/fc/Gemm_output_0")]
)
def test_names_as_exports_and_browsers_give_them_are_taken(own, started, tmp_path, file, output):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(own.root / "net.onnx")
    rename(model.graph, "logits", output)
    onnx.save(model, str(tmp_path / file))
    options = {"simulate_ascend": True, "target": None} if output == "495" else {}
    run = started(data=own.data, model_file=tmp_path / file, **options)
    (case,) = run.execute([run.plan.cases[0]]).cases
    assert (case.outcome, case.measured) == ("passed", 100.0)


def rename(graph: Any, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def test_the_file_s_own_order_of_the_classes_counts(own, started, tmp_path):
    torch = library.import_torch()
    order = ["猫", "bird 10", "Hündin"]
    loaded = {"arch": "test_resnet", "model": trained(order).state_dict()}
    loaded["class_to_idx"] = {name: index for index, name in enumerate(order)}
    torch.save(loaded, tmp_path / "other.pth")
    run = started(data=own.data, model_file=tmp_path / "other.pth")
    (case,) = run.execute([run.plan.cases[0]]).cases
    assert (case.measured, list(case.class_names)) == (100.0, order)


def test_another_order_of_the_classes_shows_where_no_file_says_it(own, started, tmp_path):
    torch = library.import_torch()
    loaded = {"arch": "test_resnet", "model": trained(["猫", "bird 10", "Hündin"]).state_dict()}
    torch.save(loaded, tmp_path / "other.pth")
    run = started(data=own.data, model_file=tmp_path / "other.pth")
    (case,) = run.execute([run.plan.cases[0]]).cases
    assert case.outcome == "failed"
    (problem,) = case.verdict.problems
    assert problem.code is ProblemCode.CLASS_ORDER
    assert problem.data["names"] == ("Hündin for 猫", "猫 for Hündin")


def test_folders_that_are_none_of_the_file_s_classes_are_refused(own, started, tmp_path):
    torch = library.import_torch()
    loaded = {"arch": "test_resnet", "model": own.network.state_dict()}
    torch.save({**loaded, "class_names": ["dog", "bird 10", "猫"]}, tmp_path / "n.pth")
    with pytest.raises(HarnessError, match="none of the network's classes: Hündin"):
        _ = started(data=own.data, model_file=tmp_path / "n.pth").plan


def broken(kind: str, own: SimpleNamespace, folder: Path) -> dict[str, Any]:
    """Options of which one is wrong."""
    good = {"data": own.data, "model_file": own.root / "Net-v1.pth"}
    torch, data = library.import_torch(), folder / "data"
    match kind:
        case "no image":
            data.mkdir()
        case "an empty class folder":
            put_images(data)
            (data / "wolf").mkdir()
        case "images that are left out":
            put_images(data)
            (data / "猫" / "sub").mkdir()
            for name in ("9.webp", "sub/8.png", ".trash.gif"):
                (data / "猫" / name).write_bytes(b"-")
        case "one class folder":
            put_images(data, {"猫": COLOURS["猫"]})
        case "another number of classes":
            put_images(data, {**COLOURS, "wolf": (9, 9, 9)})
        case "another network":
            return {**good, "network": "timm:resnet10t"}
        case "no network named":
            torch.save(own.network.state_dict(), folder / "w.pth")
            return {**good, "model_file": folder / "w.pth"}
        case "no file":
            return {**good, "model_file": folder / "absent.pth"}
        case "no weights":
            (folder / "page.pth").write_text("<html>log in</html>")
            return {**good, "model_file": folder / "page.pth"}
        case "two classes of one name":
            names = {"arch": "test_resnet", "class_names": ["猫", "wolf", "猫"]}
            torch.save({**names, "model": own.network.state_dict()}, folder / "twice.pth")
            return {**good, "model_file": folder / "twice.pth"}
        case "a name that no catalog takes":
            (folder / "a;b.pth").write_bytes((own.root / "Net-v1.pth").read_bytes())
            return {**good, "model_file": folder / "a;b.pth"}
        case "two catalogs":
            return {**good, "catalog": "baselines.yaml"}
        case "a network without a file":
            return {"data": own.data, "network": NETWORK}
    return {**good, "data": data}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no image", "no known layout of images"),
        ("an empty class folder", "1 of 4 class folders in .* have no image: wolf"),
        ("images that are left out", r"2 images .*: 猫/9\.webp, 猫/sub/8\.png"),
        ("one class folder", "one class folder alone"),
        ("another number of classes", "4 class folders .*, the network has 3 classes"),
        ("another network", "timm:resnet10t does not take these weights"),
        ("no network named", "does not say of which network"),
        ("no file", "No such file"),
        ("no weights", "is a web page"),
        ("two classes of one name", "its class names repeat: 猫"),
        ("a name that no catalog takes", r"no catalog takes the name 'a;b\.pth'"),
        ("two catalogs", "both say what to run"),
        ("a network without a file", "says nothing without --model-file"),
    ],
)
def test_what_does_not_fit_ends_before_there_is_a_run(own, started, tmp_path, kind, words):
    with pytest.raises(HarnessError, match=words) as caught:
        _ = started(**broken(kind, own, tmp_path)).plan
    assert caught.value.remedy
    assert "\n" not in caught.value.message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("data", "words"), [(None, "--data=DIR"), ("absent", "absent does not")])
def test_a_data_set_that_is_not_there_is_asked_for_as_it_is_given(own, started, data, words):
    with pytest.raises(HarnessError, match=words):
        started(data=data, model_file=own.root / "net.onnx").execute()


def test_an_onnx_file_of_one_batch_size_ends_before_there_is_a_run(own, started, tmp_path):
    export(own.network, tmp_path / "fixed.onnx", {})
    run = started(data=own.data, model_file=tmp_path / "fixed.onnx")
    with pytest.raises(
        ConfigError, match=r"fixed\.onnx: input 'pixels' has the fixed batch size 1"
    ):
        run.execute()
    assert not (tmp_path / "r").exists()


CODE = """
import timm
def build():
    return timm.create_model("test_resnet", num_classes=3)
"""


def test_code_that_builds_the_network_runs_where_it_is_allowed(own, started, tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"model_file": own.root / "Net-v1.pth", "network": "python:mynets:build"}
    with pytest.raises(ConfigError, match="built by code") as caught:
        _ = started(data=own.data, **options).plan
    assert "--trust-network=net_v1" in caught.value.remedy
    run = started(data=own.data, trust_network="net_v1", **options)
    (case,) = run.execute([run.plan.cases[0]]).cases
    assert (case.outcome, case.measured) == ("passed", 100.0)


def test_a_draft_is_a_catalog_to_keep(own, started, shared, tmp_path):
    arguments = ["catalog", "own", f"--data={own.data}", f"--model-file={own.root / 'Net-v1.pth'}"]
    done = CliRunner().invoke(app, [*arguments, f"--store={shared / 'store'}"])
    assert done.exit_code == 0, done.output
    (tmp_path / "kept.yaml").write_text(done.output, encoding="utf-8")
    kept = load_catalog(tmp_path / "kept.yaml")
    options = {"model_file": own.root / "Net-v1.pth", "image_size": None}
    assert kept.models == started(data=own.data, **options).catalog.models
    (model,) = kept.models.values()
    assert (model.network.source, model.classes) == (NETWORK, 3)
    assert any("sorted folders" in text for text in model.assumed)
    options = {"catalog": tmp_path / "kept.yaml", "checkpoints": own.root, "image_size": None}
    run = started(data=own.data, **options)
    assert run.plan.cases[0].id == "net_v1-bs4-cpu"


def test_a_rehearsal_has_no_stand_ins_for_it(own, started, shared, tmp_path):
    text = draft(started(data=own.data, model_file=own.root / "script.pt").settings)
    (tmp_path / "kept.yaml").write_text(text, encoding="utf-8")
    places = {"store": str(shared / "store"), "catalog": str(tmp_path / "kept.yaml")}
    with pytest.raises(ConfigError, match="no stand-ins for script"):
        _ = Run(resolve({"rehearsal": True, **places}, environment={})).plan


def test_what_timm_keeps_beside_the_weights_is_read(own, tmp_path, started):
    from argparse import Namespace

    torch, state = library.import_torch(), own.network.state_dict()
    options = Namespace(img_size=SIZE, mean=[0.1, 0.2, 0.3], crop_pct=1.0, model="test_resnet")
    saved = {"arch": "test_resnet", "state_dict": state, "args": options, "version": 2}
    torch.save(saved, tmp_path / "timm.pth.tar")
    catalog = started(data=own.data, model_file=tmp_path / "timm.pth.tar", image_size=None).catalog
    (model,) = catalog.models.values()
    assert (model.input.size, model.preprocessing.resize.size) == (SIZE, SIZE)
    assert model.preprocessing.normalize.mean == (0.1, 0.2, 0.3)


def test_a_folder_of_timm_s_hub_says_everything(own, tmp_path, started):
    pytest.importorskip("safetensors")
    from safetensors.torch import save_file

    save_file(own.network.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 3, "label_names": NAMES}
    config["pretrained_cfg"] = {"input_size": [3, SIZE, SIZE], "std": [0.4, 0.4, 0.4]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = {"model_file": tmp_path / "model.safetensors", "image_size": None}
    (model,) = started(data=own.data, **options).catalog.models.values()
    assert (model.input.size, list(model.class_names)) == (SIZE, NAMES)
    assert model.preprocessing.normalize.std == (0.4, 0.4, 0.4)


def test_a_list_has_labels_of_any_number_of_classes(own, tmp_path):
    for number, label in enumerate((0, 1500, 7)):
        Image.new("RGB", (80, 80)).save(tmp_path / f"{number}.png")
        with (tmp_path / "val_label.txt").open("a") as file:
            file.write(f"{number}.png {label}\n")
    found = find_image_set(tmp_path)
    assert found.labels == found.of_classes((), 1501).labels == (0, 1500, 7)
    with pytest.raises(DataError, match=r"beyond the 1500 classes of the network: 1\.png"):
        found.of_classes((), 1500)


@pytest.mark.parametrize("names", [(), ("background", *NAMES)])
def test_a_background_class_before_the_folders_is_counted_once(own, names):
    images = find_image_set(own.data).of_classes(names, 4, 1)
    counts = accuracy.Tally(images, 1)
    assert set(counts.labels) == {1, 2, 3}
    assert images.class_name(0) == NAMES[0]


def test_labels_beside_class_folders_are_not_left_out_in_silence(own, tmp_path):
    with pytest.raises(DataError, match="has class folders"):
        find_image_set(own.data, tmp_path / "labels.txt")


def test_a_stray_picture_hides_no_class_folders(own, tmp_path):
    put_images(tmp_path / "val")
    (tmp_path / "thumbs").mkdir()
    Image.new("RGB", (80, 80)).save(tmp_path / "thumbs" / "x.png")
    assert find_image_set(tmp_path).classes == tuple(NAMES)


def test_files_of_the_same_name_in_two_class_folders_are_two_images(own):
    found = find_image_set(own.data)
    assert len(set(found.names)) == len(found) == 12
    assert found.names[0] == f"{NAMES[0]}/0.a.png"
    assert (found.own_set, found.classes) == (12, tuple(NAMES))


@pytest.mark.parametrize(
    ("labels", "seen", "order"),
    [
        ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], {0: 1, 1: 0}),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2, 0, 0, 1], {0: 1, 1: 2, 2: 0}),
        ([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], {}),  # right, but for one
        ([0, 0, 1, 1], [1, 1, 0, 0], {}),  # two images come by chance
        ([0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], {}),  # a network that knows one class
        ([0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 1], {}),  # a network that guesses
        ([0, 0, 0, 1, 1, 1], [1, 1, 1, 5, 5, 5], {}),  # another network's classes
    ],
)
def test_only_classes_that_are_taken_for_each_other_are_in_another_order(labels, seen, order):
    images = image_set(labels)
    counts = accuracy.Tally(images, 0)
    counts.add(images.names, np.eye(10, dtype=np.float32)[seen])
    assert counts.class_order() == order
