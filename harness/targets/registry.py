"""Targets by name. A new target is one file and one line here."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from harness import simulator
from harness.base import locks
from harness.base.errors import ConfigError
from harness.settings import Settings, with_target
from harness.targets.ascend import target
from harness.targets.ascend.target import CHIPS, AscendTarget, Place
from harness.targets.cpu.target import CpuTarget
from harness.targets.cuda import target as cuda
from harness.targets.cuda.target import CudaTarget
from harness.targets.protocol import Target

# Settings that name tools of a real host, where a simulated one has its own.
_REAL_TOOLS = ("ais_infer", "ais_python", "ascend_home", "atc", "benchmark_tool", "npu_smi")

Maker = Callable[[Settings, Path], Target]


def _ascend(name: str) -> Maker:
    def make(settings: Settings, folder: Path) -> Target:
        # A simulated host is the run's own, with its npu-smi.
        locks_dir = folder / "leases" if settings.simulate_ascend else settings.leases
        place = Place(folder / "logs", folder / "work", locks_dir)
        if not settings.simulate_ascend:
            return AscendTarget(name, settings, place)
        host = folder / "simulator"
        environment = simulated_host(settings, host)
        # Tools of a real host must not be found behind the simulated ones.
        alone = dataclasses.replace(
            settings,
            ais_infer=simulator.ais_infer_script(host),
            ais_python=None,
            ascend_home=None,
            atc=None,
            benchmark_tool=None,
            npu_smi=None,
        )
        return AscendTarget(name, alone, place, environment)

    return make


_MAKERS: Mapping[str, Maker] = {
    "cpu": lambda settings, folder: CpuTarget(settings.deadline_factor),
    "cuda": lambda settings, folder: CudaTarget(settings),
    **{name: _ascend(name) for name in CHIPS},
}


def available() -> tuple[str, ...]:
    """Names of the targets that this version can run on."""
    return tuple(_MAKERS)


def make_target(name: str, settings: Settings, folder: Path) -> Target:
    """The target of that name, for a run whose files lie in `folder`.

    Raises:
        ConfigError: a target that this version has not, or options that do not fit it.
    """
    if name not in _MAKERS:
        raise ConfigError(
            f"this version cannot run on the target {name!r}",
            remedy=f"targets: {', '.join(_MAKERS)}",
        )
    return _MAKERS[name](settings, folder)


def located(settings: Settings) -> Settings:
    """With the target of the hardware that this host shows, or why there is none, where nobody
    named one.
    """
    if settings.configured:
        return settings
    found, why_not = target.detect(settings)
    return with_target(settings, found, why_not)


def lacking(settings: Settings, *, building: bool = False) -> list[tuple[str, str]]:
    """What the settings' target needs of this host and does not find: (thing, remedy).

    `building`: models are compiled here and run nowhere.
    """
    if settings.target in CHIPS and not settings.simulate_ascend:
        return target.lacking(settings, building=building)
    if settings.target == "cuda":
        return cuda.lacking()
    return []


def check(settings: Settings) -> None:
    """What the options of a simulation say, before anything runs.

    Raises:
        ConfigError: options that cannot be read, a fault that nothing can show, or a host without
            a compiler, as on a real one.
    """
    if not settings.simulate_ascend:
        return
    config = _simulation(settings)
    simulator.check_faults(config, settings.driver)
    if "atc" in config.without:
        raise ConfigError(
            "the simulated Ascend host has no atc, which compiles the models",
            remedy="leave out without=atc of --simulator",
        )


def unused(settings: Settings) -> tuple[str, ...]:
    """Tools of a real host that were named for a simulated one, which has its own."""
    if not settings.simulate_ascend:
        return ()
    named = {name: getattr(settings, name) for name in _REAL_TOOLS}
    return tuple(
        f"--{name.replace('_', '-')}={path}" for name, path in named.items() if path is not None
    )


def _simulation(settings: Settings) -> simulator.SimulatorConfig:
    chip = CHIPS[settings.target or "ascend310p3"].removeprefix("Ascend")
    return simulator.parse_config(settings.simulator, usual_chip=chip)


def simulated_host(settings: Settings, folder: Path) -> Mapping[str, str]:
    """The environment of a host that has the simulated CANN.

    Installed once for a run: its processes share the simulated devices and their state.
    """
    config = _simulation(settings)
    marker = folder / "environment.json"
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder / ".installing", timeout_s=60.0, what="the simulator"):
        if not marker.is_file():
            found = simulator.install(folder, config, environment=dict(os.environ))
            changed = {key: value for key, value in found.items() if os.environ.get(key) != value}
            marker.write_text(json.dumps(changed), encoding="utf-8")
    return {**os.environ, **json.loads(marker.read_text(encoding="utf-8"))}
