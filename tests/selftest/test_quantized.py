"""Quantised ONNX files, by `--onnx`: with QDQ nodes, and with operators of a compiler alone."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as quantization
import pytest
import yaml
from onnx import helper, version_converter

from harness.base.errors import ConfigError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.catalog.schema import FidelityRule
from harness.networks import library
from harness.plan import held_against_weights
from harness.records.measurements import ProblemCode
from harness.run.own import draft
from harness.settings import resolve
from harness.stages.onnx_file import Tensors, check_onnx
from harness.stages.simplify import fix_batch_size, simplify_onnx
from harness.targets.cpu.target import CpuTarget
from tests.selftest.own_model import NAMES, NETWORK, SIZE, put_images, trained
from tests.selftest.running import TINY
from tests.selftest.test_own_models import export, rename
from tests.selftest.test_own_models import started as started

TENSORS = Tensors(input_name="image", output_name="class", size=SIZE, classes=len(NAMES))


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        noise = np.random.default_rng(5)
        shape = (4, 3, SIZE, SIZE)
        self.left = [noise.uniform(-2, 2, shape).astype(np.float32) for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return {"image": self.left.pop()} if self.left else None


def with_operator(source: Any, name: str) -> Any:
    """The same file whose first node takes the input through an operator."""
    model = onnx.load(source)
    for node in model.graph.node:
        node.input[:] = ["quantised" if one == "image" else one for one in node.input]
    model.graph.node.insert(0, helper.make_node(name, ["image"], ["quantised"]))
    return model


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A network's weights; its ONNX file; that in int8, and that with an operator of AMCT's."""
    root = tmp_path_factory.mktemp("own")
    network = trained(NAMES)
    library.import_torch().save(network.state_dict(), root / "net.pth")
    model = onnx.load(export(network, root / "pixels.onnx"))
    for old, new in (("pixels", "image"), ("logits", "class")):
        rename(model.graph, old, new)
    onnx.save(version_converter.convert_version(model, 13), str(root / "float.onnx"))
    quantization.quantize_static(
        str(root / "float.onnx"), str(root / "int8.onnx"), Calibration(), per_channel=True
    )
    onnx.save(with_operator(root / "float.onnx", "AscendQuant"), str(root / "deploy.onnx"))
    shutil.copy(root / "float.onnx", root / "net.onnx")
    return SimpleNamespace(root=root, data=put_images(root / "data"))


def block(own, folder, **more):
    """A catalog of the network in a file, with more in its block."""
    given = {"target": "cpu", "model_file": str(own.root / "net.pth"), "network": NETWORK}
    text = draft(resolve({**given, "imagenet": str(own.data), "image_size": SIZE}, environment={}))
    catalog = yaml.safe_load(text)
    catalog["sources"] = {"amct": {"title": "The report of the quantisation", "where": "amct.md"}}
    catalog["models"]["net"].update(more)
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(catalog, allow_unicode=True))
    return path


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that takes an operator for another: AMCT's for `Identity` where it is right."""

    def knows(operator: str, of: str = "AscendQuant") -> None:
        right = CpuTarget.compile

        def compile(self, file, model, batch_size, output_dir, **given):
            known = output_dir.with_name(f"{output_dir.name}.onnx")
            changed = onnx.load(file)
            for node in changed.graph.node:
                node.op_type = operator if node.op_type == of else node.op_type
            onnx.save(changed, str(known))
            try:
                return right(self, known, model, batch_size, output_dir, **given)
            finally:
                known.unlink()

        monkeypatch.setattr(CpuTarget, "compile", compile)

    return knows


@pytest.mark.parametrize("bound", [0.3, None])
def test_an_int8_file_is_held_to_its_block_s_bound(own, started, tmp_path, bound):
    """Both the logits against eager's and the outputs behind a throughput."""
    more = {"fidelity": {"bound": bound, "source": "amct"}} if bound else {}
    records = started(
        data=own.data,
        catalog=block(own, tmp_path, **more),
        checkpoints=own.root,
        onnx=f"net={own.root / 'int8.onnx'}",
        image_size=None,
    ).execute()
    accuracy, throughput = records.cases
    assert 1e-3 < accuracy.accuracy.fidelity.relative_l2 < 0.3
    assert throughput.throughput.outputs.bound == (bound or CpuTarget.traits.fidelity_bound)
    if bound:
        assert [case.outcome for case in records.cases] == ["passed", "recorded"], accuracy.sentence
    else:
        assert accuracy.outcome == "failed"
        assert ProblemCode.LOGITS_DIFFER in {one.code for one in accuracy.verdict.problems}


def test_what_int8_costs_is_not_what_a_diagnosis_blames(own, started, compiler, tmp_path):
    compiler("Sub", of="Add")
    run = started(
        data=own.data,
        catalog=block(own, tmp_path, fidelity={"bound": 0.3, "source": "amct"}),
        checkpoints=own.root,
        onnx=f"net={own.root / 'int8.onnx'}",
        store=tmp_path / "store",
        image_size=None,
        no_diagnosis=False,
    )
    (case,) = run.execute(run.plan.of("accuracy")).cases
    assert case.outcome == "failed"
    assert case.diagnosis.stage is Stage.COMPILE, case.diagnosis.summary


