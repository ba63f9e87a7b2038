"""The export: operators that PyTorch writes at a later opset, and one that it cannot write."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from harness.base.errors import ExportError
from harness.networks import library
from harness.stages import export
from harness.stages.onnx_file import OPSET, Tensors
from harness.stages.simplify import simplify_onnx

SIDE, CLASSES = 8, 10


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Export a network of one function of `float32[N, 64, 3]` before a linear layer."""
    torch = library.import_torch()

    def make(function: Callable[[Any], Any]) -> Path:
        class Network(torch.nn.Module):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.head = torch.nn.Linear(3 * SIDE * SIDE, CLASSES)

            def forward(self, images: Any) -> Any:
                return self.head(function(images.flatten(2).transpose(1, 2)).flatten(1))

        network = Network()
        monkeypatch.setattr(library, "build_network", lambda *_: network)
        torch.save(network.state_dict(), tmp_path / "tiny.pth")
        output = tmp_path / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in the child process that exports for a run
            export.export_onnx(
                network="timm:tiny",
                arguments={},
                checkpoint=str(tmp_path / "tiny.pth"),
                layout="plain",
                trust=False,
                tensors=Tensors(
                    input_name="image", output_name="class", size=SIDE, classes=CLASSES
                ),
                output=str(output),
            )
        return output

    return make


@pytest.mark.parametrize(
    "function",
    [
        lambda x: library.import_torch().nn.functional.scaled_dot_product_attention(x, 2 * x, x),
        lambda x: x.unflatten(1, (SIDE, SIDE)),
    ],
    ids=["fused attention", "unflatten"],
)
def test_an_operator_of_a_later_opset_is_written_by_its_parts(exported, function):
    """The export itself holds the outputs of two images against eager PyTorch."""
    (opset,) = onnx.load(exported(function)).opset_import
    assert opset.version == OPSET


def test_an_operator_that_cannot_be_written_is_told_in_short(exported):
    with pytest.raises(ExportError, match="linalg_pinv") as caught:
        exported(lambda x: library.import_torch().linalg.pinv(x))
    assert "--onnx=MODEL=FILE" in caught.value.remedy
    assert len(caught.value.log.splitlines()) <= export.LOG_LINES


def test_a_file_that_is_simplified_with_an_open_batch_axis_is_the_same_at_each_size(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    tensors = Tensors(input_name="image", output_name="class", size=SIDE, classes=CLASSES)
    source, output = exported(lambda x: x + 1), tmp_path / "simplified.onnx"
    graphs = []
    for batch_size in (2, 3):
        simplify_onnx(
            source=str(source),
            tensors=tensors,
            batch_size=batch_size,
            output=str(output),
            dynamic=True,
        )
        graph = onnx.load(output).graph
        for value in (graph.input[0], graph.output[0]):
            assert value.type.tensor_type.shape.dim[0].dim_value == batch_size
        graphs.append([node.SerializeToString() for node in graph.node])
    assert graphs[0] == graphs[1]
