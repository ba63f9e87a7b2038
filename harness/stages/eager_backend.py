"""Eager PyTorch as a backend of the device worker: the reference that compiled models are held to.

Loaded by the worker through its path. The worker runs in the harness's own interpreter then, so
that it may import the package for the network, the checkpoint and the strict loading.
"""

import time
from pathlib import Path


class EagerModel:
    """`float32[B, 3, S, S]` -> `float32[B, C]`; two copies, one for each memory format."""

    def __init__(self, path, options):
        from harness.networks import library, weights

        torch = library.import_torch()
        torch.set_num_threads(int(options["threads"]))
        self._torch = torch
        batch, size = int(options["batch_size"]), int(options["size"])
        self.inputs = [(options["input_name"], (batch, 3, size, size), "float32")]
        self.outputs = [(options["output_name"], (batch, int(options["classes"])), "float32")]
        state = weights.load_state(
            Path(path), options["layout"], allow_unsafe=bool(options["trust"])
        )
        self._models = []
        # One pass over images takes channels-last: it is the faster one on most networks.
        formats = [torch.channels_last]
        if options["both_formats"]:
            formats.insert(0, torch.contiguous_format)
        for memory_format in formats:
            module = library.build_network(options["network"], options["arguments"])
            weights.load_into(module, state, name=options["network"])
            self._models.append((module.eval().to(memory_format=memory_format), memory_format))

    def run(self, arrays):
        torch = self._torch
        module, memory_format = self._models[0]
        with torch.inference_mode():
            images = torch.from_numpy(arrays[0].copy()).contiguous(memory_format=memory_format)
            return [module(images).numpy()]

    def time(self, arrays, loops, warmup):
        """Milliseconds of `loops` executions; execution i uses memory format i % formats."""
        torch = self._torch
        inputs = [
            torch.from_numpy(arrays[0].copy()).contiguous(memory_format=memory_format)
            for _, memory_format in self._models
        ]
        samples = []
        with torch.inference_mode():
            for i in range(-warmup, loops):
                which = i % len(self._models)
                start = time.perf_counter()
                self._models[which][0](inputs[which])
                if i >= 0:
                    samples.append(1000.0 * (time.perf_counter() - start))
        return samples

    def close(self):
        self._models = []


def open_model(path, options):
    """The worker's entry: `path` is a checkpoint in its original layout."""
    return EagerModel(path, options)
