"""Which throughput figures count: which may be called the best, or stand in a ratio."""

from __future__ import annotations

from harness.judge.causes import strange_times, wrong_outputs
from harness.records.lines import CaseLine


def why_not(case: CaseLine) -> str:
    """Why a measured throughput counts for nothing, in a word or two; empty where it counts.

    A slow one counts: it is a figure of the model. One that is undecided (the device was busy, the
    samples too unsteady) is a figure of the machine, and that of a wrong model is none at all.
    """
    if wrong_outputs(case):
        return "wrong outputs"
    if strange_times(case):
        return "wrong times"
    if case.outcome == "inconclusive" or (
        case.verdict is not None and case.verdict.kind == "INCONCLUSIVE"
    ):
        return "not decided"
    if case.outcome in ("passed", "recorded", "failed", "known_failure"):
        return ""
    return "no verdict"
