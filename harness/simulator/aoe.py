"""A stand-in for `aoe`, the tuner that replaced atc's `--auto_tune_mode`.

Known of the real one: its arguments, that it needs a device, and that it takes hours. What it
prints is not known, so this one says no more than that it ended. It tunes nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness.simulator.atc import AtcError, load_model
from harness.simulator.host import Host

FAILED = 255
_FLAGS = (
    "device framework help input_format input_shape job_type log model model_path output "
    "precision_mode reload progress_bar output_type insert_op_conf"
)


def main(argv: Sequence[str], host: Host | None = None) -> int:
    """Check the arguments, and leave an entry in the knowledge bank."""
    host = host or Host.load()
    host.log_call("aoe", argv)
    flags = {}
    for word in argv:
        match = re.fullmatch(r"--([a-z_]+)=(.*)", word)
        if not match or match[1] not in _FLAGS.split():
            return _failed(f"unknown argument {word!r}")
        flags[match[1]] = match[2]
    absent = [n for n in ("framework", "model", "job_type", "output") if not flags.get(n)]
    if absent:
        return _failed(f"[--{absent[0]}] is required")
    if flags["framework"] != "5" or flags["job_type"] not in ("1", "2"):
        return _failed("framework must be 5, job_type 1 or 2")
    if not host.chips():
        return _failed("no device")
    if not os.path.isfile(flags["model"]):
        return _failed(f"{flags['model']} does not exist")
    try:
        load_model(Path(flags["model"]), flags.get("input_shape", ""))
    except AtcError as error:
        return _failed(error.text)
    # $TUNE_BANK_PATH is where the real one keeps its knowledge bank, when it is set.
    bank = os.environ.get("TUNE_BANK_PATH")
    if bank and os.path.isdir(bank):
        entry = Path(bank) / f"{Path(flags['output']).name}_job{flags['job_type']}.json"
        entry.write_text(json.dumps({"simulated": True, "model": flags["model"]}))
    print("Aoe process finished", flush=True)
    return 0


def _failed(text: str) -> int:
    print(f"Aoe process failed: {text}", flush=True)
    return FAILED
