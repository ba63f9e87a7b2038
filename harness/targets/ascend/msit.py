"""The command of msit that compares an ONNX file and an OM operator by operator on an NPU.

Options as msit's guide to `msit debug compare` gives them (gitcode.com/Ascend/msit,
docs/debug/compare): absolute paths, `-i` a `.bin` or `.npy` of the model's input, `-c` the CANN
toolkit (default: `$ASCEND_TOOLKIT_HOME`), `-d` the device. None of it was run on an NPU here.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from harness.targets.ascend.toolkit import Toolkit
from harness.targets.protocol import Float32

TOOL = "msit debug compare"

_SOURCED = "sourced "


def commands(
    toolkit: Toolkit, *, onnx: Path, compiled: Path, batch: Float32, device: int, folder: Path
) -> list[str]:
    """Return commands to paste into a shell; `batch` is written to `folder` for them.

    The toolkit has msit; `onnx` is the simplified file, whose batch size is fixed as the compiled
    one's.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "input.bin"
    data.write_bytes(np.ascontiguousarray(batch, np.float32).tobytes())
    command = [str(toolkit.msit), "debug", "compare"]
    command += ["-gm", str(onnx.absolute()), "-om", str(compiled.absolute()), "-i", str(data)]
    cann = toolkit.env.get("ASCEND_TOOLKIT_HOME") or toolkit.env.get("ASCEND_HOME_PATH")
    if cann:
        command += ["-c", cann]
    command += ["-o", str(folder / "msit"), "-d", str(device)]
    source = toolkit.environment_source
    source_command = [shlex.join(["source", source.removeprefix(_SOURCED)])]
    return [*(source_command if source.startswith(_SOURCED) else []), shlex.join(command)]
