"""How a measurement was made, and what its device looked like meanwhile.

A figure is only comparable with another when both were made alike, and only worth judging when
the device was its own: idle before, healthy, not throttled. Values here carry what is known;
"unknown" is an answer of its own (old drivers print no processes), never a guess.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Answer = Literal["yes", "no", "unknown"]
Moment = Literal["before", "during", "after"]


@dataclass(frozen=True)
class Condition:
    """One look at a device. `busy` speaks of others' processes, not of the measurement's own."""

    moment: Moment
    seconds: float  # since the measurement began; negative before it
    health: str = ""  # as the tool says it ("OK", "Warning", ...); empty when it says nothing
    busy: Answer = "unknown"
    throttled: Answer = "unknown"
    temperature_c: float | None = None
    power_w: float | None = None
    note: str = ""  # which process, which frequency

    @property
    def trouble(self) -> str:
        """Why a figure measured meanwhile decides nothing; empty when nothing speaks against it."""
        found = []
        if self.health and self.health.upper() != "OK":
            found.append(f"unhealthy ({self.health})")
        if self.busy == "yes":
            found.append("busy")
        if self.throttled == "yes":
            found.append("throttled")
        if not found:
            return ""
        return f"{' and '.join(found)} {self.moment} the measurement" + (
            f" ({self.note})" if self.note else ""
        )

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


@dataclass(frozen=True)
class Setup:
    """How a throughput was measured: what a baseline states of itself, said of the run."""

    driver: str = ""  # "api", "cli", "benchmark", "onnxruntime"
    method: str = "pure-inference"  # or e.g. "dataset of 1024 seeded images"
    tuning: str = "none"  # "none", "RL,GA", "aoe"
    chip: str = ""  # "Ascend310P3"
    card: str = ""  # the product as the tools name it; empty when they do not
    chips: int | None = None  # chips on the card; None where nobody counted them
    toolchain: str = ""  # "CANN 8.0.RC2"
    note: str = ""  # e.g. why it is untuned

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)
