"""How a measurement was made, and what its device looked like meanwhile.

Figures are comparable when they were made alike, on a device of their own: idle before, healthy,
not throttled. "unknown" is an answer of its own (old drivers print no processes), never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        """Return why a figure measured meanwhile decides nothing; empty when it may decide."""
        states = {
            f"unhealthy ({self.health})": self.health.upper() not in ("", "OK"),
            "busy": self.busy == "yes",
            "throttled": self.throttled == "yes",
        }
        troubles = " and ".join(state for state, holds in states.items() if holds)
        note = f" ({self.note})" if self.note else ""
        return f"{troubles} {self.moment} the measurement{note}" if troubles else ""


@dataclass(frozen=True)
class Setup:
    """How a throughput was measured: what a baseline states of itself, said of the run."""

    driver: str = ""  # "api", "cli", "onnxruntime"
    method: str = "pure-inference"
    tuning: str = "none"  # "none", "RL,GA", "aoe"
    chip: str = ""  # "Ascend310P3"
    card: str = ""  # the product as the tools name it; empty when they do not
    chips: int | None = None  # chips on the card; None where nobody counted them
    toolchain: str = ""  # "CANN 8.0.RC2"
    note: str = ""  # e.g. why it is untuned
    input: str = "float32"  # or "uint8": the compiled model normalises
    dynamic_batch: str = "none"  # or the batch sizes that the compiled file serves: "1,4,8"
