"""Jobs over ONNX graphs: their logits for given images, and the first operator that departs.

Each function here runs in a child process (`harness.base.jobs`), unoptimised by ONNX Runtime,
so that every tensor of the graph is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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


def run_graph(*, model: str, inputs: str, batch_size: int, output: str) -> dict[str, Any]:
    """Logits of `inputs`, a `.npy` of `float32[N, 3, S, S]`, into the `.npy` `output`."""
    images = np.load(inputs, allow_pickle=False)
    session = _open(model)
    name = session.get_inputs()[0].name
    rows = []
    for start in range(0, len(images), batch_size):
        batch = _batch(images, start, batch_size)
        rows.append(session.run(None, {name: batch})[0])
    logits = np.concatenate(rows)[: len(images)].astype(np.float32)
    np.save(output, logits, allow_pickle=False)
    return {"images": len(logits)}


def first_departure(
    *, expected: str, found: str, inputs: str, batch_size: int, bound: float
) -> dict[str, Any]:
    """The first operator of the graph `found` whose output departs from that of `expected`.

    Tensors are matched by name, on the first batch of `inputs`. Returns `compared`, the number of
    tensors that both have; `first`, the operator, or None; `around`, what was compared near it;
    and `why`, what differs between the two graphs there.
    """
    import onnx

    ours, theirs = onnx.load(found), onnx.load(expected)
    batch = _batch(np.load(inputs, allow_pickle=False), 0, batch_size)
    places = _places(ours, theirs)
    sizes = _bytes(onnx, ours, theirs, batch_size)
    looked: dict[int, dict[str, Any]] = {}
    tried: set[int] = set()  # some cannot be compared: another shape, or no floats
    window = list(range(len(places)))
    while window:
        chosen = _thin(window, [sizes.get(places[i]["theirs"], 0) for i in window])
        looked.update(_compare(ours, theirs, [places[i] for i in chosen], batch, chosen))
        tried.update(chosen)
        bad = [i for i in sorted(looked) if not looked[i]["relative_l2"] <= bound]
        if not bad:
            break
        # What was left out before the first that departs may have departed already.
        good = [i for i in sorted(looked) if i < bad[0]]
        first = good[-1] + 1 if good else 0
        window = [i for i in range(first, bad[0]) if i not in tried]
    order = sorted(looked)
    at = _origin([looked[i]["relative_l2"] for i in order], bound)
    rows = [looked[i] for i in order]
    if at is None:
        return {"compared": len(rows), "first": None, "around": rows[-2:], "why": ""}
    return {
        "compared": len(rows),
        "first": rows[at],
        "around": rows[max(0, at - 2) : at + 4],
        "why": _why(onnx, ours, theirs, rows[at]),
    }


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


def _places(ours: Any, theirs: Any) -> list[dict[str, str]]:
    """Tensors that both graphs have, in the order of `ours`: names in each, operator."""
    known = {output for node in theirs.graph.node for output in node.output if output}
    found = []
    for node in ours.graph.node:
        # ONNX Runtime keeps the tensor's name in the node's where it changed the layout, but not
        # where it added a sum to a convolution, its fourth input.
        renamed = node.name.endswith("_nchwc") and len(node.input) < 4
        laid_out = node.name.removesuffix("_nchwc") if renamed else ""
        for output in node.output:
            theirs_name = output if output in known else laid_out
            if output and theirs_name in known:
                place = {"ours": output, "theirs": theirs_name}
                found.append({**place, "operator": node.name or output, "type": node.op_type})
    return found


def _bytes(onnx: Any, ours: Any, theirs: Any, batch_size: int) -> Mapping[str, int]:
    """Sizes of tensors, of those whose shape can be inferred."""
    sizes: dict[str, int] = {}
    for model in (theirs, ours):
        try:
            graph = onnx.shape_inference.infer_shapes(model).graph
        except Exception:  # noqa: S112 - a graph whose shapes nobody knows is compared at once
            continue
        for value in [*graph.value_info, *graph.output]:
            sides = [d.dim_value or batch_size for d in value.type.tensor_type.shape.dim]
            sizes[value.name] = max(sizes.get(value.name, 0), 4 * math.prod(sides))
    return sizes


def _thin(window: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Every k-th of the window, its last included, so that they fit into `MEMORY`."""
    for step in range(1, len(window) + 1):
        kept = range(len(window) - 1, -1, -step)
        if sum(sizes[i] for i in kept) <= MEMORY:
            return [window[i] for i in reversed(kept)]
    return [window[len(window) // 2]]


def _exposed(model: Any, names: Sequence[str]) -> bytes:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    # Without a type: ONNX Runtime knows it, and knows operators that shape inference does not.
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    return bytes(copy.SerializeToString())


def _compare(
    ours: Any,
    theirs: Any,
    places: Sequence[Mapping[str, str]],
    batch: Array,
    numbers: Sequence[int],
) -> Iterator[tuple[int, dict[str, Any]]]:
    found = []
    for model, side in ((ours, "ours"), (theirs, "theirs")):
        names = list(dict.fromkeys(place[side] for place in places))
        session = _open(_exposed(model, names))
        values = session.run(names, {session.get_inputs()[0].name: batch})
        found.append(dict(zip(names, values, strict=True)))
    for number, place in zip(numbers, places, strict=True):
        a, b = found[0][place["ours"]], found[1][place["theirs"]]
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or b.dtype.kind != "f":
            continue
        difference = min(_difference(one, b) for one in _layouts(a, b, place))
        if not difference.comparable:
            continue
        yield number, {**place, "relative_l2": difference.relative_l2, "largest": difference.max}


class _Difference:
    def __init__(self, comparable: bool, relative_l2: float, largest: float) -> None:
        self.comparable, self.relative_l2, self.max = comparable, relative_l2, largest

    def __lt__(self, other: _Difference) -> bool:
        return (not self.comparable, self.relative_l2) < (not other.comparable, other.relative_l2)


def _difference(found: Array, expected: Array) -> _Difference:
    if found.shape != expected.shape:
        return _Difference(False, math.inf, math.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = found.astype(np.float64) - expected
        norm = float(np.linalg.norm(expected.astype(np.float64)))
        l2, largest = float(np.linalg.norm(delta)), float(np.max(np.abs(delta), initial=0.0))
    if not math.isfinite(l2):
        return _Difference(True, NOT_FINITE, NOT_FINITE)
    return _Difference(True, l2 / norm if norm else l2, largest)


def _layouts(found: Array, expected: Array, place: Mapping[str, str]) -> Iterator[Array]:
    yield found
    if place["ours"] != place["theirs"] and found.ndim == expected.ndim == 4:
        images, channels, height, width = found.shape
        for block in _BLOCKS:
            if channels % block == 0:
                apart = found.reshape(images, channels // block, height, width, block)
                plain = apart.transpose(0, 1, 4, 2, 3).reshape(found.shape)
                yield plain[:, : expected.shape[1]]


def _origin(differences: Sequence[float], bound: float) -> int | None:
    """Where the fault begins: the first above `bound`, or the jump before it that led there."""
    bad = next((i for i, one in enumerate(differences) if not one <= bound), None)
    if bad is None:
        return None
    before = FLOOR
    for i in range(bad):
        if differences[i] > JUMP * before:
            return i
        before = max(before, differences[i])
    return bad


def _why(onnx: Any, ours: Any, theirs: Any, row: Mapping[str, Any]) -> str:
    """What differs between the two graphs at one operator."""

    def node_of(model: Any, name: str) -> Any:
        return next(node for node in model.graph.node if name in node.output)

    a, b = node_of(ours, row["ours"]), node_of(theirs, row["theirs"])
    if a.domain not in ("", "ai.onnx"):
        return "an operator of the runtime's own: its parts cannot be told apart"
    if a.op_type != b.op_type:
        return f"{a.op_type} here, {b.op_type} there"
    attributes = [{one.name: one.SerializeToString() for one in node.attribute} for node in (a, b)]
    names = sorted(
        name
        for name in {*attributes[0], *attributes[1]}
        if attributes[0].get(name) != attributes[1].get(name)
    )
    if names:
        return f"other attributes: {', '.join(names)}"
    weights = [{one.name: one for one in model.graph.initializer} for model in (ours, theirs)]
    for mine, other in zip(a.input, b.input, strict=False):
        if mine in weights[0] and other in weights[1]:
            x = onnx.numpy_helper.to_array(weights[0][mine])
            y = onnx.numpy_helper.to_array(weights[1][other])
            difference = _difference(x, y)
            if not difference.relative_l2 <= FLOOR:
                changed = int(np.count_nonzero(x != y)) if x.shape == y.shape else x.size
                return f"other weights: {mine} ({changed} of {x.size} numbers differ)"
    inputs = [list(node.input) for node in (a, b)]
    if inputs[0] != inputs[1]:
        return f"other inputs: {', '.join(inputs[0])}"
    return "the same operator, attributes and weights in both: an operator before it, or rounding"


def load(path: Path) -> npt.NDArray[np.float32]:
    """The logits that `run_graph` wrote."""
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
