"""The options of the Ascend targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.options import REAL, Group, TargetOptions, option, what_option

DRIVERS = ("api", "cli")
"""How models run on an NPU, in the order of preference."""
GROUP = Group("ascend", "pytest --device=0,1 --ais-python=/usr/bin/python3 --tune=none")
# Of a real host: a simulated one has its own.
_TOOL: Mapping[str, Any] = {"group": GROUP, "used_in": REAL}


@dataclass(frozen=True)
class AscendOptions(TargetOptions):
    """What a run is told of CANN, its tools and its chips; paths are absolute."""

    simulate_ascend: bool = what_option(
        "flag",
        "run the Ascend chain on this machine: a stand-in for CANN's tools and an NPU, "
        "generated images, stand-in weights",
        asks_for="simulated",
    )
    simulator: str = what_option(
        "text",
        "what --simulate-ascend plays, e.g. cards=2,fault=busy or time=spin:5; docs/simulator.md "
        "lists keys and faults, and the drivers that show each",
        "KEY=VALUE,...",
        default="",
        empty=True,
        used_in=("simulated",),
    )
    soc_version: str | None = option(
        "text", "the chip, where no npu-smi tells it: Ascend310P3 or 310P3", "CHIP", group=GROUP
    )
    driver: str | None = option(
        "text",
        "how models run on an NPU: api or cli (default: the first that is there)",
        "NAME",
        choices=DRIVERS,
        group=GROUP,
    )
    tune: str = option(
        "text",
        "tuning of compiled models: guide, none, or aoe, which takes hours (default: guide)",
        "HOW",
        default="guide",
        choices=("guide", "none", "aoe"),
        group=GROUP,
    )
    eager_on: str = option(
        "text",
        "where eager PyTorch computes a reference: auto (the NPU where torch_npu is installed and "
        "agrees with the CPU) or cpu (default: auto)",
        "PLACE",
        default="auto",
        choices=("auto", "cpu"),
        **_TOOL,
    )
    ascend_home: Path | None = option(
        "path", "folder of the CANN toolkit (default: where it is found)", "DIR", **_TOOL
    )
    atc: Path | None = option("path", "the atc to use", "FILE", **_TOOL)
    npu_smi: Path | None = option("path", "the npu-smi to use", "FILE", **_TOOL)
    ais_python: str | None = option(
        "text",
        "the Python that has ais_bench and aclruntime (default: this one)",
        "PYTHON",
        **_TOOL,
    )
    cann_python: str | None = option(
        "text",
        "the Python that atc and aoe use (default: the first python3 on PATH outside the "
        "harness's environment)",
        "PYTHON",
        group=GROUP,
    )

    @property
    def simulated(self) -> bool:
        return self.simulate_ascend