@pytest.mark.parametrize("batch_size", [3, None])
def test_onnxsim_leaves_the_quantisation_as_it_is(own, tmp_path, batch_size):
    source, output = own.root / "int8.onnx", tmp_path / "simplified.onnx"
    simplify_onnx(source=str(source), tensors=TENSORS, batch_size=batch_size, output=str(output))
    kinds = ("QuantizeLinear", "DequantizeLinear")
    before, after = (
        [node.op_type for node in onnx.load(file).graph.node if node.op_type in kinds]
        for file in (source, output)
    )
    assert len(before) > 20 and sorted(after) == sorted(before)


@pytest.mark.parametrize(
    ("fidelity", "published", "weights", "eager"),
    [
        (True, True, True, True),
        (True, True, False, False),
        (False, True, True, False),  # the file may be of other weights than the published ones
        (False, False, True, True),
    ],
)
def test_a_published_model_with_a_bound_is_held_against_its_weights(
    tmp_path, fidelity, published, weights, eager
):
    model = load_catalog(TINY).models["tiny"]
    rule = FidelityRule(bound=0.1, source="none") if fidelity else None
    accuracy = model.accuracy if published else None
    model = model.model_copy(update={"fidelity": rule, "accuracy": accuracy})
    given = {"checkpoints": str(tmp_path)} if weights else {}
    options = {"target": "cpu", "onnx": [f"tiny={tmp_path}/int8.onnx"], **given}
    settings = resolve(options, environment={})
    assert held_against_weights(model, settings) is eager
    bare = resolve({"target": "cpu"}, environment={})
    assert held_against_weights(model, bare)


# Operators that ONNX Runtime does not have ------------------------------------------------------


@pytest.mark.parametrize(("file", "kind"), [("net.pth", "eager"), ("net.onnx", "onnx")])
def test_a_deployed_file_is_held_against_the_weights_or_the_file_beside_it(
    own, started, compiler, tmp_path, file, kind
):
    compiler("Identity")
    network = NETWORK if kind == "eager" else None
    run = started(
        data=own.data,
        model_file=own.root / file,
        network=network,
        onnx=f"net={own.root / 'deploy.onnx'}",
        store=tmp_path / "store",
    )
    records = run.execute()
    accuracy, throughput = records.cases
    assert [case.outcome for case in records.cases] == ["passed", "recorded"], accuracy.sentence
    assert accuracy.reference.kind == kind
    assert throughput.throughput.outputs.within
    assert {case.checkpoint.file for case in records.cases} == {str(own.root / "deploy.onnx")}


def test_a_deployed_file_that_is_compiled_wrongly_fails_both_checks(
    own, started, compiler, tmp_path
):
    compiler("Neg")
    run = started(
        data=own.data,
        model_file=own.root / "net.pth",
        network=NETWORK,
        onnx=f"net={own.root / 'deploy.onnx'}",
        store=tmp_path / "store",
        no_diagnosis=False,
    )
    accuracy, throughput = run.execute().cases
    assert (accuracy.outcome, throughput.outcome) == ("failed", "failed")
    assert "AscendQuant" in str(accuracy.diagnosis.sections)  # these stages cannot be tried


def test_a_deployed_file_with_nothing_beside_it_says_what_to_do(own, started, compiler, tmp_path):
    compiler("Identity")
    deployed, places = own.root / "deploy.onnx", {"data": own.data, "store": tmp_path / "store"}
    words = "ONNX Runtime has no AscendQuant"
    with pytest.raises(ConfigError, match=words) as caught:  # before there is a run
        started(model_file=deployed, **places).execute()
    assert "fake_quant" in caught.value.remedy
    given = {"catalog": block(own, tmp_path), "onnx": f"net={deployed}", "image_size": None}
    run = started(**places, **given)
    (case,) = run.execute(run.plan.of("throughput")).cases
    assert case.outcome == "error" and words in case.sentence


@pytest.mark.parametrize("batch_size", [3, None])
def test_a_foreign_file_gets_its_batch_size_and_nothing_else(own, tmp_path, batch_size):
    source, output = tmp_path / "deploy.onnx", tmp_path / "fixed.onnx"
    given = onnx.load(own.root / "deploy.onnx")
    given.graph.output[0].type.tensor_type.shape.dim[1].ClearField("value")  # as some networks do
    onnx.save(given, str(source))
    told = fix_batch_size(
        source=str(source), tensors=TENSORS, batch_size=batch_size, output=str(output)
    )
    assert told["foreign"] == ["AscendQuant"]
    before, after = onnx.load(source).graph, onnx.load(output).graph
    assert list(before.node) == list(after.node)
    axis = after.input[0].type.tensor_type.shape.dim[0]
    assert (axis.dim_value, axis.dim_param) == (batch_size or 0, "" if batch_size else "N")
    assert check_onnx(str(own.root / "int8.onnx"), TENSORS, None)["foreign"] == []
