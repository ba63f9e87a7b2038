"""What the family `ascend` offers a run, and what it needs of a host."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.base import files, scratch
from harness.base.errors import HarnessError
from harness.plan import Missing
from harness.settings import Settings
from harness.targets.ascend import doctor, simulation
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.host import Place, looked_at, require_chip, soc_name
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.target import AscendTarget
from harness.targets.ascend.toolkit import NOWHERE
from harness.targets.ascend.workspace import PLAIN_PLACE, is_plain
from harness.targets.protocol import Target
from harness.targets.provider import Detected, Finding, Look, Provider

DETECT_S = 10.0  # whoever starts pytest waits for it


class AscendProvider(Provider):
    """Chips of Ascend cards, of this host or of a simulated one."""

    def make(self, name: str, settings: Settings, folder: Path) -> Target:
        place = Place(folder / "logs", folder / "work", settings.leases_of(folder))
        if not settings.of(AscendOptions).simulate_ascend:
            return AscendTarget(name, settings, place)
        own, environment = simulation.host(settings, folder / "simulator")
        return AscendTarget(name, own, place, environment)

    def detect(self, settings: Settings) -> Detected:
        """Return the target of the chip that `--soc-version` names, else of the NPU that npu-smi
        shows.

        What a run would find is found here, but for patience: each step has `DETECT_S` seconds.
        """
        options = settings.of(AscendOptions)
        if options.soc_version is not None:
            named = _target_of(soc_name(options.soc_version))
            if named is None:
                chips = ", ".join(CHIPS.values())
                return Detected(None, f"--soc-version={options.soc_version} is none of: {chips}")
            return Detected(named, "the chip of --soc-version")
        seconds = DETECT_S * settings.deadline_factor
        # Tools that only a run needs are not looked at: whoever needs them says what is wrong.
        few = dataclasses.replace(options, atc=None, ais_python=None)
        with looked_at(few, settings.leases, os.environ, seconds) as host:
            try:
                info = host.info()
                problem = host.toolkit.problem
            except HarnessError as error:
                remedy = f"; {error.remedy}" if error.remedy else ""
                return Detected(None, error.message + remedy)
        if info is None:
            why = f" (not usable: {problem})" if problem else ""
            return Detected(None, f"no npu-smi is on this host{why}")
        shown = sorted({chip.soc_version for chip in info.chips})
        targets = [name for chip in shown if (name := _target_of(chip)) is not None]
        if len(targets) == 1:
            return Detected(targets[0], "the NPU that npu-smi shows")
        kinds, wanted = " and ".join(shown), ", ".join(CHIPS.values())
        return Detected(None, f"npu-smi says {kinds}, and targets are for {wanted}")

    def lacking(self, settings: Settings, *, building: bool) -> Sequence[Missing]:
        options = settings.of(AscendOptions)
        missing = _lacking_place(settings, building=building)
        if options.simulate_ascend:
            return missing
        with looked_at(options, settings.leases, os.environ) as host:
            tools = host.toolkit
        if tools.npu_smi is None and settings.device is None and not building:
            missing.append(
                Missing(
                    f"npu-smi: nothing says which NPU is there; {NOWHERE}",
                    "the driver's tools, or --device=N; a host without an NPU can only build: "
                    "python -m harness cache build",
                )
            )
        if tools.atc is None:
            missing.append(
                Missing(
                    f"atc: CANN's compiler; {NOWHERE}",
                    "CANN's toolkit and its set_env.sh, --ascend-home=DIR or --atc=FILE",
                )
            )
        return missing

    def check(self, settings: Settings) -> None:
        options = settings.of(AscendOptions)
        require_chip(options.soc_version, settings.target or "")
        if options.simulate_ascend:
            simulation.check(options, settings.target)

    def cluster_needs(self, settings: Settings) -> Mapping[str, float]:
        options = settings.of(AscendOptions)
        if options.simulate_ascend:
            return {}
        chip = soc_name(options.soc_version or CHIPS[settings.target or ""])
        return {"NPU": 1, f"accelerator_type:{chip}": 0.001}  # Ray finds both by itself

    def remarks(self, settings: Settings, run_dir: Path) -> Sequence[str]:
        return simulation.remarks(run_dir) if settings.of(AscendOptions).simulate_ascend else ()

    def nothing_here(self) -> tuple[frozenset[str], Finding]:
        return doctor.NOTHING_HERE

    def looks(self, settings: Settings) -> Sequence[Look]:
        return doctor.looks(settings)


def _lacking_place(settings: Settings, *, building: bool) -> list[Missing]:
    """Return why the tools could not work where a run or a build keeps its files."""
    folder, option = (
        (scratch.temporary(), "TMPDIR=DIR") if building else (settings.runs, "--runs=DIR")
    )
    real, missing = folder.resolve(), []
    if not building and not is_plain(real):
        what = f"a folder of runs that CANN's tools take: they refuse paths like {str(real)!r}"
        missing.append(Missing(what, PLAIN_PLACE))
    if settings.of(AscendOptions).simulate_ascend and not files.starts_programs(real):
        what = f"a place for the simulated tools: {real} is on a file system mounted noexec"
        missing.append(Missing(what, f"{option} on another file system"))
    return missing


def _target_of(soc_version: str) -> str | None:
    return next((name for name, chip in CHIPS.items() if chip == soc_version), None)


PROVIDER = AscendProvider()
