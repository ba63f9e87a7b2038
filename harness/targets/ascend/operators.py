"""The command that compares an ONNX file and an OM operator by operator on an NPU.

Options as the tools' guides give them (gitcode.com/Ascend: msprobe,
docs/*/accuracy_compare/infer_compare_offline_model_instruct.md; msit, docs/debug/compare): absolute
paths, the input a `.bin` or `.npy`. None of it was run on an NPU here.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from harness.targets.ascend.toolkit import COMPARERS, Toolkit
from harness.targets.protocol import Images, OperatorComparison, TensorSpec

# By msit's notice of 2026 msprobe takes its place.
_COMMANDS = {
    "msprobe": "compare -m offline_model -gp {onnx} -tp {om} --input_data {batch} -o {output} "
    "--rank {device}",
    "msit": "debug compare -gm {onnx} -om {om} -i {batch} -o {output} -d {device}",
}
_SHAPE = {"msprobe": "--input_shape", "msit": "--input-shape"}


def comparison(
    toolkit: Toolkit,
    *,
    onnx: Path,
    compiled: Path,
    batch: Images,
    device: int,
    folder: Path,
    given: TensorSpec | None = None,
) -> OperatorComparison:
    """Return commands to paste into a shell, for the first tool that is there; `batch` is written
    to `folder` for them.

    `onnx` is the simplified file, whose batch size is fixed as the compiled one's; where both serve
    several, `given` is its input at that of the batch.
    """
    tool = next((name for name in COMPARERS if name in toolkit.comparers), None)
    if tool is None:
        return OperatorComparison(
            f"{COMPARERS[0]} compare", why_not=f"{' and '.join(COMPARERS)} are not on PATH"
        )
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "input.bin"
    data.write_bytes(np.ascontiguousarray(batch).tobytes())
    values = {
        "onnx": onnx.absolute(),
        "om": compiled.absolute(),
        "batch": data,
        "output": folder / tool,
        "device": device,
    }
    cann = toolkit.env.get("ASCEND_TOOLKIT_HOME") or toolkit.env.get("ASCEND_HOME_PATH")
    command = ["env", f"ASCEND_TOOLKIT_HOME={cann}"] if cann else []
    command.append(str(toolkit.comparers[tool]))
    command += [word.format_map(values) for word in _COMMANDS[tool].split()]
    if given is not None:
        command += [_SHAPE[tool], f"{given.name}:{','.join(map(str, given.shape))}"]
    commands = [shlex.join(command)]
    if toolkit.script is not None:
        commands.insert(0, shlex.join(["source", str(toolkit.script)]))
    return OperatorComparison(f"{tool} {_COMMANDS[tool].split(' -')[0]}", tuple(commands))
