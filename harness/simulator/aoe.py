"""A stand-in for `aoe`, the tuner that replaced atc's `--auto_tune_mode`.

Known of the real one: its arguments, that it needs a device, and that it takes hours. What it
prints is not known, so this one says no more than that it ended. It tunes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from harness.simulator.atc import load_model
from harness.simulator.host import Host, ToolError, parse_flags

_FAILED = 255
_FLAGS = (
    "device framework help input_format input_shape job_type log model model_path output "
    "precision_mode reload progress_bar output_type insert_op_conf"
)


def main(argv: Sequence[str], host: Host) -> int:
    """Check the arguments, and leave an entry in the knowledge bank."""
    flags = parse_flags(argv, _FLAGS, _FAILED)
    for name, known in (("framework", ["5"]), ("job_type", ["1", "2"])):
        if flags.get(name) not in known:
            raise ToolError(f"Aoe process failed: --{name} must be one of {known}", _FAILED)
    if not host.chips() or not flags.get("output") or not os.path.isfile(flags.get("model", "")):
        raise ToolError("Aoe process failed: no device, --output or --model", _FAILED)
    load_model(Path(flags["model"]), flags.get("input_shape", ""))
    # $TUNE_BANK_PATH is where the real one keeps its knowledge bank, when it is set.
    bank = os.environ.get("TUNE_BANK_PATH")
    if bank and os.path.isdir(bank):
        entry = Path(bank) / f"{Path(flags['output']).name}_job{flags['job_type']}.json"
        entry.write_text(json.dumps({"simulated": True, "model": flags["model"]}))
    print("Aoe process finished")
    return 0
