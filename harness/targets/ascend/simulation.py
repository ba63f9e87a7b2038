"""The registration of the simulated Ascend host: the only place that imports `harness.simulator`,
and only in a simulated run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base import locks
from harness.base.errors import ConfigError
from harness.base.options import REAL, rows
from harness.settings import Settings
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.toolkit import Toolkit

if TYPE_CHECKING:
    from harness.simulator import SimulatorConfig

# How a real run recognises a simulated host; the simulator writes both.
VARIABLE = "NPU_SIMULATOR"
NOTICE = "Part of a SIMULATED Ascend host, made by harness.simulator; never a real tool."
NOTICE_BYTES = 2000  # of a tool's beginning, in which it says so


def check(options: AscendOptions, target: str | None) -> str:
    """Return the chip that is played, as atc names it. Raises `ConfigError`: a host that cannot be
    described so, or one without a compiler.
    """
    config = _config(options, target)
    if "atc" in config.without:
        raise ConfigError(
            "the simulated Ascend host has no atc, which compiles the models",
            remedy="leave out without=atc of --simulator",
        )
    return config.soc_version


def needs_python(options: AscendOptions) -> bool:
    """Return whether atc needs a Python of its own: a simulated one only where it is told so."""
    return not options.simulate_ascend or _config(options, None).atc_python


def _config(options: AscendOptions, target: str | None) -> SimulatorConfig:
    from harness import simulator

    chip = CHIPS[target or next(iter(CHIPS))].removeprefix("Ascend")
    return simulator.parse_config(options.simulator, usual_chip=chip)


def host(settings: Settings, folder: Path) -> tuple[Settings, Mapping[str, str]]:
    """Return settings and environment of a run on the simulated host in `folder`.

    It is installed once for a run: its processes share the simulated devices and their state. The
    settings name no tool of a real host.
    """
    from harness import simulator

    options = settings.of(AscendOptions)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder / ".installing", timeout_s=60.0, what="the simulator"):
        if not (folder / "simulator.json").is_file():
            simulator.install(folder, _config(options, settings.target))
    tools = (row.name for row in rows(AscendOptions) if row.used_in == REAL)
    none: dict[str, Any] = dict.fromkeys(tools)
    changed = settings.with_options(dataclasses.replace(options, **none))
    return changed, simulator.environment(folder, os.environ)


def remarks(run_dir: Path) -> tuple[str, ...]:
    """Return a sentence for each planted fault that never struck in a finished run."""
    from harness import simulator

    return simulator.never_struck(run_dir / "simulator")


# Keeping the two kinds of host apart -------------------------------------------------------------


def is_part(tool: Path) -> bool:
    """Return whether a file is a simulated host's tool: each says so near its beginning."""
    try:
        with tool.open("rb") as file:
            return NOTICE.encode() in file.read(NOTICE_BYTES)
    except OSError:
        return False


def refuse(toolkit: Toolkit) -> Toolkit:
    """Return the toolkit of a real host; refuse a simulated one, whoever put it on a search path.
    Raises `ConfigError`: a part of it is simulated.
    """
    for tool in (toolkit.atc, toolkit.aoe, toolkit.npu_smi):
        if VARIABLE in toolkit.env or (tool is not None and is_part(tool)):
            raise ConfigError(
                f"a simulated Ascend host would stand behind a real run: {tool or 'its variables'}",
                remedy="start from a shell that did not source a simulation's set_env.sh, without "
                f"${VARIABLE}; or simulate: --simulate-ascend",
            )
    return toolkit


def only_simulated(toolkit: Toolkit) -> Toolkit:
    """Return the toolkit of a simulated host without what belongs to a real one."""
    root = Path(toolkit.env[VARIABLE]).parent

    tools: dict[str, Any] = {}
    for name in ("npu_smi", "atc", "aoe"):
        path = getattr(toolkit, name)
        tools[name] = path if path is not None and path.is_relative_to(root) else None
    return dataclasses.replace(toolkit, **tools, comparers={}, devlib=None)
