"""The two drivers: which a host has, why not the other, and how `api` opens a model.

In the order of preference: `api`, ais_bench's Python interface in a device worker (the model is
loaded once, batches cross through shared memory, every execution is timed by itself), and `cli`,
its command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.base import processes
from harness.base.errors import FROM_OUTSIDE, NoSession
from harness.targets import sessions
from harness.targets.ascend import simulation
from harness.targets.ascend.api_backend import PROBE_MARK
from harness.targets.ascend.faults import lost_device
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.ascend.workspace import Workspace
from harness.targets.protocol import TensorSpec

PROBE_S = 120.0  # a cold import over a network file system takes its time
BACKEND = Path(__file__).with_name("api_backend.py")
LEAST_WARMUP = 5
"""Executions before those of a call of ais_bench are timed; the first after a start are slower."""
INSTALL = (
    "install the ais_bench and aclruntime wheels into the Python that --ais-python names: with "
    "msProbe in it, msprobe install_deps -m offline"
)


@dataclass(frozen=True)
class Opening:
    """What a driver is given to open a model.

    `file` is an `.om` file, `device_id` a logical id; `input` and `output` are what the model must
    have, of one batch size: one of several that a `dynamic` file serves. `work` is a folder for
    files, of which a private part is used and removed. The deadlines are for loading and for the
    wait for one batch; a tool that does both in each call, over a chunk of batches, gets their sum.
    """

    file: Path
    toolkit: Toolkit
    device_id: int
    input: TensorSpec
    output: TensorSpec
    work: Path
    log: Path
    deadline_open_s: float
    deadline_run_s: float
    dynamic: bool = False
    lease_fds: tuple[int, ...] = ()


def open_api(opening: Opening) -> sessions.WorkerSession:
    """Open an `.om` file in a device worker.

    ais_bench of 2024 and later refuses a file for its path, owner or mode, for root as well: a
    store that another user fills. So a copy in a private folder is opened, which is removed when
    the session is closed.

    Raises:
        LoadError: no ais_bench, no model, or a model with other tensors.
        DeviceError: the device cannot be opened, or the worker would not die.
        ConfigError: the folder for files cannot be used.
    """
    with contextlib.ExitStack() as undo:
        workspace = Workspace(opening.work)
        undo.callback(workspace.close)
        session = sessions.open_session(
            workspace.own_copy(opening.file),
            backend=BACKEND,
            options={
                "device_id": opening.device_id,
                "dynamic_batch": opening.input.shape[0] if opening.dynamic else 0,
            },
            log=opening.log,
            deadline_open_s=opening.deadline_open_s,
            deadline_run_s=opening.deadline_run_s,
            pass_fds=opening.lease_fds,
            python=opening.toolkit.python,
            env=opening.toolkit.env,
            expect=(opening.input, opening.output),
            driver="api",
            explain=lambda error: lost_device(error, opening.device_id) or error,
        )
        session.after.push(undo.pop_all())
    return session


@dataclass(frozen=True)
class Probe:
    """What the interpreter of a toolkit has: for each driver why not, empty where it has it."""

    api: str  # ais_bench.infer.interface and aclruntime can be imported
    cli: str  # `python -m ais_bench` can be run
    versions: Mapping[str, str] = field(default_factory=dict)
    file: str = ""  # which file aclruntime is


def probe(toolkit: Toolkit, *, log: Path) -> Probe:
    """Look into the toolkit's interpreter, in a child: what it imports may crash or hang. Raises
    `NoSession`: somebody killed it, which says nothing of what is there.
    """
    done = processes.run(
        [toolkit.python, str(BACKEND)], deadline_s=PROBE_S, log=log, env=toolkit.env
    )
    lines = done.output().replace("\r", "\n").splitlines()
    answers = [line for line in lines if line.startswith(PROBE_MARK)]
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return Probe(**json.loads(answers[-1][len(PROBE_MARK) :]))
    last = done.tail(lines=1).strip()
    why = f"looking for ais_bench, {toolkit.python}: {done.describe()}" + f" ({last})" * bool(last)
    ended_by = processes.signal_of(done.returncode)
    if ended_by in FROM_OUTSIDE and not done.timed_out:
        raise NoSession(why, signal=ended_by)
    return Probe(why, why)


def available_drivers(toolkit: Toolkit, *, log: Path) -> Mapping[str, str]:
    """For each driver, the preferred one first, why it cannot be used; empty where it can.

    Nothing is run on a device: a driver that is there may still fail to open one.
    """
    probed = probe(toolkit, log=log)
    if simulation.VARIABLE not in toolkit.env and simulation.is_part(Path(probed.file)):
        # A path of a simulation's set_env.sh without its variables: no real run stands on it.
        why = f"{toolkit.python}: {probed.file} is a simulated host's; take it from $PYTHONPATH"
        probed = dataclasses.replace(probed, api=why, cli=why)
    return {"api": probed.api, "cli": probed.cli}


def choose(toolkit: Toolkit, asked: str | None, *, log: Path) -> str:
    """Return the driver that was asked for, or the first that is there. Raises `NoSession`: it
    cannot be used, or none can, with the reason for each.
    """
    reasons = available_drivers(toolkit, log=log)
    if asked is not None and reasons[asked]:
        raise NoSession(
            f"--driver={asked} cannot be used here: {reasons[asked]}",
            remedy="docs/ascend.md says what each driver needs; without --driver the first "
            "that is there is taken",
        )
    for name, why in reasons.items():
        if not why and asked in (None, name):
            return name
    text = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    raise NoSession(
        f"nothing here can run a compiled model ({text})", remedy=f"{INSTALL} (docs/ascend.md)"
    )


def tool_command(python: str) -> list[str]:
    """Return how ais_bench is started."""
    return [python, "-m", "ais_bench"]


def run_command(toolkit: Toolkit, file: Path, device_id: int, batch_size: int) -> list[str]:
    """Return the command that times a compiled model by hand."""
    run = [*tool_command(toolkit.python), f"--model={file}", f"--device={device_id}"]
    return [*run, f"--batchsize={batch_size}", "--loop=100", f"--warmup_count={LEAST_WARMUP}"]


def dynamic_flags(batch_size: int) -> list[str]:
    """Return what tells ais_bench the batch size of a file that serves several."""
    return ["--dymBatch", str(batch_size)]
