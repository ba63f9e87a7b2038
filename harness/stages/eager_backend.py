"""Eager PyTorch as a backend of the device worker: the reference that compiled models are held to.

Loaded by the worker through its path. The worker runs in the harness's own interpreter then, so
that it may import the package for the network, the checkpoint and the strict loading.
"""

import copy
import runpy
import time
from pathlib import Path

import numpy as np

EXACT = 1e-3  # relative L2 to the CPU's logits: what float32 may cost on a device; float16 is 7e-3

FORMATS = {"contiguous": "contiguous_format", "channels-last": "channels_last"}  # PyTorch's names
TRIALS = 2  # executions of one image by which formats are compared, a quick network's for TRIAL_S
TRIAL_S = 0.3  # seconds of CPU time


class EagerModel:
    """`float32[B, 3, S, S]` -> `float32[B, C]`, in channels-last memory or in the faster format.

    On a target's device where `options["device"]` is the file that prepares it. Its logits of batch
    1, 2, 4, 8, ... must then be the CPU's: a device that computes in less than float32, or begins
    to fail, is no reference.
    """

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
        self._place, self._on_cpu, self._batches = "cpu", None, 0
        if options["device"]:
            self._place = runpy.run_path(options["device"])["use"]()
            self._on_cpu = copy.deepcopy(self._module)
            self._module.to(self._place)
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
            logits = self._module(images.to(self._place)).cpu().numpy()
            self._batches += 1
            if self._on_cpu is not None and self._batches.bit_count() == 1:  # a power of two
                self._compare(logits, self._on_cpu(images).numpy())
            return [logits]

    def _compare(self, logits, expected):
        off = float(np.linalg.norm(logits - expected) / np.linalg.norm(expected))
        if not off <= EXACT:  # NaN is not
            raise ArithmeticError(
                f"logits on {self._place} differ by {off:.1e} from the CPU's, {EXACT:g} allowed: "
                "it does not compute in float32"
            )

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
