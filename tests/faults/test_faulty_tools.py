"""Every fault of the simulated tools, on any device, at any time, through any driver."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from harness.base.stages import Stage
from harness.judge.causes import Exit
from harness.simulator.faults import DRIVERS, FAULTS, Fault
from tests.faults.injected import tools
from tests.faults.started import HOOK, ROLES, Place, Started

TOOLS = {"atc": ROLES["atc"], "npu-smi": "/npu-smi\0"}
HANGS = "--deadline-factor=0.1"
CODES = {Exit.PASSED, Exit.ACCEPTANCE_FAILED, Exit.INCONCLUSIVE_ONLY, Exit.MACHINE_TROUBLE}


def random_fault(rng: random.Random) -> list[str]:
    """Options for one fault, on one device of two or on both, always or the first few times."""
    name = rng.choice(sorted(FAULTS))
    kind = FAULTS[name]
    driver = rng.choice([one for one in DRIVERS if one in kind.places] or DRIVERS)
    count = None if kind.lasts else 1 if "hang" in name else rng.choice((None, 1, 2))
    fault = Fault(name, rng.choice((None, 0, 1)), count)
    return [f"--simulator=cards=2,fault={fault.text}", f"--driver={driver}"]


@pytest.mark.fault(
    "each fault of the simulated tools",
    sees="the tool, the stage and the remedy; or, where it was repeated, nothing",
    keeps="the cases that it did not strike, every artifact that was whole",
)
def test_a_tool_that_misbehaves(place: Place, tries):
    for rng in tries(1, 40):
        options = random_fault(rng)
        print(options)
        run = place.start(HANGS, *options)
        check(place, run)
    place.green()


def check(place: Place, run: Started) -> None:
    """Every case has its line, and what is kept is whole."""
    assert run.wait() in CODES, run.text()
    assert "\nTraceback" not in run.text()  # but in the log of a tool
    assert "INTERNALERROR" not in run.text()
    found = place.records()
    assert found.end is not None
    assert len(found.cases) == len(found.plan)
    place.check_kept()


@pytest.mark.fault(
    "a tool that talks megabytes, says nothing or half, ends with another code, loses its file, "
    "leaves a child or is gone, from some call on",
    sees="the tool, the stage and the remedy; or nothing, where it does not matter",
    keeps="the cases that it did not strike, every artifact that was whole",
)
def test_a_tool_that_lies(place: Place, tries):
    for rng in tries(1, 30):
        tool, word = rng.choice(sorted(TOOLS.items()))
        deed = rng.choice(sorted(tools.DEEDS))
        after = 0 if tool == "atc" else rng.choice((0, 1, 3))
        print(f"{tool}: {deed} after {after} calls")
        if tool == "atc":
            shutil.rmtree(place.store / "v1" / Stage.COMPILE, ignore_errors=True)
        place.calls.unlink(missing_ok=True)
        asked = {"word": word, "deed": deed, "after": after, "calls": str(place.calls)}
        env = {"FAULTY_TOOL": json.dumps(asked), "PYTHONPATH": str(HOOK)}
        check(place, place.start("-n0", HANGS, env=env))
    place.green()
