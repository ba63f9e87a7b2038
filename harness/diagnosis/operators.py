"""Jobs over ONNX graphs: their logits for given images, and the first operator that departs.

Each function here runs in a child process (`harness.base.jobs`), unoptimised by ONNX Runtime,
so that every tensor of the graph is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import InferError

Array = npt.NDArray[Any]

MEMORY = 512 * 2**20  # bytes of intermediate tensors of one graph that are looked at together
FLOOR = 1e-6  # relative L2 of rounding in one operator
JUMP = 30.0  # times what came before: there a fault begins, also while it is small
NOT_FINITE = 1e300  # stands for NaN and infinity, which have no order, and none in JSON
_BLOCKS = (8, 16)  # channels that ONNX Runtime lays out together in NCHWc, by the processor


@dataclass(frozen=True)
class _Tensor:
    """An output of an operator, by its name in the graph that is examined and in the other."""

    name: str
    expected: str
    operator: str
    type: str


def run_graph(*, model: str, inputs: str, batch_size: int, output: str) -> dict[str, Any]:
    """Write the logits of `inputs`, a `.npy` of `float32[N, 3, S, S]`, into the `.npy` `output`."""
    images = np.load(inputs, allow_pickle=False)
    session = _open(model)
    name = session.get_inputs()[0].name
    rows = [
        session.run(None, {name: _batch(images, start, batch_size)})[0]
        for start in range(0, len(images), batch_size)
    ]
    logits = np.concatenate(rows)[: len(images)].astype(np.float32)
    np.save(output, logits, allow_pickle=False)
    return {"images": len(logits)}


def first_departure(
    *, expected: str, actual: str, inputs: str, batch_size: int, bound: float
) -> dict[str, Any]:
    """Find the first operator of the graph `actual` whose output departs from that of `expected`.

    Tensors are matched by name, on the first batch of `inputs`. Returns `compared`, the number of
    tensors that both have; `first`, the operator, or None; `around`, what was compared near it;
    and `why`, what differs between the two graphs there.
    """
    import onnx

    graphs = onnx.load(actual), onnx.load(expected)
    batch = _batch(np.load(inputs, allow_pickle=False), 0, batch_size)
    tensors = _common_tensors(*graphs)
    sizes = _bytes(graphs, batch_size)
    differences: dict[int, tuple[float, float]] = {}  # relative L2 and largest, by place
    tried: set[int] = set()  # some cannot be compared: another shape, or no floats
    window = list(range(len(tensors)))
    while window:
        chosen = _thin(window, [sizes.get(tensors[i].expected, 0) for i in window])
        differences.update(_compare(graphs, {i: tensors[i] for i in chosen}, batch))
        tried.update(chosen)
        bad = [i for i in sorted(differences) if not differences[i][0] <= bound]
        if not bad:
            break
        # What was left out before the first that departs may have departed already.
        good = [i for i in sorted(differences) if i < bad[0]]
        window = [i for i in range(good[-1] + 1 if good else 0, bad[0]) if i not in tried]
    order = sorted(differences)
    rows = [
        {**asdict(tensors[i]), "relative_l2": differences[i][0], "largest": differences[i][1]}
        for i in order
    ]
    at = _origin([differences[i][0] for i in order], bound)
    if at is None:
        return {"compared": len(rows), "first": None, "around": rows[-2:], "why": ""}
    return {
        "compared": len(rows),
        "first": rows[at],
        "around": rows[max(0, at - 2) : at + 4],
        "why": _why(graphs, tensors[order[at]]),
    }


def load(path: Path) -> npt.NDArray[np.float32]:
    """Return the logits that `run_graph` wrote."""
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def _open(model: str | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise InferError(f"ONNX Runtime does not open the graph: {lines[0]}") from error


def _batch(images: Array, start: int, size: int) -> Array:
    rows = images[start : start + size]
    batch = np.zeros((size, *images.shape[1:]), np.float32)
    batch[: len(rows)] = rows
    return batch


def _common_tensors(actual: Any, expected: Any) -> list[_Tensor]:
    """Return the tensors that both graphs have, in the order of `actual`."""
    known = {output for node in expected.graph.node for output in node.output if output}
    tensors = []
    for node in actual.graph.node:
        # ONNX Runtime keeps the tensor's name in the node's where it changed the layout, but not
        # where it added a sum to a convolution, its fourth input.
        renamed = node.name.endswith("_nchwc") and len(node.input) < 4
        laid_out = node.name.removesuffix("_nchwc") if renamed else ""
        for output in node.output:
            name = output if output in known else laid_out
            if output and name in known:
                tensors.append(_Tensor(output, name, node.name or output, node.op_type))
    return tensors


def _bytes(graphs: Sequence[Any], batch_size: int) -> Mapping[str, int]:
    """Return the sizes of tensors, of those whose shape can be inferred."""
    import onnx

    sizes: dict[str, int] = {}
    for model in graphs:
        try:
            graph = onnx.shape_inference.infer_shapes(model).graph
        except Exception:  # noqa: S112 - a graph whose shapes nobody knows is compared at once
            continue
        for value in [*graph.value_info, *graph.output]:
            sides = [d.dim_value or batch_size for d in value.type.tensor_type.shape.dim]
            sizes[value.name] = max(sizes.get(value.name, 0), 4 * math.prod(sides))
    return sizes


def _thin(window: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return every k-th of the window, its last included, so that they fit into `MEMORY`."""
    for step in range(1, len(window) + 1):
        kept = range(len(window) - 1, -1, -step)
        if sum(sizes[i] for i in kept) <= MEMORY:
            return [window[i] for i in reversed(kept)]
    return [window[len(window) // 2]]


def _compare(
    graphs: Sequence[Any], tensors: Mapping[int, _Tensor], batch: Array
) -> Iterator[tuple[int, tuple[float, float]]]:
    actual = _values(graphs[0], [one.name for one in tensors.values()], batch)
    expected = _values(graphs[1], [one.expected for one in tensors.values()], batch)
    for place, tensor in tensors.items():
        a, b = actual[tensor.name], expected[tensor.expected]
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or b.dtype.kind != "f":
            continue
        if tensor.name == tensor.expected:
            layouts = [a]
        else:
            layouts = list(_layouts(a, b.shape[1] if b.ndim == 4 else 0))
        comparable = [_difference(one, b) for one in layouts if one.shape == b.shape]
        if comparable:
            yield place, min(comparable)


def _values(model: Any, names: Sequence[str], batch: Array) -> dict[str, Any]:
    """Run the graph and return these of its tensors."""
    import onnx

    names = list(dict.fromkeys(names))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    # Without a type: ONNX Runtime knows it, and knows operators that shape inference does not.
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    session = _open(bytes(copy.SerializeToString()))
    values = session.run(names, {session.get_inputs()[0].name: batch})
    return dict(zip(names, values, strict=True))


def _layouts(values: Array, channels: int) -> Iterator[Array]:
    """Yield what a tensor may be in NCHW; `channels` without those that a layout adds."""
    yield values
    if values.ndim == 4 and channels:
        images, padded, height, width = values.shape
        for block in _BLOCKS:
            if padded % block == 0:
                blocks = values.reshape(images, padded // block, height, width, block)
                yield blocks.transpose(0, 1, 4, 2, 3).reshape(values.shape)[:, :channels]


def _difference(actual: Array, expected: Array) -> tuple[float, float]:
    """Return the relative L2 and the largest difference of two tensors of one shape."""
    with np.errstate(invalid="ignore", over="ignore"):
        delta = actual.astype(np.float64) - expected
        norm = float(np.linalg.norm(expected.astype(np.float64)))
        l2, largest = float(np.linalg.norm(delta)), float(np.max(np.abs(delta), initial=0.0))
    if not math.isfinite(l2):
        return NOT_FINITE, NOT_FINITE
    return (l2 / norm if norm else l2), largest


def _origin(differences: Sequence[float], bound: float) -> int | None:
    """Return where the fault begins: the first above `bound`, or the jump before it."""
    bad = next((i for i, one in enumerate(differences) if not one <= bound), None)
    if bad is None:
        return None
    before = FLOOR
    for i in range(bad):
        if differences[i] > JUMP * before:
            return i
        before = max(before, differences[i])
    return bad


def _why(graphs: Sequence[Any], tensor: _Tensor) -> str:
    """Return what differs between the two graphs at one operator."""
    a, b = (
        next(node for node in model.graph.node if name in node.output)
        for model, name in zip(graphs, (tensor.name, tensor.expected), strict=True)
    )
    if a.domain not in ("", "ai.onnx"):
        return "an operator of the runtime's own: its parts cannot be compared"
    if a.op_type != b.op_type:
        return f"{a.op_type} here, {b.op_type} there"
    attributes = [{one.name: one.SerializeToString() for one in node.attribute} for node in (a, b)]
    names = {*attributes[0], *attributes[1]}
    other = sorted(n for n in names if attributes[0].get(n) != attributes[1].get(n))
    if other:
        return f"other attributes: {', '.join(other)}"
    return _other_weights(graphs, a, b) or (
        f"other inputs: {', '.join(a.input)}"
        if list(a.input) != list(b.input)
        else "the same operator, attributes and weights in both: an operator before it, or rounding"
    )


def _other_weights(graphs: Sequence[Any], a: Any, b: Any) -> str:
    import onnx

    weights = [{one.name: one for one in model.graph.initializer} for model in graphs]
    for name, expected in zip(a.input, b.input, strict=False):
        if name in weights[0] and expected in weights[1]:
            x = onnx.numpy_helper.to_array(weights[0][name])
            y = onnx.numpy_helper.to_array(weights[1][expected])
            if x.shape != y.shape:
                return f"other weights: {name} (of another shape)"
            if not _difference(x, y)[0] <= FLOOR:
                changed = int(np.count_nonzero(x != y))
                return f"other weights: {name} ({changed} of {x.size} numbers differ)"
    return ""
