"""Which of the three drivers a host has, and why not the others.

In the order of preference: `api` (ais_bench's Python interface), `cli` (its command line, or
`ais_infer.py` of CANN 5.1) and `benchmark` (the older tool of guides 001 and 003).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness import simulator
from harness.base import processes
from harness.targets.ascend.api_backend import PROBE_MARK
from harness.targets.ascend.toolkit import Toolkit

ORDER = ("api", "cli", "benchmark")
PROBE_S = 120.0  # a cold import over a network file system takes its time

_BACKEND = Path(__file__).with_name("api_backend.py")


@dataclass(frozen=True)
class Probe:
    """What the interpreter of a toolkit has: for each thing why not, empty where it has it."""

    api: str  # ais_bench.infer.interface and aclruntime can be imported
    module: str  # `python -m ais_bench` can be run
    aclruntime: str  # aclruntime can be imported
    versions: Mapping[str, str] = field(default_factory=dict)
    file: str = ""  # which file aclruntime is


def probe(toolkit: Toolkit, *, log: Path) -> Probe:
    """Look into the toolkit's interpreter, in a child: what it imports may crash or hang."""
    done = processes.run(
        [toolkit.python, str(_BACKEND)], deadline_s=PROBE_S, log=log, env=toolkit.env
    )
    for line in reversed(done.output().replace("\r", "\n").splitlines()):
        if not line.startswith(PROBE_MARK):
            continue
        try:
            found = json.loads(line[len(PROBE_MARK) :])
            return Probe(
                api=str(found["api"]),
                module=str(found["module"]),
                aclruntime=str(found["aclruntime"]),
                file=str(found["file"]),
                versions={str(key): str(value) for key, value in found["versions"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            break
    last = done.tail(lines=1).strip()
    why = f"{toolkit.python}: the look for ais_bench {_ending(done)}" + (
        f" ({last})" if last else ""
    )
    return Probe(api=why, module=why, aclruntime=why)


def available_drivers(toolkit: Toolkit, *, log: Path) -> Mapping[str, str]:
    """For each driver, the preferred one first, why it cannot be used; empty where it can.

    Nothing is run on a device: a driver that is there may still fail to open one.
    """
    seen = probe(toolkit, log=log)
    if simulator.VARIABLE not in toolkit.env and simulator.is_part(Path(seen.file)):
        # A path of a simulation's set_env.sh without its variables: no real run stands on it.
        why = f"{toolkit.python}: {seen.file} is a simulated host's; take it from $PYTHONPATH"
        seen = dataclasses.replace(seen, api=why, module=why, aclruntime=why)
    cli = seen.module
    if toolkit.ais_infer is not None:  # a given script is what runs, whatever else is there
        cli = seen.aclruntime
        if not toolkit.ais_infer.is_file():
            cli = f"{toolkit.ais_infer} is not there"
    return {"api": seen.api, "cli": cli, "benchmark": _why_no_benchmark(toolkit.benchmark)}


def _why_no_benchmark(program: Path | None) -> str:
    if program is None:
        return "no benchmark.x86_64 or benchmark.aarch64 was found"
    if not program.is_file():
        return f"{program} is not there"
    if not os.access(program, os.X_OK):
        return f"{program} may not be executed: chmod u+x {program}"
    return ""


def _ending(done: processes.Completed) -> str:
    if done.timed_out:
        return f"was stopped after {done.seconds:.0f} s"
    return processes.describe_exit(done.returncode)
