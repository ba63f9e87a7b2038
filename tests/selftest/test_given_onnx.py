"""ONNX files that a user brings: what is refused, and in which words."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.base.errors import ConfigError
from harness.stages import onnx_file


def model(
    *,
    batch="-1",
    names=("image", "class"),
    opset=11,
    dtype=TensorProto.FLOAT,
    channels=3,
    extra=False,
):
    weights = numpy_helper.from_array(np.ones((12, 10), np.float32), "weights")
    nodes = [
        helper.make_node("Flatten", [names[0]], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [names[1]]),
    ]
    outputs = [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, 10])]
    if extra:
        nodes.append(helper.make_node("Identity", ["flat"], ["other"]))
        outputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [batch, 12]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(names[0], dtype, [batch, channels, 2, 2])],
        outputs,
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def check(path):
    tensors = onnx_file.Tensors(input_name="image", output_name="class", size=2, classes=10)
    return onnx_file.check_given(
        given="--onnx=tiny=m.onnx", path=str(path), tensors=tensors, opsets=(9, 13)
    )


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_a_right_file_is_taken(tmp_path, opset):
    onnx.save(model(opset=opset), str(tmp_path / "m.onnx"))
    assert check(tmp_path / "m.onnx")["opset"] == opset


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ("input", "class")}, "inputs of the ONNX file are ['input']"),
        ({"names": ("image", "output")}, "outputs of the ONNX file are ['output']"),
        ({"extra": True}, "['class', 'other']"),
        ({"opset": 14}, "opset 14, the target's compiler takes 9 to 13"),
        ({"opset": 8}, "opset 8, the target's compiler takes 9 to 13"),
        ({"channels": 4}, "shape"),
        ({"batch": 1}, "fixed batch size 1"),
        ({"dtype": TensorProto.FLOAT16}, "is float16, not float32"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4cd1\n", "Git LFS pointer"),
        (b"", "not a valid ONNX file"),
        (b"\x08\x07" * 1000, "not a valid ONNX file"),
    ],
)
def test_a_wrong_file_is_refused_in_words(tmp_path, changes, words):
    made = changes if isinstance(changes, bytes) else model(**changes).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(made)
    with pytest.raises(ConfigError) as caught:
        check(tmp_path / "m.onnx")
    assert words in caught.value.message
    assert caught.value.message.startswith("--onnx=tiny=m.onnx: ")


@pytest.mark.parametrize("location", ["w.bin", "../../etc/passwd", "/etc/passwd"])
def test_weights_in_other_files_are_refused_and_not_read(tmp_path, location):
    made = model()
    tensor = made.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ConfigError) as caught:
        check(tmp_path / "m.onnx")
    assert "other files" in caught.value.message
    assert "embed" in caught.value.remedy
