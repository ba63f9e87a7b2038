"""Eager PyTorch as a backend of the device worker: the reference that compiled models are held to.

Loaded by the worker through its path. The worker runs in the harness's own interpreter then, so
that it may import the package for the network, the checkpoint and the strict loading.
"""

import time
from pathlib import Path

import numpy as np

FORMATS = {"contiguous": "contiguous_format", "channels-last": "channels_last"}  # PyTorch's names
TRIALS = 2  # executions of one image by which formats are compared, a quick network's for TRIAL_S
TRIAL_S = 0.3  # seconds of CPU time


class EagerModel:
    """`float32[B, 3, S, S]` -> `float32[B, C]`, in channels-last memory or in the faster format."""

    def __init__(self, path, options):
        from harness.networks import library, weights

        torch = library.import_torch()
        torch.set_num_threads(int(options["threads"]))
        self._torch = torch
        batch, size = int(options["batch_size"]), int(options["size"])
        shape = (batch, 3, size, size)
        self.inputs = [(options["input_name"], shape, "float32")]
        self.outputs = [(options["output_name"], (batch, int(options["classes"])), "float32")]
        network = (options["network"], options["arguments"])
        trust = bool(options["trust"])
        self._module = weights.load_network(*network, Path(path), options["layout"], trust=trust)
        image = np.ones((1, *shape[1:]), np.float32)
        # Channels-last is the faster one on most networks.
        self._use(self._faster(image) if options["faster_format"] else "channels-last")

    def _faster(self, image):
        return min(FORMATS, key=lambda name: self._trial(name, image))

    def _use(self, name):
        self._format = getattr(self._torch, FORMATS[name])
        self._module.to(memory_format=self._format)
        self.info = {"memory_format": name}

    def _trial(self, name, image):
        """The least CPU time of an execution in a memory format."""
        self._use(name)
        seconds = []
        while len(seconds) < TRIALS or sum(seconds) < TRIAL_S:
            began = time.process_time()
            self.run([image])
            seconds.append(time.process_time() - began)
        return min(seconds)

    def run(self, arrays):
        torch = self._torch
        with torch.inference_mode():
            images = torch.from_numpy(arrays[0]).contiguous(memory_format=self._format)
            return [self._module(images).numpy()]

    def close(self):
        self._module = None


class OnnxModel:
    """`float32[B, 3, S, S]` -> `float32[B, C]` of an ONNX file that has no weights beside it: ONNX
    Runtime on the CPU, node by node as the file has them.
    """

    def __init__(self, path, options):
        import onnxruntime

        asked = onnxruntime.SessionOptions()
        asked.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        asked.intra_op_num_threads = int(options["threads"])
        asked.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, asked, ["CPUExecutionProvider"])
        self._name, self.info = options["input_name"], {"optimised": False}
        batch, size = int(options["batch_size"]), int(options["size"])
        self.inputs = [(self._name, (batch, 3, size, size), "float32")]
        self.outputs = [(options["output_name"], (batch, int(options["classes"])), "float32")]

    def run(self, arrays):
        return [self._session.run(None, {self._name: arrays[0]})[0]]

    def close(self):
        self._session = None


def open_model(path, options):
    """The worker's entry: `path` is a checkpoint in its original layout, or an ONNX file."""
    return (OnnxModel if options["network"] == "onnx" else EagerModel)(path, options)
