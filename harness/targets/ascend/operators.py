"""The command that compares an ONNX file and an OM operator by operator on an NPU.

Options as the tools' guides give them (gitcode.com/Ascend: msprobe,
docs/*/accuracy_compare/infer_compare_offline_model_instruct.md; msit, docs/debug/compare): absolute
paths, the input a `.bin` or `.npy`. None of it was run on an NPU here.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.targets.ascend.toolkit import Toolkit
from harness.targets.protocol import Images, OperatorComparison

_SOURCED = "sourced "


@dataclass(frozen=True)
class Comparer:
    """A tool: the words that begin its command, and what it calls each argument."""

    program: str
    words: Sequence[str]
    onnx: str
    compiled: str
    batch: str
    output: str
    device: str

    @property
    def name(self) -> str:
        return f"{self.program} {' '.join(self.words)}"


# The first that is there. By msit's notice of 2026 msprobe takes its place.
_COMPARERS = (
    Comparer(
        *("msprobe", ("compare", "-m", "offline_model")),
        *("-gp", "-tp", "--input_data", "-o", "--rank"),
    ),
    Comparer("msit", ("debug", "compare"), "-gm", "-om", "-i", "-o", "-d"),
)


def comparison(
    toolkit: Toolkit, *, onnx: Path, compiled: Path, batch: Images, device: int, folder: Path
) -> OperatorComparison:
    """Return commands to paste into a shell; `batch` is written to `folder` for them.

    `onnx` is the simplified file, whose batch size is fixed as the compiled one's.
    """
    tool = next((one for one in _COMPARERS if one.program in toolkit.comparers), None)
    if tool is None:
        names = " and ".join(one.program for one in _COMPARERS)
        return OperatorComparison(_COMPARERS[0].name, why_not=f"{names} are not on PATH")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "input.bin"
    data.write_bytes(np.ascontiguousarray(batch).tobytes())
    cann = toolkit.env.get("ASCEND_TOOLKIT_HOME") or toolkit.env.get("ASCEND_HOME_PATH")
    command = ["env", f"ASCEND_TOOLKIT_HOME={cann}"] if cann else []
    command += [str(toolkit.comparers[tool.program]), *tool.words]
    for flag, value in (
        (tool.onnx, onnx.absolute()),
        (tool.compiled, compiled.absolute()),
        (tool.batch, data),
        (tool.output, folder / tool.program),
        (tool.device, device),
    ):
        command += [flag, str(value)]
    source = toolkit.environment_source
    commands = [shlex.join(command)]
    if source.startswith(_SOURCED):
        commands.insert(0, shlex.join(["source", source.removeprefix(_SOURCED)]))
    return OperatorComparison(tool.name, tuple(commands))
