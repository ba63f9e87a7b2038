"""Stage EXPORT: a checkpoint becomes an ONNX file, or a user's own file takes its place.

Opset 11, names and the dynamic batch axis are those of the guides' `*_pth2onnx.py` scripts.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.base.errors import ConfigError, ExportError, on_disk
from harness.base.host import required_version
from harness.base.stages import Stage
from harness.base.store import file_digest, source_digest
from harness.base.text import first_line
from harness.stages.onnx_file import (
    FILE,
    OPSET,
    Tensors,
    check_onnx,
    require_same,
    run_onnx,
)

if TYPE_CHECKING:  # the job below runs in a child process that needs none of these
    from harness.stages.context import CaseContext
    from harness.stages.weights import Checkpoint

LOG_LINES = 10


@dataclass(frozen=True)
class Export:
    """The ONNX file of a checkpoint: `model.onnx`, with a dynamic batch axis."""

    case: CaseContext
    weights: Checkpoint
    stage: ClassVar[Stage] = Stage.EXPORT

    def inputs(self) -> Mapping[str, Any]:
        return {
            **self.weights.network_inputs(self.case),
            **self.case.tensors,
            "opset": OPSET,
            "onnx_version": required_version("onnx"),
            "recipe": source_digest(
                "harness.stages.export",
                "harness.stages.onnx_file",
                "harness.networks.layouts",
                "harness.networks.library",
                "harness.networks.weights",
            ),
        }

    def build(self, staging: Path) -> str:
        log = self.case.job(
            Stage.EXPORT,
            "harness.stages.export:export_onnx",
            {
                **self.case.network,
                "tensors": self.case.tensors,
                "checkpoint": str(self.weights.path),
                "trust": self.case.trusted,
                "output": str(staging / FILE),
            },
            ExportError,
            600.0,
        )
        self.weights.require_unchanged()
        return log


@dataclass(frozen=True)
class GivenOnnx:
    """A checked copy of the ONNX file that `--onnx` gave; `sha256` is of that file."""

    case: CaseContext
    file: Path
    sha256: str
    stage: ClassVar[Stage] = Stage.EXPORT

    @classmethod
    def of(cls, case: CaseContext, file: Path) -> GivenOnnx:
        """Read the file's digest. Raises `ConfigError`: it cannot be read."""
        what = f"--onnx {case.model.id}={file}"
        with on_disk(ConfigError, what, "name an ONNX file that can be read"):
            return cls(case, file, file_digest(file))

    def inputs(self) -> Mapping[str, Any]:
        return {
            "given": self.sha256,
            **self.case.tensors,
            "opsets": list(self.case.bench.target.opsets()),
            "recipe": source_digest("harness.stages.onnx_file"),
        }

    def build(self, staging: Path) -> str:
        copy = staging / FILE
        shutil.copyfile(self.file, copy)
        if file_digest(copy) != self.sha256:
            raise ConfigError(f"{self.file} changed while it was read", remedy="run again")
        tensors, opsets = self.case.tensors, self.case.bench.target.opsets()
        own = self.file == self.case.given_onnx
        given = f"--onnx={self.case.model.id}={self.file}" if own else self.file
        return self.case.job(
            Stage.EXPORT,
            "harness.stages.onnx_file:check_given",
            {"given": str(given), "path": str(copy), "tensors": tensors, "opsets": opsets},
            ConfigError,
            300.0,
        )


def _write_later_operators(torch: Any) -> None:
    """Let the exporter write at our opset what its own rules write at a later one only.

    Attention becomes the products and the softmax that it is. Both rules use operators of opset 11
    alone; the check of the file would tell.
    """
    rules = "torch.onnx._internal.torchscript_exporter.symbolic_opset"
    for name, opset in (("unflatten", 13), ("scaled_dot_product_attention", 14)):
        rule = getattr(importlib.import_module(f"{rules}{opset}"), name)
        torch.onnx.register_custom_op_symbolic(f"aten::{name}", rule, OPSET)


def export_onnx(
    *,
    network: str,
    arguments: Mapping[str, Any],
    checkpoint: str,
    layout: str,
    trust: bool,
    tensors: Tensors,
    output: str,
) -> dict[str, Any]:
    """Load a checkpoint strictly, export it and check the ONNX file against eager PyTorch.

    Raises:
        CheckpointError: weights that are not the network's.
        ExportError: the export failed, or the file is not what it must be.
    """
    from harness.networks import library, weights

    torch = library.import_torch()
    module = weights.load_network(network, arguments, Path(checkpoint), layout, trust=trust)
    size, names = tensors["size"], (tensors["input_name"], tensors["output_name"])
    # Tracing runs the network once; one image suffices, the batch axis is declared dynamic.
    example = torch.zeros(1, 3, size, size)
    _write_later_operators(torch)
    try:
        torch.onnx.export(
            module,
            (example,),
            output,
            dynamo=False,
            opset_version=OPSET,
            input_names=names[:1],
            output_names=names[1:],
            dynamic_axes={name: {0: "-1"} for name in names},
        )
    except Exception as error:
        raise ExportError(
            f"torch.onnx.export failed: {first_line(error)}",
            remedy="export it yourself, at another opset or by another exporter, and give it: "
            "--onnx=MODEL=FILE",
            log="\n".join(str(error).splitlines()[:LOG_LINES]),  # not the whole graph
        ) from error
    description = check_onnx(output, tensors, batch_size=None)
    generator = torch.Generator().manual_seed(20)
    probe = torch.randn(2, 3, size, size, generator=generator)
    with torch.inference_mode():
        eager = module(probe).numpy()
    difference = require_same(
        run_onnx(output, names[0], probe.numpy()),
        eager,
        ExportError,
        "the ONNX file computes something else than eager PyTorch",
        remedy="an operator was exported wrongly; compare operator by operator",
    )
    return {**description, "relative_l2": difference}
