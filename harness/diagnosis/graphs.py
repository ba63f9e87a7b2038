"""A job that runs an ONNX file as it is, in a child process (`harness.base.jobs`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.base.errors import InferError
from harness.base.text import first_line
from harness.stages.inference import batches


def run_graph(*, model: str, inputs: str, batch_size: int, output: str) -> dict[str, Any]:
    """Write the logits of `inputs`, a `.npy` of `float32[N, 3, S, S]`, into the `.npy` `output`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InferError(f"ONNX Runtime does not open the graph: {first_line(error)}") from error
    name = session.get_inputs()[0].name
    images = np.load(inputs, allow_pickle=False)
    rows = [session.run(None, {name: batch})[0] for batch in batches(images, batch_size)]
    np.save(output, np.concatenate(rows)[: len(images)].astype(np.float32), allow_pickle=False)
    return {"images": len(images)}
