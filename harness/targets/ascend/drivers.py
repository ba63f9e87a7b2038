"""Which of the three drivers a host has, and why not the others.

In the order of preference: `api` (ais_bench's Python interface), `cli` (its command line, or
`ais_infer.py` of CANN 5.1) and `benchmark` (the older tool of guides 001 and 003).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.base import processes
from harness.base.errors import NoSession
from harness.targets.ascend import simulation
from harness.targets.ascend.api_backend import PROBE_MARK
from harness.targets.ascend.toolkit import Toolkit

PROBE_S = 120.0  # a cold import over a network file system takes its time
BACKEND = Path(__file__).with_name("api_backend.py")
LEAST_WARMUP = 5
"""Executions before those of a call of ais_bench are timed; the first after a start are slower."""
INSTALL = (
    "install the ais_bench and aclruntime wheels into the Python that --ais-python names: with "
    "msProbe in it, msprobe install_deps -m offline"
)
NO_BENCHMARK = "no benchmark.x86_64 or benchmark.aarch64 was found"


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
        [toolkit.python, str(BACKEND)], deadline_s=PROBE_S, log=log, env=toolkit.env
    )
    lines = done.output().replace("\r", "\n").splitlines()
    answers = [line for line in lines if line.startswith(PROBE_MARK)]
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return Probe(**json.loads(answers[-1][len(PROBE_MARK) :]))
    last = done.tail(lines=1).strip()
    why = f"looking for ais_bench, {toolkit.python}: {done.describe()}" + f" ({last})" * bool(last)
    return Probe(api=why, module=why, aclruntime=why)


def available_drivers(toolkit: Toolkit, *, log: Path) -> Mapping[str, str]:
    """For each driver, the preferred one first, why it cannot be used; empty where it can.

    Nothing is run on a device: a driver that is there may still fail to open one.
    """
    probed = probe(toolkit, log=log)
    if simulation.VARIABLE not in toolkit.env and simulation.is_part(Path(probed.file)):
        # A path of a simulation's set_env.sh without its variables: no real run stands on it.
        why = f"{toolkit.python}: {probed.file} is a simulated host's; take it from $PYTHONPATH"
        probed = dataclasses.replace(probed, api=why, module=why, aclruntime=why)
    cli = probed.module
    if toolkit.ais_infer is not None:  # a given script is what runs, whatever else is there
        cli = probed.aclruntime
    return {"api": probed.api, "cli": cli, "benchmark": "" if toolkit.benchmark else NO_BENCHMARK}


def choose(toolkit: Toolkit, asked: str | None, *, log: Path) -> str:
    """Return the driver that was asked for, or the first that is there.

    Raises:
        NoSession: it cannot be used, or none can, with the reason for each.
    """
    reasons = available_drivers(toolkit, log=log)
    if asked is not None:
        if reasons[asked]:
            raise NoSession(
                f"--driver={asked} cannot be used here: {reasons[asked]}",
                remedy="docs/ascend.md says what each driver needs; without --driver the first "
                "that is there is taken",
            )
        return asked
    for name, why in reasons.items():
        if not why:
            return name
    text = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    raise NoSession(
        f"nothing here can run a compiled model ({text})", remedy=f"{INSTALL} (docs/ascend.md)"
    )


def tool_command(python: str, script: Path | None) -> list[str]:
    """Return how ais_bench is started: `ais_infer.py` where one was given, else the package.

    A given script wins over a package that is there, too: a guide's figure is that of its tool.
    """
    return [python, "-m", "ais_bench"] if script is None else [python, str(script)]


def run_command(
    toolkit: Toolkit, driver: str, file: Path, device_id: int, batch_size: int
) -> list[str]:
    """Return the command that times a compiled model by hand."""
    if driver == "benchmark":
        tool = str(toolkit.benchmark or "benchmark")
        run = [tool, "-round=20", f"-om_path={file}", f"-device_id={device_id}"]
        return [*run, f"-batch_size={batch_size}"]
    script = toolkit.ais_infer if driver == "cli" else None
    run = tool_command(toolkit.python, script)
    run += [f"--model={file}", f"--device={device_id}", f"--batchsize={batch_size}", "--loop=100"]
    # The script has no such option.
    return run if script is not None else [*run, f"--warmup_count={LEAST_WARMUP}"]
