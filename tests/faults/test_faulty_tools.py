"""Every fault of the simulated tools, on any device, at any time, through any driver."""

from __future__ import annotations

import random

import pytest

from harness.judge.causes import Exit
from harness.simulator.faults import DRIVERS, FAULTS, Fault
from tests.faults.started import Place

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
    for rng in tries(1, 50):
        options = random_fault(rng)
        print(options)
        run = place.start(HANGS, *options)
        assert run.wait() in CODES, run.text()
        assert "\nTraceback" not in run.text()  # but in the log of a tool
        assert "INTERNALERROR" not in run.text()
        found = place.records()
        assert found.end is not None
        assert len(found.cases) == len(found.plan)
        place.check_kept()
    place.green()
