"""Processes of a run that are killed at any moment, and what is there afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from harness.base.stages import Stage
from harness.judge.causes import Exit
from harness.records.writer import RESULTS
from tests.faults.started import ROLES, Place, Started

# Removed from the store before a try, so that there is something to build.
BUILT = (Stage.COMPILE, Stage.SIMPLIFY, Stage.EXPORT, Stage.EAGER, Stage.CROPS, Stage.PROBE)
MACHINE = "the run goes on; a case that was lost is said to be the machine's, and the code is 7"


def strikes(run: Started, role: str, rng: random.Random) -> int:
    """Kill processes of a role at some moments of their lives: one, or up to three where the run
    goes on, among them those that take a killed one's place. Return how many were killed.
    """
    most = 1 if role == "controller" else rng.randint(1, 3)
    return sum(strike(run, role, rng) for _ in range(most))


def strike(run: Started, role: str, rng: random.Random) -> bool:
    """Kill one of a role; False where none lived then."""
    while not (found := of_role(run, role)):
        if run.process.poll() is not None:
            return False
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 6.0 if role == "controller" else 2.0) * rng.random())
    if not (found := of_role(run, role) or found):
        return False
    try:
        os.kill(rng.choice(sorted(found)), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def of_role(run: Started, role: str) -> list[int]:
    word = ROLES[role]
    return [pid for pid, line in run.members().items() if word in line]


def lose_artifacts(store: Path, rng: random.Random, kinds: int, *always: Stage) -> None:
    for kind in (*rng.sample(BUILT, kinds), *always):
        shutil.rmtree(store / "v1" / kind, ignore_errors=True)


@pytest.mark.parametrize(
    ("role", "short", "whole"),
    [
        pytest.param(
            *(role, short, whole),
            marks=pytest.mark.fault(f"{role} killed at any moment", sees=sees, keeps=keeps),
            id=role.replace(" ", "-"),
        )
        for role, short, whole, sees, keeps in [
            (
                *("controller", 1, 45),
                "the shell says so; `why` calls the run incomplete, with what lacks",
                "every line that was written, every artifact that was whole",
            ),
            ("xdist worker", 0, 30, MACHINE, "the other cases and every artifact that was whole"),
            ("device worker", 1, 25, MACHINE, "the other cases"),
            ("eager worker", 0, 20, MACHINE, "the other cases"),
            ("job", 0, 20, MACHINE, "the other cases, and no half artifact"),
            ("atc", 1, 20, MACHINE, "the other cases, and no half artifact"),
        ]
    ],
)
def test_a_process_that_is_killed(role, short, whole, ready, tmp_path, tries, record_property):
    killed = 0
    for rng in tries(short, whole, share=1.5):
        folder = tmp_path / str(rng.random())
        shutil.copytree(ready.store, folder / "store", symlinks=True)
        place = Place(folder)
        kinds = {"job": 3, "atc": 6}.get(role, rng.randrange(3))
        lose_artifacts(place.store, rng, kinds, *([Stage.EAGER] * (role == "eager worker")))
        run = place.start()
        try:
            struck = strikes(run, role, rng)
            code = run.wait()
            check(place, run, role, code, struck=bool(struck))
            killed += struck
            begun = (place.latest / RESULTS).is_file()
            if code != Exit.PASSED:
                place.green(*([f"--resume={place.latest}"] if begun else []))
        finally:
            place.end()
        shutil.rmtree(folder)
    record_property("tries", killed)


def check(place: Place, run: Started, role: str, code: int, *, struck: bool) -> None:
    """Nothing is lost, and the end is what it is said to be."""
    place.check_kept()
    if role == "controller":  # its workers may say of their pipe that it broke
        assert code == -signal.SIGKILL or not struck
        if (place.latest / RESULTS).is_file():  # it may not have begun
            place.records()
        return
    assert "INTERNALERROR" not in run.text()
    assert "\nTraceback" not in run.text()  # but in the log of a tool
    found = place.records()
    outcomes = [case.outcome for case in found.cases]
    assert found.end is not None, run.text()
    assert found.end.exit_status == code
    assert len(outcomes) == len(found.plan), run.text()
    if code == Exit.PASSED:  # what was killed had done its work, or was replaced
        assert set(outcomes) <= {"passed", "recorded"}
    else:
        assert code == Exit.MACHINE_TROUBLE, run.text()
